"""The page about data pruning: savings, who was kept, scores, and the hardest cuts to listen to."""

import logging
from typing import Any

from asrprune.data_pruning.record import Record
from asrprune.report.audio_clips import Clip, encode_clips
from asrprune.report.data import (
    DURATION,
    cycle_rows,
    kept_by_group,
    no_pruning,
    prunes,
    savings,
    score_rows,
    visit_rows,
)
from asrprune.report.data_plots import pictures
from asrprune.report.hardest import HardCut
from asrprune.report.hypotheses import Recognised, differences
from asrprune.report.page import MAX_BYTES, markup, render
from asrprune.scoring.wer import count_errors

log = logging.getLogger(__name__)


def data_page(record: Record, cuts: list[HardCut], recognised: Recognised, title: str) -> str:
    """Return the page of a run. It is smaller than `MAX_BYTES`, unless it lists very many cuts.

    Args:
        record: of the run.
        cuts: its hardest cuts.
        recognised: what a model recognises in them.
        title: the heading of the page.
    """
    drawn = {name: markup(svg) for name, svg in pictures(record).items()}
    drawn.setdefault("scores", "")
    silent = dict.fromkeys((cut.id for cut in cuts), Clip())
    values = {
        "title": title,
        "pruned": prunes(record),
        "no_pruning": no_pruning(record),
        "summary": _summary(record),
        "savings": _savings(record),
        "cycles": list(cycle_rows(record)),
        "groups": _groups(record, drawn),
        "visits": list(visit_rows(record)),
        "scores": list(score_rows(record)),
        "pictures": drawn,
        "about_model": _about(recognised),
    }
    page = render("data.html", cuts=_cells(cuts, recognised, silent), **values)
    room = MAX_BYTES - len(page.encode()) - 1000
    clips = encode_clips(cuts, room)
    page = render("data.html", cuts=_cells(cuts, recognised, clips), **values)
    if (size := len(page.encode())) > MAX_BYTES:
        log.warning("the page has %.1f MB. Fewer cuts make it smaller: --hardest", size / 1e6)
    return page


def _summary(record: Record) -> dict[str, str]:
    """Return what stands at the top of the page: name -> value."""
    found = {
        "cuts": f"{len(record.duration):,}",
        "hours of audio": f"{record.duration.sum(dtype=float) / 3600:,.2f}",
        "cycles planned": str(len(record.planned)),
    }
    if record.planned:
        found["policy"] = str(record.planned[-1].report.get("policy", ""))
    if prunes(record):
        saved = savings(record)
        found["audio trained on"] = _percent(saved.share)
        found["audio saved"] = _percent(1 - saved.share)
        found["ceiling of savings"] = _percent(1 - saved.ceiling)
    return found


def _savings(record: Record) -> str:
    saved = savings(record)
    text = (
        f"All cycles together train on {_percent(saved.share)} of the audio. Pruning every cycle "
        f"to its keep ratio would leave {_percent(saved.ceiling)}. So the run saves "
        f"{_percent(1 - saved.share)} of the seconds, and the ceiling is "
        f"{_percent(1 - saved.ceiling)}. Warm-up and anneal cycles train on everything. Time that "
        "is dropped inside of cuts is not counted here."
    )
    return text.replace(" %", "\u00a0%")  # a line does not end before the sign


def _groups(record: Record, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a picture and a table for each grouping that has either."""
    tables = kept_by_group(record)
    found = []
    for name in (DURATION, *record.groups):
        # a long table names its grouping, and says that it shows a part
        title = next((key for key in tables if key == name or key.startswith(f"{name} (")), name)
        rows = tables.get(title, [])
        if len(rows) > 1 or name in drawn:
            found.append({"name": name, "title": title, "rows": rows, "picture": drawn.get(name)})
    return found


def _about(recognised: Recognised) -> str:
    if recognised.note:
        return recognised.note
    return f"The model is {recognised.model}, with greedy search."


def _cells(
    cuts: list[HardCut], recognised: Recognised, clips: dict[str, Clip]
) -> list[dict[str, Any]]:
    """Return the values of each row of the table of the hardest cuts."""
    found = []
    for cut in cuts:
        row = {
            **{name: value for name, value in vars(cut).items() if name != "entry"},
            "clip": clips[cut.id],
            "note": recognised.notes.get(cut.id, ""),
            "pairs": None,
            "wrong": "",
            "errors": "",
        }
        if utterance := recognised.utterances.get(cut.id):
            counts = count_errors(utterance.ref, utterance.hyp)
            row["pairs"] = [(kind, words) for kind, *words in differences(utterance)]
            row["wrong"] = counts.errors
            row["errors"] = f"{counts.errors} of {counts.words}"
        found.append(row)
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
