"""Noise, reverberation and level are what they are called."""

import numpy as np
import pytest

from asrprune.rehearsal.room_acoustics import Acoustics, coloured_noise, record, reverberate, rms

RATE = 16000


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_power_falls_as_its_slope_says(slope):
    noise = coloured_noise(60 * RATE, RATE, slope, np.random.default_rng(0))
    assert rms(noise) == pytest.approx(1.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [(low, 2 * low) for low in (125, 250, 500, 1000, 2000)]
    mean = [power[(frequency >= low) & (frequency < high)].mean() for low, high in octaves]
    falls = np.diff(np.log2(mean))
    assert np.allclose(falls, -slope, atol=0.1)


@pytest.mark.parametrize("t60", [0.15, 0.5])
def test_reverberation_decays_by_60_db_in_t60(t60):
    impulse = np.zeros(RATE)
    impulse[0] = 1.0
    response = reverberate(impulse, RATE, t60, 3.0, np.random.default_rng(0))
    assert response[0] == pytest.approx(1.0)
    tail = response[1:]
    assert 10 * np.log10(1.0 / np.sum(tail**2)) == pytest.approx(3.0, abs=0.01)
    # Schroeder's backward integration, between -5 and -25 dB
    decay = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2) + 1e-12)
    span = (np.argmax(decay < -25) - np.argmax(decay < -5)) / RATE
    assert 3 * span == pytest.approx(t60, rel=0.1)


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_recordings_have_the_level_and_noise_asked_for(snr):
    """A tone and white noise, told apart by projecting on the tone."""
    tone = np.sin(2 * np.pi * 441 * np.arange(5 * 22050) / 22050)
    clean = (8000 * tone).astype(np.int16)
    conditions = Acoustics(
        snr_db=(snr, snr), noise_slopes=(0.0,), reverberant_share=0.0, level_db=(-30.0, -30.0)
    )
    recorded = record(clean, 22050, RATE, conditions, np.random.default_rng(0)) / 32767
    assert len(recorded) == 5 * RATE
    time = np.arange(len(recorded)) / RATE
    basis = np.stack([np.sin(2 * np.pi * 441 * time), np.cos(2 * np.pi * 441 * time)])
    speech = (2 / len(time)) * (basis @ recorded) @ basis
    assert 20 * np.log10(rms(speech)) == pytest.approx(-30, abs=0.3)
    assert 20 * np.log10(rms(speech) / rms(recorded - speech)) == pytest.approx(snr, abs=0.3)


def test_nothing_clips():
    clean = (30000 * np.sign(np.sin(np.arange(22050)))).astype(np.int16)
    loud = Acoustics(level_db=(0.0, 0.0), snr_db=(0.0, 0.0), reverberant_share=1.0)
    recorded = record(clean, 22050, RATE, loud, np.random.default_rng(0))
    assert 32000 < np.abs(recorded.astype(int)).max() < 32700
