"""What cannot be read as audio is refused in stage 1, with advice that fits its cause."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrprune.base.errors import UserError
from asrprune.data.diagnosis import Unusable
from asrprune.data.header import read_header
from asrprune.data.importers import split
from tests.data.conftest import write_audio

RATE = 16000


def start_of(*parts: bytes):
    """A file that begins so."""
    return lambda path: path.write_bytes(b"".join(parts) + bytes(500))


def encoded(**words):
    def write(path):
        noise = np.random.default_rng(0).normal(0, 0.05, RATE)
        soundfile.write(path, noise, RATE, **words)

    return write


def cut_off(**words):
    def write(path):
        encoded(**words)(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write


def wav_of(codec: int):
    """A WAV file of a codec that libsndfile does not know."""
    head = struct.pack("<HHIIHH", codec, 1, RATE, 2000, 1, 0)
    return start_of(b"RIFF", struct.pack("<I", 540), b"WAVEfmt ", struct.pack("<I", 16), head)


FFMPEG = r"ffmpeg -i '?{path}'? '?{stem}(\.new)?\.flac'?"
AGAIN = "Copy or download the file again"
FILES = {  # name -> how it is made, the reason, what is said of it, the advice
    "a.m4a": (start_of(b"\0\0\0\x20ftypM4A "), "other-format", "MP4 or M4A", FFMPEG),
    "b.mp4": (start_of(b"\0\0\0\x18ftypisom"), "other-format", "MP4 or M4A", FFMPEG),
    "c.wma": (start_of(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "other-format", "WMA", FFMPEG),
    "d.webm": (start_of(b"\x1a\x45\xdf\xa3"), "other-format", "WebM", FFMPEG),
    "e.amr": (start_of(b"#!AMR\n"), "other-format", "AMR", FFMPEG),
    "f.aac": (start_of(b"\xff\xf1\x50\x80"), "other-format", "AAC", FFMPEG),
    "g h.m4a": (start_of(b"\0\0\0\x20ftypM4A "), "other-format", "MP4 or M4A", FFMPEG),
    "fake.flac": (start_of(b"\0\0\0\x20ftypM4A "), "other-format", "MP4 or M4A", FFMPEG),
    "gsm.wav": (encoded(subtype="GSM610"), "other-format", "the codec GSM610", FFMPEG),
    "g721.wav": (encoded(subtype="G721_32"), "other-format", "the codec G721_32", FFMPEG),
    "dwvw.aiff": (encoded(subtype="DWVW_16"), "other-format", "the codec DWVW_16", FFMPEG),
    "wma.wav": (wav_of(0x0161), "other-format", "the codec WMA", FFMPEG),
    "odd.wav": (wav_of(0x4143), "other-format", "the codec 0x4143", FFMPEG),
    "short.sph": (
        start_of(b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"),
        "other-format",
        "shorten",
        "sph2pipe -f wav {path} {stem}.wav",
    ),
    "empty.mp3": (Path.touch, "empty-file", "0 bytes", AGAIN),
    "folder.wav": (Path.mkdir, "no-file", "is a folder", "Name the files in it"),
    "fifo.wav": (os.mkfifo, "no-file", "is a named pipe", "Write its audio to a file"),
    "page.mp3": (
        lambda path: path.write_text("<!DOCTYPE html>\n<p>not found"),
        "not-audio",
        "is text",
        AGAIN,
    ),
    "lfs.wav": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\n"),
        "not-audio",
        "Git LFS",
        "git lfs pull",
    ),
    "packed.wav": (start_of(b"\x1f\x8b\x08"), "not-audio", "compressed by gzip", "gunzip"),
    "junk.wav": (start_of(b"\x93\x01\xfe"), "undecodable", "bytes", AGAIN),
    "cut.wav": (cut_off(), "cut-off", "0.50 s of 1.00 s", AGAIN),
    "cut.flac": (cut_off(), "cut-off", "last samples", AGAIN),
    "cut.aiff": (cut_off(), "cut-off", "s of 1.00 s", AGAIN),
    "cut.mp3": (cut_off(), "cut-off", r"\d+ of \d+ bytes", AGAIN),
    "cut.sph": (cut_off(format="NIST"), "cut-off", "s of 1.00 s", AGAIN),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_audio(name, tmp_path):
    make, reason, said, mend = FILES[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(Unusable, match=said) as caught:
        read_header(path)
    assert caught.value.reason == reason and str(path) in str(caught.value)
    stem = str(path.with_suffix(""))
    assert_found(mend.replace("{path}", str(path)).replace("{stem}", stem), caught.value.mend)
    if reason in ("other-format", "no-file"):
        assert "again" not in caught.value.mend  # which would not mend it
    assert split.probe(str(path)).reason == reason  # no other decoder takes it either


def assert_found(pattern, text):
    assert re.search(pattern, text), text


@pytest.mark.parametrize(
    "name, words",
    [
        ("a.wav", {}),
        ("b.wav", {"subtype": "MS_ADPCM"}),
        ("c.wav", {"subtype": "IMA_ADPCM"}),
        ("d.wav", {"subtype": "ULAW"}),
        ("e.flac", {"subtype": "PCM_24"}),
        ("f.sph", {"format": "NIST"}),
        ("g.ogg", {"format": "OGG", "subtype": "OPUS"}),
        ("h.mp3", {}),
        ("i.caf", {"subtype": "ALAC_16"}),
        ("j.wav", {"format": "RF64"}),
    ],
)
def test_audio_is_audio(name, words, tmp_path):
    encoded(**words)(tmp_path / name)
    assert RATE <= read_header(tmp_path / name).frames <= 1.1 * RATE


def test_a_header_that_a_pipe_wrote_promises_nothing(tmp_path):
    """ffmpeg and sox do not know the length when they begin."""
    path = tmp_path / "a.wav"
    encoded()(path)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert read_header(path).frames == RATE


def test_only_a_few_samples_are_decoded(tmp_path, monkeypatch):
    for name in ("a.wav", "a.flac", "a.mp3"):
        encoded()(tmp_path / name)
    read, counts = soundfile.SoundFile.read, []

    def counting(self, frames=-1, **words):
        counts.append(frames)
        return read(self, frames, **words)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    for name, blocks in (("a.wav", []), ("a.flac", [1, 1]), ("a.mp3", [1])):
        counts.clear()
        read_header(tmp_path / name)
        assert counts == blocks


def test_the_message_ends_in_what_to_do(importer):
    FILES["a.m4a"][0](Path("a.m4a"))
    write_audio("b.wav", 1)
    Path("train.tsv").write_text("path\ttext\na.m4a\tone\nb.wav\ttwo\n")
    message = (
        r"train.tsv, line 2: audio of this format is not read here \(a.m4a: MP4 or M4A, such as "
        r"AAC\); so it is with 1 of 2 utterances of train \(other-format: 1\). Convert it \(this "
        r"needs ffmpeg\): ffmpeg -i a.m4a a.flac; or leave them out with --bad-audio skip"
    )
    with pytest.raises(UserError, match=message):
        importer("tables", "train.tsv")
    assert list(importer("tables", "train.tsv", "--bad-audio", "skip")) == ["b"]


def test_what_is_shorter_than_a_window_is_found_in_stage_1(importer):
    write_audio("a.wav", 0.02)
    write_audio("b.wav", 0.025)
    Path("train.tsv").write_text("path\ttext\na.wav\tone\nb.wav\ttwo\n")
    with pytest.raises(UserError, match="line 2: the utterance is shorter than the window"):
        importer("tables", "train.tsv")
    assert list(importer("tables", "train.tsv", "--bad-audio", "skip")) == ["b"]
