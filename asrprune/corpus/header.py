"""How long a file of audio is, also where libsndfile but estimates it, or cannot know.

An mp3 file says how many frames it has in a first frame of its own (Xing, Info or VBRI). Without it
libsndfile divides the size by the first frame's bit rate. That is too long where tags or pictures
are in front; decoding then ends earlier. It is too short where the bit rate varies; decoding stops
there all the same, and what follows would be lost in silence.
"""

from dataclasses import dataclass
from pathlib import Path

UNKNOWN = 1 << 62  # libsndfile says 2^63 - 1 of FLAC that was streamed
FIRST = 2048  # bytes, more than a frame
BLOCK = 1 << 16  # samples that are decoded at a time
NO_LENGTH = (
    "the file does not say how long it is, and cannot be read as a whole; write it anew, such as "
    "with ffmpeg -i OLD NEW.flac"
)
# kbit/s of layer III by the index of the bit rate, of MPEG 1 and of MPEG 2 and 2.5
BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
SAMPLING_RATES = (44100, 48000, 32000, 0)  # of MPEG 1; halves in 2, quarters in 2.5


class NoLength(Exception):
    """The length is not known, or not all of it can be read; the message says how much."""


@dataclass(frozen=True)
class Header:
    """What a file holds."""

    rate: int  # Hz
    frames: int  # samples of each channel
    channels: int


def read_header(path: str | Path) -> Header:
    """The rate, length and channels of a file that libsndfile reads.

    :raises soundfile.LibsndfileError: it does not.
    :raises NoLength: part of the file could not be read later.
    """
    import soundfile  # takes a while

    info = soundfile.info(str(path))
    frames = info.frames
    if frames >= UNKNOWN:
        raise NoLength("a stream without its length")
    if info.format == "MP3" and not _says_length(path):
        frames = _decoded(path)
        whole = _frames_of_mp3(Path(path).read_bytes())
        if whole - frames > info.samplerate // 10:
            raise NoLength(f"{frames} of {whole} samples, mp3 of a bit rate that varies")
    return Header(info.samplerate, frames, info.channels)


def _says_length(path: str | Path) -> bool:
    """Whether the first frame of an mp3 file says how many there are."""
    with open(path, "rb") as file:
        begin = 0
        while (tag := _tag_bytes(file.read(10))) > 0:
            begin += tag
            file.seek(begin)
        file.seek(begin)
        first = file.read(FIRST)
    for name in (b"Xing", b"Info"):  # and flags, the last of which is of the number of frames
        _, found, rest = first.partition(name)
        if found:
            return len(rest) >= 4 and bool(rest[3] & 1)
    return b"VBRI" in first


def _tag_bytes(start: bytes) -> int:
    """The length of the ID3v2 tag that begins with these 10 bytes; 0: there is none."""
    if len(start) < 10 or start[:3] != b"ID3":
        return 0
    size = sum(byte << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if start[5] & 0x10 else 0)  # a footer


def _decoded(path: str | Path) -> int:
    """Samples of each channel that come out."""
    import soundfile

    count = 0
    with soundfile.SoundFile(str(path)) as file:
        while len(block := file.read(BLOCK, dtype="float32")):
            count += len(block)
    return count


def _frames_of_mp3(data: bytes) -> int:
    """Samples in the frames of layer III from the first one on, to the end or something else."""
    at = samples = 0
    while tag := _tag_bytes(data[at : at + 10]):
        at += tag
    while at >= 0 and not _frame(data, at)[0]:
        at = data.find(b"\xff", at + 1)
    while at >= 0 and (frame := _frame(data, at))[0]:
        at += frame[0]
        samples += frame[1]
    return samples


def _frame(data: bytes, at: int) -> tuple[int, int]:
    """(bytes, samples) of a frame; (0, 0): there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # synchronised, layer III
        return 0, 0
    version = head[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = SAMPLING_RATES[head[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 0)
    bits = BIT_RATES[version != 3][head[2] >> 4] * 1000
    if version == 1 or not rate or not bits:
        return 0, 0
    samples = 1152 if version == 3 else 576
    return samples // 8 * bits // rate + (head[2] >> 1 & 1), samples
