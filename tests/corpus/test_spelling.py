"""Shared tokenizers: languages weigh as asked for, and none is left unable to be spelt."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.arguments import Parser
from asrprune.corpus import tokenizer
from asrprune.corpus.manifests import to_line, write_lines
from asrprune.corpus.spelling import balanced
from asrprune.corpus.tokenizer import load_tokenizer, train_bpe
from asrprune.errors import UserError

LARGE = [("en", f"WORD{'ABCDE'[k % 5]} AND MORE OF IT") for k in range(800)]
SMALL = [("fr", f"ÉTÉ{'FGHIJ'[k % 5]} À NOËL") for k in range(40)]


def sizes(texts: list[str]) -> Counter:
    return Counter("fr" if "É" in text else "en" for text in texts for _ in text)


def test_languages_weigh_as_a_power_of_their_size():
    texts = [*LARGE, *SMALL]
    whole = sizes([text for _, text in texts])
    for balance in (0.0, 0.3, 0.5, 0.9):
        found = sizes(balanced(texts, balance))
        assert found["en"] == whole["en"]
        ratio = (whole["fr"] / whole["en"]) ** balance
        assert found["fr"] / found["en"] == pytest.approx(ratio, rel=0.03)
    assert balanced(texts, 1.0) == [text for _, text in texts]
    assert balanced(LARGE, 0.3) == [text for _, text in LARGE]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.text("XY", min_size=1)), min_size=1),
    st.floats(0, 1),
)
def test_every_text_is_there_at_least_once_and_in_order(texts, balance):
    found = balanced(texts, balance)
    assert not Counter(text for _, text in texts) - Counter(found)
    assert found == balanced(texts, balance)


def write_cuts(path: str, texts) -> str:
    entries = [
        {"id": f"u{k}", "supervisions": [{"text": text, "language": language}]}
        for k, (language, text) in enumerate(texts)
    ]
    with write_lines(path) as file:
        file.writelines(map(to_line, entries))
    return path


def run_verb(*words: str) -> None:
    parser = Parser()
    tokenizer.add_arguments(parser)
    tokenizer.main(parser.parse_args([*words, "--out-dir", "lang"]))


@pytest.fixture
def cuts(tmp_path, monkeypatch) -> list[str]:
    """Options that name training cuts in two languages and test cuts in three."""
    monkeypatch.chdir(tmp_path)
    train_bpe([text for _, text in LARGE], 40, Path("english"))
    others = write_cuts("test.jsonl.gz", [*LARGE[:5], ("fr", "ÇA"), ("pl", "ŻÓŁW")])
    return ["--manifest", write_cuts("train.jsonl.gz", [*LARGE, *SMALL]), "--others", others]


def test_a_small_language_gets_pieces_where_it_is_balanced(cuts):
    pieces = {}
    for balance in ("1", "0"):
        run_verb(*cuts[:2], "--vocab-size", "45", "--balance", balance)
        pieces[balance] = [s for s in load_tokenizer("lang").symbols if "É" in s and len(s) > 1]
    assert len(pieces["0"]) > len(pieces["1"])


def test_a_model_that_cannot_spell_a_language_is_refused(cuts, caplog):
    model = ("--bpe-model", "english/bpe.model", "--max-unknown")
    with pytest.raises(
        UserError, match=r"lang cannot spell fr: G H J L À É Ë \(224 of 360 c"
    ) as said:
        run_verb(*cuts[:2], *model, "0")
    assert "no --bpe-model" in str(said.value)
    share = str(said.value).split()[-1]
    assert not Path("lang/tokens.txt").exists()  # nothing can be trained with it
    run_verb(*cuts[:2], *model, share)
    assert "cannot spell fr" in caplog.text and Path("lang/tokens.txt").exists()
    with pytest.raises(UserError, match="--max-unknown"):
        run_verb(*cuts[:2], *model, str(float(share) - 0.0002))


def test_a_language_of_test_sets_alone_is_to_be_spelt_as_well(cuts, caplog):
    words = [*cuts, "--vocab-size", "60"]
    with pytest.raises(UserError, match=r"cannot spell pl: Ó Ł Ż.*Train on some pl as well"):
        run_verb(*words, "--max-unknown", "0")
    write_cuts("test.jsonl.gz", [("fr", "ÇA")])
    run_verb(*words, "--max-unknown", "0")
    assert "lang cannot spell Ç in the other sets of fr" in caplog.text


def test_shares_are_shares(capsys):
    for option in ("--balance", "--max-unknown"):
        with pytest.raises(SystemExit):
            run_verb("--manifest", "x", option, "1.5")
        assert "1.5 is not between 0 and 1" in capsys.readouterr().err


def test_a_script_of_many_letters_makes_no_long_message(cuts):
    write_cuts("train.jsonl.gz", [*LARGE, ("zh", "".join(map(chr, range(0x4E00, 0x4F00))))])
    with pytest.raises(UserError, match=r"cannot spell zh: 一 丁 .{75} … \(256\)"):
        run_verb(*cuts[:2], "--bpe-model", "english/bpe.model", "--max-unknown", "0")
