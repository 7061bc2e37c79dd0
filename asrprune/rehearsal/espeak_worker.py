"""Serve requests for speech over a pipe. Equal requests give equal bytes.

`asrprune.rehearsal.espeak` runs this file as ``python espeak_worker.py LIBRARY DATA``. The file
imports only the standard library. espeak-ng seeds its noise from the clock and keeps state between
calls. So a new forked child serves each request, with a constant seed for the noise. Forking is
safe because this process has no threads.

A request is one line of JSON with ``text, name, rate, pitch, pitch_range, volume``. A reply is a
signed 64-bit length, followed by so many bytes of 16-bit samples. A negative length announces an
error message. The worker sends a first reply before any request: the sampling rate in ASCII.
"""

import ctypes
import json
import os
import struct
import sys
from contextlib import suppress

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback before espeak_Synth returns
_DO_NOT_EXIT = 0x8000  # return an error for a bad data path, and do not end the process
_UTF8 = 1
_CHARACTER = 1  # espeak_POSITION_TYPE, unused with position 0
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}  # espeak_PARAMETER
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """Wrap the few functions of libespeak-ng that the worker needs."""

    def __init__(self, library: str, data: str):
        self._lib = lib = ctypes.CDLL(library)
        lib.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        lib.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.sampling_rate = lib.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT)
        if self.sampling_rate <= 0:
            raise RuntimeError(f"espeak-ng cannot read its data in {data}")
        self._samples: list[bytes] = []
        self._callback = _CALLBACK(self._keep)  # this reference prevents garbage collection
        lib.espeak_SetSynthCallback(self._callback)

    def _keep(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._samples.append(ctypes.string_at(samples, 2 * count))
        return 0

    def speak(self, request: dict) -> bytes:
        """Return the 16-bit samples of one request. Call once in a process."""
        self._lib.espeak_ng_SetRandSeed(1)
        if self._lib.espeak_SetVoiceByName(request["name"].encode()) != 0:
            raise ValueError(f"no voice {request['name']!r}")
        for name, number in _PARAMETERS.items():
            self._lib.espeak_SetParameter(number, request[name], 0)
        text = request["text"].encode() + b"\0"
        status = self._lib.espeak_Synth(text, len(text), 0, _CHARACTER, 0, _UTF8, None, None)
        if status != 0:
            raise RuntimeError(f"espeak_Synth returned {status}")
        return b"".join(self._samples)


def _write(payload: bytes, length: int) -> None:
    view = memoryview(struct.pack("<q", length) + payload)
    while view:
        view = view[os.write(1, view) :]


def _serve(espeak: Espeak, request: dict) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                samples = espeak.speak(request)
                _write(samples, len(samples))
            except Exception as error:
                message = f"espeak-ng: {error!r}".encode()
                _write(message, -len(message))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:  # the child died during synthesis, before it wrote anything
        message = f"espeak-ng ended with status {status}".encode()
        _write(message, -len(message))


def main() -> None:
    """Serve requests until the other end closes the pipe."""
    library, data = sys.argv[1:]
    espeak = Espeak(library, data)
    rate = str(espeak.sampling_rate).encode()
    _write(rate, len(rate))
    with suppress(BrokenPipeError):  # the reader has ended
        for line in sys.stdin.buffer:
            _serve(espeak, json.loads(line))


if __name__ == "__main__":
    main()
