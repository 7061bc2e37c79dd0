"""Decoding with pathways: the model computes with the mask of the language that it hears."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lhotse import CutSet
from lhotse.cut import Cut

from asrprune.corpus.batches import language_of
from asrprune.errors import UserError
from asrprune.weight_pruning.bank import Cached, MaskBank
from asrprune.weight_pruning.pathways import pathway_of

MOST_CACHED = 8  # languages whose masked weights are kept, each as large as what is masked


class Pathways:
    """The pathways of a model, to be switched between batches.

    Masked weights of the languages that were used last are kept, so that going back to one of them
    costs little.
    """

    def __init__(self, bank: MaskBank):
        self.bank = bank
        self._cached: OrderedDict[str, Cached] = OrderedDict()

    @contextmanager
    def applied(self, language: str) -> Iterator[None]:
        """Inside of it the model computes as the language's pathway.

        Raises:
            UserError: there is none.
        """
        if language not in self._cached:
            name = pathway_of(self.bank.names, language)
            while len(self._cached) >= MOST_CACHED:  # first, so that no more are ever held
                self._cached.popitem(last=False)
            self._cached[language] = self.bank.cached(name)
        self._cached.move_to_end(language)
        with self.bank.apply(self._cached[language]):
            yield

    @property
    def names(self) -> list[str]:
        """The languages that have a pathway."""
        return self.bank.names

    def by_language(self, cuts: CutSet, name: str) -> list[tuple[str, CutSet]]:
        """The cuts of each language of a set, in the order in which languages appear.

        Args:
            name: of the set.

        Raises:
            UserError: a cut does not say its language, or says one without a pathway.
        """

        def said(cut: Cut) -> str:
            if not (language := language_of(cut)):
                raise UserError(
                    f"{name}: cut {cut.id} does not say in which language it is, and the model has "
                    "a pathway for each; set language in its supervision, or let the model choose "
                    "(decoding.language=auto)"
                )
            try:
                return pathway_of(self.names, language)
            except UserError as error:
                raise UserError(f"{name}: cut {cut.id}: {error}") from error

        return grouped(cuts, said)


def grouped(cuts: CutSet, language: Callable[[Cut], str]) -> list[tuple[str, CutSet]]:
    """The cuts of each language, in their order, and that of the languages' first cuts."""
    parts: dict[str, list[Cut]] = {}
    for cut in cuts:
        parts.setdefault(language(cut), []).append(cut)
    return [(name, CutSet.from_cuts(part)) for name, part in parts.items()]
