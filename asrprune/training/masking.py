"""Joins weight pruning to a training: which sub-networks a step trains, and which weights it moves.

All masks follow from the seed, the step and the levels. All ranks have the same seed, step and
levels. So each rank can compute the gate of a step: the union of all masks that take part in the
step on any rank. The ranks check that their masks are equal after each ranking of the blocks, and
where a training goes on.

Data pruning ranks utterances by their losses. With sandwich sampling, data pruning receives the
dense network's losses. With single sampling, data pruning receives the losses of one sub-network,
and these losses depend on its sparsity. So they are divided by the usual losses of sub-networks of
the same size (`Masking.loss_class`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asrprune.base.collectives import check_equal
from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.training.banks import make_bank
from asrprune.training.distributed import Ranks
from asrprune.weight_pruning.dropout import scaled_dropout
from asrprune.weight_pruning.masks.first_order import FirstOrderScores
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.options import FIRST_ORDER
from asrprune.weight_pruning.schedule import needs_refresh, sparsity_at
from asrprune.weight_pruning.supernet import Sparsities, densest

Network = Sparsities | str  # each layer's sparsity, or the name of a mask


class Masking:
    """The masks of a training, with one sparsity for all layers (``method=gradual``).

    A step calls `start_step` first. For each micro-batch the step calls `networks`, and for each of
    these sub-networks a forward and a backward pass run inside `applied`. At the end `gate` returns
    what the optimiser needs.
    """

    all_gradients = False  # whether masked weights get gradients, so that only the gate stops them
    gates_gradients = False  # whether weights outside of the gate may have gradients

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: Config, ranks: Ranks):
        """Make the masks of a model, and gate its optimiser.

        Args:
            model: the network to prune.
            optimizer: the optimiser of the model.
            config: the configuration of the training.
            ranks: the processes that train together.

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
            if self.bank.cuts and group.units < 2:
                raise UserError(
                    f"weight_pruning.unit={group.unit}: of {group.name} one {group.unit} may be "
                    "dropped, and a network keeps at least one. Loosen weight_pruning.include and "
                    "exclude, or take a larger model"
                )
        layers, parameters = self.bank.layers, self.bank.parameters()
        self.optimizer = GatedOptimizer(
            optimizer,
            {layer.name: (parameters[layer.name], layer) for layer in layers},
            self.bank.gates(),
        )
        self.sparsity = 0.0  # the present sparsity of the sparsest sub-network
        # mask events of the present step, for the metrics: name of an event -> its values
        self.mask_events: dict[str, dict[str, float]] = {}
        self._model = model
        self._ranks = ranks
        self._seed = config.seed
        self._weights = {group.name: group.size for group in self.bank.groups}
        self._agreed = False  # whether the ranks have checked that they all have these masks
        self._first_order = None
        if options.criterion == FIRST_ORDER:
            for name, parameter in parameters.items():
                if not parameter.requires_grad:
                    raise UserError(
                        f"training.freeze: {name} would have no gradients, which "
                        f"weight_pruning.criterion={FIRST_ORDER} ranks by. Set another criterion, "
                        "or leave the layer out of weight_pruning.include"
                    )
            device = next(iter(parameters.values())).device
            self._first_order = FirstOrderScores(self.bank.groups, device)

    def begin(self) -> None:
        """Make the first masks of a new training. A training that goes on loads its masks instead.

        The present weights rank the blocks. They may have been loaded from a model file.
        """
        self.bank.refresh()

    def start_step(self, step: int, progress: float, language: str | None = None) -> None:
        """Follow the schedule, and rank the blocks again if it is time. Collective.

        Args:
            step: number of the optimiser's step.
            progress: progress of the training, 0 to 1.
            language: language of all batches of the step; None: batches are mixed.

        Raises:
            UserError: a weight is infinite or NaN; or another rank has other masks.
        """
        self.mask_events = {}
        self.sparsity = sparsity_at(progress, self.options.schedule)
        self._agree(step, renewed=self._renew(step, progress, language))

    def end(self, step: int) -> None:
        """Reach the end of the schedule after the last step. Collective.

        Raises:
            UserError: see `start_step`.
        """
        self.mask_events = {}
        self.sparsity = self.options.schedule.final
        self._agree(step, renewed=self._renew_late())

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """Return the sub-networks that a micro-batch trains.

        Args:
            step: number of the optimiser's step.
            number: position of the micro-batch in its step, from 0.
            rank: the rank that trains the micro-batch; None: this rank.
        """
        return [dict.fromkeys(self._weights, self.sparsity)]

    def learns(self, network: Network) -> bool:
        """Return whether a sub-network also learns from the outputs of the dense network."""
        return False

    def loss_class(self, network: Network) -> int:
        """Return the class of a sub-network's losses: losses of one class can be compared.

        The classes 1 to 11 stand for tenths of the mean sparsity. The class is 0 if all losses can
        be compared: then all batches of one time train sub-networks of the same sparsity.
        """
        return 0

    def sparsest(self) -> Sparsities:
        """Return the sparsities at the end of the schedule."""
        return dict.fromkeys(self._weights, self.options.schedule.final)

    def largest(self) -> Sparsities:
        """Return the sub-network whose passes take the most memory.

        A masked network holds masked copies of its weights, so the sparsest sub-network is
        returned. A network without some units has fewer weights and activations than the dense
        network. Where units are cut out, the dense network is returned.
        """
        cuts = self.bank.cuts and not self.all_gradients
        return dict.fromkeys(self._weights, 0.0) if cuts else self.sparsest()

    def passes(self, step: int, batches: int) -> tuple[int, int]:
        """Count the passes of a step, over all ranks.

        Args:
            step: number of the optimiser's step.
            batches: number of micro-batches that each rank has in the step.

        Returns:
            The number of forward and backward passes of sub-networks, and the number of additional
            forward passes of the dense network, which teaches sub-networks.
        """
        trained = self._all_networks(step, batches)
        # a sandwich trains the dense network too, so teaching takes no additional pass
        alone = [networks[0] for networks in trained if len(networks) == 1]
        return sum(map(len, trained)), sum(map(self.learns, alone))

    @contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """Make the model compute as a sub-network while the context is open.

        The forward pass and the backward pass both belong inside.
        """
        if isinstance(network, dict) and not any(network.values()):
            yield
            return
        # without gradients, units are cut out
        masked = self.bank.sub_network(network, self.all_gradients and torch.is_grad_enabled())
        with masked, scaled_dropout(self._model, self._dropout(network)):
            yield

    def gate(self, step: int, batches: int) -> dict[str, Tensor] | None:
        """Return the blocks that a step moves: the union of all its masks.

        Args:
            step: number of the optimiser's step.
            batches: number of micro-batches that each rank has in the step.

        Returns:
            The moved blocks (blocks,) bool of each group; None: the step moves all blocks.
        """
        union = densest(list(chain.from_iterable(self._all_networks(step, batches))))
        return self.bank.blocks(union) if any(union.values()) else None

    def observe(self, gate: Mapping[str, Tensor] | None) -> None:
        """Collect the gradients of a step, over all ranks, before the optimiser's step.

        Args:
            gate: what :meth:`gate` returned for the step.
        """
        if self._first_order:
            self._first_order.add(self.bank.parameters(), gate)

    def tested(self, language: str | None) -> dict[str, Network]:
        """Return the sub-networks whose losses on a development set are reported.

        Args:
            language: language of the development set; None: a set without a language.

        Returns:
            Suffix of the set's name -> the sub-network.
        """
        return {"": dict.fromkeys(self._weights, self.sparsity)}

    def check_tested(self, languages: Mapping[str, str | None]) -> None:
        """Check that each development set has a sub-network to test.

        Here every set has a sub-network. A subclass may need a sub-network for each language.

        Args:
            languages: name of a development set -> its language; None: the language is unknown or
                mixed.

        Raises:
            UserError: a development set has no sub-network.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the masks. The optimiser has a state of its own."""
        state = {"sparsity": self.sparsity, "bank": self.bank.state_dict()}
        if self._first_order:
            state["first_order"] = self._first_order.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            UserError: the masks belong to another model, or to other blocks.
        """
        self.bank.load_state_dict(state["bank"])
        if self._first_order:
            self._first_order.load_state_dict(state["first_order"])
        self.sparsity = state["sparsity"]
        self._agreed = False

    def _renew(self, step: int, progress: float, language: str | None) -> bool:
        """Rank the blocks if it is time. Return whether it was."""
        if not needs_refresh(step, progress, self.options.schedule):
            return False
        scores = self._first_order.renew() if self._first_order else None
        if self._first_order and scores is None:
            return False  # there are no gradients to rank by yet
        self.bank.refresh(scores=scores)
        return True

    def _renew_late(self) -> bool:
        """Renew the masks that lack the schedule's sparsity. Return whether any was renewed."""
        return False

    def _agree(self, step: int, renewed: bool) -> None:
        """Check that the ranks have equal masks, if the masks may have changed. Collective."""
        self._agreed = self._agreed and not renewed
        if self._ranks.world > 1 and not self._agreed:
            harm = "the ranks would train, and move, different weights"
            check_equal("the mask bank", self.bank.digest(), self._ranks.world, harm, step=step)
            self._agreed = True

    def _dropout(self, network: Network) -> float:
        """Return the factor by which a sub-network's dropout is multiplied."""
        return 1.0

    def _all_networks(self, step: int, batches: int) -> list[list[Network]]:
        """Return the sub-networks of each micro-batch of a step, on all ranks."""
        return [
            self.networks(step, number, rank)
            for rank in range(self._ranks.world)
            for number in range(batches)
        ]


def refuse_running_statistics(model: nn.Module, method: str) -> None:
    """Check that no norm of a model keeps running statistics.

    Each sub-network would need its own statistics. A norm with running statistics mixes them.

    Args:
        model: the network to prune.
        method: the method of weight pruning, for the message.

    Raises:
        UserError: a norm keeps running statistics.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            raise UserError(
                f"weight_pruning.method={method}: {name} ({type(part).__name__}) keeps running "
                "statistics, and each sub-network would need its own. Use an encoder with layer "
                "norms, or track_running_stats=False"
            )
