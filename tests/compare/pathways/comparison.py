"""A comparison of models of several languages, and records as it would leave them."""

from tests.compare.conftest import study_of
from tests.compare.example_records import make_record, records_of
from tests.languages import LANGUAGES

FIXED = ["weight_pruning.pathways.adapt=false"]
ROUND = {"each_language": True, "overrides": FIXED}
TRAININGS = {
    "start": {"overrides": ["weight_pruning.method=none", "data.batches=mixed"]},
    "dense": {"start": "start", "overrides": ["weight_pruning.method=none"]},
    "lap": {"start": "start", "overrides": ["weight_pruning.method=gradual"]},
    "imp": {"start": "start", "masks": "start", "sparsity": 0.5, **ROUND},
    "imp2": {"start": "imp", "masks": "imp", "sparsity": 0.7, **ROUND},
    "fixed": {"start": "start", "masks": "imp", "sparsity": 0.7, "overrides": FIXED},
    "dynamic": {"start": "start", "masks": "start", "sparsity": 0.5},
}
WORDS = ["weight_pruning.method=pathways", "data.batches=monolingual", "data.dev=[]"]


def values_of(folder, corpus, **options):
    """A comparison below ``folder``, as plain values."""
    own = {
        "kind": "pathways",
        "methods": {},
        "overrides": WORDS,
        "languages": list(LANGUAGES),
        "test_sets": [f"dev-{language}" for language in LANGUAGES],
        "trainings": TRAININGS,
        "grid": [{"methods": ["fixed", "dynamic"], "seeds": [0]}],
        "results": str(folder / "results" / "pathways.json"),
    }
    return {**study_of(folder, corpus), **own, **options}


def language_records(study, worse, *, seeds=3, spread=0.0005, hours=6.0, **more):
    """Records of all cells: about 10 % of errors, and ``worse[method][language]`` more."""
    made = {
        (method, language): records_of(
            f"{method}{language}", 0.0, worse.get(method, {}).get(language, 0.0), seeds=seeds,
            spread=spread,
        )
        for method in study.options.trainings
        for language in LANGUAGES
    }  # fmt: skip
    return [
        {
            **made[cell.method, language][cell.seed],
            **{"language": language, "set": f"dev-{language}", "method": cell.method},
            **{"training": cell.name, "hours": hours * len(cell.languages) / 3},
            **{"corpus_hours": 2.0, "density": 0.3, "union_density": 0.4},
            **{"overlaps": {"en-fr": 0.5, "en-cy": 0.7}, **more},
        }
        for cell in study.cells()
        for language in cell.languages
        if cell.seed < seeds
    ]


def example_record(cell, language):
    """What a stand-in leaves."""
    record = make_record(cell.method, 1.0, cell.seed, [0.1, 0.2])
    return {**record, "language": language, "training": cell.name}
