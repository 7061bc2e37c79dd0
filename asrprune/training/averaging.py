"""Average models over training: a running mean in float64, and the mean of checkpoints on disk.

The running mean covers every ``average_period``-th step since the start. Each checkpoint contains
the running mean. The mean over the epochs from A to B follows from the running means of two
checkpoints. So ``--epoch 30 --avg 9`` averages hundreds of models and reads two files.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.base.files import write_json
from asrprune.training.checkpoint import load_checkpoint, number_of, numbered, save_checkpoint
from asrprune.training.low_rank import merged_state
from asrprune.training.model_file import description

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]


class RunningAverage:
    """Keep the float64 mean of the parameters over all updates so far."""

    def __init__(self, model: torch.nn.Module):
        self.mean: State = {
            name: torch.zeros_like(value, dtype=torch.float64)
            for name, value in model.named_parameters()
        }
        self.count = 0

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Add the present parameters of the model to the mean."""
        self.count += 1
        means = [self.mean[name] for name, _ in model.named_parameters()]
        now = [value.double() for value in model.parameters()]
        torch._foreach_lerp_(means, now, 1 / self.count)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean and the number of updates, for a checkpoint. The mean stays float64."""
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`.

        Raises:
            UserError: the parameters have other names.
        """
        if state["mean"].keys() != self.mean.keys():
            raise UserError("the averaged model of the checkpoint has other parameters")
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)
        self.count = state["count"]


def mean_between(before: dict[str, Any] | None, after: dict[str, Any]) -> State:
    """Return the float64 mean over the updates between two states of a running average.

    For the running means m over n updates, the result is (m_a n_a - m_b n_b) / (n_a - n_b).

    Args:
        before: the earlier state; None: the start of the training.
        after: the later state.
    """
    if before is None:
        return after["mean"]
    count = after["count"] - before["count"]
    return {
        name: (value * after["count"] - before["mean"][name] * before["count"]) / count
        for name, value in after["mean"].items()
    }


def mean_of(models: list[State]) -> State:
    """Return the mean of some models in float64."""
    return {
        name: torch.stack([model[name].double() for model in models]).mean(0) for name in models[0]
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune average``."""
    parser.add_argument("--exp-dir", type=Path, required=True, help="where the epochs are")
    parser.add_argument("--epoch", type=int, default=0, help="the last one; 0: the newest")
    parser.add_argument("--avg", type=int, default=1, help="how many epochs to average")
    parser.add_argument(
        "--use-averaged-model",
        type=true_or_false,
        default=True,
        help="average over all steps of these epochs, not only over their last ones",
    )
    parser.add_argument("--output", type=Path, help="default: EXP_DIR/averaged.pt")


def main(args: argparse.Namespace) -> None:
    """Average, and write a self-contained model file and a JSON file that names the inputs.

    Raises:
        UserError: ``--avg`` is out of range, an epoch's file is missing or damaged, or the epochs
            have no update of the running mean.
    """
    last = args.epoch or _newest_epoch(args.exp_dir)
    if not 1 <= args.avg <= last:
        raise UserError(f"--avg {args.avg}: with --epoch {last} it must be between 1 and {last}")
    after = load_checkpoint(_epoch_file(args.exp_dir, last))
    if args.use_averaged_model:
        inputs = [last - args.avg, last] if last > args.avg else [last]
        before = _average_of(args.exp_dir, last - args.avg) if last > args.avg else None
        if after["average"]["count"] == (before["count"] if before else 0):
            raise UserError(
                f"no update of the averaged model lies in epochs {last - args.avg + 1} to {last}: "
                "raise --avg, pass --use-averaged-model false, or train with a lower "
                "training.average_period under another --tag"
            )
        mean = mean_between(before, after["average"])
    else:
        inputs = list(range(last - args.avg + 1, last + 1))
        names = after["average"]["mean"]
        states = [load_checkpoint(_epoch_file(args.exp_dir, n))["model"] for n in inputs]
        mean = mean_of([{name: state[name] for name in names} for state in states])
    model = {name: mean.get(name, value) for name, value in after["model"].items()}
    model = {name: value.to(after["model"][name].dtype) for name, value in model.items()}
    model = merged_state(model)
    output = args.output or args.exp_dir / "averaged.pt"
    about = description(after)
    if after.get("masking"):  # the file has all weights; the reader of the file applies masks
        masks = after["masking"]
        about["masks"] = {key: masks[key] for key in ("sparsity", "bank", "own") if key in masks}
    save_checkpoint({"model": model, **about}, output)
    write_json(
        output.with_suffix(".json"),
        {
            "epoch": last,
            "avg": args.avg,
            "use_averaged_model": args.use_averaged_model,
            "inputs": [f"epoch-{n}.pt" for n in inputs],
        },
    )
    log.info("averaged epochs %d to %d into %s", last - args.avg + 1, last, output)


def _newest_epoch(folder: Path) -> int:
    found = numbered(folder, "epoch")
    if not found:
        raise UserError(f"there is no epoch-N.pt in {folder}; the train stage (5) makes them")
    return number_of(found[-1])


def _epoch_file(folder: Path, epoch: int) -> Path:
    path = folder / f"epoch-{epoch}.pt"
    if not path.is_file():
        newest = _newest_epoch(folder)
        raise UserError(f"{path} does not exist; the newest epoch in {folder} is {newest}")
    return path


def _average_of(folder: Path, epoch: int) -> dict[str, Any]:
    return load_checkpoint(_epoch_file(folder, epoch))["average"]
