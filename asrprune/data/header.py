"""Find out how long an audio file is, even if libsndfile estimates the length or cannot know it.

An mp3 file may give its number of frames in an extra first frame (Xing, Info or VBRI). Without this
frame libsndfile divides the file size by the bit rate of the first frame. The estimate is too long
if the file begins with tags or pictures. Decoding then ends early. The estimate is too short if the
bit rate varies. Decoding then stops at the estimate, and the rest would be lost silently.
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asrprune.data.diagnosis import (
    AGAIN,
    Unusable,
    check_file,
    diagnose,
    other_format,
    rewrite,
)

if TYPE_CHECKING:
    import soundfile

UNKNOWN = 1 << 62  # libsndfile reports 2^63 - 1 samples for streamed FLAC
FIRST = 2048  # bytes, more than a frame
CORRECTED = re.compile(r" : (\d+) \(should be (\d+)\)")  # how libsndfile reports wrong lengths
STREAMED = 0x7FFFF000  # a header with more bytes: the writer did not know the length
# subtypes that need no decoder
PLAIN = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
BLOCK = 1 << 16  # samples that are decoded at a time
# kbit/s of layer III by the index of the bit rate: first MPEG 1, then MPEG 2 and 2.5
BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
SAMPLING_RATES = (44100, 48000, 32000, 0)  # Hz, MPEG 1; half in MPEG 2, a quarter in 2.5


@dataclass(frozen=True)
class Header:
    """The sampling rate, length and number of channels of an audio file."""

    rate: int  # Hz
    frames: int  # samples of each channel
    channels: int


def read_header(path: str | Path) -> Header:
    """Return the rate, length and channels of a file that libsndfile can decode.

    Some samples of a compressed file are decoded: at its start, and for FLAC also at its end. So
    unreadable audio is found here, not hours later.

    Raises:
        Unusable: The file cannot be decoded, or a later stage could not read part of the file.
        OSError: There is no such file.
    """
    import soundfile  # the import is slow

    check_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            frames = file.frames
            if frames >= UNKNOWN:
                raise Unusable("no-length", f"{path}: a stream without its length", _anew(path))
            _check_promise(path, file)
            _try_samples(path, file)
            header = Header(file.samplerate, frames, file.channels)
            kind = file.format
    except soundfile.LibsndfileError as error:
        raise diagnose(path, error.error_string) from error
    if kind == "MP3" and not _says_length(path):
        frames = _decoded(path)
        whole = _frames_of_mp3(Path(path).read_bytes())
        if whole - frames > header.rate // 10:
            found = f"{path}: {frames} of {whole} samples, mp3 of a bit rate that varies"
            raise Unusable("no-length", found, _anew(path))
        return Header(header.rate, frames, header.channels)
    return header


def _anew(path: str | Path) -> str:
    advice = rewrite(path)
    return advice[0].upper() + advice[1:]


def _check_promise(path: str | Path, file: "soundfile.SoundFile") -> None:
    """Refuse a file that is shorter than its header says. libsndfile corrects the length silently.

    Raises:
        Unusable: More than a tenth of a second is missing.
    """
    promised = 0.0  # bytes in the header per byte in the file
    for said, there in CORRECTED.findall(file.extra_info):
        if int(said) < STREAMED and int(there):
            promised = max(promised, int(said) / int(there))
    if file.format == "NIST" and file.frames:
        with open(path, "rb") as raw:
            said = re.search(rb"sample_count -i (\d+)", raw.read(1024))
        promised = int(said[1]) / file.frames if said else 0.0
    seconds = file.frames / file.samplerate
    if seconds * (promised - 1) > 0.1:
        found = f"{path}: {seconds:.2f} s of {seconds * promised:.2f} s"
        mend = f"{AGAIN}. Or, if it is whole, {rewrite(path)}"
        raise Unusable("cut-off", found, mend)


def _try_samples(path: str | Path, file: "soundfile.SoundFile") -> None:
    """Decode a few samples of a compressed file.

    Raises:
        Unusable: The samples cannot be decoded, or the decoder cannot seek in the file.
    """
    import soundfile

    kind = f"{file.format} with the codec {file.subtype}"
    if not file.seekable():
        raise other_format(path, kind)
    if not file.frames or (file.format != "FLAC" and file.subtype in PLAIN):
        return
    try:
        file.read(1, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise other_format(path, kind) from error
    if file.format != "FLAC":  # other decoders find the end on opening, or seek slowly
        return
    try:
        file.seek(file.frames - 1)
        file.read(1, dtype="float32")
    except soundfile.LibsndfileError as error:
        found = f"{path}: FLAC whose last samples of {file.frames} cannot be read"
        raise Unusable("cut-off", found, AGAIN) from error


def _says_length(path: str | Path) -> bool:
    """Return whether the first frame of an mp3 file gives the number of frames.

    Raises:
        Unusable: The first frame gives a number of bytes, and the file has fewer.
    """
    with open(path, "rb") as file:
        begin = 0
        while (tag := _tag_bytes(file.read(10))) > 0:
            begin += tag
            file.seek(begin)
        file.seek(begin)
        first = file.read(FIRST)
    for name in (b"Xing", b"Info"):  # then flags: bit 0 for a number of frames, bit 1 for bytes
        _, found, rest = first.partition(name)
        if found:
            flags = rest[3] if len(rest) >= 12 else 0
            if flags & 3 == 3:
                (said,) = struct.unpack_from(">I", rest, 8)
                there = os.path.getsize(path) - begin
                if there < 0.98 * said:
                    raise Unusable("cut-off", f"{path}: {there} of {said} bytes", AGAIN)
            return bool(flags & 1)
    return b"VBRI" in first


def _tag_bytes(start: bytes) -> int:
    """Return the bytes of the ID3v2 tag that begins with these 10 bytes; 0 if there is none."""
    if len(start) < 10 or start[:3] != b"ID3":
        return 0
    size = sum(byte << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if start[5] & 0x10 else 0)  # a footer


def _decoded(path: str | Path) -> int:
    """Return the number of samples per channel that libsndfile decodes from a file."""
    import soundfile

    count = 0
    with soundfile.SoundFile(str(path)) as file:
        while len(block := file.read(BLOCK, dtype="float32")):
            count += len(block)
    return count


def _frames_of_mp3(data: bytes) -> int:
    """Return the number of samples in the frames of layer III in an mp3 file.

    The count begins with the first frame and ends where no other frame follows.
    """
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
    """Return (bytes, samples) of the frame at position ``at``; (0, 0) if there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # no sync, or not layer III
        return 0, 0
    version = head[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = SAMPLING_RATES[head[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 0)
    bits = BIT_RATES[version != 3][head[2] >> 4] * 1000
    if version == 1 or not rate or not bits:
        return 0, 0
    samples = 1152 if version == 3 else 576
    return samples // 8 * bits // rate + (head[2] >> 1 & 1), samples
