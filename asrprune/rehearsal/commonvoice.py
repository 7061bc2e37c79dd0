"""The rehearsal of a corpus of many languages: each in a folder of its own, of unequal sizes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asrprune.base.errors import UserError, nearest
from asrprune.rehearsal import commonvoice_layout as commonvoice
from asrprune.rehearsal.commonvoice_layout import CLIPS_PER_BATCH, RELEASE, SPLITS, Batch
from asrprune.rehearsal.espeak import Espeak, find_library
from asrprune.rehearsal.phrases import LANGUAGES
from asrprune.rehearsal.room_acoustics import Acoustics
from asrprune.rehearsal.speech import Shape, utterance
from asrprune.rehearsal.text import spell
from asrprune.rehearsal.units import (
    SnrRange,
    acoustics_of,
    claim_folder,
    evaluation_hours,
    specification,
    write_missing,
)
from asrprune.rehearsal.voices import Speaker, speaker

VERSION = 1  # of what is said and how: raise it when equal options would give other files
SHAPE = Shape(median_wish=3.0, spread=0.5, longest=10.0)  # people read one sentence or two
RATE = 32000  # Hz, as in the releases of today; recipes resample
MEAN_SECONDS = 4.5  # of an utterance of this shape, as measured; turns hours into batches

log = logging.getLogger(__name__)


def rehearse_commonvoice(
    out_dir: Path,
    train_hours: float,
    seed: int,
    jobs: int,
    *,
    test_hours: float | None = None,
    dev_hours: float | None = None,
    text: str = "sentences",
    snr_db: SnrRange | None = None,
    languages: Sequence[str] = tuple(LANGUAGES),
) -> None:
    """``out_dir/cv-corpus-0.0-rehearsal/<language>`` with the splits train, dev and test.

    A language has the same clips whatever other languages there are, and a larger corpus of the
    same seed holds the smaller one's.

    Args:
        train_hours: of a language of size 1; the others have less by their size.
        test_hours: of each language; so are ``dev_hours``.

    Raises:
        UserError: there is no such language, another rehearsal corpus is there, no espeak-ng, disk
            full.
    """
    for language in languages:
        if language not in LANGUAGES:
            raise UserError(
                f"--languages: there is no rehearsal in {language!r}{nearest(language, LANGUAGES)};"
                f" there are: {' '.join(LANGUAGES)}"
            )
        if text not in LANGUAGES[language].texts:
            raise UserError(f"--text {text}: there is no such text in the language {language}")
    acoustics = acoustics_of(snr_db)
    find_library()  # say what is missing before anything is written
    spell(0)
    spec = specification(VERSION, train_hours, seed, test_hours, dev_hours, text, snr_db)
    hours = (train_hours, *evaluation_hours(train_hours, dev_hours, test_hours))
    for language in dict.fromkeys(languages):
        folder = out_dir / RELEASE / language
        claim_folder(folder, spec)
        work = partial(speak_batches, folder, language, seed, text, acoustics)
        write_language(folder, language, dict(zip(SPLITS, hours, strict=True)), seed, jobs, work)


def write_language(
    folder: Path,
    language: str,
    hours: dict[str, float],
    seed: int,
    jobs: int,
    work: Callable[[Sequence[Batch], Callable[[int], None]], None],
) -> None:
    """Write, or finish, the clips and the tables of one language.

    Args:
        folder: of the language.
        language: its code.
        hours: of each split, for a language of size 1.
        seed: of texts, voices and rooms.
        jobs: processes.
        work: writes batches, and reports how many clips it has written.
    """
    hours = {**hours, "train": hours["train"] * LANGUAGES[language].size}
    plan = [
        batch for split in SPLITS for batch in commonvoice.batches(split, num_batches(hours[split]))
    ]
    missing = [batch for batch in plan if not commonvoice.is_written(folder, language, batch)]
    commonvoice.remove_leftovers(folder)
    try:
        write_missing(work, plan, missing, CLIPS_PER_BATCH, jobs, f"batches of {language}")
    finally:
        commonvoice.remove_leftovers(folder)
    if missing or not commonvoice.is_finished(folder):
        sexes = {batch: speaker_of(language, seed, batch).sex for batch in plan}
        commonvoice.write_tables(folder, language, plan, sexes)
    log.info("%s is whole: synthetic speech, %d clips", folder, len(plan) * CLIPS_PER_BATCH)


def num_batches(hours: float) -> int:
    """Batches that hold about this many hours, at least one."""
    return max(1, round(hours * 3600 / (MEAN_SECONDS * CLIPS_PER_BATCH)))


def speaker_of(language: str, seed: int, batch: Batch) -> Speaker:
    """Who speaks a batch: speakers of different languages are different ones."""
    accents = LANGUAGES[language].accents
    return speaker(accents, seed, batch.split, batch.speaker_index, language)


def speak_batches(
    folder: Path,
    language: str,
    seed: int,
    text: str,
    acoustics: Acoustics,
    batches: Sequence[Batch],
    progress: Callable[[int], None],
) -> None:
    """Write batches one after another; the work of one process."""
    with Espeak() as espeak:
        for batch in batches:
            clips = speak_batch(espeak, language, seed, batch, text, acoustics)
            commonvoice.write_batch(folder, language, batch, clips, RATE)
            progress(CLIPS_PER_BATCH)


def speak_batch(
    espeak: Espeak, language: str, seed: int, batch: Batch, text: str, acoustics: Acoustics
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (sentence, int16 samples), each a function of (seed, language, speaker, number)."""
    voice = speaker_of(language, seed, batch).voice
    sentence = LANGUAGES[language].texts[text]
    write = typographic if batch.speaker_index % 2 else typewritten
    for number in batch.clips:
        key = (seed, language, batch.split, batch.speaker_id, number)
        yield utterance(espeak, voice, sentence, SHAPE, acoustics, key, write, RATE)


def typewritten(sentence: str) -> str:
    """A sentence as it is printed: it begins with a capital."""
    start = next(k for k, character in enumerate(sentence) if character.isalpha())
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]


def typographic(sentence: str) -> str:
    """The same with the apostrophes of books, which real tables mix with those of keyboards."""
    return typewritten(sentence).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
