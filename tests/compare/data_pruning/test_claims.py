"""Verdicts on records whose truth is known."""

from dataclasses import asdict

import numpy as np
import pytest

from asrprune.compare.data_pruning.claims import judge
from asrprune.compare.data_pruning.options import ClaimOptions
from asrprune.compare.data_pruning.summary import Summary
from asrprune.compare.rows import difference
from asrprune.compare.verdicts import compare
from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions
from asrprune.scoring.clusters import difference_of
from tests.compare.example_records import records_of


def summary(*groups):
    return Summary([record for group in groups for record in group], "dev")


FULL = records_of("full", 1.0, hours=20.0)
DROPS_TIME = asdict(DataPruningOptions(time=TimeDroppingOptions("point")))


def verdict(claim, *groups, margin=0.05):
    return judge(claim, summary(FULL, *groups), margin)


PARITY = ClaimOptions("as good", "parity", "easy", 0.7)


@pytest.mark.parametrize(
    "worse, spread, expected",
    [
        (0.0, 0.0005, "holds"),
        (-0.02, 0.0005, "holds"),  # better is as good as well
        (0.003, 0.0005, "holds"),  # of 10 %, a difference that does not count
        (0.02, 0.0005, "contradicted"),
        (0.005, 0.0005, "inconclusive"),  # worse, and perhaps by more than the margin
        (0.0, 0.2, "inconclusive"),
    ],
)
def test_parity(worse, spread, expected):
    found = verdict(PARITY, records_of("easy", 0.7, worse, spread=spread))
    assert found.verdict == expected, found
    assert "against full data; up to 0.50 does not count" in found.found
    assert 0 < float(found.could_show) < (0.5 if spread < 0.01 else 20)


def test_of_one_seed_nothing_is_concluded():
    for claim in (PARITY, ClaimOptions("better", "better", "easy", 0.7, ["full"])):
        found = verdict(claim, records_of("easy", 0.7, 0.02, seeds=1), records_of("full", 0.7))
        assert found.verdict == "inconclusive" and "(1 seed only)" in found.found


@pytest.mark.parametrize(
    "others, expected",
    [((0.01, 0.02), "holds"), ((0.01, -0.01), "contradicted"), ((0.01, 0.0), "inconclusive")],
)
def test_better_than_each(others, expected):
    claim = ClaimOptions("best", "better", "easy", 0.7, ["random", "hard"])
    rivals = [records_of(name, 0.7, worse) for name, worse in zip(claim.than, others, strict=True)]
    found = verdict(claim, records_of("easy", 0.7), *rivals)
    assert found.verdict == expected, found
    assert "against random; " in found.found and "against hard" in found.found


@pytest.mark.parametrize(
    "times, expected",
    [
        ([400, 405, 410], "holds"),  # of 720
        ([500, 505, 510], "contradicted"),
        ([300, 450, 700], "inconclusive"),
    ],
)
def test_faster(times, expected):
    claim = ClaimOptions("fast", "faster", "easy", 0.7, by=1.6)
    ours = records_of("easy", 0.7)
    for record, seconds in zip(ours, times, strict=True):
        record["seconds"] = seconds
    found = verdict(claim, ours)
    assert found.verdict == expected, found
    assert "ceiling of 2.00x" in found.found
    ours[0]["attempts"] = 2  # its time is of a part only
    found = verdict(claim, ours)
    assert found.verdict == "inconclusive" and "(2 seeds)" in found.found
    for record in ours:
        record["attempts"] = 2
    assert "can be compared" in verdict(claim, ours).found


def test_what_has_not_run():
    for claim in (PARITY, ClaimOptions("x", "better", "full", 1.0, ["easy"])):
        assert verdict(claim).found == "not run"
    assert judge(PARITY, summary(records_of("easy", 0.7)), 0.05).found == "not run"


def test_full_data_is_a_rival_at_every_keep_ratio():
    claim = ClaimOptions("better", "better", "easy", 0.7, ["full"])
    assert verdict(claim, records_of("easy", 0.7, -0.01)).verdict == "holds"


def test_nothing_is_concluded_from_one_speaker_or_without_spread():
    def cut(records, **values):
        return [{**record, **values} for record in records]

    one = {"speakers": {"s0": [100, 1000]}, "words": 1000, "errors": 100}
    for values, text in ((one, "1 speaker only"), ({}, "no spread")):
        full = cut(records_of("full", 1.0, spread=0.0), **values)
        easy = cut(records_of("easy", 0.7, spread=0.0), **values)
        found = judge(PARITY, summary(full, easy), 0.05)
        assert found.verdict == "inconclusive" and text in found.found


def test_the_margin_is_a_share_of_a_rate_that_varies_too():
    rows = summary(FULL, records_of("easy", 0.7, 0.003)).rows
    easy, full = rows["easy", 0.7], rows["full", 1.0]
    found = compare("full data", easy, full, 1, 0.05)
    errors, others = (
        np.array(
            [[wrong for wrong, _ in row.records[seed]["speakers"].values()] for seed in (0, 1, 2)]
        )
        for row in (easy, full)
    )
    assert found.beyond == difference_of(errors, 1.05 * others, np.full(40, 1000))
    assert found.tolerated == pytest.approx(0.05 * full.rate.value)
    assert found.estimate == difference_of(errors, others, np.full(40, 1000))


def test_rows():
    compressed = [
        records_of("full_compressed", keep, hours=20 * keep, epochs=9) for keep in (0.7, 0.5)
    ]
    pruned = records_of("easy", 0.7, hours=9.0, seeds=1)
    found = summary(FULL, *compressed, records_of("random", 0.7), pruned)
    row = found.rows["easy", 0.7]
    assert found.compressed(row) is found.rows["full_compressed", 0.5]  # 10 h are nearer to 9
    assert found.compressed(found.rows["full_compressed", 0.5]) is None
    named = summary(
        FULL, *compressed, pruned, records_of("full_9", 0.7, hours=9.1, epochs=9),
        records_of("full_fast", 0.7, hours=9.0),  # as many epochs as full data
        records_of("points", 0.7, hours=9.0, epochs=9, policy="full", data_pruning=DROPS_TIME),
    )  # fmt: skip
    assert named.compressed(row) is named.rows["full_9", 0.7]
    assert found.random(row) is found.rows["random", 0.7]
    assert found.ceiling(row) == pytest.approx(20 / 9) == pytest.approx(found.speed_up(row))
    assert difference(row, found.full)[1] == 1
    assert difference(found.full, found.full) is None
