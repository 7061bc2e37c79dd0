"""Shared tokenizers: languages weigh as asked for, and none is left unable to be spelt."""

import io
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.data import tokenizer
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.spelling import Speller, balanced
from asrprune.data.tokenizer import load_tokenizer, train_bpe

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
    message = r"cannot spell the texts of test.jsonl.gz in pl: Ó Ł Ż.*Train on some pl as well"
    write_cuts("test.jsonl.gz", [*LARGE[:5], ("pl", "ŻÓŁW")])
    with pytest.raises(UserError, match=message):
        run_verb(*words, "--max-unknown", "0")
    write_cuts("test.jsonl.gz", [("fr", "ÇA"), *SMALL[:20]])
    run_verb(*words, "--max-unknown", "0")  # what a test set holds besides is the test's
    assert "lang cannot spell the texts of test.jsonl.gz in fr: Ç (1 of" in caplog.text
    write_cuts("test.jsonl.gz", [("fr", "ÇA"), *SMALL[:2]])
    with pytest.raises(
        UserError, match="texts of test.jsonl.gz in fr: Ç .*those of the training set"
    ):
        run_verb(*words, "--max-unknown", "0")


CAPITALS = [("", text) for text in ("ONE TWO", "THREE", "ONE FIVE", "SIX SEVEN")]
SMALL_LETTERS = [("", text.lower()) for _, text in CAPITALS]


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("way", ["capitals", "small", "cyrillic", "title"])
def test_a_test_set_in_other_letters_stops_before_the_training(kind, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained, tested = {
        "capitals": (SMALL_LETTERS, CAPITALS),
        "small": (CAPITALS, SMALL_LETTERS),
        "cyrillic": (CAPITALS, [("", "ОДИН")]),
        "title": (SMALL_LETTERS, [("", text.title()) for _, text in CAPITALS]),
    }[way]
    words = ("--manifest", write_cuts("c_cuts_train.jsonl.gz", trained * 9), "--type", kind)
    words += ("--vocab-size", "24", "--others", write_cuts("c_cuts_dev.jsonl.gz", trained))
    run_verb(*words)
    others = write_cuts("c_cuts_test.jsonl.gz", tested)
    with pytest.raises(UserError, match="lang cannot spell the texts of test: ") as caught:
        run_verb(*words, others)
    assert ("letters of the other case are known" in str(caught.value)) == (way != "cyrillic")
    assert not Path("lang/tokens.txt").exists()
    run_verb(*words, others, "--max-unknown", str(caught.value).split()[-1])


def test_a_given_model_of_capitals_is_refused_for_small_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_bpe([text for _, text in CAPITALS] * 9, 20, Path("capitals"))
    words = ("--bpe-model", "capitals/bpe.model")
    with pytest.raises(UserError, match="other case are known, such as E for e.*no --bpe-model"):
        run_verb("--manifest", write_cuts("c_cuts_train.jsonl.gz", SMALL_LETTERS), *words)
    run_verb("--manifest", write_cuts("c_cuts_train.jsonl.gz", CAPITALS), *words)


def foreign(path: str, texts: list[str], **options) -> str:
    """A model as icefall trains it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, minloglevel=2, unk_id=2, bos_id=-1,
        eos_id=-1, **{"user_defined_symbols": ["<blk>", "<sos/eos>"], **options},
    )  # fmt: skip
    Path(path).write_bytes(model.getvalue())
    return path


WORDS = [f"{a} {b}" for a in ("hello", "help", "yellow", "low") for b in ("well", "low", "hey")]


@pytest.mark.parametrize(
    "mark", ["<unk>", "<blk>", "<sos/eos>", "hey<unk>", "<noise>", "<s>", "[um]", "#0"]
)
def test_symbols_in_texts_are_never_trained_in_silence(mark, tmp_path, monkeypatch, caplog):
    """With our tokenizers and with those of others; and no text becomes a blank."""
    monkeypatch.chdir(tmp_path)
    texts = [("", f"{mark} {text}") for text in WORDS]
    words = ("--manifest", write_cuts("c_cuts_train.jsonl.gz", texts * 3))
    kinds = {
        "own": ("--vocab-size", "30"),
        "char": ("--type", "char"),
        "foreign": (
            "--bpe-model",
            foreign("a.model", WORDS, vocab_size=25, model_type="bpe"),
        ),
    }
    plain = mark.removeprefix("hey")
    for kind, options in kinds.items():
        caplog.clear()
        try:
            run_verb(*words, *options)
            assert f"the texts hold the symbols {plain} (36 times), which a model" in caplog.text
            ids = load_tokenizer("lang").encode(texts[0][1])
            assert load_tokenizer("lang").decode(ids) == texts[0][1]
            assert kind == "char" or plain in ("<noise>", "<s>", "[um]", "#0")
        except UserError as error:
            assert f"--drop-words '{plain}'" in str(error)
            run_verb(*words, *options, "--max-unknown", "1")
        assert not {0, 1} & set(load_tokenizer("lang").encode("<blk> hello <sos/eos><blk>"))


CHANGING = {
    "case": ({"normalization_rule_name": "nmt_nfkc_cf"}, "HELLO", r"HELLO \(which becomes 'hello'"),
    "nfkc": ({"normalization_rule_name": "nmt_nfkc"}, "ﬁve hel", r"ﬁve \(which becomes 'five'"),
    "bytes": ({"byte_fallback": True, "vocab_size": 290}, "élow", r"élow \(which becomes '<0x"),
}


@pytest.mark.parametrize("case", CHANGING)
def test_models_that_give_other_words_back_are_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, text, message = CHANGING[case]
    texts = [f"{word} five" for word in WORDS]
    model = foreign("a.model", texts, **{"vocab_size": 30, "model_type": "bpe", **options})
    train = write_cuts("c_cuts_train.jsonl.gz", [("", text) for text in texts])
    run_verb("--manifest", train, "--bpe-model", model)
    train = write_cuts("c_cuts_train.jsonl.gz", [("", text)])
    with pytest.raises(UserError, match=f"cannot spell the texts: the words {message}"):
        run_verb("--manifest", train, "--bpe-model", model)


def test_a_symbol_of_a_given_model_is_learnt_as_that_symbol(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    symbols = ["<blk>", "<sos/eos>", "<noise>"]
    model = foreign("a.model", WORDS, vocab_size=26, model_type="bpe", user_defined_symbols=symbols)
    texts = [("", f"{text} <noise>") for text in WORDS]
    run_verb("--manifest", write_cuts("c_cuts_train.jsonl.gz", texts), "--bpe-model", model)
    assert "noise" not in caplog.text


def write_lengths(texts: list[str], frames: list[int]) -> str:
    features = {"frame_shift": 0.01}
    entries = [
        {"id": f"u{k}{copy}", "supervisions": [{"text": text}], "features": features}
        | {"duration": round(0.01 * count * factor, 4)}
        for k, (text, count) in enumerate(zip(texts, frames, strict=True))
        for copy, factor in (("", 1.2), ("_sp1.1", 1.0))
    ]
    with write_lines("c_cuts_train.jsonl.gz") as file:
        file.writelines(map(to_line, entries))
    return "c_cuts_train.jsonl.gz"


def test_texts_of_more_tokens_than_frames_are_said_in_stage_4(tmp_path, monkeypatch, caplog):
    """Whatever the script, and of the shortest copy."""
    monkeypatch.chdir(tmp_path)
    texts = ["ABCDEFGHIJ", "กขคงจฉชซ", "ab" * 5, "你好世界你好世界", *["A"] * 26]
    enough = [40, 32, 40, 32, *[4] * 26]
    words = ("--type", "char", "--manifest")
    run_verb(*words, write_lengths(texts, enough))
    assert not caplog.text
    run_verb(*words, write_lengths(texts, [36, 28, 36, *enough[3:]]))
    assert "3 of 30 training utterances have more tokens than encoder frames, such as u0" in (
        caplog.text
    )
    assert "(10 tokens, 9 frames). The training leaves them out" in caplog.text
    with pytest.raises(UserError, match="4 of 30 .*belong to the audio.*--allow-rejected 0.134"):
        run_verb(*words, write_lengths(texts, [36, 28, 36, 28, *enough[4:]]))
    assert not Path("lang/tokens.txt").exists()
    run_verb(*words, "c_cuts_train.jsonl.gz", "--allow-rejected", "0.134")


class WholeTextsInCapitals:
    """A tokenizer that gives words back as they are, and texts of several words in capitals."""

    symbols, unk_id = ("x",), -1

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, ids):
        text = "".join(map(chr, ids))
        return text.upper() if " " in text else text


def test_changed_texts_are_a_share_of_all_characters():
    found = Speller(WholeTextsInCapitals()).spell(["a b c", "de"])
    assert found.changed == {"a b c": "A B C"}
    assert found.share == 3 / 5


def test_shares_are_shares(capsys):
    for option in ("--balance", "--max-unknown"):
        with pytest.raises(SystemExit):
            run_verb("--manifest", "x", option, "1.5")
        assert "1.5 is not between 0 and 1" in capsys.readouterr().err


def test_a_script_of_many_letters_makes_no_long_message(cuts):
    write_cuts("train.jsonl.gz", [*LARGE, ("zh", "".join(map(chr, range(0x4E00, 0x4F00))))])
    with pytest.raises(UserError, match=r"cannot spell zh: 一 丁 .{75} … \(256\)"):
        run_verb(*cuts[:2], "--bpe-model", "english/bpe.model", "--max-unknown", "0")
