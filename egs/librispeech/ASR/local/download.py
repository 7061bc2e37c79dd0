"""Download what is missing of LibriSpeech and musan, and nothing else.

    python3 local/download.py download train-clean-100 dev-clean musan

A folder that is there is never touched: lhotse's own command would remove a copy of the user's that
it did not unpack itself.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Fetch the missing parts; 1 if that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets LibriSpeech/ and musan/")
    parser.add_argument("parts", nargs="+", help="splits of LibriSpeech, or musan")
    args = parser.parse_args()
    missing = [part for part in args.parts if not is_there(args.folder, part)]
    for part in missing:
        sys.stderr.write(f"download: {part} into {args.folder}\n")
        try:
            fetch(args.folder, part)
        except (OSError, ValueError) as error:
            target, archive = place(args.folder, part), args.folder / f"{part}.tar.gz"
            if archive.exists() and not archive.stat().st_size:
                archive.unlink()  # beside it, a copy of the user's would look half unpacked
            first = f"remove {archive} and " if archive.exists() else ""
            sys.stderr.write(
                f"download: error: {part} could not be downloaded: {error}. Run the same command "
                f"again to go on, or {first}provide {target} yourself (a link to your copy will "
                "do)\n"
            )
            return 1
    return 0


def place(folder: Path, part: str) -> Path:
    """Where a part lies."""
    return folder / part if part == "musan" else folder / "LibriSpeech" / part


def is_there(folder: Path, part: str) -> bool:
    """Whether a part needs no download: unpacked by an earlier run to the end, or the user's own.

    What an earlier run was unpacking when it was stopped has its archive beside it and no mark.
    """
    target = place(folder, part)
    mark = folder / ".musan_completed" if part == "musan" else target / ".completed"
    own = not (folder / f"{part}.tar.gz").exists() or target.is_symlink()
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
