"""Connected digits of the Free Spoken Digit Dataset: takes of one speaker, joined with pauses.

    python3 local/connect.py --audio-dir data/audio --train-hours 1.0 download/fsdd data/manifests

An utterance has 3 to 8 digits. Each speaker's takes of a set are shuffled and cut into utterances
until all are used once, then shuffled and cut again: so takes are used equally often, in other
sequences each time, and a larger corpus holds the smaller one's utterances. What an utterance is
depends on the takes, the seed and its id. A run that was killed goes on where it was.
"""

import argparse
import hashlib
import io
import itertools
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from takes import RATE, SPLITS, WORDS, Take, find_takes, read_take

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path, read_json, write_json
from asrprune.base.randomness import key_to_seed, keyed_random
from asrprune.base.scripts import run_script
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.parallel import one_torch_thread, progress_bar
from asrprune.rehearsal.room_acoustics import Acoustics, record
from asrprune.rehearsal.units import acoustics_of

VERSION = 2  # of what is joined and how: raise it when equal options would give other files
LEAST, MOST = 3, 8  # digits of an utterance
PAUSE = (0.1, 0.3)  # seconds between two digits
WRITTEN_RATE = 16000  # Hz

Samples = dict[Take, np.ndarray]


@dataclass(frozen=True)
class Utterance:
    """Takes of one speaker in a row, and the samples at 8 kHz between each two of them."""

    id: str
    takes: tuple[Take, ...]
    pauses: tuple[int, ...]

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(WORDS[take.digit] for take in self.takes)


def main() -> int:
    """Write what is missing of the audio, then the manifests."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a copy of the corpus")
    parser.add_argument("manifest_dir", type=Path, help="gets the manifests")
    parser.add_argument("--audio-dir", type=Path, required=True, help="gets the utterances")
    parser.add_argument("--train-hours", type=float, default=1.0, help="hours to train on, about")
    parser.add_argument(
        "--train-takes",
        type=int,
        help="takes of each digit and speaker to train on; the others join the development and "
        "test sets. Default: all that are in neither",
    )
    parser.add_argument("--dev-uses", type=int, default=2, help="how often to use each dev take")
    parser.add_argument("--test-uses", type=int, default=10, help="how often to use each test take")
    parser.add_argument(
        "--snr-db",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="add noise to all utterances, at signal-to-noise ratios between these. Default: none",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sequences, pauses and noise")
    return run_script("connect", lambda: connect(parser.parse_args()))


def connect(args: argparse.Namespace) -> None:
    """Make the corpus.

    Raises:
        UserError: wrong options, takes that are missing or damaged, another corpus in the folder,
            or a full disk.
    """
    if not 0 < args.train_hours < math.inf:
        raise UserError(f"--train-hours must be above 0, not {args.train_hours}")
    for name in ("dev", "test"):
        if (uses := getattr(args, f"{name}_uses")) < 1:
            raise UserError(f"--{name}-uses must be at least 1, not {uses}")
    if args.train_takes is not None and args.train_takes < 1:
        raise UserError(f"--train-takes must be at least 1, not {args.train_takes}")
    takes = find_takes(args.corpus)
    with progress_bar(len(takes), "reading", "take") as bar:
        samples = {}
        for take in takes:
            samples[take] = read_take(take.path)
            bar.update()
    noise = None if args.snr_db is None else noise_of(tuple(args.snr_db))
    claim_folder(args.audio_dir, args.seed, args.train_takes, args.snr_db, samples)
    for name in SPLITS:
        own = [take for take in takes if take.split_with(args.train_takes) == name]
        if name == "train":
            chosen = take_hours(utterances(own, name, args.seed), args.train_hours, samples)
        else:
            chosen = list(utterances(own, name, args.seed, getattr(args, f"{name}_uses")))

        def sound(utterance: Utterance) -> np.ndarray:
            wave = join(utterance, samples)
            if noise is None:
                return resample(wave)
            rng = np.random.default_rng(key_to_seed(args.seed, "noise", utterance.id))
            return record(wave, RATE, WRITTEN_RATE, noise, rng)

        write_set(name, chosen, samples, sound, args.audio_dir, args.manifest_dir)


def noise_of(snr_db: tuple[float, float]) -> Acoustics:
    """Return the conditions of recording with noise and without reverberation.

    Raises:
        UserError: ``snr_db`` is no range.
    """
    return replace(acoustics_of(snr_db), reverberant_share=0.0)


def claim_folder(
    folder: Path,
    seed: int,
    train_takes: int | None,
    snr_db: Sequence[float] | None,
    samples: Samples,
) -> None:
    """Empty a folder whose utterances were made of other takes, or with other options.

    Raises:
        UserError: there is something in it that was not made here.
    """
    digest = hashlib.blake2b(digest_size=16)
    for take, wave in samples.items():
        digest.update(f"{take.speaker} {take.digit} {take.number} {len(wave)}\n".encode())
        digest.update(wave.tobytes())
    made_of = {"version": VERSION, "seed": seed, "takes": digest.hexdigest()}
    if train_takes is not None:
        made_of["train_takes"] = train_takes
    if snr_db is not None:
        made_of["snr_db"] = list(snr_db)
    path = folder / ".made_of.json"
    if path.exists():
        if read_json(path) == made_of:
            return
        shutil.rmtree(folder)
    elif any(not entry.name.startswith(".tmp-") for entry in folder.glob("*")):
        raise UserError(f"{folder} holds other files: choose another --audio-dir")
    write_json(path, made_of)


def utterances(
    takes: Sequence[Take], name: str, seed: int, uses: int | None = None
) -> Iterator[Utterance]:
    """The utterances of a set, speakers in turn, with each take ``uses`` times; None: no end."""
    of_speaker = defaultdict(list)
    for take in takes:
        of_speaker[take.speaker].append(take)
    for use in itertools.count() if uses is None else range(uses):
        rows = [
            (number, speaker, row)
            for speaker, own in of_speaker.items()
            for number, row in enumerate(cut(own, keyed_random(seed, name, speaker, use)))
        ]
        for number, speaker, row in sorted(rows, key=lambda entry: entry[:2]):
            ident = f"{speaker}-{name}-{use:03d}-{number:04d}"
            random = keyed_random(seed, "pauses", ident)
            pauses = tuple(round(random.uniform(*PAUSE) * RATE) for _ in row[1:])
            yield Utterance(ident, tuple(row), pauses)


def cut(takes: Sequence[Take], random: Random) -> Iterator[list[Take]]:
    """Shuffle takes and cut the row into pieces of 3 to 8."""
    takes = random.sample(takes, len(takes))
    while takes:
        left = len(takes)
        lengths = [n for n in range(LEAST, MOST + 1) if n == left or left - n >= LEAST]
        length = random.choice(lengths)
        yield takes[:length]
        takes = takes[length:]


def take_hours(stream: Iterator[Utterance], hours: float, samples: Samples) -> list[Utterance]:
    """The first utterances, up to this many hours; at least one."""
    chosen, seconds = [], 0.0
    for utterance in stream:
        chosen.append(utterance)
        seconds += length(utterance, samples) / RATE
        if seconds >= hours * 3600:
            break
    return chosen


def length(utterance: Utterance, samples: Samples) -> int:
    """Samples at 8 kHz."""
    return sum(len(samples[take]) for take in utterance.takes) + sum(utterance.pauses)


def join(utterance: Utterance, samples: Samples) -> np.ndarray:
    """The takes with silence between them, int16 (N,) at 8 kHz."""
    parts = [samples[utterance.takes[0]]]
    for take, pause in zip(utterance.takes[1:], utterance.pauses, strict=True):
        parts += [np.zeros(pause, np.int16), samples[take]]
    return np.concatenate(parts)


def resample(wave: np.ndarray) -> np.ndarray:
    """From 8 kHz to 16 kHz: int16 (N,) to int16 (2 N,)."""
    import torch
    from torchaudio.functional import resample as change_rate

    with one_torch_thread():
        changed = change_rate(torch.from_numpy(wave.astype(np.float32)), RATE, WRITTEN_RATE)
    return changed.numpy().round().clip(-32768, 32767).astype(np.int16)


def write_set(
    name: str,
    chosen: list[Utterance],
    samples: Samples,
    sound: Callable[[Utterance], np.ndarray],
    audio_dir: Path,
    manifest_dir: Path,
) -> None:
    """Write the audio that is not there, and then the two manifests of a set.

    Args:
        name: of the set.
        chosen: its utterances.
        samples: of the takes.
        sound: returns the int16 samples of an utterance, at 16 kHz.
        audio_dir: gets the audio.
        manifest_dir: gets the manifests.
    """
    recordings, supervisions, seconds = [], [], 0.0
    with progress_bar(len(chosen), f"joining for {name}", "utterance") as bar:
        for utterance in chosen:
            speaker = utterance.takes[0].speaker
            path = audio_dir / name / speaker / f"{utterance.id}.flac"
            if not path.exists():
                write_audio(path, sound(utterance))
            frames = length(utterance, samples) * WRITTEN_RATE // RATE
            duration = frames / WRITTEN_RATE
            seconds += duration
            recordings.append(
                {
                    "id": utterance.id,
                    "sources": [{"type": "file", "channels": [0], "source": str(path)}],
                    "sampling_rate": WRITTEN_RATE,
                    "num_samples": frames,
                    "duration": duration,
                    "channel_ids": [0],
                }
            )
            supervisions.append(
                {
                    "id": utterance.id,
                    "recording_id": utterance.id,
                    "start": 0.0,
                    "duration": duration,
                    "channel": 0,
                    "text": utterance.text,
                    "language": "English",
                    "speaker": speaker,
                }
            )
            bar.update()
    for kind, entries in (("recordings", recordings), ("supervisions", supervisions)):
        with write_lines(manifest_dir / f"fsdd_{kind}_{name}.jsonl.gz") as file:
            file.writelines(map(to_line, entries))
    words = sum(len(utterance.takes) for utterance in chosen)
    sys.stderr.write(
        f"connect: {name}: {len(chosen)} utterances, {words} words, {seconds / 3600:.3f} h\n"
    )


def write_audio(path: Path, wave: np.ndarray) -> None:
    """Write a FLAC file that appears when it is whole."""
    encoded = io.BytesIO()  # in memory, because libsndfile hides why it cannot write
    soundfile.write(encoded, wave, WRITTEN_RATE, format="FLAC", subtype="PCM_16")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


if __name__ == "__main__":
    sys.exit(main())
