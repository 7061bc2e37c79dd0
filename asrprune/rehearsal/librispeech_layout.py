"""Write chapters and tables in LibriSpeech's directory layout.

Audio is in ``<split>/<speaker>/<chapter>/<speaker>-<chapter>-<NNNN>.flac``. Transcripts are in
``<speaker>-<chapter>.trans.txt`` in the same folder. The tables ``SPEAKERS.TXT`` and
``CHAPTERS.TXT`` are in the folder of the splits.
"""

import io
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.base.files import explain_failed_write, flush_to_disk, write_text

UTTERANCES_PER_CHAPTER = 8
NUM_SPEAKERS = {"train": 251, "dev": 40, "test": 40}  # as in the real corpus
FIRST_SPEAKER = {"train": 1001, "dev": 5001, "test": 7001}
MAX_SPEAKERS = {"train": 4000, "dev": 2000, "test": 3000}  # so that identifiers are unique


@dataclass(frozen=True)
class Chapter:
    """Name some utterances of one speaker that are written together."""

    split: str  # such as "train-clean-100"
    group: str  # "train", "dev" or "test"
    speaker_index: int  # index of the speaker in the group
    number: int  # index of the chapter among the speaker's chapters
    size: int = UTTERANCES_PER_CHAPTER  # number of utterances

    @property
    def speaker_id(self) -> int:
        """Return the speaker's number, unique in the corpus."""
        return FIRST_SPEAKER[self.group] + self.speaker_index

    @property
    def id(self) -> int:
        """Return the chapter's number, unique in the corpus."""
        return self.speaker_id * 10000 + self.number

    @property
    def folder(self) -> Path:
        """Return the path of the chapter, relative to the corpus."""
        return Path(self.split, str(self.speaker_id), str(self.id))

    @property
    def utterances(self) -> range:
        """Return the numbers of the chapter's utterances among the speaker's utterances."""
        return range(self.number * self.size, (self.number + 1) * self.size)


def chapters(
    split: str, group: str, count: int, utterances_per_speaker: int | None = None
) -> list[Chapter]:
    """Return the first chapters of a split. More chapters never change the earlier ones.

    Each chapter has the next speaker, so a small corpus has as many voices as chapters.

    Args:
        split: the name of the split.
        group: the group of the speakers, "train", "dev" or "test".
        count: number of chapters.
        utterances_per_speaker: each speaker has one chapter of so many utterances. None: as many
            speakers as the real corpus has, with chapters of `UTTERANCES_PER_CHAPTER` each.

    Raises:
        UserError: there are not enough identifiers for so many speakers.
    """
    if utterances_per_speaker is not None:
        if count > (maximum := MAX_SPEAKERS[group]):
            raise UserError(
                f"--utterances-per-speaker {utterances_per_speaker}: {split} would have {count} "
                f"speakers, and the maximum is {maximum}. Choose fewer hours or more utterances."
            )
        return [Chapter(split, group, k, 0, utterances_per_speaker) for k in range(count)]
    speakers = NUM_SPEAKERS[group]
    return [Chapter(split, group, k % speakers, k // speakers) for k in range(count)]


def is_written(corpus: Path, chapter: Chapter) -> bool:
    """Return whether a chapter is complete. Its folder exists only then."""
    return (corpus / chapter.folder).is_dir()


def write_chapter(
    corpus: Path, chapter: Chapter, utterances: Iterable[tuple[str, np.ndarray]], rate: int
) -> None:
    """Write a chapter to a temporary folder, and rename the folder when it is complete.

    Args:
        corpus: folder of the corpus.
        chapter: the chapter.
        utterances: (transcript, int16 samples) of each utterance.
        rate: sampling rate of the samples in Hz.

    Raises:
        UserError: the disk is full.
    """
    folder = corpus / chapter.folder
    temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    name = f"{chapter.speaker_id}-{chapter.id}"
    with explain_failed_write(folder):
        temporary.mkdir(parents=True)
    try:
        lines = []
        for number, (text, samples) in enumerate(utterances):
            # Encode in memory: libsndfile hides the system's error when it writes a file itself.
            encoded = io.BytesIO()
            soundfile.write(encoded, samples, rate, format="FLAC", subtype="PCM_16")
            _write(temporary, folder, f"{name}-{number:04d}.flac", encoded.getvalue())
            lines.append(f"{name}-{number:04d} {text}\n")
        _write(temporary, folder, f"{name}.trans.txt", "".join(lines).encode())
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # an existing folder has the same bytes, from a killed run
                raise
        flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(temporary: Path, folder: Path, name: str, content: bytes) -> None:
    with explain_failed_write(folder / name):
        (temporary / name).write_bytes(content)
        flush_to_disk(temporary / name)


def is_finished(corpus: Path) -> bool:
    """Return whether the tables exist. They are written last."""
    return (corpus / "SPEAKERS.TXT").exists()


def remove_leftovers(corpus: Path) -> None:
    """Remove the incomplete chapters of a run that was killed."""
    for folder in corpus.glob("*/*/.tmp-*"):
        shutil.rmtree(folder, ignore_errors=True)


def write_tables(corpus: Path, written: list[Chapter], sexes: dict[int, str]) -> None:
    """Write ``CHAPTERS.TXT``, and then ``SPEAKERS.TXT`` as the last file of the corpus.

    Args:
        corpus: folder of the corpus.
        written: all chapters of the corpus.
        sexes: speaker id -> "F" or "M".
    """
    minutes = {
        chapter: _minutes(corpus / chapter.folder)
        for chapter in tqdm(written, desc="tables", unit="chapter", leave=False)
    }
    of_speaker: dict[tuple[int, str], float] = defaultdict(float)
    for chapter, length in minutes.items():
        of_speaker[chapter.speaker_id, chapter.split] += length
    table = ["; ID      |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE"]
    table += [
        f"{chapter.id:<10}|{chapter.speaker_id:<6}|{length:<7.2f}|"
        f" {chapter.split:<17}|0     |0      | synthetic speech"
        for chapter, length in sorted(minutes.items(), key=lambda item: item[0].id)
    ]
    write_text(corpus / "CHAPTERS.TXT", "\n".join(table) + "\n")
    table = ["; ID  |SEX| SUBSET           |MINUTES| NAME"]
    table += [
        f"{speaker:<6}| {sexes[speaker]} | {split:<17}|{length:<7.2f}| espeak-ng"
        for (speaker, split), length in sorted(of_speaker.items())
    ]
    write_text(corpus / "SPEAKERS.TXT", "\n".join(table) + "\n")


def _minutes(folder: Path) -> float:
    return sum(soundfile.info(path).duration for path in sorted(folder.glob("*.flac"))) / 60
