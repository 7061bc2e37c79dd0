"""A run whose page can be written, and a reader of pages."""

import io
import json
from base64 import b64decode
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import soundfile

from asrprune.data.manifests import read_lines, write_lines
from asrprune.data_pruning import record
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.plan import make_plan
from asrprune.data_pruning.scores import ScoreTable

EVIL = """A <B> & "C" 'D' </script><script>bad()</script>"""
STRANGE = {"id": """x"><img src=y>'&""", "text": EVIL, "speaker": "$a_{b}$ <i>"}
VOID = ("meta", "input", "img", "br", "link", "hr")


def record_run(folder: Path, manifest: Path, cycles: int = 5) -> Path:
    """Record a run that keeps the harder half of a manifest; a cut's score is 1 + its line.

    Returns the folder of the run.
    """
    index = CutIndex.from_manifest(manifest)
    options = DataPruningOptions(
        policy="hard", keep=0.5, unit="utterances", strata=0, max_age=0, anneal=0.2, detrend=False
    )
    scores, history = ScoreTable(len(index), detrend=False), History(len(index))
    record.write_index(folder / "pruning", index, str(manifest))
    for cycle in range(cycles):
        plan = make_plan(index, scores, options, 1, cycle, cycles, history)
        record.write_cycle(folder / "pruning", plan, scores, history)
        seen = np.flatnonzero(plan.keep)
        scores.add(seen, 1.0 + seen)
        scores.merge(scores.pending())
        history.advance(plan.keep, plan.freeze)
    record.write_end(folder / "pruning", cycles, scores, history)
    return folder


def with_strange_cut(manifest: Path, out: Path) -> Path:
    """Copy a manifest; its last cut, the hardest one, gets texts that look like HTML."""
    entries = [json.loads(line) for line in read_lines(manifest, "")]
    entries[-1]["id"] = STRANGE["id"]
    entries[-1]["supervisions"][0].update(text=STRANGE["text"], speaker=STRANGE["speaker"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_lines(out) as file:
        file.writelines(json.dumps(entry).encode() + b"\n" for entry in entries)
    return out


@dataclass
class Element:
    """An element of a page: its tag, attributes, and all text in it."""

    tag: str
    attributes: dict[str, str | None]
    parts: list = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text in it, words apart by one space."""
        return " ".join("".join(self.parts).split())


class Page(HTMLParser):
    """A page as a list of its elements; fails where elements are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, [one.tag for one in self._open]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append(Element(tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop().tag == tag, (tag, self.getpos())

    def handle_data(self, data):
        for element in self._open:
            element.parts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a tag with these attributes, in order; ``class_`` stands for class."""
        wanted = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            one
            for one in self.elements
            if one.tag == tag and wanted.items() <= one.attributes.items()
        ]


def samples_of(audio: Element) -> np.ndarray:
    """Decode the audio of a page's player."""
    head, _, data = audio.attributes["src"].partition(";base64,")
    assert head in ("data:audio/ogg", "data:audio/wav")
    samples, rate = soundfile.read(io.BytesIO(b64decode(data)), dtype="float32")
    assert rate == 16000
    return samples
