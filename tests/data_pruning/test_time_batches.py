"""Time dropping for batches of lhotse's own dataset, by each way to get features."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Fbank, FbankConfig, MonoCut, Recording, SupervisionSegment
from lhotse.dataset import K2SpeechRecognitionDataset, SpecAugment
from lhotse.dataset.input_strategies import AudioSamples, OnTheFlyFeatures, PrecomputedFeatures
from lhotse.supervision import AlignmentItem

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_batches import PADDING, drop_from_batch
from asrprune.data_pruning.time_dropping import TimeDropping

EXTRACTOR = Fbank(FbankConfig(num_mel_bins=8))
SECONDS = [0.31, 1.0, 2.505, 0.997, 1.733]
TEXTS = ["A B C D E F", "A", "A B C", "A B C D E F G H I J K L M N O P Q R S T U V", ""]


def spoken(name: str, start: float, seconds: float, text: str) -> SupervisionSegment:
    return SupervisionSegment(name, "r2", start, seconds, text=text)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    made = []
    for number, (seconds, text) in enumerate(zip(SECONDS, TEXTS, strict=True)):
        path = folder / f"r{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * 16000)), 16000)
        recording = Recording.from_file(path)
        said = SupervisionSegment(f"s{number}", recording.id, 0.0, seconds, text=text)
        cut = MonoCut(f"cut-{number}", 0.0, seconds, 0, supervisions=[said], recording=recording)
        made.append(cut)
    made.append(made[1].perturb_speed(1.1))
    cuts = CutSet.from_cuts(made)
    return cuts.compute_and_store_features(EXTRACTOR, Path(folder) / "feats", progress_bar=False)


def dataset(which: str = "stored", **options) -> K2SpeechRecognitionDataset:
    strategy = {
        "stored": PrecomputedFeatures,
        "on the fly": lambda: OnTheFlyFeatures(EXTRACTOR),
        "audio": AudioSamples,
    }[which]()
    return K2SpeechRecognitionDataset(
        **{"return_cuts": True, "input_strategy": strategy, **options}
    )


def dropping(
    variant: str = "chunk", active: bool = True, cycle: int = 1, **options
) -> TimeDropping:
    made = TimeDropping(TimeDroppingOptions(variant, **options), 7, 4, lambda x: (x - 7) // 4)
    made.active, made.cycle = active, cycle
    return made


def count_words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def same(one: dict, other: dict) -> bool:
    about, others = one["supervisions"], other["supervisions"]
    return torch.equal(one["inputs"], other["inputs"]) and all(
        torch.equal(about[key], others[key])
        if isinstance(about[key], torch.Tensor)
        else about[key] == others[key]
        for key in about | others
    )


@pytest.mark.parametrize("count_tokens", [None, count_words])
@pytest.mark.parametrize("variant", ["chunk", "point"])
@pytest.mark.parametrize("which", ["stored", "on the fly"])
def test_each_cut_loses_what_its_plan_says(which, variant, count_tokens, cuts):
    whole = dataset(which)[cuts]
    before = dict(whole["supervisions"])
    made = dropping(variant, drop_ratio=0.6, chunk_seconds=0.09)
    batch = drop_from_batch(whole, made, count_tokens)
    assert whole["supervisions"] == before and whole["inputs"].size(1) == 251  # left as it was
    about = batch["supervisions"]
    names = [cut.id for cut in about["cut"]]
    assert sorted(names) == sorted(cut.id for cut in cuts) and about["text"] == before["text"]
    assert about["num_frames"].dtype == before["num_frames"].dtype
    assert batch["inputs"].size(1) == about["num_frames"].max() < whole["inputs"].size(1)
    tokens = count_words(about["text"]) if count_tokens else [0] * len(names)
    for row, (name, count) in enumerate(zip(names, tokens, strict=True)):
        frames = int(before["num_frames"][row])
        keep = made.plan(frames, name, count).keep
        left = int(about["num_frames"][row])
        assert torch.equal(batch["inputs"][row, :left], whole["inputs"][row, :frames][keep])
        assert (batch["inputs"][row, left:] == np.float32(PADDING)).all()
        assert (left - 7) // 4 >= min(max(count, 1), (frames - 7) // 4)
    index = CutIndex.from_cuts(cuts, count_tokens=count_tokens)
    foretold = dict(zip((cut.id for cut in cuts), made.seconds_left(index), strict=True))
    for cut, left in zip(about["cut"], about["num_frames"].tolist(), strict=True):
        assert round(float(foretold[cut.id]) / cut.duration * cut.num_frames) == left


def test_each_epoch_draws_anew_and_the_id_alone_decides(cuts):
    whole = dataset()[cuts]
    first, again = (
        drop_from_batch(whole, dropping(drop_ratio=0.5, chunk_seconds=0.03)) for _ in range(2)
    )
    assert same(first, again)
    assert not same(
        first, drop_from_batch(whole, dropping(drop_ratio=0.5, chunk_seconds=0.03, cycle=2))
    )
    few = drop_from_batch(
        dataset()[CutSet.from_cuts([cuts[0], cuts[2]])],
        dropping(drop_ratio=0.5, chunk_seconds=0.03),
    )
    alone = {cut.id: row for row, cut in enumerate(few["supervisions"]["cut"])}
    for row, cut in enumerate(first["supervisions"]["cut"]):
        if cut.id in alone:
            left = first["supervisions"]["num_frames"][row]
            assert left == few["supervisions"]["num_frames"][alone[cut.id]]
            assert torch.equal(first["inputs"][row, :left], few["inputs"][alone[cut.id], :left])


@pytest.mark.parametrize("which", ["stored", "on the fly"])
@pytest.mark.parametrize(
    "off",
    [
        lambda: dropping(active=False),
        lambda: dropping("none"),
        lambda: dropping(level="encoder"),
    ],
)
def test_nothing_changes_where_nothing_is_dropped(which, off, cuts):
    batch = dataset(which)[cuts]
    assert drop_from_batch(batch, off()) is batch


def test_a_supervision_inside_of_its_cut(cuts):
    """What comes before it stays, and what follows it is taken for padding."""
    cut = cuts[2].drop_features()
    cut.supervisions = [spoken("s", 0.5, 1.2, "A B")]
    cut.supervisions[0].alignment = {
        "word": [AlignmentItem("A", 0.5, 0.3), AlignmentItem("B", 1.0, 0.65)]
    }
    whole = dataset("on the fly")[CutSet.from_cuts([cut])]
    batch = drop_from_batch(whole, dropping("point", drop_ratio=0.5))
    about = batch["supervisions"]
    keep = dropping("point", drop_ratio=0.5).plan(120, cut.id).keep
    left = int(keep.sum())
    assert about["start_frame"].tolist() == [50] and about["num_frames"].tolist() == [left]
    assert batch["inputs"].shape == (1, 50 + left, 8)
    assert torch.equal(batch["inputs"][0, :50], whole["inputs"][0, :50])
    assert torch.equal(batch["inputs"][0, 50:], whole["inputs"][0, 50:170][keep])
    assert about["word"] == [["A", "B"]]
    assert whole["supervisions"]["word_start"] == [[50, 100]]
    assert whole["supervisions"]["word_end"] == [[80, 165]]
    assert about["word_start"] == [[50, 50 + int(keep[:50].sum())]]
    assert about["word_end"] == [[50 + int(keep[:30].sum()), 50 + int(keep[:115].sum())]]


def test_masks_of_the_dataset_come_before(cuts):
    """A dataset with transforms is no other case."""
    torch.manual_seed(0)
    augment = [SpecAugment(time_warp_factor=None, p=1.0)]
    whole = dataset("on the fly", input_transforms=augment)[cuts]
    batch = drop_from_batch(whole, dropping())
    assert batch["inputs"].size(1) == batch["supervisions"]["num_frames"].max() < 251


def refused(batch: dict, made: TimeDropping, message: str) -> None:
    """Before the first pruned epoch already."""
    for active in (False, True):
        made.active = active
        with pytest.raises(UserError, match=message):
            drop_from_batch(batch, made)


def test_what_cannot_be_done_is_refused(cuts):
    refused(dataset("audio")[cuts], dropping(), "holds audio, inputs of shape .*OnTheFlyFeatures")
    refused(dataset(return_cuts=False)[cuts], dropping(), "Make the dataset with return_cuts=True")
    refused(dataset()[cuts], dropping(level="samples"), "level=samples: .*Set level=frames")
    twice = cuts[2].drop_features()
    twice.supervisions = [spoken("s", 0.0, 1.0, "A"), spoken("t", 1.0, 1.0, "B")]
    silent = cuts[1].drop_features()
    silent.supervisions = []
    fresh = dataset("on the fly")
    refused(fresh[CutSet.from_cuts([twice])], dropping(), "cut 'cut-2' of a batch has several")
    one = cuts[0].drop_features()
    refused(fresh[CutSet.from_cuts([one, silent])], dropping(), "a cut of a batch has no superv")
    joined = cuts[0].append(cuts[1])
    refused(dataset()[CutSet.from_cuts([joined])], dropping(), "no CutConcatenate")
