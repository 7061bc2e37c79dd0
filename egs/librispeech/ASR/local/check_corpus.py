"""Check that LibriSpeech is whole before its manifests are made.

    python3 local/check_corpus.py download/LibriSpeech train-clean-100 dev-clean

lhotse leaves recordings without a transcript, and transcripts without a recording, out in silence,
and stops with a traceback at an empty transcript. Here every such case is an error with a name.
Nothing large is imported: 280 000 files take seconds.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError
from asrprune.base.scripts import run_script

THREADS = 16  # the time goes into waiting for the disk


def main() -> int:
    """Print the first problem and how many more there are; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the folder of the splits")
    parser.add_argument("splits", nargs="+", help="such as train-clean-100")
    parser.add_argument("--all", action="store_true", help="print every problem, one a line")
    args = parser.parse_args()
    return run_script("check_corpus", lambda: check(args))


def check(args: argparse.Namespace) -> int:
    """Look at all chapters; returns the exit status."""
    missing = [split for split in args.splits if not (args.corpus / split).is_dir()]
    if missing:
        sys.stderr.write(f"check_corpus: error: {describe_missing(args.corpus, missing)}\n")
        return 1
    chapters = [path for split in args.splits for path in find_chapters(args.corpus / split)]
    with ThreadPoolExecutor(THREADS) as pool:
        problems = [problem for found in pool.map(check_chapter, chapters) for problem in found]
    problems += [
        f"{args.corpus / split} holds no chapters (<speaker>/<chapter>/*.flac): unpack it again"
        for split in args.splits
        if not any(args.corpus / split in chapter.parents for chapter in chapters)
    ]
    if not problems:
        return 0
    if args.all:
        sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    else:
        command = f"python3 local/check_corpus.py --all {args.corpus} {' '.join(args.splits)}"
        more = f" (there are {len(problems) - 1} more problems: {command})" if problems[1:] else ""
        sys.stderr.write(f"check_corpus: error: {problems[0]}{more}\n")
    return 1


def describe_missing(corpus: Path, splits: list[str]) -> str:
    """One message for splits that are not there, with every way out."""
    folders = ", ".join(str(corpus / split) for split in splits)
    verb = "do" if len(splits) > 1 else "does"
    return (
        f"{folders} {verb} not exist. Link your copy of the corpus, ln -s /path/to/{corpus.name} "
        f"{corpus}; or download it, ./run.sh --stage download (stage 0); or choose other splits "
        "with --train-splits, --dev-splits and --test-splits"
    )


def find_chapters(split: Path) -> Iterator[Path]:
    """The folders ``<speaker>/<chapter>``; names with a leading dot are no part of the corpus."""
    for speaker in folders_in(split):
        yield from folders_in(speaker)


def folders_in(folder: Path) -> list[Path]:
    """Visible folders, sorted."""
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [folder / name for name in sorted(found)]


def check_chapter(folder: Path) -> list[str]:
    """The problems of one chapter, each a sentence that starts with a file and ends with advice."""
    with os.scandir(folder) as entries:
        # is_file: a link whose target is gone is no file
        files = [e for e in entries if e.name.endswith((".flac", ".txt")) and e.is_file()]
        sizes = {e.name: e.stat().st_size for e in files}
    prefix = f"{folder.parent.name}-{folder.name}"
    table = folder / f"{prefix}.trans.txt"
    audio = {name.removesuffix(".flac") for name in sizes if name.endswith(".flac")}
    if table.name not in sizes:
        return [f"{table} does not exist: unpack the chapter again, or remove its folder"]
    problems, seen = [], set()
    try:
        lines = list(text_lines(table))
    except UserError as error:
        return [str(error)]
    if not lines:
        problems.append(f"{table} is empty: unpack it again, or remove the folder {folder}")
    for number, line in enumerate(lines, 1):
        where = f"{table}, line {number}"
        name, _, text = line.strip().partition(" ")
        if not name:
            problems.append(f"{where} is empty: delete the line")
        elif name in seen:
            problems.append(f"{where}: {name} is there twice: delete one of the lines")
        elif not text.strip():
            problems.append(
                f"{where}: {name} has an empty transcript: "
                f"write its words behind its name, or delete the line and {name}.flac"
            )
        elif not name.startswith(f"{prefix}-"):
            problems.append(f"{where}: {name} does not belong to {prefix}: move or delete the line")
        elif name not in audio:
            problems.append(
                f"{folder / name}.flac does not exist, though {where} has its transcript: "
                "unpack it again, or delete the line"
            )
        seen.add(name)
    for name in sorted(audio):
        if name not in seen:
            problems.append(
                f"{folder / name}.flac has no transcript in {table}: add its line, or remove it"
            )
        if sizes[f"{name}.flac"] == 0:
            problems.append(f"{folder / name}.flac is empty: unpack it again")
    return problems


if __name__ == "__main__":
    sys.exit(main())
