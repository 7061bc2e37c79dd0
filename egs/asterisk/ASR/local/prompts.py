"""Recorded prompts and what is said in them: of Debian's packages of Asterisk's, or of a manifest.

Debian's packages are a folder that they were unpacked into, or ``/`` where they are installed: a
script of each language in ``usr/share/doc``, a line a prompt, and the recordings in
``usr/share/asterisk/sounds``. A manifest is a file ``manifest.jsonl``, an object a line: ``id``,
``audio`` (a path, relative to the manifest's folder), ``split``, ``speaker``, ``lang``, and
``raw_text`` or ``text``.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
from texts import REASONS as TEXT_REASONS
from texts import normalise, unreadable

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError, nearest
from asrprune.data.importers.tables import numbered_rows
from asrprune.data.names import explain_missing

MANIFEST = "manifest.jsonl"
FIELDS = ("id", "audio", "split", "speaker", "lang")
SETS = ("train", "dev", "test")
SCRIPT = "usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt"  # or .txt.gz
SOUNDS = "usr/share/asterisk/sounds"
SECONDS = (0.3, 16.0)  # scripts of recordings of other lengths are of tones, music or long menus
RATE = (3.0, 25.0)  # characters a second; others were not read as they are written
REASONS = {
    **TEXT_REASONS,
    "no-audio": "the script has it, and there is no recording",
    "no-script": "there is a recording, and no script has it",
    "twice": "the script has it twice, with other words",
    "length": f"shorter than {SECONDS[0]:g} s or longer than {SECONDS[1]:g} s",
    "rate": f"fewer than {RATE[0]:g} or more than {RATE[1]:g} characters a second",
    "in-test": "its words are in the given test or development set",
}


@dataclass(frozen=True)
class Prompt:
    """A recording of a sentence."""

    name: str
    audio: Path
    language: str
    speaker: str
    sentence: str
    given: str = ""  # the set that it is in, one of SETS; empty: nobody says
    reason: str = ""  # why it is left out, a key of REASONS; empty: it is not

    @property
    def text(self) -> str:
        """The words as the recipe trains on them."""
        return normalise(self.sentence)


def read_prompts(folder: Path, languages: Sequence[str]) -> list[Prompt]:
    """All prompts of some languages, with the reasons of those that are to be left out.

    Of a manifest these are the prompts of all its languages, since no two sets share a sentence.

    Raises:
        UserError: a language is missing, or the manifest or the packages are damaged.
    """
    if not (folder / MANIFEST).is_file():
        return [prompt for language in languages for prompt in read_package(folder, language)]
    prompts = list(read_manifest(folder / MANIFEST))
    there = sorted({prompt.language for prompt in prompts})
    for language in languages:
        if language not in there:
            raise UserError(
                f"{folder / MANIFEST} has no prompt of {language}{nearest(language, there)}; there "
                f"are: {' '.join(there) or 'none'}. Leave it out with --langs"
            )
    return prompts


# --- a manifest -----------------------------------------------------------------------------------


def read_manifest(path: Path) -> Iterator[Prompt]:
    """The prompts of a manifest.

    Raises:
        UserError: a line is no object, lacks a field, repeats an id, or its audio is missing.
    """
    rows = [(f"{path}, line {number}", row) for number, row in numbered_rows(path)]
    prompts = [_of_row(where, path.parent, row) for where, row in rows]
    places: dict[str, str] = {}
    for (where, _), prompt in zip(rows, prompts, strict=True):
        if places.setdefault(prompt.name, where) != where:
            raise UserError(f"{where}: the id {prompt.name!r} is that of {places[prompt.name]} too")
    # no sentence of the test is learnt, in whatever language
    tested = {prompt.text for prompt in prompts if prompt.given == "test"}
    chosen = {prompt.text for prompt in prompts if prompt.given == "dev"}
    for prompt in prompts:
        others = {"train": tested | chosen, "dev": tested}.get(prompt.given, set())
        reason = unreadable(prompt.sentence, prompt.language)
        yield replace(prompt, reason=reason or ("in-test" if prompt.text in others else ""))


def _of_row(where: str, folder: Path, row: dict[str, Any]) -> Prompt:
    sentence = row.get("raw_text") or row.get("text")
    for name, value in [*((name, row.get(name)) for name in FIELDS), ("text", sentence)]:
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"{where}: no field {name!r} that is a text; there are: {', '.join(row)}"
            )
    if row["split"] not in SETS:
        raise UserError(f"{where}: the split {row['split']!r} is none of {', '.join(SETS)}")
    audio = folder / row["audio"]
    if not audio.is_file():
        raise UserError(
            f"{where}: {explain_missing(audio)} does not exist; get the recordings again"
        )
    return Prompt(row["id"], audio, row["lang"], row["speaker"].strip(), sentence, row["split"])


# --- Debian's packages ----------------------------------------------------------------------------


def read_package(root: Path, language: str) -> Iterator[Prompt]:
    """The prompts of one language, those of its script first.

    Raises:
        UserError: a package is missing, or the script is damaged.
    """
    script, sounds = find_package(root, language)
    sentences: dict[str, set[str]] = defaultdict(set)
    for key, sentence in _lines(script):
        sentences[key].add(sentence)
    recordings = {
        path.relative_to(sounds).with_suffix("").as_posix(): path for path in sounds.rglob("*.wav")
    }
    for key in [*sentences, *sorted(recordings.keys() - sentences.keys())]:
        said = sorted(sentences.get(key, ()))
        prompt = Prompt(
            name=f"{language}-{key}",
            audio=recordings.get(key, sounds / f"{key}.wav"),
            language=language,
            speaker=sounds.name,
            sentence=said[0] if said else "",
        )
        if not said:
            reason = "no-script"
        elif len(said) > 1:  # nobody knows which one is said
            reason = "twice"
        elif key not in recordings:
            reason = "no-audio"
        else:
            reason = unreadable(said[0], language) or _unlikely(prompt)
        yield replace(prompt, reason=reason)


def find_package(root: Path, language: str) -> tuple[Path, Path]:
    """The script of a language, and the folder of its recordings, such as fr_CA_f_June.

    Raises:
        UserError: one of them is missing, which says its package; or there are several voices.
    """
    script, voices = find_script(root, language), find_voices(root, language)
    if script is None:
        raise UserError(
            f"{root} holds no {MANIFEST}, and no {SCRIPT.format(language)}.gz, which is in "
            f"Debian's package asterisk-core-sounds-{language}. {ways_out(root, language)}"
        )
    if not voices:
        raise UserError(
            f"{root / SOUNDS} has no recordings of {language} as .wav, which are in Debian's "
            f"package asterisk-core-sounds-{language}-wav. {ways_out(root, language)}"
        )
    if len(voices) > 1:
        names = " ".join(path.name for path in voices)
        raise UserError(
            f"{root / SOUNDS} has several voices of {language}, {names}: leave one there"
        )
    return script, voices[0]


def find_script(root: Path, language: str) -> Path | None:
    """The script of a language, if it is there."""
    path = root / SCRIPT.format(language)
    return next((p for p in (path.with_suffix(".txt.gz"), path) if p.is_file()), None)


def find_voices(root: Path, language: str) -> list[Path]:
    """The folders with recordings of a language."""
    # installed packages come with links of other names: fr and fr_CA
    named = [root / SOUNDS / language, *(root / SOUNDS).glob(f"{language}_*")]
    folders = sorted({path.resolve() for path in named if path.is_dir()})
    return [path for path in folders if next(path.rglob("*.wav"), None)]


def ways_out(root: Path, language: str) -> str:
    """How a language's packages are had."""
    if root.resolve() == Path("/"):
        return (
            f"Get them: apt install {' '.join(packages(language))}. Where dpkg leaves out what is "
            "for /usr/share/doc, as in slim containers, unpack them into a folder: --download-dir "
            "download"
        )
    return (
        f"./run.sh gets both packages if there is apt-get and {root} can be written; else take "
        f"them from packages.debian.org and unpack them (dpkg-deb -x PACKAGE.deb {root}), or "
        f"leave {language} out with --langs"
    )


def packages(language: str) -> list[str]:
    """The names of the packages of its script and of its recordings."""
    return [f"asterisk-core-sounds-{language}", f"asterisk-core-sounds-{language}-wav"]


def _lines(script: Path) -> Iterator[tuple[str, str]]:
    """The names and sentences of a script."""
    for number, line in enumerate(text_lines(script), 1):
        if not line.strip() or line.startswith(";"):
            continue
        found = re.fullmatch(r"([^\s:]+)\s*:\s*(.*)", line.strip())
        if not found:
            raise UserError(f"{script}, line {number}: no 'name: sentence'; mend it")
        yield found[1], found[2]


def _unlikely(prompt: Prompt) -> str:
    """Why a recording cannot be of its text, a key of REASONS; empty: it can."""
    try:
        seconds = soundfile.info(prompt.audio).duration
    except soundfile.LibsndfileError:  # which is dealt with as in every other corpus
        return ""
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        return "length"
    return "" if RATE[0] <= len(prompt.text) / seconds <= RATE[1] else "rate"
