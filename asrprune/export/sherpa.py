"""Recognise speech with exported networks in sherpa-onnx, as they are deployed.

In a stream an utterance is followed by a tail of silence, since the recogniser takes whole chunks
and would not hear the end of the last one. sherpa-onnx decodes a frame to one symbol at most.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asrprune.errors import UserError
from asrprune.export.onnx_files import SUMMARY, chosen_files
from asrprune.files import read_json

if TYPE_CHECKING:
    import sherpa_onnx

RATE = 16000  # samples a second that networks are trained on; sherpa-onnx converts others
LEAST = 0.1  # seconds; sherpa-onnx cannot take nothing
PIECE = 0.04  # seconds of audio that come in at once


@dataclass(frozen=True)
class Recognised:
    """What was heard in an utterance, and how long it took."""

    text: str
    seconds: float  # of computing
    cpu: float = 0.0  # seconds that this process computed, while others took the rest


@dataclass(frozen=True)
class Heard(Recognised):
    """The same of one that came in as it was spoken."""

    # seconds from its start until the first symbol could be read
    first: float | None = None
    # of each symbol, seconds from the start of its frame until it could be read
    delays: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)  # CPU seconds of computing each chunk


class Recogniser:
    """The networks of one folder, float32 or int8, in sherpa-onnx."""

    def __init__(self, folder: str | Path, int8: bool = False, threads: int = 1):
        """Load one exported network into sherpa-onnx.

        Args:
            folder: of the network, as ``asrprune export`` wrote it.
            int8: whether to take the int8 files.
            threads: CPU threads of the recogniser.

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
        self.tail: float = about["tail"]  # seconds of silence that are heard after an utterance
        self.threads = threads
        kind = sherpa_onnx.OnlineRecognizer if self.streaming else sherpa_onnx.OfflineRecognizer
        self._recogniser = kind.from_transducer(
            tokens=str(folder / "tokens.txt"), **files, num_threads=threads
        )

    def recognise(self, samples: np.ndarray, rate: int = RATE) -> Recognised:
        """A whole utterance at once; ``samples`` (n,) float32 in [-1, 1]."""
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
        """An utterance that comes in pieces as it is spoken; ``samples`` (n,) in [-1, 1].

        Nobody waits for the speaker: the clock is that of the audio, moved on by what computing
        took. Networks for whole utterances cannot do this.
        """
        samples, piece = padded(samples, rate, self.tail), int(PIECE * rate)
        stream = self._recogniser.create_stream()
        cpu, chunks = time.process_time(), []
        now, spent, read = 0.0, 0.0, []  # the clock; when each symbol could be read
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
        """What has been understood so far, each time that it changes; the last one is all of it.

        Networks for whole utterances wait for the last piece.
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
        """Decode all chunks that have come in; the CPU seconds of each."""
        chunks = []
        while self._recogniser.is_ready(stream):
            started = time.process_time()
            self._recogniser.decode_stream(stream)
            chunks.append(time.process_time() - started)
        return chunks


def padded(samples: np.ndarray, rate: int, tail: float) -> np.ndarray:
    """Samples (n,), float32, with so many seconds of silence behind them; never none at all."""
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
    """What ``export.json`` says of the network of a folder.

    Raises:
        UserError: there is none.
    """
    networks = read_summary(folder.parent)["networks"]
    if folder.name not in networks:
        raise UserError(
            f"{folder} is no exported network; {folder.parent / SUMMARY} knows "
            f"{', '.join(networks)}"
        )
    return networks[folder.name]


def read_summary(folder: Path) -> dict[str, Any]:
    """What ``asrprune export`` says of the networks in a folder.

    Raises:
        UserError: nothing.
    """
    if not (folder / SUMMARY).is_file():
        raise UserError(
            f"{folder / SUMMARY} does not exist: {folder} holds no exported networks; the export "
            "stage (10) makes them"
        )
    return read_json(folder / SUMMARY)


def _words(text: str) -> str:
    return " ".join(text.split())
