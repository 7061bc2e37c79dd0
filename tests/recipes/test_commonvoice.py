"""CommonVoice's ``run.sh`` and its scripts: releases, tables, clips, and what may be wrong."""

import gzip
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest, validate_recordings_and_supervisions

from asrprune.data_pruning.index import CutIndex

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "commonvoice" / "ASR"
RELEASE = "cv-corpus-21.0-2025-03-14"
TABLES = ("train", "dev", "test")
COLUMNS = (  # of the releases since 2024
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
)
OLD_COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
SENTENCES = {"en": "One, two.", "fr": "L’été !", "nl": "'s Avonds", "it": "Sì, due"}
RATE = 32000


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    """Half a second of noise as mp3."""
    path = tmp_path_factory.mktemp("clip") / "a.mp3"
    noise = np.random.default_rng(0).normal(0, 0.1, RATE // 2)
    soundfile.write(path, noise, RATE, format="MP3")
    return path.read_bytes()


def table(rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> str:
    lines = ["\t".join(row.get(column, "") for column in columns) for row in rows]
    return "\n".join(["\t".join(columns), *lines]) + "\n"


@pytest.fixture
def add_language(tmp_path, clip) -> Callable[..., Path]:
    """A function that writes a language of a release: three clips a table."""

    def add(
        language: str, release: str = RELEASE, columns: tuple[str, ...] = COLUMNS, clips: int = 3
    ) -> Path:
        folder = tmp_path / "download" / release / language
        (folder / "clips").mkdir(parents=True)
        for name in TABLES:
            rows = []
            for k in range(clips):
                path = f"common_voice_{language}_{name}{k}.mp3"
                (folder / "clips" / path).write_bytes(clip)
                rows.append(
                    {
                        "client_id": f"{name}-speaker",
                        "path": path,
                        "sentence": SENTENCES[language],
                        "age": "twenties",
                        "accent": "old",
                        "accents": "new",
                        "gender": "female_feminine",
                        "locale": language,
                    }
                )
            (folder / f"{name}.tsv").write_text(table(rows, columns))
        return folder

    return add


def run(commonvoice, *words: str, code: int = 0) -> subprocess.CompletedProcess:
    folders = ("--download-dir", str(commonvoice.root / "download"))
    return commonvoice.run(*folders, "--jobs", "1", *words, code=code, PYTHONPATH=str(ROOT))


def splits(commonvoice) -> list[str]:
    """The splits whose features were computed since the last look at the log."""
    lines = commonvoice.log.read_text().splitlines()
    commonvoice.log.write_text("")
    return [line.split("--splits ")[1].split()[0] for line in lines if " fbank " in line]


def test_each_language_has_its_sets_and_a_rerun_runs_nothing(commonvoice, add_language):
    add_language("en"), add_language("fr")
    out = run(commonvoice, "--langs", "en fr").stdout
    log = commonvoice.log.read_text()
    assert splits(commonvoice) == [f"{name}-{lang}" for name in TABLES for lang in ("en", "fr")]
    assert "--train train-en train-fr --eval dev-en dev-fr test-en test-fr" in log
    checked = "--max-unknown 0 --allow-rejected 0 --others data/valid/commonvoice_cuts_dev-en.jsonl"
    assert f"--balance 0.5 {checked}" in log
    assert "data.dev=[dev-en,dev-fr]" in log
    assert "--test-sets test-en test-fr --decoding-method greedy_search --streaming true" in log
    # of the dense model, of pathways with given languages, and with chosen languages
    assert [line.split()[-2] for line in out.splitlines()] == 3 * ["test-en", "test-fr"]
    assert "stage 1 (manifests, fr) is done" in run(commonvoice, "--langs", "en fr").stderr
    assert commonvoice.commands() == []


MODEL = ["train", "average", "decode", "score"]
PATHWAYS = [*MODEL, "report"]


def test_each_pathway_is_exported(commonvoice, add_language):
    add_language("en")
    words = ("--langs", "en", "--stop-stage", "export", "--export-networks")
    run(commonvoice, *words, "en")
    exports = [line for line in commonvoice.log.read_text().splitlines() if " export " in line]
    model = "asrprune export --model exp/emformer_streaming{0}/averaged.pt --lang-dir "
    model += "data/lang_bpe_1000 --manifest-dir data/valid --dev-sets dev-en "
    model += "--out-dir exp/emformer_streaming{0}/onnx --networks {1}"
    assert exports == [model.format("", "whole"), model.format("-pathways", "en")]
    commonvoice.commands()
    run(commonvoice, *words, "0.5")
    assert commonvoice.commands() == ["asrprune export"]
    run(commonvoice, *words, "0.5", "--pathways-config", "")
    [line] = commonvoice.log.read_text().splitlines()[-1:]
    assert line == model.format("", "0.5")


def test_pathways_go_on_from_the_dense_model(commonvoice, add_language):
    add_language("en")
    words = ("--langs", "en", "training.optimizer.lr=1e-3")
    run(commonvoice, *words)
    trained = [line for line in commonvoice.log.read_text().splitlines() if " train " in line]
    checks, (dense, pathways) = trained[:2], trained[2:]
    assert ["--dry-run" in line for line in trained] == [True, True, False, False]
    assert {line.split("--config ")[1].split()[0] for line in checks} == {
        "conf/emformer_streaming.yaml",
        "conf/pathways.yaml",
    }
    assert "--exp-dir exp/emformer_streaming " in dense and "init_from" not in dense
    assert "--config conf/pathways.yaml --exp-dir exp/emformer_streaming-pathways " in pathways
    assert "training.init_from=exp/emformer_streaming/averaged.pt" in pathways
    assert all("training.optimizer.lr=1e-3" in line for line in trained)
    reported = "asrprune report pathways exp/emformer_streaming-pathways --manifest-dir data/valid"
    assert commonvoice.log.read_text().splitlines()[-1] == reported
    assert commonvoice.commands()[-9:] == [f"asrprune {verb}" for verb in [*MODEL, *PATHWAYS]]
    run(commonvoice, *words)
    assert commonvoice.commands() == []
    # what changes the dense model asks for other pathways, and not the other way round
    told = run(commonvoice, *words, "--use-averaged-model", "false", code=1).stderr
    assert "stage 5 (train, pathways) runs again: stage 6 (average) has run with other" in told
    for other in (("--use-averaged-model", "false"), ("--epochs", "3")):
        told = run(commonvoice, *words, *other, code=1).stderr
        assert "exp/emformer_streaming-pathways began with another model" in told
        assert commonvoice.commands()[-1] == "asrprune train"
    words = (*words, "--use-averaged-model", "false", "--pathways-tag", "last")
    run(commonvoice, *words)
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in [*MODEL, *PATHWAYS]]
    words = (*words, "--pathways-epochs", "9")
    run(commonvoice, *words)
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in PATHWAYS]
    run(commonvoice, *words, "--decoding-method", "modified_beam_search")
    assert commonvoice.commands()[-1] == "asrprune report"
    # the dense model has no pathways to choose from: it is not decoded again
    run(commonvoice, *words)
    commonvoice.commands()
    own = ["decoding.language=auto", "decoding.blank_penalty=0"]
    run(commonvoice, *words, own[0])
    (line,) = [line for line in commonvoice.log.read_text().splitlines() if " decode " in line]
    assert line.endswith(own[0]) and "--exp-dir exp/emformer_streaming-last " in line
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in ("decode", "score", "report")]
    # nor are options of masks any of its own
    masks = "weight_pruning.pathways.grad=all"
    run(commonvoice, *words, "--pathways-tag", "all", masks)
    lines = [line for line in commonvoice.log.read_text().splitlines() if " train " in line]
    pathways, dense, train = lines
    assert "conf/pathways.yaml" in pathways and pathways.count(masks) == 1
    assert "conf/emformer_streaming.yaml" in dense and "init_from" not in dense
    assert masks not in dense
    assert train.count(masks) == 1 and "--exp-dir exp/emformer_streaming-all " in train
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in PATHWAYS]
    run(commonvoice, *words, "--pathways-config", "", "--tag", "given", *own)
    (line,) = [line for line in commonvoice.log.read_text().splitlines() if " decode " in line]
    assert own[0] in line and own[1] in line
    commonvoice.commands()
    alone = run(commonvoice, *words, "--pathways-config", "", "--tag", "alone")
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in MODEL]
    assert len(alone.stdout.splitlines()) == 1
    message = "conf/nothing.yaml does not exist; there are: conf/"
    told = run(commonvoice, *words, "--pathways-config", "conf/nothing.yaml", "--tag", "b", code=2)
    assert message in told.stderr and commonvoice.commands() == []


CHOSEN = ["learn-languages", "decode", "score"]


def test_languages_are_chosen_as_well_as_given(commonvoice, add_language):
    add_language("en"), add_language("fr")
    words = ("--langs", "en fr")
    run(commonvoice, *words)
    learn, decode, score = commonvoice.log.read_text().splitlines()[-4:-1]
    exp = "exp/emformer_streaming-pathways"
    assert learn == (
        "asrprune learn-languages --corpus commonvoice --manifest-dir data/valid --dev-sets dev-en "
        f"dev-fr --steps 600 --output {exp}/languages.pt"
    )
    assert f"--exp-dir {exp}/language_chosen --model {exp}/averaged.pt " in decode
    assert decode.endswith(
        f" decoding.language=auto decoding.language_classifier={exp}/languages.pt"
    )
    assert f"--exp-dir {exp}/language_chosen " in score and score.endswith(f" --against {exp}")
    verbs = [*MODEL, *MODEL, *CHOSEN, "report"]
    assert commonvoice.commands()[-len(verbs) :] == [f"asrprune {verb}" for verb in verbs]
    # other results of the dense model, or of given languages, leave the classifier as it is
    run(commonvoice, *words)
    assert commonvoice.commands() == []
    run(commonvoice, *words, "--language-steps", "20")
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in CHOSEN]
    words = (*words, "--language-steps", "20")
    run(commonvoice, *words, "decoding.blank_penalty=1")
    verbs = ["decode", "score", "decode", "score", *CHOSEN[1:], "report"]
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in verbs]
    words = (*words, "decoding.blank_penalty=1")
    run(commonvoice, *words, "decoding.language_seconds=2")
    assert "decoding.language_seconds=2" in commonvoice.log.read_text().splitlines()[-3]
    commonvoice.commands()
    # who says how languages are chosen has that alone
    for word in ("decoding.language=auto", "decoding.language_classifier=mine.pt"):
        run(commonvoice, *words, word)
        assert commonvoice.commands() == [f"asrprune {v}" for v in ("decode", "score", "report")]
    run(commonvoice, *words, "--pathways-tag", "given", "--language-steps", "0")
    assert commonvoice.commands() == [f"asrprune {verb}" for verb in PATHWAYS]


def averages(commonvoice, *words: str) -> list[str]:
    """What is averaged of each training."""
    shown = run(commonvoice, "--dry-run", "true", "--langs", "en", *words).stdout
    lines = [line for line in shown.splitlines() if line.startswith("asrprune average ")]
    return [line.split("--epoch ")[1].split(" --use")[0] for line in lines]


def test_each_training_averages_epochs_of_its_own(commonvoice):
    rehearsal = ("--rehearsal", "true", "--pathways-config", "conf/pathways.yaml")
    assert averages(commonvoice, *rehearsal) == ["0 --avg 2", "0 --avg 2"]
    assert averages(commonvoice, *rehearsal, "--pathways-epochs", "1") == ["0 --avg 2", "0 --avg 1"]
    assert averages(commonvoice, *rehearsal, "--epochs", "1") == ["0 --avg 1", "0 --avg 2"]
    assert averages(commonvoice, *rehearsal, "training.epochs=1") == ["0 --avg 1", "0 --avg 1"]
    assert averages(commonvoice, "--avg", "3", "--epoch", "7") == ["7 --avg 3", "0 --avg 3"]
    alone = ("--pathways-config", "", "--pathways-epochs", "1", "--avg", "3")
    assert averages(commonvoice, *alone) == ["0 --avg 3"]


def test_what_is_checked_before_is_what_is_trained(commonvoice, add_language):
    add_language("en")
    masks = "weight_pruning.pathways.masks=exp/half.pt"
    run(commonvoice, "--langs", "en", "--pathways-epochs", "2", "--start-epoch", "1", masks)
    lines = [line for line in commonvoice.log.read_text().splitlines() if " train " in line]
    *checks, dense, pathways = [line.replace(" --dry-run true", "") for line in lines]
    assert checks == [pathways, dense]
    assert "--start-epoch 1 " in dense and "--start-epoch 0 " in pathways


def test_options_that_contradict_each_other_are_found_before_hours():
    done = real("--dry-run", "true", "--pathways-epochs", "2", "training.epochs=3", code=1)
    assert "--epochs and training.epochs= say the same" in done.stderr


def test_a_further_language_leaves_the_features_of_the_others(commonvoice, add_language):
    add_language("en"), add_language("fr")
    run(commonvoice, "--langs", "en")
    commonvoice.commands()
    result = run(commonvoice, "--langs", "en fr")
    assert splits(commonvoice) == ["train-fr", "dev-fr", "test-fr"]
    assert "stage 1 (manifests, en) is done" in result.stderr
    assert "stage 3 (validate) runs again" in result.stderr
    run(commonvoice, "--langs", "en fr", "--bad-audio", "skip", "--stop-stage", "features")
    assert len(splits(commonvoice)) == 6


def test_an_edited_alphabet_makes_the_manifests_again(commonvoice, add_language):
    add_language("en")
    run(commonvoice, "--langs", "en", "--stop-stage", "manifests")
    file = commonvoice.folder / "local" / "alphabets.py"
    file.write_text(file.read_text().replace('"en": LATIN', '"en": LATIN + "é"'))
    result = run(commonvoice, "--langs", "en", "--stop-stage", "manifests")
    assert "(manifests, en) runs again: local/alphabets.py was edited" in result.stderr


def test_other_tables_can_be_trained_on(commonvoice, add_language):
    """The clips of validated.tsv that are tested on are left out in stage 3 (validate)."""
    folder = add_language("en")
    shutil.copy(folder / "train.tsv", folder / "validated.tsv")
    run(commonvoice, "--langs", "en", "--train-splits", "validated-en", "--stop-stage", "features")
    assert splits(commonvoice) == ["validated-en", "dev-en", "test-en"]


def test_a_dry_run_of_a_rehearsal_shows_every_command():
    out = real("--dry-run", "true", "--rehearsal", "true").stdout
    for lang in ("en", "fr", "it", "nl"):
        where = "--layout commonvoice --out-dir rehearsal/download"
        assert f"asrprune rehearse {where} --languages {lang} --train-hours 0.5 " in out
        assert f"--language {lang} --tables train dev test " in out
    for command in ("asrprune fbank", "asrprune tokenizer", "asrprune decode", "asrprune report"):
        assert f"\n{command} " in out
    assert "conf/rehearsal_pathways.yaml: ok, " in out and "conf/rehearsal.yaml: ok, " in out


def real(*words: str, code: int = 0) -> subprocess.CompletedProcess:
    """Run the recipe itself."""
    done = subprocess.run(
        [RECIPE / "run.sh", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


def test_a_dry_run_loads_the_configuration():
    out = real("--dry-run", "true", "--langs", "sv-SE de", "--epochs", "3").stdout
    assert "--train train-sv-SE train-de" in out
    assert "conf/emformer_streaming.yaml: ok, " in out.splitlines()[-1]


# --- releases -------------------------------------------------------------------------------------


def taken(commonvoice, *words: str) -> str:
    """The release that a run takes."""
    shown = run(commonvoice, "--dry-run", "true", "--langs", "en", *words).stdout
    [line] = [line for line in shown.splitlines() if "check_corpus.py" in line]
    return Path(line.split()[2].strip("'")).name


def test_the_newest_release_is_taken_unless_one_is_named(commonvoice):
    download = commonvoice.root / "download"
    for name in ("cv-corpus-9.0-2022-04-27", RELEASE, "cv-corpus-5.1-2020-06-22"):
        (download / name).mkdir(parents=True)
    (download / "cv-corpus-22.0-delta-2025-06-20").mkdir()
    assert taken(commonvoice) == RELEASE
    assert taken(commonvoice, "--release", "cv-corpus-5.1-2020-06-22") == "cv-corpus-5.1-2020-06-22"
    (download / "cv-corpus-21.0-2025-03-15").mkdir()
    error = run(commonvoice, "--langs", "en", code=2).stderr
    assert f"holds {RELEASE} and cv-corpus-21.0-2025-03-15: choose one with --release" in error


def test_releases_of_other_names_are_taken_only_alone(commonvoice):
    download = commonvoice.root / "download"
    (download / "cv-corpus-mine").mkdir(parents=True)
    assert taken(commonvoice) == "cv-corpus-mine"
    (download / "cv-corpus-yours").mkdir()
    error = run(commonvoice, "--langs", "en", code=2).stderr
    assert "cv-corpus-mine cv-corpus-yours, and none is named" in error and "--release" in error


def test_a_corpus_that_is_not_there(commonvoice, add_language):
    error = run(commonvoice, "--langs", "en", code=1).stderr
    assert "https://commonvoice.mozilla.org/datasets" in error and "ln -s " in error
    add_language("fr"), add_language("en", "cv-corpus-9.0-2022-04-27")
    error = run(commonvoice, "--langs", "en", code=1).stderr
    assert f"{RELEASE} has no language 'en'; there are: fr. It is in cv-corpus-9.0" in error
    error = run(commonvoice, "--langs", "pl", code=1).stderr
    assert "has no language 'pl'" in error and "leave the language out of --langs" in error


@pytest.mark.parametrize(
    "words, message",
    [
        (("--langs", ""), "--langs names no language"),
        (("--train-splits", "train-de"), "'train-de' is no split of --langs 'en fr'"),
        (("--test-splits", "test"), "'test' is no split"),
        (("--train-splits", "train-en", "--dev-splits", "dev-en", "--test-splits", "test-en"),
         "fr has no split"),
        (("--train-splits", "train-en"), "fr has no split in --train-splits, and pathways are of"),
        (("--pathways-epochs", "2", "--avg", "3"),
         "--avg 3: more epochs than --pathways-epochs=2 trains; lower --avg or raise --pathways-e"),
        (("--epochs", "1", "--avg", "3"), "--avg 3: more epochs than --epochs=1 trains"),
        (("training.epochs=1", "--avg", "3"), "more epochs than training.epochs=1 trains"),
    ],
)  # fmt: skip
def test_languages_and_splits_that_do_not_fit(words, message, commonvoice):
    assert message in run(commonvoice, "--langs", "en fr", *words, code=2).stderr


def test_a_language_whose_code_ends_in_another_one(commonvoice):
    error = run(
        commonvoice, "--langs", "tw nan-tw", "--train-splits", "train-nan-tw", code=2
    ).stderr
    assert "--langs: tw has no split in --train-splits, and pathways are of" in error


# --- tables ---------------------------------------------------------------------------------------


def spoil_no_data(folder: Path) -> str:
    (folder / "dev.tsv").write_text(table([]))
    return (
        "en/dev.tsv has no utterance: en has no data for the split dev-en. Leave the language out"
    )


def spoil_missing_table(folder: Path) -> str:
    (folder / "test.tsv").unlink()
    return "en/test.tsv does not exist: unpack the language again"


def spoil_missing_column(folder: Path) -> str:
    text = (folder / "train.tsv").read_text()
    (folder / "train.tsv").write_text(text.replace("\tsentence\t", "\ttext\t"))
    return "en/train.tsv, line 1: there is no column 'sentence'; there are: client_id, path"


def spoil_empty_table(folder: Path) -> str:
    (folder / "train.tsv").write_text("")
    return "en/train.tsv is empty"


def spoil_short_line(folder: Path) -> str:
    with open(folder / "train.tsv", "a") as file:
        file.write("me\tcommon_voice_en_9.mp3\n")
    return "en/train.tsv, line 5: 2 fields, where the first line has 13"


def spoil_lines(folder: Path) -> str:
    """Both are found before any clip is opened."""
    with open(folder / "test.tsv", "a") as file:
        file.write("me\n\n")
        file.write((folder / "test.tsv").read_text().splitlines()[2] + "\n")
    return (
        "en/test.tsv, line 5: 1 fields, where the first line has 13: mend the line or delete it ("
    )


def spoil_duplicate(folder: Path) -> str:
    lines = (folder / "dev.tsv").read_text().splitlines(keepends=True)
    (folder / "dev.tsv").write_text("".join([*lines, lines[2]]))
    return "en/dev.tsv, line 5: common_voice_en_dev1.mp3 is the clip of line 3 too: delete one of"


def spoil_one_name(folder: Path) -> str:
    """Two files whose id would be one."""
    shutil.copy(folder / "clips" / "common_voice_en_dev0.mp3", folder / "clips" / "x.wav")
    (folder / "clips" / "x.wav").rename(folder / "clips" / "common_voice_en_dev1.wav")
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace("en_dev0.mp3", "en_dev1.wav"))
    return "line 3: common_voice_en_dev1.mp3 and common_voice_en_dev1.wav of line 2 are two clips"


def spoil_split_sentence(folder: Path) -> str:
    """A field that spans lines, as other tools write it in quotes."""
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace("One, two.", '"One,\ntwo."', 1))
    return "en/dev.tsv, line 2: 4 fields, where the first line has 13"


def spoil_no_speaker(folder: Path) -> str:
    text = (folder / "train.tsv").read_text()
    (folder / "train.tsv").write_text(text.replace("train-speaker", "", 1))
    return "en/train.tsv, line 2: nothing in the column 'client_id'"


def spoil_encoding(folder: Path) -> str:
    (folder / "train.tsv").write_bytes((folder / "train.tsv").read_bytes() + b"\xff\n")
    return "is not UTF-8. The file seems to be in the encoding CP1252"


def spoil_no_clips(folder: Path) -> str:
    (folder / "clips").rename(folder / "elsewhere")
    return "en/clips holds no clips"


def spoil_missing_clip(folder: Path) -> str:
    (folder / "clips" / "common_voice_en_dev1.mp3").unlink()
    return "dev1.mp3); 1 of 3 clips are such (missing-clip: 1). Unpack the language again"


def spoil_unicode_form(folder: Path) -> str:
    """The clip's name is in NFC in the table, and in NFD on the disk."""
    clip = folder / "clips" / "common_voice_en_dev1.mp3"
    clip.rename(clip.with_name("e\u0301.mp3"))
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace(clip.name, "\u00e9.mp3"))
    return r"clips/e\u0301.mp3', the same letters in the Unicode form NFD: rename the file"


def spoil_clip(folder: Path) -> str:
    (folder / "clips" / "common_voice_en_dev1.mp3").write_bytes(b"<html>no such page</html>" * 99)
    return "en/dev.tsv, line 3: the file is no audio"


def spoil_length(folder: Path) -> str:
    """The clip's first frame, which says how many there are, is gone; the bit rate varies."""
    path = folder / "clips" / "common_voice_en_dev1.mp3"
    loud = np.where(np.arange(4 * RATE) < RATE, 0.3, 0.0005)
    noise = np.random.default_rng(0).normal(0, 1, 4 * RATE) * loud
    soundfile.write(path, noise, RATE, bitrate_mode="VARIABLE", compression_level=0.5)
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 100) :])
    return "en/dev.tsv, line 3: the file does not say how long it is, and cannot be read as a whole"


def spoil_texts(folder: Path) -> str:
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace("One, two.", "Привет", 1))
    return (
        "1 of 3 texts cannot be trained on (letters: 1), such as line 2: letters outside of the "
        "language's alphabet (В Е И П Р Т)"
    )


SPOILS = [value for name, value in list(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__[6:])
def test_what_is_wrong_with_a_language_is_one_message(spoil, commonvoice, add_language):
    message = spoil(add_language("en"))
    errors = run(commonvoice, "--langs", "en", code=1).stderr
    assert message in errors and "Traceback" not in errors
    assert commonvoice.commands() == []
    assert not list((commonvoice.folder / "data" / "manifests").glob("*.gz"))


def test_what_may_be_left_out_is_counted_and_listed(commonvoice, add_language):
    folder = add_language("en", clips=10)
    spoil_missing_clip(folder), spoil_texts(folder)
    (folder / "clips" / "common_voice_en_dev2.mp3").write_bytes(b"")
    result = run(commonvoice, "--langs", "en", "--bad-audio", "skip", "--stop-stage", "manifests")
    assert "train-en: 10 utterances, " in result.stderr
    assert (
        "WARNING prepare: dev-en: 3 of 10 left out, which changes its error rates" in result.stderr
    )
    listed = commonvoice.folder / "data" / "manifests" / "commonvoice_left_out_dev-en.tsv"
    rows = [line.split("\t") for line in listed.read_text().splitlines()]
    assert [row[:3] for row in rows[1:]] == [
        ["common_voice_en_dev0.mp3", "2", "letters"],
        ["common_voice_en_dev1.mp3", "3", "missing-clip"],
        ["common_voice_en_dev2.mp3", "4", "empty-file"],
    ]
    again = run(commonvoice, "--langs", "en", "--stop-stage", "manifests", code=1).stderr
    assert "runs again: --bad-audio was 'skip', is 'error'" in again


def test_what_nobody_sees_is_counted_and_taken_out(commonvoice, add_language):
    folder = add_language("en")
    text = (folder / "train.tsv").read_text(encoding="utf-8")
    head, first, second, *rest = text.split("\n")
    sentence = head.split("\t").index("sentence")
    for number, (row, ending) in enumerate(((first, "\u200b"), (second, "\u200e\ufeff"))):
        fields = row.split("\t")
        fields[sentence] += ending
        rest.insert(number, "\t".join(fields))
    (folder / "train.tsv").write_text("\n".join([head, *rest]), encoding="utf-8")
    result = run(commonvoice, "--langs", "en", "--stop-stage", "manifests")
    assert "WARNING prepare: train-en: sentences hold characters that nobody sees" in result.stderr
    for name in ("U+200B ZERO WIDTH SPACE", "U+200E LEFT-TO-RIGHT MARK", "U+FEFF ZERO WIDTH NO-"):
        assert name in result.stderr
    assert result.stderr.count("nobody sees") == 1  # the other sets have none
    made = commonvoice.folder / "data" / "manifests" / "commonvoice_supervisions_train-en.jsonl.gz"
    assert not set("\u200b\u200e\ufeff") & set(gzip.decompress(made.read_bytes()).decode())


def test_more_texts_may_be_left_out_where_that_is_admitted(commonvoice, add_language):
    spoil_texts(add_language("en"))
    words = ("--langs", "en", "--stop-stage", "manifests")
    assert "--allow-rejected 0.334" in run(commonvoice, *words, code=1).stderr
    run(commonvoice, *words, "--allow-rejected", "0.334")


def manifests(commonvoice, split: str) -> tuple:
    folder = commonvoice.folder / "data" / "manifests"
    return tuple(
        load_manifest(folder / f"commonvoice_{kind}_{split}.jsonl.gz")
        for kind in ("recordings", "supervisions")
    )


def test_quotes_are_characters(commonvoice, add_language):
    """A lone one swallows no rows, wherever it is."""
    folder = add_language("en", clips=6)
    text = (folder / "test.tsv").read_text()
    for new in ('"One', 'two"', '""three""', 'f"our', '"', '"six'):
        text = text.replace(SENTENCES["en"], new + " x", 1)
    (folder / "test.tsv").write_text(text)
    run(commonvoice, "--langs", "en", "--stop-stage", "manifests")
    _, supervisions = manifests(commonvoice, "test-en")
    assert [s.text for s in supervisions] == ["ONE X", "TWO X", "THREE X", "F OUR X", "X", "SIX X"]


def test_clips_in_folders_have_ids_of_their_own(commonvoice, add_language):
    folder = add_language("en")
    for name in ("a", "b"):
        (folder / "clips" / name).mkdir()
    text = (folder / "test.tsv").read_text()
    for old, new in (("en_test0", "a/0001"), ("en_test1", "b/0001")):
        old = f"common_voice_{old}.mp3"
        shutil.move(folder / "clips" / old, folder / "clips" / f"{new}.mp3")
        text = text.replace(old, f"{new}.mp3")
    (folder / "test.tsv").write_text(text)
    run(commonvoice, "--langs", "en", "--stop-stage", "manifests")
    recordings, _ = manifests(commonvoice, "test-en")
    assert [r.id for r in recordings] == ["en-a-0001", "en-b-0001", "en-common_voice_en_test2"]


@pytest.mark.parametrize("columns", [COLUMNS, OLD_COLUMNS], ids=["new", "old"])
def test_manifests_say_what_the_tables_say(columns, commonvoice, add_language):
    folder = add_language("fr", columns=columns)
    text = (folder / "test.tsv").read_text().replace("L’été !", '"Ça"\u2028va " là', 1)
    (folder / "test.tsv").write_text("\ufeff" + text.replace("fr_test1.mp3", "fr_test1"))
    run(commonvoice, "--langs", "fr", "--stop-stage", "manifests")
    recordings, supervisions = manifests(commonvoice, "test-fr")
    validate_recordings_and_supervisions(recordings, supervisions)
    assert [s.text for s in supervisions] == ["ÇA VA LÀ", "L'ÉTÉ", "L'ÉTÉ"]
    for recording, supervision in zip(recordings, supervisions, strict=True):
        assert recording.id == supervision.id == f"fr-{Path(recording.sources[0].source).stem}"
        assert (recording.sampling_rate, recording.duration) == (RATE, 0.5)
        assert recording.load_audio().shape == (1, RATE // 2)
        assert (supervision.language, supervision.speaker) == ("fr", "test-speaker")
        assert supervision.gender == "female_feminine"
        accents = "old" if columns == OLD_COLUMNS else "new"
        assert supervision.custom == {"age": "twenties", "accents": accents}


def test_many_utterances_in_several_processes_are_the_same(monkeypatch, tmp_path, add_language):
    monkeypatch.syspath_prepend(RECIPE / "local")
    prepare = importlib.import_module("prepare")
    folder = add_language("en", clips=40)
    monkeypatch.setattr(prepare, "PART", 4)
    made = []
    for jobs in (1, 2):
        out = tmp_path / f"manifests{jobs}"
        words = ["--language", "en", "--tables", "train", "--jobs", str(jobs)]
        monkeypatch.setattr(sys, "argv", ["prepare", *words, str(folder.parent), str(out)])
        assert prepare.main() == 0
        made.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert made[0] == made[1] and len(made[0]) == 3


def test_a_rehearsal_becomes_cuts_and_a_tokenizer(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("num2words")
    folders = ["--download-dir", str(tmp_path / "download"), "--data-dir", str(tmp_path / "data")]
    words = ["--rehearsal", "true", "--rehearsal-hours", "0.02", "--langs", "nl", *folders]
    words += ["--vocab-size", "60", "--jobs", "1", "--stop-stage", "tokenizer"]
    real(*words, "--rehearsal-text", "sentences")
    manifest = tmp_path / "data" / "valid" / "commonvoice_cuts_train.jsonl.gz"
    assert CutIndex.from_manifest(manifest).groups["language"][1] == ["nl"]
    cuts = list(load_manifest(manifest))
    assert len(cuts) == 8
    for cut in cuts:
        assert (cut.sampling_rate, cut.supervisions[0].language) == (16000, "nl")
        assert abs(cut.num_frames - 100 * cut.duration) <= 1
        assert cut.supervisions[0].text == cut.supervisions[0].text.upper()
    symbols = (tmp_path / "data" / "lang_bpe_60" / "tokens.txt").read_text().splitlines()
    assert len(symbols) == 60
    again = real(*words, "--rehearsal-text", "sentences").stderr
    assert "stage 4 (tokenizer) is done" in again
