"""Whether the text of a cut is too long for its audio: more tokens than encoder frames.

A transducer that learns such a cut learns to write several tokens at a frame, and with the topology
``modified`` there is no path at all. Stage 3 has no tokenizer yet and counts what each tokenizer
needs at least; stage 4 and the training count tokens.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asrprune.corpus.tokenizer import Tokenizer

# Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo, Han, Yi: no spaces between words
_UNSPACED = re.compile(
    "[\u0e01-\u0e7f\u0e80-\u0eff\u0f40-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)


def encoder_frames(frames: int, subsampling: int) -> int:
    """Return the number of encoder frames of a number of feature frames; encoders round up."""
    return -(-frames // subsampling)


def least_tokens(text: str) -> int:
    """Return how many tokens a text has at least, where there is no tokenizer yet.

    A word is a token or more. In scripts without spaces between words a character counts as one.

    Args:
        text: A transcript.

    Returns:
        The number of its words, or of its characters.
    """
    if text.isascii():
        return len(text.split())
    rest, characters = _UNSPACED.subn(" ", text)
    return characters + len(rest.split())


def exceeds(tokenizer: "Tokenizer", text: str, frames: int) -> bool:
    """Say whether a text has more tokens than there are encoder frames.

    Args:
        tokenizer: Makes the tokens.
        text: A transcript.
        frames: Encoder frames of its audio.

    Returns:
        True if it has.
    """
    if text.isascii() and len(text) < frames:  # a character is a token at most; one is the first ▁
        return False
    return len(tokenizer.encode(text)) > frames
