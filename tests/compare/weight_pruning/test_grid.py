"""Which trainings a comparison of sparse models takes, and which networks come of each."""

import pytest

from asrprune.base.errors import UserError
from asrprune.config import load_config

FINAL = "weight_pruning.schedule.final=0.8"


def names(cells):
    return [cell.name for cell in cells]


def test_trainings_and_the_dense_ones_of_their_seeds(study):
    cells = study(grid=[{"methods": ["supernet", "gradual"], "seeds": [3, 1]}]).cells()
    assert names(cells[:4]) == ["dense-seed1", "gradual-0.5-seed1", "gradual-0.8-seed1",
                                "supernet-seed1"]  # fmt: skip
    assert names(cells[4:]) == [name.replace("seed1", "seed3") for name in names(cells[:4])]


def test_overrides_make_the_trainings(study):
    variants = {"supernet": ["weight_pruning.supernet.jitter=0.3", FINAL], "sandwich":
                ["weight_pruning.supernet.sampling=sandwich"]}  # fmt: skip
    whole = study(methods=variants, grid=[{"methods": [*variants, "gradual"], "seeds": [7]}])
    configs = {
        cell.name: load_config(whole.options.config, cell.overrides).weight_pruning
        for cell in whole.cells(["training.epochs=2"])
    }
    assert configs["dense-seed7"].method == "none"
    for level in (0.5, 0.8):
        config = configs[f"gradual-{level}-seed7"]
        assert (config.method, config.schedule.final) == ("gradual", level)
    supernet, sandwich = configs["supernet-seed7"], configs["sandwich-seed7"]
    assert supernet.method == sandwich.method == "supernet"
    assert supernet.supernet.jitter == sandwich.supernet.jitter == 0.3
    assert (supernet.supernet.sampling, sandwich.supernet.sampling) == ("single", "sandwich")
    assert {cell.epochs for cell in whole.cells(["training.epochs=2"])} == {2}
    assert {cell.seed for cell in whole.cells()} == {7}


def test_networks(study):
    grid = [{"methods": ["gradual", "supernet", "sandwich"], "seeds": [0]}]
    whole = study(methods={"supernet": [FINAL], "sandwich": []}, grid=grid)
    found = {cell.name: [network.name for network in cell.networks] for cell in whole.cells()}
    assert found == {
        "dense-seed0": ["one_shot-0", "one_shot-0.5", "one_shot-0.8"],
        "gradual-0.5-seed0": ["gradual-0.5"],
        "gradual-0.8-seed0": ["gradual-0.8"],
        "supernet-seed0": ["supernet-0", "supernet-0.5", "supernet-0.8", "searched-0.5",
                           "random_search-0.5"],
        "sandwich-seed0": ["sandwich-0", "sandwich-0.5", "sandwich-0.8"],
    }  # fmt: skip


def test_steps(study):
    whole = study()
    steps = {cell.name: whole.steps(cell) for cell in whole.cells()}
    assert list(steps["gradual-0.5-seed0"]) == [
        "train", "average", "extract gradual-0.5", "decode gradual-0.5", "score gradual-0.5",
        "export gradual-0.5",
    ]  # fmt: skip
    supernet = steps["supernet-seed0"]
    assert list(supernet)[:5] == ["train", "average", "searched", "random_search", "sample"]
    searched, drawn = supernet["searched"], supernet["random_search"]
    assert supernet["sample"][-2:] == ["--sample-wer", "4"] and "--sample-wer" not in searched
    assert len(set(supernet["sample"]) - set(searched)) == 3  # the table's name as well
    assert drawn[-2:] == ["--method", "random"] and "--method" not in searched
    place = drawn.index("--budgets")
    assert drawn[place : place + 6] == ["--budgets", "0.5", "--population", "12", "--generations",
                                        "2"]  # fmt: skip
    table = supernet["searched"][supernet["searched"].index("--output") + 1]
    extract = supernet["extract searched-0.5"]
    assert extract[extract.index("--search") + 1] == table
    assert "--search" not in supernet["extract supernet-0.5"]
    model = extract[extract.index("--output") + 1]
    decode = supernet["decode searched-0.5"]
    assert decode[decode.index("--model") + 1] == model
    outputs = [words[words.index("--output") + 1] for words in supernet.values()
               if "--output" in words]  # fmt: skip
    assert len(outputs) == len(set(outputs)) == 8


def test_small_models_have_the_widths_of_sub_networks(study):
    methods = {"supernet": [FINAL]}
    whole = study(
        methods=methods,
        overrides=["weight_pruning.unit=channel", "weight_pruning.multiple=2"],
        grid=[{"methods": ["small", "supernet"], "seeds": [0]}],
    )
    configs = {
        cell.name: load_config(whole.options.config, cell.overrides) for cell in whole.cells()
    }
    wide = configs["dense-seed0"].model.encoder_options["ffn_dim"]
    for level in (0.5, 0.8):
        config = configs[f"small-{level}-seed0"]
        assert config.weight_pruning.method == "none"
        widths = config.model.encoder_options["ffn_dim"]
        assert {abs(width - (1 - level) * wide) <= 2 for width in widths} == {True}
    [*_, extract] = [
        words for name, words in whole.steps(whole.cells()[1]).items() if name.startswith("extract")
    ]
    assert extract[extract.index("--sparsity") + 1] == "0"  # the small model is whole
    with pytest.raises(UserError, match="method small: .*Set weight_pruning.unit=channel"):
        study(methods=methods, grid=[{"methods": ["small"], "seeds": [0]}]).cells()


def test_a_dense_training_of_another_length(study):
    longer = ["weight_pruning.method=none", "training.epochs=7"]
    whole = study(methods={"longer": longer}, grid=[{"methods": ["longer"], "seeds": [0]}])
    [_, cell] = whole.cells()
    assert cell.epochs == 7 and [network.name for network in cell.networks] == ["longer-0"]


def test_a_dense_training_has_one_size(study):
    longer = ["weight_pruning.method=none", "training.epochs=7"]
    claim = {"claim": "x", "method": "supernet", "than": ["longer"], "at": [0, 0.5]}
    with pytest.raises(UserError, match="x: at=.0.0, 0.5.: longer is one dense training"):
        study(methods={"supernet": [FINAL], "longer": longer}, claims=[claim])


def test_a_method_begins_with_the_dense_model_of_its_seed(study, tmp_path):
    tuned = ["weight_pruning.method=gradual", "training.init_from={dense}",
             "weight_pruning.schedule.kind=constant"]  # fmt: skip
    whole = study(methods={"tuned": tuned}, grid=[{"methods": ["tuned"], "seeds": [2]}])
    cells = {cell.name: cell for cell in whole.cells()}
    assert list(cells) == ["dense-seed2", "tuned-0.5-seed2", "tuned-0.8-seed2"]
    cell = cells["tuned-0.8-seed2"]
    config = load_config(whole.options.config, cell.overrides)
    assert cell.after == ("dense-seed2",) and cells["dense-seed2"].after == ()
    assert config.weight_pruning.method == "gradual"
    assert config.weight_pruning.schedule.final == 0.8
    steps = whole.steps(cells["dense-seed2"])
    assert config.training.init_from == str(tmp_path / "exp/dense-seed2/averaged.pt")
    assert str(tmp_path / "exp/dense-seed2") in steps["average"]


def test_without_a_search(study):
    [*_, supernet] = study(searched=[]).cells()
    assert {network.method for network in supernet.networks} == {"supernet"}
    assert not any("search" in step for step in study(searched=[]).steps(supernet))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"methods": {}}, "sparsities 0.8: a supernet is trained to .*schedule.final=0.7"),
        ({"searched": [0.5, 0.9]}, "sparsities 0.9: a supernet"),
        (
            {"search": {"dev_set": "dev", "population": 8}},
            "search.population=8: must be at least 9",
        ),
    ],
)
def test_what_a_supernet_will_not_have(options, message, study):
    with pytest.raises(UserError, match=message):
        study(**options).cells()


BAD = {
    "sparsities": ([0.5, 0.3], "sparsities=.0.5, 0.3.: must be ascending"),
    "searched": ([1.0], "searched=.1.0.: must be ascending, at least 0 and below"),
    "search": ({"population": 9}, "search.dev_set is not set, but searched=.0.5."),
    "decoding_method": ("greedy", "decoding_method=greedy: choose one of .*'greedy_search'"),
    "methods": ({"searched": []}, "methods.searched: only the supernet and its variants"),
    "grid": ([{"methods": ["supernett"], "seeds": [0]}], "unknown method 'supernett'.*'supernet'"),
    "claims": ([{"claim": "x", "method": "sandwich"}], "claims: x: unknown method 'sandwich'"),
}


def test_a_sample_of_two_tells_nothing(study):
    with pytest.raises(UserError, match="search.sample_wer=2: at least 3 sub-networks"):
        study(search={"dev_set": "dev", "sample_wer": 2})


def test_needs(study):
    """Each step comes after what it needs, and all but the first need one."""
    for cell in study().cells():
        steps, needs = list(study().steps(cell)), study().needs(cell)
        for place, step in enumerate(steps[1:], 1):
            assert steps.index(needs[step]) < place
    assert needs["extract searched-0.5"] == needs["sample"] == "searched"


@pytest.mark.parametrize("key", BAD)
def test_bad_options(key, study):
    value, message = BAD[key]
    with pytest.raises(UserError, match=message):
        study(**{key: value})


@pytest.mark.parametrize(
    "claim, message",
    [
        ({"kind": "no_worse", "at": [0.5]}, "no_worse: than which methods, at which sparsities"),
        (
            {"kind": "better", "than": ["gradual"], "at": [0.6]},
            "at=0.6: supernet has no such sparsity",
        ),
        (
            {"kind": "better", "method": "searched", "than": ["supernet"], "at": [0.8]},
            "at=0.8: searched has no such sparsity.*one of searched",
        ),
        (
            {"kind": "cost", "method": "searched", "measure": "cpu_seconds"},
            "CPU seconds of a search",
        ),
        ({"kind": "cost", "measure": "time"}, "claims.measure=time: choose one of seconds"),
    ],
)
def test_bad_claims(claim, message, study):
    with pytest.raises(UserError, match=message):
        study(claims=[{"claim": "x", "method": "supernet", **claim}])


def test_seeds_are_needed(study):
    with pytest.raises(UserError, match="each part needs seeds"):
        study(grid=[{"methods": ["supernet"]}])
