"""A comparison of costs at equal error rates: its cells, its report, its verdicts."""

import re

import pytest

from asrprune.base.errors import UserError
from asrprune.base.files import write_json
from asrprune.compare.kinds import study_from
from asrprune.compare.report import markdown
from asrprune.compare.time_to_wer.options import CostClaimOptions
from asrprune.compare.time_to_wer.summary import Summary
from asrprune.compare.time_to_wer.tables import judge
from asrprune.compare.verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE
from tests.compare.command import Command
from tests.compare.conftest import FakeCorpus, study_of
from tests.compare.example_records import make_record, stamped

HALF = ["data_pruning.policy=easy", "data_pruning.keep=0.5"]


def make_study(tmp_path, **options):
    """A comparison of full data and two methods, at three lengths with three seeds."""
    config = tmp_path / "config.yaml"
    config.write_text("data: {corpus: tones}\n")
    grid = [{"methods": ["full", "half", "late"], "epochs": [20, 5, 10], "seeds": [0, 1, 2]}]
    values = {
        "kind": "time_to_wer", "config": str(config), "manifest_dir": "m", "lang_dir": "l",
        "test_sets": ["dev"], "exp_dir": "exp", "results": str(tmp_path / "results.json"),
        "report": str(tmp_path / "RESULTS.md"), "methods": {"half": HALF, "late": HALF},
        "grid": grid, **options,
    }  # fmt: skip
    return study_from(values)


def records_of(study):
    """Of known curves: half costs half of full data at each error rate; late is always worse."""
    speed = {"full": 1.0, "half": 2.0, "late": 1.0}
    worse = {"full": 1.0, "half": 1.0, "late": 1.6}
    records = []
    for cell in study.cells():
        rate = 0.4 * worse[cell.method] / cell.epochs**0.5
        rates = [rate * (1 + 0.01 * cell.seed) * (0.5 + n / 20) for n in range(20)]
        hours = cell.epochs / speed[cell.method]
        more = {
            "epochs": cell.epochs,
            "padding": 0.04,
            "loading_seconds": hours,
            "epoch_seconds": 30 * hours,
            "steps": 100 * cell.epochs,
        }
        records.append(make_record(cell.method, 0.5, cell.seed, rates, hours, **more))
    return stamped(study, study.cells(), records)


def test_cells(tmp_path):
    cells = make_study(tmp_path).cells(["data.dev=[]"])
    assert [cell.name for cell in cells[:4]] == [
        "full-5epochs-seed0", "half-5epochs-seed0", "late-5epochs-seed0", "full-10epochs-seed0",
    ]  # fmt: skip
    assert len(cells) == len({cell.name for cell in cells}) == 27
    full, half = cells[:2]
    assert full.overrides == ("data.dev=[]", "seed=0", "data_pruning=full", "training.epochs=5")
    assert half.overrides == ("data.dev=[]", "seed=0", *HALF, "training.epochs=5")
    assert cells[-1].seed == 2 and cells[-1].epochs == 20


def test_the_report(tmp_path):
    claims = [{"claim": "half is twice as fast", "method": "half", "by": 1.9}]
    study = make_study(tmp_path, claims=claims)
    text = markdown(study, study.cells(), records_of(study))
    assert "27 trainings" in text and "missing" not in text.lower()
    [line] = re.findall(r"\| half \| 2.00x .*\n", text)[:1]
    assert line.count("2.00x") == 3
    late = re.findall(r"\| late \|.*x.*\n", text)[0]
    assert "< 1.00x" in late  # full data's longest is out of its reach
    assert "| half is twice as fast | **holds** | 2.00x [" in text
    assert "| half | 20 | 3 | 8.8" in text
    assert "| 4 % | 3 % | 60 |" in text
    study.draw(records_of(study))
    for axis in ("cpu_seconds", "hours"):
        assert (tmp_path / f"results-{axis}.png").read_bytes().startswith(b"\x89PNG")


def test_verdicts(tmp_path):
    study = make_study(tmp_path)
    summary = Summary(records_of(study), "dev")

    def verdict(method, by, epochs=0, measure="cpu_seconds"):
        return judge(CostClaimOptions("", method, epochs, measure, by), summary).verdict

    assert verdict("half", 1.9) == verdict("half", 1.9, 5) == HOLDS
    assert verdict("half", 1.9, measure="hours") == HOLDS
    assert verdict("half", 2.2) == CONTRADICTED
    # full data's longest training costs as much as that of late, which does not reach its rate
    assert verdict("late", 1.1) == CONTRADICTED and verdict("late", 0.9) == INCONCLUSIVE
    claim = CostClaimOptions("", "half", 0, "cpu_seconds", 1.9)
    assert judge(claim, summary, {"late"}).verdict == HOLDS
    for gone in ("half", "full"):
        found = judge(claim, summary, {gone})
        assert found.verdict == INCONCLUSIVE and "some trainings are missing" in found.found
    one_seed = Summary([r for r in records_of(study) if r["seed"] == 0], "dev")
    found = judge(CostClaimOptions("", "half", 0, "cpu_seconds", 1.5), one_seed)
    assert found.verdict == INCONCLUSIVE and "(1 seed only)" in found.found
    assert judge(CostClaimOptions("", "half"), Summary([], "dev")).found == "not run"
    assert judge(CostClaimOptions("", "half", 99), summary).found == "not run"


def test_times_of_stopped_trainings_do_not_count(tmp_path):
    study = make_study(tmp_path)
    records = records_of(study)
    stopped = [
        {**r, "attempts": 2, "cpu_seconds": 1.0}
        if (r["method"], r["epochs"], r["seed"]) == ("half", 10, 0)
        else r
        for r in records
    ]
    ratios = [Summary(some, "dev").ratios("half", "cpu_seconds") for some in (records, stopped)]
    assert ratios[1][10].value == pytest.approx(ratios[0][10].value)
    all_stopped = [{**r, "attempts": 2} if r["method"] == "half" else r for r in records]
    assert Summary(all_stopped, "dev").ratios("half", "cpu_seconds") == {}
    assert Summary(all_stopped, "dev").ratios("half", "hours")[10].value == pytest.approx(
        2, rel=0.01
    )


def test_bounds_leave_out_stopped_trainings(tmp_path):
    study = make_study(tmp_path)
    stopped = [
        {**r, "attempts": 2, "cpu_seconds": 1.0} if r["method"] == "late" and not r["seed"] else r
        for r in records_of(study)
    ]
    texts = [markdown(study, study.cells(), some) for some in (records_of(study), stopped)]
    lines = [re.findall(r"\| late \|.*x.*\n", text)[0] for text in texts]
    assert "< 1.00x" in lines[0] and lines[0] == lines[1]


def test_trainings_of_another_comparison_are_not_run_again(tmp_path, monkeypatch, capsys):
    values = study_of(tmp_path, FakeCorpus(tmp_path))
    first = Command(tmp_path, values, monkeypatch, capsys)
    first.run()
    trained = {record["method"]: record for record in first.records()}
    assert trained["full"]["epochs"] == trained["easy"]["epochs"] == 4
    shorter = trained["full_compressed"]["epochs"]
    first.calls()
    lengths = {"methods": ["full", "half"], "epochs": [shorter, 4], "seeds": [0]}
    (tmp_path / "second").mkdir()
    more = {
        "kind": "time_to_wer", "results": str(tmp_path / "second" / "results.json"),
        "methods": {"half": ["data_pruning.keep=0.5", "data_pruning.policy=easy"]},
        "grid": [lengths], "reuse": [values["results"]],
    }  # fmt: skip
    second = Command(tmp_path, values | more, monkeypatch, capsys)
    second.run()
    assert list(second.calls()) == [f"half-{shorter}epochs-seed0"]
    found = {(r["method"], r["epochs"]): r for r in second.records()}
    assert len(found) == 4
    assert found["half", 4] == trained["easy"] | {"method": "half"}
    assert found["full", shorter] == trained["full_compressed"] | {"method": "full", "keep": 1.0}
    second.run()
    assert second.calls() == {} and len(second.records()) == 4
    changed = [record | {"avg": 7} for record in first.records()]
    write_json(values["results"], changed)  # no training of today
    second.run()
    assert len(second.calls()) == 3
    second.write(reuse=["nowhere.json"])
    assert "reuse: nowhere.json does not exist. Run the comparison" in second.run(code=1)


def test_the_last_seed_of_another_machine_is_trained_here_too(tmp_path, monkeypatch, capsys):
    """Else nothing would tell the pace of one machine from that of the other."""
    values = study_of(tmp_path, FakeCorpus(tmp_path))
    first = Command(tmp_path, values, monkeypatch, capsys)
    first.run()
    first.calls()
    both = [
        {**record, "seed": seed, "machine": {**record["machine"], "id": "another"}}
        for record in first.records() if record["epochs"] == 4 for seed in (0, 1)
    ]  # fmt: skip
    for record in both:
        record["command"] = record["command"].replace("seed=0", f"seed={record['seed']}")
    write_json(values["results"], both)
    (tmp_path / "second").mkdir()
    more = {
        "kind": "time_to_wer", "results": str(tmp_path / "second" / "results.json"),
        "methods": {"half": ["data_pruning.keep=0.5", "data_pruning.policy=easy"]},
        "grid": [{"methods": ["full", "half"], "epochs": [2, 4], "seeds": [0, 1]}],
        "reuse": [values["results"]],
    }  # fmt: skip
    second = Command(tmp_path, values | more, monkeypatch, capsys)
    second.run()
    names = [f"{method}-4epochs-seed{seed}" for method in ("full", "half") for seed in (0, 1)]
    assert set(second.calls()) & set(names) == {"full-4epochs-seed1", "half-4epochs-seed1"}
    ids = {(r["method"], r["epochs"], r["seed"]): r["machine"]["id"] for r in second.records()}
    assert [key for key, where in ids.items() if where == "another"] == [
        ("full", 4, 0), ("half", 4, 0),
    ]  # fmt: skip
    second.run()
    assert second.calls() == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"methods": {"full": []}}, "methods.full is always there"),
        ({"grid": [{"methods": ["full", "haf"], "epochs": [1, 2], "seeds": [0]}]}, "'haf'.*'half'"),
        ({"grid": [{"methods": ["full"], "epochs": [], "seeds": [0]}]}, "each part needs"),
        ({"grid": [{"methods": ["full"], "epochs": [0, 1], "seeds": [0]}]}, "epochs are 1 or more"),
        ({"grid": [{"methods": ["full"], "epochs": [3], "seeds": [0]}]}, "needs two lengths"),
        ({"claims": [{"claim": "c", "method": "full"}]}, "claims: c: unknown method 'full'"),
        ({"claims": [{"claim": "c", "method": "half", "epochs": 7}]}, "epochs=7: .*5, 10, 20"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make_study(tmp_path, **options)
