"""Records as a comparison would leave them, of known rates."""

from dataclasses import asdict
from zlib import adler32

import numpy as np

from asrprune.data_pruning.options import DataPruningOptions


def make_record(method, keep, seed, rates, hours=10.0, **more):
    """A record whose speakers of 1000 words each have these error rates."""
    speakers = {f"s{n}": [round(1000 * rate), 1000] for n, rate in enumerate(rates)}
    errors = sum(wrong for wrong, _ in speakers.values())
    policy = "full" if method.startswith("full") else method
    return {
        "set": "dev", "method": method, "policy": policy,
        "data_pruning": asdict(DataPruningOptions(policy=policy)), "keep": keep, "seed": seed,
        "words": 1000 * len(speakers), "errors": errors, "insertions": 1, "deletions": 2,
        "substitutions": errors - 3, "speakers": speakers, "command": f"asrprune train seed={seed}",
        "epochs": 13, "avg": 1, "decoding_method": "greedy_search", "data": "digest",
        "hours": hours, "hours_before_dropping": hours, "visits": 1000, "clamped": 0, "steps": 100,
        "kept": {"duration": {"labels": ["1.0 s", "2.0 s"], "shares": [[1.0, 1.0], [0.4, 0.6]]},
                 "language": {"labels": ["en"], "shares": [[1.0], [0.5]]},
                 "speaker": {"labels": ["a", "b"], "shares": [[1.0, 1.0], [0.3, 0.7]]}},
        "turnover": None, "never_kept": 0.0, "never_visited": 0.0, "visits_of_a_cut": [13] * 5,
        "versions": {"python": "3.11", "torch": "2.11.0"}, "git": "abc", "attempts": 1,
        "seconds": 36 * hours, "cpu_seconds": 30 * hours, "other_seconds": 9.0, "synthetic": True,
        "machine": {"system": "Linux", "cores": "2", "host": "here"}, **more,
    }  # fmt: skip


def stamped(study, cells, records):
    """The same, as made by what the cells say today."""
    by_name = {cell.name: cell for cell in cells}
    found = []
    for record in records:
        made = study.made_by(by_name[study.cell_name(record)], study.key(record))
        if made.get("search"):
            made["search"] = record["search"] | made["search"]
        found.append({**record, **made})
    return found


def records_of(method, keep, worse=0.0, hours=10.0, seeds=3, spread=0.0005, **more):
    """Records of some seeds: 40 speakers of about 10 %, and how much worse the method is."""
    speakers = np.linspace(0.05, 0.15, 40)
    random = np.random.default_rng([adler32(method.encode()), round(100 * keep)])
    noise = random.normal(0, spread, (seeds, 40))
    return [
        make_record(method, keep, seed, speakers + worse + noise[seed], hours, **more)
        for seed in range(seeds)
    ]
