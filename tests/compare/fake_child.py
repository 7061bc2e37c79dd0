"""Stands in for `asrprune.compare.child`: each verb takes a moment, a training in steps it keeps.

``python fake_child.py USAGE VERB ... --exp-dir DIR ...``. Writes each call to DIR/calls (without a
DIR, beside what ``--output``, ``--out-dir`` or ``--onnx-dir`` names). A training counts its steps
in DIR/steps and goes on from there. It leaves an empty checkpoint.
FAKE_FAIL names a verb and a cell that fail. FAKE_HANG names a cell whose training waits after 3
steps until it is told to end, or its parent is.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from asrprune.config import load_config, save_config

STEPS = 6


def main() -> int:
    usage, verb, *words = sys.argv[1:]
    if "--exp-dir" in words:
        folder = Path(words[words.index("--exp-dir") + 1])
    else:
        place = next(word for word in ("--output", "--out-dir", "--onnx-dir") if word in words)
        folder = Path(words[words.index(place) + 1]).parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "calls", "a") as file:
        file.write(f"{verb}\n")
    if os.environ.get("FAKE_FAIL") == f"{verb} {folder.name}":
        print("some lines before", "fake: told to fail", sep="\n")
        return 3
    if verb == "train":
        threading.Thread(target=end_with_parent, daemon=True).start()
        config = load_config(words[words.index("--config") + 1], [w for w in words if "=" in w])
        save_config(config, folder / "config.yaml")
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        path = folder / "steps"
        for step in range(len(path.read_text().split()) if path.exists() else 0, STEPS):
            with open(path, "a") as file:
                file.write(f"{step}\n")
            (folder / "checkpoint-1.pt").touch()
            if step == 2 and os.environ.get("FAKE_HANG") == folder.name:
                (folder / "hangs").write_text(str(os.getpid()))
                stop.wait(60)
                (folder / "stopped").touch()
                return 143
    Path(usage).write_text(json.dumps({"cpu_seconds": 0.5}))
    return 0


def end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


sys.exit(main())
