"""The index: lines, utterances, copies, groups, and its digest."""

import gzip
import json

import numpy as np
import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.cut import MixedCut, MixTrack
from lhotse.testing.dummies import dummy_recording

from asrprune.data_pruning.index import CutIndex, hash_id, utterance_id
from asrprune.errors import UserError


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
    with pytest.raises(UserError, match="cuts 2 and 3 of the training manifest have one id"):
        CutIndex.from_cuts([cut("a"), cut("b"), cut("b")])
    with pytest.raises(UserError, match="does not exist"):
        CutIndex.from_manifest(tmp_path / "none.jsonl.gz")
    lines = [json.dumps(c.to_dict()) for c in cuts]
    path = tmp_path / "bad.jsonl"
    for line in ("{", "[]", '{"id": "x"}', '{"id": "x", "tracks": [{}]}'):
        path.write_text("\n".join([*lines, "", line]))
        with pytest.raises(UserError, match="line 7: no cut"):
            CutIndex.from_manifest(path)
    path.write_text(json.dumps({"id": "x", "duration": float("nan")}))
    with pytest.raises(UserError, match="cut 'x': a duration of nan"):
        CutIndex.from_manifest(path)
    short = tmp_path / "short.jsonl.gz"
    short.write_bytes(gzip.compress("\n".join(lines).encode())[:-20])
    with pytest.raises(UserError, match="damaged"):
        CutIndex.from_manifest(short)


def test_colliding_hashes_are_found(cuts, monkeypatch):
    from asrprune.data_pruning import index as module

    real = module._keys
    monkeypatch.setattr(module, "_keys", lambda name: (real(name)[0] if name < "c" else 7, 1))
    with pytest.raises(UserError, match="have one id"):
        CutIndex.from_cuts([cut("c"), cut("d")])
    monkeypatch.setattr(
        module, "_keys", lambda name: (7 if name in "cd" else hash(name) % 2**60, ord(name[0]))
    )
    with pytest.raises(UserError, match="the id of cut 2 .* has the hash of another id"):
        CutIndex.from_cuts([cut("c_sp0.9"), cut("d_sp0.9")])
