"""Options of a comparison of sparse models: sparsities, methods, the search, claims to judge."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import option
from asrprune.compare.options import GridOptions, StudyOptions, check_name

# trainings
DENSE, SMALL, GRADUAL, SUPERNET = "dense", "small", "gradual", "supernet"
TRAININGS = (DENSE, SMALL, GRADUAL, SUPERNET)
# networks that are extracted from trainings, besides those named after their training
ONE_SHOT, SEARCHED, RANDOM_SEARCH = "one_shot", "searched", "random_search"
FOUND = (SEARCHED, RANDOM_SEARCH)
LEAST_SAMPLE = 3
DENSE_WAY = "weight_pruning.method=none"  # in a variant: one dense training
COST, NO_WORSE, BETTER = "cost", "no_worse", "better"


@dataclass
class SearchStepOptions:
    """How the supernet is searched; see ``asrprune search``."""

    dev_set: str = ""
    max_seconds: float = option(0.0, minimum=0)  # of the set's speech; 0: the whole set
    population: int = option(16, minimum=1)
    generations: int = option(30, minimum=0)
    # Number of sub-networks of each size, those with the lowest loss, that are decoded on dev_set.
    # The one with the lowest WER is taken. 0: the one with the lowest loss
    rerank: int = option(5, minimum=0)
    # Number of sub-networks of each size to decode, to correlate loss and WER; 0: none. Their
    # decoding does not count as a cost of the search.
    sample_wer: int = option(0, minimum=0)


@dataclass
class ClaimOptions:
    """A claim about ``method``, to be judged by measurements.

    Types of claims:

    - ``cost``: all networks of the method, with their search, cost at most ``by`` times as much as
      one dense training. ``passes`` are those of trainings only. The CPU seconds of a search are
      not known.
    - ``no_worse``: at each sparsity in ``at``, the method's error rate is not higher than the error
      rate of any method in ``than``.
    - ``better``: at each sparsity in ``at``, the method's error rate is lower than the error rate
      of each method in ``than``.
    """

    claim: str = ""
    kind: str = option(NO_WORSE, choices=(COST, NO_WORSE, BETTER))
    method: str = ""
    than: list[str] = option(factory=list)
    at: list[float] = option(factory=list)
    by: float = option(1.0, minimum=0)
    measure: str = option("seconds", choices=("seconds", "cpu_seconds", "passes"))  # of cost


@dataclass
class WeightStudyOptions(StudyOptions):
    """Options of a comparison of sparse models. ``margin`` is a share of the rival's WER.

    Trainings:

    - ``dense``: one dense model, from which the ``one_shot`` networks are pruned.
    - ``small``: one dense training for each sparsity, of a smaller model. It has the sizes of the
      network that has this sparsity in all layers. Not with ``weight_pruning.unit=block``.
    - ``gradual``: one training for each sparsity.
    - ``supernet``: one training. Its networks have one sparsity in all layers, or are found by a
      search (``searched``, ``random_search``).
    - variants of ``supernet``, named in ``methods``. A variant with
      ``weight_pruning.method=gradual`` is one of ``gradual``: one training for each sparsity. A
      variant with ``weight_pruning.method=none`` is one dense training, for example a longer one.

    In the overrides of a method, ``{dense}`` stands for the model of the dense training with the
    same seed. ``training.init_from={dense}`` begins with this model, and
    ``training.teacher={dense}`` learns from it. The method's cost then includes the dense training.
    """

    sparsities: list[float] = option(factory=lambda: [0.0, 0.5, 0.7, 0.8, 0.9])
    searched: list[float] = option(factory=list)  # sparsities whose sizes get a search
    search: SearchStepOptions = option(factory=SearchStepOptions)
    # Methods whose networks are also run in sherpa-onnx on the first test set, in float32 and int8.
    # This takes about twice the time of decoding.
    runtime: list[str] = option(factory=list)
    grid: list[GridOptions] = option(factory=list)
    claims: list[ClaimOptions] = option(factory=list)

    def check(self, prefix: str) -> None:
        """Check that the options of the comparison are complete and go together.

        Args:
            prefix: the text before an option's name in messages; empty for these options.

        Raises:
            UserError: an option is missing; the sparsities are not in order; a name of a method is
                unknown or reserved; or the search, the grid or a claim is not valid.
        """
        super().check(prefix)
        for key in ("sparsities", "searched"):
            levels = list(getattr(self, key))
            if levels != sorted(set(levels)) or not all(0 <= level < 1 for level in levels):
                raise UserError(
                    f"{prefix}{key}={levels}: must be ascending, at least 0 and below 1"
                )
        if not self.sparsities:
            raise UserError(f"{prefix}sparsities is not set")
        if self.searched and not self.search.dev_set:
            raise UserError(
                f"{prefix}search.dev_set is not set, but searched={list(self.searched)} needs it"
            )
        if 0 < self.search.sample_wer < LEAST_SAMPLE:
            raise UserError(
                f"{prefix}search.sample_wer={self.search.sample_wer}: at least {LEAST_SAMPLE} "
                "sub-networks are needed for a correlation. Give more, or 0 for none"
            )
        for name in self.methods:
            if name in (DENSE, SMALL, GRADUAL, ONE_SHOT, SEARCHED, RANDOM_SEARCH):
                raise UserError(
                    f"{prefix}methods.{name}: only the supernet and its variants take overrides"
                )
        trainings = list(dict.fromkeys([*TRAININGS, *self.methods]))
        for name in self.runtime:
            check_name(f"{prefix}runtime", name, [ONE_SHOT, *trainings[1:], *FOUND])
            made = [ONE_SHOT, *(FOUND if self.searched else ())]
            made += [method for part in self.grid for method in part.methods]
            if name not in made:
                raise UserError(f"{prefix}runtime: no part of the grid has networks of {name}")
        for part in self.grid:
            for name in part.methods:
                check_name(f"{prefix}grid", name, trainings)
            if not part.seeds or min(part.seeds) < 0:
                raise UserError(f"{prefix}grid: each part needs seeds of 0 or more")
        for claim in self.claims:
            self._check_claim(f"{prefix}claims: {claim.claim}", claim, trainings)

    def _check_claim(self, where: str, claim: ClaimOptions, trainings: list[str]) -> None:
        networks = [ONE_SHOT, *trainings[1:], SEARCHED, RANDOM_SEARCH]
        if claim.kind == COST:
            check_name(where, claim.method, networks)
            if claim.measure == "cpu_seconds" and claim.method in FOUND:
                raise UserError(
                    f"{where}: the CPU seconds of a search are not known. Set measure: seconds"
                )
            return
        for name in (claim.method, *claim.than):
            check_name(where, name, networks)
        if not (claim.than and claim.at):
            raise UserError(
                f"{where}: {claim.kind}: than which methods, at which sparsities? Set than: and at:"
            )
        for name in (claim.method, *claim.than):
            if any(claim.at) and DENSE_WAY in self.methods.get(name, []):
                raise UserError(
                    f"{where}: at={list(claim.at)}: {name} is one dense training, of sparsity 0"
                )
            key = "searched" if name in FOUND else "sparsities"
            for level in claim.at:
                if level not in getattr(self, key):
                    raise UserError(
                        f"{where}: at={level:g}: {name} has no such sparsity. Choose one of {key}"
                    )
