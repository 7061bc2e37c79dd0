"""Recorded prompts, such as Asterisk's, laid out as a release of CommonVoice that run.sh takes.

    python3 local/lay_out_prompts.py SOURCE download        # makes download/cv-corpus-0.0-prompts

SOURCE has a ``manifest.jsonl``, or is where Debian's packages were unpacked: see ``prompts.py``.
Clips are links to the recordings. What is left out, and why, is in ``left_out.tsv`` of a language.
"""

import argparse
import hashlib
import logging
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from prompts import REASONS, SPLITS, Prompt, read_prompts

from asrprune.arguments import Parser, share
from asrprune.errors import UserError, nearest
from asrprune.files import open_locked

COLUMNS = (  # of the releases since 2024
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
)
LEFT_OUT = "left_out.tsv"  # no release has it: what has it was made here
IN_TEST = "in-test"
WHY = {**REASONS, IN_TEST: "its words are in the test set, or in the given development set"}

log = logging.getLogger("lay_out_prompts")


def main() -> int:
    """Lay out all languages, or say what is wrong."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the folder of the prompts")
    parser.add_argument("download_dir", type=Path, help="gets the release")
    parser.add_argument("--release", default="cv-corpus-0.0-prompts", help="its name")
    parser.add_argument("--langs", default="", help="such as 'en fr'; empty: all that are there")
    parser.add_argument(
        "--dev-share", type=share, default=0.1, help="of the training texts, where no dev is given"
    )
    parser.add_argument(
        "--test-share", type=share, default=0.2, help="of all texts, where no splits are given"
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        lay_out(parser.parse_args())
    except UserError as error:
        sys.stderr.write(f"lay_out_prompts: error: {error}\n")
        return 1
    return 0


def lay_out(args: argparse.Namespace) -> None:
    """Write the folder of each language; none before all of them are known to be good.

    :raises UserError: the prompts are damaged, or a language has none for some table.
    """
    prompts = read_prompts(args.source)
    there = sorted({prompt.language for prompt in prompts})
    languages = args.langs.split() or there
    for language in languages:
        if language not in there:
            raise UserError(
                f"{args.source} has no prompt of {language}{nearest(language, there)}; there are: "
                f"{' '.join(there) or 'none'}"
            )
    release = args.download_dir / args.release
    chosen: dict[str, tuple[dict[str, list[Prompt]], list[tuple[Prompt, str]]]] = {}
    for language in languages:
        if (release / language).exists() and not (release / language / LEFT_OUT).is_file():
            raise UserError(
                f"{release / language} was not made by this program: choose another --release"
            )
        own = [prompt for prompt in prompts if prompt.language == language]
        chosen[language] = choose(own, args.test_share, args.dev_share)
        check(language, *chosen[language])
    # a folder beside the release, so that what was stopped is taken for no language
    work = args.download_dir / f".{args.release}.part"
    in_use = f"{args.release} in {args.download_dir} is being laid out by another process"
    with open_locked(args.download_dir / f".{args.release}.lock", in_use):
        for language, (sets, left_out) in chosen.items():
            shutil.rmtree(work, ignore_errors=True)
            write(work / language, language, sets, left_out)
            done = replace(work / language, release / language, work / "before")
            counts = ", ".join(f"{len(sets[name])} {name}" for name in SPLITS)
            log.info("%s %s: %s; %d left out", release / language, done, counts, len(left_out))
        shutil.rmtree(work, ignore_errors=True)


def choose(
    prompts: list[Prompt], test_share: float, dev_share: float
) -> tuple[dict[str, list[Prompt]], list[tuple[Prompt, str]]]:
    """The prompts of each set, of which no two share words, and those left out, with reasons."""
    sets: dict[str, list[Prompt]] = {name: [] for name in SPLITS}
    left_out = [(prompt, prompt.reason) for prompt in prompts if prompt.reason]
    usable = sorted((p for p in prompts if not p.reason), key=lambda prompt: prompt.name)
    given = {name: {p.text for p in usable if p.split == name} for name in SPLITS}
    for prompt in usable:
        text, split = prompt.text, prompt.split
        if not split:
            split = "test" if draw("test", prompt) < test_share else "train"
        elif (split != "test" and text in given["test"]) or (
            split == "train" and text in given["dev"]
        ):
            left_out.append((prompt, IN_TEST))
            continue
        if split == "train" and not given["dev"] and draw("dev", prompt) < dev_share:
            split = "dev"
        sets[split].append(prompt)
    return sets, sorted(left_out, key=lambda pair: pair[0].name)


def draw(what: str, prompt: Prompt) -> float:
    """A number from 0 to 1 that depends on the words alone: prompts of the same go together."""
    digest = hashlib.sha256(f"{what} {prompt.language} {prompt.text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check(language: str, sets: dict[str, list[Prompt]], left_out: list[tuple[Prompt, str]]) -> None:
    """:raises UserError: a set of a language is empty."""
    for name in SPLITS:
        if not sets[name]:
            counts = Counter(reason for _, reason in left_out)
            why = "".join(f"; {count} left out: {WHY[key]}" for key, count in counts.most_common())
            change = {"train": "lower --test-share or --dev-share"}.get(
                name, f"raise --{name}-share"
            )
            raise UserError(
                f"{language} has no prompt for {name}.tsv{why}. Leave the language out with "
                f"--langs. Or {change}."
            )


def write(
    folder: Path,
    language: str,
    sets: dict[str, list[Prompt]],
    left_out: list[tuple[Prompt, str]],
) -> None:
    """The tables of a language and the links to its clips."""
    (folder / "clips").mkdir(parents=True)
    tables = {**sets, "validated": [prompt for name in SPLITS for prompt in sets[name]]}
    for prompt in tables["validated"]:
        # links, since hard ones need the same disk and copies need room
        (folder / "clips" / clip(prompt)).symlink_to(prompt.audio.resolve())
    for name, prompts in tables.items():
        write_table(folder / f"{name}.tsv", COLUMNS, [row(p, language) for p in prompts])
    rows = [(clip(prompt), reason, one_line(prompt.sentence)) for prompt, reason in left_out]
    write_table(folder / LEFT_OUT, ("clip", "reason", "sentence"), rows)


def row(prompt: Prompt, language: str) -> tuple[str, ...]:
    """A line of a table."""
    known = {
        "client_id": prompt.speaker,
        "path": clip(prompt),
        "sentence_id": prompt.name,
        "sentence": one_line(prompt.sentence),
        "up_votes": "0",
        "down_votes": "0",
        "gender": prompt.gender,
        "locale": language,
    }
    return tuple(known.get(column, "") for column in COLUMNS)


def clip(prompt: Prompt) -> str:
    """The name of its clip."""
    return prompt.name + prompt.audio.suffix


def one_line(text: str) -> str:
    """A text without tabs and line ends."""
    return " ".join(text.split())


def write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table of tab-separated fields."""
    lines = ["\t".join(fields) for fields in (columns, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def replace(new: Path, folder: Path, before: Path) -> str:
    """Give a new folder its name, unless the one that has it is alike; says what was done."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.rename(folder)
        return "is made"
    if contents(new) == contents(folder):
        return "is there already"
    folder.rename(before)
    new.rename(folder)
    return "is made anew"


def contents(folder: Path) -> dict[str, str | bytes]:
    """What every file of a folder holds, or which file it is a link to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
