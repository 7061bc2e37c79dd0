"""Start the ranks of a training, and compute sums over the ranks. One process needs no setup.

Gradients are reduced here, as one flat tensor after the backward pass. ``DistributedDataParallel``
(DDP) is not used, for three reasons. The layout of the reduction stays fixed: DDP rebuilds its
buckets after the first step, which changes the bits with three ranks or more. A parameter without a
gradient on some rank is no special case. Accumulated micro-batches need no ``no_sync``.
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
    """Hold the rank of this process, and communicate with the other ranks of the training."""

    rank: int
    world: int  # number of ranks
    device: torch.device
    store: dist.Store | None = None  # where the ranks of a group meet; one rank alone has none

    @property
    def first(self) -> bool:
        """Return whether this is the first rank, which writes files and logs."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks in place, and return it. Collective."""
        if self.world > 1:
            with explain_lost_rank():
                dist.all_reduce(values)
        return values

    def total(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all ranks, in float64. Collective."""
        if self.world == 1:
            return list(numbers)
        # NCCL needs tensors on the GPU. In float64, sums of counts are exact in any order.
        return self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def reduce_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all ranks in place. Collective.

        A missing gradient is set to zero, also if there is a single rank.
        """
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
        """Return the values of all ranks, ordered by rank. Collective.

        Values are pickled, so they should be small.
        """
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with explain_lost_rank():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy the tensors of the first rank to all ranks, in place. Collective."""
        if self.world > 1:
            with explain_lost_rank():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all ranks. Collective."""
        if self.world > 1:
            with explain_lost_rank():
                dist.barrier()

    def leave(self, together: bool = True) -> None:
        """Leave the group of ranks, if there is one.

        Args:
            together: whether all ranks call this method. If so, the ranks wait for each other in
                the store. A collective that is over on one rank may still run on another rank, and
                would fail if the first of them closed its connections. If not, a rank does not
                destroy NCCL's group: this call could wait for the other ranks while they wait for
                this rank. The group then ends with the process.
        """
        if not dist.is_initialized():
            return
        free = dist.get_backend() != "nccl"
        try:
            if together and self.store:
                with explain_lost_rank():
                    self._meet("leaving", self.world)
                    # the first rank may hold the store, so it leaves last
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
    """Join the ranks that ``torchrun`` started. Without ``torchrun``, return a single rank.

    The environment variables RANK, LOCAL_RANK and WORLD_SIZE are set by ``torchrun``.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        init_method: URL by which the ranks meet, see `torch.distributed.rendezvous`.

    Raises:
        UserError: the device is ``cuda``, and there is no GPU.
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
