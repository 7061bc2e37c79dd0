"""Options of a comparison of costs at equal error rates: lengths of training, seeds, claims."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import option
from asrprune.compare.data_pruning.options import FULL
from asrprune.compare.options import StudyOptions, check_name

CPU, AUDIO = "cpu_seconds", "hours"
MEASURES = {CPU: "CPU seconds", AUDIO: "hours of audio"}


@dataclass
class LengthOptions:
    """A part of the grid: each of these methods, for each number of epochs, with each seed."""

    methods: list[str] = option(factory=list)
    epochs: list[int] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class CostClaimOptions:
    """A claim to judge: full data costs at least ``by`` times as much as ``method``.

    The costs are compared at the error rate that full data reaches after ``epochs``.
    """

    claim: str = ""
    method: str = ""
    epochs: int = 0  # epochs of full data; 0: its longest training
    measure: str = option(CPU, choices=tuple(MEASURES))
    by: float = option(1.0, minimum=0)


@dataclass
class TimeToWerOptions(StudyOptions):
    """Options of a comparison of the costs of methods at equal error rates."""

    # Results files of other comparisons. A training that one of them has, made in the same way from
    # the same data, is not run again. Times of another machine are scaled to one pace.
    reuse: list[str] = option(factory=list)
    grid: list[LengthOptions] = option(factory=list)
    claims: list[CostClaimOptions] = option(factory=list)

    def check(self, prefix: str) -> None:
        """Check that the options of the comparison are complete and go together.

        Args:
            prefix: the text before an option's name in messages; empty for these options.

        Raises:
            UserError: an option is missing; full data is redefined, or has fewer than two lengths;
                the name of a method is unknown; or a value in the grid or a claim is not valid.
        """
        super().check(prefix)
        known = [FULL, *self.methods]
        if FULL in self.methods:
            raise UserError(
                f"{prefix}methods.{FULL} is always there, and its overrides are fixed. Choose "
                "another name"
            )
        for part in self.grid:
            for name in part.methods:
                check_name(f"{prefix}grid", name, known)
            if not (part.methods and part.epochs and part.seeds):
                raise UserError(f"{prefix}grid: each part needs methods, epochs and seeds")
            if min(part.epochs) < 1 or min(part.seeds) < 0:
                raise UserError(f"{prefix}grid: epochs are 1 or more, and seeds 0 or more")
        lengths = {length for part in self.grid if FULL in part.methods for length in part.epochs}
        if len(lengths) < 2:
            raise UserError(f"{prefix}grid: the method {FULL} needs two lengths at least")
        for claim in self.claims:
            where = f"{prefix}claims: {claim.claim}"
            check_name(where, claim.method, list(self.methods))
            if claim.epochs not in {0, *lengths}:
                raise UserError(
                    f"{where}: epochs={claim.epochs}: {FULL} is not trained for so many epochs. "
                    f"Choose one of {', '.join(map(str, sorted(lengths)))}, or 0 for the longest "
                    "training."
                )
