"""What a training loop tells the sampler: cuts that were joined or copied, and what is no cut."""

import logging

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.dataset import CutConcatenate
from lhotse.dataset.sampling.utils import find_pessimistic_batches
from lhotse.testing.dummies import dummy_recording

from asrprune.base.errors import UserError
from asrprune.data_pruning.scores import UNIT
from tests.data_pruning.sampling_cases import (
    BINS,
    make_cut,
    make_cuts,
    make_options,
    make_sampler,
    names_of,
    train,
)


def plain(policy: str = "easy", **values):
    return make_options(policy, detrend=False, **values)


def gathered(sampler) -> dict[str, float]:
    """The mean score of each cut that was seen, by its id."""
    pending = sampler.scores.pending()
    seen = np.flatnonzero(pending["visits"].numpy())
    ids = [cut.id for cut in make_cuts(4)]
    return {
        ids[at]: float(pending["sum"][at] * UNIT / pending["visits"][at]) for at in seen.tolist()
    }


@pytest.mark.parametrize(
    "losses", [torch.tensor(3.0), 3.0, torch.ones(2, 1), [1.0], [1.0, 2.0, 3.0], []]
)
def test_a_summed_loss_is_refused(losses):
    """`reduction="sum"`, and whatever else is not one number a cut."""
    sampler = make_sampler(make_cuts(4), plain())
    with pytest.raises(UserError, match="must not be summed before"):
        sampler.update(["cut-000", "cut-001"], losses, [2, 2])
    assert not sampler.scores.has_pending and sampler.batches == 0


@pytest.mark.parametrize("tokens", [2, [2], torch.tensor([2, 2, 2]), [[2], [2]]])
def test_tokens_of_another_shape_are_refused(tokens):
    sampler = make_sampler(make_cuts(4), plain())
    with pytest.raises(UserError, match="num_tokens of shape"):
        sampler.update(["cut-000", "cut-001"], [1.0, 2.0], tokens)


def test_unknown_cuts_are_left_out_and_said_once(caplog):
    sampler = make_sampler(make_cuts(4), plain())
    with caplog.at_level(logging.WARNING):
        sampler.update(["cut-000", "dev-1", "cut-001"], [3.0, 50.0, 6.0], [2, 2, 2])
        sampler.update(["dev-2", "dev-3"], [50.0, 50.0], [2, 2])  # a batch of a dev set
        sampler.update(["cut-002", "dev-1"], [9.0, 50.0], [2, 2])
    assert gathered(sampler) == {"cut-000": 1.0, "cut-001": 2.0, "cut-002": 3.0}
    assert sampler.batches == 2 and sampler.left_out == 4
    assert [record.message.count("'dev-1'") for record in caplog.records] == [1]
    weighed = make_sampler(make_cuts(4), make_options(rescale=True, warmup_cycles=0))
    kept = [cut.id for batch in weighed for cut in batch]
    assert weighed.weights_of(["dev-1", kept[0], "dev-2"]).tolist() == [
        1.0, weighed.weights_of(kept[:1])[0], 1.0,
    ]  # fmt: skip


def with_audio(cuts: CutSet) -> CutSet:
    for number, cut in enumerate(cuts):
        cut.recording = dummy_recording(number, duration=10.0)
    return cuts


@pytest.mark.parametrize("score, expected", [("loss", [3.0, 3.0]), ("loss_sum", None)])
def test_concatenated_cuts_reach_the_scores_of_their_tracks(score, expected):
    """As lhotse's CutConcatenate makes them in the dataset: a new id, and a pause in between."""
    cuts = with_audio(make_cuts(4))
    sampler = make_sampler(cuts, plain(score=score))
    joined = list(CutConcatenate(gap=0.5, duration_factor=10.0)(cuts.subset(first=2)))
    assert len(joined) == 1 and len(joined[0].tracks) >= 2
    sampler.update([joined[0], *cuts.subset(last=1)], [15.0, 2.0], [4, 1])
    seconds = np.array([cut.duration for cut in cuts.subset(first=2)])
    if expected is None:
        expected = (15.0 * seconds / seconds.sum()).tolist()
    found = gathered(sampler)
    assert [found["cut-000"], found["cut-001"]] == pytest.approx(expected, rel=1e-6)
    assert found["cut-003"] == pytest.approx(1.0 if score == "loss" else 2.0)
    assert len(found) == 3 and not sampler.left_out and sampler.batches == 1
    # by its id alone a joined cut is unknown
    sampler.update([joined[0].id], [15.0], [4])
    assert sampler.left_out == 1


def test_noise_that_is_mixed_in_is_no_part_of_a_score():
    cuts = with_audio(make_cuts(4))
    noise = with_audio(CutSet.from_cuts([make_cut("noise", 2.0)]))
    mixed = cuts[1].mix(noise[0], snr=10)
    assert mixed.id not in ("cut-001", "noise")
    sampler = make_sampler(cuts, plain())
    sampler.update([mixed], [8.0], [3])
    assert gathered(sampler) == {"cut-001": 2.0} and not sampler.left_out


def test_a_joined_cut_weighs_as_its_tracks_do():
    cuts = with_audio(make_cuts(12))
    options = make_options("infobatch", keep=0.5)
    sampler = make_sampler(cuts, options)
    list(train(sampler, last=1))
    sampler.set_epoch(1)
    kept = [cut for cut in cuts if sampler.plan.keep[sampler.index.cuts_of([cut.id])[0]]]
    weights = sampler.weights_of(kept)
    assert len({*weights.tolist()}) == 2
    one, other = kept[int(weights.argmin())], kept[int(weights.argmax())]
    joined = one.append(other)
    pair = sampler.weights_of([one, other])
    expected = np.average(pair, weights=[one.duration, other.duration])
    assert sampler.weights_of([joined, one]).tolist() == pytest.approx([expected, pair[0]])


@pytest.mark.parametrize("name", ["cut-001_sp0.9", "cut-001_sp1.1_repeat0", "cut-001_vp0.5"])
def test_copies_that_are_made_after_the_sampler(name):
    """They weigh what their utterance weighs, as `update` takes their losses for its score."""
    sampler = make_sampler(make_cuts(4), make_options(rescale=True, warmup_cycles=0, keep=0.75))
    expected = sampler.weights_of(["cut-001"]).tolist()
    assert sampler.weights_of([name]).tolist() == expected
    sampler.update([name], [3.0], [2])
    visits = sampler.scores.pending()["visits"]
    assert visits.tolist() == [0, 1, 0, 0]
    own = make_sampler(
        make_cuts(4), make_options(rescale=True, warmup_cycles=0, keep=0.75, share_copies=False)
    )
    assert own.weights_of([name]).tolist() == [1.0]


def test_a_scan_of_memory_leaves_the_place(caplog):
    """lhotse's own, as icefall calls it: it iterates over the whole sampler, and trains nothing."""
    first = make_sampler(make_cuts(), plain("random"))
    batches = list(train(first))
    other = make_sampler(make_cuts(), plain("random"))
    for number, _ in enumerate(train(other)):
        if number == len(batches) // 2:
            break
    again = make_sampler(make_cuts(), plain("random"))
    again.load_state_dict(other.state_dict())
    find_pessimistic_batches(again)
    find_pessimistic_batches(again)
    assert list(train(again)) == batches[number + 1 :]


def test_buckets_from_the_index():
    """``num_buckets`` in place of ``duration_bins``, as lhotse's own sampler takes it."""
    cuts = make_cuts()
    sampler = make_sampler(cuts, plain(), duration_bins=None, num_buckets=4)
    given = make_sampler(cuts, plain(), duration_bins=sampler.index.duration_bins(4))
    assert names_of(sampler) == names_of(given)
    assert len(sampler.index.duration_bins(4)) == 3 == len(BINS)


def test_epochs_counted_from_one():
    """The documented loop trains on all of them, and resumes at the right one."""
    options = plain("random", cycle=2)
    sampler = make_sampler(make_cuts(), options, epochs=6, first_epoch=1)
    assert list(sampler.remaining_epochs) == [1, 2, 3, 4, 5, 6]
    phases = []
    for epoch in sampler.remaining_epochs:
        sampler.set_epoch(epoch)
        phases.append(sampler.plan.phase)
        assert len(names_of(sampler)) > 2
        again = make_sampler(make_cuts(), options, epochs=6, first_epoch=1)
        again.load_state_dict(sampler.state_dict())
        assert list(again.remaining_epochs) == list(range(epoch, 7))
    assert phases == ["warmup", "warmup", "pruned", "pruned", "anneal", "anneal"]


@pytest.mark.parametrize("policy", ["easy", "infobatch", "ucb", "static_hard", "forgetting"])
def test_a_later_epoch_without_a_state(policy, caplog):
    """icefall's ``--start-epoch``: everything trains until there are scores, and this is said."""
    options = plain(policy, keep=0.5, warmup_cycles=2)
    sampler = make_sampler(make_cuts(), options, epochs=12)
    shares = []
    for epoch in range(6, 11):
        sampler.set_epoch(epoch)
        seen = 0
        for batch in sampler:
            names = [cut.id for cut in batch]
            losses = [1.0 + hash_of(name, epoch) for name in names]
            sampler.update(names, losses, [0] * len(names))
            seen += len(names)
        shares.append(seen / 40)
    full = 2 if policy == "forgetting" else 1  # whether a score got worse shows after two
    assert shares[:full] == [1.0] * full and max(shares[full:4]) < 0.9
    said = [record.message for record in caplog.records if "there are none yet" in record.message]
    assert len(said) == full and said[0].startswith(f"cycle 6: policy {policy} needs scores")
    assert sampler.history.visits.max() == 4  # not of the epochs before the first one


def hash_of(name: str, epoch: int) -> float:
    return (int(name[4:7]) * 37 + epoch * 11) % 40 / 7


def test_losses_that_never_come_are_an_error():
    """`update` is never called, or all that it gets is NaN: no training goes on in silence."""
    for losses in (None, float("nan")):
        sampler = make_sampler(make_cuts(), plain("easy"))
        sampler.set_epoch(0)
        for batch in sampler:
            if losses is not None:
                sampler.update(list(batch), [losses] * len(batch), [1] * len(batch))
        with pytest.raises(UserError, match="Call update after each training step"):
            sampler.set_epoch(1)
