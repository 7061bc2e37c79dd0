"""Decode with pathways: the model computes with the mask of the spoken language."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lhotse import CutSet
from lhotse.cut import Cut
from torch import nn

from asrprune.base.errors import UserError
from asrprune.data.batches import language_of
from asrprune.training.own_weights import OwnWeights, on_device, own_applied
from asrprune.weight_pruning.masks.bank import Cached, MaskBank
from asrprune.weight_pruning.pathways import pathway_of

MOST_CACHED = 8  # languages with masked weights in memory: a copy of the pruned layers for each


class Pathways:
    """Apply the pathways of a model, and switch between them for each batch.

    Units are cut out for each batch. With blocks, the masked weights of the most recent languages
    are kept in memory, so switching back to such a language is fast.
    """

    def __init__(self, bank: MaskBank, model: nn.Module, own: OwnWeights):
        """Prepare to decode with the named masks of a bank.

        Args:
            bank: the masks of the model.
            model: the model.
            own: the own weights of some languages, see `asrprune.training.own_weights`.
        """
        self.bank = bank
        self._model = model
        self._own = on_device(own, model)
        self._cached: OrderedDict[str, Cached] = OrderedDict()

    @contextmanager
    def applied(self, language: str) -> Iterator[None]:
        """Let the model compute as the pathway of a language while the context is open.

        Raises:
            UserError: the language has no pathway.
        """
        own = own_applied(self._model, self._own, language)
        if self.bank.cuts:
            with own, self.bank.cut(pathway_of(self.bank.names, language)):
                yield
            return
        if language not in self._cached:
            name = pathway_of(self.bank.names, language)
            while len(self._cached) >= MOST_CACHED:  # before caching, to stay within the limit
                self._cached.popitem(last=False)
            self._cached[language] = self.bank.cached(name)
        self._cached.move_to_end(language)
        with own, self.bank.apply(self._cached[language]):
            yield

    @property
    def names(self) -> list[str]:
        """Return the languages that have a pathway."""
        return self.bank.names

    def by_language(self, cuts: CutSet, name: str) -> list[tuple[str, CutSet]]:
        """Divide the cuts of a set by language, in the order in which languages appear.

        Args:
            cuts: the cuts of the set.
            name: the name of the set, for messages.

        Raises:
            UserError: a cut has no language, or its language has no pathway.
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
    """Divide cuts by language.

    Cuts keep their order. Languages have the order of their first cuts.

    Args:
        cuts: the cuts.
        language: a function that returns the language of a cut.
    """
    parts: dict[str, list[Cut]] = {}
    for cut in cuts:
        parts.setdefault(language(cut), []).append(cut)
    return [(name, CutSet.from_cuts(part)) for name, part in parts.items()]
