"""The masks of a supernet: each step trains sub-networks of other sizes."""

from torch import nn
from torch.optim import Optimizer

from asrprune.config import Config
from asrprune.training.distributed import Ranks
from asrprune.training.masking import Masking, Network, refuse_running_statistics
from asrprune.weight_pruning.options import WeightPruningOptions
from asrprune.weight_pruning.supernet import GRID, Sparsities, sub_networks


class SupernetMasking(Masking):
    """The masks of a supernet: a step trains sub-networks of many sizes (``method=supernet``)."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: Config, ranks: Ranks):
        """Make the masks as `Masking` does, for sub-networks of many sizes.

        Raises:
            UserError: the options do not fit the model; or a norm keeps running statistics, which
                would mix the statistics of all sub-networks.
        """
        refuse_running_statistics(model, "supernet")
        super().__init__(model, optimizer, config, ranks)

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """See `Masking`. The result depends on nothing but the seed and the arguments."""
        rank = self._ranks.rank if rank is None else rank
        options = self.options.supernet
        names = list(self._weights)
        return sub_networks(names, options, self.sparsity, self._seed, step, rank, number)

    def learns(self, network: Network) -> bool:
        """See `Masking`."""
        options = self.options.supernet.distillation
        if not options.scale or not any(network.values()):
            return False
        # the mean is a sum of rounded shares
        return self._mean(network) >= options.from_sparsity - 1e-6

    def loss_class(self, network: Network) -> int:
        """See `Masking`."""
        if not (mixes_sizes(self.options) and self.sparsity):
            return 0
        return 1 + round(GRID * self._mean(network))

    def tested(self, language: str | None) -> dict[str, Network]:
        """Return the dense network, and the sparsest sub-network at present."""
        tested = {"": dict.fromkeys(self._weights, 0.0)}
        if self.sparsity:
            tested[f"@{self.sparsity:.2f}"] = dict.fromkeys(self._weights, self.sparsity)
        return tested

    def _dropout(self, network: Network) -> float:
        scaled = self.options.supernet.dropout == "scaled"
        return 1.0 - self._mean(network) if scaled else 1.0

    def _mean(self, network: Sparsities) -> float:
        """Return the mean sparsity over all weights that can be pruned."""
        total = sum(self._weights.values())
        return sum(network[name] * size for name, size in self._weights.items()) / total


def mixes_sizes(options: WeightPruningOptions) -> bool:
    """Return whether batches of one time are trained with sub-networks of different sparsities.

    Then the losses of two batches cannot be compared as they are.
    """
    return options.method == "supernet" and options.supernet.sampling == "single"
