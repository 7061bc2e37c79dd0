"""Batches of one language at a time, and whose turn it is: the same on all ranks, and on resuming.

What a model learns of each language apart from the others (language-specific masks, adapters) needs
optimiser steps of one language each. The language of a step is a pure function of (seed, epoch,
step); all micro-batches of the step, on all ranks, are of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lhotse import CutSet

from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import full_cuts
from asrprune.errors import UserError
from asrprune.randomness import key_to_seed


@dataclass(frozen=True)
class LanguageSchedule:
    """Which language's turn it is.

    A language with a share of ``h`` of the audio has ``h ** exponent`` of the steps, before these
    are made to add up to 1: with 1 as many as it has audio, with 0 as many as any other. Audio is
    that of all cuts, pruned or not.
    """

    index: CutIndex
    exponent: float = 0.6
    accumulate: int = 1  # micro-batches a step and rank
    seed: int = 0

    def check(self) -> None:
        """Check that the language of every cut is known.

        Raises:
            UserError: a cut does not say its language.
        """
        _, names = self.index.groups.get("language", ([], [""]))
        if "" in names:
            what = "no cut says" if len(names) == 1 else "some cuts do not say"
            raise UserError(
                f"batches of one language each: {what} in which language it is; set language in "
                "the supervisions, or data.batches=mixed"
            )

    @property
    def names(self) -> list[str]:
        """The languages, in the order in which they appear."""
        return self.index.groups["language"][1]

    @cached_property
    def seconds(self) -> np.ndarray:
        """(languages,) of audio."""
        codes, names = self.index.groups["language"]
        return np.bincount(codes, self.index.duration, len(names))

    @cached_property
    def shares(self) -> np.ndarray:
        """(languages,) of the steps."""
        powers = (self.seconds / self.seconds.sum()) ** self.exponent
        return powers / powers.sum()

    def language(self, epoch: int, step: int) -> int:
        """The number of the language of the ``step``-th step (from 0) of an epoch."""
        draw = np.random.default_rng(key_to_seed("language", self.seed, epoch, step)).random()
        return min(int(np.searchsorted(np.cumsum(self.shares), draw, "right")), len(self.names) - 1)


def monolingual_batches(
    turns: LanguageSchedule,
    epoch: int,
    seconds: float,
    draw: Callable[[int, int], Iterator[CutSet]],
    rank: int,
    world_size: int,
) -> Iterator[CutSet]:
    """A rank's batches of an epoch, step by step.

    A language whose cuts have all been drawn begins again, in another order; one that has few turns
    does not come to its end. The epoch ends with the step in which so many seconds have been drawn.

    Args:
        seconds: of an epoch, over all ranks; before time dropping.
        draw: ``(language, pass)`` to the batches of one pass, for all ranks in turn.
    """
    streams: list[Iterator[CutSet]] = [iter(()) for _ in turns.names]
    passes = [0] * len(streams)

    def batch_of(language: int) -> CutSet:
        batch = next(streams[language], None)
        if batch is None:
            streams[language] = draw(language, passes[language])
            passes[language] += 1
            batch = next(streams[language], None)
        if batch is None:
            raise UserError(
                f"epoch {epoch}: no cut of language {turns.names[language]!r} is kept; raise "
                "data_pruning.keep, or set a floor for it: data_pruning.floors.language"
            )
        return full_cuts(batch)

    step, drawn = 0, 0.0
    while drawn < seconds:
        language = turns.language(epoch, step)
        for _ in range(turns.accumulate):
            # all ranks draw the batches of all, as lhotse's samplers do
            batches = [batch_of(language) for _ in range(world_size)]
            drawn += sum(cut.duration for batch in batches for cut in batch)
            yield batches[rank]
        step += 1
