"""Write a rehearsal corpus of several languages in CommonVoice's layout.

Each language has its own folder. The languages have unequal sizes.
"""

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

VERSION = 1  # version of text and speech; raise it when equal options would give other files
SHAPE = Shape(median_wish=3.0, spread=0.5, longest=10.0)  # people read one or two sentences
RATE = 32000  # Hz, as in recent releases of CommonVoice; recipes resample
MEAN_SECONDS = 4.5  # measured mean duration of an utterance of this shape

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
    """Write the splits train, dev and test of some languages, or finish writing them.

    Each language has the folder ``out_dir/cv-corpus-0.0-rehearsal/<language>``. The clips of a
    language do not depend on the other languages. A larger corpus contains all clips of a smaller
    corpus of the same seed.

    Args:
        out_dir: the folder of the corpus.
        train_hours: hours of training speech of a language of size 1. The other languages have
            this number times their size.
        seed: seed of texts, voices and rooms.
        jobs: number of processes.
        test_hours: hours of test speech of each language; None: by ``train_hours``.
        dev_hours: hours of development speech of each language; None: by ``train_hours``.
        text: type of the sentences, a key of `Language.texts`.
        snr_db: lowest and highest signal-to-noise ratio in dB; None: the default range.
        languages: codes of the languages.

    Raises:
        UserError: a language or its text is unknown, the folder holds another rehearsal corpus,
            espeak-ng or num2words is missing, or the disk is full.
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
    find_library()  # report missing packages before anything is written
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
    """Write the clips and the tables of one language, or finish writing them.

    Args:
        folder: folder of the language.
        language: code of the language.
        hours: hours of each split. The training hours are those of a language of size 1.
        seed: seed of texts, voices and rooms.
        jobs: number of processes.
        work: writes batches, and reports the number of clips after each batch.
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
    """Return the number of batches for about this many hours, at least 1."""
    return max(1, round(hours * 3600 / (MEAN_SECONDS * CLIPS_PER_BATCH)))


def speaker_of(language: str, seed: int, batch: Batch) -> Speaker:
    """Return the speaker of a batch. Two languages never share a speaker."""
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
    """Write batches one after another. This is the work of one process.

    Args:
        folder: folder of the language.
        language: code of the language.
        seed: seed of texts, voices and rooms.
        text: type of the sentences, a key of `Language.texts`.
        acoustics: conditions of the recordings.
        batches: the batches to write.
        progress: called with the number of new clips after each batch.
    """
    with Espeak() as espeak:
        for batch in batches:
            clips = speak_batch(espeak, language, seed, batch, text, acoustics)
            commonvoice.write_batch(folder, language, batch, clips, RATE)
            progress(CLIPS_PER_BATCH)


def speak_batch(
    espeak: Espeak, language: str, seed: int, batch: Batch, text: str, acoustics: Acoustics
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the sentence and the int16 samples of each clip of a batch.

    Each clip is a pure function of seed, language, speaker and number.
    """
    voice = speaker_of(language, seed, batch).voice
    sentence = LANGUAGES[language].texts[text]
    write = typographic if batch.speaker_index % 2 else typewritten
    for number in batch.clips:
        key = (seed, language, batch.split, batch.speaker_id, number)
        yield utterance(espeak, voice, sentence, SHAPE, acoustics, key, write, RATE)


def typewritten(sentence: str) -> str:
    """Return a sentence with a capital first letter."""
    start = next(k for k, character in enumerate(sentence) if character.isalpha())
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]


def typographic(sentence: str) -> str:
    """Return a sentence with a capital first letter and typographic apostrophes.

    The tables of real corpora mix typographic and typewriter apostrophes.
    """
    return typewritten(sentence).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
