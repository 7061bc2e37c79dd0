"""Multiply-adds with weights, counted as a module runs: how often each of its weights is used.

Products of activations alone, such as attention's of queries and keys, are not among them: no mask
changes these, and over a whole utterance they would grow with its square.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ADDED = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)  # the first argument is added
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.bmm, *_ADDED)


def count_multiply_adds(run: Callable[[], object], weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many multiplications by each weight ``run`` does, in matrix products and convolutions.

    On the CPU that is all there is but for recurrent layers, which count as 0 where they run as
    one operation. A view of a weight counts as the weight.

    Args:
        run: is called once, without gradients.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that nothing is seen of
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
            ends = args[0] if args[6] else result  # of a transposed one each input is spread
            self._count(weight, ends.numel() * weight[0].numel())
        return result

    def _count(self, weight: Tensor, products: int) -> None:
        if (name := self._names.get(_place(weight))) is not None:
            self.counts[name] += products


def _place(tensor: Tensor) -> int:
    """Of a tensor's memory, whatever view of it this is."""
    return tensor.untyped_storage().data_ptr()
