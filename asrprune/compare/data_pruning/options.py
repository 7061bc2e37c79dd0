"""Options of a comparison of data pruning: methods, keep ratios, seeds, and claims to judge."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import option
from asrprune.compare.options import StudyOptions, check_name

FULL, COMPRESSED, RANDOM = "full", "full_compressed", "random"
# Controls and their overrides. Methods are compared with the controls. `COMPRESSED` trains on full
# data for fewer epochs, with the whole learning-rate schedule, on as much audio as a keep ratio
# leaves.
CONTROLS = {
    FULL: ["data_pruning=full"],
    COMPRESSED: ["data_pruning=full"],
    RANDOM: ["data_pruning.policy=random"],
}
PARITY, BETTER, FASTER = "parity", "better", "faster"


@dataclass
class GridOptions:
    """A part of the grid: each of these methods, at each keep ratio, with each seed."""

    methods: list[str] = option(factory=list)
    keep: list[float] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class ClaimOptions:
    """A claim about ``method`` at the keep ratio ``keep``, to be judged by measurements.

    Types of claims:

    - ``parity``: the method's error rate exceeds that of full data by at most the margin
    - ``better``: the method's error rate is lower than that of each method in ``than`` at the same
      keep ratio
    - ``faster``: the method trains ``by`` times as fast as full data
    """

    claim: str = ""
    kind: str = option(PARITY, choices=(PARITY, BETTER, FASTER))
    method: str = ""
    keep: float = 1.0
    than: list[str] = option(factory=list)
    by: float = option(1.0, minimum=1)


@dataclass
class DataStudyOptions(StudyOptions):
    """Options of a comparison of data pruning. ``margin`` is a share of full data's WER."""

    # controls for each part of the grid: full data, fewer epochs of full data, random keep-sets
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
            raise UserError(f"{prefix}controls: {FULL} is needed: methods are compared with it")
        for name, overrides in self.methods.items():
            if name in CONTROLS and list(overrides) != CONTROLS[name]:
                raise UserError(
                    f"{prefix}methods.{name} is a control, so its overrides are fixed. Choose "
                    "another name"
                )
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
                raise UserError(
                    f"{prefix}claims: {claim.claim}: a claim of kind better compares with other "
                    "methods. Name them in than:"
                )
