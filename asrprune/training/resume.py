"""Resume a training: find its checkpoint, refuse checkpoints of other trainings, log changes."""

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
    """Resume from the last checkpoint of the trainer's folder; without a checkpoint, begin.

    With a start epoch N, the training resumes from the end of epoch N - 1. Epochs from N on, and
    the records of their pruning, are set aside. If the last checkpoint is of a training that was
    started with the same start epoch, this training goes on.

    Args:
        trainer: the trainer.
        start_epoch: the epoch to start from; 0: resume from the last checkpoint.

    Raises:
        UserError: the checkpoint is of another model, data or set of options; or ``epoch-<N-1>.pt``
            does not exist.
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
    if trainer.ranks.first and not at.batches:  # the checkpoint is of the end of an epoch
        epoch_file = trainer.folder / f"epoch-{at.epoch - 1}.pt"
        if not epoch_file.exists():  # somebody has removed it
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
    """Return the checkpoint to start an epoch from; None to begin without a checkpoint.

    Files of this epoch and of later epochs are set aside, as `resume` describes. Collective.

    Args:
        trainer: the trainer.
        start_epoch: the epoch to start from, at least 1.

    Raises:
        UserError: there is no checkpoint of the end of the epoch before.
    """
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
    ranks.barrier()  # all ranks have read the files before the first rank renames them
    if ranks.first:
        later = numbered(folder, "checkpoint")
        later += [epoch for epoch in numbered(folder, "epoch") if number_of(epoch) >= start_epoch]
        # a cycle that began before this epoch goes on with its plan
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
    """Check that a checkpoint is of this training, and return the changes that change batches.

    Args:
        trainer: the trainer.
        path: the checkpoint, for the message.
        state: the content of the checkpoint.

    Raises:
        UserError: options, data, tokenizer or source files are those of another training.
    """
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
