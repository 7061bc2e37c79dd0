"""First-order scores against loops in float64, and against what the loss really does."""

import pytest
import torch
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.first_order import FirstOrderScores
from asrprune.weight_pruning.masks.groups import find_channels
from asrprune.weight_pruning.options import WeightPruningOptions

CHAINS = {"ffn": (["0.weight", "0.bias"], ["2.weight"])}
WIDTH = 12


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3))


def loss_of(module, seed):
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
    return module(x).square().sum()


def gradients(module, seed):
    module.zero_grad()
    loss_of(module, seed).backward()


def by_hand(module):
    """The square of the sum of weight x gradient of each channel, by loops."""
    first, second = module[0], module[2]
    found = []
    for channel in range(WIDTH):
        pairs = [
            (first.weight[channel], first.weight.grad[channel]),
            (first.bias[channel], first.bias.grad[channel]),
            (second.weight[:, channel], second.weight.grad[:, channel]),
        ]
        found.append(sum(float((w.detach().double() * g.double()).sum()) for w, g in pairs) ** 2)
    return torch.tensor(found, dtype=torch.float64)


def test_means_over_the_steps_that_trained_a_unit(module):
    bank = MaskBank(module, find_channels(module, CHAINS))
    scores = FirstOrderScores(bank.groups)
    assert scores.renew() is None
    total, steps = torch.zeros(WIDTH, dtype=torch.float64), torch.zeros(WIDTH)
    gates = [None, torch.arange(WIDTH) < 8, torch.arange(WIDTH) % 2 == 0]
    for seed, gate in enumerate(gates):
        gradients(module, seed)
        scores.add(bank.parameters(), None if gate is None else {"ffn": gate})
        active = torch.ones(WIDTH) if gate is None else gate.float()
        total += active * by_hand(module)
        steps += active
    found = scores.renew()["ffn"]
    torch.testing.assert_close(found.double(), total / steps, rtol=1e-5, atol=0)
    # what no step has trained since then comes last
    few = torch.arange(WIDTH) == 3
    gradients(module, 9)
    scores.add(bank.parameters(), {"ffn": few})
    again = scores.renew()["ffn"]
    assert not again[~few].any() and scores.renew() is None
    torch.testing.assert_close(again[few].double(), by_hand(module)[few], rtol=1e-5, atol=0)


def test_it_is_what_the_loss_does_without_a_channel(module):
    """Of channels that matter little, whose loss is nearly linear in them."""
    with torch.no_grad():
        for parameter in (module[0].weight, module[0].bias, module[2].weight):
            parameter *= 0.02
    bank = MaskBank(module, find_channels(module, CHAINS))
    scores = FirstOrderScores(bank.groups)
    gradients(module, 1)
    scores.add(bank.parameters(), None)
    with torch.no_grad():
        whole = loss_of(module, 1)
        changes = []
        for channel in range(WIDTH):
            with bank.apply({"ffn": torch.arange(WIDTH) != channel}):
                changes.append(float(loss_of(module, 1) - whole))
    # a channel is a product of two weights, so that the sum counts it twice
    expected = (2 * torch.tensor(changes)) ** 2
    torch.testing.assert_close(scores.renew()["ffn"], expected, rtol=0.1, atol=1e-12)


def test_the_bank_ranks_by_them(module):
    bank = MaskBank(module, find_channels(module, CHAINS))
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(3))
    bank.refresh(scores={"ffn": order.float()})
    for kept in range(1, WIDTH):
        units = bank.blocks(1 - kept / WIDTH)["ffn"]
        assert set(order[units].tolist()) == set(range(WIDTH - kept, WIDTH))
    with pytest.raises(UserError, match="cannot rank the weights of ffn: some are NaN"):
        bank.refresh(scores={"ffn": torch.full((WIDTH,), torch.nan)})


def test_dropped_channels_do_not_come_back_as_gradients_shrink(module):
    """Gradual pruning: the scores of dropped channels are of the larger gradients of before."""
    bank = MaskBank(module, find_channels(module, CHAINS))
    scores = FirstOrderScores(bank.groups)
    kept = torch.ones(WIDTH, dtype=torch.bool)
    gradients(module, 0)
    first = by_hand(module)
    for _ in range(6):
        with torch.no_grad():
            for parameter in bank.parameters().values():
                parameter.grad *= 0.3  # as the loss falls
        for _ in range(3):
            scores.add(bank.parameters(), {"ffn": kept})
        bank.refresh(scores=scores.renew())
        now = bank.blocks(0.5)["ffn"]
        assert not (now & ~kept).any() and int(now.sum()) == WIDTH // 2
        assert set(first[now].tolist()) == set(first.sort().values[WIDTH // 2 :].tolist())
        kept = now


def test_state(module):
    bank = MaskBank(module, find_channels(module, CHAINS))
    scores, other = FirstOrderScores(bank.groups), FirstOrderScores(bank.groups)
    for seed in (1, 2):
        gradients(module, seed)
        scores.add(bank.parameters(), None)
        if seed == 1:
            scores.renew()
    other.load_state_dict(scores.state_dict())
    assert torch.equal(other.renew()["ffn"], scores.renew()["ffn"])
    assert other.renew() is None
    smaller = nn.Sequential(nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 3))
    with pytest.raises(UserError, match="first-order scores are of another model"):
        FirstOrderScores(find_channels(smaller, CHAINS)).load_state_dict(scores.state_dict())


@pytest.mark.parametrize("method, unit", [("gradual", "block"), ("pathways", "channel")])
def test_where_there_is_none(method, unit):
    options = WeightPruningOptions(method=method, unit=unit, criterion="first_order")
    with pytest.raises(UserError, match="criterion=first_order: is for weight_pruning.unit=chan"):
        options.check("weight_pruning.")
