"""Verdicts on records whose truth is known."""

import pytest

from asrprune.compare.weight_pruning.claims import judge
from asrprune.compare.weight_pruning.costs import costs_of
from asrprune.compare.weight_pruning.options import ClaimOptions
from asrprune.compare.weight_pruning.summary import Summary
from tests.compare.weight_pruning.networks import (
    SEEDS,
    network_records,
    search_record,
    whole_comparison,
)


@pytest.fixture
def verdict(study):
    """Judge a claim by records of three seeds."""
    cells = study(grid=[{"methods": ["gradual", "supernet"], "seeds": SEEDS}]).cells()

    def judged(records, *, margin=0.05, **claim):
        options = ClaimOptions(claim="it is so", **claim)
        return judge(options, Summary(records, "dev"), cells, records, margin)

    return judged


@pytest.mark.parametrize(
    "worse, spread, expected",
    [
        ((0.0, 0.0), 0.0005, "holds"),
        ((0.003, -0.05), 0.0005, "holds"),  # of 10 %, a difference that does not count
        ((0.0, 0.02), 0.0005, "contradicted"),
        ((-0.05, 0.0), 0.05, "inconclusive"),
    ],
)
def test_no_worse_at_every_sparsity(worse, spread, expected, verdict):
    levels = (0.5, 0.8)
    records = [
        record
        for level, more in zip(levels, worse, strict=True)
        for method, rate in (("gradual", 0.0), ("supernet", more))
        for record in network_records(method, level, rate, spread=spread)
    ]
    claim = {"kind": "no_worse", "method": "supernet", "than": ["gradual"], "at": list(levels)}
    found = verdict(records, **claim)
    assert found.verdict == expected, found
    assert "against gradual at 0.5 (" in found.found and "against gradual at 0.8 (" in found.found
    assert 0 < float(found.could_show) < (1 if spread < 0.01 else 10)
    records = [record for record in records if record["seed"] < 2]
    few = verdict(records, **claim)
    assert few.verdict == "inconclusive" and "(2 seeds only)" in few.found


@pytest.mark.parametrize(
    "rates, expected",
    [((-0.01, -0.01), "holds"), ((-0.01, 0.02), "contradicted"), ((-0.01, 0.0), "inconclusive")],
)
def test_better_at_every_sparsity(rates, expected, verdict):
    records = [
        record
        for level, rate in zip((0.5, 0.8), rates, strict=True)
        for method, worse in (("gradual", 0.0), ("supernet", rate))
        for record in network_records(method, level, worse)
    ]
    found = verdict(records, kind="better", method="supernet", than=["gradual"], at=[0.5, 0.8])
    assert found.verdict == expected, found


def test_one_of_many_differences_contradicts_only_if_it_is_beyond_chance(verdict):
    """Just above zero by its interval of 95 %: alone a level says no, as one of 10 it does not."""
    levels = [n / 20 for n in range(10)]
    records = []
    for level in levels:
        records += network_records("one_shot", level)
        records += network_records("supernet", level, 0.0)
    for record in records:  # the last level: its seeds scatter, and are worse on the whole
        if record["method"] == "supernet" and record["sparsity"] == levels[-1]:
            for name, (wrong, words) in record["speakers"].items():
                record["speakers"][name] = [wrong + (20, 32, 26)[record["seed"]], words]
    claims = [
        {"kind": kind, "method": "supernet", "than": ["one_shot"], "at": at}
        for kind in ("no_worse", "better")
        for at in (levels[-1:], levels)
    ]
    found = [verdict(records, margin=0.01, **claim) for claim in claims]
    assert [one.verdict for one in found] == 2 * ["contradicted", "inconclusive"]


def test_what_is_the_same_network_is_no_difference(verdict):
    claim = {"kind": "no_worse", "method": "gradual", "than": ["one_shot"]}
    records = [*network_records("one_shot", 0.0), *network_records("one_shot", 0.5),
               *network_records("gradual", 0.5)]  # fmt: skip
    assert verdict(records, at=[0.0, 0.5], **claim) == verdict(records, at=[0.5], **claim)
    assert verdict(records, at=[0.5], **claim).verdict == "holds"
    found = verdict(records, at=[0.0], **claim)
    assert (found.verdict, found.found[:18]) == ("inconclusive", "nothing to compare")


def test_at_sparsity_0_gradual_is_the_dense_one(verdict):
    records = [
        *network_records("one_shot", 0.0),
        *network_records("gradual", 0.5),
        *network_records("supernet", 0.0, 0.02),
    ]
    found = verdict(records, kind="no_worse", method="supernet", than=["gradual"], at=[0.0])
    assert found.verdict == "contradicted" and found.found.startswith("+2.0")


@pytest.mark.parametrize(
    "seconds, expected", [(105.0, "holds"), (120.0, "contradicted"), (None, "inconclusive")]
)
def test_cost(seconds, expected, verdict):
    ours = network_records("supernet", 0.5, seconds=seconds or 100)
    if seconds is None:
        for record in ours:
            record["seconds"] *= (0.7, 1.0, 1.4)[record["seed"]]
    records = [*network_records("one_shot", 0.0), *network_records("one_shot", 0.5), *ours]
    claim = {"kind": "cost", "method": "supernet", "by": 1.1}
    found = verdict(records, **claim)
    assert found.verdict == expected, found
    assert "of the dense training" in found.found and found.could_show.startswith("factor ")
    ours[0]["attempts"] = 2  # its time is of a part only
    found = verdict(records, **claim)
    assert found.verdict == "inconclusive" and "(2 seeds)" in found.found
    assert verdict(records, measure="passes", **claim).verdict == "holds"


def test_a_search_is_part_of_what_its_networks_cost(verdict):
    search = search_record(0.2, seconds=30.0)
    records = [*network_records("one_shot", 0.0), *network_records("supernet", 0.5),
               *network_records("searched", 0.5, search=search)]  # fmt: skip
    claim = {"kind": "cost", "by": 1.1}
    assert verdict(records, method="supernet", **claim).found.startswith("1.000x")
    assert verdict(records, method="searched", **claim).found.startswith("1.297x")
    assert verdict(records, method="searched", **claim).verdict == "contradicted"


def test_what_has_not_run(verdict):
    records = network_records("supernet", 0.5)
    for kind in ("no_worse", "better"):
        found = verdict(records, kind=kind, method="supernet", than=["gradual"], at=[0.5])
        assert (found.verdict, found.found) == ("inconclusive", "not run")
    assert verdict(records, kind="cost", method="supernet").verdict == "inconclusive"


def test_costs(study):
    cells = study(grid=[{"methods": ["gradual", "supernet"], "seeds": SEEDS}]).cells()
    records = whole_comparison()
    dense, gradual, supernet, searched = (
        costs_of(method, cells, records) for method in ("dense", "gradual", "supernet", "searched")
    )
    assert {seed: cost.seconds for seed, cost in dense.items()} == {0: 100, 1: 101, 2: 102}
    assert costs_of("one_shot", cells, records) == dense
    # the dense one, and one for each sparsity
    assert gradual[1].trainings == 3 and gradual[1].seconds == 101 + 2 * 111
    assert gradual[1].passes == 3000
    assert (supernet[0].seconds, searched[0].seconds) == (105, 125)
    assert (supernet[0].evaluations, searched[0].evaluations) == (0, 36)
    assert searched[0].passes == supernet[0].passes == 1000
    del records[9]  # gradual at 0.5 with seed 0
    assert sorted(costs_of("gradual", cells, records)) == [1, 2]
    records = [r for r in records if (r["method"], r["seed"]) != ("searched", 1)]
    assert sorted(costs_of("searched", cells, records)) == [0, 2]  # that search is yet to come
    assert sorted(costs_of("supernet", cells, records)) == [0, 1, 2]
    records = network_records("supernet", 0.5, passes=900, teacher_passes=300)
    assert costs_of("supernet", cells, records)[0].passes == 1000
    records = network_records("supernet", 0.5, passes=None, attempts=2)
    cost = costs_of("supernet", cells, records)[0]
    assert cost.passes is cost.seconds is cost.cpu_seconds is None
