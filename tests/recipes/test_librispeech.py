"""LibriSpeech's ``run.sh``, whole, with stand-ins for asrprune and lhotse."""

import os
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ["asrprune rehearse", "lhotse prepare"] + 3 * ["asrprune fbank"]
STAGES += [f"asrprune {verb}" for verb in ("validate", "tokenizer", "train", "average")]
STAGES += ["asrprune decode", "asrprune score"]
RESULT = "%WER 4.56 [ 1 / 22, 1 ins, 0 del, 0 sub ] test-clean greedy_search"
REHEARSAL = ("--rehearsal", "true")


def add_utterance(corpus: Path, split: str, text: str = "SOME WORDS") -> Path:
    chapter = corpus / split / "10" / "20"
    chapter.mkdir(parents=True)
    (chapter / "10-20-0000.flac").write_bytes(b"fLaC")
    (chapter / "10-20.trans.txt").write_text(f"10-20-0000 {text}\n")
    return chapter


def test_a_rehearsal_runs_every_stage_and_a_rerun_none(librispeech):
    result = librispeech.run(*REHEARSAL)
    assert librispeech.commands() == STAGES
    assert result.stdout.splitlines()[-1] == RESULT
    began = time.monotonic()
    again = librispeech.run(*REHEARSAL)
    assert time.monotonic() - began < 2
    assert librispeech.commands() == []
    assert again.stdout == result.stdout
    made = {path.name for path in librispeech.folder.iterdir()}
    assert made == {"run.sh", "local", "conf", "rehearsal"}
    assert [path.name for path in (librispeech.folder / "rehearsal" / "exp").iterdir()] == [
        "rehearsal"
    ]


def test_a_rerun_starts_no_python(librispeech):
    librispeech.run(*REHEARSAL)
    for name in ("python", "python3", "asrprune", "lhotse"):
        fake = librispeech.root / ".venv" / "bin" / name
        fake.unlink(missing_ok=True)
        fake.write_text("#!/bin/sh\nexit 99\n")
        fake.chmod(0o755)
    assert librispeech.run(*REHEARSAL).stdout.splitlines()[-1] == RESULT


def test_killed_in_any_stage_the_same_command_ends_well(librispeech):
    for verb in ("rehearse", "prepare", "fbank", "train", "decode"):
        process = librispeech.start(*REHEARSAL, FAKE_HANG=verb)
        librispeech.wait_for_hang()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert librispeech.run(*REHEARSAL).stdout.splitlines()[-1] == RESULT
    assert not list(librispeech.folder.rglob("*.part"))


def test_another_split_leaves_the_features_of_the_others(librispeech):
    corpus = librispeech.folder / "download" / "LibriSpeech"
    for split in ("train-clean-5", "dev-clean-2", "test-clean"):
        add_utterance(corpus, split)
    librispeech.run("--mini", "true")
    assert "asrprune fbank" in librispeech.commands()
    result = librispeech.run("--mini", "true", "--test-splits", "test-clean")
    assert librispeech.commands().count("asrprune fbank") == 1
    assert result.stdout.splitlines()[-1] == RESULT
    assert (librispeech.folder / "exp" / "mini-conformer" / "averaged.pt").exists()
    assert (librispeech.folder / "data" / "mini" / "valid").exists()


def test_the_speed_of_development_and_test_sets_stays(librispeech):
    librispeech.run(*REHEARSAL, "--speed-perturb", "true", "--stop-stage", "features")
    lines = [line for line in librispeech.log.read_text().splitlines() if " fbank " in line]
    speeds = {line.split("--splits ")[1].split()[0]: "perturb true" in line for line in lines}
    assert speeds == {"train-clean-100": True, "dev-clean": False, "test-clean": False}


def test_keys_of_the_search_do_not_touch_the_training(librispeech):
    librispeech.run(*REHEARSAL)
    librispeech.commands()
    librispeech.run(*REHEARSAL, "decoding.beam_size=8")
    assert librispeech.commands() == STAGES[-2:]
    result = librispeech.run(*REHEARSAL, "decoding.beam_size=8", "training.epochs=9")
    assert librispeech.commands() == STAGES[-4:]
    assert "training.epochs=9'" in result.stderr


def test_each_search_has_its_own_results(librispeech):
    librispeech.run(*REHEARSAL)
    librispeech.commands()
    both = "greedy_search modified_beam_search"
    result = librispeech.run(*REHEARSAL, "--decoding-method", both)
    assert librispeech.commands() == STAGES[-2:]
    methods = [line.split()[-1] for line in result.stdout.splitlines()]
    assert methods == both.split()
    librispeech.run(*REHEARSAL)
    assert librispeech.commands() == []


def test_an_export_is_asked_for(librispeech):
    """Only with --stop-stage export; again when other networks are, or the search found others."""
    words = (*REHEARSAL, "--search-budgets", "5MB")
    librispeech.run(*words)
    assert "asrprune export" not in librispeech.commands()
    words = (*words, "--stop-stage", "export")
    librispeech.run(*words, "--export-networks", "whole 5MB")
    [line] = librispeech.log.read_text().splitlines()[-1:]
    folder = "rehearsal/exp/rehearsal"
    assert line == (
        f"asrprune export --model {folder}/averaged.pt --lang-dir rehearsal/data/lang_bpe_100 "
        "--manifest-dir rehearsal/data/valid --dev-sets dev-clean "
        f"--out-dir {folder}/onnx --networks whole 5MB --search {folder}/pareto.json"
    )
    librispeech.commands()
    librispeech.run(*words, "--export-networks", "whole 5MB")
    assert librispeech.commands() == []
    librispeech.run(*words)
    assert librispeech.log.read_text().splitlines()[-1].endswith("/onnx")  # no size is asked for
    assert librispeech.commands() == ["asrprune export"]
    words = (*words, "--export-networks", "0.5")
    librispeech.run(*words)
    librispeech.commands()
    librispeech.run(*words, "--search-generations", "9")
    assert librispeech.commands() == ["asrprune search", "asrprune export"]


def test_int8_is_compared_where_a_recipe_wants_it(librispeech):
    """Not without development sets; again when the loss that is allowed is another one."""
    words = (*REHEARSAL, "--stop-stage", "export")
    librispeech.run(*words, "--dev-splits", "")
    assert "--dev-sets" not in librispeech.log.read_text()
    librispeech.run(*words)
    assert librispeech.log.read_text().count("--dev-sets dev-clean ") == 1
    librispeech.commands()
    said = librispeech.run(*words, "--export-int8-loss", "5", code=2).stderr
    assert "--export-int8-loss 5: must be a share, 0 to 1" in said
    librispeech.run(*words, "--export-int8-loss", "0.05")
    [line] = librispeech.log.read_text().splitlines()[-1:]
    assert "asrprune export " in line and "--dev-sets dev-clean --int8-loss 0.05 " in line
    librispeech.commands()
    librispeech.run(*words, "--export-int8-loss", "1")
    [line] = librispeech.log.read_text().splitlines()[-1:]
    assert "asrprune export " in line and "--dev-sets" not in line
    librispeech.commands()
    librispeech.run(*words, "--export-int8-loss", "1")
    assert librispeech.commands() == []


def test_an_export_is_of_the_average(librispeech):
    """It runs again after another average, whatever was decoded since, and for that alone."""
    export = ("--stage", "export", "--stop-stage", "export")
    librispeech.run(*REHEARSAL, "--stop-stage", "export")
    librispeech.run(*REHEARSAL, "--epochs", "5", "--stage", "train", "--stop-stage", "average")
    librispeech.commands()
    librispeech.run(*REHEARSAL, "--epochs", "5", *export)
    assert librispeech.commands() == ["asrprune export"]
    words = (*REHEARSAL, "--epochs", "5", "decoding.blank_penalty=1", "--stop-stage", "export")
    librispeech.run(*words)
    assert librispeech.commands() == ["asrprune decode", "asrprune score"]


def test_a_search_runs_where_it_is_asked_for_and_alone(librispeech):
    librispeech.run(*REHEARSAL)
    librispeech.commands()
    words = (*REHEARSAL, "--search-budgets", "0.8 5MB")
    librispeech.run(*words, "--search-seconds", "60")
    line = librispeech.log.read_text().splitlines()[-1]
    assert (
        "--dev-set dev-clean --budgets 0.8 5MB --rerank 5 --max-seconds 60 --generations 30 "
        "--sample-wer 0" in line
    )
    [line] = [line for line in librispeech.log.read_text().splitlines() if "search --dry" in line]
    assert "--config conf/rehearsal.yaml" in line
    assert "--budgets 0.8 5MB --rerank 5 data.dev=[" in line
    assert librispeech.commands() == ["asrprune search"]
    librispeech.run(*words, "--search-sample-wer", "8")
    assert "--sample-wer 8 " in librispeech.log.read_text().splitlines()[-1]
    assert librispeech.commands() == ["asrprune search"]
    librispeech.run(*words)
    assert librispeech.commands() == ["asrprune search"]
    librispeech.run(*words, "--search-generations", "9")
    assert librispeech.commands() == ["asrprune search"]
    for more in ((), ("--stage", "search", "--stop-stage", "search"), ("--stage", "decode")):
        librispeech.run(*words, "--search-generations", "9", *more)
        librispeech.run(*REHEARSAL)
        assert librispeech.commands() == []
    librispeech.run(*words, "--search-generations", "9", "--avg", "1")
    assert librispeech.commands() == [
        f"asrprune {verb}" for verb in ("average", "search", "decode", "score")
    ]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--stage", "search"), "there is no stage 7 (search) without --search-budgets"),
        (("--stop-stage", "7"), "there is no stage 7 (search) without --search-budgets"),
        (("--search-budgets", "0.8", "--dev-splits", ""), "--dev-splits must name a set"),
    ],
)
def test_a_search_without_what_it_needs(words, message, librispeech):
    assert message in librispeech.run(*REHEARSAL, *words, code=2).stderr
    assert librispeech.commands() == []


def test_another_tag_shares_the_data(librispeech):
    librispeech.run(*REHEARSAL)
    librispeech.commands()
    librispeech.run(*REHEARSAL, "--tag", "other", "--epochs", "3")
    assert librispeech.commands() == STAGES[-4:]
    assert (librispeech.folder / "rehearsal" / "exp" / "other" / "epoch-3.pt").exists()


def test_two_trainings_share_the_data_at_the_same_time(librispeech):
    first = librispeech.start(*REHEARSAL, FAKE_HANG="train")
    librispeech.wait_for_hang()
    librispeech.run(*REHEARSAL, "--tag", "other")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_a_dry_run_prints_every_command_and_runs_none(librispeech):
    for words in ([], ["--rehearsal", "true"], ["--mini", "true"], ["--musan", "true"]):
        result = librispeech.run("--dry-run", "true", *words)
        for command in STAGES[1:]:
            assert f"\n{command} " in result.stdout
        assert librispeech.commands() == []
        assert result.stdout.splitlines()[-1].endswith(".yaml: ok")
    assert not (librispeech.folder / "exp").exists()


def test_noise_is_mixed_in_only_where_asked_for(librispeech):
    plain = librispeech.run("--dry-run", "true").stdout
    noisy = librispeech.run("--dry-run", "true", "--musan", "true").stdout
    assert "musan" not in plain
    assert "data.noise.cuts=data/fbank/musan_cuts.jsonl.gz" in noisy
    assert noisy.count("--corpus musan") == 1


def test_a_training_with_noise_leaves_the_data_of_the_others(librispeech):
    librispeech.run(*REHEARSAL)
    librispeech.commands()
    for kind in ("music", "speech", "noise"):
        (librispeech.folder / "rehearsal" / "download" / "musan" / kind).mkdir(parents=True)
    # the stand-in prepares no musan, so this ends there
    errors = librispeech.run(*REHEARSAL, "--musan", "true", "--tag", "noisy", code=2).stderr
    assert "error: lhotse ended and made nothing: + lhotse prepare musan" in errors
    assert "stage 2 (features, musan) failed" in errors
    assert librispeech.commands() == ["lhotse prepare"]
    librispeech.run(*REHEARSAL)
    assert librispeech.commands() == []


def test_a_missing_corpus_is_named_with_the_ways_out(librispeech):
    result = librispeech.run("--mini", "true", "--stage", "manifests", code=1)
    assert "download/LibriSpeech/train-clean-5" in result.stderr
    for way in ("ln -s ", "./run.sh --stage download", "--train-splits"):
        assert way in result.stderr
    assert "stage 1 (manifests) failed" in result.stderr
    assert librispeech.commands() == []


def test_a_linked_copy_of_the_corpus_is_taken_as_it_is(librispeech, tmp_path):
    copy = tmp_path / "copy"
    for split in ("train-clean-5", "dev-clean-2"):
        add_utterance(copy, split)
    before = sorted(copy.rglob("*"))
    (librispeech.folder / "download").mkdir()
    (librispeech.folder / "download" / "LibriSpeech").symlink_to(copy)
    librispeech.run("--mini", "true")
    assert sorted(copy.rglob("*")) == before


def test_a_missing_configuration_is_found_at_once(librispeech):
    result = librispeech.run("--config", "conf/conformr.yaml", code=2)
    assert "conf/conformr.yaml does not exist; there are: conf/conformer.yaml" in result.stderr
