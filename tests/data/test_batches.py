"""Batches are a pure function of (seed, epoch, index): no worker, rank or restart changes them."""

import dataclasses
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment
from torch.utils.data import Dataset

from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.data.batches import (
    SpeechDataset,
    alignable,
    dev_loader,
    epoch_loader,
    open_cuts,
    training_dataset,
    transcript,
)
from asrprune.data.loader import load_batches
from asrprune.data.tokenizer import load_tokenizer
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import TimeDropping
from tests.conftest import tiny_config
from tests.samplers import stock_sampler


class Draw:
    """What a training draws from, with any options."""

    def __init__(self, corpus, rank=0, world=1, seed=42, **options):
        options = {f"data__{name}": value for name, value in options.items()}
        self.options = tiny_config(corpus, **options).data
        cuts = open_cuts(corpus.manifests, "tones", "train", self.options.lazy)
        self.cuts = {cut.id: cut for cut in cuts}
        bins = read_json(corpus.manifests / "tones_statistics.json")["train"]["duration_bins"]
        self.sampler = stock_sampler(cuts, bins, self.options, seed, rank, world)
        self.dataset = training_dataset(load_tokenizer(corpus.lang), self.options, seed)

    def batches(self, epoch=1, skip=0) -> list[dict]:
        return list(epoch_loader(self.sampler, self.dataset, epoch, skip, self.options))

    def names(self, epoch=1, skip=0) -> list[list[str]]:
        """The cuts of each batch, without loading any features."""
        options = dataclasses.replace(self.options, num_workers=0)
        return list(epoch_loader(self.sampler, Names(), epoch, skip, options))


class Names:
    """A dataset whose batches are the names of their cuts."""

    def __getitem__(self, cuts: CutSet) -> list[str]:
        return [cut.id for cut in cuts]


def by_cut(batches: list[dict]) -> dict[str, torch.Tensor]:
    """Each cut's features without their padding."""
    return {
        name: frames[:length]
        for batch in batches
        for name, frames, length in zip(
            batch["cut_ids"], batch["features"], batch["feature_lens"], strict=True
        )
    }


def assert_same_batches(some: list[dict], others: list[dict]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(value, other[name]), name


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("epoch", [1, 2, 7])
def test_an_epoch_has_every_cut_once(epoch, lazy, tiny_corpus):
    draw = Draw(tiny_corpus, lazy=lazy)
    found = Counter(name for names in draw.names(epoch) for name in names)
    assert found == Counter(list(draw.cuts))


@pytest.mark.parametrize("max_duration", [5.0, 14.0])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch(world, max_duration, tiny_corpus):
    ranks = [Draw(tiny_corpus, rank, world, max_duration=max_duration) for rank in range(world)]
    shares = [draw.names(3) for draw in ranks]
    assert len({len(names) for names in shares}) == 1  # as many batches on each, or they would hang
    assert all(names for share in shares for names in share)
    found = Counter(name for share in shares for names in share for name in names)
    doubled = [name for name in found if re.search(r"_dup\d+$", name)]  # to fill the last batches
    assert len(doubled) < world
    assert Counter({name: count for name, count in found.items() if name not in doubled}) == (
        Counter(list(ranks[0].cuts))
    )


def test_epochs_and_seeds_differ(tiny_corpus):
    one = Draw(tiny_corpus, max_duration=5.0)
    assert one.names(1) == one.names(1) != one.names(2)
    assert one.names(1) == Draw(tiny_corpus, max_duration=5.0).names(1)
    assert one.names(1) != Draw(tiny_corpus, seed=1, max_duration=5.0).names(1)
    assert not torch.equal(*(by_cut(one.batches(epoch))["train-000"] for epoch in (1, 2)))


def test_limits_of_a_batch(tiny_corpus):
    draw = Draw(tiny_corpus, max_duration=4.0)
    for names in draw.names():
        durations = [draw.cuts[name].duration for name in names]
        # lhotse closes a batch when one more cut like its longest would not fit
        assert len(durations) * max(durations[:-1], default=0) <= 4.0
        assert sum(durations[:-1]) <= 4.0
    assert max(map(len, Draw(tiny_corpus, max_cuts=3).names())) == 3


def test_cuts_of_a_batch_are_about_as_long(tiny_corpus):
    draw = Draw(tiny_corpus, max_duration=4.0)
    bins = [0, *draw.sampler.duration_bins, float("inf")]
    for names in draw.names():
        durations = [draw.cuts[name].duration for name in names]
        assert any(low <= min(durations) and max(durations) <= high
                   for low, high in zip(bins, bins[1:], strict=False))  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_the_tail(workers, tiny_corpus):
    whole = Draw(tiny_corpus).batches(epoch=2)
    assert len(whole) > 4
    for skip in (1, len(whole) - 1, len(whole)) if workers else range(len(whole) + 1):
        rest = Draw(tiny_corpus, num_workers=workers).batches(epoch=2, skip=skip)
        assert_same_batches(rest, whole[skip:])


def test_workers_and_a_lazy_manifest_change_nothing(tiny_corpus):
    whole = Draw(tiny_corpus).batches()
    assert_same_batches(Draw(tiny_corpus, num_workers=2).batches(), whole)
    assert_same_batches(Draw(tiny_corpus, num_workers=1, lazy=True).batches(), whole)


@pytest.mark.filterwarnings("ignore:Your 'buffer_size' setting of 8")
def test_a_small_buffer_still_draws_every_cut_and_goes_on(tiny_corpus):
    draw = Draw(tiny_corpus, lazy=True, buffer_size=8, max_duration=5.0)
    whole = draw.names()
    assert Counter(name for names in whole for name in names) == Counter(list(draw.cuts))
    assert draw.names(skip=3) == whole[3:]


NO_MASKS = {"spec_augment": {"probability": 0.0}}
NO_NOISE = {"noise": {"cuts": ""}}


@pytest.mark.parametrize("off, share", [({}, 0.8), (NO_NOISE, 0.7), (NO_MASKS, 0.3)])
def test_augmentation_does_not_know_the_batch(off, share, tiny_corpus):
    some = by_cut(Draw(tiny_corpus, max_duration=14.0, **off).batches())
    others = by_cut(Draw(tiny_corpus, max_duration=3.0, num_workers=2, **off).batches())
    plain = by_cut(Draw(tiny_corpus, **NO_MASKS, **NO_NOISE).batches())
    assert some.keys() == others.keys() == plain.keys()
    changed = [name for name in some if not torch.equal(some[name], plain[name])]
    assert len(changed) > share * len(some)
    for name in some:
        assert torch.equal(some[name], others[name]), name
        assert len(some[name]) == len(plain[name])


def test_the_loader_draws_nothing_from_the_global_generators(tiny_corpus):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    Draw(tiny_corpus).batches()
    next(epoch_loader(*_loader_arguments(Draw(tiny_corpus, num_workers=1))))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def _loader_arguments(draw: Draw) -> tuple:
    return draw.sampler, draw.dataset, 1, 0, draw.options


def test_noise_with_a_transcript_of_its_own_adds_no_tokens(tiny_corpus):
    draw = Draw(tiny_corpus, noise={"cuts": str(tiny_corpus.noise), "probability": 1.0})
    assert all(cut.supervisions[0].text for cut in draw.dataset.noise.cuts)
    for batch in draw.batches():
        for name, row in zip(batch["cut_ids"], batch["tokens"].tolist(), strict=True):
            text = draw.dataset.tokenizer.decode([token for token in row if token])
            assert text == draw.cuts[name].supervisions[0].text


def test_a_batch_holds_what_the_manifest_says(tiny_corpus):
    draw = Draw(tiny_corpus, **NO_MASKS, **NO_NOISE)
    tokenizer = draw.dataset.tokenizer
    for batch in draw.batches():
        cuts = [draw.cuts[name] for name in batch["cut_ids"]]
        assert batch["features"].dtype == torch.float32 and batch["tokens"].dtype == torch.int64
        assert batch["features"].shape == (len(cuts), max(batch["feature_lens"]), 80)
        assert batch["tokens"].shape == (len(cuts), max(batch["token_lens"]))
        assert batch["seconds"] == pytest.approx(sum(cut.duration for cut in cuts))
        for row, cut in enumerate(cuts):
            length, count = batch["feature_lens"][row], batch["token_lens"][row]
            features = batch["features"][row]
            assert np.array_equal(features[:length].numpy(), cut.load_features())
            assert not features[length:].any() and not batch["tokens"][row, count:].any()
            assert tokenizer.decode(batch["tokens"][row, :count].tolist()) == transcript(cut)


def test_transcript_is_in_order_of_time():
    parts = [("b", 2.0, "SECOND PART"), ("a", 0.5, "FIRST PART"), ("c", 3.0, ""), ("d", 4.0, None)]
    supervisions = [
        SupervisionSegment(id=name, recording_id="r", start=start, duration=0.5, text=text)
        for name, start, text in parts
    ]
    cut = MonoCut(id="cut", start=0, duration=5, channel=0, supervisions=supervisions)
    assert transcript(cut) == "FIRST PART SECOND PART"


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


class Signalled(Dataset):
    """Its worker is sent a signal while it starts, before it can say what it does with that."""

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        self.__dict__ = state
        os.kill(os.getpid(), self.number)

    def __getitem__(self, index):
        return index


@pytest.fixture
def own_server():
    """Stop a server of processes that an earlier test started, maybe without blocked signals."""
    forkserver._forkserver._stop()  # CPython has it for its own tests


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_are_starting_outlive_a_signal(number):
    assert list(load_batches(Signalled(number), range(3), num_workers=1)) == [0, 1, 2]


@pytest.mark.usefixtures("own_server")
def test_workers_outlive_a_signal_and_end_by_themselves(tiny_corpus, monkeypatch):
    """Ctrl-C and SIGTERM reach a whole process group, and the trainer still needs a batch."""
    monkeypatch.setattr("asrprune.data.loader._GRACE", 2)
    draw = Draw(tiny_corpus, num_workers=2, max_duration=3.0)
    batches = epoch_loader(*_loader_arguments(draw))
    found = [next(batches), next(batches)]  # one of each worker: both are up
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for process in (parent_of(workers[0].pid), *(worker.pid for worker in workers)):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process, number)
    time.sleep(0.5)
    found.append(next(batches))
    assert_same_batches(found, Draw(tiny_corpus, max_duration=3.0).batches()[:3])
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0


def test_workers_are_not_forked_from_a_process_with_threads(tiny_corpus):
    batches = epoch_loader(*_loader_arguments(Draw(tiny_corpus, num_workers=2, max_duration=3.0)))
    next(batches)
    first, second = (parent_of(worker.pid) for worker in multiprocessing.active_children())
    assert first == second != os.getpid()
    assert parent_of(first) == os.getpid()


def test_workers_end_with_their_iterator(tiny_corpus):
    batches = epoch_loader(*_loader_arguments(Draw(tiny_corpus, num_workers=2, max_duration=3.0)))
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert not multiprocessing.active_children()


@pytest.fixture
def own_features(tiny_corpus, tmp_path) -> Callable[..., SimpleNamespace]:
    """A function: the tiny corpus with archives of its own, one of them changed after stage 3."""

    def change(split: str, edit: Callable[[Path], None]) -> SimpleNamespace:
        valid, noise = tmp_path / "valid", tmp_path / "noise.jsonl.gz"
        valid.mkdir()
        shutil.copy(tiny_corpus.manifests / "tones_statistics.json", valid)
        shutil.copytree(tiny_corpus.root / "fbank", tmp_path / "fbank")

        def moved(cut: MonoCut) -> MonoCut:
            archive = Path(cut.features.storage_path).relative_to(tiny_corpus.root)
            cut.features.storage_path = str(tmp_path / archive)
            return cut

        train = open_cuts(tiny_corpus.manifests, "tones", "train")
        train.map(moved).to_file(valid / "tones_cuts_train.jsonl.gz")
        CutSet.from_file(tiny_corpus.noise).map(moved).to_file(noise)
        (archive,) = (tmp_path / "fbank" / f"tones_feats_{split}").glob("*.lca")
        edit(archive)
        return SimpleNamespace(manifests=valid, lang=tiny_corpus.lang, noise=noise, archive=archive)

    return change


def cut_off(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("edit", [Path.unlink, cut_off])
@pytest.mark.parametrize("split", ["train", "noise"])
def test_features_lost_after_validation_are_one_message(workers, edit, split, own_features):
    corpus = own_features(split, edit)
    noise = {"cuts": str(corpus.noise), "probability": 1.0}
    draw = Draw(corpus, num_workers=workers, noise=noise)
    assert draw.names()
    with pytest.raises(UserError) as caught:
        draw.batches()
    message = str(caught.value)
    blamed = re.match(rf"cut {split}-\d+: its features cannot be read from (.*?) \(", message)
    assert blamed and blamed[1] == str(corpus.archive)
    assert "features stage (2), which makes only what is missing" in message
    assert "\n" not in message and len(message) < 500
    assert not multiprocessing.active_children()


class Losing(SpeechDataset):
    """Fails at the batches that hold one of the cuts ``lost``."""

    def __getitem__(self, cuts):
        if self.lost & {cut.id for cut in cuts}:
            raise UserError("lost")
        return super().__getitem__(cuts)


def test_what_comes_before_lost_features_is_drawn(tiny_corpus):
    """The error is raised when its batch is due, however far the workers have run ahead."""
    whole = Draw(tiny_corpus, max_duration=3.0).batches()
    draw = Draw(tiny_corpus, max_duration=3.0, num_workers=2)
    draw.dataset = Losing(draw.dataset.tokenizer, draw.dataset.augment, draw.dataset.noise)
    draw.dataset.lost = set(whole[4]["cut_ids"])
    batches = epoch_loader(*_loader_arguments(draw))
    assert_same_batches([next(batches) for _ in range(4)], whole[:4])
    with pytest.raises(UserError, match="lost"):
        next(batches)


def test_what_is_missing_is_named(tiny_corpus):
    with pytest.raises(UserError, match="data.corpus is not set"):
        open_cuts(tiny_corpus.manifests, "", "train")
    with pytest.raises(
        UserError, match=r"birds_cuts_train.jsonl.gz does not exist; .* stage \(3\)"
    ):
        open_cuts(tiny_corpus.manifests, "birds", "train")
    assert isinstance(open_cuts(tiny_corpus.manifests, "tones", "dev"), CutSet)


@pytest.mark.parametrize("lazy", [False, True])
def test_cuts_with_more_tokens_than_encoder_frames_are_left_out(tiny_corpus, lazy, caplog):
    cuts = open_cuts(tiny_corpus.manifests, "tones", "train", lazy)
    tokenizer = load_tokenizer(tiny_corpus.lang)
    tokens = {cut.id: len(tokenizer.encode(transcript(cut))) for cut in cuts}
    # an encoder that makes so few frames that some cuts have too few, some just enough
    frames = {cut.id: cut.num_frames for cut in cuts}
    few = sorted(frames[name] / count for name, count in tokens.items())[len(tokens) // 2]
    kept = alignable(cuts, tokenizer, lambda lens: (lens.double() / few + 1e-6).long())
    expected = [name for name, count in tokens.items() if frames[name] / few + 1e-6 >= count]
    assert [cut.id for cut in kept] == expected
    assert 0 < len(expected) < len(tokens)
    assert kept.is_lazy == lazy
    left_out = [name for name in tokens if name not in expected]
    assert f"left out {len(left_out)} of {len(tokens)} cuts" in caplog.text
    assert left_out[0] in caplog.text
    caplog.clear()
    with pytest.raises(UserError, match="all .* cuts have more tokens than encoder frames"):
        alignable(cuts, tokenizer, lambda lens: lens * 0)
    assert alignable(cuts, tokenizer, lambda lens: lens) is cuts
    assert not caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_a_dev_set(tiny_corpus, workers):
    draw = Draw(tiny_corpus, num_workers=workers, max_duration=4.0)
    cuts = open_cuts(tiny_corpus.manifests, "tones", "dev")
    shares = [
        [batch["cut_ids"] for batch in dev_loader(cuts, draw.dataset.tokenizer, draw.options, r, 3)]
        for r in range(3)
    ]
    names = [name for share in shares for batch in share for name in batch]
    assert sorted(names) == sorted(cut.id for cut in cuts)
    assert len(shares[0]) - len(shares[2]) in (0, 1)


@pytest.mark.parametrize("noise", [NO_NOISE["noise"], {"probability": 1.0}])
@pytest.mark.parametrize("variant", ["chunk", "point"])
@pytest.mark.parametrize("level", ["frames", "samples", "encoder"])
def test_the_length_left_is_foretold(level, variant, noise, tiny_corpus):
    """What a sampler fills its batches by is what the dataset, or the model, makes of a cut."""
    noise = {"cuts": str(tiny_corpus.noise), **noise}
    draw = Draw(tiny_corpus, noise=noise, spec_augment={"probability": 0.0})
    dataset = draw.dataset
    cuts = list(draw.cuts.values())[:12]
    whole = dataset[CutSet.from_cuts(cuts)]
    assert whole["feature_lens"].tolist() == [cut.num_frames for cut in cuts]
    options = TimeDroppingOptions(variant, drop_ratio=0.5, chunk_seconds=0.1, level=level)
    dropping = dataset.dropping = TimeDropping(options, 7, 4, lambda x: (x + 1) // 4)
    index = CutIndex.from_cuts(cuts, count_tokens=dataset.count_tokens)
    assert index.num_frames.tolist() == [cut.num_frames for cut in cuts]
    for active, cycle in ((False, 1), (True, 1), (True, 2)):
        dropping.active, dropping.cycle = active, cycle
        batch = dataset[CutSet.from_cuts(cuts)]
        seconds = dropping.seconds_left(index)
        lengths = batch["feature_lens"]
        whole_lengths = whole["feature_lens"]
        if level == "encoder":
            assert torch.equal(batch["features"], whole["features"])
            if active:
                h = torch.zeros(len(cuts), int(lengths.max() + 1) // 4, 1)
                symbols = batch["token_lens"].tolist()
                lengths = whole_lengths = (lengths + 1) // 4
                plans = map(dropping.plan, lengths.tolist(), batch["cut_ids"], symbols)
                assert sum(plan.clamped for plan in plans) == batch["clamped"]
                transform = dropping.frame_transform(batch["cut_ids"], symbols)
                lengths = transform(h, lengths)[1]
        foretold = [
            round(float(left / cut.duration) * length)
            for left, cut, length in zip(seconds, cuts, whole_lengths.tolist(), strict=True)
        ]
        assert foretold == lengths.tolist()
        assert torch.equal(batch["tokens"], whole["tokens"])
        assert batch["seconds"] == whole["seconds"]
        share = batch["seconds_left"] / batch["seconds"]
        if not active:
            assert torch.equal(batch["features"], whole["features"]) and share == 1
        else:
            assert batch["seconds_left"] == pytest.approx(float(seconds.sum()), rel=1e-3)
            assert 0.4 < share < 0.65
