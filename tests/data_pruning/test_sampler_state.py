"""What a checkpoint holds: of one rank without asking the others, or of all in the same size."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import asrprune.base.collectives as ranks_module
from asrprune.base.collectives import explain_lost_rank, sum_over_ranks
from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DYNAMIC_POLICIES, STATIC_POLICIES
from asrprune.data_pruning.sampler_state import changed_batching, restore_pending, saved_pending
from asrprune.data_pruning.scores import ScoreTable
from tests.data_pruning.sampling_cases import (
    make_cuts,
    make_options,
    make_sampler,
    on_two_ranks,
    train,
)
from tests.training.command import assert_same


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize("policy", DYNAMIC_POLICIES + STATIC_POLICIES)
def test_only_plain_values_and_tensors(policy):
    """What `torch.load(weights_only=True)` takes, whatever the policy and however it was called."""
    options = make_options(
        policy, warmup_cycles=2, score="el2n" if policy == "el2n" else "loss", rescale=True
    )
    sampler = make_sampler(
        make_cuts(), options, max_duration=np.float64(20.0),
        duration_bins=np.array([3.0, 5.0, 7.0]), max_cuts=np.int64(9),
    )  # fmt: skip
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for batch in sampler:
            ids = [cut.id for cut in batch]
            losses = np.array([float(name[-2:]) + 1 for name in ids], np.float32)
            sampler.update(ids, losses, np.ones(len(ids), np.int64), el2n=losses)
    state = sampler.state_dict()
    again = torch.load(io.BytesIO(saved(state)), weights_only=True)
    assert_same(again, state)
    other = make_sampler(
        make_cuts(), options, max_duration=20.0, duration_bins=[3.0, 5.0, 7.0], max_cuts=9
    )
    other.load_state_dict(again)
    assert other.batches == sampler.batches


def _one_rank_saves(rank: int, root: Path) -> None:
    """Rank 0 alone calls `state_dict`, as icefall, lhotse and Lightning do."""
    options = make_options("easy2hard")
    sampler = make_sampler(make_cuts(), options)
    batches = list(train(sampler, last=3))
    middle = next(number for number, (epoch, *_) in enumerate(batches) if epoch == 2) + 1
    sampler = make_sampler(make_cuts(), options)
    for number, _ in enumerate(train(sampler)):
        if number == middle:
            break
    if rank == 0:
        torch.save(sampler.state_dict(), root / "state.pt")
    dist.barrier()
    again = make_sampler(make_cuts(), options)
    again.load_state_dict(torch.load(root / "state.pt", weights_only=True))
    # the batches are those that would have come, on both ranks
    assert list(train(again, last=3)) == batches[middle + 1 :]
    # nothing of rank 0 is counted twice, and each rank gathers its own from here on
    visits = sum_over_ranks({"visits": again.scores.pending()["visits"]}, 2)["visits"]
    assert int(visits.max()) == 1
    missing = again.num_cuts - int(visits.sum())
    assert missing == sum(len(names) for epoch, names, *_ in batches[: middle + 1] if epoch == 2) \
        or rank == 0  # fmt: skip
    again.set_epoch(3)
    assert again.scores.known.all()
    torch.save([names for epoch, names, *_ in batches if epoch == 2], root / f"names-{rank}.pt")


def test_one_rank_of_two_may_save(tmp_path):
    on_two_ranks(tmp_path, _one_rank_saves, tmp_path)
    names = Counter(
        name
        for rank in (0, 1)
        for batch in torch.load(tmp_path / f"names-{rank}.pt")
        for name in batch
    )
    assert set(names.values()) == {1}


def _gathered(table: ScoreTable, ranks: int) -> dict[str, Any]:
    """The state of ``ranks`` ranks that all hold what ``table`` holds, as one of them saves it."""
    pending = table.pending()
    summed = {"sum": pending["sum"] * ranks, "visits": pending["visits"] * ranks}
    summed["trend"] = torch.stack([pending["trend"]] * ranks)
    return {
        "pending": saved_pending(summed),
        "ranks": list(range(ranks)),
        "batching": {"world_size": ranks},
    }


@pytest.mark.parametrize("count", [1000, 20_000])
def test_the_size_does_not_grow_with_the_ranks(count):
    table = ScoreTable(count)
    table.add(np.arange(count), np.linspace(0.1, 5, count), loss_class=7)
    sizes = {ranks: len(saved(_gathered(table, ranks))) for ranks in (1, 8, 64)}
    assert sizes[64] < sizes[1] + 64 * 200
    assert sizes[1] < count * 12 + 6000


@pytest.mark.parametrize("rank, after, owner", [(0, 2, 0), (1, 2, 1), (1, 1, 0), (5, 2, 0)])
def test_scores_of_one_rank_are_not_lost(rank, after, owner):
    table = ScoreTable(5)
    table.add(np.arange(5), np.ones(5))
    state = {
        "pending": saved_pending(table.pending()), "ranks": [rank], "batching": {"world_size": 8},
    }  # fmt: skip
    tables = [ScoreTable(5) for _ in range(after)]
    for number, restored in enumerate(tables):
        restore_pending(restored, state, number, after)
    visits = [int(restored.pending()["visits"].sum()) for restored in tables]
    assert visits == [5 * (number == owner) for number in range(after)]


def test_settings_that_only_one_side_has():
    before, now = {"seed": 1, "turns": 3}, {"seed": 1, "bins": 2}
    assert changed_batching(before, now) == ["turns (3 -> None)", "bins (None -> 2)"]


@pytest.mark.parametrize("before, after", [(2, 2), (2, 1), (1, 3), (4, 2)])
def test_nothing_is_lost_or_doubled_by_another_number_of_ranks(before, after):
    table = ScoreTable(50)
    table.add(np.arange(50), np.linspace(0.1, 5, 50))
    state = _gathered(table, before)
    others = [ScoreTable(50) for _ in range(after)]
    for rank, other in enumerate(others):
        restore_pending(other, state, rank, after)
    visits = sum(other.pending()["visits"] for other in others)
    assert torch.equal(visits, table.pending()["visits"] * before)
    for other in others:
        assert torch.allclose(other.trend, table.trend)


def test_a_tensor_is_summed_piece_by_piece(monkeypatch):
    """What is on the device at a time is small, however large the tensor."""
    sizes = []

    def all_reduce(tensor):
        sizes.append(len(tensor))
        tensor *= 2

    monkeypatch.setattr(ranks_module.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(ranks_module, "_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ranks_module, "_PIECE", 100)
    values = torch.arange(1050).reshape(105, 10)
    before = values.clone()
    summed = sum_over_ranks({"x": values}, 2)["x"]
    assert torch.equal(summed, 2 * before) and torch.equal(values, before)
    assert sizes == [100] * 10 + [50]


@pytest.mark.parametrize(
    "said, expected",
    [
        ("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]", "has ended"),
        ("Timed out waiting 1800000ms for recv operation to complete", "has ended"),
        ("Tensors must be CUDA and dense", "failed on this rank"),
        ("Detected mismatch between collectives on ranks", "failed on this rank"),
        ("", "failed on this rank"),
    ],
)
def test_whether_a_rank_has_ended_is_not_made_up(said, expected):
    with pytest.raises(UserError, match=expected) as caught, explain_lost_rank():
        raise RuntimeError(said)
    assert ("another rank" in str(caught.value)) == (expected == "has ended")


def test_public_names():
    import asrprune.data_pruning as room

    assert {"PruningSampler", "CutIndex", "DataPruningOptions", "TimeDropping"} <= {*room.__all__}
    for name in room.__all__:
        assert getattr(room, name).__name__ == name
    assert room.CutIndex is CutIndex
    with pytest.raises(AttributeError, match="no attribute 'Sampler'"):
        room.Sampler  # noqa: B018
