"""Scale dropout down for a smaller sub-network, which has less capacity to overfit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

# attributes that are probabilities of dropout, in modules other than nn.Dropout and its variants
_ATTRIBUTES = ("attention_dropout", "dropout")
_LEAST = 1e-6  # of a kept share, so that a probability of 1 does not divide by 0


class TensorDropout(nn.Module):
    """``nn.Dropout`` whose probability is a tensor, for modules that are compiled.

    ``torch.compile`` compiles a module anew for each new number in it, such as the probability of
    ``nn.Dropout``. A tensor is an input of the compiled graph, so one graph serves for all sizes.
    """

    def __init__(self, p: float):
        """Make a dropout.

        Args:
            p: probability of an element to be zeroed.
        """
        super().__init__()
        # On the CPU, which serves modules on any device. It is no buffer: `DistributedDataParallel`
        # would give all ranks the probability of the first.
        self.p = torch.tensor(p)

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements of ``x`` in training, and scale the others so that the mean stays."""
        if not self.training:
            return x
        kept = torch.rand_like(x, dtype=torch.float32) >= self.p
        return x * kept / (1 - self.p).clamp(min=_LEAST)


def with_tensor_dropout(module: nn.Module) -> nn.Module:
    """Replace each ``nn.Dropout`` of a module by a `TensorDropout`, in place.

    Parameters and state dict stay as they are. Probabilities of other modules stay numbers, such as
    those of ``nn.MultiheadAttention`` and ``nn.LSTM``.

    Args:
        module: the module.

    Returns:
        The module; a new one if it is an ``nn.Dropout`` itself.
    """
    new: dict[nn.Module, nn.Module] = {
        part: TensorDropout(part.p).train(part.training)
        for part in module.modules()
        if type(part) is nn.Dropout
    }
    for part in list(module.modules()):
        for name, child in part._modules.items():  # one that is there twice has two names
            if child in new:
                part._modules[name] = new[child]
    return new.get(module, module)


@contextmanager
def scaled_dropout(module: nn.Module, factor: float) -> Iterator[None]:
    """Multiply every probability of dropout by ``factor`` inside of ``with`` (1: nothing changes).

    These are ``p`` of ``nn.Dropout`` and its variants, and numbers named ``dropout`` or
    ``attention_dropout``, as in ``nn.MultiheadAttention`` and ``nn.LSTM``. The probability of a
    `TensorDropout` is another tensor inside, so backward may run later.
    """
    found: list[tuple[nn.Module, str, Tensor | float]] = []
    for part in module.modules():
        if isinstance(part, TensorDropout):
            found.append((part, "p", part.p))
        if isinstance(part, _DropoutNd):
            found.append((part, "p", part.p))
        values = vars(part)  # getattr is slow where there is no such attribute
        found += [
            (part, name, values[name]) for name in _ATTRIBUTES if type(values.get(name)) is float
        ]
    try:
        for part, name, value in found:
            setattr(part, name, factor * value)
        yield
    finally:
        for part, name, value in found:
            setattr(part, name, value)
