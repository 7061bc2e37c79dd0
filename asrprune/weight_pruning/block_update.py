"""Step a torch optimiser on a matrix of which only some blocks move, each at its own age.

A torch optimiser counts the steps of a parameter. Here each block counts its own steps, its age, as
if it had an optimiser to itself. The work is done on slabs of rows, so that temporaries are small.

If the active blocks have one age, or age does not matter, the optimiser's own kernel updates all of
a slab. The inactive blocks then get back their weights and moments. So the result has torch's own
bits, for each implementation (one tensor at a time, ``foreach`` or ``fused``). Otherwise torch's
operations are repeated here, with each block's own numbers. For Adam, age does not matter after
some thousand steps: bias corrections are 1 by then.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from asrprune.errors import UserError
from asrprune.weight_pruning.blocks import expand
from asrprune.weight_pruning.prunable import Layer, as_matrix

# Elements of a slab. On a CPU its tensors stay in cache; a GPU wants few and large kernels.
SLAB_ON_CPU = 1 << 18
SLAB_ON_GPU = 1 << 22
BLOCKS = 1 << 15  # maximum of the blocks whose values are made together, over several slabs
# A slab begins at a whole cache line of its matrix, where fused kernels begin a vector. Scalars at
# the end of a vectorised loop are rounded differently.
LINE = 64

Group = dict[str, Any]  # one of an optimiser's param_groups


@dataclass(frozen=True)
class Ages:
    """How many steps the blocks of a layer have taken, the present one included."""

    all_active: bool
    youngest: int  # of the active blocks; 0: no block is active
    oldest: int  # of the active blocks
    maximum: int  # of all blocks


@dataclass(frozen=True)
class Slab:
    """Views of some rows, (rows, columns) or (bands, rows of a block, columns): :func:`slabs`."""

    weights: Tensor
    gradient: Tensor
    moments: dict[str, Tensor]
    active: Tensor  # (blocks,) bool
    counts: Tensor  # (blocks,) int32
    spread: Callable[[Tensor], Tensor]  # values of blocks (blocks,) -> of elements


@dataclass(frozen=True)
class Kind:
    """The parts of an optimiser class that depend on the number of steps."""

    depends: Callable[[Group, Ages], bool]  # whether ages matter in this step
    # Steps the active blocks of some slabs, each block by its age. `int`: the greatest age.
    step: Callable[[Sequence[Slab], Group, int], None]


def _step_adam(slabs: Sequence[Slab], group: Group, oldest: int) -> None:
    """Take Adam's step with each block's own bias correction: torch's operations, in its order.

    Weights and moments of inactive blocks are multiplied by 1 and moved by 0.
    """
    beta1, beta2 = (float(beta) for beta in group["betas"])
    lr, decay = float(group["lr"]), group["weight_decay"]
    decoupled = group["decoupled_weight_decay"]
    first = slabs[0].moments["exp_avg"]
    dtype = torch.promote_types(slabs[0].gradient.dtype, torch.float32)
    # values of blocks, made once for all slabs, as most slabs are small
    opened = torch.cat([slab.active for slab in slabs]).to(dtype)
    closed = 1 - opened
    counts = torch.cat([slab.counts for slab in slabs])
    last = (1 << max(10, oldest.bit_length())) - 1  # few different values, for the cache
    rates, roots = _rates(beta1, beta2, lr, last, dtype, first.device)
    values = (
        opened.to(INTEGERS[dtype.itemsize]),
        closed.add(opened, alpha=1 - lr * decay),
        opened * (1 - beta1),
        closed.add(opened, alpha=beta2),
        closed.to(first.dtype),
        roots.index_select(0, counts),
        rates.index_select(0, counts),
    )
    sizes = [len(slab.active) for slab in slabs]
    for slab, *parts in zip(slabs, *(value.split(sizes) for value in values), strict=True):
        bits, kept, weight, second_kept, never, root, rate = map(slab.spread, parts)
        first, second = slab.moments["exp_avg"], slab.moments["exp_avg_sq"]
        gradient = _gradient(slab, group["maximize"], 0 if decoupled else decay, bits)
        if decay and decoupled:
            slab.weights.mul_(kept)
        if first.dtype == dtype:
            first.lerp_(gradient, weight)
        else:  # rounded once, as torch does
            first.copy_(first.to(dtype).lerp_(gradient, weight))
        second.mul_(second_kept).addcmul_(gradient, gradient, value=1 - beta2)
        if group["amsgrad"]:
            largest = slab.moments["max_exp_avg_sq"]
            second = torch.maximum(largest, second, out=largest)
        # `never` adds 1 to inactive blocks: roots of 0 take ten times as long on a CPU
        below = second.add(never).sqrt_().div_(root).add_(group["eps"])
        change = (first * rate).div_(below)
        slab.weights.sub_(_times_bits(change, bits))


@lru_cache(maxsize=4)
def _rates(
    beta1: float, beta2: float, lr: float, last: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ``lr / (1 - beta1^n)`` and ``sqrt(1 - beta2^n)`` for n = 0..last; 0 is not used."""
    first, root = _bias_corrections(beta1, beta2, last)
    return (lr / first).to(device, dtype), root.to(device, dtype)


@lru_cache(maxsize=4)
def _bias_corrections(beta1: float, beta2: float, last: int) -> Tensor:
    """Return ``1 - beta1^n`` and ``sqrt(1 - beta2^n)``, (2, last + 1) float64, for n = 0..last.

    Powers are Python's, as in torch. For n = 0 both values are 1.
    """
    first = [1.0, *(1 - beta1**count for count in range(1, last + 1))]
    root = [1.0, *((1 - beta2**count) ** 0.5 for count in range(1, last + 1))]
    return torch.tensor([first, root], dtype=torch.float64)


def _step_sgd(slabs: Sequence[Slab], group: Group, oldest: int) -> None:
    """Take SGD's step; a block's momentum begins as its gradient, which is not dampened."""
    for slab in slabs:
        least = torch.promote_types(slab.gradient.dtype, torch.float32)
        bits = slab.spread(slab.active.to(INTEGERS[least.itemsize]))
        gradient = _gradient(slab, group["maximize"], group["weight_decay"], bits)
        momentum, active = slab.moments["momentum_buffer"], slab.spread(slab.active)
        later = momentum.mul(group["momentum"]).add_(gradient, alpha=1 - group["dampening"])
        now = torch.where(slab.spread(slab.counts == 1), gradient, later)
        momentum.copy_(torch.where(active, now, momentum))
        slab.weights.sub_(_times_bits(momentum.clone(), bits), alpha=float(group["lr"]))


def _gradient(slab: Slab, maximize: bool, decay: float, bits: Tensor) -> Tensor:
    """Return a step's gradient, 0 in inactive blocks: a new tensor, of float32 at least."""
    gradient = -slab.gradient if maximize else slab.gradient
    if decay:
        gradient = gradient.add(slab.weights, alpha=decay)
    least = torch.promote_types(gradient.dtype, torch.float32)
    return (as_bits(gradient.to(least)) * bits).view(least)


def _times_bits(tensor: Tensor, bits: Tensor) -> Tensor:
    """Put +0 into inactive blocks of a tensor, in place, whatever they hold."""
    as_bits(tensor).mul_(bits)
    return tensor


def _adam_depends(group: Group, ages: Ages) -> bool:
    """Return whether the bias corrections of the active blocks differ.

    They are ``1 - beta^n`` of a block's steps n. After some thousand steps ``beta^n`` is too small
    to change a 1 in float64.
    """
    if ages.youngest == ages.oldest:
        return False
    return any(1 - float(beta) ** ages.youngest != 1.0 for beta in group["betas"])


_ADAM = Kind(_adam_depends, _step_adam)
_SGD = Kind(
    lambda group, ages: bool(group["momentum"] and group["dampening"] and ages.youngest == 1),
    _step_sgd,
)
_RMSPROP = Kind(lambda group, ages: False, lambda slabs, group, oldest: None)
KINDS: dict[type[Optimizer], Kind] = {AdamW: _ADAM, Adam: _ADAM, SGD: _SGD, RMSprop: _RMSPROP}


@dataclass(frozen=True)
class Update:
    """A step of a parameter that has a gradient.

    Attributes:
        parameter: the parameter.
        layer: its layer.
        group: the options of the parameter, from ``param_groups``.
        active: the active blocks (blocks,) bool.
        counts: the steps of each block (blocks,) int32, with this step for active blocks.
        ages: what the counts say of the layer.
    """

    parameter: Tensor
    layer: Layer
    group: Group
    active: Tensor
    counts: Tensor
    ages: Ages


class BlockUpdate:
    """Steps of an optimiser's parameters, one matrix at a time and by block.

    Steps change the optimiser's own state: its moments are those of the blocks, and its ``step`` is
    the greatest of their counts. Hooks and schedulers do not see these steps.

    Raises:
        UserError: the optimiser's class is not in `KINDS`, as a subclass may hold any state; or it
            has a flag that asks for a step without decisions on the CPU.
    """

    def __init__(self, optimizer: Optimizer):
        if type(optimizer) not in KINDS:
            raise UserError(
                f"GatedOptimizer: the state of {type(optimizer).__name__} is not known here. "
                f"Use one of torch's own {', '.join(kind.__name__ for kind in KINDS)}"
            )
        check_flags(optimizer, optimizer.param_groups)
        self.optimizer = optimizer
        self.kind = KINDS[type(optimizer)]
        self.twin = copy.copy(optimizer)  # takes the steps; torch does not copy hooks
        self.twin.state = defaultdict(dict)
        # global hooks would see each slab as a step; torch keeps the plain function as __wrapped__
        step = type(optimizer).step
        self._twin_step = getattr(step, "__wrapped__", step) if hasattr(step, "hooked") else step

    def steps_taken(self, parameter: Tensor) -> int:
        """Return how many steps the optimiser has taken on a parameter; 1 for some, if not counted.

        Only SGD does not count steps, and only its first step differs from later steps.
        """
        state = self.optimizer.state.get(parameter) or {}
        if "step" in state:
            return int(state["step"])
        return int(any(moment is not None for moment in state.values()))

    def __call__(self, updates: Sequence[Update]) -> None:
        """Take a step on the active blocks of some parameters that have gradients."""
        by_age: dict[tuple[Any, ...], list[Slab]] = {}  # (group, type, device) -> slabs
        oldest = max((update.ages.oldest for update in updates), default=0)
        groups = {id(update.group): update.group for update in updates}
        for update in updates:
            parameter, ages = update.parameter, update.ages
            shared = (id(update.group), parameter.dtype, parameter.device)
            depends = self.kind.depends(update.group, ages)
            for slab, step in self._slabs(update):
                if depends:
                    by_age.setdefault(shared, []).append(slab)
                else:
                    # a new tensor for each slab, as a step counts it up
                    now = {} if step is None else {"step": step.clone().fill_(ages.youngest - 1)}
                    self._step_alike(slab, update.group, now)
        for (group, *_), found in by_age.items():
            for part in _some(found):
                self.kind.step(part, groups[group], oldest)

    def _slabs(self, update: Update) -> Iterator[tuple[Slab, Tensor | None]]:
        """Yield the slabs of a parameter, each with the optimiser's count of steps, or None."""
        parameter = update.parameter
        state = self._state(parameter, update.group)
        step = state.get("step")
        matrices = {name: moment for name, moment in state.items() if name != "step"}
        matrices |= {"weights": parameter.detach(), "gradient": parameter.grad}
        for views, blocks, spread in slabs(matrices, update.layer):
            weights, gradient = views.pop("weights"), views.pop("gradient")
            active, counts = update.active[blocks], update.counts[blocks]
            yield Slab(weights, gradient, views, active, counts, spread), step
        if step is not None:
            step.fill_(update.ages.maximum)

    def _step_alike(self, slab: Slab, group: Group, now: Mapping[str, Tensor]) -> None:
        """Take torch's own step of a slab's active blocks, whose ages are equal or do not matter.

        Args:
            slab: the slab.
            group: the options of the parameter.
            now: what the state holds besides moments.
        """
        tensors = [as_bits(tensor) for tensor in (slab.weights, *slab.moments.values())]
        opened = slab.spread(slab.active.to(tensors[0].dtype))
        closed = 1 - opened
        inactive = [tensor * closed for tensor in tensors]
        self._step(slab.weights, slab.gradient, {**slab.moments, **now}, group)
        for tensor, kept in zip(tensors, inactive, strict=True):
            torch.addcmul(kept, tensor, opened, out=tensor)

    def _step(self, weights: Tensor, gradient: Tensor, state: dict, group: Group) -> dict:
        """Take one step of torch's on a tensor and its state. Return the state."""
        weights.grad = gradient
        self.twin.param_groups = [{**group, "params": [weights]}]
        self.twin.state[weights] = state
        self._twin_step(self.twin)
        return self.twin.state.pop(weights)

    def _state(self, parameter: Tensor, group: Group) -> dict[str, Tensor]:
        """Return the optimiser's state of a parameter; zeros, if it took no step yet.

        A step of torch's on an empty tensor shows what the state holds.
        """
        state = self.optimizer.state.get(parameter)
        if state:
            return state
        nothing = parameter.detach()[:0]
        layout = self._step(nothing, parameter.grad[:0], {}, group)
        state = {
            name: torch.zeros_like(parameter if value.shape == nothing.shape else value)
            for name, value in layout.items()
        }
        if state:
            self.optimizer.state[parameter] = state
        return state


def check_flags(optimizer: Optimizer, groups: Sequence[Group]) -> None:
    """Refuse options that ask for a step without decisions on the CPU.

    Raises:
        UserError: a group is capturable or differentiable.
    """
    for flag in ("capturable", "differentiable"):
        if any(group.get(flag) for group in groups):
            raise UserError(
                f"GatedOptimizer: {type(optimizer).__name__} with {flag}=True cannot be gated: "
                "active blocks are chosen outside of its graph. Leave the flag out"
            )


def slabs(
    matrices: Mapping[str, Tensor], layer: Layer
) -> Iterator[tuple[dict[str, Tensor], slice, Callable[[Tensor], Tensor]]]:
    """Walk over matrices of one layer, some rows at a time.

    Blocks of one column get a dimension for the rows of a block, (bands, rows of a block, columns).
    So their values need not be copied for each element.

    Args:
        matrices: (R, C) or (R, C, 1...), all of the layer's shape.
        layer: the layer.

    Yields:
        views of the rows of each matrix; the slice of their blocks; and a function that spreads
        values of these blocks over the elements, in a shape that broadcasts to that of the views.
    """
    flat = {name: as_matrix(matrix) for name, matrix in matrices.items()}
    block = layer.block
    unit = math.lcm(block.rows, LINE)
    size = _slab_size(next(iter(flat.values())))
    count = max(1, size // (unit * layer.columns)) * unit
    across = -(-layer.columns // block.columns)
    for start in range(0, layer.rows, count):
        stop = min(start + count, layer.rows)
        blocks = slice(start // block.rows * across, -(-stop // block.rows) * across)
        shape: tuple[int, ...] = (stop - start, layer.columns)
        if block.columns == 1 and (stop - start) % block.rows == 0:
            bands = (stop - start) // block.rows
            shape = (bands, block.rows, layer.columns)
            spread = partial(_as_bands, bands)
        elif block.rows == 1 and block.columns == layer.columns:
            spread = _as_column
        else:
            spread = partial(expand, shape=shape, block=block)
        yield (
            {name: matrix[start:stop].view(shape) for name, matrix in flat.items()},
            blocks,
            spread,
        )


def _some(slabs: Sequence[Slab]) -> Iterator[list[Slab]]:
    """Divide slabs into parts with few enough blocks that values of blocks stay in cache."""
    part, blocks = [], 0
    for slab in slabs:
        more = slab.active.numel()
        if part and blocks + more > BLOCKS:
            yield part
            part, blocks = [], 0
        part.append(slab)
        blocks += more
    if part:
        yield part


def _slab_size(tensor: Tensor) -> int:
    return SLAB_ON_CPU if tensor.device.type == "cpu" else SLAB_ON_GPU


def _as_column(values: Tensor) -> Tensor:
    return values.view(-1, 1)


def _as_bands(bands: int, values: Tensor) -> Tensor:
    return values.view(bands, 1, -1)


# Bits times 1 or 0 are faster than `where`. Times 1 keeps NaN, infinity and -0; times 0 gives +0.
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_bits(tensor: Tensor) -> Tensor:
    """Return a view of a tensor as integers of its width."""
    return tensor.view(INTEGERS[tensor.element_size()])
