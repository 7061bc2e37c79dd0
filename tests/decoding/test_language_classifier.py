"""The classifier of languages: laws of its network, its training, its file, and decoding by it."""

import dataclasses
import re

import pytest
import torch
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.cli import main
from asrprune.decoding.language import classify_languages
from asrprune.decoding.language_classifier import (
    LanguageClassifier,
    choose,
    load_classifier,
    save_classifier,
)
from asrprune.decoding.learn_languages import (
    Excerpts,
    LearningOptions,
    Speech,
    evaluate,
    learn,
    read_speech,
    shifted,
)
from asrprune.decoding.options import DecodingOptions
from asrprune.training.checkpoint import save_checkpoint

from .conftest import NUM_FEATURES

LANGUAGES = ["cy", "en", "fr"]
FEW = LearningOptions(steps=60, batch=24, evaluate_every=20, max_shift=0, lr=5e-3)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    made = LanguageClassifier(LANGUAGES, NUM_FEATURES).eval()
    made.feature_std.fill_(2.0)
    return made.requires_grad_(False)


def speech(counts, seed=0, frames=(90, 260)) -> Speech:
    """Noise of equal mean and variance: languages differ in how fast it changes."""
    generator = torch.Generator().manual_seed(seed)
    features, languages = [], []
    for speed, (language, count) in enumerate(counts.items()):
        for _ in range(count):
            length = int(torch.randint(*frames, (1,), generator=generator))
            noise = torch.randn(length + 8, NUM_FEATURES, generator=generator)
            smooth = noise.unfold(0, 1 + 2 * speed, 1)[:length].mean(-1)
            features.append(smooth / smooth.std() - 3)
            languages.append(language)
    return Speech(features, languages)


@pytest.mark.parametrize("length", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("filler", [0.0, 7.0, float("nan")])
def test_neither_padding_nor_the_batch_counts(length, filler, classifier):
    x = torch.randn(length, NUM_FEATURES)
    alone = classifier(x[None], torch.tensor([length]))
    batch = torch.full((3, 47, NUM_FEATURES), filler)
    batch[0, :length] = x
    batch[1], batch[2, :9] = torch.randn(47, NUM_FEATURES), 4.0
    together = classifier(batch, torch.tensor([length, 47, 9]))
    assert alone.isfinite().all()
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_the_level_of_a_recording_does_not_count(classifier):
    x, lengths = torch.randn(2, 40, NUM_FEATURES), torch.tensor([40, 25])
    louder = x + torch.linspace(-3, 5, NUM_FEATURES)
    torch.testing.assert_close(
        classifier(louder, lengths), classifier(x, lengths), rtol=1e-3, atol=1e-4
    )


def test_only_allowed_languages_are_chosen():
    logits = torch.tensor([[1.0, 9.0, 2.0], [3.0, 9.0, 2.0], [0.0, 9.0, 0.0]])
    assert choose(logits, LANGUAGES, LANGUAGES) == ["en"] * 3
    assert choose(logits, LANGUAGES, ["fr", "cy"]) == ["fr", "cy", "fr"]


def test_it_learns_what_differs():
    counts = {"en": 40, "fr": 20, "cy": 6}
    learnt, best = learn(speech(counts), speech(dict.fromkeys(counts, 20), seed=1), FEW)
    unseen = speech(dict.fromkeys(counts, 40), seed=2)
    assert learnt.languages == LANGUAGES
    assert best.accuracy >= 0.95 and evaluate(learnt, unseen).accuracy >= 0.95
    assert not any(value.requires_grad for value in learnt.parameters())
    # the weights are those of the best evaluation
    again = evaluate(learnt, speech(dict.fromkeys(counts, 20), seed=1), best.step)
    assert again == best


def test_equal_seeds_give_equal_bits():
    train, dev = speech({"en": 5, "fr": 5}), speech({"en": 3, "fr": 3}, seed=1)
    options = dataclasses.replace(FEW, steps=4, evaluate_every=2)

    def weights(seed, drawn):
        torch.manual_seed(drawn)  # the global generator plays no part
        learnt, _ = learn(train, dev, dataclasses.replace(options, seed=seed))
        return torch.cat([value.flatten() for value in learnt.state_dict().values()])

    before = torch.get_rng_state()
    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    learn(train, dev, options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


def test_excerpts_are_balanced_and_of_some_seconds():
    options = LearningOptions(batch=400, min_seconds=0.3, max_seconds=0.5, max_shift=2)
    draw = Excerpts(speech({"en": 60, "fr": 3}, frames=(20, 80)), ["en", "fr"], options)
    x, lengths, targets = draw(1)
    assert x.shape == (400, int(lengths.max()), NUM_FEATURES)
    assert 30 <= int(lengths.max()) <= 50 and int(lengths.min()) < 30  # a short cut is taken whole
    assert 150 < int(targets.sum()) < 250
    assert torch.equal(draw(1)[0], x) and not torch.equal(draw(2)[2], targets)
    assert len({int(draw(step)[1].max()) for step in range(8)}) > 3


def test_shifted_along_the_mel_bins():
    frames = torch.tensor([[1.0, 2, 3, 4]])
    assert shifted(frames, 0).tolist() == [[1, 2, 3, 4]]
    assert shifted(frames, 2).tolist() == [[1, 1, 1, 2]]
    assert shifted(frames, -1).tolist() == [[2, 3, 4, 4]]


def test_a_training_that_gets_no_better_ends():
    train, dev = speech({"en": 4, "fr": 4}), speech({"en": 3, "fr": 3}, seed=1)
    options = LearningOptions(steps=50, batch=2, lr=0.0, evaluate_every=1, patience=3)
    _, best = learn(train, dev, options)
    assert best.step == 1


def test_development_speech_must_fit():
    train = speech({"en": 2, "fr": 2})
    with pytest.raises(UserError, match=r"--dev-sets: no cut is of .*\(en, fr\).*Name the dev"):
        learn(train, speech({"de": 2}), FEW)
    dev = Speech([torch.zeros(50, NUM_FEATURES + 1)], ["en"])
    with pytest.raises(UserError, match="the cuts have 9 mel bins, and the training cuts 8"):
        learn(train, dev, FEW)


# --- the file -------------------------------------------------------------------------------------


def test_a_file_holds_all_of_it(classifier, tmp_path):
    path = tmp_path / "exp" / "languages.pt"
    save_classifier(classifier, path, {"seed": 3})
    assert torch.load(path, weights_only=True)["about"] == {"seed": 3}
    loaded = load_classifier(path, ["fr", "cy"], NUM_FEATURES)
    x, lengths = torch.randn(2, 30, NUM_FEATURES), torch.tensor([30, 12])
    assert torch.equal(loaded(x, lengths), classifier(x, lengths))
    assert not loaded.training and loaded.languages == LANGUAGES


@pytest.mark.parametrize(
    ("damage", "languages", "bins", "message"),
    [
        (None, ["en"], 8, "the file does not exist. Make a classifier with asrprune learn-lang"),
        (
            b"not a file of torch",
            ["en"],
            8,
            "the file is damaged.* Make a classifier with asrprune",
        ),
        ({"model": {}}, ["en"], 8, "the file holds no language classifier"),
        (
            {},
            ["en", "de", "nl"],
            8,
            "knows cy, en, fr. It does not know de, nl, .* or leave .* out",
        ),
        ({}, ["en"], 80, "hears 8 mel bins, and the model 80. Train one on the model's feat"),
        ({"weights": {}}, ["en"], 8, "its weights do not fit its options"),
        ({"options": {"size": 3}}, ["en"], 8, "its weights do not fit its options"),
    ],
)
def test_a_file_that_does_not_fit(damage, languages, bins, message, classifier, tmp_path):
    path = tmp_path / "languages.pt"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage is not None:
        save_classifier(classifier, path, {})
        content = torch.load(path, weights_only=True)
        content = damage if "model" in damage else {**content, **damage}
        save_checkpoint(content, path)
    with pytest.raises(UserError, match=f"language_classifier={re.escape(str(path))}: .*{message}"):
        load_classifier(path, languages, bins)


# --- cuts -----------------------------------------------------------------------------------------


@pytest.fixture
def said(make_cuts):
    """``said(languages, frames)``: cuts that say these languages."""

    def make(languages, frames=60, seed=0):
        cuts = make_cuts({f"c{seed}-{i}": (frames, "A") for i in range(len(languages))}, seed)
        cuts = list(cuts)
        for cut, language in zip(cuts, languages, strict=True):
            cut.supervisions[0].language = language
        return CutSet.from_cuts(cuts)

    return make


def test_speech_is_read_up_to_a_limit(said, caplog):
    cuts = said(["en", "fr", "en", None, "en", "fr"])
    read = read_speech(cuts, "train", max_seconds=1.0)
    assert read.languages == ["en", "fr", "en", "fr"]  # 0.6 s each
    assert "train: left out 1 cuts that say no language" in caplog.text
    short = read_speech(cuts, "dev", cut_seconds=0.25)
    assert {len(frames) for frames in short.features} == {25} and len(short.features) == 5
    assert torch.equal(short.features[0], read.features[0][:25])


def test_the_first_seconds_are_classified(said, classifier):
    cuts = said([None] * 12)
    options = DecodingOptions(language="auto", language_seconds=0.4, num_workers=0)
    found = classify_languages(classifier, cuts, options, ["fr", "en"], "test")
    x = torch.stack([torch.from_numpy(cut.load_features()) for cut in cuts])[:, :40]
    logits = classifier(x, torch.full((12,), 40))
    assert [found[cut.id] for cut in cuts] == choose(logits, LANGUAGES, ["fr", "en"])


@pytest.fixture
def learn_verb(said, tmp_path):
    """``learn_verb(*words)``: the exit status of the verb on sets train and dev."""

    def run(*words, train=("en", "fr") * 3, dev=("fr", "en")):
        said(train).to_file(tmp_path / "toy_cuts_train.jsonl.gz")
        said(dev, seed=1).to_file(tmp_path / "toy_cuts_dev.jsonl.gz")
        told = ["learn-languages", "--manifest-dir", tmp_path, "--corpus", "toy", "--dev-sets"]
        told += ["dev", "--output", tmp_path / "languages.pt", "--steps", "2", *words]
        return main([str(word) for word in told])

    return run


def test_the_verb_makes_a_file(learn_verb, tmp_path, caplog):
    caplog.set_level("INFO")
    assert learn_verb("--seed", "3", "--channels", "8", "--language-seconds", "0.3") == 0
    loaded = load_classifier(tmp_path / "languages.pt", ["en", "fr"], NUM_FEATURES)
    assert loaded.languages == ["en", "fr"] and loaded.options.channels == 8
    about = torch.load(tmp_path / "languages.pt", weights_only=True)["about"]
    assert (about["seed"], about["language_seconds"], about["seconds"]) == (3, 0.3, [1.5, 4.0])
    assert re.search(
        r"languages.pt: hears en, fr, .* the development cuts .* first 0.3 s", caplog.text
    )


@pytest.mark.parametrize(
    ("words", "train", "message"),
    [
        ((), ("en", "en"), r"--train-set train: its cuts are of 1 language\(s\) \(en\)"),
        ((), (None, None), r"its cuts are of 0 language\(s\) \(none is said\), so .* or set lang"),
        (("--steps", "0"), ("en", "fr"), "--steps 0: must be above 0"),
        (("--max-hours", "nan"), ("en", "fr"), "--max-hours nan: must be above 0"),
        (("--train-set", "other"), ("en", "fr"), "toy_cuts_other.jsonl.gz does not exist"),
    ],
)
def test_what_cannot_be_learnt_is_said(words, train, message, learn_verb, tmp_path, capsys):
    assert learn_verb(*words, train=train) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "languages.pt").exists()
