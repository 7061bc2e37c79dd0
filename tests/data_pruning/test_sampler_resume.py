"""The sampler's state: what follows a restart is what would have come, on one rank or on two."""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.data_pruning import sampler as sampler_module
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.phases import ANNEAL, PRUNED
from asrprune.data_pruning.sampler import PruningSampler
from tests.data_pruning.sampling_cases import (
    POLICIES,
    make_cuts,
    make_options,
    make_sampler,
    names_of,
    on_two_ranks,
    resume,
    train,
    train_with_states,
)
from tests.training.command import assert_same


@pytest.mark.parametrize("policy", POLICIES)
def test_resume_after_every_batch(policy, tmp_path):
    def make() -> PruningSampler:
        return make_sampler(make_cuts(20, speeds=(0.9,)), make_options(policy, **POLICIES[policy]))

    batches, states = train_with_states(make())
    kept_copies = copy.deepcopy(states)
    assert sum(epoch == 2 for epoch, *_ in batches) > 3
    assert any(weights for _, _, weights, _ in batches) == (policy in ("random", "infobatch"))
    for number, state in enumerate(states):
        path = tmp_path / "state.pt"
        torch.save(state, path)
        rest, last = resume(make, torch.load(path, weights_only=True))
        assert rest == batches[number + 1 :], number
        assert_same(last, states[-1])
    assert_same(states, kept_copies)  # a state is a snapshot, not a view


def test_resume_with_workers_that_have_run_ahead():
    def make() -> PruningSampler:
        return make_sampler(make_cuts(), make_options("infobatch", **POLICIES["infobatch"]))

    batches, states = train_with_states(make())
    with_workers, their_states = train_with_states(make(), workers=2)
    assert with_workers == batches
    assert_same(their_states, states)
    for number, (epoch, *_) in enumerate(batches):
        if epoch == 2:
            rest, _ = resume(make, states[number], workers=2, last=3)
            assert rest == [batch for batch in batches[number + 1 :] if batch[0] == 2]


def _resume_of_a_rank(rank: int, root: Path) -> None:
    """Of each policy after each batch, without workers and with; leaves the states of one run."""
    for policy, values in POLICIES.items():

        def make(policy: str = policy, values: dict = values) -> PruningSampler:
            return make_sampler(make_cuts(24, speeds=(0.9,)), make_options(policy, **values))

        assert (make().rank, make().world_size) == (rank, 2)
        batches, states = train_with_states(make())
        for number, state in enumerate(states):
            rest, last = resume(make, state)
            assert rest == batches[number + 1 :], (policy, number)
            assert_same(last, states[-1])
        middle = next(n for n, (epoch, *_) in enumerate(batches) if epoch == 2)
        rest, _ = resume(make, states[middle], workers=2, last=3)
        assert rest == [batch for batch in batches[middle + 1 :] if batch[0] == 2] != []
        saved = {"batches": batches, "states": [states[middle], states[-1]]}
        torch.save(saved, root / f"{policy}-{rank}.pt")


def test_resume_after_every_batch_on_two_ranks(tmp_path, caplog):
    on_two_ranks(tmp_path, _resume_of_a_rank, tmp_path)
    for policy, values in POLICIES.items():
        one, other = (
            torch.load(tmp_path / f"{policy}-{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        assert_same(one["states"], other["states"])
        shares = [
            [names for epoch, names, *_ in part["batches"] if epoch == 1] for part in (one, other)
        ]
        names = [name for share in shares for batch in share for name in batch]
        assert len(names) == len({*names}) and len(shares[0]) == len(shares[1])
        _check_one_rank_goes_on(one["states"][0], make_options(policy, **values), caplog)


def _check_one_rank_goes_on(state: dict, options: DataPruningOptions, caplog) -> None:
    """From a state of two ranks in epoch 2: the epoch starts again, nothing is forgotten."""
    alone = make_sampler(make_cuts(24, speeds=(0.9,)), options)
    before = copy.deepcopy(state)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        alone.load_state_dict(state)
        assert "is lost" not in caplog.text  # not before an epoch really starts again
        iter(alone)
    assert_same(state, before)
    assert "world_size (2 -> 1) changed. Scores and keep-set are kept" in caplog.text
    assert f"the cuts of {2 * before['batches']} batches are seen twice" in caplog.text
    assert "the position in epoch 2 is lost" in caplog.text
    now = alone.state_dict()
    assert now["batches"] == 0
    for part in ("plan", "scores", "history"):
        assert_same(now[part], before[part])
    for name in ("sum", "visits"):
        assert_same(now["pending"][name], before["pending"][name])
    ids = [cut.id for cut in make_cuts(24, speeds=(0.9,))]
    expected = {ids[line] for line in np.flatnonzero(alone.plan.keep)}
    assert {name for _, names, *_ in train(alone, last=3) for name in names} == expected


def test_nothing_is_lost_where_an_epoch_had_ended(caplog):
    _, states = train_with_states(make_sampler(make_cuts(), make_options("easy2hard")))
    ended = max((state for state in states if state["epoch"] == 2), key=lambda s: s["batches"])
    other = make_sampler(make_cuts(), make_options("easy2hard"), max_duration=15.0)
    other.load_state_dict(ended)
    other.set_epoch(3)
    next(other)
    assert not caplog.text


@pytest.mark.parametrize("known", [True, False], ids=["all ranks", "rank 0"])
def test_an_epoch_that_is_begun_again_after_a_restart(known):
    """The position that is saved then is that of the new pass, whoever saved the first state."""
    batches, states = train_with_states(make_sampler(make_cuts(), make_options("easy2hard")))
    at = next(n for n, (epoch, *_) in enumerate(batches) if epoch == 2) + 3

    def restored(state: dict) -> PruningSampler:
        sampler = make_sampler(make_cuts(), make_options("easy2hard"))
        state = copy.deepcopy(state)
        if not known:  # as on a rank whose state was not saved
            state["ranks"] = [7]
        sampler.load_state_dict(state)
        return sampler

    def trained(sampler: PruningSampler, count: int) -> list[list[str]]:
        found = []
        for batch, _ in zip(sampler, range(count), strict=False):
            found.append([cut.id for cut in batch])
            sampler.update(found[-1], [1.0] * len(batch), [1] * len(batch))
        return found

    sampler = restored(states[at])
    assert trained(sampler, 1) == [batches[at + 1][1]]
    after = restored(sampler.state_dict())
    assert trained(after, 1) == [batches[at + 2][1]]
    again = trained(sampler, 2)  # the same epoch from its first batch
    assert again == [names for epoch, names, *_ in batches if epoch == 2][:2]
    assert trained(restored(sampler.state_dict()), 1) == [batches[at - 3 + 2][1]]


def test_two_ranks_go_on_where_one_was(caplog):
    alone = make_sampler(make_cuts(), make_options("orderdp"))
    for epoch, *_ in train(alone):
        if epoch == 2 and alone.batches == 3:
            break
    state = alone.state_dict()
    pair = [make_sampler(make_cuts(), alone.options, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in pair:
        sampler.load_state_dict(copy.deepcopy(state))
        assert sampler.batches == 0 and sampler.plan.digest == alone.plan.digest
        iter(sampler)
    pending = [sampler.scores.pending() for sampler in pair]
    for name in ("sum", "visits"):  # nothing is counted twice
        assert_same(sum(part[name] for part in pending), state["pending"][name])
    for part in pending:
        trend = part["trend"][state["pending"]["classes"]]
        assert torch.equal(trend, state["pending"]["trend"][0])
    assert "world_size (1 -> 2)" in caplog.text


@pytest.mark.parametrize(
    "change", [{"max_duration": 15.0}, {"seed": 4}, {"duration_bins": [4.0]}, {"shuffle": False}]
)
def test_other_batches_lose_the_place_and_say_so(change, caplog):
    options = make_options("easy2hard")
    _, states = train_with_states(make_sampler(make_cuts(), options))
    other = make_sampler(make_cuts(), options, **change)
    other.load_state_dict(states[5])
    name = next(iter(change))
    iter(other)
    assert f"{name} (" in caplog.text and "The epoch starts again" in caplog.text
    epoch = states[5]["epoch"]
    names = [name for at, batch, *_ in train(other, last=epoch + 1) for name in batch]
    assert len(names) == other.num_cuts
    caplog.clear()
    make_sampler(make_cuts(), options).load_state_dict(states[5])
    assert not caplog.text


def test_a_state_of_other_cuts_is_refused():
    state = make_sampler(make_cuts(), make_options()).state_dict()
    for cuts in (make_cuts(41), make_cuts().sort_by_duration(), make_cuts().subset(first=39)):
        with pytest.raises(UserError, match="belong to another training manifest"):
            make_sampler(cuts, make_options()).load_state_dict(state)


def _flip(array: np.ndarray, line: int) -> None:
    array[line] = ~array[line]


def _one_bit_on_a_rank(rank: int) -> None:
    """Errors on both ranks, whatever made their keep-sets differ."""
    options = make_options("easy2hard")

    def check(sampler: PruningSampler, epoch: int, what: str = "the keep-set") -> None:
        with pytest.raises(UserError, match=rf"{what}.* of rank 1 differs .*\(cycle {epoch}\)"):
            sampler.set_epoch(epoch)
        with pytest.raises(UserError, match="of rank 1 differs"):  # trying again is no way out
            sampler.set_epoch(epoch)

    original = sampler_module.make_plan
    for line in (0, 17, 39):
        sampler = make_sampler(make_cuts(), options)
        list(train(sampler, last=1))

        def planned(*words, line=line):
            plan = original(*words)
            plan.keep = plan.keep.copy()
            _flip(plan.keep, line)
            return plan

        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                patch.setattr(sampler_module, "make_plan", planned)
            check(sampler, 1)

    # a checkpoint of which one rank's copy is damaged
    sampler = make_sampler(make_cuts(), options)
    for epoch, *_ in train(sampler):
        if epoch == 2:
            break
    state = sampler.state_dict()
    again = make_sampler(make_cuts(), options)
    again.load_state_dict(state)
    again.set_epoch(2)  # this one is sound
    if rank == 1:
        state["plan"]["keep"][1] ^= 8
    again = make_sampler(make_cuts(), options)
    again.load_state_dict(state)
    check(again, 2)
    # and one whose scores are
    state = sampler.state_dict()
    if rank == 1:
        state["scores"]["typical"][:20] += 4
    again = make_sampler(make_cuts(), options)
    again.load_state_dict(state)
    again.set_epoch(2)
    check(again, 3)
    # from the start: another seed, another manifest
    early = make_options(warmup_cycles=0)
    check(make_sampler(make_cuts(), early, seed=rank), 0)
    check(make_sampler(make_cuts(40 + rank), early), 0, "the training manifest")
    # another place in the same plan
    state = sampler.state_dict()
    state["batches"] += rank
    again = make_sampler(make_cuts(), options)
    again.load_state_dict(state)
    check(again, 2)


def test_one_corrupted_bit_on_one_rank_stops_all(tmp_path):
    on_two_ranks(tmp_path, _one_bit_on_a_rank)


def test_ranks_without_a_process_group_are_told():
    sampler = make_sampler(make_cuts(), make_options(), rank=0, world_size=2)
    sampler.state_dict()  # of this rank alone
    for call in (lambda: sampler.set_epoch(0), sampler.gathered_state_dict):
        with pytest.raises(UserError, match="Call init_process_group before"):
            call()


def test_an_epoch_begun_again_is_counted_from_its_start():
    """After a restart each iteration goes on, until a batch of it was trained on."""
    sampler = make_sampler(make_cuts(), make_options())
    whole = names_of(sampler)
    for names in whole[:3]:
        sampler.update(names, [1.0] * len(names), [1] * len(names))
    again = make_sampler(make_cuts(), make_options())
    again.load_state_dict(sampler.state_dict())
    for _ in range(2):  # such as a scan of memory, and then the training
        assert names_of(again) == whole[3:] and again.batches == 3
    again.update(whole[3], [1.0] * len(whole[3]), [1] * len(whole[3]))
    assert again.batches == 4
    assert names_of(again) == whole and again.batches == 0
    again.load_state_dict(sampler.state_dict())
    again.set_epoch(1)  # away from the place, and back
    again.set_epoch(0)
    assert names_of(again) == whole
    again.load_state_dict(sampler.state_dict())
    again.allow_iter_to_reset_state()  # the caller passes over what it has seen, and knows
    assert names_of(again) == whole and again.batches == 3
    assert names_of([next(make_sampler(make_cuts(), make_options()))]) == whole[:1]


def test_more_epochs_later():
    """The keep-set of a cycle stays, and what is left of the training is planned anew."""
    short = make_sampler(make_cuts(), make_options("easy2hard"))
    batches, states = train_with_states(short)
    longer = make_sampler(make_cuts(), short.options, epochs=10)
    longer.load_state_dict(states[-1])
    assert longer.plan.phase == ANNEAL and longer.plan.digest == short.plan.digest
    phases = [longer.plan.phase for _ in train(longer, last=10) if longer.batches == 1]
    assert phases == [PRUNED] * 3 + [ANNEAL] * 2
