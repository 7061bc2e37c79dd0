"""Go on where a training stopped: find its checkpoint, refuse another training's, note changes."""

import logging
import math
from pathlib import Path
from typing import Any

import torch

from asrprune.base.errors import UserError
from asrprune.base.options import IDENTITY, REBATCH
from asrprune.config import changes, config_from_dict
from asrprune.data_pruning.record import cycle_files
from asrprune.training.checkpoint import (
    also_as,
    latest_checkpoint,
    load_checkpoint,
    number_of,
    numbered,
    set_aside,
)
from asrprune.training.sources import changed_sources, digests_of
from asrprune.training.trainer import Trainer

log = logging.getLogger(__name__)

Found = tuple[Path, dict[str, Any]]


def resume(trainer: Trainer, start_epoch: int = 0) -> None:
    """Go on from the last checkpoint of the trainer's folder, if there is one.

    With ``start_epoch`` N from the end of epoch N - 1 instead; the epochs from N on, if there are
    any, are set aside with the records of their pruning. A training that has been started so once,
    and is started so again, goes on.

    Raises:
        UserError: that checkpoint is of another model, data or set of options.
    """
    found = _go_back(trainer, start_epoch) if start_epoch else latest_checkpoint(trainer.folder)
    if found is None:
        trainer.begin()
        trainer.start_epoch = start_epoch
        return
    path, state = found
    rebatched = _refuse_another_training(trainer, path, state)
    trainer.load_state_dict(state)
    trainer.start_epoch = start_epoch or trainer.start_epoch
    at = trainer.position
    if trainer.ranks.first and not at.batches:  # saved where an epoch ended
        epoch_file = trainer.folder / f"epoch-{at.epoch - 1}.pt"
        if not epoch_file.exists():  # removed by hand
            also_as(path, epoch_file)
    within = at.batches > 0
    if rebatched:
        trainer.restart_epoch()
    if trainer.ranks.first:
        log.info("going on from %s: epoch %d, step %d", path, at.epoch, at.step)
        if rebatched:
            log.warning(
                "%s changed: weights and schedule are kept, and epoch %d %s in other batches",
                ", ".join(rebatched),
                at.epoch,
                "starts again" if within else "begins",
            )
        _note_other_versions(state["versions"], trainer.identity["versions"])
        if (threads := torch.get_num_threads()) != state["threads"]:
            log.warning(
                "%d threads a rank, %d before: results agree to rounding only (training.threads)",
                threads,
                state["threads"],
            )


def _go_back(trainer: Trainer, start_epoch: int) -> Found | None:
    """The checkpoint to start an epoch from; None to start from nothing."""
    folder, ranks = trainer.folder, trainer.ranks
    found = latest_checkpoint(folder)
    if found is None and start_epoch > 1:
        raise UserError(f"--start-epoch {start_epoch}: there is no checkpoint in {folder}")
    if found is None or found[1]["start_epoch"] == start_epoch:
        return found
    path = folder / f"epoch-{start_epoch - 1}.pt"
    if start_epoch > 1 and not path.is_file():
        newest = [epoch.stem for epoch in numbered(folder, "epoch")]
        raise UserError(
            f"--start-epoch {start_epoch}: {path} does not exist; there are: "
            f"{', '.join(newest) or 'none'}"
        )
    state = load_checkpoint(path) if start_epoch > 1 else None
    ranks.barrier()  # all have read before the first one renames
    if ranks.first:
        later = numbered(folder, "checkpoint")
        later += [epoch for epoch in numbered(folder, "epoch") if number_of(epoch) >= start_epoch]
        # a cycle that has begun before goes on; its plan was made then
        first_cycle = math.ceil((start_epoch - 1) / trainer.config.data_pruning.cycle)
        records = cycle_files(folder / "pruning")
        later += [path for cycle, path in records.items() if cycle >= first_cycle]
        for file in later:
            set_aside(file)
    ranks.barrier()
    return (path, state) if state else None


def _note_other_versions(before: dict[str, str], now: dict[str, str]) -> None:
    changed = [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        log.warning("results agree to rounding only, because of %s", ", ".join(changed))


def _refuse_another_training(trainer: Trainer, path: Path, state: dict[str, Any]) -> list[str]:
    """Check that a checkpoint is of this training; returns the changes that make other batches."""
    rebatched = []
    if state["world_size"] != trainer.ranks.world:
        rebatched.append(f"the number of ranks ({state['world_size']} -> {trainer.ranks.world})")
    refused = []
    for key, old, new, kind in changes(config_from_dict(state["config"]), trainer.config):
        if kind == IDENTITY:
            refused.append(f"{key} ({old} -> {new})")
        elif kind == REBATCH:
            rebatched.append(f"{key} ({old} -> {new})")
    names = {"data_digest": "the training data", "tokenizer_digest": "the tokenizer"}
    refused += [text for key, text in names.items() if state[key] != trainer.identity[key]]
    if before := state.get("sources"):
        refused += [
            f"{name} (it holds another one than this training began with)"
            for name in changed_sources(before, digests_of(trainer.config, trainer.data.languages))
        ]
    if refused:
        raise UserError(
            f"{path} belongs to another training; changed: {'; '.join(refused)}. Choose another "
            "--tag (of a second training: --pathways-tag) to train this one beside it (with "
            f"--init-from {path}, from its weights), or delete {trainer.folder} to start again."
        )
    return rebatched
