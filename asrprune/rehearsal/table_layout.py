"""Write wav files and tables of a corpus that has no other files.

The tables ``train.tsv``, ``dev.tsv`` and ``test.tsv`` have the columns id, path, text and speaker.
The audio is in ``audio/<split>/<speaker>/<speaker>-<NNNN>.wav``. A hidden folder records the
written files and their texts.
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
BATCHES = ".batches"  # hidden folder with the rows of each complete batch


@dataclass(frozen=True)
class Batch:
    """Name some utterances of one speaker that are written together."""

    split: str  # "train", "dev" or "test"
    speaker_index: int  # index of the speaker in the split
    number: int  # index of the batch among the speaker's batches

    @property
    def speaker(self) -> str:
        """Return the speaker's name, unique in the corpus."""
        return f"{self.split}{self.speaker_index:03d}"

    @property
    def utterances(self) -> range:
        """Return the numbers of the batch's utterances among the speaker's utterances."""
        start = self.number * UTTERANCES_PER_BATCH
        return range(start, start + UTTERANCES_PER_BATCH)

    @property
    def ids(self) -> list[str]:
        """Return the ids of the batch's utterances, unique in the corpus."""
        return [f"{self.speaker}-{number:04d}" for number in self.utterances]

    def audio(self, ident: str) -> Path:
        """Return the path of an utterance's audio, relative to the corpus."""
        return Path("audio", self.split, self.speaker, f"{ident}.wav")

    @property
    def rows(self) -> Path:
        """Return the path of the hidden file with the batch's rows, relative to the corpus."""
        return Path(BATCHES, f"{self.speaker}-{self.number}.tsv")


def batches(split: str, count: int) -> list[Batch]:
    """Return the first ``count`` batches of a split. More batches never change the earlier ones.

    Each batch has the next speaker, so a small corpus has as many voices as batches.
    """
    speakers = NUM_SPEAKERS[split]
    return [Batch(split, k % speakers, k // speakers) for k in range(count)]


def is_written(corpus: Path, batch: Batch) -> bool:
    """Return whether a batch is complete: its audio and its rows, written last, exist."""
    files = (corpus / batch.audio(ident) for ident in batch.ids)
    return (corpus / batch.rows).exists() and all(path.exists() for path in files)


def write_batch(
    corpus: Path, batch: Batch, utterances: Iterable[tuple[str, np.ndarray]], rate: int
) -> None:
    """Write the audio of a batch, and then its rows. A file appears only when complete.

    Args:
        corpus: folder of the corpus.
        batch: the batch.
        utterances: (text, int16 samples) of each utterance.
        rate: sampling rate of the samples in Hz.

    Raises:
        UserError: the disk is full.
    """
    rows = []
    for ident, (text, samples) in zip(batch.ids, utterances, strict=True):
        encoded = io.BytesIO()  # libsndfile hides the system's error when it writes a file itself
        soundfile.write(encoded, samples, rate, format="WAV", subtype="PCM_16")
        with atomic_path(corpus / batch.audio(ident)) as temporary:
            temporary.write_bytes(encoded.getvalue())
        rows.append(f"{ident}\t{batch.audio(ident)}\t{text}\t{batch.speaker}\n")
    write_text(corpus / batch.rows, "".join(rows))


def is_finished(corpus: Path) -> bool:
    """Return whether the tables exist. They are written last."""
    return (corpus / f"{SPLITS[-1]}.tsv").exists()


def remove_leftovers(corpus: Path) -> None:
    """Remove the incomplete files of a run that was killed."""
    for path in (*corpus.glob("audio/*/*/.tmp-*"), *corpus.glob(f"{BATCHES}/.tmp-*")):
        path.unlink(missing_ok=True)


def write_tables(corpus: Path, plan: Iterable[Batch]) -> None:
    """Write the table of each split. The table of the test set is the last file of the corpus."""
    rows: dict[str, list[str]] = {split: ["\t".join(COLUMNS) + "\n"] for split in SPLITS}
    for batch in plan:
        rows[batch.split].append((corpus / batch.rows).read_text(encoding="utf-8"))
    for split, lines in rows.items():
        write_text(corpus / f"{split}.tsv", "".join(lines))
