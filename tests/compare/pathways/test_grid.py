"""The grid of a pathways comparison: its trainings, their overrides, and their order."""

import pytest

from asrprune.base.errors import UserError
from asrprune.compare.kinds import study_from
from asrprune.config import load_config
from tests.compare.conftest import FakeCorpus
from tests.compare.pathways.comparison import TRAININGS, values_of
from tests.languages import LANGUAGES


@pytest.fixture
def study(tmp_path):
    values = values_of(tmp_path, FakeCorpus(tmp_path))
    return lambda **options: study_from({**values, **options})


def test_all_that_a_training_begins_with_is_there_and_before_it(study):
    whole = study(grid=[{"methods": ["imp2", "fixed"], "seeds": [0, 1]}])
    cells = whole.cells()
    names = [cell.name for cell in cells]
    own = ["start-seed0", *(f"imp-{one}-seed0" for one in LANGUAGES)]
    assert names[:8] == [*own, *(f"imp2-{one}-seed0" for one in LANGUAGES), "fixed-seed0"]
    assert names[8:] == [name.replace("seed0", "seed1") for name in names[:8]]
    for place, cell in enumerate(cells):
        assert all(names.index(source) < place for source in cell.after)
        assert {name for name, _ in cell.lineage} >= set(cell.after)
    by_name = dict(zip(names, cells, strict=True))
    fixed, imp2 = by_name["fixed-seed1"], by_name["imp2-fr-seed1"]
    assert set(fixed.after) == {"start-seed1", *(f"imp-{one}-seed1" for one in LANGUAGES)}
    assert imp2.after == ("imp-fr-seed1",) and imp2.languages == ("fr",)
    assert {name for name, _ in imp2.lineage} == {"start-seed1", "imp-fr-seed1"}
    assert by_name["imp-fr-seed1"].pruned == (0.7,) and by_name["start-seed0"].pruned == (0.5,)
    config = load_config(whole.options.config, fixed.overrides)
    folder = whole.options.exp_dir
    assert config.training.init_from == f"{folder}/start-seed1/averaged.pt"
    masks = config.weight_pruning.pathways.masks
    assert masks == f"{folder}/imp-{{language}}-seed1/pruned-0.7.pt"
    config = load_config(whole.options.config, imp2.overrides)
    assert config.data.languages == ["fr"] and config.seed == 1
    assert config.weight_pruning.pathways.masks == f"{folder}/imp-fr-seed1/pruned-0.7.pt"
    steps = whole.steps(by_name["imp-fr-seed1"])
    assert list(steps) == ["train", "average", "decode", "score", "masks 0.7"]
    assert steps["masks 0.7"][-1] == config.weight_pruning.pathways.masks
    assert "dev-fr" in steps["decode"] and "dev-en" not in steps["decode"]


def test_a_change_of_what_it_began_with_is_a_change(study):
    cell = study().cells()[-1]
    overrides = [*TRAININGS["imp"]["overrides"], "training.epochs=3"]
    changed = study(trainings={**TRAININGS, "imp": {**TRAININGS["imp"], "overrides": overrides}})
    lineage = {one.name: one.lineage for one in changed.cells()}
    assert lineage["dynamic-seed0"] == cell.lineage
    before = {one.name: one.lineage for one in study().cells()}
    assert lineage["fixed-seed0"] != before["fixed-seed0"]


def test_a_language_is_added_and_the_others_are_tested_too(study):
    """The masks of the model that it starts from are taken as they are."""
    trainings = {
        "three": {"overrides": ["weight_pruning.method=pathways"], "languages": ["en", "fr"]},
        "added": {
            "start": "three",
            "masks": "three",
            "languages": ["cy"],
            "tested": list(LANGUAGES),
            "overrides": ["weight_pruning.pathways.protect=true"],
        },
    }
    grid = [{"methods": ["added"], "seeds": [0]}]
    whole = study(trainings=trainings, grid=grid, claims=[])
    three, added = whole.cells()
    assert three.pruned == () and three.languages == ("en", "fr")
    assert added.languages == LANGUAGES and added.after == ("three-seed0",)
    config = load_config(whole.options.config, three.overrides)
    assert config.data.languages == ["en", "fr"]
    config = load_config(whole.options.config, added.overrides)
    assert config.data.languages == ["cy"]
    assert config.weight_pruning.pathways.masks == config.training.init_from
    steps = whole.steps(added)
    assert all(f"dev-{language}" in steps["decode"] for language in LANGUAGES)
    assert "dev-cy" not in whole.steps(three)["decode"]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"trainings": {"a": {"languages": ["xx"]}}},
            "trainings.a.languages: 'xx' is no language of the comparison",
        ),
        (
            {"trainings": {"a": {"tested": ["en"], "each_language": True}}},
            "a.each_language=true: each training has its own language",
        ),
        ({"languages": ["en"]}, "languages: give one for each of the 3 test_sets"),
        ({"methods": {"a": ["seed=1"]}}, "methods: a comparison of pathways takes trainings"),
        (
            {"trainings": {"a": {"start": "b"}, "b": {}}},
            r"trainings.a.start \(a training before this one\): unknown method 'b'",
        ),
        (
            {"trainings": {**TRAININGS, "a": {"start": "imp"}}},
            "start=imp: that training has one model for each",
        ),
        ({"trainings": {**TRAININGS, "a": {"sparsity": 0.5}}}, "a.sparsity=0.5 needs masks"),
        (
            {"trainings": {**TRAININGS, "a": {"masks": "start", "sparsity": 7.0}}},
            "trainings.a.sparsity=7.0: must be between 0 and 1",
        ),
        ({"grid": [{"methods": ["fix"], "seeds": [0]}]}, "grid: unknown method 'fix'.*'fixed'"),
        ({"grid": [{"methods": ["fixed"], "seeds": []}]}, "grid: each part needs seeds"),
        ({"claims": [{"claim": "x", "method": "lap"}]}, "no_worse: than which trainings"),
        (
            {"claims": [{"claim": "x", "method": "lap", "than": ["dense"], "at": ["de"]}]},
            "at=de: no language of the comparison",
        ),
    ],
)
def test_what_does_not_fit(options, message, study):
    with pytest.raises(UserError, match=message):
        study(**options)
