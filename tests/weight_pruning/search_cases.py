"""Toy problems for the search: what each layer costs, and what it loses, at each sparsity."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.weight_pruning.search.space import additive_cost


@dataclass
class Toy:
    """Costs and losses (layers, choices), both summed over layers; ``weird`` ones do not fall."""

    choices: list[float]
    cost_table: np.ndarray
    loss_table: np.ndarray
    calls: int = 0

    @property
    def layers(self) -> list[str]:
        return [f"layer{i}.weight" for i in range(len(self.cost_table))]

    @property
    def cost(self):
        return additive_cost(self.choices, self.cost_table)

    def fitness(self, choice: dict[str, float]) -> float:
        assert list(choice) == self.layers
        self.calls += 1
        columns = [self.choices.index(sparsity) for sparsity in choice.values()]
        return float(self.loss_table[np.arange(len(columns)), columns].sum())

    def budgets(self, *shares: float) -> list[float]:
        """Shares of the way from the smallest to the largest sub-network."""
        least, most = self.cost_table.min(1).sum(), self.cost_table.max(1).sum()
        return [float(least + share * (most - least)) for share in shares]

    def optimum(self, budget: float) -> float:
        """The least fitness within a budget, of all sub-networks there are."""
        rows = np.array(list(itertools.product(range(len(self.choices)), repeat=len(self.layers))))
        layers = np.arange(len(self.layers))
        within = self.cost_table[layers, rows].sum(1) <= budget * (1 + 1e-9)
        return float(self.loss_table[layers, rows].sum(1)[within].min())


def toy(layers: int, choices: Sequence[float], seed: int, weird: bool = False) -> Toy:
    """Layers of three sizes; losses that grow exponentially with sparsity, each in its own way."""
    rng = np.random.default_rng(seed)
    choices = list(choices)
    if weird:
        return Toy(choices, *rng.random((2, layers, len(choices))))
    sizes = rng.choice([1.0, 2.0, 4.0], (layers, 1))
    weight = sizes * np.exp(rng.normal(0, 1, (layers, 1)))
    loss = weight * np.expm1(rng.uniform(2, 6, (layers, 1)) * np.array(choices))
    return Toy(choices, sizes * (1 - np.array(choices)), loss)
