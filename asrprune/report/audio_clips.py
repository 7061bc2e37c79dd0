"""Encode the audio of cuts as texts that stand inside of an HTML page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from lhotse import MonoCut
from lhotse.cut import Cut

from asrprune.base.errors import UserError
from asrprune.data.audio import BadAudio, load_copies
from asrprune.report.hardest import HardCut
from asrprune.report.hypotheses import lhotse_cut

LEVELS = (0.2, 0.6, 1.0)  # of compression, from the best quality to the smallest size
LONGEST = 60  # seconds of a cut that can be heard
OVERHEAD = 400  # characters of the page around the audio of a cut


@dataclass(frozen=True)
class Clip:
    """The audio of a cut for a page."""

    source: str = ""  # data URL; empty: no audio
    note: str = ""  # why there is no audio, or only a part


def encode_clips(cuts: Sequence[HardCut], room: int) -> dict[str, Clip]:
    """Return the audio of cuts by their ids, in the best quality in which there is room for all.

    If there is no room even in the lowest quality, the last cuts have no audio.

    Args:
        cuts: the cuts.
        room: maximum number of characters of all audio.
    """
    for level in LEVELS:
        found: dict[str, Clip] = {}
        left = room
        for cut in cuts:
            clip = _clip(cut, level)
            left -= len(clip.source) + len(clip.note) + OVERHEAD
            if left < 0:
                break
            found[cut.id] = clip
        if len(found) == len(cuts):
            return found
    full = Clip(note="There is no room for this audio: the page stays below 5 MB.")
    return {cut.id: found.get(cut.id, full) for cut in cuts}


def _clip(hard: HardCut, level: float) -> Clip:
    try:
        cut = lhotse_cut(hard)
        samples, rate = _samples(cut)
        note = ""
        if len(samples) > (most := int(LONGEST * rate)):
            samples, note = samples[:most], f"The first {LONGEST} seconds of the cut."
        return Clip(encode(samples, rate, level), note)
    except MemoryError:
        raise
    except (UserError, BadAudio) as error:
        return Clip(note=f"The audio cannot be read: {error}.")
    except Exception as error:  # each format has errors of its own
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Clip(note=f"The audio cannot be read: {reason}")


def _samples(cut: Cut) -> tuple[np.ndarray, int]:
    """Return the samples (n,) of a cut, in one channel, and their rate."""
    if not cut.has_recording:
        raise UserError("the manifest names no recording of the cut")
    if isinstance(cut, MonoCut):
        resampled, samples = load_copies(cut, ())[0]
        return samples[0], resampled.sampling_rate
    return cut.load_audio(mono_downmix=True)[0], cut.sampling_rate


def encode(samples: np.ndarray, rate: int, level: float) -> str:
    """Return a data URL of audio: Ogg Vorbis, or WAV where libsndfile writes no Vorbis.

    Args:
        samples: (n,) float32 in [-1, 1]. Samples beyond that are clipped.
        rate: samples a second.
        level: compression of Vorbis, from 0 (best quality) to 1 (smallest).
    """
    vorbis = "VORBIS" in soundfile.available_subtypes("OGG")
    file = io.BytesIO()
    how = (
        {"format": "OGG", "subtype": "VORBIS", "compression_level": level}
        if vorbis
        else {"format": "WAV", "subtype": "PCM_16"}
    )
    with soundfile.SoundFile(file, "w", rate, 1, **how) as writer:
        for start in range(0, len(samples), rate):  # long pieces overflow the stack of libvorbis
            writer.write(np.clip(samples[start : start + rate], -1, 1))
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:audio/{'ogg' if vorbis else 'wav'};base64,{text}"
