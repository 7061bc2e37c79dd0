"""Stand-ins for the children of ``asrprune compare``, and for what it reads of them."""

import sys
from pathlib import Path

from asrprune import cli
from asrprune.compare import children
from asrprune.compare import verb as compare
from asrprune.compare.data_pruning.study import DataPruningStudy
from asrprune.compare.pathways.study import PathwaysStudy
from asrprune.compare.weight_pruning.grid import TABLES
from asrprune.compare.weight_pruning.study import WeightPruningStudy
from tests.compare.example_records import make_record, stamped
from tests.compare.pathways.comparison import example_record

CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))


def make_records(study, a_cell, config, progress):
    """Of a cell whose children wrote nothing but their calls."""
    record = make_record(
        a_cell.method, getattr(a_cell, "keep", 0.5), a_cell.seed, [0.1, 0.2], epochs=a_cell.epochs
    )
    record |= {name: progress["train"][name] for name in ("attempts", "machine")}
    return stamped(study, [a_cell], [record])


def make_networks_records(study, a_cell, config, progress):
    """Of a cell of a comparison of sparse models."""
    attempts = progress["train"]["attempts"]
    records = [
        {
            **make_record(network.method, 1.0, a_cell.seed, [0.1, 0.2], attempts=attempts),
            "sparsity": network.sparsity,
            "training": a_cell.name,
            "search": {} if network.method in TABLES else None,
        }
        for network in a_cell.networks
    ]
    return stamped(study, [a_cell], records)


def make_languages_records(study, a_cell, config, progress):
    """Of a cell of a comparison of models of several languages."""
    attempts = progress["train"]["attempts"]
    records = [
        {**example_record(a_cell, language), "attempts": attempts} for language in a_cell.languages
    ]
    return stamped(study, [a_cell], records)


def put_in_place(set_attribute):
    """:param set_attribute: ``setattr``, or pytest's, which takes them away again."""
    set_attribute(children, "CHILD", CHILD)
    set_attribute(DataPruningStudy, "draw", lambda study, records: None)
    set_attribute(DataPruningStudy, "make_records", make_records)
    set_attribute(WeightPruningStudy, "draw", lambda study, records: None)
    set_attribute(WeightPruningStudy, "sections", lambda study, cells, records: ["tables"])
    set_attribute(WeightPruningStudy, "make_records", make_networks_records)
    set_attribute(PathwaysStudy, "draw", lambda study, records: None)
    set_attribute(PathwaysStudy, "sections", lambda study, cells, records: ["tables"])
    set_attribute(PathwaysStudy, "make_records", make_languages_records)
    set_attribute(compare, "training_data_digest", lambda study, config: "digest")
    set_attribute(compare, "check_sets", lambda study, config, names: None)


if __name__ == "__main__":
    put_in_place(setattr)
    sys.exit(cli.main(sys.argv[1:]))
