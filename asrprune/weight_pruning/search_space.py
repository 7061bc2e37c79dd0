"""Sub-networks of one sparsity a layer, and ways to draw them within a budget.

Inside of the search a sub-network is a row (layers,) of indices into the ascending sparsities that
a layer may have; a higher index prunes more.
"""

from collections.abc import Callable, Sequence

import numpy as np

from asrprune.errors import UserError

# of sparsities (n, layers) float64, in the order of the layers, the costs (n,)
Cost = Callable[[np.ndarray], np.ndarray]
_ROUNDING = 1e-9  # share of a budget by which sums of floats may go over it


def additive_cost(choices: Sequence[float], table: np.ndarray, fixed: float = 0.0) -> Cost:
    """A cost that is the sum of what each layer costs at its sparsity.

    Args:
        choices: ascending sparsities.
        table: (layers, choices), what a layer costs at each of them.
        fixed: what the rest costs.
    """
    steps, layers = np.asarray(choices, np.float64), np.arange(len(table))

    def cost(sparsities: np.ndarray) -> np.ndarray:
        return fixed + table[layers, np.searchsorted(steps, sparsities)].sum(1)

    return cost


class SearchSpace:
    """All sub-networks, what they cost, and random ones within a budget.

    No cost has to fall with each step of sparsity: with indices that are stored too it does not.

    Args:
        layers: how many layers there are, above 0.
        choices: ascending sparsities that each layer may have.
    """

    def __init__(self, layers: int, choices: Sequence[float], cost: Cost) -> None:
        self.layers, self.choices = layers, np.asarray(choices, np.float64)
        self._cost = cost
        self.uniform = np.repeat(np.arange(len(choices))[:, None], layers, 1)  # (choices, layers)
        self.smallest = self._find_smallest()  # (layers,)

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """The costs (n,) float64 of sub-networks (n, layers).

        Raises:
            ValueError: the cost is of another shape.
        """
        result = np.asarray(self._cost(self.choices[rows]), np.float64)
        if result.shape != (len(rows),):
            raise ValueError(
                f"the cost of {len(rows)} sub-networks has shape {result.shape}: it takes "
                "sparsities (n, layers) and must return (n,)"
            )
        return result

    def fits(self, costs: np.ndarray | float, budget: float) -> np.ndarray | bool:
        """Whether costs are within a budget, but for the rounding of sums."""
        return costs <= budget + _ROUNDING * abs(budget)

    def require(self, budget: float) -> None:
        """Check that a budget has room for the smallest sub-network.

        Args:
            budget: in the unit of the costs.

        Raises:
            UserError: the smallest sub-network costs more than the budget.
        """
        least = float(self.costs(self.smallest[None])[0])
        if not self.fits(least, budget):
            raise UserError(
                f"budget={budget:,.12g} is below the smallest sub-network, which needs "
                f"{least:,.12g}: raise the budget, or let layers be sparser than "
                f"{self.choices[-1]:g}"
            )

    def near_uniform(self, budget: float, rng: np.random.Generator) -> np.ndarray:
        """A random row about the densest uniform one within the budget; it may be above it.

        How far layers lie from it differs from draw to draw, from one step to all of them.
        """
        within = self.fits(self.costs(self.uniform), budget)
        middle = int(np.argmax(within)) if np.any(within) else len(self.choices) - 1
        width = rng.integers(1, max(2, len(self.choices)))
        return self.clip(middle + rng.integers(-width, width, self.layers, endpoint=True))

    def anywhere(self, rng: np.random.Generator) -> np.ndarray:
        """A random row, whatever its cost."""
        return rng.integers(len(self.choices), size=self.layers)

    def clip(self, rows: np.ndarray) -> np.ndarray:
        """Indices, held between the first and the last choice."""
        return rows.clip(0, len(self.choices) - 1)

    def into(
        self, row: np.ndarray, budget: float, fill: bool, rng: np.random.Generator
    ) -> np.ndarray:
        """Bring a row within a budget, by steps of random layers towards the smallest sub-network.

        With ``fill`` it then takes steps of random layers towards the densest one, as long as they
        are within the budget. A budget must have passed :meth:`require`.
        """
        if not self.fits(self.costs(row[None])[0], budget):
            path = self._path(row, self.smallest, rng)
            row = path[int(np.argmax(self.fits(self.costs(path), budget)))]
        if fill:
            path = self._path(row, self.uniform[0], rng)
            over = ~self.fits(self.costs(path), budget)
            row = path[int(np.argmax(over)) - 1] if over.any() else path[-1]
        return row

    def _path(self, start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows (steps + 1, layers) from start to end: one layer steps to its next choice a time."""
        difference = end - start
        order = rng.permutation(np.repeat(np.arange(self.layers), np.abs(difference)))
        rows = np.zeros((len(order) + 1, self.layers), np.int64)
        rows[0] = start
        rows[np.arange(1, len(rows)), order] = np.sign(difference)[order]
        return rows.cumsum(0)

    def _find_smallest(self) -> np.ndarray:
        """The row of the least cost; exactly so where the cost is a sum over layers."""
        best = self.uniform[int(np.argmin(self.costs(self.uniform)))]
        # each layer alone at each choice, the others as in the best uniform one
        rows = np.tile(best, (self.layers, len(self.choices), 1))
        layers, choices = np.arange(self.layers), np.arange(len(self.choices))
        rows[layers[:, None], choices, layers[:, None]] = choices
        costs = self.costs(rows.reshape(-1, self.layers)).reshape(self.layers, -1)
        candidates = np.stack((best, costs.argmin(1)))
        return candidates[int(np.argmin(self.costs(candidates)))]
