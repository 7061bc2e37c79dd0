"""Manifests of one language of CommonVoice: its tables, its clips, and the text to train on.

    python3 local/prepare.py --language fr --tables train dev test \\
        download/cv-corpus-21.0-2025-03-14 data/manifests

A table, such as ``train``, becomes the split ``train-fr``. Utterances whose text cannot be trained
on are left out, counted by reason and listed; so are, by option, those whose clip is missing or
cannot be decoded. lhotse's own preparation is not used: it needs columns that older releases lack,
and leaves out in silence what is missing.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from check_corpus import WAYS_OUT
from normalise import PROBLEMS, normalise, problem
from tables import Utterance, check_table, read_table

from asrprune.base.arguments import Parser, share
from asrprune.base.environment import usable_cores
from asrprune.base.errors import UserError
from asrprune.base.files import write_text
from asrprune.base.scripts import run_script
from asrprune.data.diagnosis import UNUSABLE, Unusable
from asrprune.data.header import Header, read_header
from asrprune.data.invisible import Tally
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.names import explain_missing
from asrprune.data.parallel import progress_bar, run_parts

CORPUS = "commonvoice"  # the first word of the manifests' names
PART = 500  # utterances that one worker deals with at a time
FILTERED = 0.1  # share of a split that may be left out for its text without being asked
BAD_AUDIO = {
    "missing-clip": "the clip does not exist",
    **UNUSABLE,
}

log = logging.getLogger("prepare")


@dataclass(frozen=True)
class Rejection:
    """An utterance that is left out."""

    clip: str
    line: int
    reason: str
    detail: str
    mend: str = "Unpack the language again"  # what to do about it


@dataclass
class Prepared:
    """Manifest lines of some utterances, and what was left out."""

    recordings: list[bytes] = field(default_factory=list)
    supervisions: list[bytes] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    invisible: Tally = field(default_factory=Tally)  # in its sentences
    seconds: float = 0.0


def main() -> int:
    """Write the manifests of each table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="the folder of the languages")
    parser.add_argument("manifest_dir", type=Path, help="gets the manifests")
    parser.add_argument("--language", required=True, help="its code, such as fr or sv-SE")
    parser.add_argument("--tables", nargs="+", required=True, help="such as train dev test")
    parser.add_argument(
        "--bad-audio",
        choices=("error", "skip"),
        default="error",
        help="clips that are missing or cannot be decoded: stop, or leave them out and list them",
    )
    parser.add_argument(
        "--allow-rejected",
        type=share,
        default=0.0,
        help=f"share of a split, 0 to 1, that may be left out for its text; {FILTERED:g} always",
    )
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")
    args = parser.parse_args()
    return run_script("prepare", lambda: prepare_all(args))


def prepare_all(args: argparse.Namespace) -> None:
    """Write the manifests of all tables."""
    for name in args.tables:
        prepare(args, name)


def prepare(args: argparse.Namespace, name: str) -> None:
    """Write the manifests of one table.

    Raises:
        UserError: the table is missing or damaged, clips are, or too little is left.
    """
    table = args.release / args.language / f"{name}.tsv"
    split = f"{name}-{args.language}"
    count = check_table(table)
    paths = {
        kind: args.manifest_dir / f"{CORPUS}_{kind}_{split}.jsonl.gz"
        for kind in ("recordings", "supervisions")
    }
    work = partial(prepare_part, args.release / args.language / "clips", args.language)
    jobs = min(args.jobs, -(-count // (4 * PART)))  # starting a process takes seconds
    rejections: list[Rejection] = []
    invisible = Tally()
    kept, seconds = 0, 0.0
    with (
        write_lines(paths["recordings"]) as recordings,
        write_lines(paths["supervisions"]) as supervisions,
        progress_bar(count, f"manifests of {split}", "utterance") as bar,
    ):
        for _, part in run_parts(work, parts(read_table(table)), jobs, bar):
            recordings.writelines(part.recordings)
            supervisions.writelines(part.supervisions)
            rejections += part.rejections
            invisible.merge(part.invisible)
            kept += len(part.supervisions)
            seconds += part.seconds
        judge(args, table, count, rejections)
    listed = args.manifest_dir / f"{CORPUS}_left_out_{split}.tsv"
    rows = ["clip\tline\treason\tdetail"]
    rows += [f"{r.clip}\t{r.line}\t{r.reason}\t{r.detail}" for r in rejections]
    write_text(listed, "\n".join(rows) + "\n")
    log.info("%s: %d utterances, %.2f h", split, kept, seconds / 3600)
    if found := invisible.described():
        fate = "taken out, save U+200C and U+200D where the language has them"
        log.warning("%s: sentences hold characters that nobody sees (%s): %s", split, fate, found)
    if rejections:
        level = logging.INFO if name == "train" else logging.WARNING
        consequence = "" if name == "train" else ", which changes its error rates"
        what = f"{len(rejections)} of {count} left out{consequence} ({reasons(rejections)})"
        log.log(level, "%s: %s; listed in %s", split, what, listed.name)


def parts(utterances: Iterator[Utterance]) -> Iterator[list[Utterance]]:
    """Some utterances at a time, since the tables of large languages have millions."""
    while part := list(islice(utterances, PART)):
        yield part


def prepare_part(
    clips: Path, language: str, utterances: list[Utterance], advance: Callable[[int], None]
) -> Prepared:
    """Manifest lines of some utterances; the work of one process."""
    result = Prepared()
    for utterance in utterances:
        advance(1)
        text = normalise(utterance.sentence, language)
        result.invisible.add(utterance.sentence, f"{utterance.clip} (line {utterance.line})")
        if found := problem(text, language):
            result.rejections.append(reject(utterance, *found))
            continue
        path = clips / utterance.clip
        if not path.exists():
            result.rejections.append(reject(utterance, "missing-clip", explain_missing(path)))
            continue
        try:
            audio = read_header(path)
        except Unusable as error:
            rejection = reject(utterance, error.reason, str(error))
            result.rejections.append(replace(rejection, mend=error.mend))
            continue
        if not audio.frames:
            result.rejections.append(reject(utterance, "undecodable", f"{path}, no samples"))
            continue
        # ids of one number may be of clips in two languages
        name = f"{language}-{utterance.name}"
        duration = audio.frames / audio.rate
        result.seconds += duration
        result.recordings.append(to_line(recording(name, path, audio)))
        result.supervisions.append(to_line(supervision(name, utterance, text, language, duration)))
    return result


def reject(utterance: Utterance, reason: str, detail: str) -> Rejection:
    """The verdict on an utterance; the detail in one line."""
    return Rejection(utterance.clip, utterance.line, reason, " ".join(detail.split()))


def recording(name: str, path: Path, audio: Header) -> dict:
    """A recording as lhotse reads it, at the rate of its file: stage 2 resamples."""
    channels = list(range(audio.channels))
    return {
        "id": name,
        "sources": [{"type": "file", "channels": channels, "source": str(path)}],
        "sampling_rate": audio.rate,
        "num_samples": audio.frames,
        "duration": audio.frames / audio.rate,
        "channel_ids": channels,
    }


def supervision(name: str, utterance: Utterance, text: str, language: str, duration: float) -> dict:
    """A supervision as lhotse reads it."""
    entry = {
        "id": name,
        "recording_id": name,
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "text": text,
        "language": language,
        "speaker": utterance.speaker,
    }
    if utterance.gender:
        entry["gender"] = utterance.gender
    return {**entry, "custom": utterance.details} if utterance.details else entry


def judge(args: argparse.Namespace, table: Path, count: int, rejections: list[Rejection]) -> None:
    """Stop where clips are bad or too much of a split would be left out.

    Raises:
        UserError: names the first of them, the reasons and the way out.
    """
    split = f"{table.stem}-{args.language}"
    bad = [rejection for rejection in rejections if rejection.reason in BAD_AUDIO]
    texts = [rejection for rejection in rejections if rejection.reason in PROBLEMS]
    if bad and args.bad_audio == "error":
        raise UserError(
            f"{table}, line {bad[0].line}: {BAD_AUDIO[bad[0].reason]} ({bad[0].detail}); "
            f"{len(bad)} of {count} clips are such ({reasons(bad)}). "
            f"{bad[0].mend}; or leave such clips out with --bad-audio skip"
        )
    if len(texts) > max(FILTERED, args.allow_rejected) * count:
        first = texts[0]
        raise UserError(
            f"{table}: {len(texts)} of {count} texts cannot be trained on ({reasons(texts)}), such "
            f"as line {first.line}: {PROBLEMS[first.reason]} ({first.detail}).{frequent(texts)} "
            f"Mend the alphabet of {args.language} in local/alphabets.py, or leave them out with "
            f"--allow-rejected {-(-1000 * len(texts) // count) / 1000}"
        )
    if len(rejections) == count:
        why = f" ({reasons(rejections)})" if count else ""
        raise UserError(
            f"{table}: no utterance is left of {count}{why}: {args.language} has no data for the "
            f"split {split}. {WAYS_OUT}"
        )


def frequent(texts: list[Rejection]) -> str:
    """The letters outside of the alphabet, the most frequent ones first."""
    odd = Counter(c for r in texts if r.reason == "letters" for c in r.detail.split())
    first = sorted(odd, key=lambda character: (-odd[character], character))[:20]
    return f" The letters are, the most frequent first: {' '.join(first)}." if first else ""


def reasons(rejections: Iterable[Rejection]) -> str:
    """How many for each reason, the most frequent first."""
    counts = Counter(rejection.reason for rejection in rejections)
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
