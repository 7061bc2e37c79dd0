"""Record the environment of a result: package versions, state of the repository, machine."""

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
    """Return the versions of Python, of asrprune and of each installed package in `PACKAGES`."""
    from asrprune import __version__

    found = {"python": platform.python_version(), "asrprune": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> str:
    """Return the commit of the running checkout, or "" outside a checkout.

    ``+changes`` follows the commit if files differ from it.
    """
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, str]:
    """Return the operating system with the processor architecture, the cores and the host name."""
    return {
        "system": platform.platform(),
        "cores": str(usable_cores()),
        "host": platform.node(),
    }


def machine_id() -> str:
    """Return a short id that differs between machines and reveals nothing else about them.

    On Linux, the id of a machine changes with each boot. Host names alone are not enough, because
    containers often share a host name.
    """
    start = Path("/proc/sys/kernel/random/boot_id")
    seen = platform.node() + (start.read_text() if start.is_file() else "")
    return hashlib.blake2b(seen.encode(), digest_size=4).hexdigest()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS lacks this function
        return os.cpu_count() or 1


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
