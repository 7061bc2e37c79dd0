"""Models that this project does not know, in plain loops: torchaudio's wav2vec2, and a CNN."""

import inspect
import io
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import asrprune.weight_pruning
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.masks.masked_weights import masked_state
from asrprune.weight_pruning.supernet import SupernetOptions, sub_networks
from tests.weight_pruning.bank_cases import bank_of, bits, same_bits, wav2vec2

CLASSES = 6


class Bottleneck(nn.Module):
    """As in a ResNet: 1x1, 3x3 and 1x1 convolutions around which the input goes."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        out = channels * stride
        self.reduce = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels // 2)
        self.spatial = nn.Conv2d(channels // 2, channels // 2, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels // 2)
        self.expand = nn.Conv2d(channels // 2, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x):
        y = self.norm1(self.reduce(x)).relu()
        y = self.norm2(self.spatial(y)).relu()
        return (self.norm3(self.expand(y)) + self.shortcut(x)).relu()


def resnet(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            Bottleneck(16, 2), Bottleneck(32, 1), Bottleneck(32, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
        )  # fmt: skip


def scores(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Of each class, (batch, CLASSES); wav2vec2 has them for each frame."""
    output = model(x)
    return output[0].mean(1)[:, :CLASSES] if isinstance(output, tuple) else output


MODELS = {"wav2vec2": (wav2vec2, (12, 400)), "resnet": (resnet, (12, 3, 8, 8))}
every_model = pytest.mark.parametrize("name", MODELS)


class Training:
    """What anybody would write around the bank and the optimiser."""

    def __init__(self, name: str, seed: int = 0, **options):
        build, shape = MODELS[name]
        self.model = build(seed)
        self.bank = bank_of(self.model)
        parameters = self.bank.parameters()
        self.optimizer = GatedOptimizer(
            torch.optim.AdamW(self.model.parameters(), **options),
            {layer.name: (parameters[layer.name], layer) for layer in self.bank.layers},
            self.bank.gates(),
        )
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(*shape, generator=generator)
        self.labels = torch.arange(len(self.x)) % CLASSES

    def step(self, *choices) -> float:
        """A step on some sub-networks at once; the loss of the last one."""
        self.optimizer.zero_grad()
        for choice in choices:
            with self.bank.apply(choice):
                loss = F.cross_entropy(scores(self.model, self.x), self.labels)
                loss.backward()
        gate = self.bank.union(*choices)
        self.optimizer.gate_gradients(gate)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step(gate)
        return loss.item()

    def loss(self, choice) -> float:
        """As trained, with the batch's statistics, which do not enter the running ones."""
        norms = [part for part in self.model.modules() if isinstance(part, nn.BatchNorm2d)]
        before = [part.momentum for part in norms]
        try:
            for part in norms:
                part.momentum = 0.0
            with torch.no_grad(), self.bank.apply(choice):
                return F.cross_entropy(scores(self.model, self.x), self.labels).item()
        finally:
            for part, momentum in zip(norms, before, strict=True):
                part.momentum = momentum

    def weights(self) -> dict[str, torch.Tensor]:
        parameters = self.bank.parameters()
        return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@every_model
def test_a_mask_trains_stands_and_lets_weights_return(name):
    """Survivors learn; what is masked keeps every bit, until it outranks what has decayed."""
    training = Training(name, lr=5e-3, weight_decay=3.0)
    bank = training.bank
    parameters, start, masks = bank.parameters(), training.weights(), bank.masks(0.5)
    losses = [training.step(0.5) for _ in range(100)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameters[layer] is each for layer, each in bank.parameters().items())
    now = training.weights()
    for layer, mask in masks.items():
        assert bits(now[layer][~mask]) == bits(start[layer][~mask])
        assert (now[layer][mask] != start[layer][mask]).float().mean() > 0.9

    bank.refresh()
    for _ in range(2):
        training.step(0.5)
    later, returned = training.weights(), 0
    for layer, mask in bank.masks(0.5).items():
        back = mask & ~masks[layer]
        returned += int((later[layer][back] != start[layer][back]).sum())
        assert bits(later[layer][~mask]) == bits(now[layer][~mask])
    assert returned > 100


@every_model
def test_sub_networks_of_one_training(name):
    """All sizes learn at once; then each of them is a model by itself."""
    training = Training(name, lr=3e-3, weight_decay=0.01)
    bank, layers = training.bank, [layer.name for layer in training.bank.layers]
    sizes = (0.0, 0.4, 0.8)
    before = [training.loss(size) for size in sizes]
    for step in range(60):
        training.step(*sub_networks(layers, SupernetOptions(), 0.8, seed=0, step=step))
    after = [training.loss(size) for size in sizes]
    assert all(late < 0.75 * early for early, late in zip(before, after, strict=True))

    training.model.eval()
    dense = scores(training.model, training.x)
    for size in sizes:
        alone = MODELS[name][0](seed=9).eval()
        alone.load_state_dict(masked_state(training.model.state_dict(), bank, size), strict=True)
        kept = sum(int(torch.count_nonzero(alone.get_parameter(layer))) for layer in layers)
        total = sum(layer.rows * layer.columns for layer in bank.layers)
        assert kept == round(bank.density(size) * total)
        with bank.apply(size):
            expected = scores(training.model, training.x)
        assert torch.equal(scores(alone, training.x), expected)
        assert torch.equal(expected, dense) == (size == 0)


@every_model
def test_a_stopped_training_goes_on(name):
    """With sandwiches, whose gate is a union, and masks that are ranked anew on the way."""

    def train(training, steps):
        for step in steps:
            if step % 3 == 0:
                training.bank.refresh()
            training.step(0.3 + 0.1 * step, 0.9, 0.5)

    whole, half, other = (Training(name, seed, lr=1e-3) for seed in (0, 0, 5))
    train(whole, range(7))
    train(half, range(4))
    parts = ("model", "bank", "optimizer")
    file = io.BytesIO()
    torch.save([getattr(half, part).state_dict() for part in parts], file)
    file.seek(0)
    for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
        getattr(other, part).load_state_dict(state)
    train(other, range(4, 7))
    assert same_bits(whole.model.state_dict(), other.model.state_dict())
    assert whole.bank.digest() == other.bank.digest()


def test_the_example_of_the_docstring():
    """Another model, its data and its loss, in the words of the documentation."""
    text = inspect.cleandoc(asrprune.weight_pruning.__doc__)
    example = textwrap.dedent(text.partition("::\n\n")[2].partition("\n\nThe optimiser")[0])
    assert len(example.splitlines()) <= 20 and "import torch" in example
    model = nn.Sequential()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_module("body", nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32)))
        model.add_module("head", nn.Linear(32, 3))
    x = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    losses, weights = [], []

    def compute_loss(model, batch):
        weights.append(model.body[2].weight.detach().clone())
        loss = F.cross_entropy(model(x), batch)
        losses.append(loss.item())
        return loss

    names = {
        "model": model, "batches": [torch.arange(20) % 3] * 150, "compute_loss": compute_loss,
    }  # fmt: skip
    exec(example, names)
    assert [layer.name for layer in names["layers"]] == ["body.0.weight", "body.2.weight"]
    assert max(losses[-2:]) < 0.7 * min(losses[:2])
    assert [int(torch.count_nonzero(each)) for each in weights[:2]] == [512, 208]
    assert int(torch.count_nonzero(names["alone"]["body.2.weight"])) == 208


def test_public_names_are_what_they_say():
    """The same in any order of imports: a function is never the module of its name."""
    code = """
import asrprune.weight_pruning.{first}
import sys, types
import asrprune.weight_pruning as package
if "{first}" == "options":
    assert "torch" not in sys.modules
assert {{"masked_state", "search_sparsities", "MaskBank", "GatedOptimizer"}} <= set(dir(package))
for name in package.__all__:
    public = getattr(package, name)
    assert not isinstance(public, types.ModuleType) and public.__name__ == name, name
from asrprune.weight_pruning import *
assert callable(masked_state) and callable(search_sparsities)
try:
    package.serach_sparsities
except AttributeError as error:
    assert "has no attribute 'serach_sparsities'" in str(error)
"""
    for first in ("options", "masks.masked_weights", "search.searching"):
        words = [sys.executable, "-c", code.format(first=first)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
