"""Read the utterances of the corpus: the one file to write, where no importer of run.sh fits.

run.sh calls it with the folder download/ for each split. What it yields becomes lhotse's manifests,
data/manifests/mycorpus_{recordings,supervisions}_<split>.jsonl.gz. As it is, it reads tables:
download/train.tsv, download/dev.tsv and download/test.tsv.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asrprune.data.importers.script import run
from asrprune.data.importers.tables import read_rows


def utterances(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each utterance of a split.

    Such as {"path": "wav/anna/1.wav", "text": "good morning", "speaker": "anna"}. Needed are path,
    from the folder on, and text. Optional are id, speaker, language, start and end (or duration)
    in seconds where a file holds many utterances, and channel, from 0. A row with a reason in
    left_out, such as "noise", is counted and listed, and not used.
    """
    yield from read_rows(folder / f"{split}.tsv")


if __name__ == "__main__":
    run(utterances)
