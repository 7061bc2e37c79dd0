"""Laws of applying masks: what is computed and differentiated inside, and that all is as before."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from asrprune.base.errors import UserError
from tests.weight_pruning.bank_cases import TOKENS, Odd, bank_of, bits, cnn, wav2vec2


def look(module: nn.Module) -> dict:
    """All of a module that has to be as before."""
    return {
        name: (id(parameter), parameter.data_ptr(), bits(parameter), parameter.requires_grad)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def zeroed(bank, module: nn.Module, choice) -> nn.Module:
    """A copy of the module whose masked weights are zeros."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for name, mask in bank.masks(choice).items():
            twin.get_parameter(name)[~mask] = 0
    return twin


def first(result) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


MODELS = {
    "odd": (Odd, lambda: TOKENS),
    "cnn": (cnn, lambda: torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))),
    "wav2vec2": (wav2vec2, lambda: torch.randn(2, 400, generator=torch.Generator().manual_seed(0))),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("block", ["8x1", "1x1", "4x4"])
@pytest.mark.parametrize("model", MODELS)
def test_computes_as_with_zeroed_weights_and_leaves_everything(model, block, training):
    build, batch = MODELS[model]
    module, x = build().train(training), batch()
    bank = bank_of(module, block)
    before, names = look(module), list(module.state_dict())
    bank.name("de", 0.7)
    for choice in (0.0, 0.5, 0.9, "de"):
        twin = zeroed(bank, module, choice)
        expected_output = first(twin(x))
        expected_output.square().sum().backward()
        masks = bank.masks(choice)
        for all_gradients in (False, True):
            with bank.apply(choice, all_gradients):
                assert list(module.state_dict()) == names
                got = first(module(x))
                got.square().sum().backward()
            assert torch.equal(got, expected_output)
            assert look(module) == before
            for name, parameter in module.named_parameters():
                expected = twin.get_parameter(name).grad
                assert (parameter.grad is None) == (expected is None), name
                if expected is not None and name in masks and not all_gradients:
                    expected = torch.where(masks[name], expected, 0)
                assert expected is None or torch.equal(parameter.grad, expected), name
            module.zero_grad()


@pytest.mark.parametrize("model", MODELS)
def test_a_functional_call_computes_the_same_with_gradients_inside_the_mask(model):
    build, batch = MODELS[model]
    module, x = build().eval(), batch()
    bank = bank_of(module)
    with bank.apply(0.6):
        inside = first(module(x))
        inside.square().sum().backward()
    expected = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    outside = first(functional_call(module, bank.masked(0.6), (x,)))
    assert torch.equal(inside, outside)
    outside.square().sum().backward()
    masks = bank.masks(0.6)
    for name, parameter in module.named_parameters():
        if name in masks and parameter.requires_grad:
            assert not parameter.grad[~masks[name]].any()
            assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype):
    module = nn.Linear(16, 16).to(dtype)
    bank = bank_of(module)
    before = look(module)
    with bank.apply(0.5):
        assert module.weight.dtype == dtype
        inside = module.weight.clone()
    assert look(module) == before
    assert bits(inside) == bits(torch.where(bank.masks(0.5)["weight"], module.weight, 0))


def test_zeros_are_exact_where_weights_are_not_finite():
    module = nn.Linear(8, 8)
    bank = bank_of(module, "1x1")
    out = ~bank.masks(0.5)["weight"]
    with torch.no_grad():
        module.weight[out] = -float("inf")
    with bank.apply(0.5):
        assert bits(module.weight[out]) == bits(torch.zeros(int(out.sum())))
    assert not bank.masked(0.5)["weight"][out].any()


def test_an_exception_leaves_everything():
    module = Odd()
    bank = bank_of(module)
    before = look(module)
    with pytest.raises(ZeroDivisionError), bank.apply(0.5):
        raise ZeroDivisionError
    assert look(module) == before
    with bank.apply(0.5):  # and it can go on
        pass


def test_only_one_mask_at_a_time():
    module = Odd()
    bank = bank_of(module)
    before = look(module)
    with bank.apply(0.5):
        for call in (bank.cached, bank.masked):
            with pytest.raises(UserError, match="while a mask is applied"):
                call(0.5)
        with pytest.raises(UserError, match="cannot refresh while a mask is applied"):
            bank.refresh()
        with pytest.raises(UserError, match="apply another mask"), bank.apply(0.7):
            pass
        assert bank.density(0.5) == pytest.approx(0.5, abs=0.01)
    assert look(module) == before


def step(module):
    optimizer = torch.optim.SGD([module.point.weight], lr=0.1)
    module.point.weight.grad = torch.ones_like(module.point.weight)
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [step, nn.Module.half, lambda module: module.load_state_dict(Odd(seed=1).state_dict())],
)
def test_a_change_inside_is_lost_and_said(change):
    module = Odd()
    bank = bank_of(module)
    layers = {layer.name for layer in bank.layers}
    before = look(module)
    lost = pytest.raises(UserError, match="step the optimizer, load and move the model outside")
    with lost, bank.apply(0.5):
        change(module)
    after = look(module)
    assert all(after[name] == before[name] for name in layers)


def test_backward_on_the_other_side_is_refused():
    """It would give gradients by the wrong weights: autograd keeps the parameter itself."""
    module = cnn()
    bank = bank_of(module)
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    with bank.apply(0.5):
        loss = module(x).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = module(x).sum()
    with bank.apply(0.5), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_sub_networks_in_one_autocast():
    """Which keeps copies of weights in low precision: each sub-network needs its own."""
    module, x = Odd().eval(), TOKENS
    bank = bank_of(module)

    def output(choice):
        with bank.apply(choice), torch.autocast("cpu", torch.bfloat16):
            return module(x)

    alone = [output(choice) for choice in (0.0, 0.8)]
    assert not torch.equal(*alone)
    with torch.autocast("cpu", torch.bfloat16):
        dense = module(x)
        together = [output(choice) for choice in (0.0, 0.8)]
        assert torch.equal(module(x), dense)
    assert all(map(torch.equal, alone, together)) and torch.equal(dense, alone[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    module = Odd().eval()
    bank = bank_of(module)
    twin = zeroed(bank, module, 0.5)
    with mode():
        expected = twin(TOKENS)
        with bank.apply(0.5):
            got = module(TOKENS)
        cached = bank.cached(0.5)
    assert torch.equal(got, expected)
    with bank.apply(cached):  # what was made there can be trained with
        module(TOKENS).sum().backward()
    assert module.up.weight.grad is not None and not module.up.weight.is_inference()


def test_gradients_of_several_masks_add_up():
    module = Odd().eval()
    bank = bank_of(module)
    for choice in (0.3, 0.9):
        with bank.apply(choice):
            module(TOKENS).square().sum().backward()
    together = module.point.weight.grad.clone()
    sums = torch.zeros_like(together)
    for choice in (0.3, 0.9):
        twin = zeroed(bank, module, choice)
        twin.zero_grad()
        twin(TOKENS).square().sum().backward()
        sums += torch.where(bank.masks(choice)["point.weight"], twin.point.weight.grad, 0)
    assert torch.equal(together, sums)


def test_cached_sub_networks_switch_and_grow_stale():
    module = Odd().eval()
    bank = bank_of(module)
    cached = {choice: bank.cached(choice) for choice in (0.2, 0.8)}
    expected = {choice: zeroed(bank, module, choice)(TOKENS) for choice in cached}
    before = look(module)
    for choice in (0.2, 0.8, 0.2):
        with bank.apply(cached[choice]):
            assert torch.equal(module(TOKENS), expected[choice])
        with bank.apply(0.5):
            module(TOKENS)
        assert look(module) == before
    step(module)
    with pytest.raises(UserError, match="have changed since"), bank.apply(cached[0.2]):
        pass
    with bank.apply(bank.cached(0.2)):
        pass


def test_copies_of_the_module():
    module = Odd().eval()
    bank = bank_of(module)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(TOKENS), module(TOKENS))
    with bank.apply(0.8):
        twin = copy.deepcopy(module)  # is the sub-network
        expected = module(TOKENS)
    assert torch.equal(twin(TOKENS), expected)
    assert not torch.equal(module(TOKENS), expected)
    assert twin.up.weight is twin.again.weight


def test_training_goes_on_as_if_the_weights_were_masked():
    """Steps outside of `apply`, gradients gated: the same as a dense module of survivors."""
    module = cnn().eval()
    bank = bank_of(module)
    masks, twin = bank.masks(0.5), zeroed(bank, module, 0.5)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    masked_before = {
        name: module.get_parameter(name)[~mask].clone() for name, mask in masks.items()
    }
    optimizers = [torch.optim.SGD(some.parameters(), lr=0.05) for some in (module, twin)]
    for _ in range(5):
        with bank.apply(0.5):
            module(x).square().sum().backward()
        twin(x).square().sum().backward()
        for some, optimizer in zip((module, twin), optimizers, strict=True):
            for name, mask in masks.items():
                some.get_parameter(name).grad[~mask] = 0
            optimizer.step()
            optimizer.zero_grad()
    for name, mask in masks.items():
        weight = module.get_parameter(name)
        assert torch.equal(weight[mask], twin.get_parameter(name)[mask])
        assert torch.equal(weight[~mask], masked_before[name])
