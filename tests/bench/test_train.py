"""``asrprune bench train`` measures at most an epoch, and leaves nothing behind."""

import re

import pytest

from asrprune import cli


@pytest.mark.parametrize("steps, taken", [(2, 2), (50, 6)])
def test_steps_are_timed(steps, taken, train_command, tmp_path, monkeypatch, capsys):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    config, manifests, lang = (
        train_command.config, train_command.corpus.manifests, train_command.corpus.lang,
    )  # fmt: skip
    words = ["--config", config, "--manifest-dir", manifests, "--lang-dir", lang]
    words += ["--steps", steps, "--rounds", 1, "training.log_interval=2", "data.max_duration=14"]
    assert cli.main(["bench", "train", *map(str, words)]) == 0
    out = capsys.readouterr().out
    bare, own, ratio = map(
        float,
        re.fullmatch(
            r"bare loop ([\d.]+) steps/s, trainer ([\d.]+) steps/s, trainer / bare time ([\d.]+) "
            rf"\(median of 1 rounds of {taken} steps, 1 threads\)\n",
            out,
        ).groups(),
    )
    assert bare > 0 and own > 0 and abs(bare / own - ratio) < 0.05 * ratio
    assert not list(scratch.glob("tmp*")) and not train_command.exp.exists()
