"""Whether a language that is added to trained pathways learns."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from asrprune.training.resume import resume
from tests.languages import in_languages, read_lines, write_lines
from tests.training.masked_cases import masked_config, trainer_of
from tests.training.test_pathways import average, masking

STILL = "predictor, joiner, norms and biases stand still, so symbols that are new never come out"


@pytest.fixture(scope="module")
def corpus(tiny_corpus, tmp_path_factory) -> SimpleNamespace:
    """The tiny corpus as if it were of three languages."""
    return in_languages(tiny_corpus, tmp_path_factory.mktemp("languages"))


def in_letters(corpus, folder: Path, letters: str, language: str | None) -> SimpleNamespace:
    """The corpus, its eight letters written as four: in one spelling or in another."""
    folder.mkdir()
    for path in corpus.manifests.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("train", "dev-en", "dev-de"):
        path = folder / f"tones_cuts_{name}.jsonl.gz"
        entries = read_lines(path)
        for entry in entries:
            segment = entry["supervisions"][0]
            spelt = [letters["ABCDEFGH".index(x) % 4] if x != " " else x for x in segment["text"]]
            segment["text"] = "".join(spelt)
            if language and name == "train":
                segment["language"] = language
        write_lines(path, entries)
    return SimpleNamespace(**{**vars(corpus), "manifests": folder})


@pytest.fixture(scope="module")
def added(corpus, tmp_path_factory):
    """``added(protect)``: the dev loss of a language whose letters are new, before and after."""
    folder = tmp_path_factory.mktemp("added")
    steps = {
        "data__batches": "monolingual",
        "data__max_duration": 14.0,
        "data__noise": {"cuts": ""},
        "data__spec_augment__probability": 0.0,
        "training__checkpoint_interval": 1000,
        "training__optimizer__lr": 1e-2,
        "training__epochs": 7,
    }
    first, then = (
        in_letters(corpus, folder / letters, letters, language)
        for letters, language in (("ABCD", None), ("EFGH", "de"))
    )
    pruning = masking(adapt=False)
    base = trainer_of(masked_config(first, pruning, data__dev=[], **steps), first, folder / "base")
    resume(base)
    assert base.run() == 0
    path = str(average(base.folder))

    def added(protect: bool) -> tuple[float, float]:
        own = masking(renewal="sensitivity", masks=path, protect=protect)
        options = {**steps, "training__init_from": path, "data__dev": ["dev-de"]}
        config = masked_config(then, own, **options)
        trainer = trainer_of(config, then, folder / f"protect {protect}")
        resume(trainer)
        trainer.masking.bank.name("de", 0.0)
        [before] = trainer.validate().values()
        trainer.masking.bank.delete("de")
        assert trainer.run() == 0
        [after] = trainer.validate().values()
        return before, after

    return added


@pytest.mark.parametrize(
    "protect", [False, pytest.param(True, marks=pytest.mark.xfail(strict=True, reason=STILL))]
)
def test_a_language_that_is_added_learns(protect, added):
    """It writes the same sounds in letters that the others never use."""
    before, after = added(protect)
    assert after < 0.5 * before
