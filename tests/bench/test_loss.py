"""``asrprune bench loss``, on sizes that take no time."""

import json

import pytest

from asrprune import cli
from asrprune.bench import loss as benchmark
from asrprune.transducer.options import LossOptions


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(benchmark, "_in_own_process", lambda *work: benchmark.measure(*work))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # what the verb would leave behind


def test_the_verb_prints_a_table_and_writes_its_numbers(in_this_process, capsys, tmp_path):
    path = tmp_path / "bench.json"
    words = ["bench", "loss", "--sizes", "2x20x4x30", "1x9x3x8", "--joiner_dim", "8"]
    assert cli.main([*words, "--threads", "1", "--repeats", "2", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["2x20x4x30", "pruned", "1x9x3x8", "pruned"]
    written = json.loads(path.read_text())
    assert [row["size"] for row in written["rows"]] == ["2x20x4x30", "1x9x3x8"]
    for row in written["rows"]:
        assert row["torchaudio"]["seconds"] > 0 and row["torch"]["seconds"] > 0


def test_the_pruned_loss_takes_a_fraction_of_the_memory():
    size = benchmark.Size(4, 150, 60, 500)
    full = benchmark.measure(size, None, 64, threads=1, repeats=1)
    pruned = benchmark.measure(size, LossOptions(backend="torch"), 64, threads=1, repeats=1)
    if full.megabytes is None:
        pytest.skip("no /proc/self/clear_refs")
    assert full.megabytes > 60  # the logits alone
    assert pruned.megabytes < 0.4 * full.megabytes


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["loss", "--sizes", "8x9"], "like 8x250x40x500"),
        (["loss", "--sise", "1"], "--sizes"),
        (["lose"], "loss"),
    ],
)
def test_wrong_words_are_refused_with_a_hint(words, hint, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["bench", *words])
    assert error.value.code == 2
    assert hint in capsys.readouterr().err
