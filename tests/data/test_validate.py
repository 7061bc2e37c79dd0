"""Validation: each reason is found and named, statistics are numpy's, nothing is half done."""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

from asrprune.base.errors import UserError
from asrprune.data import fbank, validate
from asrprune.data.checks import DEFECTS
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.manifests import read_lines, to_line, write_lines
from asrprune.data.statistics import CutStatistics, duration_bins

TEXTS = ["ONE TWO", "TWO", "THREE FOUR", "FIVE", "SIX ONE", "SEVEN", "EIGHT", "NINE NINE", "TEN"]
SHARED = {"train-00", "train-04", "train-07"}
SECONDS = (1.2, 2.0, 1.5, 3.1, 0.9)


@pytest.fixture
def corpus(make_corpus, monkeypatch) -> None:
    """Features of nine training cuts, with copies, and three for evaluation, in several parts."""
    monkeypatch.setattr(fbank, "FEW", 4)
    monkeypatch.setattr(validate, "PART", 5)
    make_corpus(TEXTS, "train", SECONDS)
    make_corpus(TEXTS[:3], "test", SECONDS)
    options = FbankOptions("noise", Path("manifests"), Path("fbank"), speed_perturb=True)
    compute_split(options, "train")
    compute_split(FbankOptions("noise", Path("manifests"), Path("fbank")), "test")


def run(*words: str, out: str = "valid", train: tuple[str, ...] = ("train",)) -> dict:
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    validate.main(
        parser.parse_args(
            ["--corpus", "noise", "--manifest-dir", "fbank", "--out-dir", out, "--jobs", "1"]
            + ["--train", *train, *words]
        )
    )
    return json.loads(Path(out, "noise_statistics.json").read_text())


def change(index: int, edit: Callable[[dict], dict | None], split: str = "train") -> str:
    """Edit the cut of a line of stage 2's manifest in place; returns its id."""
    path = f"fbank/noise_cuts_{split}.jsonl.gz"
    entries = [json.loads(line) for line in read_lines(path, "")]
    entries[index] = edit(entries[index]) or entries[index]
    with write_lines(path) as file:
        file.writelines(map(to_line, entries))
    return entries[index]["id"]


def rejected(out: str = "valid") -> list[list[str]]:
    rows = Path(out, "noise_rejected.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["split", "cut", "reason", "detail"]
    return [row.split("\t") for row in rows[1:]]


def ids(name: str, out: str = "valid") -> list[str]:
    return [cut.id for cut in CutSet.from_file(f"{out}/noise_cuts_{name}.jsonl.gz")]


def test_statistics_are_those_of_brute_force(corpus):
    found = run("--eval", "test", "--num-bins", "4")
    train = list(CutSet.from_file("valid/noise_cuts_train.jsonl.gz"))
    frames = np.concatenate([cut.load_features() for cut in train]).astype(np.float64)
    np.testing.assert_allclose(found["feature_mean"], frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["feature_std"], frames.std(axis=0), rtol=1e-9)
    durations = [cut.duration for cut in train]
    assert found["train"]["cuts"] == len(durations) == 27
    assert found["train"]["seconds"] == pytest.approx(sum(durations), abs=1e-3)
    assert found["train"]["speakers"] == 2
    assert found["train"]["words"] == 3 * len(" ".join(TEXTS).split())
    assert found["train"]["vocabulary"] == len(set(" ".join(TEXTS).split()))
    for quantile, value in found["train"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(durations, float(quantile)), abs=1e-4)
    assert found["train"]["duration_bins"] == estimate_duration_buckets(train, 4)
    assert found["train"]["digest"] == digest_of(train) != digest_of(train[::-1])
    assert found["train"]["splits"] == ["train"]
    assert found["eval"]["test"]["cuts"] == 3
    assert found["rejected"] == 0
    assert rejected() == []
    assert ids("test") == ["test-00", "test-01", "test-02"]
    table = Path("valid/noise_statistics.txt").read_text().splitlines()
    assert table[0].split() == ["train", "test"]
    assert table[1].split() == ["cuts", "27", "3"]


def digest_of(cuts: list[MonoCut]) -> str:
    statistics = CutStatistics()
    for cut in cuts:
        statistics.add(cut.id, cut.duration, cut.supervisions[0].text, "")
    return statistics.digest()


@pytest.mark.parametrize("other", [("b", 1.0, "X"), ("a", 1.5, "X"), ("a", 1.0, "Y")])
def test_the_digest_names_a_sequence(other):
    def digest(*cuts: tuple[str, float, str], order: list[int] | None = None) -> str:
        statistics = CutStatistics()
        for cut in cuts:
            statistics.add(*cut, speaker="")
        return statistics.digest(order)

    first, last = ("a", 1.0, "X"), ("c", 2.0, "Z")
    assert digest(first, last) == digest(last, first, order=[1, 0]) != digest(last, first)
    assert digest(first, last) != digest(other, last)


def test_results_depend_on_seed_and_ids_only(corpus):
    first = run("--seed", "1")
    path = Path("fbank/noise_cuts_train.jsonl.gz")
    lines = list(read_lines(path, ""))
    path.unlink()
    for split, part in (("b", lines[10:]), ("a", lines[:10])):
        with write_lines(f"fbank/noise_cuts_{split}.jsonl.gz") as file:
            file.writelines(part)
    split = run("--seed", "1", train=("b", "a"), out="split")
    assert ids("train", "split") == ids("train")
    assert split["train"]["digest"] == first["train"]["digest"]
    np.testing.assert_allclose(split["feature_mean"], first["feature_mean"], rtol=1e-12)
    other = run("--seed", "2", train=("b", "a"), out="other")
    assert other["train"]["digest"] != first["train"]["digest"]  # its batches are others
    assert ids("train", "other") != ids("train")
    assert sorted(ids("train", "other")) == sorted(ids("train"))


def test_two_processes_find_what_one_finds(corpus, monkeypatch):
    monkeypatch.setattr(validate, "PART", 1)
    run(out="one")
    run("--jobs", "2", out="two")
    for name in ("cuts_train.jsonl.gz", "statistics.json", "statistics.txt", "rejected.tsv"):
        assert Path(f"one/noise_{name}").read_bytes() == Path(f"two/noise_{name}").read_bytes()


def set_text(text: str | None) -> Callable[[dict], None]:
    return lambda cut: cut["supervisions"][0].update(text=text)


def damage_archive(cut: dict) -> None:
    cut["features"]["storage_key"] = "5,10,10"


def false_shape(cut: dict) -> None:
    cut["features"]["num_features"] = 40


DEFECTIVE = {
    "empty-text": set_text(" \t"),
    "duplicate-id": lambda cut: cut.update(id="train-00"),
    "id-taken": None,  # of a cut of another set: see below
    "supervisions": lambda cut: cut.update(supervisions=[]),
    "duration": lambda cut: cut.update(duration=-1.0),
    "cut-outside": lambda cut: cut.update(start=0.9),
    "supervision-outside": lambda cut: cut["supervisions"][0].update(duration=9.5),
    "no-features": lambda cut: cut.pop("features") and None,
    "frames": lambda cut: cut["features"].update(num_frames=70),
    "too-few-frames": set_text("A " * 60),
    "unreadable-features": damage_archive,
    "not-finite": None,  # the store refuses to write it: see the next test
}


@pytest.mark.parametrize("reason", [reason for reason in DEFECTIVE if DEFECTIVE[reason]])
def test_each_defect_stops_the_run_and_is_left_out_when_allowed(corpus, reason):
    name = change(4, DEFECTIVE[reason])
    with pytest.raises(UserError) as caught:
        run()
    message = str(caught.value)
    assert f"1 of 27 cuts of train is defective ({reason}: 1). The first is {name}: " in message
    assert DEFECTS[reason] in message
    assert "valid/noise_rejected.tsv lists all" in message
    assert "--allow-rejected 0.038" in message
    assert [row[:3] for row in rejected()] == [["train", name, reason]]
    assert [path.name for path in Path("valid").iterdir()] == ["noise_rejected.tsv"]
    found = run("--allow-rejected", "0.038")
    assert found["rejected"] == 1
    assert found["train"]["cuts"] == len(ids("train")) == 26
    assert ids("train").count(name) == (reason == "duplicate-id")


def test_words_are_left_out_of_all_sets(corpus, caplog):
    """A text of nothing else is no defect of training sets, up to a tenth of them."""
    caplog.set_level("INFO")
    for split, index in (("train", 2), ("train", 3), ("test", 1)):
        change(index, set_text("<unk> ONE [noise]"), split)
    nothing = change(5, set_text("<unk>"))
    found = run("--eval", "test", "--drop-words", "<unk>", "[noise]")
    for split in ("train", "test"):
        texts = [
            c.supervisions[0].text for c in CutSet.from_file(f"valid/noise_cuts_{split}.jsonl.gz")
        ]
        assert not {"<unk>", "[noise]"} & set(" ".join(texts).split()) and "ONE" in texts
    assert rejected() == [["train", nothing, "dropped-text", "no word"]]
    assert "--drop-words: <unk> was left out 4 times" in caplog.text
    assert found["train"]["vocabulary"] == len(set(" ".join(TEXTS).split()))


def set_supervision(**values) -> Callable[[dict], None]:
    return lambda cut: cut["supervisions"][0].update(values)


OF_A_SEGMENT = {
    "20 s beyond": (set_supervision(duration=22.0), "supervision-outside"),
    "0.5 s beyond": (set_supervision(duration=2.5), "supervision-outside"),
    "before": (set_supervision(start=-0.2), "supervision-outside"),
    "after the end": (set_supervision(start=4.0, duration=0.5), "supervision-outside"),
    "no number": (set_supervision(start=math.nan), "supervision-outside"),
    "negative": (set_supervision(duration=-1.0), "duration"),
    "endless": (set_supervision(duration=math.inf), "duration"),
    "none": (set_supervision(duration=None), "duration"),
    "cut beyond": (lambda cut: cut.update(duration=9.0), "cut-outside"),
    "recording": (lambda cut: cut["recording"].update(duration=1.0), "cut-outside"),
    "no text": (set_text(""), "empty-text"),
    "no supervision": (lambda cut: cut.update(supervisions=[]), "supervisions"),
    "no features": (lambda cut: cut.update(features=None), "no-features"),
}


@pytest.mark.parametrize("case", OF_A_SEGMENT)
@pytest.mark.parametrize("split", ["train", "test"])
def test_defects_of_any_set_are_listed_and_stop_the_stage(corpus, case, split):
    edit, reason = OF_A_SEGMENT[case]
    name = change(1, edit, split)
    with pytest.raises(UserError, match=rf"of {split} is defective \({reason}: 1\)") as caught:
        run("--eval", "test")
    assert ("which changes error rates" in str(caught.value)) == (split == "test")
    assert [row[:3] for row in rejected()] == [[split, name, reason]]
    found = run("--eval", "test", "--allow-rejected", "0.34")
    assert found["rejected"] == 1 and name not in ids(split)


def test_a_few_milliseconds_beyond_are_no_defect(corpus):
    change(1, set_supervision(duration=2.02), "test")
    change(1, set_supervision(start=-0.02))
    assert run("--eval", "test")["rejected"] == 0


@pytest.mark.parametrize("text", ["你好世界" * 13, "ヌ" * 51, "กขคง" * 13, "あ A " * 26])
def test_a_text_without_spaces_is_as_long_as_its_characters(corpus, text):
    name = change(3, set_text(text))  # 2 s
    with pytest.raises(UserError, match=f"too-few-frames: 1.*{name}: .*tokens"):
        run()
    change(3, set_text(text[:30]))
    assert run()["rejected"] == 0


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("seconds", [0.3, -0.3, 4.0])
def test_features_are_where_their_cuts_are(corpus, split, seconds):
    """Sets of evaluation are no exception: they would stop the decoding after the training."""
    edit = {"start": seconds}
    name = change(1, lambda cut: cut["features"].update(edit), split)
    with pytest.raises(UserError, match=rf"of {split} is defective \(frames: 1\).* {name}: .*end"):
        run("--eval", "test")
    change(1, lambda cut: cut["features"].update(start=0.004), split)
    assert run("--eval", "test")["rejected"] == 0


def test_as_many_words_as_encoder_frames_are_enough(corpus):
    """Encoders round up: 133 frames are 34 of 4 frames each."""
    cuts = list(CutSet.from_file("fbank/noise_cuts_train.jsonl.gz"))
    index = next(index for index, cut in enumerate(cuts) if cut.num_frames % 4)
    most = math.ceil(cuts[index].num_frames / 4)
    change(index, set_text("A " * most))
    assert run()["rejected"] == 0
    change(index, set_text("A " * (most + 1)))
    with pytest.raises(UserError, match="too-few-frames: 1"):
        run()
    assert rejected()[0][3] == f"{most} encoder frames, {most + 1} tokens or more"


def test_every_defect_is_known_to_these_tests():
    assert set(DEFECTIVE) == set(DEFECTS)


def test_features_that_are_no_numbers_or_of_another_shape(corpus, monkeypatch):
    from lhotse import Features

    load = Features.load

    def spoiled(self, *args, **kwargs):
        matrix = load(self, *args, **kwargs)
        if self.recording_id == "train-03":
            matrix[7, 5] = np.nan
        return matrix

    monkeypatch.setattr(Features, "load", spoiled)
    change(1, false_shape)
    with pytest.raises(UserError, match="unreadable-features: 1, not-finite: 1.*run stage 2"):
        run()
    assert [row[1:3] for row in rejected()] == [
        ["train-00_sp0.9", "unreadable-features"],
        ["train-03", "not-finite"],
    ]
    found = run("--allow-rejected", "0.1")
    assert np.isfinite(found["feature_mean"]).all()


def test_a_defect_of_the_evaluation_counts_but_not_its_lengths(corpus, caplog):
    assert run("--eval", "test", "--max-seconds", "1.4", "--allow-rejected", "0.9")
    assert len(ids("test")) == 3
    name = change(1, set_text("A " * 60), "test")  # hard to recognise, but not impossible
    caplog.clear()
    run("--eval", "test")
    assert len(ids("test")) == 3
    what = f"1 of 3 cuts of test have more tokens than encoder frames, such as {name} (50 encoder f"
    assert what in caplog.text
    name = change(1, set_text(""), "test")
    with pytest.raises(UserError, match=f"1 of 3 cuts of test is defective .* {name}: an empty tr"):
        run("--eval", "test")
    run("--eval", "test", "--allow-rejected", "0.34")
    assert "1 of 3 cuts of test is left out, which changes its error rates" in caplog.text
    assert ids("test") == ["test-00", "test-02"]


def test_limits_select_without_asking_up_to_a_tenth(corpus, caplog):
    caplog.set_level("INFO")
    found = run("--max-seconds", "3.4")  # the slow copies of 3.1 s
    assert found["rejected"] == 2
    assert [row[:3] for row in rejected()] == [
        ["train", "train-03_sp0.9", "too-long"],
        ["train", "train-08_sp0.9", "too-long"],
    ]
    assert "2 of 27 cuts of train are left out (too-long: 2)" in caplog.text
    with pytest.raises(UserError, match=r"of 27 cuts of train are left out .* --min-seconds"):
        run("--min-seconds", "1.3")
    with pytest.raises(UserError, match=r"no cut of train is left \(too-short: 27\)"):
        run("--min-seconds", "500")
    assert run("--min-seconds", "1.3", "--allow-rejected", "0.6")["rejected"] > 3
    for row in rejected():
        assert row[2] == "too-short"
        assert float(row[3].split()[0]) < 1.3


def test_what_stage_2_left_out_is_listed_and_no_error(make_corpus, caplog):
    make_corpus(TEXTS * 2, "train", SECONDS)
    make_corpus(TEXTS, "test", SECONDS)
    for split in ("train", "test"):
        Path(f"audio/{split}-01.flac").write_bytes(b"")
        options = FbankOptions("noise", Path("manifests"), Path("fbank"), skip_bad_audio=True)
        compute_split(options, split)
    found = run("--eval", "test")
    assert [row[:3] for row in rejected()] == [
        ["train", "train-01", "unreadable-audio"],
        ["test", "test-01", "unreadable-audio"],
    ]
    assert found["rejected"] == 2
    assert "1 of 9 cuts of test is left out, which changes its error rates" in caplog.text


def test_what_is_tested_on_is_not_trained_on(corpus, caplog):
    """Neither are its copies with changed speed; any share of the cuts may be such."""
    path = Path("fbank/noise_cuts_train.jsonl.gz")
    shared = [line for line in read_lines(path, "") if json.loads(line)["id"] in SHARED]
    with write_lines("fbank/noise_cuts_dev.jsonl.gz") as file:
        file.writelines(shared)
    run("--eval", "dev")
    assert set(ids("dev")) == SHARED
    assert {tuple(row) for row in rejected()} == {
        ("train", name + speed, "held-out", "dev")
        for name in SHARED
        for speed in ("", "_sp0.9", "_sp1.1")
    }
    assert "9 of 27 cuts of train are left out (held-out: 9)" in caplog.text
    loud = "9 cuts of train are of utterances that are tested on as well, such as train-0"
    assert loud in caplog.text and "NOT trained on; valid/noise_rejected.tsv lists" in caplog.text
    assert len(ids("train")) == 18 and not any(name[:8] in SHARED for name in ids("train"))
    Path("fbank/noise_cuts_dev.jsonl.gz").unlink()
    Path("fbank/noise_cuts_dev.jsonl.gz").hardlink_to(path)
    with pytest.raises(UserError, match=r"no cut of train is left \(held-out: 27\)"):
        run("--eval", "dev")
    with pytest.raises(UserError, match="--eval train: this name"):
        run("--eval", "train")


@pytest.mark.parametrize("copy", ["_repeat1", "_sp0.9_vp0.5", "_tp1.1"])
def test_copies_of_any_kind_are_not_trained_on(copy, corpus):
    """As data pruning knows them; of either side."""
    path = Path("fbank/noise_cuts_train.jsonl.gz")
    lines = [json.loads(line) for line in read_lines(path, "")]
    with write_lines("fbank/noise_cuts_dev.jsonl.gz") as file:
        file.writelines(to_line(cut) for cut in lines if cut["id"] in SHARED)
    with write_lines(path) as file:
        for cut in lines:
            if cut["id"] in SHARED:
                cut["id"] += copy
            file.write(to_line(cut))
    copies = [json.loads(line)["id"] for line in read_lines(path, "")]
    run("--eval", "dev")
    assert set(ids("dev")) == SHARED
    assert {cut for _, cut, *_ in rejected()} == {name for name in copies if name[:8] in SHARED}
    change(0, lambda cut: cut.update(id="test-00_repeat7"), split="test")
    with write_lines(path) as file:
        tested = json.loads(next(iter(read_lines("fbank/noise_cuts_test.jsonl.gz", ""))))
        file.writelines(to_line(cut) for cut in [*lines, {**tested, "id": "test-00_sp1.1"}])
    run("--eval", "test")
    assert ["train", "test-00_sp1.1", "held-out", "test"] in rejected()


def test_an_id_of_two_recordings_is_never_silently_left_out(corpus):
    """Files of the same bytes are one recording; any other is a defect, which names both."""
    name = change(3, lambda cut: cut.update(id="test-00"))
    with pytest.raises(UserError) as caught:
        run("--eval", "test")
    assert f"(id-taken: 1). The first is {name}: {DEFECTS['id-taken']}" in str(caught.value)
    assert "(audio/train-01.flac, 0.00 to " in str(caught.value)
    assert "; in test: audio/test-00.flac, 0.00 to " in str(caught.value)
    assert "an id of its own" in str(caught.value)
    Path("audio/train-01.flac").write_bytes(Path("audio/test-00.flac").read_bytes())
    run("--eval", "test")
    assert rejected() == [["train", "test-00", "held-out", "test"]]


def test_an_id_of_two_evaluation_sets_is_compared_with_both(corpus):
    """The first set has other audio of that id, the second one the audio of the training cut."""
    path = Path("fbank/noise_cuts_train.jsonl.gz")
    cuts = {cut["id"]: cut for cut in map(json.loads, read_lines(path, ""))}
    for split, of in (("dev", "train-02"), ("test2", "train-01")):
        with write_lines(f"fbank/noise_cuts_{split}.jsonl.gz") as file:
            file.write(to_line({**cuts[of], "id": "train-01"}))
    for order in (("dev", "test2"), ("test2", "dev")):
        run("--eval", *order)
        held_out = [row for row in rejected() if row[2] == "held-out"]
        assert {row[1]: row[3] for row in held_out}["train-01"] == "test2"


def test_an_id_of_two_parts_of_a_file_is_a_defect(corpus):
    [tested, *_] = map(json.loads, read_lines("fbank/noise_cuts_test.jsonl.gz", ""))
    for share, reason in ((0.1, "held-out"), (0.9, "id-taken")):
        change(0, lambda _, share=share: {**tested, "start": share * tested["duration"]})
        run("--eval", "test", "--allow-rejected", "0.1")
        assert [row[2] for row in rejected() if row[1] == "test-00"] == [reason]


def test_a_split_may_be_for_both_if_named_for_both(corpus, caplog):
    run("--eval", "test", train=("train", "test"))
    assert "test is trained on and tested on: its error rates say nothing" in caplog.text
    assert len(ids("train")) == 30 and len(ids("test")) == 3


def test_no_language_vanishes(corpus):
    for index in range(27):
        change(index, lambda cut: cut["supervisions"][0].update(language="en"))
    change(4, lambda cut: cut["supervisions"][0].update(language="cy", text=""))
    with pytest.raises(UserError, match=r"no cut of language 'cy' in train is left of 1 "):
        run("--allow-rejected", "0.5")


def test_missing_and_damaged_inputs_are_named(corpus):
    with pytest.raises(UserError, match=r"noise_cuts_dev.jsonl.gz does not exist; stage 2"):
        run("--eval", "dev")
    Path("fbank/noise_feats_train/part-00001.lca").unlink()
    with pytest.raises(UserError, match=r"train-04 should be in .*part-00001.lca, .* run stage 2"):
        run()
    path = Path("fbank/noise_cuts_train.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="noise_cuts_train.jsonl.gz is damaged"):
        run()
    with write_lines(path) as file:
        file.write(b'{"id": "a"}\nno json\n')
    with pytest.raises(UserError, match="noise_cuts_train.jsonl.gz, line 2: no manifest entry"):
        run()


DISK_FULL = """
import resource, sys
from asrprune import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
sys.exit(cli.main(sys.argv[1:]))
"""


def test_full_disk_is_one_message_and_leaves_nothing(corpus):
    words = "validate --corpus noise --manifest-dir fbank --out-dir valid --train train --jobs 1"
    command = [sys.executable, "-c", DISK_FULL, *words.split()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "error: cannot write valid: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(Path("valid").iterdir()) == []


def test_bins_of_few_durations_become_fewer(corpus):
    assert duration_bins([2.0] * 50, 30) in ([], [2.0])
    assert duration_bins([1.0], 30) == duration_bins([], 30) == duration_bins([1, 2], 1) == []
    durations = list(np.random.default_rng(0).uniform(1, 20, 1000))
    bins = duration_bins(durations, 10)
    assert bins == duration_bins(durations[::-1], 10) == sorted(set(bins))
    sums = np.histogram(durations, [0, *bins, 30], weights=durations)[0]
    assert len(bins) == 9
    assert sums.max() < 1.1 * sums.min()
    # what stage 3 writes is what lhotse's sampler takes
    found = run("--num-bins", "3")
    cuts = CutSet.from_file("valid/noise_cuts_train.jsonl.gz")
    bins = found["train"]["duration_bins"]
    sampler = DynamicBucketingSampler(cuts, max_duration=10, duration_bins=bins, shuffle=True)
    assert sum(len(batch) for batch in sampler) == 27
