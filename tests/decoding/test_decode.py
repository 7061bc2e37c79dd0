"""The verb ``asrprune decode`` on a tiny corpus with a tiny model of random weights."""

import dataclasses
import json

import pytest

from asrprune.cli import main
from asrprune.config import Config
from asrprune.data.options import DataOptions
from asrprune.data.tokenizer import load_tokenizer, train_characters
from asrprune.decoding.decode import result_suffix
from asrprune.decoding.options import DecodingOptions
from asrprune.scoring.files import read_recogs
from asrprune.training.checkpoint import save_checkpoint

from .conftest import OFFLINE, tiny_options

TEXTS = {f"utt-{i}": (20 + 37 * i % 90, text) for i, text in enumerate(
    ["ONE TWO", "", "IT'S O'CLOCK", "NINE", "SEVEN EIGHT", "A", "CAFE\u0301 X"]
)}  # fmt: skip


@pytest.fixture
def experiment(tmp_path, tiny_model, make_cuts):
    """A folder as after stage 6; returns a function that runs ``asrprune decode`` on it."""
    train_characters(["ABCDEFGHIJ KLMNOPQRSTUVWXYZ'\u00c9"], tmp_path / "lang")
    tokenizer = load_tokenizer(tmp_path / "lang")
    (tmp_path / "valid").mkdir()
    make_cuts(TEXTS).to_file(tmp_path / "valid" / "toy_cuts_test.jsonl.gz")

    def save(encoder=None):
        options = tiny_options(**({"encoder": encoder} if encoder else {}))
        config = Config(model=options, data=DataOptions(corpus="toy"))
        config.decoding.num_workers = 0
        model = tiny_model(encoder=options.encoder, vocab_size=tokenizer.vocab_size)
        content = {
            "model": model.state_dict(),
            "config": dataclasses.asdict(config),
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_digest": tokenizer.digest,
        }
        (tmp_path / "exp").mkdir(exist_ok=True)
        save_checkpoint(content, tmp_path / "exp" / "averaged.pt")
        (tmp_path / "exp" / "averaged.json").write_text(json.dumps({"epoch": 3, "avg": 2}))

    def decode(*words, method="greedy_search", sets=("test",)):
        return main(
            ["decode", "--exp-dir", str(tmp_path / "exp"), "--lang-dir", str(tmp_path / "lang"),
             "--manifest-dir", str(tmp_path / "valid"), "--decoding-method", method,
             "--test-sets", *sets, *words]
        )  # fmt: skip

    save()
    decode.save = save
    decode.folder = tmp_path / "exp"
    return decode


def test_every_utterance_once_in_the_manifests_order(experiment):
    assert experiment() == 0
    folder = experiment.folder / "greedy_search"
    found = read_recogs(folder / "recogs-test-epoch-3-avg-2.txt")
    assert [utterance.id for utterance in found] == list(TEXTS)
    assert found[2].ref == ["IT'S", "O'CLOCK"] and found[1].ref == []
    assert found[-1].ref == ["CAF\u00c9", "X"]  # composed, as hypotheses are
    assert any(utterance.hyp for utterance in found)
    assert len(list(folder.iterdir())) == 3
    assert main(
        ["score", "--exp-dir", str(experiment.folder), "--decoding-method", "greedy_search",
         "--test-sets", "test"]
    ) == 0  # fmt: skip


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_batches_workers_and_streaming_do_not_matter(experiment, method):
    assert experiment(method=method) == 0
    (path,) = (experiment.folder / method).glob("recogs-*")
    expected = path.read_bytes()
    for words in (
        ("--max-duration", "1.5"),
        ("decoding.max_duration=0.1",),  # less than any cut: one at a time
        ("decoding.num_workers=1",),
    ):
        path.unlink()
        assert experiment(*words, method=method) == 0
        assert path.read_bytes() == expected
    assert experiment("--streaming", "true", method=method) == 0
    assert path.with_name(f"{path.stem}-streaming.txt").read_bytes() == expected


def test_an_offline_encoder_does_not_stream(experiment, capsys):
    experiment.save(encoder=OFFLINE)
    assert experiment("--streaming", "true") == 1
    assert "is offline" in capsys.readouterr().err
    assert not (experiment.folder / "greedy_search").exists()


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ((), {"sets": ["test", "dev"]}, "validate stage (3)"),
        ((), {"method": "fast_beam_search"}, "fast_beam_search needs k2"),
        (("--model", "none.pt"), {}, "none.pt does not exist; the average stage (6)"),
        (("--device", "cuda:99"), {}, "--device cuda:99"),
        (("decoding.beam_sise=3",), {}, "did you mean 'beam_size'"),
        (("decoding.beam_size=0",), {}, "decoding.beam_size=0: must be at least 1"),
        (("decoding.beam_size.x=1",), {}, "decoding.beam_size is one value and has no x"),
        (("decoding=3",), {}, "decoding is a section of options"),
        (("decoding.=1",), {}, "'decoding.=1' is not of the form key=value"),
        (("data.dev=3",), {}, "data.dev is a list"),
        (("model.joiner_dimm=3",), {}, "did you mean 'joiner_dim'"),
        (("nonsense.x.y=1",), {}, "unknown key 'nonsense'"),
        (
            ("--beam-size", "3", "decoding.beam_size=4"),
            {},
            "--beam-size and decoding.beam_size=...",
        ),
        (("decoding.method=greedy_search",), {}, "--decoding-method and decoding.method=..."),
    ],
)
def test_what_is_wrong_is_said_before_decoding(experiment, capsys, words, options, message):
    assert experiment(*words, **options) == 1
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in experiment.folder.iterdir()) == [
        "averaged.json", "averaged.pt",
    ]  # fmt: skip


def test_words_reach_the_search_and_no_other_section(experiment):
    assert experiment("decoding.beam_size=8", "model.joiner_dim=3", "training.epochs=3",
                      method="modified_beam_search") == 0  # fmt: skip
    (path,) = (experiment.folder / "modified_beam_search").glob("recogs-*")
    assert path.name == "recogs-test-epoch-3-avg-2-beam_8.txt"


def test_averages_of_two_kinds_do_not_share_a_name(tmp_path):
    for kind, expected in ((True, "epoch-3-avg-2"), (False, "epoch-3-avg-2-last_steps")):
        about = {"epoch": 3, "avg": 2, "use_averaged_model": kind}
        (tmp_path / "m.json").write_text(json.dumps(about))
        assert result_suffix(tmp_path / "m.pt", DecodingOptions()) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "model_m"),
        ({"max_sym_per_frame": 3}, "model_m-max_sym_3"),
        ({"method": "modified_beam_search", "streaming": True}, "model_m-beam_4-streaming"),
        ({"method": "fast_beam_search"}, "model_m-beam_20-contexts_8-states_64"),
    ],
)
def test_suffixes_tell_settings_apart(tmp_path, options, expected):
    assert result_suffix(tmp_path / "m.pt", DecodingOptions(**options)) == expected


def test_two_cuts_of_one_id_are_refused(experiment, make_cuts, capsys):
    cuts = make_cuts({"a": (30, "X"), "b": (30, "Y")}).to_eager()
    folder = experiment.folder.parent / "valid"
    doubled = [cuts[0], cuts[1].with_id("a")]
    type(cuts).from_cuts(doubled).to_file(folder / "toy_cuts_twice.jsonl.gz")
    assert experiment(sets=["twice"]) == 1
    assert "two cuts have the id 'a'" in capsys.readouterr().err
    bare = dataclasses.replace(cuts[0], features=None)
    type(cuts).from_cuts([bare]).to_file(folder / "toy_cuts_bare.jsonl.gz")
    assert experiment(sets=["bare"]) == 1
    assert "cut a has no features" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_features_that_cannot_be_read_name_their_cut(experiment, capsys, workers):
    for path in experiment.folder.parent.glob("feats/**/utt-3.npy"):
        path.write_bytes(b"damaged")
    assert experiment(f"decoding.num_workers={workers}") == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "cut utt-3: its features cannot be read" in error and "features stage (2)" in error
    assert not (experiment.folder / "greedy_search").exists()
