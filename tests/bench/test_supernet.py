"""``asrprune bench supernet``: all ways see the same, and rankings have their share."""

import re
from collections import Counter, defaultdict

import pytest

from asrprune import cli
from asrprune.bench.supernet import WAYS
from asrprune.training.trainer import Trainer
from asrprune.weight_pruning.masks.bank import MaskBank

SCHEDULE = "weight_pruning.schedule"
WORDS = [f"{SCHEDULE}.refresh_interval=2", f"{SCHEDULE}.final=0.8", "training.device=cpu"]
NUMBER = r"[\d.]+"


@pytest.fixture
def bench(train_command):
    """The command on the tiny corpus, or on noise; returns its exit status."""

    def run(*words, noise=False):
        corpus = train_command.corpus
        data = ["--manifest-dir", corpus.manifests, "--lang-dir", corpus.lang]
        words = ["--config", train_command.config, *(data * (not noise)), *words, *WORDS]
        return cli.main(["bench", "supernet", *map(str, words)])

    return run


@pytest.mark.parametrize("noise", [False, True])
def test_all_ways_take_the_same_steps(noise, bench, monkeypatch, capsys, tmp_path):
    seen, refreshes = defaultdict(list), Counter()
    step, refresh = Trainer.step, MaskBank.refresh

    def watched(self, batches, *more, **words):
        at = self.position
        seen[self].append((at.step, at.epoch, [batch["cut_ids"] for batch in batches]))
        return step(self, batches, *more, **words)

    monkeypatch.setattr(Trainer, "step", watched)

    def counted(self, **given):
        refreshes.update([self])
        refresh(self, **given)

    monkeypatch.setattr(MaskBank, "refresh", counted)
    files = set(tmp_path.rglob("*"))
    words = ["--steps", 4, "--rounds", 2, "--sandwich", "true", "--progress", 0.55]
    assert bench(*words, "training.grad_accumulation=2", "training.epochs=4", noise=noise) == 0
    assert set(tmp_path.rglob("*")) == files
    dense, *others = seen.values()
    assert len(others) == 3 and all(other == dense for other in others)
    assert [number for number, _, _ in dense] == list(range(12))  # a round warms up
    assert {epoch for _, epoch, _ in dense} == {3}
    assert all(len(names) == 2 for _, _, names in dense)
    rounds = [[names for _, _, names in dense[first : first + 4]] for first in (0, 4, 8)]
    assert rounds[0] == rounds[1] == rounds[2]
    # with the one that made the bank; every second step of all three rounds
    assert list(refreshes.values()) == [1 + 6] * 3
    head, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"{NUMBER} M parameters, {NUMBER} M of them in 8x1 blocks; progress 0.[56]{NUMBER} to "
        rf"0.{NUMBER}, sparsity 0.800; "
        rf"2 rounds of 4 steps{' on noise' * noise}, 1 threads, torch \S+",
        head,
    )
    assert [line.split(":")[0] for line in lines] == list(WAYS)
    assert re.fullmatch(rf"dense: {NUMBER} steps/s", lines[0])
    for line, passes in zip(lines[1:], ("1", "1", "3"), strict=True):
        ratios = re.findall(r" ([\d.]+) \(([\d.]+) to ([\d.]+)\) times the (?:CPU )?time", line)
        assert len(ratios) == 2
        for median, least, most in ratios:
            assert 0 < float(least) <= float(median) <= float(most)
        assert line.endswith(f" time, {passes} times the passes")


def test_the_middle_of_the_ramp(bench, capsys):
    """At a half of a cubic ramp an eighth of the way is left."""
    ramp = [f"{SCHEDULE}.start=0.25", f"{SCHEDULE}.end=0.75", "training.epochs=1000"]
    assert bench("--rounds", 1, *ramp, noise=True) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "progress 0.501, sparsity 0.701; 1 rounds of 2 steps" in head and len(lines) == 3


def test_a_round_that_climbs_says_how_far(bench, capsys):
    """From the first step's place to the last one's."""
    ramp = [f"{SCHEDULE}.kind=linear", f"{SCHEDULE}.start=0", f"{SCHEDULE}.end=1"]
    words = ("--rounds", 1, "--steps", 4, "--progress", 0.25, *ramp, "training.epochs=4")
    assert bench(*words, noise=True) == 0
    [told] = re.findall(rf"progress ({NUMBER}) to ({NUMBER}), sparsity ({NUMBER}) to ({NUMBER});",
                        capsys.readouterr().out)  # fmt: skip
    first, last, least, most = map(float, told)
    assert 0.25 < first < last <= 0.5
    assert (least, most) == pytest.approx((0.8 * first, 0.8 * last), abs=1e-3)


@pytest.mark.parametrize(
    ("words", "noise", "message"),
    [
        (["--steps", 3], True, "--steps 3: no multiple of weight_pruning.schedule.refresh_int"),
        (["--rounds", 0], True, "--rounds 0: must be at least 1"),
        (["--progress", 1.5], True, "--progress 1.5: must be between 0 and 1"),
        (["--lang-dir", "lang"], True, "--manifest-dir and --lang-dir: give both, or none"),
        (["weight_pruning.block=7x1"], False, "7x1 does not divide"),
    ],
)
def test_wrong_words_are_refused(words, noise, message, bench, capsys):
    assert bench(*words, noise=noise) == 1
    assert message in capsys.readouterr().err
