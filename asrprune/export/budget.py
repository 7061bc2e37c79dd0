"""Measure the cost of a sub-network, and read costs: bytes, multiply-adds, or milliseconds.

Bytes are the size of the int8 files that a runtime loads. If units are pruned, a budget can be in
bytes. If blocks are pruned, it cannot: the files of all sub-networks then have the dense size. With
blocks, a budget that is given as a sparsity stands for a number of weights: the weights that are
kept or never pruned.

Multiply-adds are those of the encoder's weights for each second of speech
(`asrprune.weight_pruning.search.multiply_adds`). A streaming recogniser computes them all the time.
Dropped weights cost no multiply-adds. The multiply-adds of joiner and predictor are not counted,
because they depend on the spoken words and on the search. Attention's products of activations are
not counted either.

Milliseconds are those of the int8 encoder on this machine (`asrprune.export.milliseconds`). They
are for a chunk, or for a second of speech if the encoder takes whole utterances.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asrprune.base.errors import UserError
from asrprune.export.milliseconds import Estimate, Times, require_cuts
from asrprune.export.runnable import runnable
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import Choice, MaskBank
from asrprune.weight_pruning.masks.blocks import LEVELS, level_of
from asrprune.weight_pruning.masks.prunable import VECTOR
from asrprune.weight_pruning.masks.sizes import elements
from asrprune.weight_pruning.search.multiply_adds import count_multiply_adds
from asrprune.weight_pruning.search.space import Cost, additive_cost

BYTES, MULTIPLY_ADDS, MILLISECONDS = "bytes", "multiply_adds", "milliseconds"
WEIGHTS = "parameters"  # weights that are kept or never pruned; users give a sparsity for them
UNITS = {
    **{"B": (1, BYTES), "kB": (1e3, BYTES), "MB": (1e6, BYTES), "GB": (1e9, BYTES)},
    **{"kMAC": (1e3, MULTIPLY_ADDS), "MMAC": (1e6, MULTIPLY_ADDS), "GMAC": (1e9, MULTIPLY_ADDS)},
    "ms": (1, MILLISECONDS),
}
_SHOWN = {
    BYTES: (1e6, "MB"),
    MULTIPLY_ADDS: (1e6, "MMAC"),
    MILLISECONDS: (1, "ms"),
    WEIGHTS: (1e6, "M weights"),
}
_FRAMES = 960  # multiply-adds are counted on so many frames of silence, and on twice as many
_FRAMES_A_SECOND = 100


@dataclass(frozen=True)
class Amount:
    """Hold an amount of cost: bytes, multiply-adds for a second, milliseconds, or weights."""

    value: float
    unit: str  # bytes, multiply_adds, milliseconds or parameters

    def __str__(self) -> str:
        return self.written(".3f")

    def written(self, digits: str = "g", between: str = " ") -> str:
        """Return the amount as text: ``5 MB``, ``120 MMAC`` or ``1.2 ms``.

        Args:
            digits: the format of the number.
            between: the text between the number and its unit.
        """
        factor, name = _SHOWN[self.unit]
        return f"{self.value / factor:{digits}}{between}{name}"


def parse_amount(text: str) -> Amount:
    """Read ``5MB``, ``120MMAC`` (for a second of speech) or ``1.2ms``; factors are powers of 1000.

    Raises:
        argparse.ArgumentTypeError: the text is not an amount.
    """
    found = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size, such as 800kB or 5MB, no work, such as 120MMAC, and no time, "
            "such as 1.2ms"
        )
    factor, unit = UNITS[found[2]]
    return Amount(float(found[1]) * factor, unit)


class Measure:
    """Measure the cost of a model's sub-networks in one unit."""

    def __init__(self, model: Transducer, bank: MaskBank, unit: str, times: Times | None = None):
        """Prepare to measure the sub-networks of a model.

        For multiply-adds, this counts how often the encoder uses each weight of the pruned layers.
        For bytes of a model with channels, this exports the dense network in memory.

        Args:
            model: the dense network.
            bank: the masks of the model.
            unit: ``bytes``, ``multiply_adds``, ``milliseconds`` or ``parameters``.
            times: the times of uniform sub-networks; only for milliseconds.

        Raises:
            UserError: the multiply-adds of a pruned layer cannot be counted; a model with channels
                cannot be exported; or the unit is bytes or milliseconds and the model is pruned in
                blocks.
        """
        self.unit = unit
        self._bank = bank
        if unit == WEIGHTS:
            return
        if unit in (BYTES, MILLISECONDS):
            require_cuts(bank, unit)
        if unit == BYTES:
            self._files = runnable(model, bank)
            return
        self._uses, self._rest = encoder_work(model, bank)
        if unit == MILLISECONDS:
            self._estimate = Estimate(times, bank, self._work())
            return
        vectors = {layer.name for layer in bank.layers if layer.kind == VECTOR}
        unseen = [name for name, uses in self._uses.items() if not uses and name not in vectors]
        if unseen:
            raise UserError(
                f"multiply-adds of {unseen[0]} ({len(unseen)} of {len(self._uses)} pruned layers) "
                "cannot be counted: only matrix products and convolutions of the encoder are. Give "
                f"{'a size, such as 5MB' if bank.cuts else 'a sparsity, such as 0.7'}"
            )

    def of(self, choice: Choice) -> float:
        """Return the cost of a sub-network."""
        if self.unit == BYTES:
            return self._files.of(self._bank.blocks(choice))
        if self.unit == WEIGHTS:
            return self._bank.kept_parameters(choice)
        if self.unit == MILLISECONDS:
            return self._estimate.of(self._bank.blocks(choice))
        blocks = self._bank.blocks_of_layers(choice)
        return self._rest + sum(
            self._uses[layer.name] * elements(blocks[layer.name], layer.shape, layer.block)
            for layer in self._bank.layers
        )

    def cost(self, choices: Sequence[float]) -> Cost:
        """Return a function for the costs of many sub-networks at once.

        Args:
            choices: the sparsities that a group may have.
        """
        bank, dense = self._bank, self.of(0.0)
        table = np.zeros((len(bank.groups), len(choices)))
        for column, sparsity in enumerate(choices):
            units = bank.blocks(sparsity)
            for row, group in enumerate(bank.groups):
                kept = units[group.name]
                if self.unit == BYTES:
                    table[row, column] = -self._files.saved(group.name, kept)
                elif self.unit == MILLISECONDS:
                    dropped = group.units - int(kept.sum())
                    table[row, column] = -self._estimate.saved(group.name, dropped)
                else:
                    table[row, column] = sum(
                        (1 if self.unit == WEIGHTS else self._uses[layer.name])
                        * (elements(layer.of(kept), layer.shape, layer.block) - layer.size)
                        for layer in group.layers
                    )
        return additive_cost(choices, table, dense)

    def within(self, budget: float, most: float, option: str = "--budget") -> float:
        """Return the lowest sparsity of all layers, on the grid, that costs at most ``budget``.

        Args:
            budget: the highest cost.
            most: the highest allowed sparsity, rounded to the grid.
            option: the option of the budget, for messages.

        Raises:
            UserError: sparsity ``most`` costs more than the budget.
        """
        if self.of(0.0) <= budget:
            return 0.0
        last = min(level_of(most), LEVELS - 1)  # the last level drops everything
        smallest = self.of(last / LEVELS)
        if smallest > budget:
            raise UserError(
                f"{option}: {Amount(budget, self.unit).written()} are less than the smallest "
                f"sub-network has, {Amount(smallest, self.unit)} at sparsity {last / LEVELS:g}. "
                f"The dense network has {Amount(self.of(0.0), self.unit)}"
            )
        low, high = 0, last  # `high` is within the budget, `low` is not
        while high - low > 1:
            middle = (low + high) // 2
            if self.of(middle / LEVELS) <= budget:
                high = middle
            else:
                low = middle
        return high / LEVELS

    def _work(self) -> dict[str, float]:
        """Return the multiply-adds of one unit of each group; its weights if none are counted."""
        work = {}
        for group in self._bank.groups:
            counted = sum(self._uses[layer.name] * layer.size for layer in group.layers)
            work[group.name] = (counted or group.size) / group.units
        return work


def unit_of_sparsities(bank: MaskBank) -> str:
    """Return the unit of budgets that are sparsities: the size of a uniform sub-network."""
    return BYTES if bank.cuts else WEIGHTS


def encoder_work(model: Transducer, bank: MaskBank) -> tuple[dict[str, float], float]:
    """Count how often the encoder uses each weight in a second of speech.

    The cost of an utterance's ends is not counted. A streaming encoder uses most weights more often
    than once a frame, because it computes the frames of its right context in several chunks.

    Returns:
        For each pruned layer, how often each of its weights is used in a second of speech; 0 if
        this is unknown. And the multiply-adds of the encoder's other weights for a second of
        speech.
    """
    encoder, num_features = model.encoder, model.feature_mean.numel()
    weights = {f"encoder.{name}": value for name, value in encoder.named_parameters()}
    chunk = getattr(encoder, "chunk_frames", 1)
    frames = -(-_FRAMES // chunk) * chunk

    def counts(length: int) -> dict[str, int]:
        x = torch.zeros(1, length, num_features, device=model.feature_mean.device)
        x_lens = torch.tensor([length], device=x.device)
        return count_multiply_adds(lambda: encoder(x, x_lens), weights)

    training = encoder.training
    encoder.eval()
    short, long = counts(frames), counts(2 * frames)
    encoder.train(training)
    seconds = frames / _FRAMES_A_SECOND
    products = {name: (long[name] - short[name]) / seconds for name in weights}
    uses = {layer.name: products.pop(layer.name, 0.0) / layer.size for layer in bank.layers}
    return uses, sum(products.values())
