"""The length of a file is what comes out of it, whatever its header says, or there is a message."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.data.diagnosis import Unusable
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.header import read_header

SECONDS = 10
FRAME = 1152  # samples in a frame of an mp3, which begins and ends with silence
TAG = b"ID3\x03\x00\x00\x00\x06\x0d\x20" + bytes(6 * 128 * 128 + 13 * 128 + 32)


def mp3(path: str, mode: str, rate: int = 32000, tag: bytes = b"", says_length: bool = True) -> int:
    """Loud, then nearly silent noise, so that bit rates vary; returns its samples."""
    count = SECONDS * rate
    loud = np.where(np.arange(count) < count // 4, 0.3, 0.0005)
    noise = np.random.default_rng(0).normal(0, 1, count) * loud
    soundfile.write(path, noise, rate, bitrate_mode=mode, compression_level=0.5)
    data = Path(path).read_bytes()
    if not says_length:  # the first frame, which is of no sound
        assert b"Xing" in data[:100] or b"Info" in data[:100]
        data = data[data.index(data[:2], 100) :]
    Path(path).write_bytes(tag + data)
    return count


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [16000, 32000])
@pytest.mark.parametrize("tag", [b"", TAG, TAG + TAG])
def test_an_mp3_that_says_its_length(mode, rate, tag, tmp_path):
    count = mp3(f"{tmp_path}/a.mp3", mode, rate, tag)
    header = read_header(tmp_path / "a.mp3")
    assert (header.rate, header.frames, header.channels) == (rate, count, 1)


@pytest.mark.parametrize("rate", [16000, 32000])
@pytest.mark.parametrize("tag", [b"", TAG, TAG + TAG])
def test_an_mp3_that_does_not_is_decoded(rate, tag, tmp_path):
    """The size, which tags add to, says nothing."""
    path = f"{tmp_path}/a.mp3"
    count = mp3(path, "CONSTANT", rate, tag, says_length=False)
    frames = read_header(path).frames
    assert frames == len(soundfile.read(path)[0])
    assert count <= frames <= count + 2 * FRAME
    assert bool(tag) == (soundfile.info(path).frames > frames + rate)


@pytest.mark.parametrize("rate", [16000, 32000])
def test_what_would_be_lost_is_one_message(rate, tmp_path):
    path = f"{tmp_path}/a.mp3"
    count = mp3(path, "VARIABLE", rate, says_length=False)
    assert len(soundfile.read(path)[0]) < count - rate
    with pytest.raises(Unusable, match=r"\d+ of (\d+) samples, mp3") as caught:
        read_header(path)
    assert count <= int(str(caught.value).split()[3]) <= count + 2 * FRAME


def test_streamed_flac_is_one_message(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(16000), 16000)
    assert read_header(path).frames == 16000
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples, 36 bits
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert soundfile.info(path).frames > 1 << 62
    with pytest.raises(Unusable, match="a stream without its length"):
        read_header(path)


def test_all_of_an_mp3_goes_to_its_features(importer):
    count = mp3("a.mp3", "CONSTANT", tag=TAG, says_length=False)
    Path("train.tsv").write_text("path\ttext\na.mp3\tone\n")
    importer("tables", "train.tsv")
    compute_split(FbankOptions("c", Path("out"), Path("fbank")), "train")
    [cut] = CutSet.from_file("fbank/c_cuts_train.jsonl.gz")
    assert cut.num_frames == len(cut.load_features()) >= 100 * SECONDS
    assert count <= 2 * cut.recording.num_samples <= count + 2 * FRAME  # from 32 kHz to 16 kHz


def test_a_table_says_which_file_and_what_to_do(importer):
    mp3("a.mp3", "VARIABLE", says_length=False)
    mp3("b.mp3", "VARIABLE")
    Path("train.tsv").write_text("path\ttext\na.mp3\tone\nb.mp3\ttwo\n")
    with pytest.raises(
        UserError,
        match=r"line 2: .* not say how long .*\(a.mp3: \d+ of.* ffmpeg -i a.mp3 a.flac; or",
    ):
        importer("tables", "train.tsv")
    assert list(importer("tables", "train.tsv", "--bad-audio", "skip")) == ["b"]
