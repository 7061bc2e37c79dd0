"""Languages chosen by the first seconds: by the surest pathway, or by a classifier."""

import copy
import dataclasses
import re
import weakref

import pytest
import torch
from lhotse import CutSet

from asrprune.cli import main
from asrprune.config import Config
from asrprune.data.features import load_features
from asrprune.data.options import DataOptions
from asrprune.data.tokenizer import load_tokenizer, train_characters
from asrprune.decoding import pathways as module
from asrprune.decoding.decode import result_suffix
from asrprune.decoding.language import choose_languages, described
from asrprune.decoding.language_classifier import (
    LanguageClassifier,
    choose,
    load_classifier,
    save_classifier,
)
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.pathways import Pathways
from asrprune.scoring.files import read_recogs
from asrprune.training.checkpoint import save_checkpoint
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import WeightPruningOptions, parse_block

from .conftest import NUM_FEATURES, OFFLINE, STREAMING, tiny_options

LANGUAGES = ("en", "fr", "cy")
CPU = torch.device("cpu")
SECONDS = 0.4  # 40 frames: some cuts are shorter
TEXTS = {f"utt-{i}": (17 + 29 * i % 90, "AB C"[: i % 5]) for i in range(12)}


def make_pathways(model) -> Pathways:
    """Of a mask of half the blocks for each language, drawn."""
    block = parse_block("8x1")
    bank = MaskBank(model, find_layers(model, block, WeightPruningOptions().include))
    generator = torch.Generator().manual_seed(1)
    for language in LANGUAGES:
        blocks = bank.blocks(0.0).items()
        bank.name(
            language,
            {name: torch.rand(kept.shape, generator=generator) < 0.5 for name, kept in blocks},
        )
    return Pathways(bank, model, {})


def labelled(cuts: CutSet, languages) -> CutSet:
    cuts = list(copy.deepcopy(cuts))
    for cut, language in zip(cuts, languages, strict=True):
        cut.supervisions[0].language = language
    return CutSet.from_cuts(cuts)


@torch.no_grad()
def best_path(model, x) -> tuple[float, int]:
    """Log-probability of one utterance's greedy path, written out, and its frames; x (T, F)."""
    h, _ = model.encode(x[None], torch.tensor([len(x)]))
    output, state = model.predictor.step(None, model.predictor.initial_state(1, CPU))
    total = 0.0
    for frame in model.joiner.project_encoder(h)[0]:
        logits = model.joiner(frame[None], model.joiner.project_predictor(output))
        best, symbol = logits.log_softmax(-1).max(-1)
        total += best.item()
        if symbol.item():
            output, state = model.predictor.step(symbol, state)
    return total, h.shape[1]


@pytest.mark.parametrize("cached", [1, 8])
@pytest.mark.parametrize(
    ("encoder", "streaming"), [(STREAMING, True), (STREAMING, False), (OFFLINE, False)]
)
def test_the_surest_pathway_of_the_first_seconds(
    encoder, streaming, cached, tiny_model, make_cuts, monkeypatch
):
    monkeypatch.setattr(module, "MOST_CACHED", cached)
    model, cuts = tiny_model(encoder=encoder), make_cuts(TEXTS)
    pathways = make_pathways(model)
    options = DecodingOptions(
        language="auto", language_seconds=SECONDS, streaming=streaming, num_workers=0,
        max_duration=1.2, method="modified_beam_search", max_sym_per_frame=3, blank_penalty=2.0,
    )  # fmt: skip
    expected = {}
    for cut in cuts:
        x, scores = load_features(cut)[: round(SECONDS * 100)], {}
        for language in LANGUAGES:
            alone = copy.deepcopy(model)
            alone.load_state_dict(pathways.bank.masked(language), strict=False)
            total, frames = best_path(alone, x)
            scores[language] = total / frames
        first, second, _ = sorted(scores.values(), reverse=True)
        assert first > second + 1e-4  # else this cut would tell nothing
        expected[cut.id] = max(scores, key=scores.get)
    assert len(set(expected.values())) > 1
    found = choose_languages(model, cuts, options, pathways, CPU)
    assert found == expected
    # what cuts say of their language plays no part
    wrong = labelled(cuts, ["de"] * len(cuts))
    assert choose_languages(model, wrong, options, pathways, CPU) == expected


def test_no_more_masked_weights_are_held_than_said(tiny_model, monkeypatch):
    monkeypatch.setattr(module, "MOST_CACHED", 2)
    pathways = make_pathways(tiny_model())
    make, made, most = pathways.bank.cached, [], []

    def cached(name):
        most.append(1 + sum(reference() is not None for reference in made))
        new = make(name)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(pathways.bank, "cached", cached)
    for language in ("en", "fr", "en", "cy", "en", "fr"):  # cy takes fr's place, not en's
        with pathways.applied(language):
            pass
    assert most == [1, 2, 2, 2]


def test_how_often_it_was_right(make_cuts):
    cuts = make_cuts(dict.fromkeys("abcdef", (20, "")))
    chosen = dict(zip("abcdef", ["en", "en", "fr", "fr", "cy", "en"], strict=True))
    assert described(cuts, chosen) == ": en 3, fr 2, cy 1; no utterance says its own"
    spoken = labelled(cuts, ["en", "en", "en", "fr", None, "de"])
    assert described(spoken, chosen).splitlines() == [
        ": en 3, fr 2, cy 1",
        "language  utterances  chosen rightly",
        "de                 1     0.0% (else en 1)",
        "en                 3    66.7% (else fr 1)",
        "fr                 1   100.0%",
    ]


@pytest.fixture
def experiment(tmp_path, tiny_model, make_cuts):
    """A pathways model after stage 6; ``decode(languages, *words)`` gives its results, or None."""
    train_characters(["ABC"], tmp_path / "lang")
    tokenizer = load_tokenizer(tmp_path / "lang")
    model, cuts = tiny_model(vocab_size=tokenizer.vocab_size), make_cuts(TEXTS)
    config = Config(model=tiny_options(), data=DataOptions(corpus="toy"))
    config.decoding.num_workers = 0
    config.decoding.language_seconds = SECONDS
    (tmp_path / "exp").mkdir()

    def save(method="pathways"):
        config.weight_pruning.method = method
        masks = {"sparsity": 0.5, "bank": make_pathways(model).bank.state_dict(), "steps": {}}
        content = {
            "model": model.state_dict(),
            "config": dataclasses.asdict(config),
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_digest": tokenizer.digest,
            **({"masks": masks} if method == "pathways" else {}),
        }
        save_checkpoint(content, tmp_path / "exp" / "averaged.pt")

    def decode(languages, *words):
        labelled(cuts, languages).to_file(tmp_path / "toy_cuts_test.jsonl.gz")
        told = ["decode", "--exp-dir", tmp_path / "exp", "--lang-dir", tmp_path / "lang"]
        told += ["--manifest-dir", tmp_path, "--test-sets", "test", *words]
        if main([str(word) for word in told]):
            return None
        decode.path = max(tmp_path.glob("exp/*/recogs-*"), key=lambda path: path.stat().st_mtime_ns)
        return read_recogs(decode.path)

    save()
    decode.save = save
    chosen = choose_languages(
        model, cuts, config.decoding, make_pathways(model), CPU, unk_id=tokenizer.unk_id
    )
    decode.chosen = [chosen[cut.id] for cut in cuts]
    return decode


@pytest.mark.parametrize("words", [(), ("--streaming", "true")])
def test_a_chosen_language_decodes_as_a_given_one(experiment, words, caplog):
    caplog.set_level("INFO")
    nobody = [None] * len(TEXTS)
    chosen = experiment(nobody, "decoding.language=auto", *words)
    assert experiment.path.stem.endswith("-language_auto_0.4s")
    assert "no utterance says its own" in caplog.text
    assert len(set(experiment.chosen)) > 1
    given = experiment(experiment.chosen, *words)
    assert "auto" not in experiment.path.stem
    assert chosen == given and any(utterance.hyp for utterance in given)
    # others say another language than is chosen: where it is the same, so is the hypothesis
    said = [language if i % 2 else "fr" for i, language in enumerate(experiment.chosen)]
    given, auto = experiment(said, *words), experiment(said, "decoding.language=auto", *words)
    assert auto == chosen
    same = [a == b for a, b in zip(said, experiment.chosen, strict=True)]
    assert 0 < sum(same) < len(said)
    assert [g for g, s in zip(given, same, strict=True) if s] == [
        a for a, s in zip(auto, same, strict=True) if s
    ]
    assert given != auto
    assert re.search(r"fr +\d+ +\d+\.\d% \(else ", caplog.text)


@pytest.fixture
def classifier(tmp_path, make_cuts):
    """The words for decoding by a classifier of random weights, which knows a language more."""
    torch.manual_seed(0)
    classifier = LanguageClassifier(["cy", "de", "en", "fr"], NUM_FEATURES).eval()
    with torch.no_grad():  # no language is likelier than another in the mean
        features = [load_features(cut) for cut in make_cuts(TEXTS)]
        logits = [classifier(x[None], torch.tensor([len(x)])) for x in features]
        classifier.output.bias -= torch.cat(logits).mean(0)
    save_classifier(classifier, tmp_path / "languages.pt", {})
    return "decoding.language=auto", f"decoding.language_classifier={tmp_path / 'languages.pt'}"


def test_a_classifier_chooses(experiment, classifier, make_cuts, tmp_path):
    chosen = experiment([None] * len(TEXTS), *classifier)
    assert experiment.path.stem.endswith("-language_classified_0.4s")
    loaded = load_classifier(tmp_path / "languages.pt", LANGUAGES, NUM_FEATURES)
    languages = []
    for cut in make_cuts(TEXTS):
        x = load_features(cut)[: round(SECONDS * 100)]
        languages += choose(loaded(x[None], torch.tensor([len(x)])), loaded.languages, LANGUAGES)
    assert len(set(languages)) > 1 and languages != experiment.chosen
    assert chosen == experiment(languages)
    # it plays no part where languages are given
    assert chosen == experiment(languages, classifier[1])


def test_a_classifier_has_to_fit(experiment, classifier, tmp_path, capsys):
    other = LanguageClassifier(["en", "fr"], NUM_FEATURES)
    save_classifier(other, tmp_path / "languages.pt", {})
    assert experiment([None] * len(TEXTS), *classifier) is None
    assert re.search(r"languages\.pt: .* does not know cy, ", capsys.readouterr().err)
    save_classifier(LanguageClassifier(LANGUAGES, 80), tmp_path / "languages.pt", {})
    assert experiment([None] * len(TEXTS), *classifier) is None
    assert "hears 80 mel bins, and the model 8." in capsys.readouterr().err


def test_one_language_for_all(experiment):
    all_fr = experiment([None] * len(TEXTS), "decoding.language=fr")
    assert experiment.path.stem.endswith("-language_fr")
    assert all_fr == experiment(["fr"] * len(TEXTS))
    assert all_fr != experiment(["en"] * len(TEXTS))


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("none", ("decoding.language=auto",), r"averaged\.pt has no pathways.*: leave it out"),
        ("none", ("decoding.language=fr",), "decoding.language=fr: .* has no pathways"),
        (
            "pathways",
            ("decoding.language=de",),
            "decoding.language=de: there is no pathway .* there are: en, fr, cy; or say .* auto",
        ),
        ("pathways", ("decoding.language_seconds=0",), "language_seconds=0.0: must be at least"),
        ("pathways", (), "cut utt-0 does not say in which language .*decoding.language=auto"),
    ],
)
def test_what_does_not_apply_is_said(method, words, message, experiment, capsys):
    experiment.save(method)
    assert experiment([None] * len(TEXTS), *words) is None
    assert re.search(message, capsys.readouterr().err)


def test_suffixes_tell_languages_apart(tmp_path):
    suffixes = [
        result_suffix(tmp_path / "m.pt", DecodingOptions(**options))
        for options in (
            {"language_seconds": 5.0},
            {"language": "fr"},
            {"language": "auto"},
            {"language": "auto", "language_seconds": 5.0},
            {"language": "auto", "language_classifier": "languages.pt"},
        )
    ]
    assert suffixes == ["model_m"] + [
        f"model_m-language_{end}" for end in ("fr", "auto_3s", "auto_5s", "classified_3s")
    ]
