"""Define the options of the search for sub-networks (standard library only)."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import RESUMABLE, option


@dataclass
class SearchOptions:
    """How many sub-networks a search tries, and how it makes new ones from good ones.

    A search needs ``population * (generations + 1)`` evaluations for each budget. All options may
    change from run to run: no training depends on them, and earlier evaluations stay valid.

    A small population for many generations beats a large population for few generations (measured
    on toy problems of 60 layers, at some 500 evaluations).
    """

    # random: draws all as the first population, to compare at equal numbers of evaluations
    method: str = option("evolution", choices=("evolution", "random"), change=RESUMABLE)
    # sparsities that a layer may have, ascending
    choices: list[float] = option(factory=lambda: [s / 10 for s in range(10)], change=RESUMABLE)
    # Sets of choices. The layers of a sub-network have sparsities of one of these sets, or all
    # layers have one sparsity. Empty: one set of all choices.
    windows: list[list[float]] = option(factory=list, change=RESUMABLE)
    population: int = option(16, minimum=1, change=RESUMABLE)  # sub-networks of a generation
    generations: int = option(30, minimum=0, change=RESUMABLE)  # after the first population
    # share of the population: the best so far, from which new sub-networks come
    parents: float = option(0.25, minimum=0, maximum=1, change=RESUMABLE)
    mutation: float = option(0.1, minimum=0, maximum=1, change=RESUMABLE)  # probability for a layer
    seed: int = option(0, minimum=0, change=RESUMABLE)

    def check(self, prefix: str) -> None:
        """Check the sparsities to choose from, and that the population has room for them.

        Args:
            prefix: the text before an option's name in messages, such as ``search.``.

        Raises:
            UserError: ``choices`` is empty, not ascending or out of range, or has more values than
                ``population``; or a window is empty, not ascending, or has a value that is not
                among ``choices``.
        """
        choices = list(self.choices)
        if not choices or sorted(set(choices)) != choices or not 0 <= choices[0] <= choices[-1] < 1:
            raise UserError(
                f"{prefix}choices={choices}: must be ascending sparsities, at least 0 and below 1"
            )
        for window in map(list, self.windows):
            if not window or sorted(set(window)) != window or not set(window) <= set(choices):
                raise UserError(
                    f"{prefix}windows: {window} must be ascending values of {prefix}choices"
                )
        if self.population < len(choices):
            raise UserError(
                f"{prefix}population={self.population}: must be at least {len(choices)}. The first "
                f"population holds a uniform sub-network of each of {prefix}choices"
            )

    def evaluations(self, budgets: int = 1) -> int:
        """Return the maximum number of evaluations for so many budgets."""
        return self.population * (self.generations + 1) * budgets
