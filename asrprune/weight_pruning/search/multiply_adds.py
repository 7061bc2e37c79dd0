"""Count multiply-adds with weights while a module runs: how often each weight is used.

Products of activations alone, such as attention's of queries and keys, are not counted. Only masks
of layers and heads change these products, and over a whole utterance they would grow with the
square of its length.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ADDED = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)  # the first argument is added
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.bmm, *_ADDED)


def count_multiply_adds(run: Callable[[], object], weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many multiplications by each weight ``run`` does.

    Counted are matrix products and convolutions. On the CPU these are all, except for recurrent
    layers: they count as 0 where they run as one operation. A view of a weight counts as the
    weight.

    Args:
        run: called once, without gradients.
        weights: the weights, by name.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # hides its products inside one operation
    try:
        with torch.no_grad(), _Counter(weights) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.counts


class _Counter(TorchDispatchMode):
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.counts = dict.fromkeys(weights, 0)
        self._names = {_place(weight): name for name, weight in weights.items()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in _PRODUCTS:
            left, right = args[1:3] if packet in _ADDED else args[:2]
            for weight in (left, right):
                self._count(weight, left.numel() * right.shape[-1])
        elif packet is torch.ops.aten.convolution:
            weight = args[1]
            ends = args[0] if args[6] else result  # transposed: each input is spread
            self._count(weight, ends.numel() * weight[0].numel())
        return result

    def _count(self, weight: Tensor, products: int) -> None:
        if (name := self._names.get(_place(weight))) is not None:
            self.counts[name] += products


def _place(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, the same for all views."""
    return tensor.untyped_storage().data_ptr()
