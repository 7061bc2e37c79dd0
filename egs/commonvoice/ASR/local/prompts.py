"""Recorded prompts and what is said in them: of a manifest, or of Debian's packages of Asterisk's.

A manifest is a file ``manifest.jsonl``, an object a line: ``id``, ``audio`` (a path, relative to
the manifest's folder), ``split``, ``speaker``, ``lang``, and ``raw_text`` or ``text``. Debian's
packages are a folder that they were unpacked into, or ``/``: a script of each language in
``usr/share/doc``, a line a prompt, and the recordings in ``usr/share/asterisk/sounds``.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
from normalise import PROBLEMS, normalise, problem

from asrprune.errors import UserError

MANIFEST = "manifest.jsonl"
FIELDS = ("id", "audio", "split", "speaker", "lang")
SPLITS = ("train", "dev", "test")
SCRIPTS = "usr/share/doc/asterisk-core-sounds-*/core-sounds-*.txt*"
SOUNDS = "usr/share/asterisk/sounds"
GET = (
    "in an empty folder: apt-get download asterisk-core-sounds-{en,es,fr,it,ru}{,-wav} && "
    'for deb in *.deb; do dpkg -x "$deb" .; done'
)
SECONDS = (0.3, 16.0)  # scripts of recordings of other lengths are of tones, music or long menus
RATE = (3.0, 25.0)  # characters a second; others were not read as they are written
REASONS = {
    **PROBLEMS,
    "remark": "brackets, around what may not be said",
    "damaged": "a question mark in place of a letter",
    "no-audio": "the script has it, and there is no recording",
    "twice": "the script has it twice",
    "length": f"shorter than {SECONDS[0]:g} s or longer than {SECONDS[1]:g} s",
    "rate": f"fewer than {RATE[0]:g} or more than {RATE[1]:g} characters a second",
}


@dataclass(frozen=True)
class Prompt:
    """A recording of a sentence."""

    name: str  # of the clip, without its suffix
    audio: Path
    language: str
    speaker: str
    sentence: str
    split: str = ""  # empty: none is given
    gender: str = ""
    reason: str = ""  # why it is left out, a key of REASONS; empty: it is not

    @property
    def text(self) -> str:
        """The words as the recipe trains on them."""
        return normalise(self.sentence, self.language)


def read_prompts(source: Path) -> list[Prompt]:
    """All prompts of a folder, with the reasons of those that are to be left out.

    :raises UserError: it holds neither a manifest nor Debian's packages, or they are damaged.
    """
    if (source / MANIFEST).is_file():
        return list(read_manifest(source / MANIFEST))
    scripts = sorted(source.glob(SCRIPTS))
    if not scripts:
        raise UserError(
            f"{source} holds no {MANIFEST}, and none of Debian's scripts, {SCRIPTS}. Name a folder "
            f"that does; for Debian's, {GET}"
        )
    return [prompt for script in scripts for prompt in read_package(source, script)]


def unreadable(sentence: str, language: str) -> str:
    """Why nobody can tell from a sentence what is said, a key of REASONS; empty: one can."""
    if re.search(r"[][(){}<>]", sentence):
        return "remark"
    # where an encoding was mistaken: "non pu? essere", "la conferenza ? piena"
    if any(following[1].islower() for following in re.finditer(r"\?\s*(\w)", sentence)):
        return "damaged"
    found = problem(normalise(sentence, language), language)
    return found[0] if found else ""


# --- a manifest -----------------------------------------------------------------------------------


def read_manifest(path: Path) -> Iterator[Prompt]:
    """The prompts of a manifest.

    :raises UserError: a line is no object, lacks a field, repeats an id, or its audio is missing.
    """
    seen: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    prompt = _of_line(where, path.parent, line)
                    first = seen.setdefault(prompt.name, number)
                    if first != number:
                        raise UserError(f"{where}: the id {prompt.name!r} is of line {first}, too")
                    yield prompt
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason})") from error


def _of_line(where: str, folder: Path, line: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f'{where} is no JSON object, such as {{"id": …, "audio": …}}')
    sentence = row.get("raw_text") or row.get("text")
    for name, value in [*((name, row.get(name)) for name in FIELDS), ("text", sentence)]:
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"{where}: no field {name!r} that is a text; there are: {', '.join(row)}"
            )
    if row["split"] not in SPLITS:
        raise UserError(f"{where}: the split {row['split']!r} is none of {', '.join(SPLITS)}")
    if not re.fullmatch(r"[A-Za-z]+(-[A-Za-z0-9]+)*", row["lang"]):
        raise UserError(f"{where}: {row['lang']!r} is no name of a language, such as fr or sv-SE")
    if re.search(r"^\.|[\s/]", row["id"]):
        raise UserError(f"{where}: the id {row['id']!r} cannot be the name of a file")
    audio = folder / row["audio"]
    if not audio.is_file():
        raise UserError(f"{where}: {audio} does not exist; get the recordings again")
    return Prompt(
        name=row["id"],
        audio=audio,
        language=row["lang"],
        speaker=row["speaker"].strip(),
        sentence=sentence,
        split=row["split"],
        gender=str(row.get("gender") or ""),
        reason=unreadable(sentence, row["lang"]),
    )


# --- Debian's packages ----------------------------------------------------------------------------


def read_package(root: Path, script: Path) -> Iterator[Prompt]:
    """The prompts of one language.

    :raises UserError: the script is damaged, or there are no recordings that can be read.
    """
    language = re.sub(r"^core-sounds-|\.txt.*$", "", script.name)
    sounds = _sounds(root, language)
    gender = re.search(r"_([fm])_", sounds.name)
    lines = list(_lines(script))
    counts = Counter(_name(language, key) for key, _ in lines)
    for key, sentence in lines:
        audio = sounds / f"{key}.wav"
        text = normalise(sentence, language)
        if counts[_name(language, key)] > 1:  # with other words: nobody knows which ones are said
            reason = "twice"
        elif not audio.is_file():
            reason = "no-audio"
        else:
            reason = unreadable(sentence, language) or _unlikely(audio, text)
        yield Prompt(
            name=_name(language, key),
            audio=audio,
            language=language,
            speaker=sounds.name,
            sentence=sentence,
            gender={"f": "female_feminine", "m": "male_masculine"}[gender[1]] if gender else "",
            reason=reason,
        )


def _name(language: str, key: str) -> str:
    """The name of a clip; keys have the folders of their recordings."""
    return f"{language}-{key.replace('/', '_')}"


def _sounds(root: Path, language: str) -> Path:
    """The folder of a language's recordings, such as fr_CA_f_June; its name is the speaker."""
    folders = sorted(path for path in (root / SOUNDS).glob(f"{language}_*") if path.is_dir())
    there = [path for path in folders if next(path.rglob("*.wav"), None)]
    if len(there) > 1:
        names = " ".join(path.name for path in there)
        raise UserError(f"{root / SOUNDS} has {names}: leave one of {language} there")
    if there:
        return there[0]
    if any(next(path.rglob("*.g722"), None) for path in folders):
        raise UserError(
            f"{folders[0]} has recordings as .g722, which cannot be read here: get "
            f"asterisk-core-sounds-{language}-wav, or decode each: ffmpeg -i x.g722 x.wav"
        )
    raise UserError(
        f"{root / SOUNDS}/{language}_* has no .wav: get asterisk-core-sounds-{language}-wav as "
        f"well; {GET}"
    )


def _lines(script: Path) -> Iterator[tuple[str, str]]:
    """The names and sentences of a script."""
    opened = gzip.open if script.suffix == ".gz" else open
    try:
        with opened(script, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip() or line.startswith(";"):
                    continue
                found = re.fullmatch(r"([^\s:]+)\s*:\s*(.*)", line.strip())
                if not found:
                    raise UserError(f"{script}, line {number}: no 'name: sentence'; mend it")
                yield found[1], found[2]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{script} is damaged ({error}): unpack its package again") from error


def _unlikely(audio: Path, text: str) -> str:
    """Whether a recording cannot be of its text."""
    try:
        info = soundfile.info(audio)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{audio} cannot be read ({error}): unpack its package again") from error
    if not SECONDS[0] <= info.duration <= SECONDS[1]:
        return "length"
    return "" if RATE[0] <= len(text) / info.duration <= RATE[1] else "rate"
