"""Prune ranges: legal for any occupations, equal to the specification read line by line."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.transducer.lattice import Occupations, lattice_loss
from asrprune.transducer.prune_ranges import PruneRanges, prune_ranges, range_widths
from tests.transducer.loss_cases import random_arcs


def line_by_line(px, py, prune_range, modified):
    """Starts of one utterance without padding: px (S, T), py (S + 1, T), in plain Python."""
    symbols, frames = px.shape
    width = min(prune_range, symbols + 1)
    while (width - 1) * frames + 1 < symbols + 1:
        width += 1
    starts = []
    for t in range(frames):
        scores = []
        for s in range(symbols + 2 - width):
            arriving = px[s - 1, t].item() if s > 0 else 0.0
            scores.append(sum(py[s + r, t].item() for r in range(width)) - arriving)
        starts.append(scores.index(max(scores)))
    starts[-1] = max(symbols - width + 1, 0)
    for t in reversed(range(frames - 1)):
        starts[t] = min(starts[t], starts[t + 1])
    growth = 1 if modified else width - 1
    slack = [growth * t - start for t, start in enumerate(starts)]
    for t in reversed(range(frames - 1)):
        slack[t] = min(slack[t], slack[t + 1])
    return [growth * t - max(u, 0) for t, u in enumerate(slack)], width


@st.composite
def problems(draw):
    """Occupations of a random batch, of sharp or flat posteriors."""
    modified = draw(st.booleans())
    t_lens = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    y_lens = [draw(st.integers(0, t if modified else 9)) for t in t_lens]
    px, py = random_arcs(len(t_lens), max(y_lens), max(t_lens), seed=draw(st.integers(0, 999)))
    sharpness = draw(st.sampled_from([0.3, 1.0, 6.0]))
    lengths = torch.tensor(t_lens), torch.tensor(y_lens)
    _, occupations = lattice_loss(sharpness * px, sharpness * py, *lengths, modified)
    return occupations, *lengths, draw(st.integers(1, 6)), modified


@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_ranges_are_legal(problem):
    occupations, t_lens, y_lens, prune_range, modified = problem
    starts, widths = prune_ranges(*problem)
    assert torch.equal(widths, range_widths(t_lens, y_lens, prune_range))
    for b, (frames, symbols, width) in enumerate(zip(t_lens, y_lens, widths, strict=True)):
        own = starts[b, :frames].tolist()
        assert own[0] == 0
        assert own[-1] + width == symbols + 1
        growth = 1 if modified else max(width - 1, 0)
        assert all(0 <= j - i <= growth for i, j in zip(own, own[1:], strict=False))
        assert (starts[b] + width <= symbols + 1).all()


@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_ranges_follow_the_specification_for_each_utterance(problem):
    occupations, t_lens, y_lens, prune_range, modified = problem
    starts, widths = prune_ranges(*problem)
    for b, (frames, symbols) in enumerate(zip(t_lens.tolist(), y_lens.tolist(), strict=True)):
        px, py = occupations.px[b, :symbols, :frames], occupations.py[b, : symbols + 1, :frames]
        expected, width = line_by_line(px, py, prune_range, modified)
        assert starts[b, :frames].tolist() == expected
        assert widths[b] == width


def test_an_example():
    """The symbols of an alignment without doubt are emitted at frames 1, 2, 4 and 4."""
    px, py = torch.zeros(1, 4, 6), torch.zeros(1, 5, 6)
    for symbol, frame in enumerate([1, 2, 4, 4]):
        px[0, symbol, frame] = 1
    for frame, position in enumerate([0, 1, 2, 2, 4, 4]):
        py[0, position, frame] = 1
    example = Occupations(px, py), torch.tensor([6]), torch.tensor([4])
    starts, _ = prune_ranges(*example, prune_range=3, modified=False)
    assert starts.tolist() == [[0, 0, 0, 0, 2, 2]]
    # two positions cannot hold frame 4; the best starts 0, 0, 1, 1, 0, 3 are mended
    starts, _ = prune_ranges(*example, prune_range=2, modified=False)
    assert starts.tolist() == [[0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("frames", "symbols", "prune_range", "width"),
    [
        (10, 3, 5, 4),  # a short transcript needs no more than all of it
        (10, 0, 5, 1),  # an empty one: blanks
        (10, 20, 5, 5),
        (2, 20, 5, 11),  # 10 new positions in each of two frames reach position 20
        (1, 3, 2, 4),
        (30, 3, 1, 2),  # one position would never move
    ],
)
def test_widths(frames, symbols, prune_range, width):
    lengths = torch.tensor([frames]), torch.tensor([symbols])
    assert range_widths(*lengths, prune_range).tolist() == [width]


def test_positions_are_as_many_as_the_widest_band_has():
    ranges = PruneRanges(torch.tensor([[0, 1], [0, 0]]), torch.tensor([3, 1]))
    assert ranges.positions().tolist() == [[[0, 1, 2], [1, 2, 3]], [[0, 1, 2], [0, 1, 2]]]
