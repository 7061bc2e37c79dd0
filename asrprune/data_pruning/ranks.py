"""What ranks tell each other about pruning, through torch.distributed where it runs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asrprune.errors import UserError

# What gloo, NCCL and torch's store say where a process at the other end is gone or silent.
_GONE = re.compile(
    r"closed by peer|connection (reset|refused|was likely closed)|broken pipe|socket closed"
    r"|timed out|timeout|remote (process|error)|peer .*exited|recvvalue failed",
    re.IGNORECASE,
)
_PIECE = 1 << 20  # elements that are on a GPU at a time


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """One rank says what went wrong; the others should not bury it under tracebacks.

    Raises:
        UserError: a collective inside of the block failed. Whether another rank has ended, or the
            collective itself was wrong, is told apart by what torch says.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if _GONE.search(str(error)):
            message = f"another rank has ended or hangs, and its message says why ({reason})"
        else:
            message = (
                f"torch.distributed failed on this rank ({reason}). All ranks must make the same "
                "calls in the same order, with the backend that init_process_group was given."
            )
        raise UserError(message) from error


def sum_over_ranks(tensors: dict[str, Tensor], world_size: int) -> dict[str, Tensor]:
    """Sum each tensor over the ranks; the same bits on all of them. Collective.

    With NCCL a tensor passes through the GPU in pieces of 8 MB at most.
    """
    if world_size == 1:
        return tensors
    return {name: _summed(tensor) for name, tensor in tensors.items()}


def gather_from_ranks(tensors: dict[str, Tensor], world_size: int) -> list[dict[str, Tensor]]:
    """Copies of small tensors of each rank, in order, on all of them. Collective."""
    if world_size == 1:
        return [{name: tensor.clone() for name, tensor in tensors.items()}]
    parts: list[dict[str, Tensor]] = [{} for _ in range(world_size)]
    for name, tensor in tensors.items():
        gathered = [torch.empty_like(tensor, device=_device()) for _ in range(world_size)]
        with explain_lost_rank():
            dist.all_gather(gathered, tensor.to(_device()))
        for part, values in zip(parts, gathered, strict=True):
            part[name] = values.cpu()
    return parts


def check_equal(
    what: str,
    digest: str,
    world_size: int,
    harm: str = "cuts would be lost and others doubled",
    **numbers: Any,
) -> None:
    """Compare a digest (hexadecimal) between the ranks. Collective.

    Args:
        harm: what would come of a difference.

    Raises:
        UserError: on every rank, if one has another.
    """
    if world_size == 1:
        return
    own = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)
    digests = [part["digest"] for part in gather_from_ranks({"digest": own}, world_size)]
    others = [rank for rank, other in enumerate(digests) if not torch.equal(other, digests[0])]
    if others:
        about = ", ".join(f"{name} {value}" for name, value in numbers.items())
        raise UserError(
            f"{what} of rank{'s' if len(others) > 1 else ''} {', '.join(map(str, others))} differs "
            f"from that of rank 0 ({about}): {harm} without an error. Start all ranks with the "
            "same manifest, options and versions, from the same checkpoint."
        )


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone().contiguous()
    flat, device = total.view(-1), _device()
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        moved = piece.to(device)  # the same memory, where the group works on the CPU
        with explain_lost_rank():
            dist.all_reduce(moved)
        piece.copy_(moved)
    return total


def _device() -> torch.device:
    """Where the group's tensors must be: NCCL has none on the CPU.

    Raises:
        UserError: there is no group.
    """
    if not dist.is_initialized():
        raise UserError(
            "a PruningSampler of several ranks needs torch.distributed: call init_process_group "
            "before its set_epoch, end_cycle or gathered_state_dict"
        )
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
