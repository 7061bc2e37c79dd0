"""Download what is missing of LibriSpeech and musan, and nothing else.

    python3 local/download.py download train-clean-100 dev-clean musan

A folder that is there is never touched: lhotse's own command would remove a copy of the user's that
it did not unpack itself.
"""

import argparse
import gzip
import sys
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path

# what Python raises where an archive ends too soon or holds something else
DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


def main() -> int:
    """Fetch the missing parts; 1 if that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets LibriSpeech/ and musan/")
    parser.add_argument("parts", nargs="+", help="splits of LibriSpeech, or musan")
    args = parser.parse_args()
    missing = [part for part in args.parts if not is_there(args.folder, part)]
    for part in missing:
        sys.stderr.write(f"download: {part} into {args.folder}\n")
        archive = args.folder / archive_name(part)
        try:
            fetch(args.folder, part)
            continue
        except DAMAGED as error:
            problem = describe_damage(archive, place(args.folder, part), error)
        except (OSError, HTTPException) as error:
            if archive.exists() and not archive.stat().st_size:
                archive.unlink()  # beside it, a copy of the user's would look half unpacked
            problem = describe_failure(archive, place(args.folder, part), error)
        except ValueError as error:
            problem = f"{part}: {error}"
        sys.stderr.write(f"download: error: {problem}\n")
        return 1
    return 0


def describe_damage(archive: Path, target: Path, error: Exception) -> str:
    """What to do about an archive that cannot be unpacked: cut off, or not what it should be."""
    # without the archive beside it, what is half unpacked would look like the user's own
    remove = f"{archive} and {target}" if target.exists() else str(archive)
    reason = str(error).partition("\n")[0].rstrip(":")  # tarfile lists every kind that it tried
    return (
        f"{archive} is cut off or damaged ({reason}). Run the same command again to fetch what is "
        f"missing at its end; if that does not mend it, remove {remove} first to start anew"
    )


def describe_failure(archive: Path, target: Path, error: Exception) -> str:
    """What to do when the network or the disk failed."""
    first = f"remove {archive} and " if archive.exists() else ""
    return (
        f"{target.name} could not be downloaded: {error}. Run the same command again to go on, or "
        f"{first}provide {target} yourself (a link to your copy will do)"
    )


def place(folder: Path, part: str) -> Path:
    """Where a part lies."""
    return folder / part if part == "musan" else folder / "LibriSpeech" / part


def archive_name(part: str) -> str:
    """Under which lhotse downloads a part; it stays after unpacking."""
    return f"{part}.tar.gz"


def is_there(folder: Path, part: str) -> bool:
    """Whether a part needs no download: unpacked by an earlier run to the end, or the user's own.

    What an earlier run was unpacking when it was stopped has its archive beside it and no mark.
    """
    target = place(folder, part)
    mark = folder / ".musan_completed" if part == "musan" else target / ".completed"
    own = not (folder / archive_name(part)).exists() or target.is_symlink()
    return target.is_dir() and (mark.exists() or own or target.parent.is_symlink())


def fetch(folder: Path, part: str) -> None:
    """Download and unpack one part."""
    from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, download_librispeech
    from lhotse.recipes.musan import download_musan

    if part == "musan":
        download_musan(folder)
    elif part in LIBRISPEECH or part in MINI_LIBRISPEECH:
        download_librispeech(folder, dataset_parts=part)
    else:
        raise ValueError(f"there is no such split; there are {LIBRISPEECH + MINI_LIBRISPEECH}")


if __name__ == "__main__":
    sys.exit(main())
