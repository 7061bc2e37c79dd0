"""What stops a training says why, names the cuts, and gives a second Ctrl-C its way."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training.guards import (
    Interrupt,
    check_gradient,
    check_losses,
    explain_no_memory,
    largest_batches,
)

BATCH = {
    "features": torch.zeros(3, 500, 80),
    "tokens": torch.zeros(3, 17, dtype=torch.int64),
    "cut_ids": ["one", "two", "three"],
    "seconds": 14.6,
}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_no_memory_is_explained(error):
    with pytest.raises(UserError) as caught, explain_no_memory(BATCH):
        raise error
    message = str(caught.value)
    for part in ("3 cuts, 15 s", "500 frames", "17 tokens", "one, two, three", "--max-duration"):
        assert part in message
    assert caught.value.__cause__ is error


def test_a_real_allocation_that_fails():
    with pytest.raises(UserError, match="out of memory on a batch"), explain_no_memory(BATCH):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("x"), UserError("x")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, explain_no_memory(BATCH):
        raise error
    assert caught.value is error


def test_bad_losses_are_named():
    check_losses(torch.zeros(3), BATCH)
    bad = torch.tensor([float("nan"), 0.0, float("inf")])
    with pytest.raises(UserError, match="not finite for cuts one, three. Nothing was updated"):
        check_losses(bad, BATCH)
    many = {"cut_ids": [f"cut{index}" for index in range(20)]}
    with pytest.raises(UserError, match=r"cut0, .*cut7 and 12 more\."):
        check_losses(torch.full((20,), float("nan")), many)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_bad_gradients_are_named(norm):
    check_gradient(3.0, [BATCH])
    with pytest.raises(UserError, match="cuts one, two, three, four. .*training.optimizer.lr"):
        check_gradient(norm, [BATCH, {"cut_ids": ["four"]}])


def cuts_of(*durations: float) -> list:
    return [SimpleNamespace(duration=duration) for duration in durations]


def test_largest_batches():
    many, long, padded = cuts_of(*[1.0] * 30), cuts_of(25.0), cuts_of(20.0, *[1.0] * 4)
    epoch = [cuts_of(3.0, 3.0), many, cuts_of(4.0), padded, long]
    found = largest_batches(iter(epoch))
    assert len(found) == 3 and all(any(one is other for other in found)
                                   for one in (many, long, padded))  # fmt: skip
    assert largest_batches([]) == []
    one = cuts_of(9.0, 9.0)  # the largest in every way is tried once
    assert largest_batches([cuts_of(1.0), one, cuts_of(2.0)]) == [one]


@pytest.fixture
def handled():
    """Signals that reach the handlers from before."""
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: seen.append(number)) for n in numbers}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_noted_and_the_handlers_come_back(number, handled):
    with Interrupt() as interrupt:
        assert not interrupt.signal
        os.kill(os.getpid(), number)
        assert interrupt.signal == number and not handled
    os.kill(os.getpid(), number)
    assert handled == [number]


def test_a_second_ctrl_c_stops_at_once(handled):
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert handled == [signal.SIGINT] and interrupt.signal == signal.SIGINT


def test_a_second_sigterm_is_the_same_request(handled):
    """A batch system sends one to all processes, and torchrun passes on its own."""
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert handled == [] and interrupt.signal == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert handled == [signal.SIGINT]
    with pytest.raises(ZeroDivisionError), Interrupt():
        raise ZeroDivisionError
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled[-1] == signal.SIGTERM
