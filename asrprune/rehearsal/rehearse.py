"""Write rehearsal corpora: synthetic speech in a real corpus's layout, for a trial of a recipe.

``asrprune rehearse`` can be killed and started again: it keeps complete chapters. Equal options
give equal files for any number of jobs. To add a layout, add a function to ``LAYOUTS`` and a module
for its folders. All layouts share text, voices, speech, acoustics and the order of writing.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asrprune.base.environment import usable_cores
from asrprune.base.errors import UserError
from asrprune.rehearsal import librispeech_layout as librispeech
from asrprune.rehearsal.commonvoice import rehearse_commonvoice
from asrprune.rehearsal.espeak import Espeak, find_library
from asrprune.rehearsal.librispeech_layout import UTTERANCES_PER_CHAPTER, Chapter
from asrprune.rehearsal.phrases import LANGUAGES
from asrprune.rehearsal.room_acoustics import Acoustics
from asrprune.rehearsal.speech import SAMPLING_RATE, Shape, utterance
from asrprune.rehearsal.table import rehearse_table
from asrprune.rehearsal.text import TEXTS, spell
from asrprune.rehearsal.units import (
    SnrRange,
    acoustics_of,
    check_hours,
    claim_folder,
    evaluation_hours,
    specification,
    write_missing,
)
from asrprune.rehearsal.voices import english_speaker

VERSION = 1  # version of text and speech; raise it when equal options would give other files
SHAPE = Shape()
DEFAULT_ACOUSTICS = Acoustics()
MEAN_SECONDS = 6.5  # measured mean duration of an utterance of this shape

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune rehearse``."""
    parser.add_argument("--layout", choices=sorted(LAYOUTS), required=True, help="whose layout")
    parser.add_argument("--out-dir", type=Path, required=True, help="where the corpus goes")
    parser.add_argument(
        "--languages",
        nargs="+",
        help=f"of a layout with many, such as {' '.join(LANGUAGES)}; default: all of these",
    )
    parser.add_argument(
        "--train-hours",
        type=float,
        default=1.0,
        help="hours to train on, about; of English, where there are several languages: others have "
        "less",
    )
    parser.add_argument(
        "--dev-hours", type=float, help="hours to choose by; default: 0.1 for an hour of training"
    )
    parser.add_argument(
        "--test-hours", type=float, help="hours to test on; default: 0.3 for an hour of training"
    )
    parser.add_argument(
        "--text",
        choices=TEXTS,
        default="sentences",
        help="what is said; numbers, of some forty words, are learnt from less speech, and digits "
        "from still less",
    )
    parser.add_argument(
        "--snr-db",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="signal-to-noise ratios of utterances are between these; default: "
        f"{DEFAULT_ACOUSTICS.snr_db[0]:g} {DEFAULT_ACOUSTICS.snr_db[1]:g}",
    )
    parser.add_argument(
        "--utterances-per-speaker",
        type=int,
        metavar="N",
        help="number of utterances of each speaker, for LibriSpeech's layout; default: as many "
        "speakers as the real corpus has, with 8 or more utterances each",
    )
    parser.add_argument("--seed", type=int, default=0, help="of texts, voices and rooms")
    parser.add_argument(
        "--jobs", type=int, default=usable_cores(), help="processes; does not change the files"
    )


def main(args: argparse.Namespace) -> None:
    """Write a rehearsal corpus, or finish writing it."""
    check_hours(train=args.train_hours, dev=args.dev_hours, test=args.test_hours)
    if args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {args.jobs}")
    own = {} if args.languages is None else {"languages": args.languages}
    if own and args.layout not in MULTILINGUAL:
        raise UserError(f"--languages: the layout {args.layout} has but one")
    if args.utterances_per_speaker is not None:
        if args.layout != "librispeech":
            raise UserError(
                f"--utterances-per-speaker: the layout {args.layout} does not have this option. "
                "Leave it out, or choose --layout librispeech."
            )
        own["utterances_per_speaker"] = args.utterances_per_speaker
    LAYOUTS[args.layout](
        args.out_dir,
        args.train_hours,
        args.seed,
        args.jobs,
        test_hours=args.test_hours,
        dev_hours=args.dev_hours,
        text=args.text,
        snr_db=args.snr_db,
        **own,
    )


def rehearse_librispeech(
    out_dir: Path,
    train_hours: float,
    seed: int,
    jobs: int,
    *,
    test_hours: float | None = None,
    dev_hours: float | None = None,
    text: str = "sentences",
    snr_db: SnrRange | None = None,
    utterances_per_speaker: int | None = None,
) -> None:
    """Write train-clean-100, dev-clean and test-clean to ``out_dir/LibriSpeech``, or finish them.

    A larger corpus contains all utterances of a smaller corpus of the same seed.

    Args:
        out_dir: the folder above the corpus.
        train_hours: hours of training speech.
        seed: seed of texts, voices and rooms.
        jobs: number of processes.
        test_hours: hours of test speech; None: by ``train_hours``.
        dev_hours: hours of development speech; None: by ``train_hours``.
        text: type of the sentences, a key of `TEXTS`.
        snr_db: lowest and highest signal-to-noise ratio in dB; None: the default range.
        utterances_per_speaker: number of utterances of each speaker. None: as many speakers as the
            real corpus has.

    Raises:
        UserError: the number of utterances per speaker is impossible, the folder holds another
            rehearsal corpus, espeak-ng or num2words is missing, or the disk is full.
    """
    acoustics = acoustics_of(snr_db)
    find_library()  # report missing packages before anything is written
    spell(0)
    corpus = out_dir / "LibriSpeech"
    spec = specification(VERSION, train_hours, seed, test_hours, dev_hours, text, snr_db)
    size = UTTERANCES_PER_CHAPTER
    if utterances_per_speaker is not None:
        size = spec["utterances_per_speaker"] = utterances_per_speaker
    if size < 1:
        raise UserError(f"--utterances-per-speaker must be at least 1, not {size}")
    dev_hours, test_hours = evaluation_hours(train_hours, dev_hours, test_hours)
    plan = [
        chapter
        for split, group, hours in (
            ("train-clean-100", "train", train_hours),
            ("dev-clean", "dev", dev_hours),
            ("test-clean", "test", test_hours),
        )
        for chapter in librispeech.chapters(
            split, group, num_chapters(hours, size), utterances_per_speaker
        )
    ]
    claim_folder(corpus, spec)
    missing = [chapter for chapter in plan if not librispeech.is_written(corpus, chapter)]
    librispeech.remove_leftovers(corpus)
    try:
        work = partial(speak_chapters, corpus, seed, text, acoustics)
        write_missing(work, plan, missing, size, jobs, "chapters")
    finally:
        librispeech.remove_leftovers(corpus)
    if missing or not librispeech.is_finished(corpus):
        sexes = {c.speaker_id: english_speaker(seed, c.group, c.speaker_index).sex for c in plan}
        librispeech.write_tables(corpus, plan, sexes)
    log.info("%s is whole: synthetic speech, %d chapters", corpus, len(plan))


LAYOUTS: dict[str, Callable[..., None]] = {
    "commonvoice": rehearse_commonvoice,
    "librispeech": rehearse_librispeech,
    "table": rehearse_table,
}
MULTILINGUAL = ("commonvoice",)


def num_chapters(hours: float, size: int = UTTERANCES_PER_CHAPTER) -> int:
    """Return the number of chapters of ``size`` utterances for about so many hours, at least 1."""
    return max(1, round(hours * 3600 / (MEAN_SECONDS * size)))


def speak_chapters(
    corpus: Path,
    seed: int,
    text: str,
    acoustics: Acoustics,
    chapters: Sequence[Chapter],
    progress: Callable[[int], None],
) -> None:
    """Write chapters one after another. This is the work of one process.

    Args:
        corpus: folder of the corpus.
        seed: seed of texts, voices and rooms.
        text: type of the sentences, a key of `TEXTS`.
        acoustics: conditions of the recordings.
        chapters: the chapters to write.
        progress: called with the number of new utterances after each chapter.
    """
    with Espeak() as espeak:
        for chapter in chapters:
            librispeech.write_chapter(
                corpus,
                chapter,
                speak_chapter(espeak, seed, chapter, text, acoustics),
                SAMPLING_RATE,
            )
            progress(chapter.size)


def speak_chapter(
    espeak: Espeak,
    seed: int,
    chapter: Chapter,
    text: str = "sentences",
    acoustics: Acoustics = DEFAULT_ACOUSTICS,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the transcript and the int16 samples of each utterance of a chapter.

    Each utterance is a pure function of seed, split, speaker and number.
    """
    voice = english_speaker(seed, chapter.group, chapter.speaker_index).voice
    for number in chapter.utterances:
        key = (seed, chapter.split, chapter.speaker_id, number)
        yield utterance(espeak, voice, TEXTS[text], SHAPE, acoustics, key)
