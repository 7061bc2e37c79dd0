"""Stage 0: get what is missing of Debian's packages, without root, and see that all is there.

    python3 local/get_packages.py download en es fr it ru

A folder with a manifest.jsonl, and packages that are there already, are only looked at. Others are
got by apt-get and unpacked by dpkg-deb, 20 MB a language. What was stopped half-way is done again.
"""

import argparse
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prompts import (
    MANIFEST,
    REASONS,
    find_package,
    find_script,
    find_voices,
    packages,
    read_prompts,
    ways_out,
)

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.base.locks import open_locked
from asrprune.base.scripts import run_script

TOOLS = ("apt-get", "dpkg-deb")

log = logging.getLogger("get_packages")


def main() -> int:
    """Get the prompts of all languages, or say what is wrong."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the packages, or of a manifest")
    parser.add_argument("languages", nargs="+", help="such as en fr")
    return run_script("get_packages", lambda: get_packages(parser.parse_args()))


def get_packages(args: argparse.Namespace) -> None:
    """Get what is missing, and count the prompts.

    Raises:
        UserError: something is missing that cannot be had, or damaged.
    """
    missing = [
        language
        for language in args.languages
        if not (find_script(args.folder, language) and find_voices(args.folder, language))
    ]
    if missing and not (args.folder / MANIFEST).is_file() and is_ours(args.folder):
        fetch(args.folder, missing)
    # which says as well what is missing of a folder that is somebody else's
    prompts = read_prompts(args.folder, args.languages)
    for language in args.languages:
        reasons = Counter(prompt.reason for prompt in prompts if prompt.language == language)
        good = reasons.pop("", 0)
        why = "".join(f"; {count}: {REASONS[key]}" for key, count in reasons.most_common())
        log.info("%s: %d prompts, and %d left out%s", language, good, reasons.total(), why)


def is_ours(folder: Path) -> bool:
    """Whether packages can be unpacked in a folder: into / they are installed, and a link leads to
    somebody's copy."""
    usable = folder.resolve() != Path("/") and not folder.is_symlink()
    return usable and all(map(shutil.which, TOOLS))


def fetch(folder: Path, languages: Sequence[str]) -> None:
    """Get the packages of languages and unpack them, if anything can be added to the folder.

    Raises:
        UserError: that fails, or another process does it.
    """
    try:
        lock = open_locked(folder / ".lock", f"{folder} is being filled by another process")
    except OSError as error:  # read-only; what it lacks is said next
        log.warning("nothing can be added to %s: %s", folder, error.strerror)
        return
    work = folder.resolve() / ".part"
    with lock:
        for language in languages:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            log.info("getting %s", " ".join(packages(language)))
            call(["apt-get", "download", *packages(language)], work, folder, language)
            for package in sorted(work.glob("*.deb")):
                call(["dpkg-deb", "-x", package.name, "."], work, folder, language)
            move(work, folder, language)
        shutil.rmtree(work, ignore_errors=True)


def call(command: Sequence[str], work: Path, folder: Path, language: str) -> None:
    """Run a command in a folder.

    Raises:
        UserError: it fails; its own error is above.
    """
    if subprocess.run(command, cwd=work).returncode:
        raise UserError(f"{' '.join(command)} failed; see above. {ways_out(folder, language)}")


def move(work: Path, folder: Path, language: str) -> None:
    """Give what was unpacked its place, the script last: without it there is no language."""
    script, sounds = find_package(work, language)
    if old := find_script(folder, language):
        old.unlink()
    for path in (*sounds.rglob("*.wav"), script.with_name("copyright"), script):
        place = folder / path.relative_to(work)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


if __name__ == "__main__":
    sys.exit(main())
