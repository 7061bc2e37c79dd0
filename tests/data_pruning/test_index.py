"""The index: lines, utterances, copies, groups, and its digest."""

import gzip
import json

import numpy as np
import pytest
from lhotse import CutSet, Features, MonoCut, SupervisionSegment
from lhotse.cut import MixedCut, MixTrack
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from lhotse.testing.dummies import dummy_recording
from lhotse.utils import compute_num_frames

from asrprune.base.errors import UserError
from asrprune.data_pruning.descriptions import transcript
from asrprune.data_pruning.ids import hash_id, utterance_id
from asrprune.data_pruning.index import CutIndex


def cut(name: str, duration: float = 2.0, language=None, speaker=None, **custom) -> MonoCut:
    recording = dummy_recording(0, duration=60.0)
    supervision = SupervisionSegment(
        name, recording.id, 0.0, duration, text="a", language=language, speaker=speaker
    )
    return MonoCut(
        name, 0.0, duration, 0, supervisions=[supervision], recording=recording,
        custom=custom or None,
    )  # fmt: skip


@pytest.fixture
def cuts() -> list:
    one, two = cut("b", 3.0, "fr", "s1", corpus="x"), cut("a", 1.5, "en", "s2", corpus="y")
    noise = MonoCut("n", 0.0, 4.0, 0, recording=dummy_recording(1, duration=60.0))
    mixed = MixedCut("c", [MixTrack(cut("c1", 2.0, "en", "s1")), MixTrack(noise, offset=0.5)])
    return [one, two, one.perturb_speed(0.9), mixed, two.perturb_speed(1.1)]


def test_cuts_and_manifest_agree(cuts, tmp_path):
    index = CutIndex.from_cuts(cuts)
    assert (len(index), index.num_utterances) == (5, 3)
    assert index.utterance.tolist() == [0, 1, 0, 2, 1]
    assert index.ids_hash.tolist() == [hash_id("b"), hash_id("a"), hash_id("c")]
    assert np.allclose(index.duration, [c.duration for c in cuts], atol=1 / 2048)
    assert (index.duration * 1024 % 1 == 0).all()
    groups = {name: [names[i] for i in codes] for name, (codes, names) in index.groups.items()}
    assert groups == {
        "language": ["fr", "en", "fr", "en", "en"],
        "speaker": ["s1", "s2", "s1", "s1", "s2"],
        "corpus": ["x", "y", "x", "", "y"],
    }
    for name in ("cuts.jsonl", "cuts.jsonl.gz"):
        CutSet.from_cuts(cuts).to_file(tmp_path / name)
        other = CutIndex.from_manifest(tmp_path / name)
        assert other.digest == index.digest
        assert np.array_equal(other.utterance, index.utterance)
        for group, (codes, names) in index.groups.items():
            assert np.array_equal(other.groups[group][0], codes)
            assert other.groups[group][1] == names


def test_look_up(cuts):
    index = CutIndex.from_cuts(cuts)
    assert index.cuts_of([c.id for c in cuts]).tolist() == [0, 1, 2, 3, 4]
    assert index.utterances_of(["a", "b_sp1.1_repeat3", "c", "b_dup0"]).tolist() == [1, 0, 2, 0]
    for look_up in (index.cuts_of, index.utterances_of):
        with pytest.raises(UserError, match="'zzz' is not in the training manifest"):
            look_up(["a", "zzz"])
    own = CutIndex.from_cuts(cuts, share_copies=False)
    assert own.num_utterances == 5
    assert own.utterances_of(["b_sp0.9", "b"]).tolist() == [2, 0]


def test_names_of_copies():
    for name in ("a_sp0.9", "a_vp1.25", "a_tp0.9_repeat0", "a_sp1.1_vp0.5_dup12", "a_repeat0", "a"):
        assert utterance_id(name) == "a"
    for name in ("a_vp1e-05", "a_sp1.25e-05"):
        assert utterance_id(name) == "a"
    for name in ("a_sp", "a_sp0.9x", "_sp0.9", "12-34-0001", "a_speaker1", "call_sp1", "a_vp3"):
        assert utterance_id(name) == name


def test_ids_that_look_as_if_they_came_again():
    """They are what the manifest has; and what comes again of them is found, too."""
    names = ["take_pass0", "take_pass1", "talk_sp1", "talk_sp2", "b"]
    index = CutIndex.from_cuts([cut(name) for name in names])
    for look_up in (index.cuts_of, index.utterances_of):
        assert look_up(names).tolist() == [0, 1, 2, 3, 4]
        again = ["take_pass1_pass2", "take_pass0_dup0", "talk_sp2_pass1_dup3", "b_pass1", "b_dup0"]
        assert look_up(again).tolist() == [1, 0, 3, 4, 4]
    assert index.utterances_of(["talk_sp2_sp0.9", "take_pass1_sp1.1"]).tolist() == [3, 1]
    with pytest.raises(UserError, match="cut 'c_pass1' is not in"):
        index.cuts_of(["b", "c_pass1"])


def test_digest_is_of_ids_durations_and_order():
    a, b, c = cut("a"), cut("b"), cut("c")
    digests = {
        CutIndex.from_cuts(cuts).digest
        for cuts in ([a, b], [b, a], [a, b, c], [a, cut("b", 2.1)], [a, cut("b2")])
    }
    assert len(digests) == 5
    index = CutIndex.from_cuts([a, b])
    index.check_digest(CutIndex.from_cuts([a, b]).digest)
    with pytest.raises(UserError, match="another training manifest"):
        index.check_digest(CutIndex.from_cuts([b, a]).digest)


def test_strata_are_equally_full():
    rng = np.random.default_rng(0)
    index = CutIndex(np.arange(1003, dtype=np.uint64), rng.gamma(3, 3, 1003))
    codes = index.strata(10)
    assert set(np.bincount(codes)) <= {99, 100, 101, 102}
    order = np.argsort(index.duration, kind="stable")
    assert (np.diff(codes[order].astype(int)) >= 0).all()
    few = CutIndex(np.arange(6, dtype=np.uint64), [1, 1, 1, 1, 1, 2])
    assert len(set(few.strata(3)[:5])) == 1


def test_bad_manifests(tmp_path, cuts):
    with pytest.raises(UserError, match="holds no cuts"):
        CutIndex.from_cuts([])
    with pytest.raises(UserError, match="cuts 2 and 3 of the training manifest have the same id"):
        CutIndex.from_cuts([cut("a"), cut("b"), cut("b")])
    with pytest.raises(UserError, match="does not exist"):
        CutIndex.from_manifest(tmp_path / "none.jsonl.gz")
    lines = [json.dumps(c.to_dict()) for c in cuts]
    path = tmp_path / "bad.jsonl"
    for line in ("{", "[]", '{"id": "x"}', '{"id": "x", "tracks": [{}]}'):
        path.write_text("\n".join([*lines, "", line]))
        with pytest.raises(UserError, match="line 7: not a lhotse cut"):
            CutIndex.from_manifest(path)
    path.write_text(json.dumps({"id": "x", "duration": float("nan")}))
    with pytest.raises(UserError, match="cut 'x' has a duration of nan"):
        CutIndex.from_manifest(path)
    short = tmp_path / "short.jsonl.gz"
    short.write_bytes(gzip.compress("\n".join(lines).encode())[:-20])
    with pytest.raises(UserError, match="damaged"):
        CutIndex.from_manifest(short)


def test_colliding_hashes_are_found(cuts, monkeypatch):
    from asrprune.data_pruning import index as module

    real = module.hash_pair
    monkeypatch.setattr(module, "hash_pair", lambda name: (real(name)[0] if name < "c" else 7, 1))
    with pytest.raises(UserError, match="have the same id"):
        CutIndex.from_cuts([cut("c"), cut("d")])
    monkeypatch.setattr(
        module, "hash_pair", lambda name: (7 if name in "cd" else hash(name) % 2**60, ord(name[0]))
    )
    with pytest.raises(UserError, match="the id of cut 2 .* has the hash of another id"):
        CutIndex.from_cuts([cut("c_sp0.9"), cut("d_sp0.9")])


# What time dropping needs of each cut


def with_features(name: str, duration: float, shift: float, rate: int) -> MonoCut:
    features = Features(
        "kaldi-fbank", compute_num_frames(duration, shift, rate), 80, shift, rate, 0.0, duration,
        "lilcom_chunky", "x", "y", name, 0,
    )  # fmt: skip
    said = SupervisionSegment(name, name, 0.0, duration, text="a b")
    return MonoCut(name, 0.0, duration, 0, supervisions=[said], features=features)


@pytest.mark.parametrize(
    "shift, rate", [(0.01, 16000), (0.01, 8000), (0.0125, 16000), (0.01, 44100)]
)
def test_frames_are_those_of_the_features(shift, rate, tmp_path):
    """Durations in the index are rounded to 1 ms; frames must not be: a frame off is wrong."""
    durations = np.random.default_rng(0).uniform(0.2, 9, 300).tolist()
    durations += [number * shift * 1.5 for number in range(20, 120)]  # at the edge of a frame
    cuts = [with_features(f"cut-{at}", one, shift, rate) for at, one in enumerate(durations)]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    for index in (CutIndex.from_cuts(cuts), CutIndex.from_manifest(tmp_path / "cuts.jsonl.gz")):
        assert index.num_frames.dtype == np.int32
        assert index.num_frames.tolist() == [cut.num_frames for cut in cuts]


def test_frames_of_cuts_without_features(cuts, tmp_path):
    """10 ms, of the recording's sampling rate; of a duration alone where there is nothing else."""
    padded = with_features("p", 1.234, 0.01, 16000).pad(2.5, pad_feat_value=-23.0)
    leading = with_features("l", 1.0, 0.02, 16000).pad(2.0, pad_feat_value=-23.0, direction="left")
    CutSet.from_cuts([*cuts, padded, leading]).to_file(tmp_path / "cuts.jsonl.gz")
    expected = [compute_num_frames(one.duration, 0.01, one.sampling_rate) for one in cuts]
    expected += [padded.num_frames, leading.num_frames]
    for index in (
        CutIndex.from_cuts([*cuts, padded, leading]),
        CutIndex.from_manifest(tmp_path / "cuts.jsonl.gz"),
    ):
        assert index.num_frames.tolist() == expected == [*expected[:-2], 250, 100]
    bare = MonoCut("bare", 0.0, 1.0, 0)
    assert CutIndex.from_cuts([bare]).num_frames.tolist() == [100]
    assert CutIndex(np.arange(2, dtype=np.uint64), [1.0, 0.5]).num_frames.tolist() == [100, 50]


def test_the_corpus_of_a_mixed_cut_is_not_that_of_a_muted_track(tmp_path):
    loud, mute = cut("a", corpus="x"), cut("b", corpus="y")
    mixed = MixedCut("m", [MixTrack(mute, mute=True), MixTrack(loud)])
    CutSet.from_cuts([mixed]).to_file(tmp_path / "cuts.jsonl")
    for index in (CutIndex.from_cuts([mixed]), CutIndex.from_manifest(tmp_path / "cuts.jsonl")):
        assert list(index.groups["corpus"][1]) == ["x"]


def test_tokens_are_those_of_the_transcripts(tmp_path):
    texts = ["a b c", "", "a b", None, "a b c", "ä  ö"]
    cuts = [cut(f"cut-{at}") for at in range(len(texts))]
    for one, text in zip(cuts, texts, strict=True):
        one.supervisions[0].text = text
    two = cut("two")
    late, early = two.supervisions[0], SupervisionSegment("e", "r", 0.1, 0.5, text="1 2 3 4")
    late.start, late.text = 1.0, "5"
    two.supervisions = [late, early]
    mute = MixTrack(cut("said", 3.0), mute=True)
    mixed = MixedCut("m", [MixTrack(cuts[0], offset=2.0), MixTrack(cuts[2]), mute])
    silent = MonoCut("none", 0.0, 1.0, 0, recording=dummy_recording(0, duration=60.0))
    cuts += [two, mixed, silent]
    seen = []

    def count(texts: list[str]) -> list[int]:
        seen.append(texts)
        return [len(text.split()) for text in texts]

    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    for make, source in (
        (CutIndex.from_cuts, cuts),
        (CutIndex.from_manifest, tmp_path / "cuts.jsonl"),
    ):
        index = make(source, count_tokens=count)
        assert index.num_tokens.dtype == np.int32
        assert index.num_tokens.tolist() == [3, 0, 2, 0, 3, 2, 5, 5, 0]
        assert index.digest == make(source).digest  # another tokenizer ranks the same cuts
        assert make(source).num_tokens is None
    assert seen[0] == seen[1] == ["a b c", "", "a b", "ä  ö", "1 2 3 4 5", "a b a b c"]
    assert seen[0] == list(dict.fromkeys(map(transcript, cuts)))


def test_duration_bins_are_lhotses():
    rng = np.random.default_rng(0)
    for count, buckets in ((1003, 30), (200, 7), (64, 64), (50, 2), (31, 30)):
        for durations in (
            rng.gamma(3, 3, count) + 0.1,
            rng.choice([1.0, 2.0, 15.0], count),
            np.sort(rng.uniform(1, 20, count))[::-1],
            np.full(count, 3.25),
        ):
            ticks = np.rint(durations * 1024) / 1024
            cuts = CutSet.from_cuts(MonoCut(str(i), 0, one, 0) for i, one in enumerate(ticks))
            index = CutIndex(np.arange(count, dtype=np.uint64), durations)
            lhotses = estimate_duration_buckets(cuts, buckets)
            assert index.duration_bins(buckets) == sorted(set(map(float, lhotses)))
    tied = [1.0, 2.0, 3.0, 6.0]  # a bucket that holds its share to the dot is not full
    index = CutIndex(np.arange(4, dtype=np.uint64), tied)
    cuts = CutSet.from_cuts(MonoCut(str(i), 0, one, 0) for i, one in enumerate(tied))
    assert index.duration_bins(4) == estimate_duration_buckets(cuts, 4) == [6.0]
    # of durations as they are, to the grid
    durations = rng.gamma(3, 3, 5000) + 0.1
    cuts = CutSet.from_cuts(MonoCut(str(i), 0, one, 0) for i, one in enumerate(durations))
    found = CutIndex.from_cuts(cuts).duration_bins(30)
    lhotses = estimate_duration_buckets(cuts, 30)
    assert len(found) == len(lhotses)
    np.testing.assert_allclose(found, lhotses, atol=0.01)
    assert all(type(edge) is float for edge in found)


def test_duration_bins_hold_equal_seconds():
    durations = np.random.default_rng(0).gamma(3, 3, 20_000)
    index = CutIndex(np.arange(20_000, dtype=np.uint64), durations)
    edges = index.duration_bins(30)
    inside = np.digitize(index.duration, edges)
    seconds = np.bincount(inside, index.duration, 30)
    assert len(edges) == 29 and seconds.max() < 1.05 * seconds[:-1].min()


def test_duration_bins_of_few_cuts():
    few = CutIndex(np.arange(3, dtype=np.uint64), [1.0, 2.0, 3.0])
    assert few.duration_bins(30) == few.duration_bins(3) == [3.0]
    assert few.duration_bins(1) == few.duration_bins(0) == []
    assert CutIndex(np.arange(1, dtype=np.uint64), [1.0]).duration_bins(30) == []
