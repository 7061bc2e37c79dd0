"""One utterance of a rehearsal corpus: sentences joined by pauses, spoken in a room."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asrprune.base.randomness import key_to_seed, keyed_random
from asrprune.rehearsal.espeak import Espeak, Voice
from asrprune.rehearsal.room_acoustics import Acoustics, record
from asrprune.rehearsal.text import transcript

SAMPLING_RATE = 16000


@dataclass(frozen=True)
class Shape:
    """How long utterances are, in seconds. Sentences are added until the wish is reached."""

    median_wish: float = 3.6  # wishes are log-normal
    spread: float = 0.75
    longest: float = 15.0
    shortest: float = 1.0
    pause: tuple[float, float] = (0.05, 0.4)  # between sentences
    margin: tuple[float, float] = (0.1, 0.35)  # before the first and after the last


def utterance(
    espeak: Espeak,
    voice: Voice,
    sentence: Callable[[random.Random], str],
    shape: Shape,
    acoustics: Acoustics,
    key: tuple[int | str, ...],
    write: Callable[[str], str] = transcript,
    rate: int = SAMPLING_RATE,
) -> tuple[str, np.ndarray]:
    """Text and samples as a pure function of the other arguments.

    Args:
        write: a sentence as the corpus writes it.

    Returns:
        the transcript, and (num_samples,) int16 at ``rate``.
    """
    rng = keyed_random(*key, "speech")
    sentences, clean = _join(espeak, voice, sentence, shape, rng)
    noise_rng = np.random.default_rng(key_to_seed(*key, "room"))
    words = " ".join(write(text) for text in sentences)
    return words, record(clean, espeak.sampling_rate, rate, acoustics, noise_rng)


def _join(
    espeak: Espeak,
    voice: Voice,
    sentence: Callable[[random.Random], str],
    shape: Shape,
    rng: random.Random,
) -> tuple[list[str], np.ndarray]:
    """Sentences until the wished length, never past the longest."""

    def silence(bounds: tuple[float, float]) -> np.ndarray:
        return np.zeros(round(rng.uniform(*bounds) * espeak.sampling_rate), dtype=np.int16)

    wish = min(rng.lognormvariate(0.0, shape.spread) * shape.median_wish, 0.9 * shape.longest)
    wish = max(wish, shape.shortest)
    before, after = silence(shape.margin), silence(shape.margin)
    pieces: list[np.ndarray] = [before]
    said: list[str] = []
    length = len(before) + len(after)
    while not said or length < wish * espeak.sampling_rate:
        text = sentence(rng)
        pause = silence(shape.pause) if said else silence((0.0, 0.0))
        speech = espeak.speak(text, voice)
        if length + len(pause) + len(speech) > shape.longest * espeak.sampling_rate:
            if said:
                break
            continue  # one sentence that is too long by itself: another
        pieces += [pause, speech]
        said.append(text)
        length += len(pause) + len(speech)
    return said, np.concatenate([*pieces, after])
