"""The ranks of a training: who am I, and sums over all of us. One process needs no setup.

Gradients are reduced here, as one flat tensor after the backward pass, and not by
``DistributedDataParallel``: the layout of the reduction is then fixed (DDP rebuilds its buckets
after the first step, which changes the bits with three ranks or more), a parameter without a
gradient on some rank is no special case, and accumulated micro-batches need no ``no_sync``.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from asrprune.base.collectives import explain_lost_rank
from asrprune.base.devices import device_of_rank


@dataclass
class Ranks:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device
    store: dist.Store | None = None
    """Where the ranks of a group meet; one rank alone has none."""

    @property
    def first(self) -> bool:
        """Whether this rank writes files and logs."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all ranks, in place."""
        if self.world > 1:
            with explain_lost_rank():
                dist.all_reduce(values)
        return values

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over all ranks (in float64)."""
        if self.world == 1:
            return list(numbers)
        # NCCL has no CPU tensors; float64 sums of counts are exact in any order
        return self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def reduce_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all ranks; a missing gradient counts as zero, on one rank too."""
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.world == 1:
            return
        flat = self.sum(torch.cat([p.grad.flatten() for p in parameters]))
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.grad.copy_(flat[start:end].view_as(parameter))
            start = end

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in their order; they are pickled, so small. Collective."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with explain_lost_rank():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.world > 1:
            with explain_lost_rank():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            with explain_lost_rank():
                dist.barrier()

    def leave(self, together: bool = True) -> None:
        """Leave the group, if there is one.

        Args:
            together: all ranks come here. They then wait for each other, in the store: a collective
                may still run on one rank when it is over on another, and fails if that one closes
                its connections. Alone, a rank leaves NCCL's group by its end: that one's way out
                may wait for the others, while they wait for this rank.
        """
        if not dist.is_initialized():
            return
        free = dist.get_backend() != "nccl"
        try:
            if together and self.store:
                with explain_lost_rank():
                    self._meet("leaving", self.world)
                    # the first one may hold the store, and so goes last
                    self._meet("gone", self.world - 1, comes=not self.first, waits=self.first)
                free = True
        finally:
            if free:
                dist.destroy_process_group()

    def _meet(self, place: str, count: int, comes: bool = True, waits: bool = True) -> None:
        if comes and self.store.add(place, 1) == count:
            self.store.set(f"all {place}", "")
        if waits:
            self.store.wait([f"all {place}"])


def start_ranks(device: str = "auto", init_method: str = "env://") -> Ranks:
    """Join the ranks that ``torchrun`` started (its RANK, LOCAL_RANK and WORLD_SIZE), or be alone.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = device_of_rank(device, int(os.environ.get("LOCAL_RANK", 0)))
    if world == 1:
        return Ranks(rank, world, place)
    limit = timedelta(minutes=10)
    store, rank, world = next(dist.rendezvous(init_method, rank, world, timeout=limit))
    store.set_timeout(limit)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=limit, world_size=world, rank=rank, store=store)
    return Ranks(rank, world, place, store)
