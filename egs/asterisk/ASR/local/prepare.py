"""From Asterisk's prompts to utterances: the sets of each language, and what is left out of them.

run.sh calls it with the folder of the prompts for each split, such as train-fr. What it yields
becomes lhotse's manifests, data/manifests/asterisk_{recordings,supervisions}_<split>.jsonl.gz.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from prompts import Prompt, read_prompts

from asrprune.data.importers.script import run

TEST_SHARE = 0.2  # of the texts, where no sets are given
DEV_SHARE = 0.1  # of the training texts, where no development set is given

read = cache(read_prompts)


def utterances(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each prompt of a split, those that are left out with the reason."""
    name, _, language = split.partition("-")
    prompts = read(folder, (language,))
    has_dev = any(prompt.given == "dev" for prompt in prompts)
    for prompt in prompts:
        if prompt.language == language and set_of(prompt, has_dev) == name:
            yield {
                "id": prompt.name,
                "path": str(prompt.audio.absolute()),
                "text": prompt.text,
                "speaker": prompt.speaker,
                "language": prompt.language,
                "left_out": prompt.reason,
            }


def set_of(prompt: Prompt, has_dev: bool) -> str:
    """The set that a prompt is in: the given one, or one that its words alone decide.

    Args:
        has_dev: a development set is given, which gets no others.
    """
    name = prompt.given or ("test" if draw("test", prompt.text) < TEST_SHARE else "train")
    if name == "train" and not has_dev and draw("dev", prompt.text) < DEV_SHARE:
        return "dev"
    return name


def draw(what: str, text: str) -> float:
    """A number from 0 to 1 of a text, so that prompts of the same words go together."""
    if not text:
        return 1.0  # what has no words is listed with the training set
    digest = hashlib.sha256(f"{what} {text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


if __name__ == "__main__":
    run(utterances)
