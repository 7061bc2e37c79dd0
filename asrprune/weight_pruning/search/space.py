"""Draw sub-networks of one sparsity for each layer, within a budget.

Inside of the search a sub-network is a row (layers,) of indices into the ascending sparsities that
a layer may have. A higher index prunes more.
"""

from collections.abc import Callable, Sequence

import numpy as np

from asrprune.base.errors import UserError

# sparsities (n, layers) float64, in the order of the layers -> costs (n,)
Cost = Callable[[np.ndarray], np.ndarray]
_ROUNDING = 1e-9  # share of a budget by which sums of floats may go over it


def additive_cost(choices: Sequence[float], table: np.ndarray, fixed: float = 0.0) -> Cost:
    """Return a cost that is the sum of what each layer costs at its sparsity.

    Args:
        choices: ascending sparsities.
        table: (layers, choices), the cost of each layer at each sparsity.
        fixed: the cost of everything else.
    """
    steps, layers = np.asarray(choices, np.float64), np.arange(len(table))

    def cost(sparsities: np.ndarray) -> np.ndarray:
        return fixed + table[layers, np.searchsorted(steps, sparsities)].sum(1)

    return cost


class SearchSpace:
    """All sub-networks, what they cost, and random ones within a budget.

    The space holds the rows whose layers have sparsities of one window, and the uniform rows. All
    draws and steps stay within the space. A cost need not fall with each step of sparsity.

    Args:
        layers: number of layers, above 0.
        choices: ascending sparsities that a layer may have.
        cost: the costs of sub-networks.
        windows: sets of ascending choices. Empty: one set of all choices.
    """

    def __init__(
        self,
        layers: int,
        choices: Sequence[float],
        cost: Cost,
        windows: Sequence[Sequence[float]] = (),
    ) -> None:
        self.layers, self.choices = layers, np.asarray(choices, np.float64)
        # ascending sets of indices; only uniform rows have other indices
        self.windows = [np.searchsorted(self.choices, window) for window in windows or [choices]]
        self._cost = cost
        self.uniform = np.repeat(np.arange(len(choices))[:, None], layers, 1)  # (choices, layers)
        self.smallest = self._find_smallest()  # (layers,)

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """Return the costs (n,) float64 of sub-networks (n, layers).

        Raises:
            ValueError: the cost returns another shape.
        """
        result = np.asarray(self._cost(self.choices[rows]), np.float64)
        if result.shape != (len(rows),):
            raise ValueError(
                f"the cost of {len(rows)} sub-networks has shape {result.shape}: it takes "
                "sparsities (n, layers) and must return (n,)"
            )
        return result

    def fits(self, costs: np.ndarray | float, budget: float) -> np.ndarray | bool:
        """Return whether costs are within a budget, up to the rounding of sums."""
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
        """Draw a row about the densest uniform row within the budget.

        The row's own cost may be above the budget. The maximum distance of its layers differs from
        draw to draw, from one step to all of a window.
        """
        within = self.fits(self.costs(self.uniform), budget)
        middle = int(np.argmax(within)) if np.any(within) else len(self.choices) - 1
        window = self.windows[self._nearest(self.uniform[middle], rng)]
        width = rng.integers(1, max(2, len(window)))
        steps = rng.integers(-width, width, self.layers, endpoint=True)
        return _moved(self.uniform[middle], steps, window)

    def anywhere(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a row of a random window, whatever its cost."""
        window = self.windows[rng.integers(len(self.windows))]
        return window[rng.integers(len(window), size=self.layers)]

    def moved(self, row: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Move layers by steps (layers,) to near choices, as far as the space allows."""
        return self.nearest(_moved(row, steps, np.unique(np.concatenate(self.windows))), rng)

    def nearest(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the nearest row of a window, by steps; of equally near rows, a random one."""
        return _held(row, self.windows[self._nearest(row, rng)])

    def into(
        self, row: np.ndarray, budget: float, fill: bool, rng: np.random.Generator
    ) -> np.ndarray:
        """Bring a row within a budget, by steps of random layers towards the smallest sub-network.

        With ``fill``, random layers then step towards the densest sub-network, as long as the row
        stays within the budget. The budget must have passed :meth:`require`.
        """
        if not self.fits(self.costs(row[None])[0], budget):
            path = self._path(row, self.smallest, rng)
            row = path[int(np.argmax(self.fits(self.costs(path), budget)))]
        if fill:
            path = self._path(row, self.uniform[0], rng)
            over = np.logical_not(self.fits(self.costs(path), budget))
            row = path[int(np.argmax(over)) - 1] if over.any() else path[-1]
        return row

    def _nearest(self, row: np.ndarray, rng: np.random.Generator) -> int:
        """Return the index of the window nearest to a row; ties: a random one of them."""
        steps = np.array([np.abs(row - _held(row, window)).sum() for window in self.windows])
        near = np.flatnonzero(steps == steps.min())
        return int(near[rng.integers(len(near))])

    def _path(self, start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return rows (n, layers) of the space from start to end.

        One layer at a time steps to its next choice within a window, as long as this brings it
        nearer to the end. Then the next window follows.
        """
        first, last = self._nearest(start, rng), self._nearest(end, rng)
        parts, row = [start[None]], start
        for number in range(first, last + 1) if first <= last else range(first, last - 1, -1):
            window = self.windows[number]
            path = self._steps(_places(row, window), _places(end, window), rng)
            parts.append(window[path])
            row = parts[-1][-1]
        return np.concatenate([*parts, end[None]])

    def _steps(self, start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return rows (steps + 1, layers) from start to end: one layer moves by one at a time."""
        difference = end - start
        order = rng.permutation(np.repeat(np.arange(self.layers), np.abs(difference)))
        rows = np.zeros((len(order) + 1, self.layers), np.int64)
        rows[0] = start
        rows[np.arange(1, len(rows)), order] = np.sign(difference)[order]
        return rows.cumsum(0)

    def _find_smallest(self) -> np.ndarray:
        """Return the row of the least cost; exact where the cost is a sum over layers."""
        best = self.uniform[int(np.argmin(self.costs(self.uniform)))]
        # one layer at each choice, all other layers as in the best uniform row
        rows = np.tile(best, (self.layers, len(self.choices), 1))
        layers, choices = np.arange(self.layers), np.arange(len(self.choices))
        rows[layers[:, None], choices, layers[:, None]] = choices
        costs = self.costs(rows.reshape(-1, self.layers)).reshape(self.layers, -1)
        found = [window[costs[:, window].argmin(1)] for window in self.windows]
        candidates = np.stack((best, *found))
        return candidates[int(np.argmin(self.costs(candidates)))]


def _places(row: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the position in a window of each index of a row, or of the next index there."""
    return np.searchsorted(window, row).clip(0, len(window) - 1)


def _held(row: np.ndarray, window: np.ndarray) -> np.ndarray:
    return window[_places(row, window)]


def _moved(row: np.ndarray, steps: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Move layers by steps (layers,) of a window, at most to its ends."""
    return window[(_places(row, window) + steps).clip(0, len(window) - 1)]
