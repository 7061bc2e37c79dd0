"""Which trainings a comparison takes, and how its file is read."""

from dataclasses import replace

import pytest

from asrprune.base.errors import UserError
from asrprune.compare.data_pruning.grid import audio_share, compressed_epochs
from asrprune.compare.kinds import load_study
from asrprune.config import load_config
from asrprune.data_pruning.options import DataPruningOptions


def test_controls_are_always_there(study):
    grid = [{"methods": ["easy"], "keep": [0.5, 0.7], "seeds": [3, 1]}]
    cells = study(overrides=["training.epochs=13"], grid=grid).cells()
    assert [cell.name for cell in cells[:7]] == [
        "full-1-seed1", "full_compressed-0.7-seed1", "random-0.7-seed1", "easy-0.7-seed1",
        "full_compressed-0.5-seed1", "random-0.5-seed1", "easy-0.5-seed1",
    ]  # fmt: skip
    assert [cell.name.replace("seed3", "seed1") for cell in cells[7:]] == [
        cell.name for cell in cells[:7]
    ]


def test_controls_can_be_left_out(study):
    grid = [{"methods": ["easy"], "keep": [0.5], "seeds": [0]}]
    cells = study(grid=grid, controls=["full"]).cells()
    assert [cell.name for cell in cells] == ["full-1-seed0", "easy-0.5-seed0"]


def test_a_cell_that_is_asked_for_twice_runs_once(study):
    part = {"methods": ["easy", "full", "random"], "keep": [0.5], "seeds": [0]}
    assert len(study(grid=[part, part]).cells()) == 4


def test_overrides_make_the_trainings(study):
    cells = {cell.method: cell for cell in study(overrides=["training.epochs=8"]).cells(["seed=9"])}
    configs = {
        name: load_config(study().options.config, cell.overrides) for name, cell in cells.items()
    }
    assert {config.seed for config in configs.values()} == {0}
    assert configs["full"].data_pruning == DataPruningOptions()
    easy = configs["easy"].data_pruning
    assert (easy.policy, easy.keep, configs["easy"].training.epochs) == ("easy", 0.5, 8)
    assert configs["random"].data_pruning.policy == "random"
    # 1 of warm-up, 1 at the end, 6 halves
    assert configs["full_compressed"].training.epochs == 5
    assert configs["full_compressed"].data_pruning == DataPruningOptions()


@pytest.mark.parametrize("epochs, keep, expected", [(13, 0.7, 10), (13, 0.5, 8), (10, 0.5, 6)])
def test_a_compressed_training_has_the_same_audio(epochs, keep, expected, study):
    config = load_config(study().options.config, [f"training.epochs={epochs}"])
    assert compressed_epochs(config, keep) == expected
    assert audio_share(config.data_pruning, epochs, keep) * epochs == pytest.approx(expected)


@pytest.mark.parametrize("epochs, keep", [(4, 0.7), (8, 0.7), (24, 0.63)])
def test_unequal_audio_is_refused(epochs, keep, study):
    config = load_config(study().options.config, [f"training.epochs={epochs}"])
    with pytest.raises(UserError, match="No whole number of epochs has as much audio, within 1 %"):
        compressed_epochs(config, keep)


def test_cycles_of_several_epochs():
    options = DataPruningOptions(cycle=3, anneal=0.25)
    # cycles: warm-up, pruned, pruned, final (of 1 epoch)
    assert audio_share(options, 10, 0.4) == pytest.approx((3 + 0.4 * 6 + 1) / 10)


BAD = {
    "kind: data": "kind=data: choose one of data_pruning, time_to_wer",
    "prepare: ['say \"yes']": "prepare: 'say \"yes': No closing quotation",
    "prepare: ['']": "prepare: a command line is empty",
    "grids: []": "unknown key 'grids' .did you mean 'grid'",
    "grid: []": "grid is not set",
    "avg: 0": "avg=0: must be at least 1",
    "margin: much": "margin",
    "grid: [{methods: [eazy], keep: [0.5], seeds: [0]}]": "unknown method 'eazy' .*'easy'",
    "grid: [{methods: [easy], keep: [1.5], seeds: [0]}]": "keep=1.5 must be above 0",
    "grid: [{methods: [easy], keep: [0.5], seeds: []}]": "each part needs keep, and seeds",
    "controls: [random]": "controls: full is needed",
    "controls: [full, rondom]": "unknown method 'rondom' .*'random'",
    "methods: {a-b: []}": "'a-b' is not a valid name",
    "methods: {random: [data_pruning.policy=easy]}": "methods.random is a control",
    "claims: [{claim: x, kind: best, method: easy}]": "kind=best: choose one of parity",
    "claims: [{claim: x, kind: better, method: easy}]": "Name them in than:",
    "claims: [{claim: x, method: heasy}]": "claims: x: unknown method 'heasy'",
    "- 1": "holds no key: value pairs",
    "a: [": "not valid YAML",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_refused(text, tmp_path):
    whole = {
        "config": "config: c.yaml", "manifest_dir": "manifest_dir: m", "lang_dir": "lang_dir: l",
        "test_sets": "test_sets: [t]", "exp_dir": "exp_dir: e",
        "methods": "methods: {easy: []}",
        "grid": "grid: [{methods: [easy], keep: [0.5], seeds: [0]}]",
    }  # fmt: skip
    whole.pop(text.partition(":")[0], None)
    lines = [text] if text.startswith(("-", "a")) and "avg" not in text else [*whole.values(), text]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=BAD[text]):
        load_study(tmp_path / "study.yaml")


def test_misspelt_overrides_are_found_before_anything_runs(study):
    with pytest.raises(UserError, match="data_pruning.policy=eesy"):
        study(methods={"easy": ["data_pruning.policy=eesy"]}).cells()
    with pytest.raises(UserError, match="does not exist"):
        load_study("nowhere.yaml")


def test_a_comparison_like_another(tmp_path):
    """It has the other's values, but for those of its own."""
    (tmp_path / "one.yaml").write_text(
        "config: c.yaml\nmanifest_dir: m\nlang_dir: l\ntest_sets: [t]\nexp_dir: e\n"
        "methods: {easy: []}\ngrid: [{methods: [easy], keep: [0.5], seeds: [0]}]\n"
    )
    (tmp_path / "two.yaml").write_text("like: one.yaml\nexp_dir: f\nmethods: {easy: [seed=3]}\n")
    one, two = (load_study(tmp_path / f"{name}.yaml").options for name in ("one", "two"))
    assert two == replace(one, exp_dir="f", methods={"easy": ["seed=3"]})
    (tmp_path / "three.yaml").write_text("like: two.yaml\n")
    with pytest.raises(UserError, match=r"three.yaml: like: two.yaml has a key 'like' itself"):
        load_study(tmp_path / "three.yaml")
    (tmp_path / "four.yaml").write_text("like: five.yaml\n")
    with pytest.raises(UserError, match=r"four.yaml: like: .*five.yaml does not exist"):
        load_study(tmp_path / "four.yaml")
