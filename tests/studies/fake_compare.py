"""Stand-ins for the children of ``asrprune compare``, and for what it reads of them."""

import sys
from pathlib import Path

from asrprune import cli
from asrprune.config import save_config
from asrprune.studies import cell, children, compare
from tests.studies.example_records import make_record

CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))


def make_records(study, a_cell, config, folder, command, progress):
    """Of a cell whose children wrote nothing but their calls."""
    record = make_record(a_cell.method, a_cell.keep, a_cell.seed, [0.1, 0.2])
    record["attempts"] = progress["train"]["attempts"]
    save_config(config, folder / "config.yaml")
    return [record]


def put_in_place(set_attribute):
    """:param set_attribute: ``setattr``, or pytest's, which takes them away again."""
    set_attribute(children, "CHILD", CHILD)
    set_attribute(compare, "draw_plots", lambda study, records: None)
    set_attribute(cell, "make_records", make_records)
    set_attribute(cell, "training_data_digest", lambda study, config: "digest")


if __name__ == "__main__":
    put_in_place(setattr)
    sys.exit(cli.main(sys.argv[1:]))
