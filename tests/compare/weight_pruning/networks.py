"""A comparison of sparse models that nobody ran, and records as it would leave them."""

import pytest

from asrprune.compare.kinds import study_from
from tests.compare.conftest import FakeCorpus, study_of
from tests.compare.example_records import records_of

SEARCH = {"dev_set": "dev", "max_seconds": 0.0, "population": 12, "generations": 2, "sample_wer": 4}
SEEDS = [0, 1, 2]


def values_of(folder, corpus, **options):
    """A comparison below ``folder``, as plain values."""
    own = {
        "kind": "weight_pruning",
        "sparsities": [0.0, 0.5, 0.8],
        "searched": [0.5],
        "search": SEARCH,
        "methods": {"supernet": ["weight_pruning.schedule.final=0.8"]},
        "grid": [{"methods": ["gradual", "supernet"], "seeds": [0]}],
        "results": str(folder / "results" / "omni.json"),
    }
    return {**study_of(folder, corpus), **own, **options}


@pytest.fixture
def study(tmp_path):
    """Make a comparison."""
    values = values_of(tmp_path, FakeCorpus(tmp_path))
    return lambda **options: study_from({**values, **options})


def network_records(
    method,
    sparsity,
    worse=0.0,
    *,
    training=None,
    seconds=100.0,
    search=None,
    seeds=3,
    spread=0.0005,
    **more,
):
    """Records of a network with some seeds, whose error rate is about 10 % and ``worse`` more."""
    name = training or {"one_shot": "dense", "gradual": f"gradual-{sparsity:g}"}.get(
        method, "supernet"
    )
    found = []
    for record in records_of(f"{method}{sparsity}", sparsity, worse, seeds=seeds, spread=spread):
        seed = record["seed"]
        took = {"seconds": seconds + seed, "cpu_seconds": 0.9 * seconds + seed, "attempts": 1}
        size = round(1e6 * (5 - 4 * sparsity)) - (1000 if search else 0)
        sizes = {"density": 1 - sparsity, "parameters": size // 4, "dense_parameters": 1_250_000}
        found.append(
            {
                **record, "method": method, "sparsity": sparsity, "training": f"{name}-seed{seed}",
                **sizes, "bytes": size, "float32_bytes": 4 * size, "passes": 1000,
                "teacher_passes": 0, "search": search, **took, **more,
            }
        )  # fmt: skip
    return found


def search_record(loss, seconds=20.0, **more):
    """What a search took and found."""
    return {
        "dev_set": "dev", "sample_of_each": 4, "loss": loss, "uniform_loss": 0.25,
        "evaluations": 36, "evaluation_seconds": seconds, "band": 0.05, "rank_correlation": 0.9,
        **more,
    }  # fmt: skip


def whole_comparison():
    """Records of all, with three seeds: a supernet that is as good as gradual pruning."""
    return [
        *network_records("one_shot", 0.0, 0.0),
        *network_records("one_shot", 0.5, 0.02),
        *network_records("one_shot", 0.8, 0.5),
        *network_records("gradual", 0.5, 0.005, seconds=110.0),
        *network_records("gradual", 0.8, 0.02, seconds=110.0),
        *network_records("supernet", 0.0, 0.001, seconds=105.0),
        *network_records("supernet", 0.5, 0.006, seconds=105.0),
        *network_records("supernet", 0.8, 0.05, seconds=105.0),
        *network_records("searched", 0.5, 0.002, seconds=105.0, search=search_record(0.2)),
        *network_records(
            "random_search", 0.5, 0.005, seconds=105.0,
            search=search_record(0.22, seconds=21.0),
        ),
    ]  # fmt: skip
