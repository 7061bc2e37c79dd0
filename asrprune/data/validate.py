"""Check every cut, list the rejected ones with their reasons, and compute the corpus' statistics.

Training cuts of all splits are merged and put in an order that depends on the seed and their ids
only. Those that are in another split, of evaluation, as well are left out, with their copies of
changed speed.

A *defect* (an empty transcript, a duplicate id, damaged features, ...) of any set stops the run
unless --allow-rejected admits the share. Leaving out an evaluation cut changes error rates, so its
length is no reason: a text that is too long for its audio is kept, and a warning names it. What the
duration limits leave out of the training set is a wanted selection: it is listed, and an error only
when it is more than a tenth (or the admitted share).
"""

import argparse
import contextlib
import json
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asrprune.base.arguments import share
from asrprune.base.environment import usable_cores
from asrprune.base.errors import UserError
from asrprune.base.files import explain_failed_write, write_json, write_text
from asrprune.data.checked_set import CheckedSet, Rejection
from asrprune.data.checks import (
    COMPUTE_ANEW,
    DEFECTS,
    FILTERS,
    HELD_OUT,
    OF_FEATURES,
    Checked,
    Limits,
    check_features,
    check_manifest,
)
from asrprune.data.drop_words import WordDropper
from asrprune.data.fbank import archives_path, cuts_path, unreadable_path
from asrprune.data.leave_out import LeaveOut
from asrprune.data.manifests import parse_line, read_lines, to_line, write_lines
from asrprune.data.parallel import progress_bar, run_parts
from asrprune.data.sources import AudioSpan, audio_span
from asrprune.data.statistics import duration_bins, table
from asrprune.data_pruning.ids import utterance_id

PART = 500  # cuts whose features one worker reads at a time
MADE_BY = "stage 2 (features)"
FILTERED = 0.1  # share of training cuts that filters may leave out without being asked

# id of an utterance -> the sets that it is for, each with its audio there
HeldOut = Mapping[str, list[tuple[str, AudioSpan]]]

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``asrprune validate``."""
    parser.add_argument("--corpus", required=True, help="the first word of manifest names")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="what stage 2 made")
    parser.add_argument("--out-dir", type=Path, required=True, help="where valid cuts go")
    parser.add_argument("--train", nargs="+", required=True, help="splits to merge for training")
    parser.add_argument("--eval", nargs="*", default=[], help="splits for development and test")
    parser.add_argument("--num-bins", type=int, default=30, help="duration bins of the sampler")
    parser.add_argument("--min-seconds", type=float, default=0.5, help="of training cuts")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="of training cuts")
    parser.add_argument(
        "--subsampling", type=int, default=4, help="feature frames per encoder frame"
    )
    parser.add_argument(
        "--allow-rejected",
        type=share,
        default=0.0,
        help="share of the cuts of each set, for training and for evaluation, 0 to 1, that may be "
        "defective and left out",
    )
    parser.add_argument(
        "--drop-words",
        nargs="+",
        default=[],
        metavar="WORD",
        help="words to leave out of the texts of all sets, such as '<unk>' '[noise]'",
    )
    parser.add_argument(
        "--leave-out",
        type=Path,
        metavar="FILE",
        help="file with one cut id on each line, as the page of asrprune report data saves it: the "
        "training set leaves out these cuts and their copies",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the training cuts")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")


def main(args: argparse.Namespace) -> None:
    """Check the corpus and write what is valid, or nothing but the list of rejected cuts."""
    if "train" in args.eval:
        raise UserError(
            "--eval train: this name is that of the merged training cuts; rename the manifests of "
            "the split (stage 1)"
        )
    drop = WordDropper(args.drop_words)
    leave_out = LeaveOut(args.leave_out)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    with explain_failed_write(args.out_dir), contextlib.ExitStack() as files:

        def empty_set(name: str) -> CheckedSet:
            file = files.enter_context(tempfile.TemporaryFile(dir=args.out_dir))
            return CheckedSet(name, file)

        evaluation = [
            check_set(
                args,
                empty_set(split),
                [split],
                Limits(subsampling=args.subsampling, long_texts=True),
                drop,
            )
            for split in dict.fromkeys(args.eval)
        ]
        held_out: dict[str, list[tuple[str, AudioSpan]]] = {}
        for checked in evaluation:
            if checked.name in args.train:  # asked for by name, as to see a model learn by heart
                log.warning(
                    "%s is trained on and tested on: its error rates say nothing", checked.name
                )
            else:
                for cut in map(json.loads, checked.valid.lines()):
                    entry = (checked.name, audio_span(cut))
                    held_out.setdefault(utterance_id(cut["id"]), []).append(entry)
            for cut_id in (*checked.valid.ids, *(one.id for one in checked.rejections)):
                leave_out.see(cut_id)  # it is known, and stays in its set of evaluation
        train = check_set(
            args, empty_set("train"), args.train, training_limits(args), drop, held_out, leave_out
        )
        drop.report()
        leave_out.check()
        listed = args.out_dir / f"{args.corpus}_rejected.tsv"
        write_rejections(listed, [train, *evaluation])
        for checked in (train, *evaluation):
            judge(checked, args.allow_rejected, listed)
        write_all(args, train, evaluation)


def training_limits(args: argparse.Namespace) -> Limits:
    """What training cuts must keep."""
    return Limits(
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        subsampling=args.subsampling,
    )


def check_set(
    args: argparse.Namespace,
    result: CheckedSet,
    splits: list[str],
    limits: Limits,
    drop: WordDropper,
    held_out: HeldOut | None = None,
    leave_out: LeaveOut | None = None,
) -> CheckedSet:
    """Check the cuts of some splits as one set; returns ``result``, filled.

    Args:
        drop: leaves words out of their texts.
        held_out: the utterances that must not be in it, nor copies of them.
        leave_out: the cuts that the user leaves out, and their copies.

    Raises:
        UserError: a manifest or an archive is missing or damaged.
    """
    leave_out = leave_out or LeaveOut(None)
    for split in splits:
        result.rejections += _unreadable(args, split)
    for rejection in result.rejections:
        leave_out.see(rejection.id)
    paths = {split: cuts_path(args.manifest_dir, args.corpus, split) for split in splits}
    count = sum(1 for path in paths.values() for _ in read_lines(path, MADE_BY))
    jobs = min(args.jobs, -(-count // (10 * PART)))  # starting a process takes seconds
    with progress_bar(count, f"checking {result.name}") as bar:
        for part, found in run_parts(
            check_features,
            _parts(args.corpus, paths, limits, drop, held_out or {}, leave_out),
            jobs,
            bar,
        ):
            for index, reason, detail in found.verdicts:
                part[index].reject(reason, detail)
            result.sums.add(found.sums)
            for checked in part:
                result.take(checked)
    return result


def _unreadable(args: argparse.Namespace, split: str) -> Iterator[Rejection]:
    """What stage 2 was asked to leave out."""
    path = unreadable_path(args.manifest_dir, args.corpus, split)
    if path.exists():
        for row in path.read_text(encoding="utf-8").splitlines()[1:]:
            cut_id, file, reason = row.split("\t")
            yield Rejection(split, cut_id, "unreadable-audio", f"{file}: {reason}")


def _parts(
    corpus: str,
    paths: dict[str, Path],
    limits: Limits,
    drop: WordDropper,
    held_out: HeldOut,
    leave_out: LeaveOut,
) -> Iterator[list[Checked]]:
    """The cuts in fixed parts, with what their manifest lines tell checked."""
    seen: set[str] = set()
    part: list[Checked] = []
    for split, path in paths.items():
        archives = str(archives_path(path.parent, corpus, split))
        for number, line in enumerate(read_lines(path, MADE_BY), 1):
            cut = parse_line(line, path, number)
            dropped = drop.change(cut)
            if dropped:
                line = to_line(cut)
            checked = Checked(split, line, cut["id"], archives=archives, dropped=dropped)
            if named := leave_out.see(checked.id):
                checked.reject("left-out", named)
            if checked.id in seen:
                checked.reject("duplicate-id", f"{path}, line {number}")
            seen.add(checked.id)
            if used := held_out.get(utterance_id(checked.id)):
                checked.reject(*_held_out(cut, used))
            part.append(check_manifest(checked, cut, limits))
            if len(part) == PART:
                yield part
                part = []
    if part:
        yield part


def _held_out(cut: dict[str, Any], used: list[tuple[str, AudioSpan]]) -> tuple[str, str]:
    """Return why a training cut is left out whose id is that of evaluation cuts, and a detail."""
    mine = audio_span(cut)
    for name, span in used:
        if not mine.differs(span, whole=utterance_id(cut["id"]) != cut["id"]):
            return "held-out", name
    name, span = used[0]
    return "id-taken", f"{mine}; in {name}: {span}"


def write_rejections(path: Path, sets: list[CheckedSet]) -> None:
    """The list of rejected cuts; also written when it stops the run."""
    rows = ["split\tcut\treason\tdetail"]
    rows += [
        "\t".join((rejection.split, rejection.id, rejection.reason, rejection.detail))
        for checked in sets
        for rejection in checked.rejections
    ]
    write_text(path, "\n".join(rows) + "\n")


def judge(checked: CheckedSet, allowed: float, listed: Path) -> None:
    """Stop when too much of a set was rejected.

    Args:
        allowed: share of the set that may be defective.

    Raises:
        UserError: names a cut, the reasons, the list and the way out.
    """
    held_out = [rejection for rejection in checked.rejections if rejection.reason in HELD_OUT]
    defects = [rejection for rejection in checked.rejections if rejection.reason in DEFECTS]
    filtered = [rejection for rejection in checked.rejections if rejection.reason in FILTERS]
    if len(defects) > allowed * checked.total:
        first = defects[0]
        raise UserError(
            f"{_how_many(defects, checked)} defective ({_reasons(defects)}). The first is "
            f"{first.id}: {DEFECTS[first.reason]} ({first.detail}); {listed} lists all. "
            f"{_mend(first)}, or go on without these cuts"
            f"{'' if checked.name == 'train' else ', which changes error rates'}: "
            f"--allow-rejected {_round_up(len(defects) / checked.total)}"
        )
    if not checked.valid.ids:
        raise UserError(
            f"no cut of {checked.name} is left ({_reasons(checked.rejections) or 'there was none'})"
            f"; {listed} lists them. Check the durations and --min-seconds, --max-seconds"
        )
    if lost := sorted(checked.languages.keys() - checked.left - {""}):
        raise UserError(
            f"no cut of language {lost[0]!r} in {checked.name} is left of "
            f"{checked.languages[lost[0]]} ({_reasons(checked.rejections)} in all languages); "
            f"{listed} lists them. Leave the language out, or check its durations and its splits"
        )
    if checked.name == "train" and len(filtered) > max(allowed, FILTERED) * checked.total:
        most = Counter(rejection.reason for rejection in filtered).most_common(1)[0][0]
        raise UserError(
            f"{_how_many(filtered, checked)} left out ({_reasons(filtered)}); {listed} lists them. "
            f"Most are {FILTERS[most]}: change that, or admit it with "
            f"--allow-rejected {_round_up(len(filtered) / checked.total)}"
        )
    if checked.doubts:
        log.warning(
            "%d of %d cuts of %s have more tokens than encoder frames, such as %s. They are kept; "
            "check that their texts belong to their audio",
            len(checked.doubts),
            checked.total,
            checked.name,
            checked.doubts[0],
        )
    if held_out:
        log.warning(
            "%d cuts of train are of utterances that are tested on as well, such as %s, of %s, and "
            "are NOT trained on; %s lists them",
            len(held_out),
            held_out[0].id,
            held_out[0].detail,
            listed,
        )
    if checked.rejections:
        quiet = checked.name == "train" and not defects and not held_out
        level = logging.INFO if quiet else logging.WARNING
        consequence = "" if checked.name == "train" else ", which changes its error rates"
        what = _how_many(checked.rejections, checked)
        log.log(level, "%s left out%s (%s)", what, consequence, _reasons(checked.rejections))


def _mend(defect: Rejection) -> str:
    """The way out of a defect."""
    if defect.given:
        return COMPUTE_ANEW
    if defect.reason in OF_FEATURES:
        return (
            "Delete that archive and the split's <corpus>_cuts_<split>.jsonl.gz beside its folder, "
            "and run stage 2 (features), which makes only what is missing"
        )
    if defect.reason == "id-taken":
        return "Give every utterance of the corpus an id of its own, and run again from stage 1"
    return "Mend the corpus and run again from stage 1"


def _how_many(rejections: list[Rejection], checked: CheckedSet) -> str:
    verb = "is" if len(rejections) == 1 else "are"
    return f"{len(rejections)} of {checked.total} cuts of {checked.name} {verb}"


def _reasons(rejections: list[Rejection]) -> str:
    counts = Counter(rejection.reason for rejection in rejections)
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())


def _round_up(value: float) -> float:
    return math.ceil(value * 1000) / 1000


def write_all(args: argparse.Namespace, train: CheckedSet, evaluation: list[CheckedSet]) -> None:
    """Write the valid cuts, and then the statistics, without which nothing looks finished."""
    described = args.out_dir / f"{args.corpus}_statistics.json"
    described.unlink(missing_ok=True)
    order = train.valid.shuffled_order(args.seed)
    with write_lines(cuts_path(args.out_dir, args.corpus, "train")) as file:
        file.writelines(train.valid.lines(order))
    for checked in evaluation:
        with write_lines(cuts_path(args.out_dir, args.corpus, checked.name)) as file:
            file.writelines(checked.valid.lines())
    statistics = describe(args, train, evaluation, order)
    readable = table(statistics)
    write_text(args.out_dir / f"{args.corpus}_statistics.txt", readable)
    write_json(described, statistics)
    log.info("%s\n%s", described, readable.rstrip())


def describe(
    args: argparse.Namespace, train: CheckedSet, evaluation: list[CheckedSet], order: list[int]
) -> dict[str, Any]:
    """The contents of ``<corpus>_statistics.json``; ``order`` is that of the training cuts."""
    mean, std = train.sums.mean_and_std()
    return {
        "corpus": args.corpus,
        "feature_mean": mean,
        "feature_std": std,
        "train": {
            **train.statistics.to_dict(order),
            "splits": args.train,
            "duration_bins": duration_bins(train.statistics.durations, args.num_bins),
        },
        "eval": {checked.name: checked.statistics.to_dict() for checked in evaluation},
        "rejected": sum(len(checked.rejections) for checked in [train, *evaluation]),
    }
