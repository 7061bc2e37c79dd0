"""Check that a language of CommonVoice is there before anything is made of it.

    python3 local/check_corpus.py download/cv-corpus-21.0-2025-03-14 fr train dev test

CommonVoice cannot be fetched by a program: its licence is agreed to on a page. Here what is missing
is named with what to do, and every table is read, so that no run stops at a line hours later.
"""

import argparse
import os
import sys
from pathlib import Path

from tables import check_table

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.base.scripts import run_script

PAGE = "https://commonvoice.mozilla.org/datasets (releases since 23.0: Mozilla Data Collective)"
WAYS_OUT = (
    "Leave the language out of --langs, or choose other tables of it with --train-splits, "
    "--dev-splits and --test-splits"
)


def main() -> int:
    """Say what is there, or the first thing that is wrong."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="the folder of the languages")
    parser.add_argument("language", help="its code, such as fr or sv-SE")
    parser.add_argument("tables", nargs="+", help="train, dev, test, or any other")
    return run_script("check_corpus", lambda: check(parser.parse_args()))


def check(args: argparse.Namespace) -> None:
    """Check that the language's tables and clips are there.

    Args:
        args: the parsed command line of `main`.

    Raises:
        UserError: the language, a table or the clips are missing, a table has no utterance, or a
            line of a table is not in order.
    """
    folder = args.release / args.language
    if not folder.is_dir():
        raise UserError(explain_missing(args.release, args.language))
    for name in args.tables:
        if not check_table(folder / f"{name}.tsv"):
            raise UserError(
                f"{folder / name}.tsv has no utterance: {args.language} has no data for the split "
                f"{name}-{args.language}. {WAYS_OUT}; there are: {tables(folder)}"
            )
    if not has_files(folder / "clips"):
        raise UserError(f"{folder / 'clips'} holds no clips: unpack the language again")
    sys.stderr.write(f"check_corpus: {folder} is there\n")


def explain_missing(release: Path, language: str) -> str:
    """What to do about a language that is not there."""
    root = release.parent
    others = languages(release)
    if not release.is_dir():
        what = f"{release} does not exist"
    elif others:
        what = f"{release} has no language {language!r}; there are: {' '.join(others)}"
    else:
        what = f"{release} holds no language, such as {language}/train.tsv"
    found = sorted(path.name for path in root.glob("cv-corpus-*") if (path / language).is_dir())
    if found and release.name not in found:
        return f"{what}. It is in {' '.join(found)}: choose that with --release"
    return (
        f"{what}. Get {language} from {PAGE}, where the licence is agreed to, and unpack it in "
        f"{root}, which makes {root}/cv-corpus-<version>/{language}; or link your copy: "
        f"mkdir -p {root} && ln -s /path/to/cv-corpus-<version> {root}/. "
        "Or leave the language out of --langs"
    )


def has_files(folder: Path) -> bool:
    """Whether anything is in a folder, which may hold millions of files."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def languages(release: Path) -> list[str]:
    """The languages of a release."""
    return sorted(path.parent.name for path in release.glob("*/train.tsv"))


def tables(folder: Path) -> str:
    """The tables of clips of a language."""
    known = ("train", "dev", "test", "validated", "invalidated", "other")
    return " ".join(name for name in known if (folder / f"{name}.tsv").exists())


if __name__ == "__main__":
    sys.exit(main())
