"""Small modules in which weights hide, and what a mask is to them, counted entry by entry."""

import numpy as np
import pytest
import torch
from torch import nn

from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.blocks import dropped
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import parse_block


class Odd(nn.Module):
    """Attention, a 1x1 and a depthwise convolution, a norm with buffers, tied weights, a frozen
    layer, an LSTM; sizes that 8 does not divide."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(5, 12)
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
            self.point = nn.Conv1d(12, 20, 1)
            self.depth = nn.Conv1d(20, 20, 3, padding=1, groups=20)
            self.norm = nn.BatchNorm1d(20)
            self.lstm = nn.LSTM(20, 6, batch_first=True)
            self.up = nn.Linear(6, 17)
            self.frozen = nn.Linear(17, 6)
            self.again = nn.Linear(6, 17)
        self.again.weight = self.up.weight
        self.frozen.weight.requires_grad_(False)

    def forward(self, tokens):  # (B, T) -> (B, T, 17)
        x = self.embed(tokens)
        x = x + self.attention(x, x, x)[0]
        x = self.norm(self.depth(self.point(x.transpose(1, 2)))).transpose(1, 2)
        x = self.frozen(torch.tanh(self.up(self.lstm(x)[0])))
        return self.again(x)


TOKENS = torch.tensor([[0, 1, 2, 3], [4, 4, 0, 2]])


def cnn(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16),
            nn.Flatten(), nn.Linear(16 * 16, 8),
        )  # fmt: skip


def wav2vec2(seed: int = 0) -> nn.Module:
    """torchaudio's, small and without dropout; skips the test where torchaudio does not load."""
    torchaudio = pytest.importorskip("torchaudio")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torchaudio.models.wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=[(16, 10, 5), (16, 3, 2)],
            extractor_conv_bias=False,
            encoder_embed_dim=24,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=4,
            encoder_pos_conv_groups=2,
            encoder_num_layers=2,
            encoder_num_heads=2,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=32,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=9,
        )


def bank_of(module, block="8x1", criterion="mean_square", scope="layer", **rules) -> MaskBank:
    parsed = parse_block(block)
    rules = {"recurrent": True, "ragged": "pad", **rules}
    return MaskBank(module, find_layers(module, parsed, **rules), criterion, scope)


def entry_masks(bank: MaskBank, level: int) -> dict[str, np.ndarray]:
    """Kept entries (R, C) bool at a level by loops over blocks, as ranked in layers."""
    masks = {}
    for layer, parameter in zip(bank.layers, bank.parameters().values(), strict=True):
        matrix = parameter.detach().float().numpy().reshape(layer.shape)
        r, c = bank.block.rows, bank.block.columns
        corners = [(i, j) for i in range(0, layer.rows, r) for j in range(0, layer.columns, c)]
        scores = [np.square(matrix[i : i + r, j : j + c]).mean() for i, j in corners]
        order = sorted(range(len(corners)), key=lambda k: (scores[k], k))
        mask = np.ones(layer.shape, bool)
        for k in order[: dropped(level, len(corners))]:
            i, j = corners[k]
            mask[i : i + r, j : j + c] = False
        masks[layer.name] = mask
    return masks


def bits(tensor: torch.Tensor) -> bytes:
    """Every bit of a tensor, and its type and shape."""
    data = tensor.detach().contiguous().view(torch.uint8) if tensor.ndim else tensor.reshape(1)
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + data.numpy().tobytes()


def same_bits(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(bits(one[key]) == bits(other[key]) for key in one)
