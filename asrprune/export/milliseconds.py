"""Measure the time of the int8 encoder on this machine for each width: onnxruntime, one thread.

A streaming encoder is timed on one chunk, and an encoder of whole utterances on one second of
speech. The encoder is timed as a whole: dense, and at some uniform sparsities. The saved time at a
sparsity is divided among the groups in proportion to their multiply-adds. This is exact if all
modules have the same shape. Between the measured sizes the savings are interpolated. The savings of
groups are added.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from asrprune.base.environment import machine
from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.export.int8_encoder import example, int8_network
from asrprune.export.onnx_graph import check_packages
from asrprune.export.onnx_parts import cut
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import Choice, MaskBank
from asrprune.weight_pruning.masks.blocks import LEVELS, level_of

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

MEASURED = 4  # number of sparsities that are timed, beside the dense network
_WARM_UP, _FEWEST, _MOST = 3, 40, 400  # runs of a graph: before timing, at least, at most
_SECONDS = 20.0  # limit for all graphs together, once each graph has had the fewest runs


@dataclass(frozen=True)
class Times:
    """Hold the measured milliseconds of the int8 encoder at uniform sparsities."""

    sparsities: list[float]  # ascending; the first is 0
    milliseconds: list[float]
    streaming: bool  # whether the times are for a chunk; otherwise they are for a second of speech

    @property
    def what(self) -> str:
        """Return what the milliseconds are for."""
        return "a chunk" if self.streaming else "a second of speech"


class Estimate:
    """Estimate the milliseconds of all sub-networks from the times of a few uniform ones."""

    def __init__(self, times: Times, bank: MaskBank, work: Mapping[str, float]):
        """Divide the time that the encoder saves among the groups.

        Args:
            times: the measured times.
            bank: the masks of the model.
            work: the multiply-adds of one channel of each group, by the group's name. Only their
                ratios matter.
        """
        # without this, noise could make a smaller network slower
        measured = np.minimum.accumulate(times.milliseconds)
        self.dense = float(measured[0])
        dropped = {group.name: [0] for group in bank.groups}
        for sparsity in times.sparsities[1:]:
            for name, kept in bank.blocks(sparsity).items():
                dropped[name].append(int((~kept).sum()))
        parts = {name: work[name] * np.array(counts) for name, counts in dropped.items()}
        total = np.maximum(sum(parts.values()), 1e-300)
        self._curves = {}
        for name, counts in dropped.items():
            saved = np.maximum.accumulate((self.dense - measured) * parts[name] / total)
            places = np.unique(counts, return_index=True)[1]
            self._curves[name] = np.array(counts)[places], saved[places]

    def saved(self, group: str, dropped: int) -> float:
        """Return the milliseconds that a group saves without so many of its channels."""
        return float(np.interp(dropped, *self._curves[group]))

    def of(self, units: Mapping[str, Tensor]) -> float:
        """Return the milliseconds of a network that keeps units (units,) bool of each group."""
        return self.dense - sum(
            self.saved(name, int((~kept).sum())) for name, kept in units.items()
        )


def require_cuts(bank: MaskBank, unit: str = "milliseconds") -> None:
    """Check that sub-networks of a model have different sizes and times.

    Args:
        bank: the masks of the model.
        unit: ``bytes`` or ``milliseconds``, for the message.

    Raises:
        UserError: weights are pruned in blocks.
    """
    if not bank.cuts:
        raise UserError(
            f"a budget in {unit} needs weight_pruning.unit=channel, layer or head: a runtime loads "
            "and multiplies the zeros of masked blocks too, so all sub-networks have the size and "
            "the speed of the dense network. Give a sparsity, such as 0.7, or multiply-adds, such "
            "as 120MMAC"
        )


def measure_times(model: Transducer, bank: MaskBank, sparsest: float) -> Times:
    """Time the int8 encoder of a model at uniform sparsities from 0 to ``sparsest``.

    Args:
        model: the dense network.
        bank: the masks of the model.
        sparsest: the highest sparsity of a layer.

    Raises:
        UserError: weights are pruned in blocks; a package is missing; the model cannot be exported.
    """
    require_cuts(bank)
    last = min(level_of(sparsest), LEVELS - 1)  # the last level drops everything
    levels = sorted({round(last * part / MEASURED) for part in range(MEASURED + 1)})
    sparsities = [level / LEVELS for level in levels]
    found = time_networks(model, bank, sparsities)
    times = Times(sparsities, found, getattr(model.encoder, "streaming", False))
    log.info(
        "the int8 encoder takes %.3f ms for %s, dense, and %.3f ms at sparsity %g",
        found[0],
        times.what,
        found[-1],
        sparsities[-1],
    )
    return times


def known_times(
    path: Path, model: Transducer, bank: MaskBank, sparsest: float, digest: str
) -> Times:
    """Read the times of a model from a file; if there is no such file, measure and write them.

    Args:
        path: the file. Resumed searches and searches of other budgets share this file.
        model: the dense network.
        bank: the masks of the model.
        sparsest: the highest sparsity of a layer.
        digest: the digest of the model.

    Raises:
        UserError: the file belongs to another model or another machine; or see `measure_times`.
    """
    require_cuts(bank)
    check_packages()
    import onnxruntime

    identity = {
        "model": digest,
        "sparsest": sparsest,
        "machine": machine(),
        "onnxruntime": onnxruntime.__version__,
    }
    if path.exists():
        content = read_json(path)
        for name, value in identity.items():
            if not isinstance(content, dict) or content.get(name) != value:
                raise UserError(
                    f"{path} has times of another {name}. Delete it to measure on this machine, "
                    "and search again"
                )
        try:
            return Times(**content["times"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged. Delete it to measure again") from error
    times = measure_times(model, bank, sparsest)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**identity, "times": vars(times)})
    return times


def time_networks(model: Transducer, bank: MaskBank, choices: Sequence[Choice]) -> list[float]:
    """Return the milliseconds of the int8 encoders of some sub-networks, each timed as a whole.

    Raises:
        UserError: a package is missing; the model cannot be exported.
    """
    check_packages()
    return time_graphs([int8_network(model, bank, bank.blocks(choice)) for choice in choices])


def time_graphs(
    graphs: Sequence[tuple["onnx.ModelProto", Mapping[str, np.ndarray]]],
) -> list[float]:
    """Return the milliseconds of each graph in onnxruntime on one thread.

    The graphs run in turn: if the machine becomes slow, all of them become slow. The lowest time of
    many runs is returned, because other work of the machine can only add to the time.

    Args:
        graphs: the graphs to time, with their inputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [
        onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for graph, _ in graphs
    ]
    least = np.full(len(sessions), math.inf)
    started = time.perf_counter()
    for number in range(-_WARM_UP, _MOST):
        if number >= _FEWEST and time.perf_counter() - started > _SECONDS:
            break
        for place in np.roll(range(len(sessions)), number):
            began = time.perf_counter()
            sessions[place].run(None, dict(graphs[place][1]))
            took = time.perf_counter() - began
            if number >= 0:
                least[place] = min(least[place], took)
    return [round(1e3 * seconds, 6) for seconds in least.tolist()]


def time_file(path: Path, model: Transducer) -> float:
    """Return the milliseconds of an exported int8 encoder.

    Args:
        path: the file.
        model: the exported model on the CPU. A model with other widths will do too.
    """
    import onnx

    [took] = time_graphs([(onnx.load(path), example(cut(model)["encoder"]))])
    return took
