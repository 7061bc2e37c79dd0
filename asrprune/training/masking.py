"""Joins weight pruning to a training: which sub-networks a step trains, and which weights it moves.

The masks of all ranks follow from the seed, the step and levels that are equal on all ranks, so
each rank knows the gate of a step, the union of all masks that take part in it. That the ranks hold
the same masks is checked after each ranking, and where a training goes on.

Data pruning ranks utterances by their losses. A sandwich tells it of those of the dense network. Of
the one sub-network that else takes part, a batch's losses depend on how sparse that is; so they are
divided by what is usual for its size (`Masking.loss_class`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from asrprune.config import Config
from asrprune.data_pruning.options import UNSCORED_POLICIES
from asrprune.data_pruning.ranks import check_equal
from asrprune.errors import UserError
from asrprune.training.banks import make_bank
from asrprune.training.distributed import Ranks
from asrprune.weight_pruning.dropout import scaled_dropout
from asrprune.weight_pruning.first_order import FirstOrderScores
from asrprune.weight_pruning.gated import GatedOptimizer
from asrprune.weight_pruning.groups import CHANNEL
from asrprune.weight_pruning.options import FIRST_ORDER, WeightPruningOptions
from asrprune.weight_pruning.schedule import needs_refresh, sparsity_at
from asrprune.weight_pruning.supernet import GRID, Sparsities, densest, sub_networks

Network = Sparsities | str  # each layer's sparsity, or the name of a mask


class Masking:
    """The masks of a training; those of one sparsity for all layers (``method=gradual``).

    A step calls `start_step`; for each of its micro-batches, `networks`, and for each of these a
    forward and a backward pass inside of `applied`; then `gate` gives what the optimiser needs.
    """

    all_gradients = False  # masked weights get gradients too, and the gate has to close them

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: Config, ranks: Ranks):
        """Make the masks of a model, and gate its optimiser.

        Args:
            model: the network to prune.
            optimizer: of the model.
            config: of the training.
            ranks: that train together.

        Raises:
            UserError: the options of weight pruning do not fit the model.
        """
        self.options = options = config.weight_pruning
        self.bank = make_bank(model, options)
        for group in self.bank.groups:
            if 1 < group.multiple >= group.units:
                raise UserError(
                    f"weight_pruning.multiple={group.multiple}: {group.name} has {group.units} "
                    "channels, of which none could be dropped. Set a smaller multiple"
                )
        layers, parameters = self.bank.layers, self.bank.parameters()
        self.optimizer = GatedOptimizer(
            optimizer,
            {layer.name: (parameters[layer.name], layer) for layer in layers},
            self.bank.gates(),
        )
        self.sparsity = 0.0  # of the sparsest sub-network at present
        self.news: dict[str, dict[str, float]] = {}  # of the present step, for the metrics, by kind
        self._model = model
        self._ranks = ranks
        self._seed = config.seed
        self._weights = {group.name: group.size for group in self.bank.groups}
        self._agreed = False  # that all ranks have these masks
        self._first_order = None
        if options.criterion == FIRST_ORDER:
            device = next(iter(parameters.values())).device
            self._first_order = FirstOrderScores(self.bank.groups, device)

    def begin(self) -> None:
        """Make what a training starts with; one that goes on loads it instead.

        Blocks are ranked by the weights that are there by now, which may be of a model file.
        """
        self.bank.refresh()

    def start_step(self, step: int, progress: float, language: str | None = None) -> None:
        """Rank the blocks anew when it is time, and follow the schedule. Collective.

        Args:
            language: of all batches of the step, where it has one.

        Raises:
            UserError: the weights are no numbers; another rank has other masks.
        """
        self.news = {}
        self.sparsity = sparsity_at(progress, self.options.schedule)
        self._agree(step, renewed=self._renew(step, progress, language))

    def end(self, step: int) -> None:
        """Come to what the schedule ends with, after the last step. Collective.

        Raises:
            UserError: as of `start_step`.
        """
        self.news = {}
        self.sparsity = self.options.schedule.final
        self._agree(step, renewed=self._renew_late())

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """The sub-networks of a micro-batch, which comes ``number``-th in its step (from 0)."""
        return [dict.fromkeys(self._weights, self.sparsity)]

    def learns(self, network: Network) -> bool:
        """Whether a sub-network is to learn from the dense network's outputs too."""
        return False

    def loss_class(self, network: Network) -> int:
        """Which losses those of a sub-network are like: 1 to 11, by tenths of its mean sparsity.

        0 where they are all alike, for all batches of a time are of sub-networks as sparse.
        """
        return 0

    def sparsest(self) -> Sparsities:
        """What the schedule comes to."""
        return dict.fromkeys(self._weights, self.options.schedule.final)

    def largest(self) -> Sparsities:
        """The network of which a pass takes the most memory.

        A masked network has copies of its weights. A network without some channels has smaller
        matrices and activations than the dense network.
        """
        cuts = self.options.unit == CHANNEL and not self.all_gradients
        return dict.fromkeys(self._weights, 0.0) if cuts else self.sparsest()

    def passes(self, step: int, batches: int) -> tuple[int, int]:
        """How many a step of so many micro-batches a rank takes, over all ranks.

        Forward and backward passes, and forward ones of the dense network alone.
        """
        trained = self._all_networks(step, batches)
        # in a sandwich the dense network is one of them
        alone = [networks[0] for networks in trained if len(networks) == 1]
        return sum(map(len, trained)), sum(map(self.learns, alone))

    @contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """Inside of it the model computes as a sub-network; forward and backward belong here."""
        if isinstance(network, dict) and not any(network.values()):
            yield
            return
        masked = self.bank.sub_network(network, self.all_gradients)
        with masked, scaled_dropout(self._model, self._dropout(network)):
            yield

    def gate(self, step: int, batches: int) -> dict[str, Tensor] | None:
        """The blocks that a step of so many micro-batches a rank moves; None: all of them."""
        union = densest(list(chain.from_iterable(self._all_networks(step, batches))))
        return self.bank.blocks(union) if any(union.values()) else None

    def observe(self, gate: Mapping[str, Tensor] | None) -> None:
        """Take in the gradients of a step, over all ranks, before the optimiser's step.

        Args:
            gate: what :meth:`gate` returned for the step.
        """
        if self._first_order:
            self._first_order.add(self.bank.parameters(), gate)

    def tested(self, language: str | None) -> dict[str, Network]:
        """What is added to a dev set's name -> the sub-network whose loss on it is of interest.

        Args:
            language: language of the development set; None: a set without a language.
        """
        return {"": dict.fromkeys(self._weights, self.sparsity)}

    def check_tested(self, languages: Mapping[str, str | None]) -> None:
        """Check that each dev set has a sub-network to test.

        Here it always has. A subclass may need one for each language.

        Args:
            languages: name of a dev set -> its language; None: the language is unknown or mixed.

        Raises:
            UserError: a dev set has no sub-network.
        """

    def state_dict(self) -> dict[str, Any]:
        """Of the masks; the optimiser has its own."""
        state = {"sparsity": self.sparsity, "bank": self.bank.state_dict()}
        if self._first_order:
            state["first_order"] = self._first_order.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            UserError: the masks are of another model or of other blocks.
        """
        self.bank.load_state_dict(state["bank"])
        if self._first_order:
            self._first_order.load_state_dict(state["first_order"])
        self.sparsity = state["sparsity"]
        self._agreed = False

    def _renew(self, step: int, progress: float, language: str | None) -> bool:
        """Rank the blocks when it is time. Returns whether it was."""
        if not needs_refresh(step, progress, self.options.schedule):
            return False
        self.bank.refresh(scores=self._first_order.renew() if self._first_order else None)
        return True

    def _renew_late(self) -> bool:
        """Make the masks anew that are not as sparse as the schedule says; whether any was not."""
        return False

    def _agree(self, step: int, renewed: bool) -> None:
        """See that the ranks have the same masks, where they may have changed. Collective."""
        self._agreed = self._agreed and not renewed
        if self._ranks.world > 1 and not self._agreed:
            harm = "the ranks would train, and move, different weights"
            check_equal("the mask bank", self.bank.digest(), self._ranks.world, harm, step=step)
            self._agreed = True

    def _dropout(self, network: Network) -> float:
        """What a sub-network's dropout is multiplied by."""
        return 1.0

    def _all_networks(self, step: int, batches: int) -> list[list[Network]]:
        """Of each micro-batch of a step, on all ranks."""
        return [
            self.networks(step, number, rank)
            for rank in range(self._ranks.world)
            for number in range(batches)
        ]


class SupernetMasking(Masking):
    """Sub-networks of every size, some of them in each step (``method=supernet``)."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: Config, ranks: Ranks):
        """Make the masks as `Masking` does, for sub-networks of every size.

        Raises:
            UserError: the options do not fit the model, or a norm keeps running statistics, which
                would mix those of all sub-networks.
        """
        refuse_running_statistics(model, "supernet")
        super().__init__(model, optimizer, config, ranks)

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """See `Masking`; a pure function of the seed and its arguments."""
        rank = self._ranks.rank if rank is None else rank
        options = self.options.supernet
        names = list(self._weights)
        return sub_networks(names, options, self.sparsity, self._seed, step, rank, number)

    def learns(self, network: Network) -> bool:
        """See `Masking`."""
        options = self.options.supernet.distillation
        if not options.scale or not any(network.values()):
            return False
        return self._mean(network) >= options.from_sparsity - 1e-6  # sums of shares are rounded

    def loss_class(self, network: Network) -> int:
        """See `Masking`."""
        if not (mixes_sizes(self.options) and self.sparsity):
            return 0
        return 1 + round(GRID * self._mean(network))

    def tested(self, language: str | None) -> dict[str, Network]:
        """The dense one, and the sparsest at present."""
        tested = {"": dict.fromkeys(self._weights, 0.0)}
        if self.sparsity:
            tested[f"@{self.sparsity:.2f}"] = dict.fromkeys(self._weights, self.sparsity)
        return tested

    def _dropout(self, network: Network) -> float:
        scaled = self.options.supernet.dropout == "scaled"
        return 1.0 - self._mean(network) if scaled else 1.0

    def _mean(self, network: Sparsities) -> float:
        """The mean sparsity over all weights."""
        total = sum(self._weights.values())
        return sum(network[name] * size for name, size in self._weights.items()) / total


def refuse_running_statistics(model: nn.Module, method: str) -> None:
    """Refuse a model with norms that keep running statistics.

    Each sub-network would need statistics of its own, and such a norm mixes them.

    Args:
        model: the network to prune.
        method: of weight pruning, for the message.

    Raises:
        UserError: a norm keeps running statistics.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            raise UserError(
                f"weight_pruning.method={method}: {name} ({type(part).__name__}) keeps running "
                "statistics, which are other ones for each sub-network; use an encoder with layer "
                "norms, or track_running_stats=False"
            )


def mixes_sizes(options: WeightPruningOptions) -> bool:
    """Whether the losses of one batch are of a sparser sub-network than those of another."""
    return options.method == "supernet" and options.supernet.sampling == "single"


def check_joined(config: Config) -> None:
    """See that the options of weight pruning go with those of the data.

    Raises:
        UserError: losses of unlike sub-networks would be compared as they are; pathways of mixed
            batches.
    """
    if config.weight_pruning.method == "pathways" and config.data.batches != "monolingual":
        raise UserError(
            "weight_pruning.method=pathways trains one language a step: set "
            "data.batches=monolingual"
        )
    pathways, start = config.weight_pruning.pathways, config.training.init_from
    protect = config.weight_pruning.method == "pathways" and pathways.protect
    if protect and Path(pathways.masks) != Path(start):
        raise UserError(
            f"weight_pruning.pathways.protect=true: training.init_from={start} must be the model "
            f"of weight_pruning.pathways.masks={pathways.masks}, whose weights are protected"
        )
    data = config.data_pruning
    if data.detrend or data.policy in UNSCORED_POLICIES or not mixes_sizes(config.weight_pruning):
        return
    raise UserError(
        f"data_pruning.detrend=false: policy {data.policy} would compare losses of a supernet's "
        "sub-networks of all sizes. Set data_pruning.detrend=true, which divides each by what is "
        "usual for its size, or weight_pruning.supernet.sampling=sandwich, where those of the "
        "dense one count"
    )


def make_masking(
    model: nn.Module,
    optimizer: Optimizer,
    config: Config,
    ranks: Ranks,
    languages: Sequence[str] = (),
) -> Masking | None:
    """What the config asks for; None where no weights are pruned.

    Args:
        languages: that have batches of their own.

    Raises:
        UserError: as of `Masking` and `check_joined`.
    """
    if config.weight_pruning.method == "none":
        return None
    check_joined(config)
    if config.weight_pruning.method == "pathways":
        from asrprune.training.pathways import PathwaysMasking  # which is made of this module

        return PathwaysMasking(model, optimizer, config, ranks, languages)
    method = SupernetMasking if config.weight_pruning.method == "supernet" else Masking
    return method(model, optimizer, config, ranks)
