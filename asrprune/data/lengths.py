"""Check whether the text of a cut is too long for its audio: more tokens than encoder frames.

A transducer that learns from such a cut learns to emit several tokens at one frame. With the
topology ``modified`` there is no path at all. Stage 3 has no tokenizer yet and estimates the
minimum number of tokens. Stage 4 and the training count tokens.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asrprune.base.errors import UserError

if TYPE_CHECKING:
    from asrprune.data.tokenizer import Tokenizer

TOO_LONG = 0.1  # share of the training utterances that may always have texts that are too long
# Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo, Han, Yi: no spaces between words
_UNSPACED = re.compile(
    "[\u0e01-\u0e7f\u0e80-\u0eff\u0f40-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)

log = logging.getLogger(__name__)


class Spoken(NamedTuple):
    """An utterance: its text, and the length of its shortest copy."""

    id: str
    language: str  # empty: unknown
    text: str  # normalised
    frames: int | None  # feature frames of the shortest copy; None: unknown

    def shorter(self, frames: int | None) -> "Spoken":
        """Return the utterance with the length of a copy, if the copy is shorter."""
        if frames is None or (self.frames is not None and self.frames <= frames):
            return self
        return self._replace(frames=frames)


def encoder_frames(frames: int, subsampling: int) -> int:
    """Return the number of encoder frames for a number of feature frames; encoders round up."""
    return -(-frames // subsampling)


def least_tokens(text: str) -> int:
    """Estimate the minimum number of tokens of a text, as long as there is no tokenizer.

    A word has at least one token. In scripts without spaces between words, each character counts as
    one token, although a piece of a BPE tokenizer may hold several characters.
    """
    if text.isascii():
        return len(text.split())
    rest, characters = _UNSPACED.subn(" ", text)
    return characters + len(rest.split())


def exceeds(tokenizer: "Tokenizer", text: str, frames: int) -> bool:
    """Return whether a text has more tokens than encoder frames.

    Args:
        tokenizer: Makes the tokens.
        text: A transcript.
        frames: Encoder frames of the transcript's audio.
    """
    if text.isascii() and len(text) < frames:  # at most one token per character, and the first ▁
        return False
    return len(tokenizer.encode(text)) > frames


def frames_of(cut: Mapping[str, Any]) -> int | None:
    """Return the number of feature frames of a manifest entry of a cut; None without features."""
    features = cut.get("features")
    if not features:
        return None
    return round(cut["duration"] / features["frame_shift"])


def check_lengths(
    tokenizer: "Tokenizer", utterances: Sequence[Spoken], subsampling: int, allowed: float
) -> None:
    """Check that the texts of the training set are not too long for their audio.

    Args:
        tokenizer: Makes the tokens.
        utterances: The training set.
        subsampling: Feature frames per encoder frame.
        allowed: The share of the utterances that may have texts that are too long. The limit is at
            least ``TOO_LONG``.

    Raises:
        UserError: More texts are too long. The message names one utterance.
    """
    found = [
        utterance
        for utterance in utterances
        if utterance.frames is not None
        and exceeds(tokenizer, utterance.text, encoder_frames(utterance.frames, subsampling))
    ]
    if not found:
        return
    first = found[0]
    what = (
        f"{len(found)} of {len(utterances)} training utterances have more tokens than encoder "
        f"frames, such as {first.id} ({len(tokenizer.encode(first.text))} tokens, "
        f"{encoder_frames(first.frames or 0, subsampling)} frames)"
    )
    if len(found) > max(allowed, TOO_LONG) * len(utterances):
        share = -(-1000 * len(found) // len(utterances)) / 1000
        raise UserError(
            f"{what}. Check that the texts belong to the audio, take a tokenizer of longer pieces "
            f"(--vocab-size), or train without them: --allow-rejected {share}"
        )
    log.warning("%s. The training leaves them out", what)
