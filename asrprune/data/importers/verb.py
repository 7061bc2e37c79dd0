"""Write manifests of a corpus from tables, Kaldi's data directories, cuts or lhotse's recipes.

Each SPLIT=PATH makes <corpus>_recordings_<split>.jsonl.gz and the manifest of its supervisions in
--out-dir. Texts are converted to NFC. Utterances that are left out are counted, and listed in
<corpus>_left_out_<split>.tsv.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from asrprune.base.arguments import true_or_false
from asrprune.base.environment import usable_cores
from asrprune.base.errors import UserError
from asrprune.data.importers import kaldi, prepared, tables
from asrprune.data.importers.split import Options, write_entries, write_utterances
from asrprune.data.invisible import CHOICES

WAYS = {
    "tables": "TSV, CSV or JSONL files with the columns path and text",
    "kaldi": "data directories with wav.scp and text",
    "cuts": "lhotse's cut manifests",
    "lhotse": "a folder that lhotse prepare has written; SPLIT is one of its parts",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune manifests``."""
    described = "; ".join(f"{way}: {text}" for way, text in WAYS.items())
    parser.add_argument("--from", dest="way", choices=WAYS, required=True, help=described)
    parser.add_argument(
        "--ignore-features",
        type=true_or_false,
        default=False,
        help="of cuts: compute features anew from the recordings, whatever cuts have",
    )
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that a recipe's own script also has."""
    parser.add_argument("splits", nargs="+", metavar="SPLIT=PATH", help="such as train=train.tsv")
    parser.add_argument("--corpus", required=True, help="the first word of the manifests' names")
    parser.add_argument("--out-dir", type=Path, required=True, help="gets the manifests")
    parser.add_argument(
        "--audio-dir", type=Path, help="what relative paths of audio are relative to"
    )
    parser.add_argument(
        "--bad-audio",
        choices=("error", "skip"),
        default="error",
        help="audio that is missing or cannot be decoded: stop, or leave it out and list it",
    )
    parser.add_argument(
        "--empty-text",
        choices=("error", "skip"),
        default="skip",
        help="utterances without a text: stop, or leave them out and list them",
    )
    parser.add_argument(
        "--longest", type=float, default=300.0, help="seconds that an utterance may have"
    )
    parser.add_argument(
        "--invisible-characters",
        choices=CHOICES,
        default="strip",
        help="zero-width spaces, marks and controls in texts: take them out, but for those that "
        "change how letters are read (U+200C, U+200D and their kind); take these out as well; or "
        "keep all. They are counted and named in any case",
    )
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")


def main(args: argparse.Namespace) -> None:
    """Write the manifests of each split."""
    options = options_of(args)
    if args.ignore_features and args.way != "cuts":
        raise UserError("--ignore-features: only --from cuts may have features")
    if args.audio_dir and args.way == "lhotse":
        raise UserError("--audio-dir: what lhotse prepares says itself where audio is")
    for split, path in paths_of(args.splits).items():
        WRITERS[args.way](options, split, path, args)


def options_of(args: argparse.Namespace) -> Options:
    """Return the options of all importers from the command line."""
    return Options(
        corpus=args.corpus,
        out_dir=args.out_dir,
        bad_audio=args.bad_audio,
        empty_text=args.empty_text,
        longest=args.longest,
        invisible=args.invisible_characters,
        audio_dir=args.audio_dir,
        jobs=args.jobs,
    )


def paths_of(words: list[str]) -> dict[str, Path]:
    """Return the path of each split, from arguments such as ``train=train.tsv``.

    Raises:
        UserError: An argument has another form, or a split comes twice.
    """
    paths: dict[str, Path] = {}
    for word in words:
        split, equals, path = word.partition("=")
        if not (equals and path and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", split)):
            raise UserError(f"{word!r} is no SPLIT=PATH, such as train=train.tsv")
        if split in paths:
            raise UserError(f"{split} comes twice, as {paths[split]} and as {path}")
        paths[split] = Path(path)
    return paths


def _tables(options: Options, split: str, path: Path, _: argparse.Namespace) -> None:
    utterances = tables.read_table(path, options.audio_dir)
    write_utterances(options, split, utterances, tables.CUT)


def _kaldi(options: Options, split: str, path: Path, _: argparse.Namespace) -> None:
    utterances = kaldi.read_data_dir(path, options.audio_dir)
    write_utterances(options, split, utterances, kaldi.CUT)


def _cuts(options: Options, split: str, path: Path, args: argparse.Namespace) -> None:
    # only this importer needs lhotse, whose import takes seconds
    from asrprune.data.importers.cuts import write_cuts

    write_cuts(options, split, path, args.ignore_features)


def _lhotse(options: Options, split: str, path: Path, _: argparse.Namespace) -> None:
    write_entries(options, split, prepared.read_prepared(path, split), prepared.CUT)


WRITERS: dict[str, Callable[[Options, str, Path, argparse.Namespace], None]] = {
    "tables": _tables,
    "kaldi": _kaldi,
    "cuts": _cuts,
    "lhotse": _lhotse,
}
