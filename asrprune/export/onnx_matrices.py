"""Find the matrices of exported networks that int8 changes, and name them by their parameters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asrprune.export.onnx_graph import QUANTISED, constants
from asrprune.export.onnx_parts import Part

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Matrix:
    """Name a constant matrix that activations are multiplied by."""

    part: str  # encoder or joiner
    constant: str  # name of the matrix in the graph
    name: str  # name of the parameter, with its rows; the constant's name if none is found


def matrices(parts: Mapping[str, Part], protos: Mapping[str, "onnx.ModelProto"]) -> list[Matrix]:
    """Find the matrices that become int8, in the order in which the networks use them.

    Args:
        parts: the parts of a network.
        protos: the same parts as float32 graphs.
    """
    return [
        Matrix(part, constant, name)
        for part in QUANTISED
        for constant, name in _named(parts[part], protos[part])
    ]


def _named(part: Part, proto: "onnx.ModelProto") -> Iterator[tuple[str, str]]:
    """Yield each constant of a graph with the name of the parameter that has the same numbers."""
    parameters = {
        name.removeprefix("model."): value.detach().reshape(len(value), -1).numpy()
        for name, value in part.module.named_parameters()
        if value.ndim > 1
    }
    used: set[str] = set()
    for constant, value in constants(proto).items():
        found = (
            name
            for key, parameter in parameters.items()
            for one in (value.T, value)  # torch transposes a parameter before it multiplies
            for name in _rows(key, parameter, one)
            if name not in used
        )
        name = next(found, None) or _joined(parameters, value.T) or constant
        used.add(name)
        yield constant, name


def _rows(name: str, parameter: np.ndarray, value: np.ndarray) -> Iterator[str]:
    """Yield the names of a parameter's rows that equal a matrix.

    If all rows are equal, the name is that of the parameter. Otherwise it is ``name[start:end]``.
    """
    if parameter.shape[1] != value.shape[1] or len(parameter) < len(value):
        return
    for start in np.flatnonzero((parameter == value[0]).all(axis=1)):
        if np.array_equal(parameter[start : start + len(value)], value):
            whole = len(parameter) == len(value)
            yield name if whole else f"{name}[{start}:{start + len(value)}]"


def _joined(parameters: Mapping[str, np.ndarray], value: np.ndarray) -> str | None:
    """Return the joined names of the parameters whose rows follow one another in a matrix.

    The exporter joins the queries, keys and values of a layer to one matrix. The result is None if
    the rows of the matrix are not those of whole parameters.
    """
    names: list[str] = []
    start = 0
    while start < len(value):
        rest = value[start:]
        name = next(
            (
                key
                for key, parameter in parameters.items()
                if len(parameter) <= len(rest)
                and parameter.shape[1] == rest.shape[1]
                and np.array_equal(parameter, rest[: len(parameter)])
            ),
            None,
        )
        if name is None:
            return None
        names.append(name)
        start += len(parameters[name])
    return " + ".join(names) or None
