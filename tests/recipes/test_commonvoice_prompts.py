"""Recorded prompts laid out as a release of CommonVoice: of a manifest, and of Debian's packages.

Real ones lie in ``$ASRPRUNE_PROMPTS``, a folder with a ``manifest.jsonl``, if anywhere.
"""

import gzip
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "egs" / "commonvoice" / "ASR" / "local"
GENUINE = Path(
    os.environ.get("ASRPRUNE_PROMPTS", ROOT.parent / "shared" / "data" / "asterisk_prompts")
)
RELEASE = "cv-corpus-0.0-prompts"
WORDS = {
    "es": ("¡Opción", "inválida!", "¿Número", "señal", "gracias", "llamada"),
    "ru": ("Первoe", "«решётку»", "пин-код", "занято,", "номер", "ещё"),
}
TABLES = ("train", "dev", "test")


@pytest.fixture(scope="module", autouse=True)
def local():
    """The recipe's own scripts can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LOCAL)
        yield


@pytest.fixture
def lay_out(monkeypatch, tmp_path, capsys, caplog):
    """A function that runs the program; what it says."""
    program = importlib.import_module("lay_out_prompts")

    def run(source: Path, *words: str, code: int = 0) -> str:
        given = ["lay_out_prompts", *words, str(source), str(tmp_path / "download")]
        monkeypatch.setattr(sys, "argv", given)
        caplog.clear()
        with caplog.at_level("INFO"):
            status = program.main()
        said = capsys.readouterr().err + caplog.text
        assert status == code, said
        return said

    return run


def record(path: Path, seconds: float = 1.0) -> None:
    """A recording of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, round(8000 * seconds))
    soundfile.write(path, noise, 8000)


def sentences(language: str) -> list[str]:
    words = WORDS[language]
    return [f"{one} {other}." for one in words for other in words if one != other]


@pytest.fixture
def source(tmp_path) -> Path:
    """Two languages of 24 training and 6 test prompts, and the first training text once more."""
    folder, rows = tmp_path / "prompts", []
    for language in WORDS:
        record(folder / "audio" / f"{language}.wav")
        texts = sentences(language)
        for number, text in enumerate([*texts, texts[6].lower()]):
            rows.append(
                {
                    "id": f"{language}-{number}",
                    "audio": f"audio/{language}.wav",
                    "split": "test" if number < 6 else "train",
                    "speaker": f"voice of {language}",
                    "lang": language,
                    "raw_text": text,
                    "duration": 1.0,
                }
            )
    write(folder, rows)
    return folder


def write(folder: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def made(tmp_path: Path, language: str) -> Path:
    return tmp_path / "download" / RELEASE / language


def table(tmp_path: Path, language: str, name: str) -> list[dict[str, str]]:
    head, *lines = (made(tmp_path, language) / f"{name}.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def left_out(tmp_path: Path, language: str) -> dict[str, str]:
    rows = table(tmp_path, language, "left_out")
    return {Path(row["clip"]).stem.removeprefix(f"{language}-"): row["reason"] for row in rows}


def test_the_recipe_takes_what_is_laid_out(lay_out, source, commonvoice, tmp_path):
    lay_out(source, "--dev-share", "0.3")
    folders = ["--download-dir", str(tmp_path / "download"), "--release", RELEASE, "--jobs", "1"]
    out = commonvoice.run("--langs", "es ru", *folders, PYTHONPATH=str(ROOT)).stdout
    assert [line.split()[-2] for line in out.splitlines()] == 2 * ["test-es", "test-ru"]
    manifests = commonvoice.folder / "data" / "manifests"
    for language in WORDS:
        texts = {}
        for name in TABLES:
            stem = f"{name}-{language}.jsonl.gz"
            supervisions = list(load_manifest(manifests / f"commonvoice_supervisions_{stem}"))
            assert {s.speaker for s in supervisions} == {f"voice of {language}"}
            assert {s.language for s in supervisions} == {language}
            recording = next(iter(load_manifest(manifests / f"commonvoice_recordings_{stem}")))
            assert recording.load_audio().shape == (1, 8000)
            texts[name] = [s.text for s in supervisions]
        sizes = {name: len(found) for name, found in texts.items()}
        assert sizes["test"] == 6 and sizes["dev"] >= 2 and sum(sizes.values()) == 31
        sets = [set(found) for found in texts.values()]
        assert sum(len(found) for found in sets) == len(set.union(*sets)) == 30
    words = set(" ".join(texts["train"]).split())
    assert words == {"ПЕРВОЕ", "РЕШЁТКУ", "ПИН-КОД", "ЗАНЯТО", "НОМЕР", "ЕЩЁ"}


def test_a_second_time_changes_nothing_and_another_source_everything(lay_out, source, tmp_path):
    assert "es is made: " in lay_out(source)
    path = made(tmp_path, "es")
    before = path.stat().st_ino, (path / "train.tsv").stat().st_mtime_ns
    assert "es is there already" in lay_out(source)
    assert before == (path.stat().st_ino, (path / "train.tsv").stat().st_mtime_ns)
    write(source, rows_of(source)[1:])
    log = lay_out(source)
    assert "es is made anew" in log and "ru is there already" in log
    assert not os.path.lexists(path / "clips" / "es-0.wav")
    assert (path / "clips" / "es-1.wav").resolve() == source / "audio" / "es.wav"
    assert len(table(tmp_path, "es", "validated")) == 30
    assert sorted(p.name for p in path.parent.parent.iterdir()) == [f".{RELEASE}.lock", RELEASE]


def test_what_nobody_can_read_is_left_out_and_listed(lay_out, source, tmp_path):
    rows = rows_of(source)
    texts = {
        6: "Pulse 1",
        7: "non pu? essere",
        8: "(pitido) hola",
        9: sentences("es")[0].upper(),  # the first of the test set
        10: "¿Cómo? Así.",
    }
    for number, text in texts.items():
        rows[number]["raw_text"] = text
    write(source, rows)
    lay_out(source, "--langs", "es")
    reasons = {"6": "digits", "7": "damaged", "8": "remark", "9": "in-test"}
    assert left_out(tmp_path, "es") == reasons
    clips = {row["path"] for row in table(tmp_path, "es", "validated")}
    assert len(clips) == 27 and "es-10.wav" in clips
    assert not made(tmp_path, "ru").exists()


def test_a_given_development_set_is_kept(lay_out, source, tmp_path):
    rows = rows_of(source)
    rows[7]["split"] = rows[40]["split"] = "dev"
    write(source, rows)
    lay_out(source, "--dev-share", "1")
    assert [row["path"] for row in table(tmp_path, "es", "dev")] == ["es-7.wav"]
    assert len(table(tmp_path, "es", "train")) == 24


# --- what is wrong --------------------------------------------------------------------------------


def spoil_line(number: int, **changes):
    def spoil(source: Path) -> None:
        rows = rows_of(source)
        rows[number - 1].update(changes)
        write(source, [{k: v for k, v in row.items() if v is not None} for row in rows])

    return spoil


def spoil_end(text: bytes):
    def spoil(source: Path) -> None:
        with open(source / "manifest.jsonl", "ab") as file:
            file.write(text)

    return spoil


def without_readable_spanish(source: Path) -> None:
    write(source, [{**row, "raw_text": "1 2"} if row["lang"] == "es" else row
                   for row in rows_of(source)])  # fmt: skip


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda source: (source / "manifest.jsonl").unlink(), "holds no manifest.jsonl, and none"),
        (spoil_line(3, speaker=None), "line 3: no field 'speaker' that is a text; there are: id,"),
        (spoil_line(4, raw_text=" "), "line 4: no field 'text'"),
        (spoil_line(4, lang=7), "line 4: no field 'lang'"),
        (spoil_line(5, audio="audio/x.wav"), "prompts/audio/x.wav does not exist"),
        (spoil_line(6, split="eval"), "line 6: the split 'eval' is none of train, dev, test"),
        (spoil_line(7, id="es-0"), "line 7: the id 'es-0' is of line 1, too"),
        (spoil_line(7, id="../es"), "line 7: the id '../es' cannot be the name of a file"),
        (spoil_line(8, lang="../es"), "line 8: '../es' is no name of a language"),
        (spoil_end(b"{"), "line 63 is no JSON"),
        (spoil_end(b"[]"), "line 63 is no JSON object"),
        (spoil_end(b"\xff"), "manifest.jsonl is no UTF-8 text"),
        (without_readable_spanish, "es has no prompt for train.tsv; 31 left out: digits, whose"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_one_message(spoil, message, lay_out, source, tmp_path):
    spoil(source)
    assert message in lay_out(source, code=1)
    assert not (tmp_path / "download").exists()


def test_languages_and_releases_that_do_not_fit(lay_out, source, tmp_path):
    assert "no prompt of it; there are: es ru" in lay_out(source, "--langs", "ru it", code=1)
    assert "Or raise --dev-share." in lay_out(source, "--dev-share", "0", code=1)
    assert "Or lower --test-share or --dev-share." in lay_out(source, "--dev-share", "1", code=1)
    made(tmp_path, "es").mkdir(parents=True)
    error = lay_out(source, code=1)
    assert "es was not made by this program: choose another --release" in error
    assert not list(made(tmp_path, "es").iterdir()) and not made(tmp_path, "ru").exists()


# --- Debian's packages ----------------------------------------------------------------------------

SOUNDS = "usr/share/asterisk/sounds/es_MX_f_Allison"


@pytest.fixture
def packages(tmp_path) -> Path:
    """A language's packages as they unpack: 30 prompts in a script, and some to be left out."""
    root = tmp_path / "root"
    lines = [(f"vm-{number}", text) for number, text in enumerate(sentences("es"))]
    lines += [("digits/10", "diez"), ("digits/0", "cero"), ("digits/0", "diez"), ("not-there", "a")]
    lines += [("a/b", "hola"), ("a_b", "adiós")]  # clips of one name
    lines += [("beep", "[tono]"), ("long", "uno"), ("fast", "Opción inválida " * 4), ("menu", "2")]
    for key, _ in lines:
        if key != "not-there":
            record(root / SOUNDS / f"{key}.wav", {"long": 16.1}.get(key, 1.0))
    script = root / "usr/share/doc/asterisk-core-sounds-es/core-sounds-es.txt.gz"
    script.parent.mkdir(parents=True)
    text = "".join(f"{key}: {sentence}\n" for key, sentence in lines)
    script.write_bytes(gzip.compress(f"\ufeff; in Spanish\n\n{text}".encode()))
    return root


def test_packages_are_split_by_their_texts(lay_out, packages, tmp_path):
    lay_out(packages, "--dev-share", "0.2")
    assert left_out(tmp_path, "es") == {
        **{"not-there": "no-audio", "beep": "remark", "long": "length", "fast": "rate"},
        **{"menu": "digits", "digits_0": "twice", "a_b": "twice"},
    }
    rows = {name: table(tmp_path, "es", name) for name in (*TABLES, "validated")}
    assert sum(len(rows[name]) for name in TABLES) == len(rows["validated"]) == 31
    assert all(len(rows[name]) >= 2 for name in TABLES)
    row = next(row for row in rows["validated"] if row["path"] == "es-digits_10.wav")
    assert (row["sentence"], row["locale"]) == ("diez", "es")
    assert (row["client_id"], row["gender"]) == ("es_MX_f_Allison", "female_feminine")
    clip = made(tmp_path, "es") / "clips" / "es-digits_10.wav"
    assert clip.resolve() == packages / SOUNDS / "digits" / "10.wav"
    lay_out(packages, "--release", "other", "--test-share", "0.7", "--dev-share", "0.5")
    other = tmp_path / "download" / "other" / "es" / "test.tsv"
    assert len(other.read_text().splitlines()) > 16


def test_packages_that_are_not_whole(lay_out, packages, tmp_path):
    sounds = packages / SOUNDS
    other = sounds.with_name("es_ES_m_Other")
    record(other / "a.wav")
    assert "has es_ES_m_Other es_MX_f_Allison: leave one" in lay_out(packages, code=1)
    (other / "a.wav").rename(other / "a.g722")
    lay_out(packages)  # recordings of one voice that can be read
    (sounds / "vm-3.wav").write_bytes(b"no audio")
    assert "vm-3.wav cannot be read" in lay_out(packages, code=1)
    sounds.rename(tmp_path / "elsewhere")
    assert "as .g722, which cannot be read here: get" in lay_out(packages, code=1)
    (other / "a.g722").unlink()
    assert "has no .wav: get asterisk-core-sounds-es-wav as well" in lay_out(packages, code=1)
    (tmp_path / "elsewhere").rename(sounds)
    script = next(packages.glob("usr/share/doc/*/*.txt.gz"))
    whole = script.read_bytes()
    script.write_bytes(gzip.compress(b"a: b\nno sentence\n"))
    assert "line 2: no 'name: sentence'" in lay_out(packages, code=1)
    script.write_bytes(whole[:-20])
    assert "core-sounds-es.txt.gz is damaged" in lay_out(packages, code=1)


# --- real ones ------------------------------------------------------------------------------------


@pytest.mark.skipif(not GENUINE.is_dir(), reason="no recorded prompts are here")
def test_genuine_prompts_become_manifests(lay_out, monkeypatch, tmp_path):
    lay_out(GENUINE)
    prepare = importlib.import_module("prepare")
    for language in ("en", "es", "fr", "it", "ru"):
        words = ["--language", language, "--tables", *TABLES, "--jobs", "1"]
        folders = [str(made(tmp_path, language).parent), str(tmp_path / "manifests")]
        monkeypatch.setattr(sys, "argv", ["prepare", *words, *folders])
        assert prepare.main() == 0
        texts = []
        for name in TABLES:
            stem = tmp_path / "manifests" / f"commonvoice_{{}}_{name}-{language}"
            recordings = load_manifest(str(stem).format("recordings") + ".jsonl.gz")
            supervisions = load_manifest(str(stem).format("supervisions") + ".jsonl.gz")
            assert len(recordings) == len(supervisions) == len(table(tmp_path, language, name))
            recording = next(iter(recordings))
            assert recording.load_audio().shape == (1, recording.num_samples)
            texts.append({supervision.text for supervision in supervisions})
        train, dev, test = texts
        assert len(train) > 200 and len(dev) > 15 and len(test) > 50
        assert not train & test and not dev & (train | test)
