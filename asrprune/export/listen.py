"""Recognise audio files or speech from the microphone with an exported network (sherpa-onnx).

A streaming network prints text while the speaker is speaking. Without files, the command listens to
the microphone until Ctrl-C.

With --language-classifier (the file of asrprune learn-languages), --network is the folder that has
a network for each language. The first seconds of each file decide which network recognises the
file.
"""

import argparse
import logging
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.data.diagnosis import UNUSABLE, Unusable
from asrprune.data.header import read_header
from asrprune.decoding.options import DecodingOptions
from asrprune.export.by_language import RecogniserByLanguage
from asrprune.export.sherpa import RATE, Recogniser

log = logging.getLogger(__name__)

PIECE = 0.1  # seconds of audio that the network receives at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune listen`` to a parser."""
    parser.add_argument(
        "--network", type=Path, required=True, help="a folder of stage 10, such as exp/x/onnx/whole"
    )
    parser.add_argument(
        "--language-classifier", type=Path, help="choose among the languages' networks by the audio"
    )
    parser.add_argument(
        "--language-seconds",
        type=float,
        default=DecodingOptions().language_seconds,
        help="seconds of a file to choose by",
    )
    parser.add_argument("--int8", type=true_or_false, default=False, help="use the int8 files")
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads")
    parser.add_argument("files", nargs="*", type=Path, help="WAV, FLAC, Ogg or MP3 of any rate")


def main(args: argparse.Namespace) -> None:
    """Print ``name<TAB>text`` for each file, or the text from the microphone.

    Raises:
        UserError: options do not go together; or a network, a file or the microphone cannot be
            used.
    """
    live = sys.stdout.isatty()
    if args.language_classifier:
        if not args.files:
            raise UserError(
                "--language-classifier: the language of a microphone cannot be chosen, because "
                "nobody may be speaking at first. Name files, or the --network of one language"
            )
        if not args.language_seconds > 0:
            raise UserError(f"--language-seconds {args.language_seconds}: must be above 0")
        networks = RecogniserByLanguage(
            args.network, args.language_classifier, args.language_seconds, args.int8, args.threads
        )
    else:
        networks, recogniser = None, Recogniser(args.network, args.int8, args.threads)
    for path in args.files:
        samples, rate = read_audio(path)
        if networks:
            language = networks.language_of(samples, rate)
            log.info("%s: %s", path, language)
            recogniser = networks.recogniser(language)
        pieces = np.array_split(samples, max(1, round(len(samples) / (PIECE * rate))))
        _show(f"{path}\t", recogniser.live(pieces, rate), live)
    if not args.files:
        _show("", recogniser.live(_microphone(), RATE), live)


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """Return the first channel of an audio file, (n,) float32 in [-1, 1], and its sampling rate.

    Raises:
        UserError: the file is missing, or cannot be read as audio.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        try:
            read_header(path)
        except Unusable as found:
            what = f"{UNUSABLE[found.reason]} ({found}). {found.mend}"
            raise UserError(f"{path} cannot be read as audio: {what}") from error
        except OSError as found:
            raise UserError(f"{path} cannot be read as audio: {found.strerror}") from error
        raise UserError(f"{path} cannot be read as audio: {error}") from error
    return samples[:, 0], rate


def _show(name: str, texts: Iterator[str], live: bool) -> None:
    """Print a text; on a terminal, print each change of it."""
    text = ""
    for text in texts:
        if live:  # overwrite the former line with the end of the text
            room = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\x1b[K{f'{name}{text}'[-room:]}")
            sys.stdout.flush()
    sys.stdout.write("\r\x1b[K" * live + f"{name}{text}\n")


def _microphone() -> Iterator[np.ndarray]:
    """Yield the pieces (n,) that come in from the microphone, until Ctrl-C.

    Raises:
        UserError: there is no microphone, or no package to use it.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without the library PortAudio
        raise UserError(
            f"the microphone needs sounddevice: pip install 'asrprune[microphone]' ({error}). Or "
            "name files"
        ) from error
    pieces: queue.Queue[np.ndarray] = queue.Queue()
    try:
        microphone = sounddevice.InputStream(
            RATE,
            int(PIECE * RATE),
            channels=1,
            dtype="float32",
            callback=lambda piece, *_: pieces.put(piece[:, 0].copy()),
        )
    except sounddevice.PortAudioError as error:
        raise UserError(f"no microphone can be opened: {error}. Or name files") from error
    ended = threading.Event()  # set by Ctrl-C; speech before Ctrl-C is still recognised
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    sys.stderr.write("listening; Ctrl-C ends\n")
    with microphone:
        while not ended.is_set():
            with suppress(queue.Empty):
                yield pieces.get(timeout=PIECE)
    while not pieces.empty():
        yield pieces.get(timeout=PIECE)
