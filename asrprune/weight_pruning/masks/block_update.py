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
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.blocks import expand
from asrprune.weight_pruning.masks.prunable import Layer, as_matrix

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
    youngest: int  # steps of the youngest active block of its layer, the present one included
    counter: Tensor | None  # the optimiser's own count of the parameter's steps, if it has one


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
    bits, kept, weight, second_kept, never, root, rate = (
        [slab.spread(part) for slab, part in zip(slabs, value.split(sizes), strict=True)]
        for value in values
    )
    weights = [slab.weights for slab in slabs]
    firsts = [slab.moments["exp_avg"] for slab in slabs]
    seconds = [slab.moments["exp_avg_sq"] for slab in slabs]
    gradients = _gradients(slabs, group["maximize"], 0 if decoupled else decay, bits)
    if decay and decoupled:
        torch._foreach_mul_(weights, kept)
    if first.dtype == dtype:
        torch._foreach_lerp_(firsts, gradients, weight)
    else:  # rounded once, as torch does
        for moment, gradient, share in zip(firsts, gradients, weight, strict=True):
            moment.copy_(moment.to(dtype).lerp_(gradient, share))
    torch._foreach_mul_(seconds, second_kept)
    torch._foreach_addcmul_(seconds, gradients, gradients, value=1 - beta2)
    if group["amsgrad"]:
        largest = [slab.moments["max_exp_avg_sq"] for slab in slabs]
        torch._foreach_maximum_(largest, seconds)
        seconds = largest
    # `never` adds 1 to inactive blocks: roots of 0 take ten times as long on a CPU
    below = torch._foreach_add(seconds, never)
    torch._foreach_sqrt_(below)
    torch._foreach_div_(below, root)
    torch._foreach_add_(below, group["eps"])
    changes = torch._foreach_mul(firsts, rate)
    torch._foreach_div_(changes, below)
    torch._foreach_mul_([as_bits(change) for change in changes], bits)
    torch._foreach_sub_(weights, changes)


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
        gradient = _gradients([slab], group["maximize"], group["weight_decay"], [bits])[0]
        momentum, active = slab.moments["momentum_buffer"], slab.spread(slab.active)
        later = momentum.mul(group["momentum"]).add_(gradient, alpha=1 - group["dampening"])
        now = torch.where(slab.spread(slab.counts == 1), gradient, later)
        momentum.copy_(torch.where(active, now, momentum))
        slab.weights.sub_(_times_bits(momentum.clone(), bits), alpha=float(group["lr"]))


def _gradients(
    slabs: Sequence[Slab], maximize: bool, decay: float, bits: list[Tensor]
) -> list[Tensor]:
    """Return a step's gradients, 0 in inactive blocks: new tensors, of float32 at least."""
    gradients: list[Tensor] | tuple[Tensor, ...] = [slab.gradient for slab in slabs]
    if maximize:
        gradients = torch._foreach_neg(gradients)
    if decay:
        gradients = torch._foreach_add(gradients, [slab.weights for slab in slabs], alpha=decay)
    least = torch.promote_types(gradients[0].dtype, torch.float32)
    own = torch._foreach_mul([as_bits(gradient.to(least)) for gradient in gradients], bits)
    return [found.view(least) for found in own]


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
        alike: dict[tuple[Any, ...], list[Slab]] = {}  # the same, of blocks of one age
        oldest = max((update.ages.oldest for update in updates), default=0)
        groups = {id(update.group): update.group for update in updates}
        for update in updates:
            parameter = update.parameter
            shared = (id(update.group), parameter.dtype, parameter.device)
            depends = self.kind.depends(update.group, update.ages)
            found = (by_age if depends else alike).setdefault(shared, [])
            found.extend(self._slabs(update))
        for (group, *_), found in by_age.items():
            for part in _some(found):
                self.kind.step(part, groups[group], oldest)
        for (group, *_), found in alike.items():
            for part in _some(found):
                self._step_alike(part, groups[group])

    def _slabs(self, update: Update) -> Iterator[Slab]:
        """Yield the slabs of a parameter, and set the count of its steps that the optimiser has."""
        parameter, youngest = update.parameter, update.ages.youngest
        state = self._state(parameter, update.group)
        counter = state.get("step")
        matrices = {name: moment for name, moment in state.items() if name != "step"}
        matrices |= {"weights": parameter.detach(), "gradient": cast(Tensor, parameter.grad)}
        for views, blocks, spread in slabs(matrices, update.layer):
            weights, gradient = views.pop("weights"), views.pop("gradient")
            active, counts = update.active[blocks], update.counts[blocks]
            yield Slab(weights, gradient, views, active, counts, spread, youngest, counter)
        if counter is not None:
            counter.fill_(update.ages.maximum)

    def _step_alike(self, slabs: Sequence[Slab], group: Group) -> None:
        """Take torch's own step of some slabs' active blocks, whose ages do not matter in a layer.

        All of the slabs take the step. Then the inactive blocks get back what they were.
        """
        opened = torch.cat([slab.active for slab in slabs])
        opened = opened.to(INTEGERS[slabs[0].weights.element_size()])
        sizes = [len(slab.active) for slab in slabs]
        tensors: list[Tensor] = []
        active: list[Tensor] = []
        inactive: list[Tensor] = []
        for slab, *parts in zip(slabs, opened.split(sizes), (1 - opened).split(sizes), strict=True):
            found = [as_bits(tensor) for tensor in (slab.weights, *slab.moments.values())]
            tensors += found
            for spread, part in zip((active, inactive), map(slab.spread, parts), strict=True):
                spread += [part] * len(found)
        kept = torch._foreach_mul(tensors, inactive)
        self._step(slabs, group)
        torch._foreach_mul_(tensors, active)
        torch._foreach_add_(tensors, kept)

    def _step(self, slabs: Sequence[Slab], group: Group) -> None:
        """Take one step of torch's on some slabs, as if they were parameters."""
        for slab in slabs:
            slab.weights.grad = slab.gradient
            self.twin.state[slab.weights] = dict(slab.moments)
            if slab.counter is not None:  # a new tensor for each slab, as a step counts it up
                count = slab.counter.clone().fill_(slab.youngest - 1)
                self.twin.state[slab.weights]["step"] = count
        self.twin.param_groups = [{**group, "params": [slab.weights for slab in slabs]}]
        self._twin_step(self.twin)
        self.twin.state.clear()

    def _state(self, parameter: Tensor, group: Group) -> dict[str, Tensor]:
        """Return the optimiser's state of a parameter; zeros, if it took no step yet.

        A step of torch's on an empty tensor shows what the state holds.
        """
        state = self.optimizer.state.get(parameter)
        if state:
            return state
        nothing = parameter.detach()[:0]
        nothing.grad = cast(Tensor, parameter.grad)[:0]
        self.twin.param_groups = [{**group, "params": [nothing]}]
        self._twin_step(self.twin)
        layout = self.twin.state.pop(nothing, {})
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
            spread: Callable[[Tensor], Tensor] = partial(_as_bands, bands)
        elif block.rows == 1 and block.columns == layer.columns:
            spread = _as_column
        else:
            spread = partial(expand, shape=shape, block=block)
        if stop - start < layer.rows:
            parts = {name: matrix[start:stop] for name, matrix in flat.items()}
        else:
            parts = flat
        if len(shape) > 2:
            parts = {name: matrix.view(shape) for name, matrix in parts.items()}
        yield parts, blocks, spread


def _some(slabs: Sequence[Slab]) -> Iterator[list[Slab]]:
    """Divide slabs into parts with so few elements and blocks that temporaries stay in cache."""
    part: list[Slab] = []
    elements = blocks = 0
    for slab in slabs:
        elements += slab.weights.numel()
        blocks += slab.active.numel()
        if part and (elements > _slab_size(slab.weights) or blocks > BLOCKS):
            yield part
            part, elements, blocks = [], slab.weights.numel(), slab.active.numel()
        part.append(slab)
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
