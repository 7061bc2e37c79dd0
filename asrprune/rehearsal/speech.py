"""Synthesise one utterance of a rehearsal corpus: sentences with pauses, recorded in a room."""

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
    """Set the durations of utterances, in seconds.

    Each utterance draws a wished duration. Sentences are added until the utterance has reached it.
    """

    median_wish: float = 3.6  # median of the wished durations, which are log-normal
    spread: float = 0.75  # standard deviation of the logarithm of the wished durations
    longest: float = 15.0  # limit of an utterance
    shortest: float = 1.0  # limit of a wished duration
    pause: tuple[float, float] = (0.05, 0.4)  # between sentences
    margin: tuple[float, float] = (0.1, 0.35)  # before the first and after the last sentence


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
    """Return the transcript and the samples of one utterance, a pure function of the arguments.

    Args:
        espeak: the synthesiser.
        voice: the voice.
        sentence: draws a sentence.
        shape: durations of utterances.
        acoustics: ranges of the recording conditions.
        key: seed and name of the utterance, the seed of all draws.
        write: returns a sentence as the corpus writes it.
        rate: sampling rate of the result in Hz.

    Returns:
        The transcript, and (num_samples,) int16 at ``rate``.
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
    """Return sentences up to a random wished duration, and their samples with pauses.

    The samples are int16 at the synthesiser's rate. They never exceed the longest duration.
    """

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
            continue  # the first sentence is too long: draw another one
        pieces += [pause, speech]
        said.append(text)
        length += len(pause) + len(speech)
    return said, np.concatenate([*pieces, after])
