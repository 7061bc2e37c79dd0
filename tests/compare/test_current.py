"""Records that were made in another way than today's are not judged with the others."""

import shlex

import pytest

from asrprune.base.files import read_json, write_json
from asrprune.compare.current import changed, divide, inputs
from asrprune.compare.measured import digest_of_config
from asrprune.compare.report import markdown, read_records, save_records

OTHERS = {
    "command": "asrprune train --config other.yaml",
    "data": "other",
    "epochs": 99,
    "avg": 2,
    "decoding_method": "fast_beam_search",
}


@pytest.mark.parametrize("name", OTHERS)
def test_outdated_records_are_said_to_be_missing_and_dropped(name, done):
    study, cells, records = done
    old = {**records[1], name: OTHERS[name]}
    mixed = [records[0], old, *records[2:]]
    rest = [records[0], *records[2:]]
    text = markdown(study, cells, mixed)
    said = f"other options or data than today's**: {cells[4].name}."
    assert old["seed"] == 1 and cells[4].name == study.cell_name(old)
    assert said in text and text.replace("4 of 12", "").count(cells[4].name) == 2
    without = markdown(study, cells, rest)
    assert [line for line in text.splitlines() if said not in line][:1] == without.splitlines()[:1]
    assert text.partition(said)[2] == without.partition(f"{cells[10].name}.")[2]
    assert save_records(study, cells, mixed) == read_records(study.options)
    assert divide(study, cells, read_records(study.options)) == (
        divide(study, cells, rest)[0],
        [],
    )


def test_the_data_is_that_of_most_unless_it_is_known(done):
    study, cells, records = done
    others = [{**record, "data": "other"} for record in records[:2]]
    fresh, outdated = divide(study, cells, [*others, *records[2:]])
    assert len(fresh) == 7 and len(outdated) == 2
    fresh, outdated = divide(study, cells, [*others, *records[2:]], "other")
    assert {record["data"] for record in fresh} == {"other"} and len(outdated) == 7
    assert divide(study, cells, []) == ([], [])


def test_words_in_another_order_or_folder_make_the_same_training(done):
    study, cells, records = done
    words = shlex.split(records[0]["command"])
    changes = [word for word in words if "=" in word]
    options = [word for word in words if "=" not in word]
    options[options.index("--exp-dir") + 1] = "elsewhere"

    def same(words):
        record = {**records[0], "command": shlex.join(words)}
        return not changed(study, cells[0], record, {})

    assert same([*options, *changes[::-1]]) and not same([*options, *changes[1:]])
    assert not same([*options, *changes, "seed=7"]) and not same(options[:-2])


def test_a_preset_that_changed_outdates_its_records(done):
    study, cells, records = done
    was = records[0]["data_pruning"]
    assert not changed(study, cells[0], records[0], {})
    for now in (was | {"keep": 0.9}, was | {"time": was["time"] | {"drop_ratio": 0.5}}):
        record = {**records[0], "data_pruning": now}
        assert changed(study, cells[0], record, {}) == ["data_pruning"]


def test_records_of_another_configuration_or_test_set_are_outdated(done, tmp_path):
    study, cells, records = done
    valid = tmp_path / "valid"
    valid.mkdir()

    def set_digests(**digests):
        sets = {name: {"digest": digest} for name, digest in digests.items()}
        write_json(valid / "tones_statistics.json", {"eval": sets})
        return inputs(study, cells[0])

    assert list(inputs(study, cells[0])) == ["the configuration file"]  # there is no data yet
    now = set_digests(dev="a")
    older, _ = divide(study, cells, records)  # nothing is known against them
    assert len(older) == len(records)
    records = [{**record, "inputs": now} for record in older]
    assert divide(study, cells, records) == (records, [])
    assert changed(study, cells[0], records[0], set_digests(dev="b")) == ["set dev"]
    assert divide(study, cells, records)[0] == []
    set_digests(dev="a", other="c")  # a set that is new
    assert divide(study, cells, records)[0] == records
    config = tmp_path / "tiny.yaml"
    config.write_text(config.read_text().replace("joiner_dim: ", "joiner_dim: 1"))
    assert changed(study, cells[0], records[0], inputs(study, cells[0])) == [
        "the configuration file"
    ]


def test_what_counts_in_a_configuration_file(tmp_path):
    def digest(text):
        (tmp_path / "config.yaml").write_text(text)
        return digest_of_config(tmp_path / "config.yaml")

    first = digest("model: {joiner_dim: 8}\ntraining: {seed: 1}\n")
    assert (
        digest("# a comment\ntraining: {seed: 1, log_interval: 7}\nmodel: {joiner_dim: 8}") == first
    )
    assert digest("model: {joiner_dim: 9}\ntraining: {seed: 1}\n") != first
    assert digest("model: {joiner_dim: 8}\n") != first


def test_records_that_leave_the_file_are_kept_beside_it(done, caplog):
    study, cells, records = done
    records = save_records(study, cells, records)
    fewer = [cell for cell in cells if cell.method != "easy"]
    save_records(study, fewer, [])
    gone = [record for record in records if record["method"] == "easy"]
    path = study.options.results.replace(".json", ".dropped.json")
    assert read_json(path) == gone and "easy-0.5-seed0" in caplog.text
    assert read_records(study.options) == [r for r in records if r["method"] != "easy"]
    save_records(study, cells, [{**record, "data": "other"} for record in records[:1]], "other")
    # all but the one that is replaced; none is written twice
    assert len(read_json(path)) == len(records) - 1
    save_records(study, cells, [{**records[0], "seconds": 1.0}], records[0]["data"])
    again = {**records[0], "seconds": 2.0}
    assert save_records(study, cells, [again]) == [again]
    assert len(read_json(path)) == len(records) - 1


def test_machines_and_commits_that_differ_are_named(done):
    study, cells, records = done
    assert "commits" not in markdown(study, cells, records)
    other = {**records[0], "git": "def", "machine": {"system": "Linux", "cores": "64"}}
    text = markdown(study, cells, [other, *records[1:]]).splitlines()[0]
    assert "on 2 machines: Linux, 2 cores and Linux, 64 cores;" in text and text.endswith(
        "abc and def."
    )
