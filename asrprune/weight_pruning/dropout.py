"""Scale dropout down for a smaller sub-network, which has less capacity to overfit."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

# attributes that are probabilities of dropout, in modules other than nn.Dropout and its variants
_ATTRIBUTES = ("attention_dropout", "dropout")


@contextmanager
def scaled_dropout(module: nn.Module, factor: float) -> Iterator[None]:
    """Multiply every probability of dropout by ``factor`` inside of ``with`` (1: nothing changes).

    These are ``p`` of ``nn.Dropout`` and its variants, and numbers named ``dropout`` or
    ``attention_dropout``, as in ``nn.MultiheadAttention`` and ``nn.LSTM``.
    """
    found = [(part, "p", part.p) for part in module.modules() if isinstance(part, _DropoutNd)]
    found += [
        (part, name, value)
        for part in module.modules()
        for name in _ATTRIBUTES
        if type(value := getattr(part, name, None)) is float
    ]
    try:
        for part, name, value in found:
            setattr(part, name, factor * value)
        yield
    finally:
        for part, name, value in found:
            setattr(part, name, value)
