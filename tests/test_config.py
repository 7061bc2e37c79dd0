"""The config: what it takes, and what it says of what it does not take."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.base.options import IDENTITY, REBATCH, RESUMABLE, check, flatten
from asrprune.config import (
    Config,
    changes,
    config_from_dict,
    load_config,
    override,
    save_config,
)
from asrprune.data_pruning.options import preset


@pytest.fixture
def load(tmp_path):
    """``load(yaml, *words)``"""
    path = tmp_path / "x.yaml"

    def loaded(text: str, *words: str) -> Config:
        path.write_text(text)
        return load_config(path, words)

    return loaded


def test_file_then_words(load):
    config = load(
        "seed: 7\ntraining: {epochs: 3, optimizer: {lr: 0.5}}\nmodel: {encoder_options: {dim: 8}}",
        "training.epochs=5", "data.dev=[a, b]", "model.encoder_options.num_layers=2",
        "data.lazy=true", "data.corpus=a=b", "data.max_duration=30",
    )  # fmt: skip
    assert (config.seed, config.training.epochs, config.training.optimizer.lr) == (7, 5, 0.5)
    assert config.model.encoder_options == {"dim": 8, "num_layers": 2}
    assert config.data.dev == ["a", "b"] and config.data.lazy is True
    assert config.data.corpus == "a=b"
    assert config.data.max_duration == 30.0 and type(config.data.max_duration) is float
    assert load("") == Config()


def test_round_trips(load, tmp_path):
    config = load("", "data.dev=[a]", "model.encoder_options={dim: 3, deep: {list: [1, 2]}}")
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert config_from_dict(dataclasses.asdict(config)) == config
    assert list(changes(config, config)) == []


# a text, or words with a "=", and what the message must hold
WRONG = [
    (("trainin: {epochs: 3}",), "unknown key 'trainin' (did you mean 'training'?)"),
    (("training: {epochz: 3}",), "unknown key 'training.epochz' (did you mean 'epochs'?)"),
    (("", "training.optimizer.lrr=1"), "unknown key 'training.optimizer.lrr' (did you mean 'lr'?)"),
    (("", "nothing.like.it=1"), "command line: unknown key 'nothing'"),
    (("training: {epochs: many}",), "training.epochs: Value 'many'"),
    (("", "training.epochs=2.5"), "training.epochs: Value '2.5'"),
    (("", "training.epochs=true"), "training.epochs: Value 'True'"),
    (("", "training.epochs="), "training.epochs: Incompatible value 'None'"),
    (("", "training.epochs.x=1"), "training.epochs"),
    (("", "data.lazy=maybe"), "data.lazy: Value 'maybe' is not a valid bool"),
    (("", "data.dev=one"), "command line: data.dev is a list, such as data.dev=[a,b]"),
    (("", "data.dev.0=one"), "data.dev is a list"),
    (("data: {dev: {a: b}}",), "x.yaml: data.dev is a list"),
    (("", "decoding.method.x=1"), "command line: decoding.method is one value and has no x"),
    (("", "model.encoder.x.y=1"), "model.encoder is one value and has no x"),
    (("", "model.encoder.x=1", "model.encoder=a"), "model.encoder is one value"),
    (("", "decoding=3"), "decoding is a section of options, such as decoding.method"),
    (("", "model=${seed}"), "model is a section of options"),
    (("data:\nseed: 1",), "x.yaml: data is a section of options"),
    (("", "decoding.=1"), "'decoding.=1' is not of the form key=value"),
    (("", "data.dev=[one"), "the value in 'data.dev=[one' is not valid YAML"),
    (("", "training=3"), "command line: training is a section"),
    (("", "model.encoder_options=3"), "model.encoder_options holds options by name"),
    (("", "training.epochs=0"), "training.epochs=0: must be at least 1"),
    (("", "data.spec_augment.probability=1.5"), "must be between 0 and 1"),
    (("loss: {lm_scale: 0.6, am_scale: 0.5}",), "loss.lm_scale=0.6 and loss.am_scale=0.5: their"),
    (("", "training.optimizer.lr=nan"), "training.optimizer.lr=nan: must be at least 0"),
    (("", "training.precision=bfloat"), "choose one of float32, bfloat16, float16 (did you mean"),
    (("", "training.epochs=${nothing}"), "'nothing' not found"),
    (("", "epochs"), "'epochs' is not of the form key=value"),
    (("", "=3"), "'=3' is not of the form key=value"),
    (("", "data..dev=3"), "'data..dev=3' is not of the form key=value"),
    (("", "data.=3"), "'data.=3' is not of the form key=value"),
    (("a: b: c",), "x.yaml is not valid YAML"),
    (("seed: 1\nseed: 2",), "duplicate key seed"),
    (("- 1\n- 2",), "x.yaml holds no key: value pairs"),
    (("seed: null",), "seed: Incompatible value 'None'"),
]


@pytest.mark.parametrize("case, text", WRONG, ids=str)
def test_wrong_values_are_named(case, text, load):
    with pytest.raises(UserError) as caught:
        load(*case)
    assert text in str(caught.value)


FILE = """
model:
  encoder: one:encoder
  encoder_options: {dim: 8, heads: 2}
  predictor: one:predictor
  predictor_options: {dim: 4}
"""


@pytest.mark.parametrize(
    "words, encoder_options, predictor_options",
    [
        (["seed=3"], {"dim": 8, "heads": 2}, {"dim": 4}),
        (["model.encoder=one:encoder"], {"dim": 8, "heads": 2}, {"dim": 4}),
        (["model.encoder=two:encoder"], {}, {"dim": 4}),
        (["model={encoder: two:encoder}"], {}, {"dim": 4}),
        (["model.encoder_options.x=1", "model.encoder=two:encoder"], {"x": 1}, {"dim": 4}),
        (["model.encoder=two:encoder", "model.encoder_options={dim: 3}"], {"dim": 3}, {"dim": 4}),
        (["model.predictor=two:p"], {"dim": 8, "heads": 2}, {}),
        (["model.encoder=x:y", "model.encoder=one:encoder"], {"dim": 8, "heads": 2}, {"dim": 4}),
    ],
)
def test_options_of_another_encoder_are_dropped(words, encoder_options, predictor_options, load):
    model = load(FILE, *words).model
    assert model.encoder_options == encoder_options
    assert model.predictor_options == predictor_options


PATHWAYS = (
    "weight_pruning: {method: pathways, pathways: {renewal: sensitivity, max_union_density: 0.5}}"
)
SUPERNET = "weight_pruning: {method: supernet, supernet: {distillation: {scale: 0.1}}}"


@pytest.mark.parametrize("text", [PATHWAYS, SUPERNET, "seed: 1"])
@pytest.mark.parametrize("method", ["none", "gradual", "supernet", "pathways"])
def test_options_of_another_method_are_dropped(text, method, load):
    before = load(text).weight_pruning
    changed = load(text, f"weight_pruning.method={method}").weight_pruning
    usual = type(before)(method=method)
    assert changed == (before if method == before.method else usual)


@pytest.mark.parametrize(
    "case, text",
    [
        (
            ["seed: 1", "weight_pruning.method=gradual", "weight_pruning.pathways.masks=a.pt"],
            "weight_pruning.pathways.masks=a.pt: is for weight_pruning.method=pathways, and this "
            "is weight_pruning.method=gradual: leave it out, or take that method",
        ),
        (["seed: 1", "weight_pruning.supernet.dense=0.1"], "supernet.dense=0.1: is for"),
        ([PATHWAYS, "weight_pruning.supernet.distillation.scale=1"], "distillation.scale=1.0: is"),
        (
            [
                SUPERNET,
                "weight_pruning.pathways.protect=true",
                "weight_pruning.pathways.masks=a.pt",
            ],
            "weight_pruning.pathways.masks=a.pt: is for",
        ),
        ([SUPERNET.replace("supernet,", "none,")], "supernet.distillation.scale=0.1: is for"),
        (
            [
                PATHWAYS,
                "weight_pruning.method=none",
                "weight_pruning.pathways.max_union_density=0.5",
            ],
            "pathways.max_union_density=0.5: is for weight_pruning.method=pathways, and this",
        ),
    ],
)
def test_options_of_another_method_are_refused(case, text, load):
    with pytest.raises(UserError) as caught:
        load(*case)
    assert text in str(caught.value)


def test_words_change_a_config_as_they_change_a_file(load):
    words = ["training.epochs=3", "model.encoder=two:encoder", "data.dev=[b]"]
    config = load(FILE)
    assert override(config, words) == load(FILE, *words)
    assert config == load(FILE)  # as it was
    with pytest.raises(UserError, match="command line: decoding.method is one value"):
        override(config, ["decoding.method.x=1"])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="config .*none.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


def test_kinds_of_change():
    """The contract of a resume: what may change, what starts the epoch again, what is refused."""
    kinds = {key: field.metadata.get("change", IDENTITY) for key, _, field in flatten(Config())}
    assert {key for key, kind in kinds.items() if kind == REBATCH} == {
        "data.max_duration", "data.max_cuts", "data.lazy", "data.buffer_size",
        "training.grad_accumulation",
    }  # fmt: skip
    for key in ("training.epochs", "data.num_workers", "training.log_interval", "data.dev"):
        assert kinds[key] == RESUMABLE
    identity = {key for key, kind in kinds.items() if kind == IDENTITY}
    for key in ("seed", "data.corpus", "data.noise.cuts", "model.encoder", "training.precision"):
        assert key in identity
    assert not [key for key in identity if key.startswith("decoding.")]
    old, new = Config(), Config(seed=1)
    new.training.epochs, new.data.max_duration = 99, 1.0
    assert list(changes(old, new)) == [
        ("seed", 42, 1, IDENTITY),
        ("data.max_duration", 200.0, 1.0, REBATCH),
        ("training.epochs", 30, 99, RESUMABLE),
    ]


def test_defaults_are_within_their_limits():
    check(Config())


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_limits_hold_for_every_number(value):
    config = Config()
    config.loss.lm_scale = value
    if 0 <= value <= 1:
        check(config)
    else:
        with pytest.raises(UserError, match="loss.lm_scale=.*between 0 and 1"):
            check(config)


@pytest.mark.parametrize("where", ["file", "word"])
def test_a_preset_of_data_pruning(where, load):
    text = "data_pruning: recommended" if where == "file" else "data_pruning: {keep: 0.9}"
    words = ["data_pruning=recommended"] if where == "word" else []
    config = load(text, "data_pruning.time.drop_ratio=0.2", *words).data_pruning
    assert dataclasses.asdict(config) == {
        **preset("recommended"), "time": {**preset("recommended")["time"], "drop_ratio": 0.2},
    }  # fmt: skip
    other = load(text, *words, "data_pruning.policy=hard").data_pruning
    assert (other.policy, other.policy_options, other.keep) == ("hard", {}, 0.7)
    with pytest.raises(UserError, match=r"no such preset \(did you mean 'recommended'\?\)"):
        load("", "data_pruning=recomended")


@pytest.mark.parametrize("text", ["2:4", "1:4", "8x1"])
def test_a_block_can_be_written_without_quotes(text, tmp_path):
    words = ["weight_pruning.schedule.final=0.5"]
    config = override(config_from_dict({}), [f"weight_pruning.block={text}", *words])
    assert config.weight_pruning.block == text
    path = tmp_path / "pairs.yaml"
    path.write_text(f"weight_pruning:\n  block: {text}  # N of M\n  schedule: {{final: 0.5}}\n")
    assert load_config(path) == config
    save_config(config, path)
    assert load_config(path) == config


def test_more_is_pruned_than_the_pattern_leaves(tmp_path):
    words = ["weight_pruning.block=3:4", "weight_pruning.schedule.final=0.5"]
    override(config_from_dict({}), words)  # nothing is pruned at all
    with pytest.raises(UserError, match="block=3:4 keeps 3 of each 4 inputs: at most 0.25"):
        override(config_from_dict({}), [*words, "weight_pruning.method=gradual"])
