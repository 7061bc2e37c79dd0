"""Asterisk's prompts: of Debian's packages, unpacked, installed or got by stage 0; of a manifest.

Real ones lie in ``$ASRPRUNE_PROMPTS``, a folder with a ``manifest.jsonl``, if anywhere.
"""

import gzip
import importlib
import json
import os
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from tests.recipes.test_new_recipe import commands

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "asterisk" / "ASR"
LOCAL = RECIPE / "local"
GENUINE = Path(
    os.environ.get("ASRPRUNE_PROMPTS", ROOT.parent / "shared" / "data" / "asterisk_prompts")
)
SETS = ("train", "dev", "test")
WORDS = {
    "es": ("¡Opción", "inválida!", "¿Número", "señal", "gracias", "llamada", "hola"),
    "ru": ("Привет", "«решётку»", "пин-код", "занято,", "номер", "ещё", "нет"),
}
VOICES = {"es": "es_MX_f_Allison", "ru": "ru_RU_f_IvrvoiceRU"}
SOUNDS = "usr/share/asterisk/sounds"
DOC = "usr/share/doc/asterisk-core-sounds-{}"


@pytest.fixture(scope="module")
def texts():
    """The recipe's own scripts can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LOCAL)
        yield importlib.import_module("texts")


def record(path: Path, seconds: float = 1.0) -> None:
    """A recording of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, round(8000 * seconds))
    soundfile.write(path, noise, 8000)


def sentences(language: str) -> list[str]:
    words = WORDS[language]
    return [f"{one} {other}." for one in words for other in words if one != other]


# --- two layouts ----------------------------------------------------------------------------------

ODD = [  # of the Spanish script
    *[("digits/10", "diez"), ("digits/0", "cero"), ("digits/0", "nulo"), ("not-there", "adiós")],
    *[("same", "igual"), ("same", "igual"), ("beep", "[tono]"), ("long", "uno"), ("none", "...")],
    *[("fast", "Opción inválida " * 4), ("menu", "2"), ("star", "pulse *"), ("cut", "pu? ser")],
    ("letters", "приз"),
]
LEFT_OUT = {
    **{"digits/0": "twice", "not-there": "no-audio", "beep": "remark", "long": "length"},
    **{"fast": "rate", "menu": "digits", "star": "symbols", "cut": "damaged", "none": "empty"},
    **{"letters": "letters", "unsaid": "no-script"},
}


def write_packages(root: Path) -> Path:
    """The packages of two languages as they unpack: 42 prompts, and some that are odd."""
    for language, voice in VOICES.items():
        lines = [(f"vm-{number}", text) for number, text in enumerate(sentences(language))]
        lines += ODD if language == "es" else []
        for key in {key for key, _ in lines} | {"unsaid"}:
            if key != "not-there":
                record(root / SOUNDS / voice / f"{key}.wav", {"long": 16.1}.get(key, 1.0))
        folder = root / DOC.format(language)
        folder.mkdir(parents=True)
        (folder / "copyright").touch()
        text = "".join(f"{key}: {sentence}\n" for key, sentence in lines)
        script = gzip.compress(f"\ufeff; a comment\n\n{text}".encode())
        (folder / f"core-sounds-{language}.txt.gz").write_bytes(script)
    return root


def write_manifest(folder: Path) -> Path:
    """Prompts of two languages, 8 of each for the test, which two training prompts repeat."""
    rows = []
    for language in WORDS:
        record(folder / "audio" / f"{language}.wav")
        own = sentences(language)
        own += [own[0].upper()] if language == "ru" else []
        for number, text in enumerate(own):
            rows.append(
                {
                    "id": f"{language}-{number}",
                    "audio": f"audio/{language}.wav",
                    "split": "test" if number < 8 else "train",
                    "speaker": f"voice of {language}",
                    "lang": language,
                    "text": text,
                    "duration": 1.0,
                }
            )
    rows.append({**rows[1], "id": "gl-0", "split": "train", "lang": "gl"})
    save(folder, rows)
    return folder


def save(folder: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture
def prepared(asterisk):
    """A function that runs the first two stages on a folder."""

    def run(folder: Path, *words: str, code: int = 0, langs: str = "es ru", **environment: str):
        given = ["--download-dir", str(folder), "--langs", langs, "--jobs", "1", *words]
        given += ["--stop-stage", "manifests"]
        environment["PYTHONPATH"] = str(ROOT)
        return asterisk.run(*given, code=code, **environment).stderr

    return run


def manifests(recipe, name: str):
    """The recordings and supervisions of a split."""
    stem = recipe.folder / "data" / "manifests" / "asterisk_{}_{}.jsonl.gz"
    return [load_manifest(str(stem).format(k, name)) for k in ("recordings", "supervisions")]


def left_out(recipe, language: str) -> dict[str, str]:
    """The reasons of what is left out, by the prompts' names."""
    found = {}
    for path in (recipe.folder / "data" / "manifests").glob(f"*_left_out_*-{language}.tsv"):
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        found.update({row[0].removeprefix(f"{language}-"): row[2] for row in rows})
    return found


def texts_of(recipe, language: str) -> dict[str, list[str]]:
    return {
        name: [s.text for s in manifests(recipe, f"{name}-{language}")[1]]
        for name in SETS
    }  # fmt: skip


def check_sets(recipe) -> None:
    """No text is in two sets, of whatever languages."""
    sets: dict[str, set[str]] = {name: set() for name in SETS}
    for language in WORDS:
        for name, own in texts_of(recipe, language).items():
            sets[name] |= set(own)
    assert sum(map(len, sets.values())) == len(set().union(*sets.values()))


def test_unpacked_packages(prepared, asterisk, tmp_path):
    root = write_packages(tmp_path / "unpacked")
    log = prepared(root)
    assert left_out(asterisk, "es") == LEFT_OUT
    assert left_out(asterisk, "ru") == {"unsaid": "no-script"}
    assert "es: 44 prompts, and 11 left out" in log and "ru: 42 prompts, and 1 left out" in log
    assert "1: the script has it, and there is no recording" in log
    check_sets(asterisk)
    for language, voice in VOICES.items():
        own = texts_of(asterisk, language)
        assert sum(map(len, own.values())) == {"es": 44, "ru": 42}[language]
        assert all(len(found) >= 2 for found in own.values())
        recordings, supervisions = manifests(asterisk, f"train-{language}")
        assert {(s.language, s.speaker) for s in supervisions} == {(language, voice)}
        first = next(iter(recordings))
        assert (first.sampling_rate, first.load_audio().shape) == (8000, (1, 8000))
    words = {word for own in texts_of(asterisk, "ru").values() for t in own for word in t.split()}
    assert words == {"привет", "решётку", "пин", "код", "занято", "номер", "ещё", "нет"}


def test_sets_do_not_depend_on_place_or_languages(prepared, asterisk, tmp_path):
    prepared(write_packages(tmp_path / "one"))
    both = texts_of(asterisk, "ru")
    prepared(write_packages(tmp_path / "other"), langs="ru")
    assert texts_of(asterisk, "ru") == both


def test_installed_packages_have_links_beside_them(prepared, asterisk, tmp_path):
    root = write_packages(tmp_path / "root")
    for language, voice in VOICES.items():
        for name in (language, voice[:5]):  # fr and fr_CA, as update-alternatives makes them
            (root / SOUNDS / name).symlink_to(root / SOUNDS / voice)
    prepared(root)
    assert {s.speaker for s in manifests(asterisk, "test-es")[1]} == {VOICES["es"]}
    (root / SOUNDS / "es_ES_m_Other").mkdir()  # without recordings
    prepared(root, "--data-dir", str(tmp_path / "again"))
    record(root / SOUNDS / "es_ES_m_Other" / "a.wav")
    error = prepared(root, "--data-dir", str(tmp_path / "third"), code=1)
    assert "has several voices of es, es_ES_m_Other es_MX_f_Allison: leave one there" in error


def test_a_manifest_with_sets(prepared, asterisk, tmp_path):
    folder = write_manifest(tmp_path / "ready")
    prepared(folder)
    assert left_out(asterisk, "ru") == {"42": "in-test"} and left_out(asterisk, "es") == {}
    check_sets(asterisk)
    own = texts_of(asterisk, "ru")
    assert len(own["test"]) == 8 and len(own["dev"]) >= 2
    assert {s.speaker for s in manifests(asterisk, "dev-ru")[1]} == {"voice of ru"}
    rows = rows_of(folder)
    for row in (rows[9], rows[60]):  # a given development set is kept, and gets no others
        row["split"] = "dev"
    save(folder, rows)
    assert "manifest.jsonl was edited" in prepared(folder)
    assert [s.id for s in manifests(asterisk, "dev-es")[1]] == ["es-9"]
    assert len(texts_of(asterisk, "es")["train"]) == 33


def test_a_manifest_teaches_nothing_that_another_language_tests(texts, tmp_path):
    prompts = importlib.import_module("prompts").read_prompts(write_manifest(tmp_path), ["es"])
    assert {p.name: p.reason for p in prompts if p.reason} == {
        "ru-42": "in-test",
        "gl-0": "in-test",
    }


def test_all_stages_in_all_languages(asterisk, tmp_path):
    folder = write_manifest(tmp_path / "ready")
    words = ("--download-dir", str(folder), "--langs", "es ru", "--jobs", "1")
    out = asterisk.run(*words, PYTHONPATH=str(ROOT)).stdout
    assert [line.split()[-2] for line in out.splitlines()] == ["test-es", "test-ru"]
    verbs = ["fbank"] * 6 + ["validate", "tokenizer", "train", "average", "decode", "score"]
    assert asterisk.commands() == [f"asrprune {verb}" for verb in verbs]
    asterisk.run(*words, PYTHONPATH=str(ROOT))
    assert asterisk.commands() == []
    assert "--langs names no language" in asterisk.run("--langs", " ", code=2).stderr


@pytest.mark.parametrize("words", commands(RECIPE / "README.md"), ids=shlex.join)
def test_the_readme(words, asterisk):
    out = asterisk.run(*words[1:], *(() if "--help" in words else ("--dry-run", "true"))).stdout
    assert ("--langs" if "--help" in words else "\npython3 local/prepare.py ") in out


# --- stage 0 --------------------------------------------------------------------------------------

FAKE_APT = """#!/bin/sh
[ "$1" = download ] && shift || exit 9
for package in "$@"; do
  echo "$package" >>"$FAKE_LOG"
  cp "$PACKAGES/$package.deb" . || exit 100
done
"""


@pytest.fixture
def debian(asterisk, tmp_path) -> Path:
    """A folder of packages, one of which is in no archive: es without its recordings."""
    root = write_packages(tmp_path / "root")
    made = tmp_path / "packages"
    for language, voice in VOICES.items():
        for suffix, path in (("", DOC.format(language)), ("-wav", f"{SOUNDS}/{voice}")):
            name = f"asterisk-core-sounds-{language}{suffix}"
            folder = made / name
            shutil.copytree(root / path, folder / path)
            (folder / "DEBIAN").mkdir()
            (folder / "DEBIAN" / "control").write_text(
                f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n"
            )
            os.system(f"dpkg-deb -Znone --build {folder} >/dev/null")
    apt = asterisk.root / ".venv" / "bin" / "apt-get"
    apt.write_text(FAKE_APT)
    apt.chmod(0o755)
    return made


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not here")
def test_stage_0_gets_what_is_missing(prepared, asterisk, debian):
    download = asterisk.folder / "download"
    log = prepared(download, langs="ru", PACKAGES=str(debian))
    names = ["asterisk-core-sounds-ru", "asterisk-core-sounds-ru-wav"]
    assert asterisk.commands() == names and "getting " + " ".join(names) in log
    assert len(texts_of(asterisk, "ru")["train"]) > 20
    (debian / "asterisk-core-sounds-es-wav.deb").rename(debian / "away")
    error = prepared(download, code=1, PACKAGES=str(debian))
    assert "apt-get download asterisk-core-sounds-es asterisk-core-sounds-es-wav failed" in error
    (debian / "away").rename(debian / "asterisk-core-sounds-es-wav.deb")
    asterisk.commands()
    mine = download / SOUNDS / VOICES["es"] / "vm-1.g722"  # which is kept
    mine.parent.mkdir()
    mine.touch()
    prepared(download, PACKAGES=str(debian))
    assert mine.is_file() and asterisk.commands() == [name.replace("-ru", "-es") for name in names]
    assert left_out(asterisk, "es") == LEFT_OUT
    made = sorted(path.relative_to(download).as_posix() for path in download.glob("usr/*/*/*"))
    docs = [DOC.format(language) for language in VOICES]
    assert made == sorted([SOUNDS, *docs]) and sorted(os.listdir(download)) == [".lock", "usr"]
    assert (download / docs[0] / "copyright").is_file()


def test_stage_0_names_what_cannot_be_had(prepared, asterisk, tmp_path):
    # links are not filled
    (tmp_path / "mine").mkdir()
    (asterisk.folder / "download").symlink_to(tmp_path / "mine")
    error = prepared(Path("download"), code=1)
    assert "no usr/share/doc/asterisk-core-sounds-es/core-sounds-es.txt.gz" in error
    assert "dpkg-deb -x PACKAGE.deb download" in error and "leave es out with --langs" in error


def test_the_installed_ones_are_got_by_apt(texts):
    prompts = importlib.import_module("prompts")
    told = prompts.ways_out(Path("/"), "fr")
    assert "apt install asterisk-core-sounds-fr asterisk-core-sounds-fr-wav." in told


# --- what is wrong --------------------------------------------------------------------------------


def spoil_line(number: int, **changes):
    def spoil(folder: Path) -> None:
        rows = rows_of(folder)
        rows[number - 1].update(changes)
        save(folder, [{k: v for k, v in row.items() if v is not None} for row in rows])

    return spoil


def spoil_end(text: bytes):
    def spoil(folder: Path) -> None:
        with open(folder / "manifest.jsonl", "ab") as file:
            file.write(text)

    return spoil


@pytest.fixture
def download(texts, monkeypatch, capsys, caplog):
    """A function that runs stage 0 on a folder that is a link; what it says."""
    program = importlib.import_module("get_packages")

    def run(folder: Path, *languages: str, code: int = 1) -> str:
        link = folder.with_name("link")
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        monkeypatch.setattr(sys, "argv", ["get_packages", str(link), *languages])
        status = program.main()
        said = capsys.readouterr().err + caplog.text
        assert status == code, said
        return said

    return run


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_line(3, speaker=None), "line 3: no field 'speaker' that is a text; there are: id,"),
        (spoil_line(4, text=" "), "line 4: no field 'text'"),
        (spoil_line(4, lang=7), "line 4: no field 'lang'"),
        (spoil_line(5, audio="audio/x.wav"), "audio/x.wav does not exist"),
        (spoil_line(6, split="eval"), "line 6: the split 'eval' is none of train, dev, test"),
        (spoil_line(7, id="es-0"), "line 7: the id 'es-0' is that of"),
        (spoil_end(b"{"), "line 87: no JSON"),
        (spoil_end(b"[]"), "line 87: no JSON object"),
        (spoil_end(b"\xff"), "line 87 is damaged: b'\\xff' is no UTF-8"),
    ],
)
def test_a_bad_manifest_is_one_message(spoil, message, download, tmp_path):
    folder = write_manifest(tmp_path / "ready")
    assert download(folder, "es", code=0) == ""
    spoil(folder)
    said = download(folder, "es")
    assert message in said and said.startswith("get_packages: error: ") and said.count("\n") == 1


def test_languages_that_are_not_there(download, tmp_path):
    ready, unpacked = write_manifest(tmp_path / "ready"), write_packages(tmp_path / "unpacked")
    assert "has no prompt of it; there are: es gl ru. Leave it out" in download(ready, "es", "it")
    assert "asterisk-core-sounds-it. ./run.sh gets both" in download(unpacked, "es", "it")


@pytest.mark.parametrize("folder", ["empty", "missing/download", "unpacked"])
def test_a_folder_that_is_read_only(folder, texts, tmp_path, monkeypatch, capsys, caplog):
    write_packages(tmp_path / "unpacked")
    for name in ("empty", "missing"):
        (tmp_path / name).mkdir()
    program = importlib.import_module("get_packages")
    monkeypatch.setattr(program, "TOOLS", ())  # as if apt-get were here
    monkeypatch.setattr(sys, "argv", ["get_packages", folder, "it"])
    monkeypatch.chdir(tmp_path)
    everything = [tmp_path, *tmp_path.rglob("*")]
    for path in everything:
        path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        assert program.main() == 1
    finally:
        os.seteuid(user)
        for path in everything:
            path.chmod(0o755)
    said = capsys.readouterr().err
    assert said.startswith(f"get_packages: error: {folder} holds no manifest.jsonl, and no ")
    assert "Debian's package asterisk-core-sounds-it." in said and said.count("\n") == 1
    assert f"nothing can be added to {folder}: Permission denied" in caplog.text


def test_packages_that_are_not_whole(download, tmp_path):
    root = write_packages(tmp_path / "unpacked")
    sounds = root / SOUNDS / VOICES["es"]
    sounds.rename(tmp_path / "elsewhere")
    (sounds / "digits").mkdir(parents=True)
    (sounds / "digits" / "a.g722").touch()
    assert "has no recordings of es as .wav, which are in" in download(root, "es")
    shutil.rmtree(sounds)
    (tmp_path / "elsewhere").rename(sounds)
    script = root / DOC.format("es") / "core-sounds-es.txt.gz"
    whole = script.read_bytes()
    script.write_bytes(gzip.compress(b"a: b\nno sentence\n"))
    assert "line 2: no 'name: sentence'" in download(root, "es")
    for damaged in (whole[:-20], b"text"):
        script.write_bytes(damaged)
        assert "core-sounds-es.txt.gz is damaged" in download(root, "es")
    script.write_bytes(gzip.compress("a: año".encode("latin1")))
    assert "seems to be in the encoding CP1252" in download(root, "es")
    script.unlink()
    script.with_suffix("").write_bytes(gzip.decompress(whole))  # unpacked by somebody
    download(root, "es", code=0)


def test_audio_that_cannot_be_read(prepared, asterisk, tmp_path):
    root = write_packages(tmp_path / "unpacked")
    (root / SOUNDS / VOICES["ru"] / "vm-3.wav").write_bytes(b"no audio")
    assert "the file is no audio (" in prepared(root, code=1)
    prepared(root, "--bad-audio", "skip")
    assert left_out(asterisk, "ru") == {"unsaid": "no-script", "vm-3": "not-audio"}


@pytest.mark.parametrize(
    "sentence, words",
    [
        ("L’homme,  c'est-à-dire…", "l'homme c'est à dire"),
        ("«Эхо-тест» завершён.", "эхо тест завершён"),
        ("PO'  'quoted' E\u0301te\u0301", "po quoted été"),
    ],
)
def test_words_of_a_sentence(sentence, words, texts):
    assert texts.normalise(sentence) == words == texts.normalise(words)


# --- real ones ------------------------------------------------------------------------------------


@pytest.mark.skipif(not GENUINE.is_dir(), reason="no recorded prompts are here")
def test_genuine_prompts_become_manifests(prepared, asterisk):
    languages = ("en", "es", "fr", "it", "ru")
    prepared(GENUINE, langs=" ".join(languages))
    rows = rows_of(GENUINE)
    tested = Counter((row["lang"], row["split"]) for row in rows)
    known = {row["id"]: row["text"] for row in rows}
    learnt, judged = set(), set()
    for language in languages:
        own = {name: manifests(asterisk, f"{name}-{language}") for name in SETS}
        for recordings, supervisions in own.values():
            assert len(recordings) == len(supervisions) > 15
            for supervision in supervisions:
                said = known[supervision.id].replace("'", " ").split()
                assert supervision.text.replace("'", " ").split() == said
        learnt |= {s.text for s in own["train"][1]}
        judged |= {s.text for name in ("dev", "test") for s in own[name][1]}
        # few are left out: what is said of them is of two languages, or is no word of one
        assert tested[language, "test"] - len(own["test"][1]) <= 2
        recording = next(iter(own["test"][0]))
        assert recording.load_audio().shape == (1, recording.num_samples)
    assert not learnt & judged and len(learnt) > 1200
