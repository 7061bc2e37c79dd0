"""The record of a run comes back as it was written, and the report counts it right."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.data_pruning import record
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.plan import make_plan
from asrprune.data_pruning.scores import ScoreTable
from asrprune.report import data as report
from asrprune.report import data_plots as report_plots
from asrprune.report.hardest import hardest_cuts, hardest_rows

COUNT, CYCLES = 60, 5


@pytest.fixture
def run(tmp_path):
    """Five cycles of "hard" over 60 cuts, whose score is 1 + their number: folder, index, plans."""
    manifest = tmp_path / "cuts.jsonl.gz"
    with gzip.open(manifest, "wt") as file:
        for number in range(COUNT):
            supervision = {
                "id": "s", "text": f"WORD {number} | AND MORE", "speaker": f"speaker{number % 3}",
            }  # fmt: skip
            cut = {"id": f"cut-{number}", "duration": 1.0 + number / 10}
            file.write(json.dumps({**cut, "supervisions": [supervision]}) + "\n")
    index = CutIndex.from_manifest(manifest)
    options = DataPruningOptions(
        policy="hard", keep=0.5, unit="utterances", strata=0, max_age=0, anneal=0.2, detrend=False
    )
    scores, history = ScoreTable(len(index), detrend=False), History(len(index))
    folder = tmp_path / "exp" / "pruning"
    record.write_index(folder, index, str(manifest))
    plans = []
    for cycle in range(CYCLES):
        plan = make_plan(index, scores, options, 1, cycle, CYCLES, history)
        record.write_cycle(folder, plan, scores, history)
        seen = np.flatnonzero(plan.keep)
        scores.add(seen, 1.0 + seen)
        scores.merge(scores.pending())
        history.advance(plan.keep, plan.freeze)
        plans.append(plan)
    record.write_end(folder, CYCLES, scores, history)
    return folder.parent, index, plans, history


def test_a_record_comes_back(run):
    folder, index, plans, history = run
    found = record.read_record(folder / "pruning")
    assert [cycle.phase for cycle in found.cycles] == ["warmup", *["pruned"] * 3, "anneal", "end"]
    assert [cycle.report for cycle in found.planned] == [plan.report for plan in plans]
    for cycle, plan in zip(found.planned, plans, strict=True):
        assert (cycle.keep == plan.keep).all()
    assert (found.visits == history.visits).all()
    assert found.groups["speaker"][1] == index.groups["speaker"][1]
    assert np.isnan(found.cycles[0].last).all()
    assert found.cycles[-1].typical == pytest.approx(1.0 + np.arange(COUNT), rel=1e-3)


def test_the_report_counts(run):
    folder, _, plans, history = run
    found = record.read_record(folder / "pruning")
    hardest = list(hardest_rows(hardest_cuts(found, 3)))
    assert [row["cut"] for row in hardest] == ["cut-59", "cut-58", "cut-57"]
    assert hardest[0]["transcript"] == "WORD 59 | AND MORE" and hardest[0]["visits"] == CYCLES
    assert [row["visits"] for row in hardest_rows(hardest_cuts(found, COUNT))][-1] == 2
    visits = {row["cycles"]: row["cuts"] for row in report.visit_rows(found)}
    assert visits == {2: COUNT // 2, CYCLES: COUNT // 2}  # of "hard": never the easier half
    kept = report.kept_by_group(found)
    assert [row["kept"] for row in kept["duration"]] == ["0.0 %"] * 5 + ["100.0 %"] * 5
    assert sum(row["cuts"] for row in kept["duration"]) == COUNT
    by_speaker = {row["speaker"]: row["kept"] for row in kept["speaker"]}
    pruned = np.mean([plan.keep for plan in plans if plan.phase == "pruned"], axis=0)
    for number in range(3):
        assert by_speaker[f"speaker{number}"] == f"{100 * pruned[number::3].mean():.1f} %"
    shares = [row["cuts"] for row in report.cycle_rows(found)]
    assert shares == ["100.0 %", "50.0 %", "50.0 %", "50.0 %", "100.0 %"]


def test_the_hardest_cuts_are_named_where_the_manifest_has_others_too(run, tmp_path):
    """As where some languages are trained on, or cuts are left out that cannot be aligned."""
    folder, index, *_ = run
    manifest = tmp_path / "all.jsonl.gz"
    with gzip.open(tmp_path / "cuts.jsonl.gz", "rt") as file, gzip.open(manifest, "wt") as out:
        for number, line in enumerate(file):
            if number % 3 == 0:
                other = {**json.loads(line), "id": f"other-{number}"}
                out.write(json.dumps(other) + "\n")
            out.write(line)
    record.write_index(folder / "pruning", index, str(manifest))
    found = record.read_record(folder / "pruning")
    rows = [
        (row["cut"], row["transcript"], row["seconds"])
        for row in hardest_rows(hardest_cuts(found, 9))
    ]
    assert rows == [
        (f"cut-{n}", f"WORD {n} | AND MORE", f"{1 + n / 10:.2f}") for n in range(59, 50, -1)
    ]


@given(
    st.lists(st.sampled_from([1.0, 1.0, 1.0, 2.0, 2.5, 7.0]), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_classes_of_equal_durations(run, durations, draw):
    """Many cuts of one duration, or few cuts: no class is empty, and each has its own label."""
    folder, *_ = run
    found = record.read_record(folder / "pruning")
    keep = np.array([draw.random() < 0.5 for _ in durations])
    pruned = [replace(cycle, keep=keep) for cycle in found.cycles if cycle.phase == "pruned"]
    found = replace(found, cycles=pruned, duration=np.array(durations), groups={})
    rows = report.kept_by_group(found)["duration"]
    assert sum(row["cuts"] for row in rows) == len(durations)
    for row in rows:
        low, high = map(float, row["seconds"].split("–"))
        last = row is rows[-1]
        inside = [low <= d < high or (last and d == high) for d in durations]
        assert row["cuts"] == sum(inside) > 0
        assert row["kept"] == f"{100 * keep[inside].mean():.1f} %"
    labels, shares = report.kept_over_time(found)["duration"]
    assert shares.shape == (len(pruned), len(labels)) and len(labels) == len(rows)


def test_a_report_without_cuts_needs_no_manifest(run, tmp_path):
    folder, *_ = run
    (tmp_path / "cuts.jsonl.gz").unlink()
    assert cli.main(["report", "data", str(folder), "--hardest", "0"]) == 0


@pytest.mark.parametrize("most", [report.MAX_GROUPS, 2])
def test_who_is_kept_over_time(run, most, monkeypatch):
    monkeypatch.setattr(report, "MAX_GROUPS", most)
    folder, _, plans, _ = run
    kept = report.kept_over_time(record.read_record(folder / "pruning"))
    keep = np.array([plan.keep for plan in plans], dtype=float)  # (cycles, cuts)
    labels, shares = kept["duration"]  # ten classes of six cuts
    assert labels[0] == "1.0 s" and len(labels) == 10
    np.testing.assert_allclose(shares, keep.reshape(CYCLES, 10, 6).mean(2))
    by_speaker = keep.reshape(CYCLES, COUNT // 3, 3).mean(1)
    labels, shares = kept["speaker"]
    if most >= 3:
        assert labels == [f"speaker{number}" for number in range(3)]
        np.testing.assert_allclose(shares, by_speaker)
    else:
        assert labels[2] == "quantile 0.5"
        np.testing.assert_allclose(shares[:, [0, 2, 4]], np.sort(by_speaker, axis=1))


def test_the_verb_writes_tables_and_pictures(run, capsys):
    folder, *_ = run
    assert cli.main(["report", "data", str(folder), "--hardest", "2"]) == 0
    out = capsys.readouterr().out
    text = (folder / "pruning" / "report.md").read_text()
    assert out.startswith(text)
    assert (
        "## The 2 hardest cuts" in text and "WORD 58 / AND MORE" in text and "WORD 57" not in text
    )
    assert (folder / "pruning" / "report.png").read_bytes().startswith(b"\x89PNG")


def _without_pruning(folder, index, manifest, scores):
    """A record of two cycles that kept everything."""
    options, history = DataPruningOptions(), History(len(index))
    record.write_index(folder, index, manifest)
    for cycle in range(2):
        record.write_cycle(
            folder, make_plan(index, scores, options, 1, cycle, 2, history), scores, history
        )
        history.advance(np.ones(len(index), bool), False)
    record.write_end(folder, 2, scores, history)


@pytest.mark.parametrize("known", [True, False])
def test_a_run_without_pruning(known, run, tmp_path, capsys):
    """It says so in a line, and shows scores and the hardest cuts only."""
    _, index, *_ = run
    scores = ScoreTable(len(index), detrend=False)
    if known:
        scores.add(np.arange(COUNT), 1.0 + np.arange(COUNT))
        scores.merge(scores.pending())
    folder = tmp_path / "full"
    _without_pruning(folder / "pruning", index, str(tmp_path / "cuts.jsonl.gz"), scores)
    assert cli.main(["report", "data", str(folder), "--hardest", "1"]) == 0
    out = capsys.readouterr().out
    assert "pruned no data: all 60 cuts were trained on in each of the 2 cycles so far." in out
    assert "Kept by" not in out and "Visits" not in out
    assert ("WORD 59" in out) == known
    picture = folder / "pruning" / "report.png"
    assert picture.exists() == known and (str(picture) in out) == known


def test_pictures_have_axes_with_units_and_show_something(run, monkeypatch):
    folder, *_ = run
    found = record.read_record(folder / "pruning")
    shown, save = [], Figure.savefig

    def save_and_show(figure, *args, **options):
        shown.extend(figure.axes)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", save_and_show)
    report_plots.draw(found, folder / "report.png")
    titles = {axes.get_title(): axes for axes in shown if axes.get_title()}
    assert len(titles) == 4
    assert titles["Share of cuts kept, by duration"].get_ylabel() == "duration (s)"
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in titles.values())
    assert all(axes.has_data() for axes in titles.values())


def test_scores_over_the_cycles(run):
    folder, *_ = run
    rows = list(report.score_rows(record.read_record(folder / "pruning")))
    assert [row["cycle"] for row in rows] == [1, 2, 3, 4, 5]
    assert float(rows[0]["50 %"]) == pytest.approx(1 + (COUNT - 1) / 2)


def test_what_is_missing_is_named(run, tmp_path, capsys):
    folder, *_ = run
    assert cli.main(["report", "data", str(tmp_path / "nothing")]) == 1
    assert "No training has begun in this folder" in capsys.readouterr().err
    (tmp_path / "cuts.jsonl.gz").rename(tmp_path / "elsewhere.jsonl.gz")
    assert cli.main(["report", "data", str(folder)]) == 1
    assert "Run the report in the folder that the training ran in" in capsys.readouterr().err
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": "cut-59", "duration": 1.0}) + "\n")
    assert cli.main(["report", "data", str(folder)]) == 1
    assert "not the manifest that the training read: it lacks 29 of" in capsys.readouterr().err
    assert cli.main(["report", "data", str(folder), "--hardest", "0", "--plots", "0"]) == 0
    capsys.readouterr()
    path = folder / "pruning" / "cycle-002.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cycle-002.npz is damaged"):
        record.read_record(folder / "pruning")
