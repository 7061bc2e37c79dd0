"""What the networks of all sizes cost: which trainings count, and for which seeds."""

from asrprune.compare.weight_pruning.costs import costs_of
from tests.compare.weight_pruning.networks import network_records, search_record

INIT = "training.init_from={dense}"
FINAL = "weight_pruning.schedule.final=0.8"
GRADUAL = "weight_pruning.method=gradual"


def test_a_training_that_others_begin_with_counts_once_for_them(study):
    methods = {"supernet": [FINAL], "tuned": [GRADUAL, INIT], "late": [INIT]}
    cells = study(methods=methods, grid=[{"methods": ["tuned", "late"], "seeds": [0]}]).cells()
    records = [
        *network_records("one_shot", 0.0, seconds=100.0, seeds=1),
        *network_records("tuned", 0.5, training="tuned-0.5", seconds=20.0, seeds=1),
        *network_records("tuned", 0.8, training="tuned-0.8", seconds=30.0, seeds=1),
        *network_records("late", 0.0, training="late", seconds=40.0, seeds=1),
    ]
    tuned, late = costs_of("tuned", cells, records)[0], costs_of("late", cells, records)[0]
    assert (tuned.trainings, tuned.seconds) == (3, 150.0)
    assert (late.trainings, late.seconds) == (2, 140.0)


def test_every_way_that_trains_each_size_counts_the_dense_model(study):
    methods = {"supernet": [FINAL], "first": [GRADUAL, "weight_pruning.criterion=l1"]}
    cells = study(methods=methods, grid=[{"methods": ["gradual", "first"], "seeds": [0]}]).cells()
    records = [
        *network_records("one_shot", 0.0, seeds=1),
        *network_records("gradual", 0.5, seeds=1),
        *network_records("gradual", 0.8, seeds=1),
        *network_records("first", 0.5, training="first-0.5", seeds=1),
        *network_records("first", 0.8, training="first-0.8", seeds=1),
    ]
    for method in ("gradual", "first"):
        assert costs_of(method, cells, records)[0].trainings == 3
    assert costs_of("one_shot", cells, records)[0].trainings == 1


def test_a_seed_without_a_training_of_the_method_has_no_cost(study):
    grid = [
        {"methods": ["gradual"], "seeds": [0]},
        {"methods": ["supernet"], "seeds": [0, 1, 2]},
    ]
    cells = study(grid=grid).cells()
    records = [
        *network_records("one_shot", 0.0),
        *network_records("gradual", 0.5, seeds=1),
        *network_records("gradual", 0.8, seeds=1),
        *network_records("supernet", 0.0),
    ]
    assert list(costs_of("gradual", cells, records)) == [0]
    assert list(costs_of("supernet", cells, records)) == [0, 1, 2]


def test_a_search_in_a_supernet_that_begins_with_the_dense_model(study):
    cells = study(
        methods={"supernet": [FINAL, INIT]}, grid=[{"methods": ["supernet"], "seeds": [0]}]
    ).cells()
    records = [
        *network_records("one_shot", 0.0, seconds=100.0, seeds=1),
        *network_records("supernet", 0.0, seconds=40.0, seeds=1),
    ]
    assert costs_of("searched", cells, records) == {}  # the search has not been run
    records += network_records("searched", 0.5, seconds=40.0, search=search_record(0.2), seeds=1)
    assert costs_of("searched", cells, records)[0].seconds == 100.0 + 40.0 + 20.0
