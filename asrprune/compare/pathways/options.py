"""Options of a comparison of models of several languages: trainings and their sources.

A training may start from the weights of another training. Its first masks may come from pruning the
model of another training. Iterative pruning, lottery tickets and pathways are therefore written as
trainings that depend on each other.
"""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import option
from asrprune.compare.options import GridOptions, StudyOptions, check_name

ALL = "all"  # languages together
BETTER, NO_WORSE, WORSE_SOMEWHERE, COST = "better", "no_worse", "worse_somewhere", "cost"


@dataclass
class TrainingOptions:
    """One training of some languages, or a training for each language on that language's speech."""

    about: str = ""  # a description for the report
    overrides: list[str] = option(factory=list)  # key=value changes of the configuration
    start: str = ""  # the training whose averaged model gives the first weights; empty: none
    # The training whose averaged model gives the first masks; empty: none. The model is pruned for
    # masks. If it gives the first weights too and `sparsity` is 0, its own masks are taken.
    masks: str = ""
    sparsity: float = option(0.0, minimum=0, maximum=1)  # of the model that is pruned for masks
    each_language: bool = False  # whether each language has a training of its own
    languages: list[str] = option(factory=list)  # that are trained; empty: all
    tested: list[str] = option(factory=list)  # languages that are decoded; empty: those trained

    def check(self, prefix: str) -> None:
        """Check that a sparsity comes with masks to prune.

        Args:
            prefix: the text before an option's name in messages, such as ``trainings.NAME.``.

        Raises:
            UserError: ``sparsity`` is set, and ``masks`` is not.
        """
        if self.sparsity and not self.masks:
            raise UserError(
                f"{prefix}sparsity={self.sparsity:g} needs masks: the training whose model is "
                "pruned to this sparsity"
            )


@dataclass
class ClaimOptions:
    """A claim about ``method``, to be judged by error rates in the languages of ``at``.

    Types of claims:

    - ``better``: the method's error rates are lower than those of each training in ``than``.
    - ``no_worse``: the method's error rates are not higher than those of any training in ``than``.
    - ``worse_somewhere``: in at least one language, the method's error rate is higher than that of
      ``than``.
    - ``cost``: the method and its sources train on at most ``by`` times as many hours of speech as
      each training in ``than`` with its sources. A source that starts from nothing does not count,
      because all trainings need it.
    """

    claim: str = ""
    kind: str = option(NO_WORSE, choices=(BETTER, NO_WORSE, WORSE_SOMEWHERE, COST))
    method: str = ""
    than: list[str] = option(factory=list)
    at: list[str] = option(factory=lambda: [ALL])  # languages, or `ALL`: all of them together
    by: float = option(1.0, minimum=0)


@dataclass
class PathwaysStudyOptions(StudyOptions):
    """Options of a comparison of models of several languages. ``margin`` is of the rival's WER."""

    languages: list[str] = option(factory=list)  # the languages of test_sets, in the same order
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
            raise UserError(
                f"{prefix}methods: a comparison of pathways takes trainings, not methods"
            )
        if len(self.languages) != len(self.test_sets) or ALL in self.languages:
            raise UserError(
                f"{prefix}languages: give one for each of the {len(self.test_sets)} test_sets, in "
                f"the same order. None may be named {ALL}"
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
                raise UserError(f"{where}: {claim.kind}: than which trainings? Name them in than:")
            for language in claim.at:
                if language not in (ALL, *self.languages):
                    raise UserError(
                        f"{where}: at={language}: no language of the comparison. Choose from "
                        f"{', '.join([ALL, *self.languages])}"
                    )

    def _sources(self, training: TrainingOptions) -> list[TrainingOptions]:
        """Return a training, and the trainings that its weights and masks come from."""
        found = [training]
        for key in ("start", "masks"):
            if source := getattr(training, key):
                found += self._sources(self.trainings[source])
        return found

    def _check_training(self, where: str, training: TrainingOptions, known: list[str]) -> None:
        for key in ("start", "masks"):
            source = getattr(training, key)
            if source:
                check_name(f"{where}.{key} (a training before this one)", source, known)
        for key in ("languages", "tested"):
            for name in getattr(training, key):
                if name not in self.languages:
                    raise UserError(
                        f"{where}.{key}: {name!r} is no language of the comparison. Choose from "
                        f"{', '.join(self.languages)}"
                    )
        if training.each_language and (training.languages or training.tested):
            raise UserError(
                f"{where}.each_language=true: each training has its own language. Leave languages "
                "and tested out"
            )
        sources = self._sources(training)
        trained = {one for part in sources for one in part.languages or self.languages}
        if strange := [name for name in training.tested if name not in trained]:
            raise UserError(
                f"{where}.tested: neither this training nor one that it begins with is trained on "
                f"{strange[0]}. Leave {strange[0]} out"
            )
        single = training.start and self.trainings[training.start].each_language
        if single and not training.each_language:
            raise UserError(
                f"{where}.start={training.start}: that training has one model for each language, "
                "but this training has one for all. Set each_language: true, or start from "
                "another training"
            )
