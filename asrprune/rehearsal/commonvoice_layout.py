"""Write clips and tables in CommonVoice's directory layout.

The clips are ``<release>/<language>/clips/common_voice_<language>_<number>.mp3``. The tables are
``train.tsv``, ``dev.tsv``, ``test.tsv``, ``validated.tsv`` and ``clip_durations.tsv``. They have
the columns of the releases since 2024. A hidden folder records the written clips and their
sentences.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asrprune.base.files import atomic_path, write_text

RELEASE = "cv-corpus-0.0-rehearsal"
SPLITS = ("train", "dev", "test")
CLIPS_PER_BATCH = 8
NUM_SPEAKERS = {"train": 240, "dev": 40, "test": 40}
FIRST_SPEAKER = {"train": 1001, "dev": 5001, "test": 7001}
COLUMNS = (
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
)
GENDERS = {"F": "female_feminine", "M": "male_masculine"}
BATCHES = ".batches"  # hidden folder with a table of each complete batch


@dataclass(frozen=True)
class Batch:
    """Name some clips of one speaker that are written together."""

    split: str  # "train", "dev" or "test"
    speaker_index: int  # index of the speaker in the split
    number: int  # index of the batch among the speaker's batches

    @property
    def speaker_id(self) -> int:
        """Return the speaker's number, unique in the language."""
        return FIRST_SPEAKER[self.split] + self.speaker_index

    @property
    def clips(self) -> range:
        """Return the numbers of the batch's clips among the speaker's clips."""
        start = self.number * CLIPS_PER_BATCH
        return range(start, start + CLIPS_PER_BATCH)

    def names(self, language: str) -> list[str]:
        """Return the file names of the batch's clips."""
        numbers = [self.speaker_id * 10000 + clip for clip in self.clips]
        return [f"common_voice_{language}_{number}.mp3" for number in numbers]

    @property
    def table(self) -> Path:
        """Return the path of the batch's hidden table, relative to the language's folder."""
        return Path(BATCHES, f"{self.split}-{self.speaker_id}-{self.number}.tsv")


def batches(split: str, count: int) -> list[Batch]:
    """Return the first ``count`` batches of a split. More batches never change the earlier ones.

    Each batch has the next speaker, so a small corpus has as many voices as batches.
    """
    speakers = NUM_SPEAKERS[split]
    return [Batch(split, k % speakers, k // speakers) for k in range(count)]


def is_written(folder: Path, language: str, batch: Batch) -> bool:
    """Return whether a batch is complete: its clips and its hidden table, written last, exist."""
    names = batch.names(language)
    return (folder / batch.table).exists() and all((folder / "clips" / n).exists() for n in names)


def write_batch(
    folder: Path,
    language: str,
    batch: Batch,
    clips: Iterable[tuple[str, np.ndarray]],
    rate: int,
) -> None:
    """Write the clips of a batch, and then its hidden table. A file appears only when complete.

    Args:
        folder: folder of the language.
        language: code of the language.
        batch: the batch.
        clips: (sentence, int16 samples) of each clip.
        rate: sampling rate of the samples in Hz.

    Raises:
        UserError: the disk is full.
    """
    rows = []
    for name, (sentence, samples) in zip(batch.names(language), clips, strict=True):
        encoded = io.BytesIO()  # libsndfile hides the system's error when it writes a file itself
        soundfile.write(encoded, samples, rate, format="MP3")
        with atomic_path(folder / "clips" / name) as temporary:
            temporary.write_bytes(encoded.getvalue())
        rows.append(f"{name}\t{round(1000 * len(samples) / rate)}\t{sentence}\n")
    write_text(folder / batch.table, "".join(rows))


def is_finished(folder: Path) -> bool:
    """Return whether the tables exist. They are written last."""
    return (folder / "validated.tsv").exists()


def remove_leftovers(folder: Path) -> None:
    """Remove the incomplete files of a run that was killed."""
    for path in (*folder.glob("clips/.tmp-*"), *folder.glob(f"{BATCHES}/.tmp-*")):
        path.unlink(missing_ok=True)


def write_tables(folder: Path, language: str, plan: list[Batch], sexes: dict[Batch, str]) -> None:
    """Write ``clip_durations.tsv``, the table of each split, and ``validated.tsv`` as last file.

    Args:
        folder: folder of the language.
        language: code of the language.
        plan: all batches of the language, with their hidden tables written.
        sexes: the sex of each batch's speaker, "F" or "M".
    """
    durations = ["clip\tduration[ms]\n"]
    rows: dict[str, list[str]] = {split: [] for split in SPLITS}
    for batch in plan:
        for name, milliseconds, sentence in _read(folder / batch.table):
            durations.append(f"{name}\t{milliseconds}\n")
            rows[batch.split].append(_row(language, batch, sexes[batch], name, sentence))
    write_text(folder / "clip_durations.tsv", "".join(durations))
    head = "\t".join(COLUMNS) + "\n"
    for split in SPLITS:
        write_text(folder / f"{split}.tsv", head + "".join(rows[split]))
    write_text(
        folder / "validated.tsv", head + "".join(row for own in rows.values() for row in own)
    )


def _read(path: Path) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield line.split("\t")


def _row(language: str, batch: Batch, sex: str, name: str, sentence: str) -> str:
    client = f"{language} {batch.split} {batch.speaker_id}"
    values = {
        "client_id": hashlib.sha512(client.encode()).hexdigest(),
        "path": name,
        "sentence_id": hashlib.sha256(sentence.encode()).hexdigest(),
        "sentence": sentence,
        "up_votes": "2",
        "down_votes": "0",
        "gender": GENDERS[sex],
        "accents": "espeak-ng",
        "locale": language,
    }
    return "\t".join(values.get(column, "") for column in COLUMNS) + "\n"
