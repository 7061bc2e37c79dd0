"""Blocks, their scores and levels against lists of numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.weight_pruning.masks import blocks
from asrprune.weight_pruning.masks.blocks import Block, drop_levels, kept, level_of, parse_block
from asrprune.weight_pruning.options import WeightPruningOptions

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, 1e-20]) | st.floats(-4, 4, width=32)
fast = settings(deadline=None, max_examples=60)


@st.composite
def matrices(draw):
    """A matrix, and a block that need not divide it."""
    rows, columns = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    values = draw(st.lists(VALUES, min_size=rows * columns, max_size=rows * columns))
    block = Block(draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    return torch.tensor(values, dtype=torch.float32).view(rows, columns), block


def places(shape, block):
    """For each block, in order, the (row, column) of its entries."""
    return [
        [
            (row, column)
            for row in range(top, min(top + block.rows, shape[0]))
            for column in range(left, min(left + block.columns, shape[1]))
        ]
        for top in range(0, shape[0], block.rows)
        for left in range(0, shape[1], block.columns)
    ]


def first_dropping(rank, count):
    """The definition of a drop level: the first that drops more blocks than come before."""
    return next(j for j in range(251) if math.floor(j * count / 250 + 0.5) > rank)


def ranks(scores):
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    return [order.index(i) for i in range(len(scores))]


@fast
@given(matrices(), st.sampled_from(["mean_square", "l1"]))
def test_scores_are_means_of_what_a_block_has(case, criterion):
    matrix, block = case
    rule = (lambda x: x * x) if criterion == "mean_square" else abs
    expected = [
        sum(rule(matrix[place].item()) for place in mine) / len(mine)
        for mine in places(matrix.shape, block)
    ]
    scores = blocks.block_scores(matrix, block, criterion)
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-6, atol=1e-30)
    sizes = blocks.block_sizes(matrix.shape, block)
    assert sizes.tolist() == [len(mine) for mine in places(matrix.shape, block)]
    assert len(scores) == math.prod(blocks.grid_of(matrix.shape, block))


@pytest.mark.parametrize("size", ["8x1", "16x4", "3x5", "1x1"])
def test_scores_and_levels_are_equal_for_any_number_of_threads(size):
    block, matrix = parse_block(size), torch.randn(501, 403, generator=torch.Generator())
    answers = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        scores = blocks.block_scores(matrix, block)
        answers.append((scores, drop_levels([scores])[0]))
    assert torch.equal(answers[0][0], answers[1][0]) and torch.equal(answers[0][1], answers[1][1])


def test_scores_of_other_types_are_of_the_numbers_that_they_hold():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        matrix = torch.randn(16, 8, generator=torch.Generator()).to(dtype)
        for layout in (matrix, matrix.T.contiguous().T, matrix.requires_grad_()):
            scores = blocks.block_scores(layout, Block(8, 1))
            assert scores.dtype == torch.float32 and not scores.requires_grad
            assert torch.equal(scores, blocks.block_scores(matrix.detach().float(), Block(8, 1)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e20])
def test_what_is_not_finite_shows_in_its_score(bad):
    matrix = torch.ones(8, 3)
    matrix[5, 1] = bad
    assert blocks.block_scores(matrix, Block(8, 1)).isfinite().tolist() == [True, False, True]


SCORES = st.lists(VALUES | st.just(float("inf")), min_size=1, max_size=400)


@fast
@given(st.lists(SCORES, min_size=1, max_size=4), st.sampled_from(["layer", "global"]))
def test_levels_as_defined(layers, scope):
    scores = [torch.tensor(layer, dtype=torch.float32) for layer in layers]
    lists = [layer.tolist() for layer in scores]
    if scope == "global":
        lists = [sum(lists, [])]
    expected = [first_dropping(rank, len(some)) for some in lists for rank in ranks(some)]
    levels = drop_levels(scores, scope=scope)
    assert torch.cat(levels).tolist() == expected
    assert all(level.dtype == torch.uint8 for level in levels)
    assert [len(level) for level in levels] == [len(layer) for layer in layers]


@fast
@given(st.integers(2, 64), st.data())
def test_levels_inside_of_groups(group, data):
    values = data.draw(st.lists(VALUES, min_size=2 * group, max_size=2 * group))
    scores = torch.tensor(values, dtype=torch.float32)
    keep = data.draw(st.integers(1, group - 1))
    block = parse_block(f"{keep}:{group}")
    (levels,) = drop_levels([scores], group)
    halves = [scores[:group].tolist(), scores[group:].tolist()]
    ranked = [ranks(half) for half in halves]
    assert levels.tolist() == [first_dropping(rank, group) for half in ranked for rank in half]
    strongest = [rank >= group - keep for half in ranked for rank in half]
    assert kept(levels, block.sparsity).tolist() == strongest


@fast
@given(st.integers(1, 700), st.lists(st.integers(0, 250), min_size=1, max_size=8))
def test_masks_are_nested_and_as_dense_as_asked_to_half_a_block(count, steps):
    scores = torch.rand(count, generator=torch.Generator().manual_seed(count))
    (levels,) = drop_levels([scores])
    before = kept(levels, 0)
    assert before.all() and not kept(levels, 1).any()
    for step in sorted(steps):
        mask = kept(levels, step / 250)
        assert abs(250 * mask.sum().item() - count * (250 - step)) <= 125
        assert count - mask.sum().item() == blocks.dropped(step, count)
        assert not (mask & ~before).any()
        if mask.any() and not mask.all():
            assert scores[mask].min() >= scores[~mask].max()
        before = mask


def test_a_sparsity_is_rounded_to_the_nearest_level():
    assert all(level_of(level / 250) == level for level in range(251))
    assert [level_of(tenth / 10) for tenth in range(11)] == list(range(0, 251, 25))
    assert level_of(0.3009) == 75 and level_of(0.3021) == 76
    for bad in (-0.01, 1.01, math.nan):
        with pytest.raises(UserError, match="between 0 and 1"):
            kept(torch.ones(3, dtype=torch.uint8), bad)


@fast
@given(matrices(), st.data())
def test_every_entry_follows_its_block(case, data):
    matrix, block = case
    where = places(matrix.shape, block)
    keep = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(where), max_size=len(where)))
    )
    mask = torch.zeros(matrix.shape, dtype=torch.bool)
    counts = torch.zeros(matrix.shape, dtype=torch.int32)
    for number, mine in enumerate(where):
        for place in mine:
            mask[place], counts[place] = keep[number], number
    assert torch.equal(blocks.expand(keep, matrix.shape, block), mask)
    numbers = torch.arange(len(where), dtype=torch.int32)
    assert torch.equal(blocks.expand(numbers, matrix.shape, block), counts)

    expected = torch.where(mask, matrix, torch.zeros(()))
    for answer in (
        blocks.masked(matrix, keep, block),
        blocks.masked(matrix.clone().requires_grad_(), keep, block).detach(),
    ):
        assert torch.equal(answer.view(torch.int32), expected.view(torch.int32))  # -0 is not 0


@pytest.mark.parametrize("size", ["8x1", "3x5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_masked_weights_pass_no_gradient_and_no_nan(size, dtype):
    block = parse_block(size)
    matrix = torch.randn(16, 6, generator=torch.Generator()).to(dtype)
    keep = torch.arange(math.prod(blocks.grid_of(matrix.shape, block))) % 2 == 0
    mask = blocks.expand(keep, matrix.shape, block)
    weight = matrix.clone().requires_grad_()
    blocks.masked(weight, keep, block).sum().backward()
    assert torch.equal(weight.grad, mask.to(dtype))
    with torch.no_grad():
        assert not blocks.masked(weight, keep, block).requires_grad
    matrix[~mask] = math.nan
    assert torch.equal(blocks.masked(matrix, keep, block), matrix.nan_to_num(0))


def test_blocks_are_read_as_written():
    for text in ("8x1", "16x4", "1x1", "2:4", "1:16"):
        assert str(parse_block(text)) == text
    assert parse_block("2:4") == Block(1, 1, 4, 2) and parse_block("1:4").sparsity == 0.75
    assert parse_block("8x1").sparsity is None


@pytest.mark.parametrize(
    "text", ["8by1", "0x1", "8x0", "8", "", "8x1x1", "4:4", "0:4", "2:65", "٣x1"]
)
def test_blocks_are_refused_by_name(text):
    with pytest.raises(UserError, match=f"^weight_pruning.block={text}: must be"):
        check(WeightPruningOptions(block=text), "weight_pruning.")


@fast
@given(st.lists(st.lists(VALUES, min_size=10, max_size=60), min_size=2, max_size=4), st.data())
def test_layers_that_compete_keep_a_tenth_each(layers, data):
    """Whatever the size of their weights; inside of a layer the order stays."""
    sizes = [10.0 ** data.draw(st.integers(-12, 6)) for _ in layers]
    scores = [
        torch.tensor(layer, dtype=torch.float32).abs() * size
        for layer, size in zip(layers, sizes, strict=True)
    ]
    compared = [blocks.comparable(some) for some in scores]
    for before, after in zip(scores, compared, strict=True):
        assert after.isfinite().all() and (after >= 0).all()
        order = torch.tensor(sorted(range(len(before)), key=lambda k: (float(before[k]), k)))
        assert (after[order].diff() >= 0).all()
    for kept_of_layer in (kept(some, 0.88) for some in drop_levels(compared, scope="global")):
        assert kept_of_layer.float().mean() >= 0.1 - 1 / len(kept_of_layer)


def test_names_are_checked():
    with pytest.raises(UserError, match="scope=layer"):
        check(WeightPruningOptions(block="2:4", scope="global"), "weight_pruning.")
    for options in ({"method": "supernet"}, {"unit": "channel"}):
        with pytest.raises(UserError, match="scope=global: (with|is for) weight_pruning"):
            check(WeightPruningOptions(scope="global", **options), "weight_pruning.")
    with pytest.raises(UserError, match="criterion=l2: choose one of mean_square, l1"):
        blocks.block_scores(torch.ones(2, 2), Block(1, 1), "l2")
    with pytest.raises(UserError, match="scope=all: choose one of layer, global"):
        drop_levels([torch.ones(2)], scope="all")
    check(WeightPruningOptions(), "weight_pruning.")


def test_a_criterion_of_ones_own():
    """By its name, an entry's cube counts; a block has the mean of its entries'."""
    matrix = torch.randn(9, 6)
    own = blocks.block_scores(matrix, parse_block("4x2"), f"{__name__}:cubes")
    wanted = [
        matrix[r : r + 4, c : c + 2].abs().pow(3).mean() for r in (0, 4, 8) for c in (0, 2, 4)
    ]
    torch.testing.assert_close(own, torch.stack(wanted))
    check(WeightPruningOptions(criterion=f"{__name__}:cubes"), "weight_pruning.")
    with pytest.raises(UserError, match=r"criterion=l3: choose one of .*did you mean 'l1'"):
        check(WeightPruningOptions(criterion="l3"), "weight_pruning.")


def cubes(entries):
    return entries.abs().pow(3)
