"""Multiply-adds with weights, against what is known of each kind of layer."""

import pytest
import torch
from torch import nn

from asrprune.weight_pruning.search.multiply_adds import count_multiply_adds

BATCH, FRAMES = 2, 5


def counted(module: nn.Module, *inputs) -> dict[str, int]:
    return count_multiply_adds(lambda: module(*inputs), dict(module.named_parameters()))


def test_each_weight_of_a_linear_layer_is_used_once_a_frame():
    for bias in (True, False):
        found = counted(nn.Linear(3, 4, bias=bias), torch.randn(BATCH, FRAMES, 3))
        assert found["weight"] == BATCH * FRAMES * 3 * 4 and not found.get("bias")


@pytest.mark.parametrize("training", [True, False])
def test_attention_hides_nothing(training):
    """Evaluated without gradients, torch has one operation for all of it."""
    x = torch.randn(BATCH, FRAMES, 8)
    module = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    fast = torch.backends.mha.get_fastpath_enabled()
    found = counted(module, x, x, x)
    assert found["in_proj_weight"] == BATCH * FRAMES * 3 * 8 * 8
    assert found["out_proj.weight"] == BATCH * FRAMES * 8 * 8
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_convolutions():
    x = torch.randn(BATCH, 6, 10)
    outputs = 10 - 3 + 1
    assert counted(nn.Conv1d(6, 4, 3), x)["weight"] == BATCH * outputs * 4 * 6 * 3
    assert counted(nn.Conv1d(6, 6, 3, groups=6), x)["weight"] == BATCH * outputs * 6 * 3
    assert counted(nn.Conv1d(6, 4, 1), x)["weight"] == BATCH * 10 * 4 * 6
    assert counted(nn.Conv1d(6, 4, 3, stride=2), x)["weight"] == BATCH * 4 * 4 * 6 * 3
    assert counted(nn.ConvTranspose1d(6, 4, 3, stride=2), x)["weight"] == BATCH * 10 * 6 * 4 * 3
    image = torch.randn(BATCH, 1, 7, 9)
    assert counted(nn.Conv2d(1, 4, (3, 2)), image)["weight"] == BATCH * 5 * 8 * 4 * 6


def test_views_count_and_others_do_not():
    weight, other = torch.randn(6, 4), torch.randn(4, 4)
    x = torch.randn(3, 4)

    def run():
        return x @ weight[:2].T, x @ other, torch.baddbmm(x[None], x[None], other[None])

    assert count_multiply_adds(run, {"weight": weight}) == {"weight": 3 * 4 * 2}
    assert count_multiply_adds(run, {"other": other}) == {"other": 2 * 3 * 4 * 4}
