"""The takes of the Free Spoken Digit Dataset: where they are, and which split each belongs to.

    python3 local/takes.py download/fsdd      # is the copy whole?

A take is one digit, said once: ``7_george_12.wav``, as the corpus names its files, or
``george-7-12.flac``. They may lie in any folders.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asrprune.base.errors import UserError
from asrprune.base.scripts import run_script

REPOSITORY = "https://github.com/Jakobovski/free-spoken-digit-dataset"
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
RATE = 8000  # Hz
TEST_TAKES, DEV_TAKES = 5, 3  # of each digit and speaker; the test set is the official one
SPLITS = ("train", "dev", "test")
NAMES = (
    re.compile(r"(?P<digit>\d)_(?P<speaker>[^\W_]+)_(?P<number>\d+)\.(wav|flac)"),
    re.compile(r"(?P<speaker>[^\W_]+)-(?P<digit>\d)-(?P<number>\d+)\.(wav|flac)"),
)


@dataclass(frozen=True, order=True)
class Take:
    """One digit, said once."""

    speaker: str
    digit: int
    number: int
    path: Path

    @property
    def split(self) -> str:
        """Takes 0 to 4 are the test set, as the corpus has it; 5 to 7 are held out of its rest."""
        return self.split_with()

    def split_with(self, train_takes: int | None = None) -> str:
        """Return the split where ``train_takes`` takes of each digit and speaker are trained on.

        Of the takes that are then left, every third joins the development set, and the others join
        the official test set. None: no takes are left.
        """
        if self.number < TEST_TAKES:
            return "test"
        first = TEST_TAKES + DEV_TAKES
        if self.number < first:
            return "dev"
        if train_takes is None or self.number < first + train_takes:
            return "train"
        return "test" if self.number % 3 else "dev"


def main() -> int:
    """Say what is there, or what is wrong."""
    return run_script("takes", lambda: count(Path(sys.argv[1])))


def count(folder: Path) -> None:
    """Say how many takes are in a folder."""
    takes = find_takes(folder)
    speakers = len({take.speaker for take in takes})
    counts = Counter(take.split for take in takes)
    parts = ", ".join(f"{counts[name]} for {name}" for name in SPLITS)
    sys.stderr.write(f"takes: {len(takes)} of {speakers} speakers: {parts}\n")


def find_takes(folder: Path) -> list[Take]:
    """All takes below a folder, sorted.

    Raises:
        UserError: there is no such folder, a file with another name, one take twice, or a speaker
            without some digit in some split.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist. Get the Free Spoken Digit Dataset, git clone {REPOSITORY}, "
            f"and link it: mkdir -p {folder.parent} && ln -s /path/to/"
            f"{REPOSITORY.rpartition('/')[2]} {folder}"
        )
    takes = sorted(take_of(path) for path in audio_files(folder))
    if not takes:
        raise UserError(f"{folder} holds no takes, such as 7_george_12.wav; see {REPOSITORY}")
    for one, other in zip(takes, takes[1:], strict=False):
        if (one.speaker, one.digit, one.number) == (other.speaker, other.digit, other.number):
            raise UserError(f"{one.path} and {other.path} are the same take: remove one of them")
    there = {(take.speaker, take.split, take.digit) for take in takes}
    for speaker in sorted({take.speaker for take in takes}):
        for name in SPLITS:
            if missing := [d for d in range(len(WORDS)) if (speaker, name, d) not in there]:
                raise UserError(
                    f"{folder} is not whole: {speaker} has no take of {missing[0]} for the split "
                    f"{name}; get the corpus again, {REPOSITORY}"
                )
    return takes


def audio_files(folder: Path) -> Iterator[Path]:
    """Every ``.wav`` and ``.flac`` file, behind links too; hidden ones are no takes."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.endswith((".wav", ".flac")) and not name.startswith("."):
                yield Path(place, name)


def take_of(path: Path) -> Take:
    """The take that a file's name tells."""
    for names in NAMES:
        if found := names.fullmatch(path.name):
            return Take(found["speaker"], int(found["digit"]), int(found["number"]), path)
    raise UserError(
        f"{path} is no take: such a file is called <digit>_<speaker>_<number>.wav; move it away"
    )


def read_take(path: Path) -> np.ndarray:
    """The samples, int16 (N,).

    Raises:
        UserError: no mono audio of 8 kHz.
    """
    try:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} cannot be read ({error}); get the corpus again") from error
    if rate != RATE or samples.shape[1] != 1 or not len(samples):
        raise UserError(
            f"{path} holds {len(samples)} samples in {samples.shape[1]} channels at {rate} Hz; "
            f"a take has one channel at {RATE} Hz: get the corpus again"
        )
    return samples[:, 0]


if __name__ == "__main__":
    sys.exit(main())
