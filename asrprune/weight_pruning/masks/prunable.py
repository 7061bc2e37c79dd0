"""Decide which parameters of a module are pruned, by the module that uses each of them.

Prunable are weights of Linear, projections of MultiheadAttention, convolutions of kernel 1 and, by
option, recurrent weights. Some are easy to miss: ``in_proj_weight`` of attention is in no
Linear, and a convolution of kernel 1 is a matrix. Never prunable are embeddings, norms, biases, and
larger, grouped or depthwise convolutions. A parameter with several names counts once, by its first
name, and only if all its uses allow pruning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from asrprune.base import markdown
from asrprune.base.errors import UserError, nearest
from asrprune.weight_pruning.masks.blocks import grid_of
from asrprune.weight_pruning.options import Block

LINEAR, ATTENTION, CONVOLUTION, RECURRENT = "linear", "attention", "convolution", "recurrent"
VECTOR = "vector"  # a bias, pruned only together with the rows of its matrix
OTHER = "other"  # a parameter of another type, pruned only when its whole layer is dropped
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Layer:
    """A prunable parameter as a matrix of outputs (rows) x inputs (columns), in blocks."""

    name: str  # of the parameter, as in `named_parameters`
    rows: int
    columns: int
    kind: str  # linear, attention, convolution, recurrent, vector or other
    block: Block
    first: int = 0  # the unit of its group that its first block belongs to
    times: int = 1  # how often the same units follow one another: 3 in queries, keys and values

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        rows, columns = grid_of(self.shape, self.block)
        return rows * columns

    @property
    def end(self) -> int:
        """The unit of its group after the last one that its blocks belong to."""
        return self.first + self.blocks // self.times

    def of(self, units: Tensor) -> Tensor:
        """Return the values (blocks,) of the layer's blocks, out of its group's (units,)."""
        found = units[self.first : self.end]
        return found.repeat(self.times) if self.times > 1 else found

    def add_to(self, units: Tensor, blocks: Tensor) -> None:
        """Add the values (blocks,) of the layer's blocks to its group's (units,), in place."""
        if self.times > 1:
            blocks = blocks.view(self.times, -1).sum(0)
        units[self.first : self.end] += blocks.to(units.device)

    def __str__(self) -> str:
        return f"{self.name} ({self.rows} x {self.columns})"


@dataclass(frozen=True)
class Verdict:
    """What a parameter is: a type of layer, or why it is not prunable."""

    kind: str | None
    reason: str = ""


def find_layers(
    module: nn.Module,
    block: Block,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    recurrent: bool = False,
    ragged: str = "refuse",
) -> list[Layer]:
    """Return the prunable layers of a module, in the order of its parameters.

    Args:
        module: the module.
        block: the shape of the blocks.
        include: patterns of names to choose from, such as ``encoder.*``. Empty: all names.
        exclude: patterns of names to leave out.
        recurrent: take the weights of LSTM, GRU and plain RNN too.
        ragged: what to do if a block does not divide a layer: ``refuse``, or ``pad``, with smaller
            blocks at the edges. N:M must divide the columns in any case.

    Raises:
        UserError: a pattern matches nothing; an included pattern matches nothing prunable; a block
            does not divide some layers; no layer is left; or a lazy module has no shapes yet.
    """
    verdicts = verdicts_of(module)
    kinds = {name: verdict.kind for name, verdict in verdicts.items() if verdict.kind}
    check_patterns("include", include, verdicts)
    check_patterns("exclude", exclude, verdicts)
    chosen = {
        name: kind
        for name, kind in kinds.items()
        if (recurrent or kind != RECURRENT)
        and (not include or matches(name, include))
        and not matches(name, exclude)
    }
    if not chosen:
        raise UserError(_nothing_left(module, kinds, recurrent))
    layers = []
    for name, kind in chosen.items():
        rows, columns = as_matrix(module.get_parameter(name)).shape
        layers.append(Layer(name, rows, columns, kind, block))
    _check_division(layers, block, ragged)
    return layers


def parameter_of(module: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter by its name in ``named_parameters``, faster than ``get_parameter``."""
    *path, key = name.split(".")
    found: Any = module  # torch's tables may hold None, but not under a parameter's name
    for part in path:
        found = found._modules[part]
    return found._parameters[key]


def as_matrix(parameter: Tensor) -> Tensor:
    """Return a layer's parameter (R, C) or (R, C, 1...) as its matrix (R, C).

    A vector (R,) is a matrix (R, 1).
    """
    return parameter.flatten(1) if parameter.ndim > 1 else parameter.unsqueeze(1)


def table(module: nn.Module, layers: Sequence[Layer]) -> str:
    """Return a Markdown table of all parameters of two or more dimensions.

    The table says for each parameter what it is pruned as, or why it is not pruned.

    Args:
        module: the module.
        layers: those of the module that :func:`find_layers` chose.
    """
    kinds = {layer.name: layer.kind for layer in layers}
    verdicts = verdicts_of(module)
    rows = []
    total = pruned = 0
    for name, parameter in module.named_parameters():
        total += parameter.numel()
        if name in kinds:
            pruned += parameter.numel()
        if parameter.ndim < 2:
            continue
        what = kinds.get(name) or f"no: {verdicts[name].reason or 'left out by option'}"
        shape = " x ".join(map(str, parameter.shape))
        rows.append((name, shape, f"{parameter.numel():,}", what))
    share = pruned / max(total, 1)
    rows.append((f"pruned: {len(kinds)} layers", "", f"{pruned:,}", f"{share:.1%} of all"))
    rows.append(("all parameters, biases and norms too", "", f"{total:,}", ""))
    return markdown.table(("parameter", "shape", "elements", "pruned as"), rows) + "\n"


def verdicts_of(module: nn.Module) -> dict[str, Verdict]:
    """Return the verdict on each parameter, by its first name.

    Raises:
        UserError: a parameter has no shape yet, or is sharded.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    verdicts: dict[str, Verdict] = {}
    for path, part in module.named_modules():
        for key, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            name = names[id(parameter)]
            if nn.parameter.is_lazy(parameter):
                raise UserError(
                    f"weight_pruning: {name} has no shape yet: run a batch through the module first"
                )
            refuse_sharded(name, parameter)
            here = _verdict(part, key, parameter)
            before = verdicts.get(name)
            if before is None:
                verdicts[name] = here
            elif before.kind and not here.kind:
                shared = f"{path}.{key}" if path else key
                verdicts[name] = Verdict(None, f"shared with {shared}: {here.reason}")
    return {name: verdicts[name] for name in names.values()}


def refuse_sharded(name: str, parameter: Tensor) -> None:
    """Refuse a parameter of which each rank holds a part, as with FSDP2 (``fully_shard``).

    Masks rank and gate whole matrices. torch's own error would only say that tensors and DTensors
    were mixed.

    Args:
        name: of the parameter, for the message.
        parameter: the parameter.

    Raises:
        UserError: the parameter is a DTensor.
    """
    if hasattr(parameter, "full_tensor"):  # does not load torch.distributed.tensor
        raise UserError(
            f"weight_pruning: {name} is a {type(parameter).__name__}, of which each rank holds a "
            "part. Masks need whole matrices: train with DistributedDataParallel in place of FSDP2"
        )


def _verdict(part: nn.Module, key: str, parameter: nn.Parameter) -> Verdict:
    """Return what a parameter is to the module that holds it as its attribute ``key``."""
    if key.startswith("bias") or key.endswith("bias"):
        return Verdict(None, "bias")
    if parameter.ndim < 2 or not parameter.numel():
        return Verdict(None, "no matrix")
    if not parameter.is_floating_point():
        return Verdict(None, f"of {str(parameter.dtype).removeprefix('torch.')}")
    if isinstance(part, nn.Linear) and key == "weight":
        return Verdict(LINEAR)
    if isinstance(part, nn.MultiheadAttention) and key in _ATTENTION_WEIGHTS:
        return Verdict(ATTENTION)
    if isinstance(part, nn.RNNBase | nn.RNNCellBase) and key.startswith("weight_"):
        return Verdict(RECURRENT, "recurrent, which is pruned by option alone")
    if isinstance(part, nn.modules.conv._ConvNd) and key == "weight":
        return _verdict_on_convolution(part)
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return Verdict(None, "embedding")
    if isinstance(part, _NORMS):
        return Verdict(None, "normalisation")
    return Verdict(None, f"{key} of {type(part).__name__}, which has no rule")


def _verdict_on_convolution(part: nn.modules.conv._ConvNd) -> Verdict:
    if part.transposed:
        return Verdict(None, "transposed convolution")
    if part.groups > 1:
        depthwise = part.groups == part.in_channels
        return Verdict(None, f"{'depthwise' if depthwise else 'grouped'} convolution")
    if set(part.kernel_size) != {1} or not isinstance(part, _CONVOLUTIONS):
        return Verdict(None, f"convolution of {' x '.join(map(str, part.kernel_size))}")
    return Verdict(CONVOLUTION)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name matches any of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(option: str, patterns: Sequence[str], verdicts: dict[str, Verdict]) -> None:
    """Check the patterns of an option.

    Args:
        option: ``include`` or ``exclude``.
        patterns: the patterns.
        verdicts: the verdict on each parameter, by its name.

    Raises:
        UserError: a pattern matches no name; or a pattern of ``include`` matches nothing prunable.
    """
    for pattern in patterns:
        matched = [name for name in verdicts if fnmatchcase(name, pattern)]
        if not matched:
            raise UserError(
                f"weight_pruning.{option}={pattern}: no parameter has such a name"
                f"{nearest(pattern, _names_and_patterns(verdicts))}"
            )
        if option == "include" and not any(verdicts[name].kind for name in matched):
            raise UserError(
                f"weight_pruning.include={pattern}: no such parameter can be pruned: "
                f"{listed([f'{name} ({verdicts[name].reason})' for name in matched])}"
            )


def _names_and_patterns(names: Iterable[str]) -> set[str]:
    """Return names, and all patterns of the form ``encoder.*``."""
    parts = {name: name.split(".") for name in names}
    return set(parts) | {
        ".".join([*path[:depth], "*"]) for path in parts.values() for depth in range(1, len(path))
    }


def _nothing_left(module: nn.Module, kinds: dict[str, str], recurrent: bool) -> str:
    if not kinds:
        return f"weight_pruning: {type(module).__name__} has no parameter that can be pruned"
    ways = "loosen weight_pruning.include and exclude"
    if RECURRENT in kinds.values() and not recurrent:
        ways = f"set weight_pruning.recurrent=true, or {ways}"
    return f"weight_pruning: no layer is left of {listed(list(kinds))}; {ways}"


def _check_division(layers: Sequence[Layer], block: Block, ragged: str) -> None:
    if block.group:
        uneven = [layer for layer in layers if layer.columns % block.group]
        way = ""
    else:
        uneven = [
            layer for layer in layers if layer.rows % block.rows or layer.columns % block.columns
        ]
        way = "set weight_pruning.ragged=pad, for smaller blocks at the edges, or "
    if uneven and (block.group or ragged == "refuse"):
        raise UserError(
            f"weight_pruning.block={block} does not divide {listed(list(map(str, uneven)))}; {way}"
            "choose another block, or leave layers out by weight_pruning.exclude"
        )


def listed(names: Sequence[str]) -> str:
    """Return the first names as a text, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
