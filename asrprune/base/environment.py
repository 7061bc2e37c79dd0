"""What a result was made with: versions of packages, the state of the repository, the machine."""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("torch", "torchaudio", "lhotse", "k2", "sentencepiece", "kaldialign"),
    *("numpy", "scipy", "omegaconf", "lilcom", "soundfile"),
)


def versions() -> dict[str, str]:
    """Version of Python, of this toolkit and of each package that is installed."""
    from asrprune import __version__

    found = {"python": platform.python_version(), "asrprune": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> str:
    """Commit of the checkout that runs, ``+changes`` if it differs; empty outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, str]:
    """Operating system, processor architecture, cores and host name."""
    return {
        "system": platform.platform(),
        "cores": str(usable_cores()),
        "host": platform.node(),
    }


def machine_id() -> str:
    """Return a short id that differs between machines, and tells nothing else about them.

    On Linux a machine has another id after each start: containers often have the same host name.
    """
    start = Path("/proc/sys/kernel/random/boot_id")
    seen = platform.node() + (start.read_text() if start.is_file() else "")
    return hashlib.blake2b(seen.encode(), digest_size=4).hexdigest()


def usable_cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on a Mac
        return os.cpu_count() or 1


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
