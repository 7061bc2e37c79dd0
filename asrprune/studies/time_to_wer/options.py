"""What a comparison of costs at equal error rates is made of: lengths, seeds, claims."""

from dataclasses import dataclass

from asrprune.errors import UserError
from asrprune.options import option
from asrprune.studies.data_pruning.options import FULL
from asrprune.studies.options import StudyOptions, check_name

CPU, AUDIO = "cpu_seconds", "hours"
MEASURES = {CPU: "CPU seconds", AUDIO: "hours of audio"}


@dataclass
class LengthOptions:
    """Each of these methods for each of these numbers of epochs with each of these seeds."""

    methods: list[str] = option(factory=list)
    epochs: list[int] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class CostClaimOptions:
    """A sentence to judge: ``method`` costs ``by`` times less than full data.

    The costs are compared at the error rate of full data's ``epochs``.
    """

    claim: str = ""
    method: str = ""
    epochs: int = 0  # of full data; 0: its longest training
    measure: str = option(CPU, choices=tuple(MEASURES))
    by: float = option(1.0, minimum=0)


@dataclass
class TimeToWerOptions(StudyOptions):
    """A comparison of what methods cost until they reach the same error rate."""

    grid: list[LengthOptions] = option(factory=list)
    claims: list[CostClaimOptions] = option(factory=list)

    def check(self, prefix: str) -> None:
        """Check what does not depend on other files.

        Raises:
            UserError: something is missing, or options that do not go together.
        """
        super().check(prefix)
        known = [FULL, *self.methods]
        if FULL in self.methods:
            raise UserError(f"{prefix}methods.{FULL} is always there, and its words are fixed")
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
                    f"{where}: epochs={claim.epochs}: {FULL} is not trained for as many. Choose "
                    f"one of {', '.join(map(str, sorted(lengths)))}, or 0 for the most."
                )
