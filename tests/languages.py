"""The tiny corpus as if it were of several languages."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

LANGUAGES = ("en", "fr", "cy")  # of 18, 12 and 6 cuts


def in_languages(corpus: SimpleNamespace, folder: Path) -> SimpleNamespace:
    """A copy of the manifests in a folder, with a set for development of each language.

    Also ``dev-de``, of a language that is not trained, and ``dev-all``, of one a cut.
    """
    for path in corpus.manifests.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    cuts = read_lines(folder / "tones_cuts_train.jsonl.gz")
    for number, cut in enumerate(cuts):
        language = LANGUAGES[0 if number % 6 < 3 else 1 if number % 6 < 5 else 2]
        cut["supervisions"][0]["language"] = language
    write_lines(folder / "tones_cuts_train.jsonl.gz", cuts)
    cuts = read_lines(folder / "tones_cuts_dev.jsonl.gz")
    for language in (*LANGUAGES, "de"):
        for cut in cuts:
            cut["supervisions"][0]["language"] = language
        write_lines(folder / f"tones_cuts_dev-{language}.jsonl.gz", cuts)
    for cut, language in zip(cuts, "abcdef", strict=False):
        cut["supervisions"][0]["language"] = language
    write_lines(folder / "tones_cuts_dev-all.jsonl.gz", cuts)
    return SimpleNamespace(**{**vars(corpus), "manifests": folder})


def read_lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, entries: list[dict]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)
