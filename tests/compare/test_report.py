"""A report keeps what is around its tables, and what is committed is what the records say."""

import os
import re
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.compare.kinds import load_study
from asrprune.compare.report import (
    markdown,
    marks,
    read_records,
    save_records,
    write_report,
)
from tests.compare.command import written_part
from tests.compare.example_records import records_of

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("egs/*/*/conf/compare*.yaml"))


def test_the_report_keeps_what_is_around(done):
    study, cells, records = done
    path = Path(study.options.report)
    path.write_text("# Results\n\nBefore.\n")
    write_report(study, cells, records[:3])
    path.write_text(path.read_text() + "\nAfter.\n")
    write_report(study, cells, records)
    text = path.read_text()
    assert text.startswith("# Results\n\nBefore.\n\n## Comparison\n")
    assert text.endswith("\nAfter.\n")
    assert written_part(study.options) == markdown(study, cells, records)
    write_report(study, cells, records)
    assert path.read_text() == text
    path.write_text(text.replace(marks(study.options)[1], ""))
    with pytest.raises(UserError, match="is missing, or they are in the wrong order"):
        write_report(study, cells, records)


def test_records_are_in_the_order_of_the_grid_and_replaced(done):
    study, cells, records = done
    save_records(study, cells, records[::-1])
    strange = records_of("ucb", 0.5)
    again = {**records[4], "errors": 7}
    found = save_records(study, cells, [again, *strange, {**again, "set": "another"}])
    names = [study.cell_name(record) for record in found]
    assert names == [cell.name for cell in cells if cell.method != "random"]
    assert [r["errors"] for r in found if r["method"] == again["method"]][1] == 7
    assert read_records(study.options) == found == read_json(study.options.results)


def test_nothing_has_been_run(study):
    assert markdown(study(), study().cells(), []) == "Nothing has been run.\n"


@pytest.mark.parametrize("path", STUDIES, ids=[str(path.relative_to(ROOT)) for path in STUDIES])
def test_what_is_committed_is_what_the_records_say(path, monkeypatch):
    monkeypatch.chdir(path.parents[1])
    study = load_study(path)
    cells = study.cells()
    records = read_records(study.options)
    text = written_part(study.options)
    if not records:
        assert text is None
        return
    assert text == markdown(study, cells, records)
    assert not {record["synthetic"] for record in records} ^ {study.options.synthetic}
    for plot in re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE):
        assert os.path.getsize(plot)
    for record in records:
        sums = [sum(column) for column in zip(*record["speakers"].values(), strict=True)]
        assert sums == [record["errors"], record["words"]]
        kinds = ("insertions", "deletions", "substitutions")
        assert sum(record[kind] for kind in kinds) == record["errors"]
