"""What a comparison of models of several languages is made of: trainings and their beginnings.

A training may start from the weights of another one, and with masks made of another one's. So
iterative pruning, lottery tickets, and pathways from whatever masks are all written down as
trainings that depend on each other.
"""

from dataclasses import dataclass

from asrprune.errors import UserError
from asrprune.options import option
from asrprune.studies.options import GridOptions, StudyOptions, check_name

ALL = "all"  # languages together
BETTER, NO_WORSE, WORSE_SOMEWHERE, COST = "better", "no_worse", "worse_somewhere", "cost"


@dataclass
class TrainingOptions:
    """A training of all languages, or one for each of them on its speech alone."""

    about: str = ""  # what it is, for the report
    words: list[str] = option(factory=list)  # key=value, changes to the comparison's config
    start: str = ""  # the training whose averaged model it goes on from; empty: none
    masks: str = ""  # the training whose averaged model is pruned for the masks it begins with
    sparsity: float = option(0.0, minimum=0, maximum=1)  # to which that one is pruned
    each_language: bool = False

    def check(self, prefix: str) -> None:
        """Check that a sparsity comes with masks to prune.

        Args:
            prefix: the text before an option's name in messages, such as ``trainings.NAME.``.

        Raises:
            UserError: ``sparsity`` is set, and ``masks`` is not.
        """
        if self.sparsity and not self.masks:
            raise UserError(f"{prefix}sparsity={self.sparsity:g}: of the masks of which training?")


@dataclass
class ClaimOptions:
    """A sentence to judge by what is measured of ``method``; its error rates are those at ``at``.

    - ``better``: they are lower than those of each of ``than``
    - ``no_worse``: they are those of each of ``than``, or lower
    - ``worse_somewhere``: at one of them it is higher than that of ``than``
    - ``cost``: the speech that it was trained on, with all that it begins with, is at most ``by``
      times that of each of ``than``; what trains from nothing does not count, for all need that
    """

    claim: str = ""
    kind: str = option(NO_WORSE, choices=(BETTER, NO_WORSE, WORSE_SOMEWHERE, COST))
    method: str = ""
    than: list[str] = option(factory=list)
    at: list[str] = option(factory=lambda: [ALL])  # languages, or `ALL` of them together
    by: float = option(1.0, minimum=0)


@dataclass
class PathwaysStudyOptions(StudyOptions):
    """A comparison of models of several languages; ``margin`` is of the rival's WER."""

    languages: list[str] = option(factory=list)  # the set of each is that of its place in test_sets
    trainings: dict[str, TrainingOptions] = option(factory=dict)
    grid: list[GridOptions] = option(factory=list)
    claims: list[ClaimOptions] = option(factory=list)

    def check(self, prefix: str) -> None:
        """Check that the options of the comparison are complete and go together.

        Args:
            prefix: the text before an option's name in messages; empty for these options.

        Raises:
            UserError: an option is missing; the languages do not match the test sets; a name of a
                training or language is unknown; or a training, the grid or a claim is not valid.
        """
        super().check(prefix)
        if self.methods:
            raise UserError(f"{prefix}methods: this kind of comparison has trainings instead")
        if len(self.languages) != len(self.test_sets) or ALL in self.languages:
            raise UserError(
                f"{prefix}languages: one for each of the {len(self.test_sets)} test_sets, in their "
                f"order, none named {ALL}"
            )
        known: list[str] = []
        for name, training in self.trainings.items():
            self._check_training(f"{prefix}trainings.{name}", training, known)
            known.append(name)
        for part in self.grid:
            for name in part.methods:
                check_name(f"{prefix}grid", name, known)
            if not part.seeds or min(part.seeds) < 0:
                raise UserError(f"{prefix}grid: each part needs seeds of 0 or more")
        for claim in self.claims:
            where = f"{prefix}claims: {claim.claim}"
            for name in (claim.method, *claim.than):
                check_name(where, name, known)
            if not claim.than:
                raise UserError(f"{where}: {claim.kind}: than which trainings?")
            for language in claim.at:
                if language not in (ALL, *self.languages):
                    raise UserError(f"{where}: at={language}: no language of the comparison")

    def _check_training(self, where: str, training: TrainingOptions, known: list[str]) -> None:
        for key in ("start", "masks"):
            source = getattr(training, key)
            if source:
                check_name(f"{where}.{key} (it is to be named before)", source, known)
        single = training.start and self.trainings[training.start].each_language
        if single and not training.each_language:
            raise UserError(
                f"{where}.start={training.start}: that is a model for each language, and this "
                "training is of all"
            )
