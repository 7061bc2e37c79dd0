"""Laws of ``tools/stages.sh``, on a recipe of four stages."""

import errno
import os
import signal

import pytest

OPTIONS = """\
stage=manifests   # first stage
stop_stage=train  # last stage
dry_run=false     # show
size=3            # of the manifests
speed=false       # of the first part
rate=2            # of the training
"""
BEGIN = '. stages.sh\nbegin_stages "$stage" "$stop_stage" "$dry_run"\n'
BODY = """
. stages.sh
begin_stages "$stage" "$stop_stage" "$dry_run" manifests features validate train
check run make_file checked
stage manifests data --options size --makes data/list -- run make_file data/list
stage features data --part a --options speed --needs data/list --makes "data/a.*" -- \\
  run make_file data/a.feats
stage features data --part b --needs data/list --makes data/b -- run make_file data/b
stage validate data --needs "data/a.*" data/b --makes data/valid -- run make_file data/valid
stage train exp --options rate overrides --texts conf --needs data/valid --makes exp/model -- \\
  run make_file exp/model
finish
"""
ALL = [f"make_file {path}" for path in ("data/list", "data/a.feats", "data/b")]
ALL += ["make_file data/valid", "make_file exp/model"]


@pytest.fixture
def recipe(make_recipe):
    recipe = make_recipe(OPTIONS, BODY)
    (recipe.folder / "conf").write_text("lr: 1\n")
    return recipe


def commands(recipe):
    return [line for line in recipe.commands() if not line.endswith("checked")]


def test_a_finished_stage_is_skipped(recipe):
    recipe.run()
    assert commands(recipe) == ALL
    again = recipe.run()
    assert recipe.commands() == []
    assert again.stderr.count("is done\n") == len(ALL)


@pytest.mark.parametrize(
    ("words", "first", "reason"),
    [
        (["--size", "4"], 0, "stage 1 (manifests) runs again: --size was '3', is '4'"),
        (["--speed", "true"], 1, "--speed was 'false', is 'true'"),
        (["--rate", "5"], 4, "stage 5 (train) runs again: --rate was '2', is '5'"),
        (["lr=5"], 4, "stage 5 (train) runs again: overrides was '', is 'lr=5'"),
    ],
)
def test_a_changed_option_runs_its_stage_and_all_after_it(recipe, words, first, reason):
    recipe.run()
    recipe.commands()
    result = recipe.run(*words)
    expected = ALL[first:]
    if first == 1:
        expected.remove("make_file data/b")  # the other part does not depend on it
    assert commands(recipe) == expected
    assert reason in result.stderr
    if first == 0:
        assert "(features, b) runs again: stage 1 (manifests) has run with other" in result.stderr
    recipe.run(*words)
    assert commands(recipe) == []


def test_an_edited_configuration_counts_and_its_comments_do_not(recipe):
    recipe.run()
    recipe.commands()
    (recipe.folder / "conf").write_text("# slower\n\nlr: 1\n")
    recipe.run()
    assert commands(recipe) == []
    (recipe.folder / "conf").write_text("lr: 2\n")
    assert "stage 5 (train) runs again: conf was edited" in recipe.run().stderr
    assert commands(recipe) == ALL[-1:]


def test_a_missing_output_is_made_again_and_nothing_else(recipe):
    recipe.run()
    recipe.commands()
    (recipe.folder / "data" / "a.feats").unlink()
    assert "(features, a) runs again: data/a.* is missing" in recipe.run().stderr
    assert commands(recipe) == ["make_file data/a.feats"]


def test_a_missing_input_names_the_stage_that_makes_it(recipe):
    result = recipe.run("--stage", "validate", code=2)
    assert "stage 3 (validate) needs data/a.*, which stage 2 (features) makes" in result.stderr
    recipe.run("--stop-stage", "2")
    (recipe.folder / "data" / "b").unlink()
    result = recipe.run("--stage", "3", code=2)
    assert (
        "needs data/b, which stage 2 (features) makes: ./run.sh --stage features" in result.stderr
    )
    assert commands(recipe) == ALL[:3]


def test_stages_by_name_and_number_are_alike(recipe):
    recipe.run("--stage", "manifests", "--stop-stage", "features")
    assert commands(recipe) == ALL[:3]
    recipe.run("--stage", "3", "--stop-stage", "validate")
    assert commands(recipe) == ALL[3:4]
    recipe.run("--stage", "5", "--stop-stage", "10")
    assert commands(recipe) == ALL[4:]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--stage", "trian"],
            "--stage: 'trian' is no stage (did you mean 'train'?); stages are 0",
        ),
        (["--stop-stage", "11"], "--stop-stage: '11' is no stage"),
        (["--stage", "search"], "--stage search: this recipe has no stage 7 (search)"),
        (["--stop-stage", "export"], "--stop-stage export: this recipe has no such stage"),
        (["--stage", "5", "--stop-stage", "1"], "--stage 5 comes after --stop-stage 1"),
    ],
)
def test_a_wrong_stage_is_one_clear_error(recipe, words, message):
    result = recipe.run(*words, code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert recipe.commands() == []


def test_a_stage_that_is_left_out_keeps_its_options(recipe):
    recipe.run()
    recipe.commands()
    result = recipe.run("--stage", "train", "--size", "9")
    assert "note: stage 1 (manifests) is not to run, though --size was '3'" in result.stderr
    assert commands(recipe) == []


def test_a_dry_run_shows_the_commands_and_runs_the_check_alone(recipe):
    result = recipe.run("--dry-run", "true", "--stage", "3")
    shown = result.stdout.splitlines()
    assert shown == ["# stage 3 (validate)", ALL[3], "# stage 5 (train)", ALL[4]]
    assert recipe.commands() == ["make_file checked"]
    assert not (recipe.folder / "data").exists()


def test_what_is_wrong_is_found_before_the_first_stage(recipe):
    recipe.run(code=3, FAKE_FAIL="checked")
    assert commands(recipe) == []


def test_a_failed_stage_stops_the_run_which_goes_on_later(recipe):
    result = recipe.run(code=3, FAKE_FAIL="data/b")
    assert "stage 2 (features, b) failed" in result.stderr
    assert "the same command goes on from this stage" in result.stderr
    assert commands(recipe) == ALL[:3]
    recipe.run()
    assert commands(recipe) == ALL[2:]


def test_a_command_that_makes_nothing_is_not_done(make_recipe):
    recipe = make_recipe(
        "stage=1 # x\nstop_stage=1 # x\ndry_run=false # x\n",
        f"{BEGIN}stage manifests data --makes data/list -- run true\n",
    )
    result = recipe.run(code=2)
    assert "stage 1 (manifests) ended and did not make data/list" in result.stderr


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGINT, os.killpg),
        (signal.SIGTERM, os.killpg),
        (signal.SIGHUP, os.killpg),
        (signal.SIGTERM, os.kill),  # the command has not heard of it
    ],
)
def test_a_signal_stops_everything_and_the_same_command_goes_on(recipe, number, send):
    process = recipe.start(FAKE_HANG="data/b")
    hanging = recipe.wait_for_hang()
    send(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "stopped in stage 2 (features, b); the same command goes on from there" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(hanging, 0)
    recipe.commands()
    recipe.run()
    assert commands(recipe) == ALL[2:]


def test_a_signal_right_after_a_command_started_stops_it_too(recipe, tmp_path):
    slow = tmp_path / "slow.sh"  # the shell that started it keeps its number a second late
    slow.write_text("""set -T; trap '[[ $BASH_COMMAND != "child=\\$!" ]] || sleep 1' DEBUG\n""")
    process = recipe.start(FAKE_HANG="data/b", BASH_ENV=str(slow))
    hanging = recipe.wait_for_hang()
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    with pytest.raises(ProcessLookupError):
        os.kill(hanging, 0)


def test_a_killed_stage_runs_again_though_its_output_is_there(recipe):
    process = recipe.start(FAKE_HANG="data/b")
    recipe.wait_for_hang()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (recipe.folder / "data" / "b").exists()
    recipe.commands()
    recipe.run()
    assert commands(recipe) == ALL[2:]


def test_a_changed_option_and_a_kill_leave_nothing_that_looks_done(recipe):
    recipe.run()
    process = recipe.start("--speed", "true", FAKE_HANG="data/a.feats")
    recipe.wait_for_hang()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    recipe.commands()
    recipe.run()
    assert commands(recipe) == ["make_file data/a.feats"]  # with the options of before


def test_two_runs_wait_for_each_other(recipe):
    first = recipe.start(FAKE_HANG="data/b")
    hanging = recipe.wait_for_hang()
    second = recipe.start()
    wait_until_it_waits(second, "another run is at work in data")
    os.kill(hanging, signal.SIGKILL)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == 137 and "stage 2 (features, b) failed" in errors
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert commands(recipe) == ALL[:3] + ALL[2:]


def flock_that_fails(folder, *numbers):
    """An environment whose Python gets these errors, in turn, for each lock that it asks for."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import fcntl\n"
        f"numbers = {list(numbers)}\n"
        "def flock(*_):\n"
        "    number = numbers.pop(0) if len(numbers) > 1 else numbers[0]\n"
        "    raise OSError(number, 'no')\n"
        "fcntl.flock = flock\n"
    )
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_where_there_are_no_locks_a_run_warns_once_and_goes_on(recipe, number, tmp_path):
    result = recipe.run(**flock_that_fails(tmp_path / "site", number))
    assert commands(recipe) == ALL
    assert "another run" not in result.stderr
    assert result.stderr.count("cannot be locked") == 1
    warning = f"warning: files in data cannot be locked ({os.strerror(number)})"
    assert warning in result.stderr and "no second run works in the same folder" in result.stderr


def test_a_lock_that_cannot_be_asked_for_stops_the_run(recipe, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys; sys.modules['fcntl'] = None")
    result = recipe.run(code=2, PYTHONPATH=str(tmp_path / "site"))
    assert "another run" not in result.stderr
    assert "the lock of data could not be asked for" in result.stderr


def wait_until_it_waits(process, message):
    line = ""
    while "waiting for it to end" not in line:
        line = process.stderr.readline()
        assert line, "the run did not wait"
    assert message in line


def test_a_command_left_by_a_killed_run_is_waited_for(recipe):
    first = recipe.start(FAKE_HANG="data/b")
    hanging = recipe.wait_for_hang()
    os.kill(first.pid, signal.SIGKILL)
    second = recipe.start()
    wait_until_it_waits(second, "something that it left running")
    os.kill(hanging, signal.SIGKILL)
    first.communicate(timeout=30)
    second.communicate(timeout=30)
    assert second.returncode == 0


def test_data_is_not_rewritten_under_a_training(recipe):
    first = recipe.start(FAKE_HANG="exp/model")
    recipe.wait_for_hang()
    second = recipe.start("--size", "4")
    wait_until_it_waits(second, "another run is at work in data")
    for process in (second, first):
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_stage_may_come_after_one_that_is_not_right_before_it(make_recipe):
    """As a training after noise that no other stage sees."""
    late = "stage features data --part noise --options noise --makes data/noise -- "
    late += "run make_file data/noise\n"
    body = BODY.replace("stage train exp", f"{late}stage train exp --after features:noise")
    recipe = make_recipe(f"{OPTIONS}noise=1 # its level\n", body)
    (recipe.folder / "conf").write_text("lr: 1\n")
    recipe.run()
    assert commands(recipe) == [*ALL[:-1], "make_file data/noise", ALL[-1]]
    changed = recipe.run("--noise", "2")
    assert commands(recipe) == ["make_file data/noise", ALL[-1]]
    assert "stage 2 (features, noise) has run with other options since" in changed.stderr


def test_no_stage_comes_after_one_that_is_aside(make_recipe):
    """As the search, of which the decoding of the whole model knows nothing."""
    extra = "stage tokenizer data --aside --options extra --needs data/valid --makes data/extra "
    extra += "-- run make_file data/extra\n"
    recipe = make_recipe(
        f"{OPTIONS}extra=1 # a number\n", BODY.replace("stage train exp", f"{extra}stage train exp")
    )
    (recipe.folder / "conf").write_text("lr: 1\n")
    recipe.run()
    assert commands(recipe) == [*ALL[:-1], "make_file data/extra", ALL[-1]]
    recipe.run("--extra", "2")
    assert commands(recipe) == ["make_file data/extra"]
    changed = recipe.run("--extra", "2", "--speed", "true")  # what it depends on
    assert "make_file data/extra" in commands(recipe)
    assert "stage 4 (tokenizer) runs again: stage 3 (validate) has run" in changed.stderr


def test_parts_of_parts_depend_on_theirs_alone(make_recipe):
    """As the splits of a language do: train-fr on fr."""
    body = BEGIN
    for name in ("en", "fr"):
        body += (
            f"stage manifests data --part {name} --options {name} --makes data/{name} -- "
            f"run make_file data/{name}\n"
        )
    for name in ("train-en", "train-fr", "other"):
        body += (
            f"stage features data --part {name} --makes data/{name} -- run make_file data/{name}\n"
        )
    recipe = make_recipe(OPTIONS + "en=1  # of it\nfr=1  # of it\n", body + "finish\n")
    recipe.run("--stop-stage", "features")
    recipe.commands()
    recipe.run("--stop-stage", "features", "--fr", "2")
    assert commands(recipe) == [f"make_file data/{name}" for name in ("fr", "train-fr", "other")]


def test_a_part_whose_name_ends_in_another_one(make_recipe):
    """It depends on what its whole name ends in: a further part changes nothing for it."""
    body = f"""
{BEGIN}
for name in $names; do
  stage manifests data --part "$name" --makes "data/$name" -- run make_file "data/$name"
done
for name in $names; do
  stage features data --part "train-$name" --makes "data/train-$name" -- \\
    run make_file "data/train-$name"
done
finish
"""
    options = "stage=manifests # first\nstop_stage=features # last\ndry_run=false # show\n"
    recipe = make_recipe(options + 'names="nan-tw" # of parts\n', body)
    recipe.run()
    assert recipe.commands() == ["make_file data/nan-tw", "make_file data/train-nan-tw"]
    for names in ("nan-tw tw", "tw nan-tw"):
        told = recipe.run("--names", names).stderr
        assert "runs again" not in told
    assert recipe.commands() == ["make_file data/tw", "make_file data/train-tw"]


def test_a_command_that_makes_nothing(make_recipe):
    """It ended well, and left its folder empty: that is said, and not by mv."""
    body = f"{BEGIN}stage manifests data --makes data/list -- run_into data true\nfinish\n"
    recipe = make_recipe(
        "stage=manifests # first\nstop_stage=manifests # last\ndry_run=false # -\n", body
    )
    told = recipe.run(code=2).stderr
    assert "error: true ended and made nothing" in told and "mv:" not in told
    assert not (recipe.folder / "data" / "list").exists()
