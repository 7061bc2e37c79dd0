"""Averages against brute force in float64."""

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training import averaging
from asrprune.training.averaging import RunningAverage, mean_between, mean_of
from asrprune.training.checkpoint import save_checkpoint
from tests.conftest import call_verb


def random_walk(steps: int):
    """A model, its running averages after each step, and every model on the way."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    average = RunningAverage(model)
    states, averages = [], []
    for _ in range(steps):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
        average.update(model)
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        averages.append({"mean": {k: v.clone() for k, v in average.mean.items()},
                         "count": average.count})  # fmt: skip
    return states, averages


def test_running_average_is_the_mean_of_all_models():
    states, averages = random_walk(200)
    expected = mean_of(states)
    for name, value in averages[-1]["mean"].items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-13)


def test_mean_between_two_averages_is_the_mean_of_the_models_between():
    states, averages = random_walk(100)
    expected = mean_of(states[60:])
    for name, value in mean_between(averages[59], averages[99]).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-11, atol=1e-12)


def write_epochs(folder, states, averages):
    for epoch, (state, average) in enumerate(zip(states, averages, strict=True), start=1):
        about = {"config": {}, "vocab_size": 2, "tokenizer_digest": "x", "symbols": []}
        save_checkpoint({"model": state, "average": average, **about}, folder / f"epoch-{epoch}.pt")


@pytest.mark.parametrize("running", ["true", "false"])
@pytest.mark.parametrize("epoch, avg, first", [(5, 2, 3), (0, 6, 0), (3, 3, 0), (4, 1, 3)])
def test_average_verb(tmp_path, running, epoch, avg, first):
    states, averages = random_walk(6)
    write_epochs(tmp_path, states, averages)
    call_verb(averaging, "--exp-dir", tmp_path, "--epoch", epoch, "--avg", avg,
              "--use-averaged-model", running)  # fmt: skip
    model = torch.load(tmp_path / "averaged.pt", weights_only=True)["model"]
    expected = mean_of(states[first : epoch or 6])
    for name, value in model.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name].float())


def test_average_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no epoch-N.pt .* stage \(5\)"):
        call_verb(averaging, "--exp-dir", tmp_path)
    write_epochs(tmp_path, *random_walk(3))
    with pytest.raises(UserError, match="epoch-9.pt does not exist; the newest epoch in .* is 3"):
        call_verb(averaging, "--exp-dir", tmp_path, "--epoch", "9")
    with pytest.raises(UserError, match="--avg 4: with --epoch 3 it must be between 1 and 3"):
        call_verb(averaging, "--exp-dir", tmp_path, "--avg", "4")


def test_average_without_an_update_is_refused(tmp_path):
    states, averages = random_walk(2)
    write_epochs(tmp_path, states, [averages[0], averages[0]])
    with pytest.raises(UserError, match="no update of the averaged model lies in epochs 2 to 2"):
        call_verb(averaging, "--exp-dir", tmp_path)
