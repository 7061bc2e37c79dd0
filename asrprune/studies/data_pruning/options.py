"""What a comparison of ways to prune data is made of: keep ratios, seeds, and claims to judge."""

from dataclasses import dataclass

from asrprune.errors import UserError
from asrprune.options import option
from asrprune.studies.options import StudyOptions, check_name

FULL, COMPRESSED, RANDOM = "full", "full_compressed", "random"
# What methods are held against; the words that their trainings add. `COMPRESSED` is full data for
# fewer epochs, with its whole schedule, such that it sees the audio that a keep ratio leaves.
CONTROLS = {
    FULL: ["data_pruning=full"],
    COMPRESSED: ["data_pruning=full"],
    RANDOM: ["data_pruning.policy=random"],
}
PARITY, BETTER, FASTER = "parity", "better", "faster"


@dataclass
class GridOptions:
    """Each of these methods at each of these keep ratios with each of these seeds."""

    methods: list[str] = option(factory=list)
    keep: list[float] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class ClaimOptions:
    """A sentence to judge by what is measured of ``method`` at ``keep``.

    - ``parity``: its error rate is that of full data
    - ``better``: its error rate is lower than that of each of ``than`` at the same keep ratio
    - ``faster``: it trains ``by`` times as fast as full data
    """

    claim: str = ""
    kind: str = option(PARITY, choices=(PARITY, BETTER, FASTER))
    method: str = ""
    keep: float = 1.0
    than: list[str] = option(factory=list)
    by: float = option(1.0, minimum=1)


@dataclass
class DataStudyOptions(StudyOptions):
    """A comparison of ways to prune the training data; ``margin`` is of full data's WER."""

    # trained beside each part of the grid: full data, fewer epochs of it, a random draw
    controls: list[str] = option(factory=lambda: list(CONTROLS))
    grid: list[GridOptions] = option(factory=list)
    claims: list[ClaimOptions] = option(factory=list)

    def check(self, prefix: str) -> None:
        """Check that the options of the comparison are complete and go together.

        Args:
            prefix: the text before an option's name in messages; empty for these options.

        Raises:
            UserError: an option is missing; a name of a method or control is unknown; a control is
                redefined; or a value in the grid or a claim is not valid.
        """
        super().check(prefix)
        known = [*CONTROLS, *self.methods]
        for name in self.controls:
            check_name(f"{prefix}controls", name, list(CONTROLS))
        if FULL not in self.controls:
            raise UserError(f"{prefix}controls: {FULL} is needed, for all else is held against it")
        for name, words in self.methods.items():
            if name in CONTROLS and list(words) != CONTROLS[name]:
                raise UserError(f"{prefix}methods.{name} is a control, whose words are fixed")
        for part in self.grid:
            for name in part.methods:
                check_name(f"{prefix}grid", name, known)
            for keep in part.keep:
                if not 0 < keep <= 1:
                    raise UserError(f"{prefix}grid: keep={keep} must be above 0 and at most 1")
            if not (part.keep and part.seeds) or min(part.seeds) < 0:
                raise UserError(f"{prefix}grid: each part needs keep, and seeds of 0 or more")
        for claim in self.claims:
            for name in (claim.method, *claim.than):
                check_name(f"{prefix}claims: {claim.claim}", name, known)
            if claim.kind == BETTER and not claim.than:
                raise UserError(f"{prefix}claims: {claim.claim}: better than which methods?")
