"""Write the units of a rehearsal corpus in parallel, and check its options and its folder.

A unit is a chapter or a batch of one speaker. Existing units are kept.
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.data.parallel import progress_bar, run_parts
from asrprune.rehearsal.room_acoustics import Acoustics

PART_UNITS = 4  # units of one synthesiser process, which takes some time to start
DEV_HOURS, TEST_HOURS = 0.1, 0.3  # for an hour of training speech or more; in proportion for less

SnrRange = tuple[float, float]  # lowest and highest signal-to-noise ratio, in dB
Unit = TypeVar("Unit")

log = logging.getLogger(__name__)


def check_hours(**hours: float | None) -> None:
    """Check the hours in the options of ``asrprune rehearse``.

    Args:
        hours: option name (``train``, ``dev``, ``test``) -> hours; None: the option was not given.

    Raises:
        UserError: a number of hours is not above 0, or not finite.
    """
    for name, value in hours.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name}-hours must be above 0, not {value}")


def evaluation_hours(
    train_hours: float, dev_hours: float | None, test_hours: float | None
) -> tuple[float, float]:
    """Return the hours of the development set and of the test set.

    Args:
        train_hours: hours of training speech.
        dev_hours: hours of the development set; None: by ``train_hours``.
        test_hours: hours of the test set; None: by ``train_hours``.
    """
    scale = min(train_hours, 1.0)
    dev_hours = DEV_HOURS * scale if dev_hours is None else dev_hours
    return dev_hours, TEST_HOURS * scale if test_hours is None else test_hours


def specification(
    version: int,
    train_hours: float,
    seed: int,
    test_hours: float | None,
    dev_hours: float | None,
    text: str,
    snr_db: SnrRange | None,
) -> dict[str, Any]:
    """Return the description of a corpus for :func:`claim_folder`, without default values."""
    spec: dict[str, Any] = {"train_hours": train_hours, "seed": seed}
    spec["version"] = version
    if test_hours is not None:
        spec["test_hours"] = test_hours
    if dev_hours is not None:
        spec["dev_hours"] = dev_hours
    if text != "sentences":
        spec["text"] = text
    if snr_db is not None:
        spec["snr_db"] = list(snr_db)
    return spec


def acoustics_of(snr_db: SnrRange | None) -> Acoustics:
    """Return the conditions of recording with this range of signal-to-noise ratios.

    Args:
        snr_db: lowest and highest ratio in dB; None: the default range.

    Raises:
        UserError: the first number is above the second, or a number is not finite.
    """
    if snr_db is None:
        return Acoustics()
    low, high = snr_db
    if not -math.inf < low <= high < math.inf:
        raise UserError(f"--snr-db {low:g} {high:g}: the first must not be above the second")
    return Acoustics(snr_db=(low, high))


def claim_folder(corpus: Path, spec: dict[str, Any]) -> None:
    """Write the description of a corpus into its folder, so that two corpora never mix.

    Args:
        corpus: folder of the corpus.
        spec: the description, see :func:`specification`.

    Raises:
        UserError: the folder holds another corpus or other files.
    """
    path = corpus / ".rehearsal.json"
    if path.exists():
        there = read_json(path)
        differences = [
            f"{name} is {there.get(name)} there and {spec.get(name)} here"
            for name in {**there, **spec}
            if there.get(name) != spec.get(name)
        ]
        if differences:
            raise UserError(
                f"{corpus} holds another rehearsal corpus ({', '.join(differences)}): "
                "remove that folder or choose another one (--out-dir; run.sh: --download-dir)"
            )
    elif any(not name.name.startswith(".tmp-") for name in corpus.glob("*")):
        raise UserError(f"{corpus} is no rehearsal corpus: choose another --out-dir")
    else:
        write_json(path, spec)


def write_missing(
    work: Callable[[Sequence[Unit], Callable[[int], None]], None],
    plan: Sequence[Unit],
    missing: Sequence[Unit],
    utterances: int,
    jobs: int,
    name: str,
) -> None:
    """Write the missing units of a plan in parallel.

    Args:
        work: writes some units, and reports the number of utterances; must be picklable.
        plan: all units.
        missing: the units to write.
        utterances: number of utterances of a unit.
        jobs: number of processes.
        name: name of the units in log messages, in the plural.

    Raises:
        UserError: the disk is full, or a process died.
    """
    if 0 < len(missing) < len(plan):
        log.info("%d of %d %s are there already", len(plan) - len(missing), len(plan), name)
    parts = [missing[i : i + PART_UNITS] for i in range(0, len(missing), PART_UNITS)]
    with progress_bar(len(missing) * utterances, "synthesis", "utterance") as bar:
        for _ in run_parts(work, parts, jobs, bar):
            pass  # the files are the result
