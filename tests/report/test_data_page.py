"""The page about data pruning: one file, its texts escaped, its audio and differences right."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asrprune import cli
from asrprune.data.manifests import read_lines, write_lines
from asrprune.report import audio_clips, data_page
from asrprune.report.hardest import HardCut
from asrprune.report.hypotheses import DELETION, EQUAL, INSERTION, SUBSTITUTION, differences
from asrprune.report.page import MAX_BYTES
from asrprune.report.svg import inline_svg
from asrprune.scoring.wer import Utterance, count_errors
from tests.report.pages import STRANGE, Page, record_run, samples_of, with_strange_cut

HARDEST = 8
COLUMNS = ["cut", "score", "seconds", "visits", "speaker", "language", "word errors", "transcript"]


@pytest.fixture(scope="module")
def run(tiny_corpus, models, tmp_path_factory) -> SimpleNamespace:
    """A run with a model, its page, and the cuts of its manifest by line."""
    root = tmp_path_factory.mktemp("run")
    manifest = with_strange_cut(
        tiny_corpus.manifests / "tones_cuts_train.jsonl.gz", root / "valid" / "cuts.jsonl.gz"
    )
    exp = record_run(root / "exp", manifest)
    (exp / "averaged.pt").write_bytes(models["none"].read_bytes())
    assert cli.main(["report", "data", str(exp), "--hardest", str(HARDEST)]) == 0
    text = (exp / "pruning" / "report.html").read_text()
    cuts = [json.loads(line) for line in read_lines(manifest, "")]
    return SimpleNamespace(exp=exp, text=text, page=Page(text), manifest=manifest, cuts=cuts)


def page_of(exp: Path, *words: str) -> Page:
    assert cli.main(["report", "data", str(exp), "--hardest", str(HARDEST), *words]) == 0
    return Page((exp / "pruning" / "report.html").read_text())


def cells(page: Page, name: str) -> list:
    """The cells of a column of the hardest cuts."""
    if name == "cut":
        return page.all("th", class_="id")
    if name == "transcript":
        return page.all("td", class_="texts")
    return page.all("td", data_label=name)


def copied(run, tmp_path, edit) -> Path:
    """A copy of the run whose manifest entries ``edit`` has changed."""
    manifest = tmp_path / "cuts.jsonl.gz"
    with write_lines(manifest) as file:
        for line in read_lines(run.manifest, ""):
            entry = json.loads(line)
            edit(entry)
            file.write(json.dumps(entry).encode() + b"\n")
    return record_run(tmp_path / "exp", manifest)


def test_the_page_is_one_small_file(run):
    assert len(run.text.encode()) < MAX_BYTES
    assert run.text.startswith("<!DOCTYPE html>")
    assert run.page.all("html")[0].attributes == {"lang": "en"}
    for element in run.page.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), element  # the script listens to events by itself
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                assert value.startswith(("#", "data:")), element
    assert not re.search(r"@import|url\((?!#)", run.text)
    policy = run.page.all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    assert policy.startswith("default-src 'none';")


def test_ids_are_unique_and_references_lead_somewhere(run):
    ids = [one.attributes["id"] for one in run.page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for element in run.page.elements:
        for name in ("href", "xlink:href", "for", "aria-labelledby"):
            value = element.attributes.get(name)
            if value and not value.startswith("data:"):
                assert value.removeprefix("#") in ids
    assert set(re.findall(r"url\(#([^)]*)\)", run.text)) <= set(ids)


def test_tables_have_heads_and_every_row_a_name(run):
    heads = run.page.all("th")
    assert all(one.attributes.get("scope") in ("col", "row") for one in heads)
    named = run.page.all("th", scope="col", role="columnheader")[1:]  # the first has a check box
    assert [one.text for one in named] == COLUMNS
    assert len(run.page.all("caption")) == len(run.page.all("table")) - 1
    assert all(one.attributes["aria-label"] for one in run.page.all("div", role="img"))


def test_the_hardest_cuts_and_their_sorting_values(run):
    """A cut's score is 1 + its line, so the last lines are the hardest cuts."""
    hardest = run.cuts[: -HARDEST - 1 : -1]
    assert [one.attributes["data-value"] for one in cells(run.page, "cut")] == [
        cut["id"] for cut in hardest
    ]
    scores = [float(one.attributes["data-value"]) for one in cells(run.page, "score")]
    assert scores == pytest.approx([len(run.cuts) - n for n in range(HARDEST)], rel=1e-3)
    for name, value in (
        ("seconds", lambda cut: cut["duration"]),
        ("speaker", lambda cut: cut["supervisions"][0]["speaker"]),
        ("language", lambda cut: cut["supervisions"][0]["language"]),
        ("transcript", lambda cut: cut["supervisions"][0]["text"]),
    ):
        for one, cut in zip(cells(run.page, name), hardest, strict=True):
            found = one.attributes["data-value"]
            if name == "seconds":
                assert float(found) == pytest.approx(value(cut), rel=1e-3)
                assert one.text == f"{float(found):.2f}"
            else:
                assert found == value(cut)
    boxes = [one for one in run.page.all("input", type="checkbox") if "value" in one.attributes]
    assert [one.attributes["value"] for one in boxes] == [cut["id"] for cut in hardest]
    numeric = {one.text for one in run.page.all("th", data_type="number")}
    assert numeric == {"score", "seconds", "visits", "word errors"}


def test_texts_are_escaped(run):
    assert not run.page.all("b") and not run.page.all("i") and not run.page.all("img")
    assert len(run.page.all("script")) == 1 and "bad()" not in run.page.all("script")[0].text
    assert cells(run.page, "cut")[0].text == STRANGE["id"]
    assert cells(run.page, "speaker")[0].text == STRANGE["speaker"]
    words = run.page.all("dd", class_="transcript")[0].text.split()
    assert words == STRANGE["text"].split()
    labels = [one.text for one in run.page.all("text")]
    assert STRANGE["speaker"] in labels  # in the picture; a dollar sign makes no formula there


def test_the_audio_of_each_cut_is_whole(run):
    players = run.page.all("audio")
    assert len(players) == HARDEST
    for player, cut in zip(players, run.cuts[::-1], strict=False):
        wanted, _ = soundfile.read(cut["recording"]["sources"][0]["source"], dtype="float32")
        found = samples_of(player)
        assert len(found) == len(wanted) == round(16000 * cut["duration"])
        assert np.corrcoef(found, wanted)[0, 1] > 0.9  # Vorbis is lossy
        assert player.attributes["aria-label"] == f"Audio of {cut['id']}"


def test_differences_are_those_of_scoring(run):
    """The marks of a cut are as many as its word errors."""
    for text, one in zip(
        cells(run.page, "transcript"), cells(run.page, "word errors"), strict=True
    ):
        wrong, words = one.text.split(" of ")
        assert one.attributes["data-value"] == wrong
        assert int(words) == len(text.attributes["data-value"].split())
    listed = {"deletion": 0, "insertion": 0, "substitution": 0}
    for one in run.page.elements:
        if one.tag in ("del", "ins") and "title" in one.attributes:
            assert one.attributes["title"] == one.attributes["class"]
            listed[one.attributes["class"]] += 1
    assert listed["substitution"] % 2 == 0  # one on each side
    total = sum(int(one.attributes["data-value"]) for one in cells(run.page, "word errors"))
    assert listed["deletion"] + listed["insertion"] + listed["substitution"] // 2 == total


WORDS = st.lists(st.sampled_from(["A", "B", "C", "D"]), max_size=7)


@given(WORDS, WORDS)
def test_differences_of_any_texts(ref, hyp):
    found = differences(Utterance("x", ref, hyp))
    assert [word for _, word, _ in found if word] == ref
    assert [word for *_, word in found if word] == hyp
    kinds = [kind for kind, *_ in found]
    counts = count_errors(ref, hyp)
    assert kinds.count(SUBSTITUTION) + kinds.count(DELETION) + kinds.count(INSERTION) == (
        counts.errors
    )
    for kind, word, heard in found:
        assert kind == (
            EQUAL if word == heard else INSERTION if not word else DELETION if not heard
            else SUBSTITUTION
        )  # fmt: skip


def test_a_model_recognises_as_decoding_does(run, tiny_corpus):
    """The model's text is what stage 8 finds."""
    import torch
    from lhotse import CutSet

    from asrprune.data.tokenizer import load_tokenizer
    from asrprune.decoding.decode import decode_cuts
    from asrprune.decoding.load import load_model
    from asrprune.decoding.options import DecodingOptions

    tokenizer = load_tokenizer(tiny_corpus.lang)
    model, _ = load_model(run.exp / "averaged.pt", "cpu", tokenizer)
    cuts = CutSet.from_file(run.manifest).subset(last=HARDEST)
    options = DecodingOptions(num_workers=0)
    decoded = decode_cuts(model, cuts, tokenizer, options, torch.device("cpu"), "train")
    texts = [one.text for one in run.page.all("dd", class_="hypothesis")]
    assert texts == [" ".join(one.hyp) or "nothing" for one in decoded[::-1]]


def test_the_newest_epoch_serves_where_there_is_no_average(run, models, tmp_path, capsys):
    exp = copied(run, tmp_path, lambda entry: None)
    assert "neither averaged.pt nor a file epoch-N.pt" in page_of(exp).all("main")[0].text
    for number, content in ((2, b"no model"), (10, models["none"].read_bytes())):
        (exp / f"epoch-{number}.pt").write_bytes(content)
    page = page_of(exp)
    assert f"The model is {exp}/epoch-10.pt" in page.all("main")[0].text
    assert len(page.all("dd", class_="hypothesis")) == HARDEST
    (exp / "epoch-10.pt").write_bytes(b"no model")
    page = page_of(exp)
    assert "No cut was recognised: --model=" in page.all("main")[0].text
    assert not page.all("dd", class_="hypothesis") and page.all("audio")
    page = page_of(exp, "--model", str(models["gradual"]))
    assert len(page.all("dd", class_="hypothesis")) == HARDEST
    capsys.readouterr()
    words = ["report", "data", str(exp), "--model"]
    assert cli.main([*words, "nothing.pt"]) == 1
    assert "nothing.pt: there is no such file" in capsys.readouterr().err


def test_what_cannot_be_read_is_a_note(run, tmp_path, models):
    """Audio or features that are missing, damaged or without an entry do not stop the report."""
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(b"RIFF and nothing else")

    def edit(entry):
        number = [cut["id"] for cut in run.cuts[::-1]].index(entry["id"])
        if number == 0:
            entry["recording"]["sources"][0]["source"] = str(tmp_path / "missing.wav")
        elif number == 1:
            entry["recording"]["sources"][0]["source"] = str(damaged)
        elif number == 2:
            del entry["recording"]
        elif number == 3:
            del entry["features"]
        elif number == 4:
            entry["supervisions"][0].pop("recording_id")

    page = page_of(copied(run, tmp_path, edit), "--model", str(models["none"]))
    texts = [one.text for one in cells(page, "transcript")]
    assert "The audio cannot be read: no such file." in texts[0]
    assert "The audio cannot be read" in texts[1]
    assert "names no recording" in texts[2]
    assert "has no features" in texts[3]
    assert "is not one of lhotse" in texts[4]
    assert len(page.all("audio")) == HARDEST - 4
    assert len(page.all("dd", class_="hypothesis")) == HARDEST - 2
    assert [one.attributes["data-value"] for one in cells(page, "word errors")][3:5] == ["", ""]


def test_a_page_stays_small(run, monkeypatch):
    """With less room the quality is lower; with much less, the last cuts have no audio."""
    cuts = hard_cuts(run.cuts[:20])

    def size(room: int, everything: bool) -> int:
        clips = audio_clips.encode_clips(cuts, room)
        heard = [bool(clip.source) for clip in clips.values()]
        assert heard == sorted(heard, reverse=True) and heard[0]
        assert all(heard) == everything
        assert all(bool(one.source) != ("no room" in one.note) for one in clips.values())
        found = sum(len(clip.source) for clip in clips.values())
        assert found <= room
        return found

    best = size(10**9, True)
    lower = size(best, True)
    assert best > lower > size(lower // 2, False)
    monkeypatch.setattr(audio_clips, "LONGEST", 0.25)
    clip = audio_clips.encode_clips(hard_cuts(run.cuts[:1]), 100_000)[run.cuts[0]["id"]]
    assert "The first 0.25 seconds" in clip.note


def test_the_limit_counts_the_audio(run, tmp_path, monkeypatch):
    small = len(run.text.encode()) - 10_000
    monkeypatch.setattr(data_page, "MAX_BYTES", small)
    exp = copied(run, tmp_path, lambda entry: None)
    page = page_of(exp)
    assert (exp / "pruning" / "report.html").stat().st_size < small
    assert 0 < len(page.all("audio")) <= HARDEST


def hard_cuts(entries: list[dict]) -> list[HardCut]:
    return [HardCut(e["id"], 1.0, e["duration"], 1, "", "", "", e) for e in entries]


def test_wav_serves_where_libsndfile_writes_no_vorbis(monkeypatch):
    monkeypatch.setattr(audio_clips.soundfile, "available_subtypes", lambda _: {})
    samples = np.linspace(-2, 2, 16000, dtype=np.float32)
    source = audio_clips.encode(samples, 16000, 0.5)
    found = samples_of(SimpleNamespace(attributes={"src": source}))
    np.testing.assert_allclose(found, samples.clip(-1, 1), atol=1e-4)


def test_savings_are_those_of_the_plans(run):
    tiles = dict(
        zip(*([one.text for one in run.page.all(tag)] for tag in ("dt", "dd")), strict=True)
    )
    durations = np.array([cut["duration"] for cut in run.cuts])
    half = durations[len(durations) // 2 :].sum() / durations.sum()  # "hard": the later half
    trained = (2 + 3 * half) / 5  # of five cycles, the first and the last train on everything
    assert tiles["audio trained on"] == f"{100 * trained:.1f} %"
    assert tiles["audio saved"] == f"{100 * (1 - trained):.1f} %"
    assert tiles["ceiling of savings"] == "50.0 %"


def test_pages_of_other_runs(run, tmp_path):
    """Without cuts there is a note; --html false writes no page; nothing is written twice."""
    exp = copied(run, tmp_path, lambda entry: None)
    assert cli.main(["report", "data", str(exp), "--html", "false"]) == 0
    assert not (exp / "pruning" / "report.html").exists()
    assert cli.main(["report", "data", str(exp), "--hardest", "0"]) == 0
    page = Page((exp / "pruning" / "report.html").read_text())
    assert "No cut is listed" in page.all("main")[0].text and not page.all("input")
    assert cli.main(["report", "data", str(exp), "--hardest", "-1"]) == 1


def test_equal_pictures_are_equal_texts():
    def draw(axes):
        axes.plot([1, 2], [3, 4], label="<a> & $b$")
        axes.legend()

    first, second = inline_svg(draw, "one"), inline_svg(draw, "one")
    assert first == second and first.startswith("<svg") and "http" not in first
    assert "&lt;a&gt; &amp; $b$" in first and "currentColor" in first and "#0a0b" not in first


def test_chosen_cuts_are_left_out_of_the_next_training(run, tiny_corpus, tmp_path):
    """The ids of the page, one a line, are what ``validate --leave-out`` takes."""
    chosen = [one.attributes["data-value"] for one in cells(run.page, "cut")][1:4]
    file = tmp_path / "suspected_label_errors.txt"
    file.write_text("".join(f"{name}\n" for name in chosen))
    words = ["--corpus", "tones", "--manifest-dir", str(tiny_corpus.root / "fbank")]
    words += ["--train", "train", "--min-seconds", "0.1", "--out-dir", str(tmp_path / "valid")]
    assert cli.main(["validate", *words, "--leave-out", str(file), "--jobs", "1"]) == 0
    lines = read_lines(tmp_path / "valid" / "tones_cuts_train.jsonl.gz", "")
    left = {json.loads(line)["id"] for line in lines}
    assert not left & set(chosen) and len(left) == len(run.cuts) - 3
    rejected = (tmp_path / "valid" / "tones_rejected.tsv").read_text()
    assert rejected.count("left-out") == 3
