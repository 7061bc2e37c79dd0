"""The layout of a corpus that is nothing but tables and wav files: what a rehearsal has of it.

``train.tsv``, ``dev.tsv`` and ``test.tsv`` with the columns id, path, text and speaker, beside
``audio/<split>/<speaker>/<speaker>-<NNNN>.wav``. A hidden folder remembers which files are written,
and what is said in them.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asrprune.base.files import atomic_path, write_text

SPLITS = ("train", "dev", "test")
UTTERANCES_PER_BATCH = 8
NUM_SPEAKERS = {"train": 240, "dev": 40, "test": 40}
COLUMNS = ("id", "path", "text", "speaker")
BATCHES = ".batches"  # hidden: the rows of each batch that is whole


@dataclass(frozen=True)
class Batch:
    """Some utterances of one speaker, which are written together."""

    split: str  # "train", "dev" or "test"
    speaker_index: int  # within the split
    number: int  # of the speaker's batches, from 0

    @property
    def speaker(self) -> str:
        """Unique in the corpus."""
        return f"{self.split}{self.speaker_index:03d}"

    @property
    def utterances(self) -> range:
        """Numbers of the utterances among the speaker's."""
        start = self.number * UTTERANCES_PER_BATCH
        return range(start, start + UTTERANCES_PER_BATCH)

    @property
    def ids(self) -> list[str]:
        """Unique in the corpus."""
        return [f"{self.speaker}-{number:04d}" for number in self.utterances]

    def audio(self, ident: str) -> Path:
        """The file of an utterance, relative to the corpus."""
        return Path("audio", self.split, self.speaker, f"{ident}.wav")

    @property
    def rows(self) -> Path:
        """What remembers the rows of the table, relative to the corpus."""
        return Path(BATCHES, f"{self.speaker}-{self.number}.tsv")


def batches(split: str, count: int) -> list[Batch]:
    """The first ``count`` batches of a split; more batches never change the earlier ones.

    Speakers come one after another, so a small corpus has as many voices as batches.
    """
    speakers = NUM_SPEAKERS[split]
    return [Batch(split, k % speakers, k // speakers) for k in range(count)]


def is_written(corpus: Path, batch: Batch) -> bool:
    """A batch's rows come after its audio."""
    files = (corpus / batch.audio(ident) for ident in batch.ids)
    return (corpus / batch.rows).exists() and all(path.exists() for path in files)


def write_batch(
    corpus: Path, batch: Batch, utterances: Iterable[tuple[str, np.ndarray]], rate: int
) -> None:
    """Write the audio of a batch, each file of which appears when it is whole, and then its rows.

    Args:
        utterances: (text, int16 samples).

    Raises:
        UserError: the disk is full.
    """
    rows = []
    for ident, (text, samples) in zip(batch.ids, utterances, strict=True):
        encoded = io.BytesIO()  # in memory, because libsndfile hides why it cannot write
        soundfile.write(encoded, samples, rate, format="WAV", subtype="PCM_16")
        with atomic_path(corpus / batch.audio(ident)) as temporary:
            temporary.write_bytes(encoded.getvalue())
        rows.append(f"{ident}\t{batch.audio(ident)}\t{text}\t{batch.speaker}\n")
    write_text(corpus / batch.rows, "".join(rows))


def is_finished(corpus: Path) -> bool:
    """Whether the tables, which come last, are there."""
    return (corpus / f"{SPLITS[-1]}.tsv").exists()


def remove_leftovers(corpus: Path) -> None:
    """Remove the half-written files of a run that was killed."""
    for path in (*corpus.glob("audio/*/*/.tmp-*"), *corpus.glob(f"{BATCHES}/.tmp-*")):
        path.unlink(missing_ok=True)


def write_tables(corpus: Path, plan: Iterable[Batch]) -> None:
    """The table of each split; that of the test set is the last file of a corpus that is whole."""
    rows: dict[str, list[str]] = {split: ["\t".join(COLUMNS) + "\n"] for split in SPLITS}
    for batch in plan:
        rows[batch.split].append((corpus / batch.rows).read_text(encoding="utf-8"))
    for split, lines in rows.items():
        write_text(corpus / f"{split}.tsv", "".join(lines))
