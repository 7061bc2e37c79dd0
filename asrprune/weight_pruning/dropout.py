"""Less dropout for a smaller sub-network: it has less that could be learnt by heart."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

# modules beside nn.Dropout and its kind, and their attributes that are probabilities of dropout
_ATTRIBUTES = ("attention_dropout", "dropout")


@contextmanager
def scaled_dropout(module: nn.Module, factor: float) -> Iterator[None]:
    """Inside of it every probability of dropout is ``factor`` times itself (1: nothing changes).

    Those of ``nn.Dropout`` and its kind, and of modules with a number ``dropout`` or
    ``attention_dropout``, as ``nn.MultiheadAttention`` and ``nn.LSTM`` have.
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
