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
    found = []
    for part in module.modules():
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
