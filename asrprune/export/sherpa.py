"""Recognise speech with exported networks in sherpa-onnx, as they are deployed.

In a stream, a tail of silence follows each utterance. Without the silence, sherpa-onnx would not
decode the end of the utterance, because it decodes whole chunks only. sherpa-onnx emits at most one
symbol per encoder frame.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.export.onnx_files import SUMMARY, chosen_files

if TYPE_CHECKING:
    import sherpa_onnx

RATE = 16000  # sampling rate that networks are trained on; sherpa-onnx converts other rates
LEAST = 0.1  # shortest audio in seconds, because sherpa-onnx cannot take empty audio
PIECE = 0.04  # seconds of audio that a stream receives at once


@dataclass(frozen=True)
class Recognised:
    """Hold the text of an utterance, and the time of its recognition."""

    text: str
    seconds: float  # time of computing
    cpu: float = 0.0  # CPU seconds of this process, without the time that other processes took


@dataclass(frozen=True)
class Heard(Recognised):
    """Hold the text of an utterance that came in pieces, with the times of its symbols."""

    # seconds from the start of the utterance until the first symbol could be read
    first: float | None = None
    # for each symbol, seconds from the start of its frame until the symbol could be read
    delays: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)  # CPU seconds of each chunk


class Recogniser:
    """Run the networks of one folder, float32 or int8, in sherpa-onnx."""

    def __init__(self, folder: str | Path, int8: bool = False, threads: int = 1):
        """Load one exported network into sherpa-onnx.

        Args:
            folder: the folder of the network, which ``asrprune export`` wrote.
            int8: whether to take the int8 files.
            threads: number of CPU threads of the recogniser.

        Raises:
            UserError: sherpa-onnx is not installed; ``asrprune export`` did not write the folder;
                the folder has no int8 files; or a file is missing.
        """
        sherpa_onnx = import_sherpa()
        folder = Path(folder)
        about = network_of(folder)
        if int8 and not any(".int8." in name for name in about["files"]):
            raise UserError(f"{folder} has no int8 files; export with --int8 true")
        files = {
            part: str(folder / name) for part, name in chosen_files(about["files"], int8).items()
        }
        for path in files.values():
            if not Path(path).is_file():
                raise UserError(f"{path} does not exist; the export stage (10) makes it")
        self.streaming: bool = about["streaming"]
        self.tail: float = about["tail"]  # seconds of silence after an utterance
        self.threads = threads
        kind = sherpa_onnx.OnlineRecognizer if self.streaming else sherpa_onnx.OfflineRecognizer
        self._recogniser = kind.from_transducer(
            tokens=str(folder / "tokens.txt"), **files, num_threads=threads
        )

    def recognise(self, samples: np.ndarray, rate: int = RATE) -> Recognised:
        """Recognise a whole utterance at once.

        Args:
            samples: samples (n,) float32 in [-1, 1].
            rate: the sampling rate.
        """
        started, cpu = time.perf_counter(), time.process_time()
        stream = self._recogniser.create_stream()
        stream.accept_waveform(rate, padded(samples, rate, self.tail))
        if not self.streaming:
            self._recogniser.decode_stream(stream)
            text = stream.result.text
        else:
            stream.input_finished()
            self._decode(stream)
            text = self._recogniser.get_result(stream)
        spent = time.perf_counter() - started, time.process_time() - cpu
        return Recognised(_words(text), *spent)

    def listen(self, samples: np.ndarray, rate: int = RATE) -> Heard:
        """Recognise an utterance that comes in pieces, as if it was being spoken.

        The method does not wait in real time: its clock is the time of the audio, plus the time of
        computing. Only streaming networks can do this.

        Args:
            samples: samples (n,) in [-1, 1].
            rate: the sampling rate.
        """
        samples, piece = padded(samples, rate, self.tail), int(PIECE * rate)
        stream = self._recogniser.create_stream()
        cpu, chunks = time.process_time(), []
        now, spent, read = 0.0, 0.0, []  # clock, computing time, when each symbol could be read
        for start in range(0, len(samples), piece):
            began = time.perf_counter()
            stream.accept_waveform(rate, samples[start : start + piece])
            if start + piece >= len(samples):
                stream.input_finished()
            chunks += self._decode(stream)
            took = time.perf_counter() - began
            now = max(now, (start + piece) / rate) + took
            spent += took
            symbols = len(self._recogniser.tokens(stream))
            read += [now] * (symbols - len(read))
        frames = self._recogniser.timestamps(stream)
        return Heard(
            _words(self._recogniser.get_result(stream)),
            spent,
            time.process_time() - cpu,
            read[0] if read else None,
            [at - frame for at, frame in zip(read, frames, strict=True)],
            chunks,
        )

    def live(self, pieces: Iterable[np.ndarray], rate: int) -> Iterator[str]:
        """Yield the recognised text each time that it changes. The last text is complete.

        Networks for whole utterances wait for the last piece.

        Args:
            pieces: pieces (n,) of audio as they come in.
            rate: the sampling rate in Hz.
        """
        stream, said = self._recogniser.create_stream(), None
        if not self.streaming:
            yield self.recognise(np.concatenate([np.zeros(0), *pieces]), rate).text
            return
        for piece in chain(pieces, [np.zeros(int(self.tail * rate))]):
            stream.accept_waveform(rate, piece.astype(np.float32))
            self._decode(stream)
            text = _words(self._recogniser.get_result(stream))
            if text != said:
                yield (said := text)

    def _decode(self, stream: Any) -> list[float]:
        """Decode all chunks that have come in. Return the CPU seconds of each chunk."""
        chunks = []
        while self._recogniser.is_ready(stream):
            started = time.process_time()
            self._recogniser.decode_stream(stream)
            chunks.append(time.process_time() - started)
        return chunks


def padded(samples: np.ndarray, rate: int, tail: float) -> np.ndarray:
    """Return samples with a tail of silence. The result is never shorter than `LEAST` seconds.

    Args:
        samples: samples (n,).
        rate: the sampling rate in Hz.
        tail: seconds of silence.

    Returns:
        (n',) float32.
    """
    silence = max(round(tail * rate), round(LEAST * rate) - len(samples))
    return np.concatenate((samples, np.zeros(max(0, silence)))).astype(np.float32)


def import_sherpa() -> "sherpa_onnx":
    """Import sherpa-onnx, which is an optional package.

    Returns:
        The module ``sherpa_onnx``.

    Raises:
        UserError: sherpa-onnx is not installed, or cannot be loaded.
    """
    try:
        import sherpa_onnx
    except ImportError as error:
        raise UserError(
            "sherpa-onnx is not installed, or cannot be loaded: pip install 'asrprune[export]' "
            f"({error})"
        ) from error
    return sherpa_onnx


def network_of(folder: Path) -> Mapping[str, Any]:
    """Return the entry of ``export.json`` for the network of a folder.

    Raises:
        UserError: the folder holds no exported network.
    """
    networks = read_summary(folder.parent)["networks"]
    if folder.name not in networks:
        raise UserError(
            f"{folder} is no exported network; {folder.parent / SUMMARY} knows "
            f"{', '.join(networks)}"
        )
    return networks[folder.name]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of ``export.json``, which describes the networks in a folder.

    Raises:
        UserError: the folder holds no exported networks.
    """
    if not (folder / SUMMARY).is_file():
        raise UserError(
            f"{folder / SUMMARY} does not exist: {folder} holds no exported networks; the export "
            "stage (10) makes them"
        )
    return read_json(folder / SUMMARY)


def _words(text: str) -> str:
    return " ".join(text.split())
