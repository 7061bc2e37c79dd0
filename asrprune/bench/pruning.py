"""Measure the cost of data pruning on a simulated corpus.

The benchmark measures plans, lengths after time dropping, checkpoints, and the speed of the
sampler.
"""

import argparse
import gc
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, MonoCut, SupervisionSegment, load_manifest_lazy
from lhotse.dataset import DynamicBucketingSampler
from lhotse.lazy import LazyShuffler
from tqdm import tqdm

from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import (
    DYNAMIC_POLICIES,
    STATIC_POLICIES,
    DataPruningOptions,
    TimeDroppingOptions,
)
from asrprune.data_pruning.plan import make_plan
from asrprune.data_pruning.sampler import PruningSampler
from asrprune.data_pruning.scores import ScoreTable
from asrprune.data_pruning.time_dropping import TimeDropping

MAX_DURATION = 300.0  # seconds of audio in a batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench pruning``."""
    parser.add_argument(
        "--plan-cuts", type=float, default=1e7, help="cuts of a plan; 0: measure no plans"
    )
    parser.add_argument(
        "--drop-cuts", type=float, default=1e6, help="cuts to drop time of; 0: measure no lengths"
    )
    parser.add_argument(
        "--state-cuts",
        type=float,
        default=1e7,
        help="utterances of a checkpoint; 0: measure no checkpoints",
    )
    parser.add_argument(
        "--sample-cuts", type=int, default=100_000, help="cuts to draw; 0: measure no samplers"
    )
    parser.add_argument("--keep", type=float, default=0.5, help="keep ratio")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of lengths and samplers; the fastest counts"
    )
    parser.add_argument(
        "--policies",
        nargs="+",
        default=[*DYNAMIC_POLICIES, *STATIC_POLICIES],
        help="policies to plan with",
    )


def main(args: argparse.Namespace) -> None:
    """Run the measurements that the options ask for, and print a line for each of them."""
    if args.plan_cuts:
        time_plans(int(args.plan_cuts), args.keep, args.policies)
    if args.drop_cuts:
        time_lengths(int(args.drop_cuts), args.rounds)
    if args.state_cuts:
        time_states(int(args.state_cuts), args.keep)
    if args.sample_cuts:
        time_samplers(args.sample_cuts, args.keep, args.rounds)


def time_plans(count: int, keep: float, policies: Iterable[str]) -> None:
    """Print the seconds of a plan and its peak memory in bytes per cut, for each policy.

    Args:
        count: number of cuts.
        keep: keep ratio.
        policies: the policies to plan with.
    """
    rng = np.random.default_rng(0)
    tracemalloc.start()
    index = CutIndex(
        rng.integers(0, 2**63, count, dtype=np.uint64),
        rng.gamma(4.0, 3.0, count),
        groups={"language": (rng.integers(0, 8, count).astype(np.uint8), list("abcdefgh"))},
    )
    scores, history = ScoreTable(count, detrend=False), History(count)
    everything = np.arange(count)
    for _ in range(2):  # forgetting needs a second score
        scores.add(everything, rng.lognormal(0.0, 0.7, count))
        scores.merge(scores.pending())
    del everything
    history.age[rng.random(count) < 0.25] = 5  # a quarter of the cuts is due for their age
    for policy in policies:
        options = DataPruningOptions(
            policy=policy, keep=keep, warmup_cycles=2, score="el2n" if policy == "el2n" else "loss"
        )
        plan = _planner(index, scores, options, history)
        gc.collect()
        tracemalloc.reset_peak()
        plan()
        peak = tracemalloc.get_traced_memory()[1] / count
        tracemalloc.stop()  # tracing would slow down the timed plan
        started = time.perf_counter()
        plan()
        seconds = time.perf_counter() - started
        tracemalloc.start()
        # tracing forgets arrays from before the stop, so allocate them again
        index, scores, history = _again(index, scores, history)
        sys.stdout.write(
            f"plan of {count:.0e} cuts, {policy}: {seconds:.2f} s, peak {peak:.0f} bytes a cut\n"
        )
        sys.stdout.flush()
    tracemalloc.stop()


def _planner(
    index: CutIndex, scores: ScoreTable, options: DataPruningOptions, history: History
) -> Callable[[], Any]:
    return lambda: make_plan(index, scores, options, 1, 5, 20, history)


def _again(
    index: CutIndex, scores: ScoreTable, history: History
) -> tuple[CutIndex, ScoreTable, History]:
    """Return copies of the index, scores and history in newly allocated arrays."""
    new_index = CutIndex(index.cut_hash.copy(), index.duration.copy(), groups=index.groups)
    new_scores, new_history = ScoreTable(len(scores), detrend=False), History(len(index))
    new_scores.load_state_dict(scores.state_dict())
    new_history.load_state_dict(history.state_dict())
    return new_index, new_scores, new_history


def time_lengths(count: int, rounds: int) -> None:
    """Print the CPU time per cut of the lengths after time dropping, and of bucket edges."""
    rng = np.random.default_rng(0)
    index = CutIndex(
        rng.integers(0, 2**63, count, dtype=np.uint64),
        rng.gamma(4.0, 3.0, count),
        num_tokens=rng.integers(0, 80, count),
    )
    for variant, level in (("chunk", "frames"), ("chunk", "encoder"), ("point", "samples")):
        dropping = TimeDropping(TimeDroppingOptions(variant, level=level), 0, subsampling=4)
        dropping.active = True
        seconds = _fastest(lambda dropping=dropping: dropping.seconds_left(index), rounds)
        sys.stdout.write(
            f"lengths of {count:.0e} cuts, variant={variant} level={level}: "
            f"{1e6 * seconds / count:.3f} CPU us a cut\n"
        )
    seconds = _fastest(lambda: index.duration_bins(30), rounds)
    sys.stdout.write(
        f"30 duration bins of {count:.0e} cuts: {1e6 * seconds / count:.3f} CPU us a cut\n"
    )


def time_states(count: int, keep: float) -> None:
    """Print the bytes and seconds of a sampler's checkpoint in the middle of a pruned cycle.

    The first checkpoint is of one rank, the second of eight ranks. The second checkpoint holds the
    sum of the ranks' scores, and the trend of each rank. In this benchmark, all eight trends are
    copies of one trend. The time to exchange values between ranks is not measured.

    Args:
        count: number of utterances.
        keep: keep ratio.
    """
    rng = np.random.default_rng(0)
    index = CutIndex(rng.integers(0, 2**63, count, dtype=np.uint64), rng.gamma(4.0, 3.0, count))
    nothing = CutSet(LazyShuffler([]))  # lazy, so that the sampler needs no cuts
    options = DataPruningOptions("infobatch", keep=keep)  # the policy has weights to save
    sampler = PruningSampler(nothing, index, options, epochs=10, max_duration=MAX_DURATION)
    sampler.scores.add(np.arange(count), rng.lognormal(0.0, 0.7, count))
    sampler.set_epoch(1)
    sampler.scores.add(np.flatnonzero(sampler.plan.keep), rng.lognormal(0.0, 0.7, sampler.num_cuts))
    pending = sampler.scores.pending()
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (1, 8):
            started = time.perf_counter()
            if ranks == 1:
                state = sampler.state_dict()
            else:
                trends = torch.stack([pending["trend"]] * ranks)
                state = sampler._state([*range(ranks)], {**pending, "trend": trends}, [0] * ranks)
            made = time.perf_counter()
            torch.save(state, Path(folder, "state.pt"))
            written = time.perf_counter()
            sampler.load_state_dict(torch.load(Path(folder, "state.pt"), weights_only=True))
            size = Path(folder, "state.pt").stat().st_size
            sys.stdout.write(
                f"checkpoint of {count:,} utterances, {ranks} rank{'s' * (ranks > 1)}: "
                f"{size / 1e6:.1f} MB, {size / count:.1f} bytes an utterance; made in "
                f"{made - started:.2f} s, written in {written - made:.2f} s, read and restored in "
                f"{time.perf_counter() - written:.2f} s\n"
            )


def _fastest(work: Callable[[], Any], rounds: int) -> float:
    """Return the CPU seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def time_samplers(count: int, keep: float, rounds: int) -> None:
    """Print the speed of `PruningSampler`, relative to a stock sampler over the kept cuts.

    Args:
        count: number of cuts.
        keep: keep ratio.
        rounds: number of rounds; the fastest counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        full, kept = Path(folder) / "all.jsonl.gz", Path(folder) / "kept.jsonl.gz"
        cuts = CutSet.from_cuts(tqdm(_cuts(count), total=count, desc="cuts", disable=None))
        cuts.to_file(full)
        index = CutIndex.from_cuts(cuts)
        bins = np.quantile(index.duration, np.arange(1, 30) / 30).tolist()
        options = DataPruningOptions(
            policy="random", keep=keep, warmup_cycles=0, anneal=0.0, detrend=False
        )

        def pruning(cuts: CutSet) -> PruningSampler:
            return PruningSampler(
                cuts, index, options, epochs=10, duration_bins=bins, max_duration=MAX_DURATION,
                rank=0, world_size=1,
            )  # fmt: skip

        def stock(cuts: CutSet) -> DynamicBucketingSampler:
            return DynamicBucketingSampler(
                cuts, max_duration=MAX_DURATION, duration_bins=bins, num_buckets=len(bins) + 1,
                buffer_size=20000, shuffle=True, rank=0, world_size=1,
            )  # fmt: skip

        chosen = pruning(cuts).plan.keep
        CutSet.from_cuts(cut for cut, is_kept in zip(cuts, chosen, strict=True) if is_kept).to_file(
            kept
        )
        for name, load in (
            ("in memory", lambda path: load_manifest_lazy(path).to_eager()),
            ("lazy", load_manifest_lazy),
        ):
            samplers = {"stock": stock(load(kept)), "pruning": pruning(load(full))}
            times: dict[str, list[float]] = {"stock": [], "pruning": []}
            gc.collect()
            gc.disable()  # as in timeit; a collection would add to the time of one sampler
            for _ in range(rounds):
                for which, sampler in samplers.items():
                    started = time.process_time()  # without the time of other processes
                    drawn = sum(len(batch) for batch in sampler)
                    times[which].append(time.process_time() - started)
                    if drawn != np.count_nonzero(chosen):
                        raise RuntimeError(f"{which}: {drawn} cuts drawn, not the number kept")
            gc.enable()
            best = {which: min(seconds) for which, seconds in times.items()}
            sys.stdout.write(
                f"{count} cuts {name}, {keep:g} kept: stock sampler over the kept cuts "
                f"{best['stock']:.3f} CPU s, PruningSampler {best['pruning']:.3f} s, "
                f"speed {best['stock'] / best['pruning']:.3f} (best of {rounds})\n"
            )


def _cuts(count: int) -> Iterable[MonoCut]:
    """Yield cuts like those of a recipe's features stage. Their feature files do not exist."""
    rng = random.Random(0)
    for number in range(count):
        name, duration = f"speaker-{number % 1000}-{number:08d}", round(rng.uniform(1, 20), 2)
        supervision = SupervisionSegment(
            name, name, 0.0, duration, text="SOME WORDS OF A TRANSCRIPT " * 6, speaker=name[:12]
        )
        features = Features(
            "kaldi-fbank", round(duration * 100), 80, 0.01, 16000, 0.0, duration, "lilcom_chunky",
            "data/fbank/feats/part-00001.lca", f"{number},1,2,3", name, 0,
        )  # fmt: skip
        yield MonoCut(name, 0.0, duration, 0, supervisions=[supervision], features=features)
