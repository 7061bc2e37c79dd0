"""Times of trainings on several machines, brought to one pace."""

import pytest

from asrprune.base.environment import machine_id
from asrprune.compare.data_pruning.summary import Summary
from asrprune.compare.markup import about
from asrprune.compare.options import StudyOptions
from asrprune.compare.pace import at_one_pace, timed
from tests.compare.example_records import make_record

FIRST, SECOND, THIRD = ({"system": "Linux", "cores": "2", "id": name} for name in "abc")


def type_of(record):
    return record["method"]


def on(machine, method, seed, cpu, **more):
    """A training of 10 h, of so many CPU seconds."""
    times = {"cpu_seconds": cpu, "seconds": 1.2 * cpu, "epoch_seconds": cpu, "loading_seconds": 0.1}
    values = times | {"machine": machine} | more
    return make_record(method, 1.0 if method == "full" else 0.7, seed, [0.1] * 4, **values)


def test_times_are_scaled_to_the_machine_of_most_trainings():
    records = [
        on(FIRST, "full", 0, 100.0), on(FIRST, "easy", 0, 70.0), on(FIRST, "full", 1, 120.0),
        on(SECOND, "full", 2, 220.0), on(SECOND, "ours", 2, 143.0),
    ]  # fmt: skip
    before = [dict(record) for record in records]
    found = at_one_pace(records, type_of)
    assert records == before
    assert found[:3] == records[:3]
    assert [record["cpu_seconds"] for record in found[3:]] == pytest.approx([110.0, 71.5])
    assert found[4]["seconds"] == pytest.approx(1.2 * 71.5)
    assert found[4]["loading_seconds"] == pytest.approx(0.05)
    assert found[4] | {name: 0 for name in before[4] if "seconds" in name} == records[4] | {
        name: 0 for name in before[4] if "seconds" in name
    }


def test_the_scale_is_a_geometric_mean_over_types_of_training():
    records = [
        on(FIRST, "full", 0, 100.0), on(FIRST, "easy", 0, 50.0), on(FIRST, "hard", 0, 70.0),
        on(SECOND, "full", 1, 200.0), on(SECOND, "easy", 1, 25.0),
    ]  # fmt: skip
    found = at_one_pace(records, type_of)
    assert [record["cpu_seconds"] for record in found[3:]] == pytest.approx([200.0, 25.0])


def test_a_machine_without_a_common_type_has_no_times():
    records = [
        on(FIRST, "full", 0, 100.0), on(FIRST, "easy", 0, 50.0), on(FIRST, "full", 1, 100.0),
        on(SECOND, "ours", 0, 40.0), on(SECOND, "ours", 1, 40.0),
        on(THIRD, "easy", 1, 10.0, attempts=2),
    ]  # fmt: skip
    found = at_one_pace(records, type_of)
    assert [timed(record) for record in found] == [True] * 3 + [False] * 3
    assert found[3]["cpu_seconds"] is None and found[3]["hours"] == 10.0
    summary = Summary(records, "dev")
    assert summary.rows["ours", 0.7].time() is None
    assert summary.speed_up(summary.rows["ours", 0.7]) is None
    assert summary.speed_up(summary.rows["easy", 0.7]) == pytest.approx(2.0)


def test_a_speed_up_of_two_machines_is_that_of_each():
    fast, slow = ([on(m, "full", n, 100.0 * pace) for n in seeds] +
                  [on(m, "ours", n, 80.0 * pace) for n in seeds]
                  for m, pace, seeds in ((FIRST, 1, (0, 1, 2)), (SECOND, 1.5, (3, 4))))  # fmt: skip
    summary = Summary(fast + slow, "dev")
    assert summary.speed_up(summary.rows["ours", 0.7], "cpu_seconds") == pytest.approx(1.25)
    assert summary.rows["full", 1.0].time("cpu_seconds") == pytest.approx(100.0)
    # a method that only the slow machine ran is not slower for that
    others = [on(FIRST, "easy", n, 70.0) for n in (0, 1)]
    alone = [record for record in fast if record["method"] == "full"] + others + slow
    summary = Summary(alone, "dev")
    assert summary.rows["ours", 0.7].time("cpu_seconds") == pytest.approx(80.0)


def test_the_report_says_how_many_machines(tmp_path):
    options = StudyOptions.__new__(StudyOptions)
    options.synthetic = False
    one = about(options, [on(FIRST, "full", 0, 1.0)], 1)
    two = about(options, [on(FIRST, "full", 0, 1.0), on(SECOND, "full", 1, 1.0)], 2)
    assert "1 trainings on Linux, 2 cores;" in one
    assert "2 trainings on 2 machines: Linux, 2 cores;" in two


def test_the_id_of_a_machine_stays():
    assert machine_id() == machine_id() and len(machine_id()) == 8
