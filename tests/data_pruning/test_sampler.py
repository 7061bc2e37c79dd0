"""The sampler: batches of what a plan keeps, and what it is told of them."""

import contextlib
import copy
import inspect
import random
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, load_manifest_lazy
from lhotse.cut import MonoCut
from lhotse.dataset import IterableDatasetWrapper, K2SpeechRecognitionDataset
from torch.utils.data import DataLoader

import asrprune.data_pruning
from asrprune.base.errors import UserError
from asrprune.data.batches import open_cuts
from asrprune.data_pruning import kept
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.phases import ANNEAL, PRUNED, WARMUP
from asrprune.data_pruning.sampler import PruningSampler
from tests.data_pruning.sampling_cases import (
    BINS,
    EPOCHS,
    Names,
    make_cuts,
    make_options,
    make_sampler,
    make_stock,
    names_of,
    train,
)
from tests.training.command import assert_same

# of the stock samplers that ours is compared with
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using DynamicBucketingSampler with an eager"),
    pytest.mark.filterwarnings("ignore:Your 'buffer_size' setting"),
]


@pytest.fixture
def manifest(tmp_path) -> Path:
    path = tmp_path / "cuts.jsonl.gz"
    make_cuts().to_file(path)
    return path


@pytest.mark.parametrize("options", [{}, {"policy": "easy2hard"}, {"policy": "random"}])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_all_of_it_is_what_lhotse_draws(options, world, lazy, manifest, ranks_apart):
    options = DataPruningOptions(**options)
    assert options.keep == 1
    for rank in range(world):
        values = {"rank": rank, "world_size": world, "buffer_size": 12}
        cuts = [load_manifest_lazy(manifest) if lazy else make_cuts() for _ in range(2)]
        ours, stock = make_sampler(cuts[0], options, **values), make_stock(cuts[1], **values)
        for epoch in (0, 1, 4):
            ours.set_epoch(epoch), stock.set_epoch(epoch)
            found, expected = list(ours), list(stock)
            assert names_of(found) == names_of(expected) and len(found) > 2
            for one, other in zip(found, expected, strict=True):
                assert type(one) is CutSet and list(one) == list(other)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_what_is_kept_comes_once_an_epoch(world, lazy, manifest, ranks_apart):
    cuts = load_manifest_lazy(manifest) if lazy else make_cuts()
    ids = [cut.id for cut in cuts]
    samplers = [
        make_sampler(cuts, make_options(), rank=rank, world_size=world) for rank in range(world)
    ]
    phases, sets = [], []
    for epoch in range(EPOCHS):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [names_of(sampler) for sampler in samplers]
        assert len({len(share) for share in shares}) == 1  # or a rank would wait for ever
        found = Counter(name for share in shares for batch in share for name in batch)
        doubled = {name for name in found if "_dup" in name}  # where a rank would get nothing
        assert len(doubled) < world
        keep = samplers[0].plan.keep
        expected = [name for name, is_kept in zip(ids, keep, strict=True) if is_kept]
        assert found == Counter([*expected, *doubled])
        assert samplers[0].num_cuts == len(expected)
        phases.append(samplers[0].plan.phase)
        sets.append(frozenset(expected))
    assert phases == [WARMUP, PRUNED, PRUNED, PRUNED, ANNEAL]
    assert sets[0] == sets[4] == set(ids) and len({*sets[1:4]}) == 3
    assert all(len(part) < 0.8 * len(ids) for part in sets[1:4])


def test_lazy_is_eager(manifest, tmp_path):
    plain = tmp_path / "cuts.jsonl"
    make_cuts().to_file(plain)
    options = make_options("easy2hard")
    of_memory = list(train(make_sampler(make_cuts(), options)))
    for cuts in (load_manifest_lazy(manifest), load_manifest_lazy(plain)):
        assert cuts.is_lazy
        assert list(train(make_sampler(cuts, options))) == of_memory
    mapped = load_manifest_lazy(manifest).filter(_always)  # no file to skip lines of
    assert list(train(make_sampler(mapped, options))) == of_memory


def _always(_: MonoCut) -> bool:
    return True


def test_dropped_lines_are_not_decoded(manifest, monkeypatch):
    options = make_options(unit="utterances", strata=0, keep=0.3)
    sampler = make_sampler(load_manifest_lazy(manifest), options)
    sampler.set_epoch(1)
    decoded = []
    for module in ("lhotse.lazy", kept.__name__):
        monkeypatch.setattr(f"{module}.decode_json_line", _recorded(decoded, module))
    batches = list(sampler)
    assert sum(map(len, batches)) == 12
    assert decoded == [kept.__name__] * 12


def _recorded(calls: list[str], module: str):
    original = kept.decode_json_line

    def decode(line):
        calls.append(module)
        return original(line)

    return decode


def left_of(cut) -> float:
    """A third of a long cut goes, and little of a short one."""
    return cut.duration * (2 / 3 if cut.duration > 4 else 0.95)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_fill_by_what_time_dropping_leaves(world, lazy, manifest, ranks_apart):
    cuts = load_manifest_lazy(manifest) if lazy else make_cuts()
    whole = {cut.id: cut for cut in cuts}
    for rank in range(world):
        place = {"rank": rank, "world_size": world}
        sampler = make_sampler(cuts, make_options(), **place)
        asked = []

        def seconds_left(asked: list = asked) -> np.ndarray:
            asked.append(1)
            return np.array([left_of(cut) for cut in whole.values()], np.float32)

        sampler.drop_time(seconds_left, 0.7)
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            keep, pruned = sampler.plan.keep, 0 < epoch < 4
            assert sampler.pruned == pruned
            shorter = CutSet.from_cuts(
                _with_duration(cut, float(np.float32(left_of(cut))) if pruned else cut.duration)
                for cut, is_kept in zip(whole.values(), keep, strict=True)
                if is_kept
            )
            bins = [edge * (0.7 if pruned else 1) for edge in BINS]
            stock = make_stock(shorter, duration_bins=bins, **place)
            stock.set_epoch(epoch)
            batches = list(sampler)
            assert len(asked) == min(epoch, 3)  # once in each pruned epoch
            assert names_of(batches) == names_of(stock)
            for batch in batches:
                assert type(batch) is CutSet
                for cut in batch:
                    assert type(cut) is MonoCut
                    original = whole[cut.id.removesuffix("_dup0")]
                    assert cut.duration == original.duration
                    assert cut.supervisions == original.supervisions
                    assert cut.dataloading_info["world_size"] == world


def _with_duration(cut: MonoCut, duration: float) -> MonoCut:
    cut = copy.deepcopy(cut)
    cut.duration = duration
    return cut


def test_a_sampler_inside_a_worker_is_refused():
    """It would be a copy, which no plan of a later cycle reaches."""
    dataset = IterableDatasetWrapper(Names(), make_sampler(make_cuts(), make_options()))
    assert len(list(DataLoader(dataset, batch_size=None))) > 3  # in this process there is but one
    with pytest.raises(UserError, match="Give the loader a map-style dataset"):
        list(DataLoader(dataset, batch_size=None, num_workers=1))


def test_copies_share_a_score():
    sampler = make_sampler(make_cuts(4, speeds=(0.9, 1.1)), make_options("easy", detrend=False))
    assert sampler.index.num_utterances == 4 and len(sampler.index) == 12
    sampler.update(["cut-001_sp0.9", "cut-003"], [8.0, 4.0], [1, 1])
    sampler.update(["cut-001", "cut-001_sp1.1"], torch.tensor([2.0, 2.0]), torch.tensor([1, 0]))
    sampler.set_epoch(1)
    table = sampler.scores
    assert table.last.tolist() == [0, pytest.approx((4 + 1 + 2) / 3), 0, 2]
    assert table.known.tolist() == [False, True, False, True]


@pytest.mark.parametrize("share_copies", [True, False])
def test_copies_that_lhotse_makes_for_ranks(share_copies, ranks_apart):
    options = make_options(
        warmup_cycles=0, rescale=True, share_copies=share_copies, strata=0, unit="utterances"
    )
    options.keep = 0.75
    pair = [
        make_sampler(make_cuts(4), options, rank=rank, world_size=2, max_cuts=1) for rank in (0, 1)
    ]
    doubled = []
    for sampler in pair:
        assert sampler.num_cuts == 3
        for [name] in names_of(sampler):
            weights = sampler.weights_of([name])
            assert weights.dtype == np.float32 and weights.tolist() == [pytest.approx(4 / 3)]
            sampler.update([name], [5.0], [1])
            doubled += [name] if "_dup" in name else []
    assert len(doubled) == 1
    visits = sum(sampler.scores.pending()["visits"] for sampler in pair)
    original = pair[0].index.utterances_of([doubled[0].removesuffix("_dup0")])
    assert visits[original] == 2 and sorted(visits.tolist()) == [0, 1, 1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("detrend", [False, True])
def test_losses_that_are_no_numbers_are_ignored(bad, detrend):
    sampler, without = (
        make_sampler(make_cuts(4), make_options("easy", detrend=detrend)) for _ in range(2)
    )
    sampler.update(["cut-000", "cut-001", "cut-002"], [3.0, bad, 5.0], [2, 2, 2])
    without.update(["cut-000", "cut-002"], [3.0, 5.0], [2, 2])
    assert_same(sampler.state_dict(), without.state_dict())
    sampler.set_epoch(1)
    assert sampler.scores.known.tolist() == [True, False, True, False]
    assert sampler.plan.keep[[1, 3]].any()  # what is unknown comes first
    assert sampler.plan.report["unknown"] == 2


def test_each_score_is_what_its_name_says():
    names, losses, tokens = ["cut-002", "cut-000"], [6.0, 8.0], [2, 0]
    wanted = {
        "loss": ({}, [2, 8]),
        "loss_sum": ({}, [6, 8]),
        "loss_per_frame": ({"num_frames": [12, 0]}, [0.5, 8]),
        "el2n": ({"el2n": torch.tensor([0.25, 0.75])}, [0.25, 0.75]),
    }
    for score, (more, expected) in wanted.items():
        sampler = make_sampler(make_cuts(4), make_options("easy", score=score, detrend=False))
        sampler.update(names, losses, tokens, **more)
        sampler.set_epoch(1)
        assert sampler.scores.last[[2, 0]].tolist() == expected
        if more:
            with pytest.raises(UserError, match=rf"score={score} needs update\(..., {[*more][0]}"):
                sampler.update(names, losses, tokens)


def test_updates_that_cannot_be_meant():
    sampler = make_sampler(make_cuts(4), make_options("easy"))
    names = ["cut-000", "cut-001"]
    for losses in (torch.tensor(3.0), [1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(UserError, match="the loss of each cut"):
            sampler.update(names, losses, [2, 2])
    with pytest.raises(UserError, match="num_tokens of shape .* a number of each cut"):
        sampler.update(names, [1.0, 2.0], [2])
    for kind in (-1, 4096):
        with pytest.raises(UserError, match=rf"loss_class={kind}\): must be 0 to 4095"):
            sampler.update(names, [1.0, 2.0], [2, 2], loss_class=kind)
    assert sampler.batches == 0
    for refused in (sampler.filter, sampler.map):
        with pytest.raises(UserError, match="PruningSampler"):
            refused(lambda cuts: cuts)


def test_a_manifest_of_another_length_is_refused(manifest):
    index = CutIndex.from_cuts(make_cuts(41))
    for cuts in (make_cuts(), load_manifest_lazy(manifest)):
        with pytest.raises(UserError, match="The index has 41 cuts, but the sampler got 40"):
            PruningSampler(cuts, index, make_options(), epochs=5, duration_bins=BINS)


def test_bad_options_are_found_at_the_start():
    with pytest.raises(UserError, match="floors"):
        make_sampler(make_cuts(), make_options(floors={"language": 0.3}))
    with pytest.raises(UserError, match="policy_options"):
        make_sampler(make_cuts(), make_options(policy_options={"speling": 1}))


def test_the_global_generators_are_left_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    list(train(make_sampler(make_cuts(), make_options("infobatch"))))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_cycle_of_several_epochs():
    sampler = make_sampler(make_cuts(), make_options("orderdp", cycle=2), epochs=10)
    digests = {epoch: digest for epoch, *_, digest in train(sampler, last=10)}
    assert [digests[2 * cycle] == digests[2 * cycle + 1] for cycle in range(5)] == [True] * 5
    assert len({*digests.values()}) == 5
    assert sampler.scores.count.max() == 4  # merged once a cycle, of the four that have ended


def test_the_example_of_the_docstring(tiny_corpus):
    """Lhotse's dataset, PyTorch's loader and a toy model, in the words of the documentation."""
    text = inspect.cleandoc(asrprune.data_pruning.__doc__)
    example = textwrap.dedent(text.partition("::\n\n")[2].partition("\n\nA checkpoint")[0])
    assert len(example.splitlines()) <= 16
    cuts = open_cuts(tiny_corpus.manifests, "tones", "train")
    model = torch.nn.Linear(80, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    seen = []

    def compute_losses(batch):
        seen.append([cut.id for cut in batch["supervisions"]["cut"]])
        frames = batch["supervisions"]["num_frames"]
        losses = model(batch["inputs"]).squeeze(2).pow(2).mean(dim=1) * frames
        return losses, torch.tensor([len(text) for text in batch["supervisions"]["text"]])

    def take_step(losses):
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()

    names = {
        "DataLoader": DataLoader, "torch": torch, "cuts": cuts, "epochs": 4, "workers": 0,
        "seconds": 8.0, "compute_losses": compute_losses,
        "dataset": K2SpeechRecognitionDataset(return_cuts=True), "take_step": take_step,
    }  # fmt: skip
    with contextlib.redirect_stdout(None):
        exec(example, names)
    sampler = names["sampler"]
    assert sampler.epoch == 3 and sampler.scores.known.all()
    counts = Counter(name for batch in seen for name in batch)
    assert len(counts) == len(cuts) and min(counts.values()) < max(counts.values()) == 4
