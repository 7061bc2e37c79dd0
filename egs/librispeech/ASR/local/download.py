"""Get what is missing of LibriSpeech and musan, and nothing else.

    python3 local/download.py download train-clean-100 dev-clean musan

A folder that is there is never touched, and an archive that is whole needs no network. Archives are
unpacked beside the place of their folder, which gets its name last: no half of one bears it.
"""

import argparse
import gzip
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath

# what Python raises where an archive ends too soon or holds something else
DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
CHUNK = 1 << 20


def main() -> int:
    """Provide the missing parts; 1 if that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets LibriSpeech/ and musan/")
    parser.add_argument("parts", nargs="+", help="splits of LibriSpeech, or musan")
    args = parser.parse_args()
    for part in args.parts:
        archive, target = args.folder / archive_name(part), place(args.folder, part)
        try:
            if not is_there(args.folder, part):
                provide(args.folder, part)
            continue
        except DAMAGED as error:
            problem = describe_damage(archive, target, error)
        except (OSError, HTTPException) as error:
            if archive.exists() and not archive.stat().st_size:
                archive.unlink()  # it would only be in the way of what the message advises
            problem = describe_failure(archive, target, error)
        except ValueError as error:
            problem = f"{part}: {error}"
        sys.stderr.write(f"download: error: {problem}\n")
        return 1
    return 0


def describe_damage(archive: Path, target: Path, error: Exception) -> str:
    """What to do about an archive that cannot be read: cut off, or not what it should be."""
    what = f"{archive} is cut off or damaged ({first_line(error)})"
    if target.exists():
        return (
            f"{what}, so nothing tells whether {target} is all of it. Remove {archive} to take the "
            f"folder as it is, or {archive} and {target} to start anew"
        )
    return (
        f"{what}. Run the same command again to fetch what is missing at its end; if that does not "
        f"mend it, remove {archive} first to start anew"
    )


def first_line(error: Exception) -> str:
    """tarfile lists every kind that it tried."""
    return str(error).partition("\n")[0].rstrip(":")


def describe_failure(archive: Path, target: Path, error: Exception) -> str:
    """What to do when the network or the disk failed."""
    first = f"remove {archive} and " if archive.exists() else ""
    return (
        f"{target.name} could not be downloaded: {error}. Run the same command again to go on, or "
        f"{first}provide {target} yourself (a link to your copy will do)"
    )


def place(folder: Path, part: str) -> Path:
    """Where a part lies."""
    return folder / inner_path(part)


def inner_path(part: str) -> PurePosixPath:
    """Where a part lies in its archive."""
    return PurePosixPath("musan" if part == "musan" else f"LibriSpeech/{part}")


def archive_name(part: str) -> str:
    """Under which a part is downloaded; it stays after unpacking."""
    return f"{part}.tar.gz"


def mark_of(folder: Path, part: str) -> Path:
    """lhotse's mark of a part that it has unpacked to the end; ours too."""
    return folder / ".musan_completed" if part == "musan" else place(folder, part) / ".completed"


def is_there(folder: Path, part: str) -> bool:
    """Whether a part needs no download: unpacked to the end, or the user's own.

    With its archive beside it and no mark, somebody unpacked it, and perhaps not to the end.

    Raises:
        ValueError: that is so: files of the archive are missing.
    """
    target, archive = place(folder, part), folder / archive_name(part)
    if not target.is_dir():
        return False
    linked = target.is_symlink() or target.parent.is_symlink()
    if mark_of(folder, part).exists() or linked or not archive.exists():
        return True
    sys.stderr.write(f"download: comparing {target} with {archive}\n")
    if missing := [path for path, size in read_files(archive, part) if not has(target, path, size)]:
        raise ValueError(
            f"{target / missing[0]} is missing or cut off, and {len(missing) - 1} more files of "
            f"{archive}. Remove {target} to have it unpacked again, or {archive} to take the "
            "folder as it is"
        )
    return True


def has(target: Path, path: PurePosixPath, size: int) -> bool:
    """Whether a folder has a file of that size."""
    file = target / path
    return file.is_file() and file.stat().st_size == size


@contextmanager
def open_archive(archive: Path) -> Iterator[tarfile.TarFile]:
    """An archive to be read once, to its end, which has the sum that shows damage.

    Raises:
        DAMAGED: it is cut off, damaged, or no archive.
    """
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
        while stream.read(CHUNK):
            pass


def read_files(archive: Path, part: str) -> list[tuple[PurePosixPath, int]]:
    """The files of a part in its archive: paths in its folder, and sizes in bytes."""
    top, found = inner_path(part), []
    with open_archive(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isfile() and path.is_relative_to(top):
                found.append((path.relative_to(top), member.size))
    return found


def provide(folder: Path, part: str) -> None:
    """Unpack the archive of a part; fetch what is missing of it first."""
    archive = folder / archive_name(part)
    if archive.exists() and archive.stat().st_size:
        try:
            unpack(folder, part)
            return
        except DAMAGED as error:
            sys.stderr.write(f"download: {archive} is no whole archive ({first_line(error)})\n")
    sys.stderr.write(f"download: {part} into {folder}\n")
    fetch(folder, part)
    unpack(folder, part)


def fetch(folder: Path, part: str) -> None:
    """Download the archive of a part, or what is missing at its end."""
    from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH
    from lhotse.recipes.musan import MUSAN_URL
    from lhotse.utils import resumable_download

    resources = {**dict.fromkeys(LIBRISPEECH, 12), **dict.fromkeys(MINI_LIBRISPEECH, 31)}
    if part != "musan" and part not in resources:
        raise ValueError(f"there is no such split; there are {LIBRISPEECH + MINI_LIBRISPEECH}")
    name = archive_name(part)
    url = f"http://www.openslr.org/resources/{resources.get(part)}/{name}"
    folder.mkdir(parents=True, exist_ok=True)
    resumable_download(MUSAN_URL if part == "musan" else url, folder / name)


def unpack(folder: Path, part: str) -> None:
    """Unpack an archive beside the place of its folder, and move it there once it is whole.

    Raises:
        ValueError: the archive is whole, and of something else.
    """
    archive, target = folder / archive_name(part), place(folder, part)
    work = target.parent / f".{part}.unpacking"  # a name with a dot is no part of the corpus
    remove(work)
    sys.stderr.write(f"download: unpacking {archive}\n")
    try:
        with open_archive(archive) as tar:
            # nothing outside of the folder; early releases of Python 3.11 have no such filter
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            tar.extractall(work)
        unpacked = work / inner_path(part)
        if not unpacked.is_dir():
            raise ValueError(f"{archive} holds no {inner_path(part)}; remove it to start anew")
        for path in unpacked.parent.iterdir():  # readme and tables of LibriSpeech
            if path != unpacked and not (target.parent / path.name).exists():
                path.rename(target.parent / path.name)
        os.sync()  # a power cut leaves no folder of empty files
        unpacked.rename(target)
    finally:
        remove(work)
    mark_of(folder, part).touch()


def remove(work: Path) -> None:
    """Remove a folder of ours, if it is there."""
    if work.exists():
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
