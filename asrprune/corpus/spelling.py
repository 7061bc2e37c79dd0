"""Texts by language: how much each weighs in a shared tokenizer, and whether it can be spelt."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asrprune.errors import UserError

if TYPE_CHECKING:
    from asrprune.corpus.tokenizer import Tokenizer

SHOWN = 40  # characters in a message: some scripts have thousands

Labelled = Sequence[tuple[str, str]]  # (language, text); "" where a cut does not say

log = logging.getLogger(__name__)


def balanced(texts: Labelled, balance: float) -> list[str]:
    """The texts, those of smaller languages several times.

    A language of n characters comes to weigh as n ** ``balance`` beside the others, as in the
    sampling of XLM (Conneau and Lample 2019, section 3.1). The largest comes once.

    :param balance: 1: as they are; 0: all languages alike.
    """
    sizes: Counter[str] = Counter()
    for language, text in texts:
        sizes[language] += len(text)
    if balance == 1 or len(sizes) < 2:
        return [text for _, text in texts]
    result = []
    for language, size in sizes.items():
        own = [text for other, text in texts if other == language]
        times = (max(sizes.values()) / size) ** (1 - balance)
        result += own * int(times) + own[: round(times % 1 * len(own))]
    return result


def check_spelling(
    tokenizer: "Tokenizer", trained: Labelled, others: Labelled, most: float, folder: Path
) -> None:
    """Check that a tokenizer knows the characters of every language.

    :param trained: texts to train on. A language that is not among them is judged by the others;
        one that is, by these alone, since what a test holds besides is the test's.
    :param most: share of a language's characters, 0 to 1, that may be unknown; of them is warned.
    :param folder: of the tokenizer, for the messages.
    :raises UserError: more are; names the language, the characters and the ways out.
    """
    counts: dict[str, Counter[str]] = {}
    known = {language for language, _ in trained}
    for language, text in (*trained, *(entry for entry in others if entry[0] not in known)):
        counts.setdefault(language, Counter()).update(text.replace(" ", ""))
    for language, characters in sorted(counts.items()):
        unknown = Counter({c: n for c, n in characters.items() if not tokenizer.knows(c)})
        if not unknown:
            continue
        share = unknown.total() / characters.total()
        what = (
            f"{folder} cannot spell {language or 'the texts'}: {_some(unknown)} "
            f"({unknown.total()} of {characters.total()} characters would be <unk>)"
        )
        if share > most:
            way_out = (
                "Train the tokenizer on these texts (no --bpe-model)"
                if language in known
                else f"Train on some {language} as well (--train-splits)"
            )
            raise UserError(
                f"{what}. {way_out}, or admit it: --max-unknown {math.ceil(share * 1e4) / 1e4}"
            )
        log.warning("%s", what)
    for language in sorted(known):
        characters = set().union(*(text for other, text in others if other == language)) - {" "}
        if strange := [c for c in characters if not tokenizer.knows(c)]:
            where = f"in the other sets of {language}" if language else "in the other sets"
            log.warning("%s cannot spell %s %s", folder, _some(strange), where)


def _some(characters: Iterable[str]) -> str:
    """Characters in Unicode's order, apart by spaces."""
    first = sorted(characters)
    return " ".join(first[:SHOWN]) + (f" … ({len(first)})" if len(first) > SHOWN else "")
