"""The recipe for any corpus: its rehearsal, its ways in, and what they say is wrong."""

import time
from pathlib import Path

import pytest

from tests.data.conftest import write_audio

ROOT = Path(__file__).parents[2]
REHEARSAL = ("--rehearsal", "true")
VERBS = ["manifests", "fbank", "fbank", "fbank", "validate", "tokenizer", "train", "average"]
STAGES = [f"asrprune {verb}" for verb in (*VERBS, "decode", "score")]
RESULT = "%WER 4.56 [ 1 / 22, 1 ins, 0 del, 0 sub ] test greedy_search"
KALDI = ("wav.scp", "text", "utt2spk")


def logged(recipe, verb: str) -> list[str]:
    """The command lines of a verb."""
    return [line for line in recipe.log.read_text().splitlines() if line.startswith(verb)]


@pytest.fixture
def corpus(template) -> Path:
    """Tables, cuts and data directories beside the recipe; what is in them does not matter."""
    folder = template.root / "my"
    for split in ("train", "dev", "test"):
        (folder / split).mkdir(parents=True)
        for name in KALDI:
            (folder / split / name).write_text("a b\n")
        (folder / f"{split}.tsv").write_text("path\ttext\na.wav\tone\n")
        (folder / f"{split}.jsonl.gz").write_bytes(b"\x1f\x8b\x00\x00")
    return folder


def words(corpus: Path, suffix: str = ".tsv", splits=("train", "dev", "test")) -> str:
    return " ".join(f"{split}={corpus / split}{suffix}" for split in splits)


def test_a_rehearsal_runs_every_stage_and_a_rerun_none(template):
    result = template.run(*REHEARSAL)
    [manifests] = logged(template, "asrprune manifests")
    assert "--from tables" in manifests and "train=rehearsal/download/train.tsv" in manifests
    assert template.commands() == ["asrprune rehearse", *STAGES]
    assert result.stdout.splitlines()[-1] == RESULT
    began = time.monotonic()
    template.run(*REHEARSAL)
    assert time.monotonic() - began < 2
    assert template.commands() == []
    made = {path.name for path in template.folder.iterdir()}
    assert made == {"run.sh", "local", "conf", "rehearsal"}


@pytest.mark.parametrize("way, suffix", [("tables", ".tsv"), ("kaldi", ""), ("cuts", ".jsonl.gz")])
def test_a_way_in_begins_with_the_manifests(way, suffix, template, corpus):
    given = words(corpus, suffix)
    result = template.run(f"--{way}", given)
    [line] = logged(template, "asrprune manifests")
    assert f"--from {way} --corpus mycorpus --out-dir data/manifests" in line
    assert all(word in line.split() for word in given.split())
    assert ("--ignore-features false" in line) == (way == "cuts")
    assert template.commands() == STAGES
    assert result.stdout.splitlines()[-1] == RESULT
    template.run(f"--{way}", given)
    assert template.commands() == []


def test_what_nobody_sees_is_an_option(template, corpus):
    given = ("--tables", words(corpus))
    template.run(*given)
    assert "--invisible-characters strip " in logged(template, "asrprune manifests")[-1]
    again = template.run(*given, "--invisible-characters", "strip-all")
    assert "--invisible-characters was 'strip', is 'strip-all'" in again.stderr
    assert "--invisible-characters strip-all " in logged(template, "asrprune manifests")[-1]


@pytest.mark.parametrize(
    "way, suffix, edited",
    [
        ("tables", ".tsv", "dev.tsv"),
        ("kaldi", "", "test/text"),
        ("kaldi", "", "test/segments"),
        ("cuts", ".jsonl.gz", "train.jsonl.gz"),
    ],
)
def test_what_was_edited_is_read_again(way, suffix, edited, template, corpus):
    template.run(f"--{way}", words(corpus, suffix))
    template.commands()
    with open(corpus / edited, "ab") as file:
        file.write(b"\x00 more\n")
    result = template.run(f"--{way}", words(corpus, suffix))
    assert template.commands() == STAGES
    assert f"runs again: {corpus / edited} was edited" in result.stderr


def test_names_say_what_a_split_is_for(template, corpus):
    for name in ("train-b", "valid", "other"):
        (corpus / f"{name}.tsv").touch()
    splits = ("train", "train-b", "valid", "test", "other")
    template.run("--tables", words(corpus, splits=splits), "--stop-stage", "train")
    [validate] = logged(template, "asrprune validate")
    assert "--train train train-b --eval valid test other " in validate
    assert "data.dev=[valid]" in logged(template, "asrprune train")[-1]
    template.commands()
    options = ("--train-splits", "train", "--dev-splits", "other", "--test-splits", "test")
    template.run("--tables", words(corpus, splits=splits), "--stop-stage", "validate", *options)
    [manifests] = logged(template, "asrprune manifests")
    assert "valid=" not in manifests
    assert "--train train --eval other test " in logged(template, "asrprune validate")[-1]


def test_no_development_set_is_needed(template, corpus):
    template.run("--tables", words(corpus, splits=("train", "test")))
    assert "data.dev=[]" in logged(template, "asrprune train")[-1]


def test_lhotse_prepares_and_its_parts_become_splits(template):
    lhotse = "librispeech --num-jobs 2 --dataset-parts=train-clean-5 /my/LibriSpeech"
    options = ("--train-splits", "train-clean-5", "--test-splits", "dev-clean-2")
    template.run("--lhotse", lhotse, *options, "--dev-splits", "")
    assert logged(template, "lhotse") == [f"lhotse prepare {lhotse} data/lhotse/.part"]
    [manifests] = logged(template, "asrprune manifests")
    assert manifests.endswith("train-clean-5=data/lhotse dev-clean-2=data/lhotse")
    assert "asrprune rehearse" not in template.commands()


def test_what_lhotse_made_of_another_corpus_is_removed(template):
    def run(corpus: str) -> set[str]:
        words = (f"{corpus} --dataset-parts=train --dataset-parts=test", "--dev-splits", "")
        template.run("--lhotse", *words, "--stop-stage", "manifests")
        return {path.name.split("_")[0] for path in (template.folder / "data/lhotse").iterdir()}

    assert run("one") == {"one"}
    assert run("two") == {"two"}


def test_prepare_py_reads_the_tables_in_download(template):
    download = template.folder / "download"
    for split in ("train", "dev", "test"):
        write_audio(download / "wav" / f"{split}.wav", 1.0, 8000)
        (download / f"{split}.tsv").write_text(f"path\ttext\nwav/{split}.wav\tone\n")
    template.run()
    assert template.commands() == STAGES[1:]
    for split in ("train", "dev", "test"):
        assert (template.folder / f"data/manifests/mycorpus_recordings_{split}.jsonl.gz").exists()
    script = template.folder / "local" / "prepare.py"
    script.write_text(
        script.read_text().replace("yield from read_rows", 'yield {"path": "x"}\n    ')
    )
    errors = template.run(code=1).stderr
    assert "local/prepare.py was edited" in errors
    assert "prepare.py: error: prepare.py: train, row 1: there is no column 'text'" in errors
    assert "stage 1 (manifests) failed" in errors


def test_what_prepare_py_leaves_out_is_listed(template):
    download = template.folder / "download"
    write_audio(download / "one.wav", 1.0, 8000)
    for split in ("train", "dev", "test"):
        rows = ["path\ttext\tleft_out", "one.wav\tone\t", "gone.wav\ttwo\tnoise"]
        (download / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    errors = template.run("--stop-stage", "manifests").stderr
    assert "dev: 1 of 2 utterances left out (noise: 1); if it is a test set" in errors
    listed = (template.folder / "data/manifests/mycorpus_left_out_test.tsv").read_text()
    assert listed.splitlines()[1:] == ["gone\tprepare.py: test, row 2\tnoise\ttwo"]
    (download / "train.tsv").write_text("path\ttext\tleft_out\none.wav\tone\tnoise\n")
    errors = template.run("--stop-stage", "manifests", code=1).stderr
    assert "train: no utterance is left of 1 (noise: 1)" in errors


def test_without_a_corpus_the_ways_in_are_named(template):
    errors = template.run(code=2).stderr
    assert "download does not exist. Put the corpus there" in errors
    for way in ("ln -s /my/corpus", "local/prepare.py", "--tables, --kaldi, --cuts or --lhotse"):
        assert way in errors
    assert template.commands() == []


def test_limits_of_utterances_go_to_the_validation(template):
    options = (*REHEARSAL, "--min-seconds", "0.1", "--max-seconds", "20")
    template.run(*options, "--stop-stage", "validate")
    assert "--min-seconds 0.1 --max-seconds 20" in logged(template, "asrprune validate")[-1]
    template.commands()
    template.run(*REHEARSAL, "--max-seconds", "20", "--stop-stage", "validate")
    assert template.commands() == ["asrprune validate"]


@pytest.mark.parametrize(
    "options, message",
    [
        (("--tables", "train=a test=b", "--cuts", "train=c"), "--tables and --cuts: there is one"),
        (("--kaldi", "train=a", *REHEARSAL), "--kaldi: a rehearsal makes a corpus of its own"),
        (("--tables", "train=a", "--ignore-features", "true"), "--ignore-features: only --cuts"),
        (("--lhotse", "a b", "--audio-dir", "c"), "--audio-dir: lhotse knows where its audio is"),
        ((*REHEARSAL, "--audio-dir", "c"), "--audio-dir: a rehearsal knows where its audio is"),
        (("--kaldi", "data/train"), "--kaldi: 'data/train' is no SPLIT=PATH"),
        (("--kaldi", "train="), "'train=' is no SPLIT=PATH"),
        (("--kaldi", "a/b=c"), "'a/b=c' is no SPLIT=PATH"),
        (("--kaldi", "train=a train=b"), "--kaldi: train comes twice"),
        (("--kaldi", "train=a dev=b"), "there must be something to train on and something to test"),
        (("--kaldi", "test=a"), "there must be something to train on"),
        (("--test-splits", " "), "there must be something to train on"),
        (
            ("--kaldi", "train=a test-a=b", "--test-splits", "test_a"),
            "--kaldi names no test_a (did you mean 'test-a'?); it names:",
        ),
    ],
)
def test_a_way_in_that_is_none(options, message, template):
    assert message in template.run(*options, code=2).stderr
    assert template.commands() == []


@pytest.mark.parametrize("way, suffix", [("tables", ".tsv"), ("kaldi", ""), ("cuts", ".jsonl.gz")])
def test_a_space_in_a_path_is_named(way, suffix, template, corpus):
    spaced = corpus.with_name("my own  corpus")
    corpus.rename(spaced)
    errors = template.run(f"--{way}", words(spaced, suffix), code=2).stderr
    assert "is no SPLIT=PATH, such as train=/my/train (a path with a space needs a link" in errors
    spaced.rename(corpus.with_name("my own corpus"))
    spaced = corpus.with_name("my own corpus")
    errors = template.run(f"--{way}", words(spaced, suffix), code=2).stderr
    assert f"--{way}: spaces part its words, and there is one in '{spaced}/train{suffix}'" in errors
    assert "ln -s" in errors
    (corpus.with_name("link")).symlink_to(spaced)
    template.run(f"--{way}", words(corpus.with_name("link"), suffix))
    assert template.commands() == STAGES


def test_a_space_in_the_words_of_lhotse_is_named(template, corpus):
    spaced = corpus.with_name("my own corpus")
    corpus.rename(spaced)
    for given in (f"librispeech -j 2 {spaced}", f"some --folder={spaced} /my/corpus"):
        errors = template.run("--lhotse", given, code=2).stderr
        assert f"--lhotse: spaces part its words, and there is one in '{spaced}'" in errors
    assert template.commands() == []


def test_a_missing_table_is_named(template, corpus):
    (corpus / "dev.tsv").unlink()
    errors = template.run("--tables", words(corpus), code=2).stderr
    assert f"stage 1 (manifests) needs {corpus / 'dev.tsv'}, which does not exist" in errors
