"""Compare ways to train: a grid of methods and seeds, run cell by cell.

A cell is a training, with the decoding and scores of what comes of it. The same command goes on
where a run stopped, and runs what was added to the grid. Words of the form ``key=value`` change the
config of all trainings.
"""

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from asrprune.arguments import true_or_false
from asrprune.config import Config
from asrprune.errors import UserError
from asrprune.studies.cell import cell_config, finished, run_cell
from asrprune.studies.children import Children
from asrprune.studies.current import divide, recorded
from asrprune.studies.kinds import load_study
from asrprune.studies.measured import check_sets, training_data_digest
from asrprune.studies.preparation import prepare
from asrprune.studies.report import read_records, save_records, write_report
from asrprune.studies.study import Cell, Record, Study

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune compare``."""
    parser.add_argument("study", type=Path, help="a YAML file, such as conf/compare.yaml")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument(
        "--dry-run", type=true_or_false, default=False, help="show the commands, run nothing"
    )
    parser.add_argument(
        "--render-only",
        type=true_or_false,
        default=False,
        help="make tables and plots of the records again, run nothing",
    )
    parser.add_argument(
        "--trust-results",
        type=true_or_false,
        default=False,
        help="a cell whose records are all in the results file, of the same data and options, is "
        "finished, on whatever machine it ran: its folder is not needed",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> int:
    """Run what is left of the grid, then write records, tables and plots."""
    if args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {args.jobs}")
    study = load_study(args.study)
    cells = study.cells(args.overrides)
    if args.dry_run:
        _show(study, cells)
        return 0
    failed: dict[Cell, str] = {}
    if not args.render_only:
        failed = _run(study, cells, args.jobs, args.trust_results)
    records = read_records(study.options)
    write_report(study, cells, records)
    fresh, _ = divide(study, cells, records)
    if fresh:
        study.draw(fresh)
        sys.stdout.write(_aligned(study.short(cells, fresh)))
    log.info("wrote %s and %s", study.options.results, study.options.report)
    for cell, reason in failed.items():
        path = study.folder(cell) / "compare.log"
        sys.stderr.write(f"{cell.name} failed: {reason}; see {path}\n")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, and the others are kept. Once the cause "
            "is removed, the same command goes on with them"
        )
    return 0


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in padded)


def _show(study: Study, cells: Sequence[Cell]) -> None:
    """The commands of all that a comparison takes, whether done or not."""
    for line in study.options.prepare:
        sys.stdout.write(f"{line}\n")
    for cell in cells:
        for words in study.steps(cell).values():
            sys.stdout.write(shlex.join(["asrprune", *words]) + "\n")


def _run(study: Study, cells: Sequence[Cell], jobs: int, trust: bool) -> dict[Cell, str]:
    """Run the cells that are not finished; returns those that failed, and why."""
    config = cell_config(study.options, cells[0])
    data = training_data_digest(study.options, config)
    done, left = _done(study, cells, data, trust)
    log.info("%d cells, %d of them finished; %d at a time", len(cells), len(done), jobs)
    failed: dict[Cell, str] = {}
    if not left:
        save_records(study, cells, _all_of(done), data)
        return failed
    # a batch system's or a service's way to stop is answered like Ctrl-C
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        prepare(study.options.prepare)
        data = _require_data(study, config)
        done, left = _done(study, cells, data, trust)
        save_records(study, cells, _all_of(done), data)
        _run_cells(study, cells, left, jobs, data, failed)
    finally:
        signal.signal(signal.SIGTERM, before)
    return failed


def _done(
    study: Study, cells: Sequence[Cell], data: str | None, trust: bool
) -> tuple[dict[Cell, list[Record]], list[Cell]]:
    """The records of the finished cells, and the cells that are left.

    Args:
        trust: whether records of the results file count, those of a cell's folder first, but for
            cells whose files others need that are left.
    """
    known = read_records(study.options) if trust else []
    done, needed = {}, set()
    for cell in reversed(cells):
        records = finished(study, cell, data)
        if records is None and cell.name not in needed:
            records = recorded(study, cell, known, data)
        if records:
            done[cell] = records
        else:
            needed.update(cell.after)
    return done, [cell for cell in cells if cell not in done]


def _all_of(done: dict[Cell, list[Record]]) -> list[Record]:
    return [record for records in done.values() for record in records]


def _require_data(study: Study, config: Config) -> str:
    """The digest of the training data.

    Raises:
        UserError: it is not there, or lacks a set that is to be decoded.
    """
    data = training_data_digest(study.options, config)
    if data is None:
        raise UserError(
            f"{study.options.manifest_dir} holds no {config.data.corpus}_statistics.json; the "
            "validate stage (3) makes it, and a comparison's prepare: may call that"
        )
    check_sets(study.options, config, study.sets())
    return data


def _run_cells(
    study: Study,
    cells: Sequence[Cell],
    left: list[Cell],
    jobs: int,
    data: str,
    failed: dict[Cell, str],
) -> None:
    """Run those that are left; what fails goes into ``failed``."""
    children = Children(study.options.threads)
    with (
        tqdm(
            total=len(cells), initial=len(cells) - len(left), desc="comparison", unit="cell"
        ) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        queue = _Queue(left)
        waiting: dict[Future, Cell] = {}
        try:
            while True:
                for cell in queue.take(jobs - len(waiting)):
                    waiting[pool.submit(run_cell, study, cell, children, data)] = cell
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    cell = waiting.pop(future)
                    _take(future, cell, study, cells, data, failed)
                    queue.end(cell, cell not in failed)
                    bar.update()
            failed |= queue.without_source()
        except BaseException:  # Ctrl-C above all
            _stop(pool, children)
            raise


class _Queue:
    """Cells in their order, each of them when all that it needs are done."""

    def __init__(self, cells: Sequence[Cell]):
        self._left = {cell.name: cell for cell in cells}
        self._missing = set(self._left)  # what is not done yet, or has failed

    def take(self, count: int) -> list[Cell]:
        """The first ones that can begin, so many at most; each is given out once."""
        ready = [cell for cell in self._left.values() if not self._missing & set(cell.after)]
        for cell in (ready := ready[:count]):
            del self._left[cell.name]
        return ready

    def end(self, cell: Cell, done: bool) -> None:
        """Note that a cell has ended."""
        if done:
            self._missing.remove(cell.name)

    def without_source(self) -> dict[Cell, str]:
        """Those that never could begin, and why."""
        return {
            cell: f"it begins with {', '.join(sorted(self._missing & set(cell.after)))}"
            for cell in self._left.values()
        }


def _take(
    future: Future,
    cell: Cell,
    study: Study,
    cells: Sequence[Cell],
    data: str,
    failed: dict[Cell, str],
) -> None:
    try:
        save_records(study, cells, future.result(), data)
        log.info("%s is finished", cell.name)
    except UserError as error:
        failed[cell] = str(error)
        log.error("%s failed: %s", cell.name, error)


def _stop(pool: ThreadPoolExecutor, children: Children) -> None:
    """Stop all children, and wait until they have saved; a second Ctrl-C ends them at once."""
    log.warning("stopping; trainings save where they are, a second Ctrl-C ends them at once")
    children.stop()
    try:
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        children.kill()
        raise
