"""Int8 keeps the errors of float32: the matrices that it hurts are found, and few of them stay."""

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.data.tokenizer import load_tokenizer
from asrprune.export import int8
from asrprune.export.budget import BYTES, Measure
from asrprune.export.dev_speech import DevSets, DevSpeech, open_dev_sets
from asrprune.export.int8 import (
    Int8Search,
    allowed_errors,
    by_chance,
    fewest,
    keeps_errors,
)
from asrprune.export.onnx_decoder import OnnxDecoder, open_session
from asrprune.export.onnx_graph import QUANTISED, constants, quantised, to_onnx
from asrprune.export.onnx_matrices import matrices
from asrprune.export.onnx_parts import Part, cut
from asrprune.export.source import open_source
from tests.export.conftest import ENCODERS, Trained
from tests.export.test_onnx_files import make
from tests.export.test_sherpa import bench
from tests.export.widen import widen_file

HURT = [f"encoder.layers.{layer}.conv_module.sequential.0.weight" for layer in (0, 1)]
LOSS = ("--int8-loss", "0.1")  # few words are decoded here


def export(trained: Trained, *words) -> dict:
    """Export a model, compared on the development set; what is said of the whole network."""
    corpus = trained.corpus
    common = ["--model", trained.model, "--lang-dir", corpus.lang, "--networks", "whole"]
    common += ["--manifest-dir", corpus.manifests, "--dev-sets", "dev", *LOSS]
    assert cli.main(["export", *map(str, common), *words]) == 0
    return read_json(trained.model.with_name("onnx") / "export.json")["networks"]["whole"]


@pytest.fixture(scope="module")
def hurt(offline, tmp_path_factory) -> Trained:
    """The Conformer as before, but with activations of a wide range before two matrices."""
    path = tmp_path_factory.mktemp("hurt") / "averaged.pt"
    widen_file(offline.model, path, HURT, channels=3, factor=1000)
    return Trained(offline.corpus, path)


@pytest.fixture(scope="module")
def exported(hurt) -> dict:
    """What the export says of the model that int8 hurts."""
    return export(hurt)


def search_of(trained: Trained) -> tuple[Int8Search, DevSpeech]:
    """What an export measures with."""
    corpus, source = trained.corpus, open_source(trained.model, [])
    parts = cut(source.model)
    dev = open_dev_sets(corpus.manifests, "tones", ["dev"])
    sets = DevSets(["dev"], dev, 1e9, 0.1, load_tokenizer(corpus.lang))
    speech = sets.speech(None, 0.0)
    return Int8Search(parts, {name: to_onnx(part) for name, part in parts.items()}, speech), speech


def test_wide_activations_are_the_same_function(offline, hurt):
    models = [open_source(one.model, []).model for one in (offline, hurt)]
    x, lengths = torch.randn(2, 150, 80), torch.tensor([150, 99])
    with torch.no_grad():
        (a, _), (b, _) = (model.encode(x, lengths) for model in models)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_what_int8_hurts_stays_in_float32(hurt, exported):
    """The two matrices that were made for it, and no other; int8 then has float32's errors."""
    about = exported["int8"]
    assert sorted(about["float32"]) == sorted(HURT)
    allowed = allowed_errors(about["errors_float32"], 0.1)
    assert about["errors_all_int8"] > allowed + 2 * about["chance"] > allowed
    assert about["errors_int8"] <= allowed
    assert about["wer_int8"] == about["errors_int8"] / about["words"]
    assert about["utterances"] == 150
    first, second, third, *_ = about["sensitivities"].values()
    assert second > 10 * third
    # what is written is what was measured: in int8 all but these two
    import onnx

    written = onnx.load(hurt.model.with_name("onnx") / "whole" / "encoder.int8.onnx")
    kinds = Counter(node.op_type for node in written.graph.node)
    assert len(constants(written)) == 2
    assert kinds["MatMulInteger"] == about["matrices"] - 3  # and the joiner has one


def test_none_of_those_that_stay_can_be_spared(hurt, exported):
    search, speech = search_of(hurt)
    kept = [matrix for matrix in search.matrices if matrix.name in HURT]
    float32 = search.errors({}, "float32")
    assert len(float32) == 150 and float32.sum() == exported["int8"]["errors_float32"]
    assert keeps_errors(float32, search.errors(search.graphs(kept), "both"), 0.1)
    for one in kept:
        assert not keeps_errors(float32, search.errors(search.graphs([one]), "one"), 0.1)


def test_int8_that_hurts_nothing_keeps_nothing(offline, hurt, exported):
    about = export(offline)
    assert about["int8"]["float32"] == [] and about["int8"]["sensitivities"] == {}
    assert about["int8"]["errors_int8"] == about["int8"]["errors_all_int8"]
    # with the same numbers in float32, the hurt network is larger by what stays in float32
    names = ("encoder.onnx", "encoder.int8.onnx")
    dense, small = ([one["files"][name]["bytes"] for name in names] for one in (about, exported))
    state = open_source(hurt.model, []).model.state_dict()
    assert small[0] == dense[0]
    assert small[1] - dense[1] == pytest.approx(3 * sum(state[n].numel() for n in HURT), rel=0.2)


def test_sherpa_hears_what_was_measured(hurt, exported, capsys):
    pytest.importorskip("sherpa_onnx")
    ours, float32, int8_row = bench(hurt, ("whole",), capsys)
    assert "| int8 (2 in float32) |" in hurt.model.with_name("onnx").joinpath("dev.md").read_text()
    assert int8_row["in_float32"] == 2 and "in_float32" not in float32
    about = exported["int8"]
    # sherpa-onnx computes the features in other steps, which int8 of this model may turn into words
    assert float32["wer"][0] == pytest.approx(about["wer_float32"], abs=0.01)
    assert int8_row["wer"][0] == pytest.approx(about["wer_int8"], abs=0.01)


@pytest.mark.parametrize("kind", ["offline", "streaming"])
def test_the_texts_are_those_of_sherpa(kind, request):
    """The search in onnxruntime is the one of the runtime that networks are exported for."""
    pytest.importorskip("sherpa_onnx")
    from asrprune.bench.export import audio_of
    from asrprune.export.sherpa import Recogniser

    trained = request.getfixturevalue(kind)
    tail = export(trained)["tail"]
    corpus, folder = trained.corpus, trained.model.with_name("onnx") / "whole"
    cuts = open_dev_sets(corpus.manifests, "tones", ["dev"])
    tokenizer = load_tokenizer(corpus.lang)
    speech = DevSets(["dev"], cuts, 1e9, 0.1, tokenizer).speech(None, tail)
    parts = cut(open_source(trained.model, []).model)
    metadata = {name: part.metadata for name, part in parts.items()}
    import onnx

    names = ("encoder.int8.onnx", "decoder.onnx", "joiner.int8.onnx")
    sessions = [open_session(onnx.load(folder / name)) for name in names]
    decoder = OnnxDecoder(dict(zip(parts, sessions, strict=True)), metadata, tokenizer.unk_id)
    recogniser = Recogniser(folder, int8=True)
    same = [
        tokenizer.decode(decoder.search(decoder.encode(features)).tokens)
        == recogniser.recognise(audio_of(one)).text
        for features, one in zip(speech.features, cuts, strict=True)
    ]
    assert len(same) == 150 and np.mean(same) >= 0.98


@pytest.mark.parametrize("kind", ENCODERS)
def test_matrices_have_the_names_of_parameters(kind):
    """Each is found, and one of them by itself can stay in float32."""
    model = make(kind)
    parts = cut(model)
    protos = {name: to_onnx(parts[name]) for name in QUANTISED}
    found, state = matrices(parts, protos), model.state_dict()
    for matrix in found:
        value = constants(protos[matrix.part])[matrix.constant]
        # queries, keys and values of an Emformer are one product
        parameter = torch.cat([state[name] for name in matrix.name.split(" + ")])
        value = value if matrix.part == "joiner" else value.T
        np.testing.assert_array_equal(parameter.reshape(value.shape), value)
    assert len({matrix.name for matrix in found}) == len(found)
    for part in QUANTISED:
        ours = [matrix for matrix in found if matrix.part == part]
        metadata = parts[part].metadata
        assert products(quantised(protos[part], metadata)) == len(ours)
        for matrix in {ours[0], ours[-1]}:
            less = quantised(protos[part], metadata, [matrix.constant])
            assert products(less) == len(ours) - 1


def products(proto) -> int:
    """The number of products of matrices in int8."""
    return sum(node.op_type == "MatMulInteger" for node in proto.graph.node)


def test_rows_of_a_parameter_are_named():
    class Cut(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(12, 6))

        def forward(self, x):
            return x @ self.weight[3:8].T

    part = Part(Cut(), {"x": torch.randn(2, 6)}, ("y",), {"x": 0}, {}, {})
    proto = to_onnx(part)
    empty = {"encoder": part, "joiner": part}
    names = [matrix.name for matrix in matrices(empty, dict.fromkeys(empty, proto))]
    assert names == ["weight[3:8]"] * 2


@given(st.integers(1, 300), st.data())
def test_the_fewest_of_a_ranking(most, data):
    """Whatever is enough: the answer is, one less is not, and few are tried."""
    needed = data.draw(st.integers(1, most))
    tried = []
    assert fewest(lambda count: tried.append(count) or count >= needed, most) == needed
    assert len(tried) == len(set(tried)) <= 2 * most.bit_length()
    assert not {0, most} & set(tried[:-1])  # these are known


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_errors_need_not_fall_with_each_matrix(enough):
    most = len(enough) + 1
    found = fewest(lambda count: enough[count - 1], most)
    assert found == most or enough[found - 1]
    assert found == 1 or not enough[found - 2]


def test_a_loss_that_few_utterances_cannot_show():
    """Two errors more are noise where int8 corrects as many words; a loss that is seen is none."""
    generator = np.random.default_rng(0)
    float32 = generator.binomial(12, 0.03, 500)
    moved = np.zeros(500, int)
    moved[:24] = [1, -1] * 11 + [1, 1]
    noisy = float32 + 1 + moved
    assert noisy.sum() - (float32 + 1).sum() == 2
    assert by_chance(float32 + 1, noisy) == pytest.approx(24**0.5)
    few = np.array([1] * 100 + [0] * 400)
    assert keeps_errors(few, few + moved, 0.01)  # 2 more than 100 errors, of 1 that is allowed
    assert not keeps_errors(few, few + moved, 0.0)
    worse = few + (np.arange(500) % 10 == 0)
    assert not keeps_errors(few, worse, 0.01)
    assert keeps_errors(few, worse, 0.5)
    ruined = few.copy()
    ruined[7] += 5  # one utterance alone
    assert not keeps_errors(few, ruined, 0.01)
    assert by_chance(np.zeros(0, int), np.zeros(0, int)) == 0


@pytest.mark.parametrize(
    "errors, loss, wanted",
    [
        (0, 0.01, 1),
        (0, 0.0, 0),
        (67, 0.01, 68),
        (199, 0.01, 200),
        (200, 0.01, 202),
        (100, 0.07, 107),
        (50, 0.0, 50),
        (50, 1.0, 100),
    ],
)
def test_how_many_errors_int8_may_make(errors, loss, wanted):
    assert allowed_errors(errors, loss) == wanted


@pytest.mark.parametrize(
    "words, message",
    [
        (("--dev-sets", "dev"), "--dev-sets: name the folder of the sets with --manifest-dir"),
        (("--manifest-dir", "{valid}"), "--manifest-dir: is for --dev-sets"),
        (("{both}", "--int8", "false"), "--dev-sets: are for comparing .* Set --int8 true"),
        (("{both}", "--dev-seconds", "0"), "--dev-seconds 0: must be above 0"),
        (("{both}", "other"), "tones_cuts_other.jsonl.gz does not exist; the validate stage"),
    ],
)
def test_what_does_not_go_together(words, message, models, tiny_corpus, tmp_path, capsys):
    valid = str(tiny_corpus.manifests)
    both = ["--manifest-dir", valid, "--dev-sets", "dev"]
    words = [one for word in words for one in (both if word == "{both}" else [word])]
    words = [word.format(valid=valid) for word in words]
    common = [
        "--model",
        models["none"],
        "--lang-dir",
        tiny_corpus.lang,
        "--out-dir",
        tmp_path / "x",
    ]
    if words[-1] == "other":
        words.insert(-1, "dev")
    assert cli.main(["export", *map(str, common), *words]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


def test_what_stays_in_float32_counts_for_a_size(
    models, tiny_corpus, tmp_path, capsys, monkeypatch
):
    """A size of int8 files is refused where int8 hurts too much to keep it."""
    words = ["weight_pruning.unit=channel", "weight_pruning.multiple=4"]
    source = open_source(models["none"], words)
    asked = f"{Measure(source.model, source.bank, BYTES).of(0.5) + 100}B"
    common = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path]
    common += ["--manifest-dir", tiny_corpus.manifests, "--networks", asked, "--dev-sets", "dev"]
    words = ["export", *map(str, common), *words]  # words may follow --dev-sets
    monkeypatch.setattr(int8, "allowed_errors", lambda *_: -1)
    monkeypatch.setattr(int8, "fewest", lambda _, most: most)  # as it is then, but at once
    assert cli.main(words) == 1
    count = read_matrices(tmp_path / asked)
    message = f"--networks {asked}: the int8 files have .* bytes. {count} of their matrices stay"
    assert re.search(message + ".* allow a larger --int8-loss", capsys.readouterr().err)
    assert not (tmp_path / "export.json").exists()


def read_matrices(folder: Path) -> int:
    """The number of float32 matrices in the int8 files."""
    import onnx

    return sum(len(constants(onnx.load(folder / f"{name}.int8.onnx"))) for name in QUANTISED)


def test_without_development_sets(models, tiny_corpus, tmp_path, caplog):
    words = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path]
    with caplog.at_level(logging.INFO):
        assert cli.main(["export", *map(str, words)]) == 0
    assert "int8 was not compared with float32. Name development sets" in caplog.text
    assert read_json(tmp_path / "export.json")["networks"]["whole"]["int8"] is None


def test_a_language_is_measured_on_its_own_cuts(tiny_corpus):
    cuts = open_dev_sets(tiny_corpus.manifests, "tones", ["dev", "dev"])
    assert len(cuts) == 6  # a set that is named twice counts once
    cuts[1].supervisions[0].language = "Welsh"
    sets = DevSets(["dev"], cuts, 1e9, 0.01, load_tokenizer(tiny_corpus.lang))
    sizes = {name: sets.speech(name, 0.0) for name in (None, "English", "Welsh", "French")}
    assert sizes.pop("French") is None
    assert [len(one.features) for one in sizes.values()] == [6, 5, 1]
    assert len(sets.speech("Welsh", 0.5).features[0]) == cuts[1].num_frames + 50


def test_too_few_errors_to_see_a_loss(models, tiny_corpus, tmp_path, caplog):
    words = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path]
    words += ["--manifest-dir", tiny_corpus.manifests, "--dev-sets", "dev"]
    assert cli.main(["export", *map(str, words)]) == 0
    assert re.search(r"--dev-sets dev: float32 makes \d+ errors in \d+ words, too few", caplog.text)
