"""Simulate a room and a microphone: reverberation, noise, level and sampling rate."""

from dataclasses import dataclass
from math import gcd

import numpy as np


@dataclass(frozen=True)
class Acoustics:
    """Set the ranges of the recording conditions. Each utterance draws uniformly from them."""

    snr_db: tuple[float, float] = (15.0, 35.0)
    noise_slopes: tuple[float, ...] = (0.0, 1.0, 2.0)  # power ~ 1/f^slope: white, pink, brown
    reverberant_share: float = 0.3  # share of utterances with reverberation
    t60: tuple[float, float] = (0.1, 0.35)  # seconds in which reverberation falls by 60 dB
    direct_to_reverberant_db: tuple[float, float] = (3.0, 12.0)
    level_db: tuple[float, float] = (-32.0, -18.0)  # RMS of the speech relative to full scale


def record(
    clean: np.ndarray,
    from_rate: int,
    to_rate: int,
    acoustics: Acoustics,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return clean speech as a microphone in a random room records it.

    Args:
        clean: (num_samples,) int16 or float at ``from_rate``.
        from_rate: sampling rate of ``clean`` in Hz.
        to_rate: sampling rate of the result in Hz.
        acoustics: ranges of the conditions.
        rng: draws the conditions and the noise.

    Returns:
        (num_samples',) int16 at ``to_rate``. The duration is that of ``clean`` to within a sample.
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
    """Return the root mean square of samples. It is never zero."""
    return float(np.sqrt(np.mean(np.square(samples)) + 1e-20))


def coloured_noise(
    length: int, sampling_rate: int, slope: float, rng: np.random.Generator
) -> np.ndarray:
    """Return Gaussian noise (length,) of unit RMS whose power falls as 1/f^slope above 60 Hz.

    The power is constant below 60 Hz and zero at 0 Hz. Otherwise most of the power would be at
    frequencies below those of speech features, and the signal-to-noise ratio would mean little.

    Args:
        length: number of samples.
        sampling_rate: sampling rate in Hz.
        slope: exponent of the fall; 0: white, 1: pink, 2: brown.
        rng: draws the noise.
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
        speech: (num_samples,) samples.
        sampling_rate: sampling rate of ``speech`` in Hz.
        t60: seconds until the tail has fallen by 60 dB.
        direct_to_reverberant_db: ratio of the direct power to the power of the tail, in dB.
        rng: draws the tail.

    Returns:
        (num_samples,) reverberant samples. The tail after the last sample is cut off.
    """
    time = np.arange(1, int(t60 * sampling_rate)) / sampling_rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    from scipy.signal import fftconvolve

    return fftconvolve(speech, np.concatenate(([1.0], tail)))[: len(speech)]
