"""A comparison from end to end: what runs, what is skipped, and how it stops and goes on."""

import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.compare import verb as compare
from asrprune.compare.children import Children
from asrprune.compare.kinds import load_study, study_from
from asrprune.compare.measured import check_sets
from asrprune.config import Config
from asrprune.data.options import DataOptions
from tests.compare.command import Command, InProcess, OneThread, written_part
from tests.compare.conftest import FakeCorpus, study_of

CELLS = ["easy-0.5-seed0", "full-1-seed0", "full_compressed-0.5-seed0", "random-0.5-seed0"]
STEPS = ["train", "average", "decode", "score"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    values = study_of(tmp_path, FakeCorpus(tmp_path))
    return Command(tmp_path, values, monkeypatch, capsys)


def test_a_finished_cell_is_skipped_and_a_new_one_runs(command):
    command.run("--jobs", "2")
    assert command.calls() == dict.fromkeys(CELLS, STEPS)
    first = command.records()
    assert [record["method"] for record in first] == ["full", "full_compressed", "random", "easy"]
    command.run()
    assert command.calls() == {} and command.records() == first
    [part] = command.values["grid"]
    command.write(grid=[part, {"methods": ["easy"], "keep": [0.5], "seeds": [1]}])
    command.run()
    assert set(command.calls()) == {name.replace("seed0", "seed1") for name in CELLS}
    assert command.records()[:4] == first and len(command.records()) == 8


def test_records_count_without_their_folders_where_they_are_trusted(command):
    command.run()
    first = command.records()
    shutil.rmtree(command.folder / "exp")
    command.run("--trust-results", "true")
    assert command.calls() == {} and command.records() == first
    command.write(avg=2)  # they would not be made like that today
    command.run("--trust-results", "true")
    assert command.calls() == dict.fromkeys(CELLS, STEPS)
    shutil.rmtree(command.folder / "exp")
    write_json(command.values["results"], command.records()[1:])
    command.run("--trust-results", "true")
    assert list(command.calls()) == ["full-1-seed0"]
    command.run()  # by itself a comparison goes by the folders
    assert set(command.calls()) == set(CELLS) - {"full-1-seed0"}


def test_one_failed_cell_does_not_lose_the_others(command):
    said = command.run("--jobs", "2", code=1, FAKE_FAIL="decode random-0.5-seed0")
    assert "random-0.5-seed0 failed: decode ended with status 3: fake: told to fail; see" in said
    assert "1 of 4 cells failed, and the others are kept" in said and "Traceback" not in said
    assert len(command.records()) == 3
    assert "1 of 4 cells are missing" in written_part(load_study(command.path).options)
    assert command.calls()["random-0.5-seed0"] == STEPS[:3]
    command.run()
    assert command.calls() == {"random-0.5-seed0": STEPS[2:]}
    assert len(command.records()) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_goes_on_from_there(number, command):
    victim = command.cell("full-1-seed0")
    process = command.start("--jobs", "2", FAKE_HANG="full-1-seed0")
    child = int(command.wait_for(victim / "hangs"))
    process.send_signal(number)
    said = "".join(process.communicate(timeout=30))
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command goes on from here" in said and "Traceback" not in said
    deadline = time.monotonic() + 20  # without its parent, the training ends as well
    while not (victim / "stopped").exists():
        assert time.monotonic() < deadline, f"{child} goes on"
        time.sleep(0.02)
    assert (victim / "steps").read_text().split() == ["0", "1", "2"]
    assert not (victim / "record.json").exists()
    command.calls()
    command.run("--jobs", "2")
    assert command.calls()["full-1-seed0"] == STEPS
    assert (victim / "steps").read_text().split() == [str(step) for step in range(6)]
    attempts = {record["method"]: record["attempts"] for record in command.records()}
    assert attempts.pop("full") == 2 and len(attempts) == 3


def test_a_training_that_failed_at_its_start_is_trained_whole(command):
    command.run("--jobs", "2", code=1, FAKE_FAIL="train random-0.5-seed0")
    command.run()
    assert {record["attempts"] for record in command.records()} == {1}


def test_a_training_that_somebody_began_by_hand_has_no_time(command):
    folder = command.cell("random-0.5-seed0")
    folder.mkdir(parents=True)
    (folder / "checkpoint-9.pt").touch()
    command.run("--jobs", "2")
    attempts = {record["method"]: record["attempts"] for record in command.records()}
    assert attempts.pop("random") == 2 and set(attempts.values()) == {1}


def test_another_test_set_is_decoded_again(command):
    path = Path(command.values["manifest_dir"]) / "tones_statistics.json"
    path.parent.mkdir(exist_ok=True)

    def run(digest):
        write_json(path, {"eval": {"dev": {"digest": digest}}})
        command.run("--jobs", "2")
        assert {record["inputs"]["set dev"] for record in command.records()} == {digest}
        return command.calls()

    assert run("a") == dict.fromkeys(CELLS, STEPS)
    assert run("a") == {}
    assert run("b") == dict.fromkeys(CELLS, STEPS[1:])  # nothing is trained again


def test_a_training_of_other_options_is_not_taken_for_it(command):
    command.run("--jobs", "2")
    command.write(overrides=["training.epochs=3", "training.log_interval=9"])
    said = command.run(code=1)
    assert "options, data or models: training.epochs (4 -> 3). Put them back" in said
    assert "log_interval" not in said
    command.write(overrides=[])
    record = command.cell("easy-0.5-seed0") / "record.json"
    write_json(record, [{**read_json(record)[0], "data": "other"}])
    assert "the training data ('other' -> 'digest')" in command.run(code=1)


def test_what_comes_after_a_training_is_done_again(command):
    command.run("--jobs", "2")
    command.calls()
    first = command.records()
    command.write(decoding_method="modified_beam_search")
    command.run("--jobs", "2", code=1, FAKE_FAIL="score random-0.5-seed0")
    assert command.calls() == dict.fromkeys(CELLS, STEPS[2:])
    command.run()
    assert command.calls() == {"random-0.5-seed0": STEPS[3:]}
    found = command.records()
    assert {record["decoding_method"] for record in found} == {"modified_beam_search"}
    assert {record["attempts"] for record in found} == {1} and len(found) == 4
    command.write(avg=2, decoding_method="greedy_search")
    command.run("--jobs", "2")
    assert command.calls() == dict.fromkeys(CELLS, STEPS[1:])
    assert command.records() == [{**record, "avg": 2} for record in first]


def test_a_half_done_cell_goes_on_with_the_same_training_only(command):
    command.run("--jobs", "2", code=1, FAKE_FAIL="score random-0.5-seed0")
    command.calls()
    for name in CELLS[:3]:
        shutil.rmtree(command.cell(name))
    command.write(overrides=["training.epochs=3"])
    said = command.run("--jobs", "2", code=1)
    assert "random-0.5-seed0 was made with other options, data or models: training" in said
    assert "random-0.5-seed0" not in command.calls()
    for name in CELLS[:3]:
        shutil.rmtree(command.cell(name))
    command.write(overrides=[])
    command.run("--jobs", "2")
    assert command.calls()["random-0.5-seed0"] == ["score"]


def test_the_data_is_prepared_before_the_first_cell_only(command):
    script = f'{sys.executable} -c \'open("{command.folder}/prepared", "a").write("x")\''
    command.write(prepare=[script])
    assert command.run("--dry-run", "true").splitlines()[0] == script
    assert not (command.folder / "prepared").exists()
    command.run("--jobs", "2")
    command.run()
    assert (command.folder / "prepared").read_text() == "x"


def test_data_is_made_first_and_no_longer_needed_in_the_end(command, monkeypatch):
    """Also with finished cells, if some are left; where all are finished, nobody asks for it."""
    data = command.folder / "data"
    digest = lambda study, config: data.read_text() if data.exists() else None  # noqa: E731
    script = f'{sys.executable} -c \'open("{data}", "a").write("digest")\''

    def run(*words, **more):
        return command.run("--jobs", "2", *words, digest=digest, **more)

    assert "_statistics.json; the validate stage (3) makes it" in run(code=1)
    assert command.calls() == {}
    command.write(prepare=[script])
    run(code=1, FAKE_FAIL="score random-0.5-seed0")
    assert len(command.calls()) == 4
    data.unlink()
    run()
    assert command.calls() == {"random-0.5-seed0": ["score"]} and data.exists()
    data.unlink()
    run()
    assert command.calls() == {} and not data.exists() and len(command.records()) == 4
    data.write_text("other")
    assert "the training data ('digest' -> 'other')" in run(code=1)


@pytest.mark.parametrize(
    "line, reason",
    [
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with status 3"),
        ("./no_such_program", "No such file"),
    ],
)
def test_nothing_is_trained_without_its_data(line, reason, command):
    command.write(prepare=[line])
    said = command.run(code=1)
    assert f"prepare: {line}: " in said and reason in said and command.calls() == {}


def test_stopped_while_the_data_is_prepared(command):
    name = command.folder / "started"
    code = f'import time; open("{name}", "w").write("x"); time.sleep(60)'
    command.write(prepare=[f"{sys.executable} -c '{code}'"])
    process = command.start()
    command.wait_for(name)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    said = "".join(process.communicate(timeout=30))
    assert process.returncode == 130 and "Traceback" not in said
    assert time.monotonic() - started < 20


def test_sets_that_the_data_has_not(tmp_path):
    options = study_from(study_of(tmp_path, FakeCorpus(tmp_path))).options
    config = Config(data=DataOptions(corpus="tones"))
    for name in ("dev", "test-clean"):
        (tmp_path / "valid").mkdir(exist_ok=True)
        (tmp_path / "valid" / f"tones_cuts_{name}.jsonl.gz").touch()
    check_sets(options, config, ["dev", "test-clean"])
    with pytest.raises(UserError, match="valid has no set 'test-claen' .did you mean 'test-clean'"):
        check_sets(options, config, ["dev", "test-claen"])


def test_render_only_and_dry_run_start_nothing(command):
    lines = command.run("--dry-run", "true").splitlines()
    assert [line.split()[1] for line in lines] == 4 * STEPS
    assert not (command.folder / "exp").exists()
    command.run("--render-only", "true")
    assert command.calls() == {}
    assert "Nothing has been run." in Path(command.values["report"]).read_text()
    assert "--jobs must be at least 1" in command.run("--jobs", "0", code=1)


def test_a_child_tells_what_it_used_and_ends_with_its_parent(tmp_path):
    children = Children(1, 2)
    used = children.run(["score", "--help"], tmp_path / "log")
    assert used["cpu_seconds"] > 0 and 0 < used["seconds"] < 60
    assert "usage: asrprune score" in (tmp_path / "log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_real_trainings(tmp_path, tiny_corpus, monkeypatch, capsys):
    """Everything but the processes, on the tiny corpus."""
    monkeypatch.setattr(compare, "Children", InProcess)
    monkeypatch.setattr(compare, "ThreadPoolExecutor", OneThread)
    chunks = ["data_pruning.policy=easy2hard", "data_pruning.time.variant=chunk"]
    chunks += ["data_pruning.time.start=0", "data_pruning.time.end=1"]
    values = study_of(
        tmp_path, tiny_corpus,
        methods={"easy": ["data_pruning.policy=easy"], "chunks": chunks},
        grid=[{"methods": ["easy", "chunks"], "keep": [0.5], "seeds": [0]}],
        overrides=["training.epochs=6", "training.checkpoint_interval=1000"],
        claims=[{"claim": "as good", "method": "easy", "keep": 0.5}],
    )  # fmt: skip
    OmegaConf.save(values, tmp_path / "compare.yaml")
    assert cli.main(["compare", str(tmp_path / "compare.yaml")]) == 0
    records = {record["method"]: record for record in read_json(values["results"])}
    full, random, chunked = (records[name] for name in ("full", "random", "chunks"))
    assert (full["epochs"], full["visits"], full["visits_of_a_cut"]) == (6, 6 * 36, [6] * 5)
    assert records["full_compressed"]["visits"] == records["full_compressed"]["epochs"] * 36
    # 1 cycle of warm-up, 1 at the end, 4 of halves
    assert random["hours"] == pytest.approx(full["hours"] * 4 / 6, rel=0.05)
    assert chunked["hours"] < 0.95 * chunked["hours_before_dropping"]
    assert chunked["hours_before_dropping"] == pytest.approx(random["hours"], rel=0.05)
    assert full["turnover"] == 0 < random["turnover"] < 1
    shares = np.array(random["kept"]["duration"]["shares"])
    assert len(shares) == random["epochs"] and (shares[0] == 1).all() and shares.min() < 1
    assert np.array(full["kept"]["duration"]["shares"]).min() == 1
    least, *_, most = random["visits_of_a_cut"]
    assert 2 <= least <= most <= 6 and random["never_visited"] == 0
    assert random["never_kept"] < 0.5 and full["never_kept"] == 0
    for record in records.values():
        assert set(record["speakers"]) == {"s0", "s1", "s2"}
        assert sum(wrong for wrong, _ in record["speakers"].values()) == record["errors"]
        assert record["words"] == full["words"] and record["policy"] and record["steps"]
        assert record["command"].startswith("asrprune train --config ")
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "compare.json", "compare-hours.png", "compare-kept.png", "compare-seconds.png",
    }  # fmt: skip
    assert "| as good | **inconclusive** |" in written_part(
        load_study(tmp_path / "compare.yaml").options
    )
