"""Write a rehearsal corpus that consists of wav files and tables of paths and texts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asrprune.rehearsal import table_layout as layout
from asrprune.rehearsal.espeak import Espeak, find_library
from asrprune.rehearsal.room_acoustics import Acoustics
from asrprune.rehearsal.speech import Shape, utterance
from asrprune.rehearsal.table_layout import SPLITS, UTTERANCES_PER_BATCH, Batch
from asrprune.rehearsal.text import TEXTS, spell
from asrprune.rehearsal.units import (
    SnrRange,
    acoustics_of,
    claim_folder,
    evaluation_hours,
    specification,
    write_missing,
)
from asrprune.rehearsal.voices import english_speaker

VERSION = 1  # version of text and speech; raise it when equal options would give other files
SHAPE = Shape(median_wish=3.0, spread=0.5, longest=10.0)
RATE = 8000  # Hz, as on the telephone; recipes resample
MEAN_SECONDS = 4.2  # measured mean duration of an utterance of this shape

log = logging.getLogger(__name__)


def rehearse_table(
    out_dir: Path,
    train_hours: float,
    seed: int,
    jobs: int,
    *,
    test_hours: float | None = None,
    dev_hours: float | None = None,
    text: str = "sentences",
    snr_db: SnrRange | None = None,
) -> None:
    """Write ``train.tsv``, ``dev.tsv``, ``test.tsv`` and their audio, or finish writing them.

    A larger corpus contains all utterances of a smaller corpus of the same seed.

    Args:
        out_dir: the folder of the corpus.
        train_hours: hours of training speech.
        seed: seed of texts, voices and rooms.
        jobs: number of processes.
        test_hours: hours of test speech; None: by ``train_hours``.
        dev_hours: hours of development speech; None: by ``train_hours``.
        text: type of the sentences, a key of `TEXTS`.
        snr_db: lowest and highest signal-to-noise ratio in dB; None: the default range.

    Raises:
        UserError: the folder holds another corpus, espeak-ng or num2words is missing, or the disk
            is full.
    """
    acoustics = acoustics_of(snr_db)
    find_library()  # report missing packages before anything is written
    spell(0)
    claim_folder(
        out_dir, specification(VERSION, train_hours, seed, test_hours, dev_hours, text, snr_db)
    )
    hours = (train_hours, *evaluation_hours(train_hours, dev_hours, test_hours))
    plan = [
        batch
        for split, size in zip(SPLITS, hours, strict=True)
        for batch in layout.batches(split, num_batches(size))
    ]
    missing = [batch for batch in plan if not layout.is_written(out_dir, batch)]
    layout.remove_leftovers(out_dir)
    try:
        work = partial(speak_batches, out_dir, seed, text, acoustics)
        write_missing(work, plan, missing, UTTERANCES_PER_BATCH, jobs, "batches")
    finally:
        layout.remove_leftovers(out_dir)
    if missing or not layout.is_finished(out_dir):
        layout.write_tables(out_dir, plan)
    count = len(plan) * UTTERANCES_PER_BATCH
    log.info("%s is whole: synthetic speech, %d utterances", out_dir, count)


def num_batches(hours: float) -> int:
    """Return the number of batches for about this many hours, at least 1."""
    return max(1, round(hours * 3600 / (MEAN_SECONDS * UTTERANCES_PER_BATCH)))


def speak_batches(
    corpus: Path,
    seed: int,
    text: str,
    acoustics: Acoustics,
    batches: Sequence[Batch],
    progress: Callable[[int], None],
) -> None:
    """Write batches one after another. This is the work of one process.

    Args:
        corpus: folder of the corpus.
        seed: seed of texts, voices and rooms.
        text: type of the sentences, a key of `TEXTS`.
        acoustics: conditions of the recordings.
        batches: the batches to write.
        progress: called with the number of new utterances after each batch.
    """
    with Espeak() as espeak:
        for batch in batches:
            spoken = speak_batch(espeak, seed, batch, text, acoustics)
            layout.write_batch(corpus, batch, spoken, RATE)
            progress(UTTERANCES_PER_BATCH)


def speak_batch(
    espeak: Espeak, seed: int, batch: Batch, text: str, acoustics: Acoustics
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the text and the int16 samples of each utterance of a batch.

    Each utterance is a pure function of seed, split, speaker and number.
    """
    voice = english_speaker(seed, batch.split, batch.speaker_index).voice
    for number in batch.utterances:
        key = (seed, "table", batch.speaker, number)
        yield utterance(espeak, voice, TEXTS[text], SHAPE, acoustics, key, rate=RATE)
