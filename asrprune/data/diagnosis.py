"""Find out from the first bytes of a file why it cannot be read as audio, and what to do."""

import os
import shlex
import stat
import struct
from pathlib import Path

FFMPEG = "Convert it (this needs ffmpeg): ffmpeg -i {old} {new}"
AGAIN = "Copy or download the file again"
START = 4096  # bytes that are examined

# (position, bytes there, format) of the formats that only ffmpeg reads
CONVERTED = (
    (4, b"ftyp", "MP4 or M4A, such as AAC"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or ASF"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"FLV\x01", "FLV"),
    (8, b"AVI ", "AVI"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"TTA1", "True Audio"),
    (0, b"DSD ", "DSD"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"ADIF", "AAC"),
    (28, b"Speex   ", "Speex"),
    (0, b"ajkg", "shorten"),
)
AAC = (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")  # ADTS
# (position, bytes there, type of file, advice) of the files that no decoder reads
NO_AUDIO = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file", "Get it: git lfs pull"),
    (0, b"\x1f\x8b", "compressed by gzip", "Unpack it (gunzip)"),
    (0, b"PK\x03\x04", "a zip archive", "Unpack it (unzip)"),
    (0, b"BZh", "compressed by bzip2", "Unpack it (bunzip2)"),
    (0, b"\xfd7zXZ", "compressed by xz", "Unpack it (unxz)"),
    (257, b"ustar", "a tar archive", "Unpack it (tar -xf)"),
    (0, b"%PDF", "a PDF document", "Name the file of the audio"),
    (0, b"\x89PNG", "a picture", "Name the file of the audio"),
)
CODECS = {  # codecs in WAV files that libsndfile does not decode
    0x0050: "MPEG layer 2",
    0x0055: "MP3",
    0x0160: "WMA",
    0x0161: "WMA",
    0x0162: "WMA",
    0x00FF: "AAC",
    0x0022: "TrueSpeech",
    0x0042: "G.723.1",
    0x0083: "G.729",
    0x0270: "ATRAC3",
    0x2000: "AC-3",
}

UNUSABLE = {  # reason -> text of the message
    "no-file": "the path does not lead to a file",
    "empty-file": "the file holds nothing",
    "other-format": "audio of this format is not read here",
    "not-audio": "the file is no audio",
    "undecodable": "the file cannot be decoded",
    "cut-off": "the file ends before the end that its header promises",
    "no-length": "the file does not say how long it is, and cannot be read as a whole",
}


class Unusable(Exception):
    """Raised when a file cannot be used as audio. The message names the file and the finding.

    Args:
        reason: A key of UNUSABLE.
        detail: The file, and what was found.
        mend: What the user can do, as a sentence without its full stop.
    """

    def __init__(self, reason: str, detail: str, mend: str):
        super().__init__(detail)
        self.reason, self.mend = reason, mend


def check_file(path: str | Path) -> None:
    """Check that a path leads to a file that is not empty.

    Raises:
        Unusable: The path leads to a folder, a pipe, a socket or a device, or the file is empty.
        OSError: The path leads to nothing.
    """
    found = os.stat(path)
    for test, what, mend in (
        (stat.S_ISDIR, "a folder", "Name the files in it"),
        (stat.S_ISFIFO, "a named pipe", "Write its audio to a file, and name that"),
        (stat.S_ISSOCK, "a socket", "Name a file"),
        (stat.S_ISCHR, "a device", "Name a file"),
        (stat.S_ISBLK, "a device", "Name a file"),
    ):
        if test(found.st_mode):
            raise Unusable("no-file", f"{path} is {what}", mend)
    if not found.st_size:
        raise Unusable("empty-file", f"{path}, 0 bytes", AGAIN)


def diagnose(path: str | Path, problem: str = "") -> Unusable:
    """Return the error that says why libsndfile does not open a file.

    Args:
        path: The file.
        problem: The error message of libsndfile.
    """
    with open(path, "rb") as file:
        start = file.read(START)
    for at, mark, what in CONVERTED:
        if start[at:].startswith(mark):
            return other_format(path, what)
    if start[:2] in AAC:
        return other_format(path, "AAC")
    for at, mark, what, mend in NO_AUDIO:
        if start[at:].startswith(mark):
            return Unusable("not-audio", f"{path} is {what}", mend)
    if start[:4] in (b"RIFF", b"RF64") and (codec := _codec_of_wav(start)):
        return other_format(path, f"WAV with the codec {codec}")
    if start.startswith(b"NIST_1A") and b"shorten" in start[:1024]:
        old, new = _names(path, ".wav")
        mend = f"Convert it (this needs sph2pipe): sph2pipe -f wav {old} {new}"
        return Unusable("other-format", f"{path}: SPHERE, compressed by shorten", mend)
    if start.startswith(b"NIST_1A") and b"wavpack" in start[:1024]:
        return other_format(path, "SPHERE, compressed by WavPack")
    if _is_text(start):
        words = start[:60].decode("utf-8", "replace").split()
        what = f"text ({' '.join(words)[:40]!r} …), such as a page of a failed download"
        return Unusable("not-audio", f"{path} is {what}", AGAIN)
    size = f"{path}, {os.path.getsize(path)} bytes"
    if problem := " ".join(problem.split()).rstrip(".: "):
        size += f": {problem}"
    return Unusable("undecodable", size, f"{AGAIN}. If it plays elsewhere, {rewrite(path)}")


def other_format(path: str | Path, what: str) -> Unusable:
    """Return the error about a format that ffmpeg converts."""
    old, new = _names(path, ".flac")
    return Unusable("other-format", f"{path}: {what}", FFMPEG.format(old=old, new=new))


def rewrite(path: str | Path) -> str:
    """Return the advice to write a file anew, as the end of a sentence."""
    old, new = _names(path, ".flac")
    return f"write it anew (this needs ffmpeg): ffmpeg -i {old} {new}"


def _names(path: str | Path, suffix: str) -> tuple[str, str]:
    """Return the path of a file and of a new file beside it, both quoted for a shell."""
    path = Path(path)
    new = path.with_suffix(suffix)
    if new == path:
        new = path.with_name(f"{path.stem}.new{suffix}")
    return shlex.quote(str(path)), shlex.quote(str(new))


def _codec_of_wav(start: bytes) -> str:
    at = start.find(b"fmt ")
    if at < 0 or len(start) < at + 10:
        return ""
    (number,) = struct.unpack_from("<H", start, at + 8)
    if number in (1, 3, 6, 7, 0xFFFE):  # PCM, float, A-law, mu-law, extensible: another cause
        return ""
    return CODECS.get(number, f"0x{number:04x}")


def _is_text(start: bytes) -> bool:
    try:
        text = start.rstrip(b"\x80\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)
