"""Drive Chromium by the DevTools protocol over two pipes, with the standard library alone."""

import itertools
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # that an answer may take on a busy machine


def find_chromium() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A page in a Chromium of its own; its messages and errors are collected.

    Chromium reads commands from file descriptor 3 and writes answers and events to 4, each ended by
    a zero byte.
    """

    def __init__(self, chromium: str, folder: Path):
        theirs_in, self._commands = os.pipe()
        answers, theirs_out = os.pipe()
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--mute-audio", f"--user-data-dir={folder / 'profile'}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        # the shell gives the pipes the numbers 3 and 4; high numbers first, lest one be overwritten
        script = f'exec 8<&{theirs_in} 9>&{theirs_out}; exec 3<&8 4>&9 8<&- 9>&-; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._file = os.fdopen(answers, "rb")
        self._timer = threading.Timer(5 * SECONDS, self._process.kill)  # nothing waits for ever
        self._timer.daemon = True
        self._timer.start()
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        self._file.close()
        os.close(self._commands)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def wait(self, method: str) -> dict[str, Any]:
        """Return the parameters of the next event of a kind; earlier events count as well."""
        for event in self.events:
            if event["method"] == method:
                self.events.remove(event)
                return event["params"]
        while True:
            answer = self._read()
            if answer.get("method") == method:
                return self.events.pop()["params"]

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page, after its promise if it is one."""
        found = self.call(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """What the console, the log and uncaught errors said so far."""
        found = []
        for event in self.events:
            if event["method"] in (
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
            ):
                found.append(json.dumps(event["params"]))
        return found

    def requests(self) -> list[str]:
        """The addresses that the page asked for, except those that are the data themselves."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._file.read(1)) != b"\0":
            assert byte, "Chromium ended"
            data += byte
        answer = json.loads(data)
        if "method" in answer:
            self.events.append(answer)
        return answer
