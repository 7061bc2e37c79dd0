"""What ranks tell each other about pruning, through torch.distributed where it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asrprune.errors import UserError


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """One rank says what went wrong; the others should not bury it under tracebacks.

    :raises UserError: a collective inside of the block failed.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"another rank has ended, and its message says why ({reason})") from error


def sum_over_ranks(tensors: dict[str, Tensor], world_size: int) -> dict[str, Tensor]:
    """Each tensor summed over the ranks; the same bits on all of them. Collective."""
    if world_size == 1:
        return tensors
    return {name: _all_reduced(tensor) for name, tensor in tensors.items()}


def gather_from_ranks(tensors: dict[str, Tensor], world_size: int) -> list[dict[str, Tensor]]:
    """Copies of the tensors of each rank, in order, on all of them. Collective."""
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

    :param harm: what would come of a difference.
    :raises UserError: on every rank, if one has another.
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


def _all_reduced(tensor: Tensor) -> Tensor:
    moved = tensor.to(_device(), copy=True)
    with explain_lost_rank():
        dist.all_reduce(moved)
    return moved.cpu()


def _device() -> torch.device:
    """Where the group's tensors must be: NCCL has none on the CPU.

    :raises UserError: there is no group.
    """
    if not dist.is_initialized():
        raise UserError(
            "a PruningSampler of several ranks needs torch.distributed: call init_process_group "
            "before its set_epoch, state_dict or load_state_dict"
        )
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
