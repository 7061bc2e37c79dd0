"""Exchange values of data pruning between ranks with torch.distributed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asrprune.base.errors import UserError

# Error texts of gloo, NCCL and torch's store if a remote process has ended or does not answer.
_GONE = re.compile(
    r"closed by peer|connection (reset|refused|was likely closed)|broken pipe|socket closed"
    r"|timed out|timeout|remote (process|error)|peer .*exited|recvvalue failed",
    re.IGNORECASE,
)
_PIECE = 1 << 20  # maximum number of elements of a tensor that are moved to a GPU at a time


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """Turn the error of a failed collective in the block into one short message.

    The rank that failed first prints the cause. Tracebacks of the other ranks would hide this
    message.

    Raises:
        UserError: a collective in the block failed. The text of torch's error decides whether the
            message blames another rank that has ended, or a wrong call on this rank.
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
    """Return the sum of each tensor over the ranks. Collective.

    The sums have the same bits on all ranks. With NCCL, a tensor passes through the GPU in pieces
    of at most 8 MB.

    Raises:
        UserError: there is no process group, or the collective failed.
    """
    if world_size == 1:
        return tensors
    return {name: _summed(tensor) for name, tensor in tensors.items()}


def gather_from_ranks(tensors: dict[str, Tensor], world_size: int) -> list[dict[str, Tensor]]:
    """Return copies of each rank's small tensors, in the order of the ranks. Collective.

    Raises:
        UserError: there is no process group, or the collective failed.
    """
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
    harm: str = "some cuts would be lost and others repeated",
    **numbers: Any,
) -> None:
    """Check that all ranks have the same digest. Collective.

    Args:
        what: the object that was digested, for the message.
        digest: the digest of this rank, hexadecimal.
        world_size: number of ranks.
        harm: the effect of a difference, for the message.
        **numbers: names and numbers for the message, such as ``cycle=3``.

    Raises:
        UserError: on every rank, if the digest of a rank differs from that of rank 0.
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
        moved = piece.to(device)  # shares the memory of `piece` if the group works on the CPU
        with explain_lost_rank():
            dist.all_reduce(moved)
        piece.copy_(moved)
    return total


def _device() -> torch.device:
    """Return the device for the tensors of the process group: with NCCL a GPU, otherwise the CPU.

    Raises:
        UserError: there is no process group.
    """
    if not dist.is_initialized():
        raise UserError(
            "a PruningSampler of several ranks needs torch.distributed. Call init_process_group "
            "before its set_epoch, end_cycle or gathered_state_dict."
        )
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
