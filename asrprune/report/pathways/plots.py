"""Plots of a pathways model: overlap, densities by layer, and changes of masks over the training.

Equal records give equal files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asrprune.base.figures import MARKS, save_figure
from asrprune.report.pathways.record import Record
from asrprune.report.pathways.renewals import changes

MOST_NUMBERS = 12  # with more languages, overlaps are not written into the heat map
MOST_TICKS = 30  # the maximum number of layers that are named


def draw_masks(record: Record, path: Path) -> None:
    """Draw a heat map of the overlaps of each two languages, and densities in each layer."""
    from matplotlib.figure import Figure

    count = len(record["languages"])
    side = max(4.5, 0.45 * min(count, 30))
    figure = Figure(figsize=(side + 8.5, side + 0.5), layout="constrained")
    halves = figure.subfigures(1, 2, width_ratios=(side + 1, 7.5))
    left, right = (half.subplots() for half in halves)
    _heat_map(halves[0], left, record["overlap"])
    layers = record["layers"]
    places = range(len(layers))
    right.plot(places, [layer["union"] for layer in layers], "o-", ms=3, label="union")
    means = [sum(layer["languages"].values()) / count for layer in layers]
    right.plot(places, means, "s-", ms=3, label="mean over languages")
    right.plot(places, [layer["shared"] for layer in layers], "D-", ms=3, label="shared by all")
    ticks = dict(_parts([layer["name"] for layer in layers]))
    right.set_xticks(list(ticks), list(ticks.values()), rotation=90, fontsize="small")
    right.set(title="density by layer", ylim=(0, 1.02), ylabel="share of the layer's weights")
    right.grid(alpha=0.3)
    right.legend()
    save_figure(figure, path)


def draw_training(record: Record, path: Path) -> None:
    """Draw the change of each mask at its renewals, and the density after them, over steps.

    The first mask of a language does not count as a change.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (language, lines) in enumerate(record["renewals"].items()):
        style = f"{MARKS[number % len(MARKS)]}-"
        left.plot(*_series(changes(lines), "changed"), style, ms=4, label=language)
        # a mask stays as it is until its next renewal
        right.step(*_series(lines, "density"), style, where="post", ms=4, label=language)
    every = sorted((line for lines in record["renewals"].values() for line in lines), key=_step)
    right.step(*_series(every, "union"), where="post", color="black", lw=2, label="union")
    left.set(ylabel="1 - overlap with the mask before", title="change at renewals", ylim=(0, None))
    right.set(ylabel="density", title="density after renewals", ylim=(0, 1.02))
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if not any(len(line.get_xdata()) for line in axes.lines):
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
    figure.legend(handles=right.lines, loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def _heat_map(figure: Any, axes: Any, overlap: dict[str, Any]) -> None:
    names = overlap["languages"]
    image = axes.imshow(overlap["jaccard"], vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("overlap (Jaccard); in brackets: by chance")
    if len(names) > MOST_NUMBERS:
        axes.set_title("overlap (Jaccard)")
        return
    for row, values in enumerate(overlap["jaccard"]):
        for column, value in enumerate(values):
            chance = f"\n({overlap['chance'][row][column]:.2f})" if row != column else ""
            color = "black" if value > 0.55 else "white"
            axes.text(column, row, f"{value:.2f}{chance}", ha="center", va="center", color=color)


def _parts(names: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (index, name) of the first layer of each part of the model.

    A part is, for example, ``layers.3`` of the encoder. If the model has more than `MOST_TICKS`
    parts, only every n-th part is yielded.
    """
    found, last = [], ""
    for place, name in enumerate(names):
        words = name.split(".")
        digits = [n for n, word in enumerate(words) if word.isdigit()]
        part = ".".join(words[: digits[0] + 1] if digits else words[:1])
        if part != last:
            found.append((place, ".".join(part.split(".")[-2:])))
            last = part
    yield from found[:: -(-len(found) // MOST_TICKS)]


def _series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [line[name] for line in lines]


def _step(line: dict[str, Any]) -> int:
    return line["step"]
