"""Synthesise speech with espeak-ng in a separate process. Equal requests give equal samples.

Only :mod:`asrprune.rehearsal.espeak_worker` loads the library (GPLv3, the optional extra
``rehearsal``). The process that imports this module never loads it.
"""

import json
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asrprune.base.errors import UserError


@dataclass(frozen=True)
class Voice:
    """Name an espeak-ng voice and its settings."""

    name: str  # language, or language+variant, such as "en-us+f2"
    rate: int = 175  # words per minute, 80 to 450
    pitch: int = 50  # 0 to 99
    pitch_range: int = 50  # 0 (monotone) to 99
    volume: int = 45  # some variants clip at espeak-ng's default of 100


class Espeak:
    """Run a synthesiser process. As a context manager, end the process on exit."""

    def __init__(self):
        """Start the process that loads espeak-ng.

        Raises:
            UserError: the extra ``rehearsal`` is not installed, or the library does not start.
        """
        library, data = find_library()
        worker = Path(__file__).with_name("espeak_worker.py")
        # -I: the environment and the working folder do not change what the worker imports
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(worker), library, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.sampling_rate = int(self._reply())

    def speak(self, text: str, voice: Voice) -> np.ndarray:
        """Return the samples of one text.

        Args:
            text: the text.
            voice: the voice and its settings.

        Returns:
            (num_samples,) int16 at :attr:`sampling_rate`.

        Raises:
            UserError: the voice does not exist, or espeak-ng failed.
        """
        request = json.dumps({"text": text, **asdict(voice)})
        with suppress(BrokenPipeError):  # the worker has ended: `_reply` raises the error
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        return np.frombuffer(self._reply(), dtype="<i2")

    def _reply(self) -> bytes:
        header = self._process.stdout.read(8)
        if len(header) < 8:
            raise UserError(
                "the espeak-ng process ended; its last words are above. "
                "`pip install --force-reinstall espeakng-loader` may help."
            )
        (length,) = struct.unpack("<q", header)
        payload = self._process.stdout.read(abs(length))
        if length < 0:
            raise UserError(payload.decode())
        return payload

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self) -> "Espeak":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()


def find_library() -> tuple[str, str]:
    """Return the paths of libespeak-ng and of its data.

    Raises:
        UserError: the extra ``rehearsal`` is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "rehearsal corpora need espeak-ng: bash tools/setup_env.sh installs it"
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
