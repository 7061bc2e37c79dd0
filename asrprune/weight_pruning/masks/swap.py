"""Put other values into parameters for a while, by pointer: the parameter objects and names stay.

Backward has to run where forward ran. Autograd keeps the parameter, not its values, so a backward
after a swap would multiply by the wrong weights. Each swap counts as a change in place. So torch
refuses this backward with its error "modified by an inplace operation".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from asrprune.base.errors import UserError

SWAPS = 2  # how far one use of `swapped` raises a parameter's version


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the parameters hold ``values`` inside of ``with``; then restore their very tensors.

    The tensors are restored in any case, also after an exception.

    Args:
        parameters: the parameters, by name.
        values: of the parameters' shapes, types and devices, by the same names.

    Raises:
        UserError: at the end, if a parameter was changed inside. The change is lost.
    """
    originals = {name: parameter.data for name, parameter in parameters.items()}
    changed: list[str] = []
    _point(parameters, values)
    versions = {name: parameter._version for name, parameter in parameters.items()}
    try:
        yield
        changed = [
            name
            for name, parameter in parameters.items()
            if parameter._version != versions[name]
            or parameter.data_ptr() != values[name].data_ptr()
        ]
    finally:
        _point(parameters, originals)
    if changed:
        raise UserError(
            f"{changed[0]} ({len(changed)} of {len(parameters)} pruned parameters) was changed "
            "while a mask was applied, and the change is lost. Only forward and backward belong "
            "inside; step the optimizer, load and move the model outside."
        )


def _point(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.data = values[name]
        increment_version(parameter)
    torch.clear_autocast_cache()  # autocast would still use its copies of the old values
