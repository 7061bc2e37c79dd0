"""Write supervisions without text for musan's speech and noise, of which lhotse makes none.

    python3 local/supervise_noise.py data/manifests

``asrprune fbank`` makes one cut of each supervision; here it is the whole recording.
"""

import gzip
import json
import sys
from pathlib import Path

from asrprune.base.files import atomic_path
from asrprune.base.scripts import run_script


def main() -> int:
    """Write ``musan_supervisions_<kind>.jsonl.gz`` beside the recordings."""
    return run_script("supervise_noise", lambda: supervise(Path(sys.argv[1])))


def supervise(folder: Path) -> None:
    """Write the supervisions of a folder of manifests."""
    for kind in ("speech", "noise"):
        with gzip.open(folder / f"musan_recordings_{kind}.jsonl.gz", "rt") as file:
            lines = [supervision(json.loads(line)) for line in file]
        target = folder / f"musan_supervisions_{kind}.jsonl.gz"
        with atomic_path(target) as temporary, gzip.open(temporary, "wt") as file:
            file.writelines(lines)


def supervision(recording: dict) -> str:
    """A manifest line for the whole of a recording."""
    fields = {
        "id": recording["id"],
        "recording_id": recording["id"],
        "start": 0.0,
        "duration": recording["duration"],
        "channel": 0,
    }
    return json.dumps(fields) + "\n"


if __name__ == "__main__":
    sys.exit(main())
