"""Make batches of one language each, and choose the language of each optimiser step.

Parts of a model that belong to one language (masks, adapters) need optimiser steps of that language
only. The language of a step is a pure function of (seed, epoch, step), so it is the same on all
ranks and after a resume. All micro-batches of a step, on all ranks, are of its language.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.base.randomness import key_to_seed
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import full_cuts
from asrprune.data_pruning.plan import Plan


@dataclass(frozen=True)
class LanguageSchedule:
    """Chooses the language of each optimiser step.

    A language with the share ``h`` of the audio gets a share of the steps in proportion to
    ``h ** exponent``. With an exponent of 1 the shares of the steps are those of the audio. With 0
    all languages have equally many steps. The audio is that of all cuts, pruned or not.
    """

    index: CutIndex
    exponent: float = 0.6
    accumulate: int = 1  # micro-batches of a step on each rank
    seed: int = 0

    def check(self) -> None:
        """Check that the language of every cut is known.

        Raises:
            UserError: a cut has no language.
        """
        _, names = self.index.groups.get("language", ([], [""]))
        if "" in names:
            what = "no cut has" if len(names) == 1 else "some cuts do not have"
            raise UserError(
                f"batches of one language each need the language of every cut, but {what} a "
                "language. Set language in the supervisions, or data.batches=mixed."
            )

    def check_plan(self, plan: Plan) -> None:
        """Check that a plan's policy keeps a cut of every language.

        Raises:
            UserError: the policy keeps no cut of a language. Its plan has a single cut of it, which
                all batches of the language would repeat.
        """
        if lacking := plan.report.get("lacking", {}).get("language"):
            raise UserError(
                f"cycle {plan.cycle}: data_pruning keeps no cut of language {lacking[0]!r}, and "
                "each language has batches of its own. Set data_pruning.floors.language, such as "
                "0.3, to keep a share of each language."
            )

    @property
    def names(self) -> list[str]:
        """The languages, in order of first appearance."""
        return self.index.groups["language"][1]

    @cached_property
    def seconds(self) -> np.ndarray:
        """The seconds of audio of each language, (languages,)."""
        codes, names = self.index.groups["language"]
        return np.bincount(codes, self.index.duration, len(names))

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of the steps of each language, (languages,)."""
        powers = (self.seconds / self.seconds.sum()) ** self.exponent
        return powers / powers.sum()

    def language(self, epoch: int, step: int) -> int:
        """Return the number of the language of step ``step`` (from 0) of an epoch."""
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
    """Yield a rank's batches of an epoch, step by step.

    A language whose cuts have all been drawn begins again, in another order. A language with few
    steps may not come to the end of its cuts. The epoch ends with the step in which the number of
    drawn seconds reaches ``seconds``.

    Args:
        turns: the schedule of languages.
        epoch: number of the epoch.
        seconds: seconds of audio of an epoch, over all ranks, before time dropping.
        draw: function from ``(language, pass)`` to the batches of one pass over the language's
            cuts, which the ranks take in turn.
        rank: number of this rank.
        world_size: number of ranks.

    Raises:
        UserError: the plan keeps no cut of a language that a step needs.
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
                f"epoch {epoch}: language {turns.names[language]!r} gives no batch. Its kept cuts "
                "may be fewer than a batch needs (drop_last). Set data_pruning.floors.language."
            )
        return full_cuts(batch)

    step, drawn = 0, 0.0
    while drawn < seconds:
        language = turns.language(epoch, step)
        for _ in range(turns.accumulate):
            # each rank draws the batches of all ranks, as lhotse's samplers do
            batches = [batch_of(language) for _ in range(world_size)]
            drawn += sum(cut.duration for batch in batches for cut in batch)
            yield batches[rank]
        step += 1
