"""Train and load tokenizers of word pieces (BPE) or characters.

Both types have the same interface, and mark the start of a word with ``▁``. Both write the file
``tokens.txt``, which sherpa-onnx reads: ``symbol id`` on each line. Ids: 0 ``<blk>``,
1 ``<sos/eos>``, 2 ``<unk>``.
"""

import argparse
import hashlib
import io
import logging
import re
import struct
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from asrprune.base.arguments import share
from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path, write_text
from asrprune.data.invisible import Tally, is_empty
from asrprune.data.lengths import TOO_LONG, Spoken, check_lengths, frames_of
from asrprune.data.manifests import parse_line, read_lines
from asrprune.data.spelling import EVALUATED, balanced, check_spelling
from asrprune.data_pruning.ids import utterance_id

BLANK, BOUNDARY, UNKNOWN = "<blk>", "<sos/eos>", "<unk>"
SPECIAL = (BLANK, BOUNDARY, UNKNOWN)
SILENT = (SPECIAL.index(BLANK), SPECIAL.index(BOUNDARY))
UNKNOWN_ID = SPECIAL.index(UNKNOWN)
WORD_START = "▁"
MADE_BY = "stage 4 (tokenizer)"

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune tokenizer``."""
    parser.add_argument("--manifest", type=Path, required=True, help="the training cuts")
    parser.add_argument("--type", choices=("bpe", "char"), default="bpe", help="kind of symbols")
    parser.add_argument("--vocab-size", type=int, default=500, help="symbols of a bpe tokenizer")
    parser.add_argument(
        "--bpe-model", type=Path, help="take this sentencepiece model instead of training one"
    )
    parser.add_argument(
        "--extend",
        type=Path,
        metavar="LANG_DIR",
        help="take the tokenizer of this folder, and append a symbol for each character of the "
        "training text that it cannot spell. Its own symbols keep their ids",
    )
    parser.add_argument(
        "--balance",
        type=share,
        default=1.0,
        help="how a bpe tokenizer weighs languages by their text: 1 as they are, 0 all alike",
    )
    parser.add_argument(
        "--max-unknown",
        type=share,
        default=EVALUATED,
        help="share of the characters, 0 to 1, that the tokenizer may not be able to spell, in a "
        f"set and language; {EVALUATED} at least of evaluation sets",
    )
    parser.add_argument(
        "--others",
        type=Path,
        nargs="*",
        default=[],
        help="cuts of evaluation sets, whose texts are checked",
    )
    parser.add_argument(
        "--subsampling", type=int, default=4, help="feature frames per encoder frame"
    )
    parser.add_argument(
        "--allow-rejected",
        type=share,
        default=0.0,
        help="share of the training utterances, 0 to 1, that may have more tokens than encoder "
        f"frames; the training leaves them out. {TOO_LONG:g} always may",
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="such as data/lang_bpe_500")


def main(args: argparse.Namespace) -> None:
    """Train a tokenizer on the texts of a cut set, or take an existing one; then check the texts.

    Each utterance counts once.

    Raises:
        UserError: Options contradict each other, or the texts cannot be spelt or are too long.
    """
    if args.bpe_model and args.type != "bpe":
        raise UserError(f"--bpe-model is of word pieces, and --type asks for {args.type}")
    if args.bpe_model and args.extend:
        raise UserError("--bpe-model and --extend both name a tokenizer to take: leave one out")
    utterances = read_utterances(args.manifest)
    labelled = [(utterance.language, utterance.text) for utterance in utterances]
    texts = [text for _, text in labelled]
    if args.bpe_model:
        adopt_bpe(args.bpe_model, args.out_dir)
    elif args.extend:
        extend(args.extend, texts, args.out_dir, args.type)
    elif args.type == "bpe":
        train_bpe(balanced(labelled, args.balance), args.vocab_size, args.out_dir)
    else:
        train_characters(texts, args.out_dir)
    tokenizer = load_tokenizer(args.out_dir)
    log.info("%s: %d symbols, digest %s", args.out_dir, tokenizer.vocab_size, tokenizer.digest)
    others = {
        split_of(path): [
            (utterance.language, utterance.text) for utterance in read_utterances(path)
        ]
        for path in args.others
    }
    given = bool(args.bpe_model or args.extend)
    try:
        check_spelling(tokenizer, labelled, others, args.max_unknown, args.out_dir, given)
        check_lengths(tokenizer, utterances, args.subsampling, args.allow_rejected)
    except UserError:
        (args.out_dir / "tokens.txt").unlink()  # no training may use this tokenizer
        raise


def normalise(text: str) -> str:
    """Return a text in NFC, with single spaces between words. ``▁`` counts as a space."""
    return " ".join(unicodedata.normalize("NFC", text).replace(WORD_START, " ").split())


class Tokenizer(ABC):
    """Base class of tokenizers: symbols and their ids. Each type has its own :meth:`encode`."""

    def __init__(self, symbols: list[str], digest: str):
        self.symbols = symbols
        self.digest = digest
        self.vocab_size = len(symbols)
        self.unk_id: int | None = UNKNOWN_ID
        self._ids = {symbol: index for index, symbol in enumerate(symbols)}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without blanks.

        Characters that the training text did not hold become ``<unk>``.
        """

    def knows(self, character: str) -> bool:
        """Return whether the tokenizer can spell a character."""
        return self.unk_id not in self.encode(character)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids. Blanks and sentence boundaries are left out.

        ``decode(encode(text)) == normalise(text)`` for texts of known characters.
        """
        text = "".join(self.symbols[index] for index in ids if index not in SILENT)
        return text.replace(WORD_START, " ").strip()


class CharacterTokenizer(Tokenizer):
    """Tokenizer with one symbol per character; ``▁`` stands for the space between words."""

    def encode(self, text: str) -> list[int]:
        """Return an id for each character of the normalised text."""
        spaced = normalise(text).replace(" ", WORD_START)
        return [self._ids.get(character, UNKNOWN_ID) for character in spaced]


class BpeTokenizer(Tokenizer):
    """Tokenizer of the word pieces of a sentencepiece model."""

    def __init__(self, symbols: list[str], digest: str, model: bytes):
        import sentencepiece

        super().__init__(symbols, digest)
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # models of icefall encode <blk> in a text as blank, and blank must never be a label
        self._finds_silent = not all(map(self._processor.is_control, SILENT))

    def encode(self, text: str) -> list[int]:
        """Return the ids of the word pieces of the normalised text."""
        ids = self._processor.encode(normalise(text))
        if self._finds_silent:
            return [UNKNOWN_ID if index in SILENT else index for index in ids]
        return ids


def load_tokenizer(lang_dir: str | Path) -> Tokenizer:
    """Load the tokenizer of a folder such as ``data/lang_bpe_500`` or ``data/lang_char``.

    Raises:
        UserError: Files are missing or damaged, or do not belong together.
    """
    lang_dir = Path(lang_dir)
    tokens, model = lang_dir / "tokens.txt", lang_dir / "bpe.model"
    if not tokens.exists():
        raise UserError(f"{tokens} does not exist; {MADE_BY} makes it")
    symbols = _read_symbols(tokens)
    digest = hashlib.blake2b(tokens.read_bytes(), digest_size=16)
    if not model.exists():
        if any(len(symbol) > 1 for symbol in symbols[len(SPECIAL) :]):
            raise UserError(f"{model} does not exist and {tokens} holds word pieces; run {MADE_BY}")
        return CharacterTokenizer(symbols, digest.hexdigest())
    content = model.read_bytes()
    digest.update(content)
    try:
        tokenizer = BpeTokenizer(symbols, digest.hexdigest(), content)
    except RuntimeError as error:
        raise UserError(f"{model} is no sentencepiece model; run {MADE_BY} again") from error
    if _pieces(content) != symbols:
        raise UserError(f"{model} and {tokens} do not belong together; run {MADE_BY} again")
    return tokenizer


def split_of(manifest: Path) -> str:
    """Return the name of the set whose cuts a manifest holds."""
    return manifest.name.partition("_cuts_")[2].partition(".")[0] or manifest.name


def read_utterances(manifest: Path) -> list[Spoken]:
    """Read the texts of a cut set. Copies of an utterance at other speeds do not count.

    Args:
        manifest: The cut manifest.

    Returns:
        The utterances that have a text, in the order of their first cuts.

    Raises:
        UserError: The manifest is missing, damaged, or holds no text.
    """
    found: dict[str, Spoken] = {}
    invisible = Tally()
    for number, line in enumerate(read_lines(manifest, "stage 3 (validate)"), 1):
        cut = parse_line(line, manifest, number)
        name = utterance_id(cut["id"])
        frames = frames_of(cut)
        if name in found:
            found[name] = found[name].shorter(frames)
            continue
        parts = cut.get("supervisions", [])
        text = normalise(" ".join(part.get("text") or "" for part in parts))
        language = (parts[0].get("language") or "") if parts else ""
        invisible.add(text, name)
        found[name] = Spoken(name, language, text, frames)
    utterances = [utterance for utterance in found.values() if not is_empty(utterance.text)]
    if not utterances:
        raise UserError(f"{manifest} holds no text to train a tokenizer on")
    if described := invisible.described():
        log.warning(
            "%s: the texts hold invisible characters, and the tokenizer learns them as letters: "
            "%s. Stage 1 removes such characters: --invisible-characters strip, or strip-all",
            manifest,
            described,
        )
    return utterances


def train_characters(texts: Iterable[str], out_dir: Path) -> None:
    """Write ``tokens.txt`` with each character of the normalised texts, in Unicode's order."""
    characters = set().union(*texts) - {" "}
    (out_dir / "bpe.model").unlink(missing_ok=True)  # left by another tokenizer
    _write_symbols(out_dir, [*SPECIAL, WORD_START, *sorted(characters)])


def train_bpe(texts: Iterable[str], vocab_size: int, out_dir: Path) -> None:
    """Train a BPE model, and write ``bpe.model`` and then ``tokens.txt``.

    The same texts give the same bytes.

    Args:
        texts: Normalised texts.
        vocab_size: Number of symbols, the three special symbols included.
        out_dir: The folder to write to.

    Raises:
        UserError: The texts cannot make so many symbols, or their characters alone need more.
    """
    _write_bpe(_bpe_model(texts, vocab_size), out_dir)


def adopt_bpe(path: Path, out_dir: Path) -> None:
    """Write ``bpe.model`` and ``tokens.txt`` of a model that was trained elsewhere, as in icefall.

    Raises:
        UserError: The model is missing, is no sentencepiece model, or does not begin with the
            pieces of ``SPECIAL``.
    """
    if not path.is_file():
        raise UserError(f"--bpe-model {path} does not exist")
    model = path.read_bytes()
    try:
        pieces = _pieces(model)
    except RuntimeError as error:
        raise UserError(f"--bpe-model {path} is no sentencepiece model") from error
    if tuple(pieces[: len(SPECIAL)]) != SPECIAL:
        raise UserError(
            f"--bpe-model {path}: its first pieces are {' '.join(pieces[: len(SPECIAL)])}, where a "
            f"transducer needs {' '.join(SPECIAL)}"
        )
    _write_bpe(model, out_dir)


def extend(lang_dir: Path, texts: Iterable[str], out_dir: Path, kind: str = "") -> None:
    """Write a tokenizer that has the symbols of another tokenizer, and can also spell new texts.

    Each character of the texts that the other tokenizer cannot spell becomes a symbol. The new
    symbols follow the symbols of the other tokenizer, in Unicode's order.

    Args:
        lang_dir: The folder of the other tokenizer.
        texts: Normalised texts.
        out_dir: The folder to write to.
        kind: The type of the other tokenizer, bpe or char. Empty: either type.

    Raises:
        UserError: The other tokenizer is missing, damaged or of another type, or the folders are
            the same.
    """
    if lang_dir.resolve() == out_dir.resolve():
        raise UserError(f"--extend {lang_dir} and --out-dir are the same folder. Name another one")
    tokenizer = load_tokenizer(lang_dir)
    characters = sorted(set().union(*texts) - {" "})
    new = [character for character in characters if not tokenizer.knows(character)]
    log.info(
        "%s: %d symbols of %s, and %d new: %s",
        *(out_dir, tokenizer.vocab_size, lang_dir, len(new), " ".join(new) or "none"),
    )
    model = lang_dir / "bpe.model"
    found = "bpe" if model.exists() else "char"
    if kind and kind != found:
        raise UserError(f"--extend {lang_dir} is of --type {found}, and --type asks for {kind}")
    if not model.exists():
        (out_dir / "bpe.model").unlink(missing_ok=True)  # left by another tokenizer
        _write_symbols(out_dir, [*tokenizer.symbols, *new])
        return
    _write_bpe(model.read_bytes() + b"".join(map(_piece, new)), out_dir)


def _piece(character: str) -> bytes:
    """Return a piece that can be appended to a sentencepiece model.

    A model is a protocol buffer. Field 1 holds its pieces, and repeated fields may be appended at
    the end. Of a piece, field 1 is the text and field 2 the score (float32). A piece of one
    character takes part in no merge, so its score does not matter.
    """
    text = character.encode()
    content = bytes([0x0A, len(text)]) + text + b"\x15" + struct.pack("<f", 0.0)
    return bytes([0x0A, len(content)]) + content


def _write_bpe(model: bytes, out_dir: Path) -> None:
    (out_dir / "tokens.txt").unlink(missing_ok=True)
    with atomic_path(out_dir / "bpe.model") as temporary:
        temporary.write_bytes(model)
    _write_symbols(out_dir, _pieces(model))


def _bpe_model(texts: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            control_symbols=[BLANK, BOUNDARY],  # no text is encoded as these
            unk_id=UNKNOWN_ID,
            unk_piece=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    return model.getvalue()


def _explain(message: str, vocab_size: int) -> str:
    """Return a clear message for an error of sentencepiece about the vocabulary size."""
    if found := re.search(r"value <= (\d+)", message):
        return (
            f"--vocab-size {vocab_size} is more than these texts can make; "
            f"the largest possible is {found[1]}"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"--vocab-size {vocab_size} is too small: the characters of these texts alone need "
            f"{found[1]} symbols; take more, or --type char"
        )
    return f"the tokenizer could not be trained: {message}"


def _pieces(model: bytes) -> list[str]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(len(processor))]


def _write_symbols(out_dir: Path, symbols: list[str]) -> None:
    lines = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
    write_text(out_dir / "tokens.txt", lines)


def _read_symbols(path: Path) -> list[str]:
    symbols = []
    for index, ended in enumerate(text_lines(path)):
        line = ended.rstrip("\n")
        symbol, _, number = line.rpartition(" ")
        if not symbol or number != str(index):
            raise UserError(f"{path}, line {index + 1}: expected 'symbol {index}', found {line!r}")
        symbols.append(symbol)
    if tuple(symbols[: len(SPECIAL)]) != SPECIAL:
        raise UserError(f"{path} does not begin with {' '.join(SPECIAL)}; run {MADE_BY} again")
    return symbols
