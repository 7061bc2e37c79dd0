"""What a room and a microphone do to clean speech: reverberation, noise, level, sampling rate."""

from dataclasses import dataclass
from math import gcd

import numpy as np


@dataclass(frozen=True)
class Acoustics:
    """Ranges that each utterance draws from, uniformly: how hard a rehearsal corpus is."""

    snr_db: tuple[float, float] = (15.0, 35.0)
    noise_slopes: tuple[float, ...] = (0.0, 1.0, 2.0)  # power ~ 1/f^slope: white, pink, brown
    reverberant_share: float = 0.3  # of the utterances
    t60: tuple[float, float] = (0.1, 0.35)  # seconds in which reverberation falls by 60 dB
    direct_to_reverberant_db: tuple[float, float] = (3.0, 12.0)
    level_db: tuple[float, float] = (-32.0, -18.0)  # of the speech, under full scale


def record(
    clean: np.ndarray,
    from_rate: int,
    to_rate: int,
    acoustics: Acoustics,
    rng: np.random.Generator,
) -> np.ndarray:
    """Clean speech as a microphone in some room gets it.

    Args:
        clean: (num_samples,) int16 or float at ``from_rate``.
        rng: draws the conditions and the noise.

    Returns:
        int16 at ``to_rate``, as long as the input to within a sample.
    """
    from scipy.signal import resample_poly  # slow to import

    divisor = gcd(from_rate, to_rate)
    speech = resample_poly(clean.astype(np.float64), to_rate // divisor, from_rate // divisor)
    if rng.random() < acoustics.reverberant_share:
        speech = reverberate(
            speech,
            to_rate,
            t60=rng.uniform(*acoustics.t60),
            direct_to_reverberant_db=rng.uniform(*acoustics.direct_to_reverberant_db),
            rng=rng,
        )
    speech *= 10 ** (rng.uniform(*acoustics.level_db) / 20) / rms(speech)
    slope = acoustics.noise_slopes[rng.integers(len(acoustics.noise_slopes))]
    noise = coloured_noise(len(speech), to_rate, slope, rng)
    noise *= rms(speech) * 10 ** (-rng.uniform(*acoustics.snr_db) / 20)
    mixed = speech + noise
    mixed *= min(1.0, 0.99 / np.abs(mixed).max())  # never clip
    return np.round(mixed * 32767).astype(np.int16)


def rms(samples: np.ndarray) -> float:
    """Root mean square, never zero."""
    return float(np.sqrt(np.mean(np.square(samples)) + 1e-20))


def coloured_noise(
    length: int, sampling_rate: int, slope: float, rng: np.random.Generator
) -> np.ndarray:
    """(length,) Gaussian noise of unit RMS whose power falls as 1/f^slope above 60 Hz.

    Below 60 Hz it is flat and at 0 Hz nothing: else most of its power would be rumble that no
    speech feature sees, and the signal-to-noise ratio would mean little.
    """
    frequency = np.fft.rfftfreq(length, 1 / sampling_rate)
    gain = np.maximum(frequency, 60.0) ** (-slope / 2)
    gain[0] = 0.0
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gain, length)
    return noise / rms(noise)


def reverberate(
    speech: np.ndarray,
    sampling_rate: int,
    t60: float,
    direct_to_reverberant_db: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Convolve with a direct path and an exponentially decaying tail of Gaussian noise.

    Args:
        t60: seconds until the tail has fallen by 60 dB.

    Returns:
        The reverberant samples, as many as ``speech`` has. The tail after them is cut off.
    """
    time = np.arange(1, int(t60 * sampling_rate)) / sampling_rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    from scipy.signal import fftconvolve

    return fftconvolve(speech, np.concatenate(([1.0], tail)))[: len(speech)]
