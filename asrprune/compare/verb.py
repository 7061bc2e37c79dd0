"""Compare ways to train: a grid of methods and seeds, run cell by cell.

A cell is one training, with the decoding and scoring of its model. The same command continues a
comparison that was stopped, and runs cells that were added to the grid. ``key=value`` overrides
change the configuration of all trainings.
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

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.compare.cell import cell_config, finished, run_cell
from asrprune.compare.children import Children
from asrprune.compare.current import divide, recorded
from asrprune.compare.kinds import load_study
from asrprune.compare.measured import check_sets, training_data_digest
from asrprune.compare.preparation import prepare
from asrprune.compare.report import read_records, save_records, write_report
from asrprune.compare.study import Cell, Record, Study
from asrprune.config import Config

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune compare`` to a parser."""
    parser.add_argument(
        "study", type=Path, help="the comparison: a YAML file, such as conf/compare.yaml"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of cells to run at a time")
    parser.add_argument(
        "--dry-run", type=true_or_false, default=False, help="show the commands and run nothing"
    )
    parser.add_argument(
        "--render-only",
        type=true_or_false,
        default=False,
        help="write tables and plots of the existing records again, and run nothing",
    )
    parser.add_argument(
        "--trust-results",
        type=true_or_false,
        default=False,
        help="a cell counts as finished if the results file has all of its records, with today's "
        "data and options. The cell's folder is not needed, so another machine may have run it",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes of the configuration"
    )


def main(args: argparse.Namespace) -> int:
    """Run the cells that are left, then write records, tables and plots."""
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
    log.info("records: %s; report: %s", study.options.results, study.options.report)
    for cell, reason in failed.items():
        path = study.folder(cell) / "compare.log"
        sys.stderr.write(f"{cell.name} failed: {reason}; see {path}\n")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, and the others are kept. Remove the "
            "cause, then run the same command again: it runs the cells that are left"
        )
    return 0


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in padded)


def _show(study: Study, cells: Sequence[Cell]) -> None:
    """Print all commands of a comparison, also those that were run before."""
    for line in study.options.prepare:
        sys.stdout.write(f"{line}\n")
    for cell in cells:
        for words in study.steps(cell).values():
            sys.stdout.write(shlex.join(["asrprune", *words]) + "\n")


def _run(study: Study, cells: Sequence[Cell], jobs: int, trust: bool) -> dict[Cell, str]:
    """Run the cells that are not finished. Return the failed cells with their reasons."""
    config = cell_config(study.options, cells[0])
    data = training_data_digest(study.options, config)
    done, left = _done(study, cells, data, trust)
    log.info("%d cells, %d of them finished; %d at a time", len(cells), len(done), jobs)
    failed: dict[Cell, str] = {}
    if not left:
        save_records(study, cells, _all_of(done), data)
        return failed
    study.check_packages()
    # Batch systems and services stop a process by SIGTERM. It is handled like Ctrl-C.
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
    """Return the records of the finished cells, and the cells that are left.

    Args:
        study: the comparison.
        cells: all cells of the grid.
        data: the digest of the training data; None while there is no data.
        trust: whether a cell is also finished if the results file has its records. A cell whose
            files an unfinished cell needs is not finished without its folder.
    """
    known = study.reused(cells, data) + (read_records(study.options) if trust else [])
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
    """Return the digest of the training data.

    Raises:
        UserError: there is no training data, or a set that the comparison uses is missing.
    """
    data = training_data_digest(study.options, config)
    if data is None:
        raise UserError(
            f"{study.options.manifest_dir} holds no {config.data.corpus}_statistics.json; the "
            "validate stage (3) makes it. Run that stage, or call it in the comparison's prepare:"
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
    """Run the cells that are left. Failed cells go into ``failed``, with their reasons."""
    children = Children(study.options.threads, jobs)
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
    """Hands out cells in order, each cell once all cells that it needs are done."""

    def __init__(self, cells: Sequence[Cell]):
        self._left = {cell.name: cell for cell in cells}
        self._missing = set(self._left)  # names of cells that are not done yet, or have failed

    def take(self, count: int) -> list[Cell]:
        """Return the first cells that can begin, at most ``count``. Each is handed out once."""
        ready = [cell for cell in self._left.values() if not self._missing & set(cell.after)]
        for cell in (ready := ready[:count]):
            del self._left[cell.name]
        return ready

    def end(self, cell: Cell, done: bool) -> None:
        """Note that a cell has ended; ``done``: without failing."""
        if done:
            self._missing.remove(cell.name)

    def without_source(self) -> dict[Cell, str]:
        """Return the cells that could never begin, with their reasons."""
        return {
            cell: "it needs unfinished cells: " + ", ".join(sorted(self._missing & set(cell.after)))
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
    """Stop all children, and wait until they have saved. A second Ctrl-C ends them at once."""
    log.warning("stopping: trainings save first. A second Ctrl-C ends them at once")
    children.stop()
    try:
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        children.kill()
        raise
