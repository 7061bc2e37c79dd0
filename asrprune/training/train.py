"""Train a transducer; the same command goes on from the last checkpoint if there is one.

Further words of the form ``key=value`` change the config, such as ``training.optimizer.lr=2e-3``.
"""

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asrprune.arguments import true_or_false
from asrprune.config import Config, changes, config_from_dict, load_config, save_config
from asrprune.errors import UserError
from asrprune.options import IDENTITY, REBATCH

if TYPE_CHECKING:  # a dry run loads the config without torch
    from asrprune.training.distributed import Ranks
    from asrprune.training.trainer import Trainer

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune train``."""
    parser.add_argument("--config", type=Path, required=True, help="a YAML file")
    parser.add_argument("--exp-dir", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--world-size", type=int, default=1, help="ranks on this machine")
    parser.add_argument("--max-duration", type=float, help="data.max_duration: seconds a batch")
    parser.add_argument("--epochs", type=int, help="training.epochs")
    parser.add_argument("--dry-run", type=true_or_false, default=False, help="load the config only")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> int:
    """Train, or resume."""
    short = {"data.max_duration": args.max_duration, "training.epochs": args.epochs}
    overrides = [f"{key}={value}" for key, value in short.items() if value is not None]
    config = load_config(args.config, [*overrides, *args.overrides])
    if args.dry_run:
        sys.stdout.write(f"{args.config}: ok\n")
        return 0
    if args.world_size > 1 and "RANK" not in os.environ:
        return _launch_ranks(args.world_size)
    return _train(config, args)


def _launch_ranks(world_size: int) -> int:
    """Start this command once a rank, as torchrun does; returns the exit status."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    launcher = ["--standalone", f"--nproc-per-node={world_size}"]
    try:
        torchrun([*launcher, "-m", "asrprune.cli", *sys.argv[1:]])
    except SignalException as error:  # passed on to the ranks, which have saved and ended
        return 128 + error.sigval
    except ChildFailedError as error:  # the rank has said why
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


def _train(config: Config, args: argparse.Namespace) -> int:
    import torch

    from asrprune.environment import git_state, machine, versions
    from asrprune.training.checkpoint import remove_leftovers
    from asrprune.training.distributed import start_ranks, stop_ranks
    from asrprune.training.metrics import log_to_file

    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    ranks = start_ranks(config.training.device)
    handler = lock = None
    try:
        if ranks.first:
            args.exp_dir.mkdir(parents=True, exist_ok=True)
            lock = _lock(args.exp_dir)
            remove_leftovers(args.exp_dir)
            handler = log_to_file(args.exp_dir / "log" / "train.log")
            log.info("versions: %s; git: %s; machine: %s", versions(), git_state(), machine())
        else:
            logging.getLogger().setLevel(logging.WARNING)
        trainer = build_trainer(config, ranks, args.exp_dir, args.manifest_dir, args.lang_dir)
        resume(trainer)
        if ranks.first:
            log.info("config:\n%s", save_config(config, args.exp_dir / "config.yaml").rstrip())
            _write_command(args.exp_dir)
        if config.training.oom_scan:
            scan_memory(trainer, args.manifest_dir)
        stopped_by = trainer.run()
        if not ranks.first:
            return 128 + stopped_by if stopped_by else 0
        if stopped_by:
            log.info(
                "interrupted: saved checkpoint-%d.pt; the same command goes on from there",
                trainer.position.step,
            )
            return 128 + stopped_by
        log.info("trained %d epochs, %d steps", config.training.epochs, trainer.position.step)
        return 0
    except UserError as error:
        if handler:  # the verb's caller prints it; the log file holds it as well
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, str(error), (), None))
        raise
    finally:
        if handler:
            logging.getLogger().removeHandler(handler)
            handler.close()
        if lock:
            lock.close()
        stop_ranks()


def build_trainer(
    config: Config, ranks: "Ranks", folder: Path, manifest_dir: Path, lang_dir: Path
) -> "Trainer":
    """Model, data and trainer, at the start of a training."""
    import torch

    from asrprune.corpus.batches import make_sampler, open_cuts, training_dataset
    from asrprune.corpus.tokenizer import load_tokenizer
    from asrprune.environment import versions
    from asrprune.training.trainer import Trainer, TrainingData
    from asrprune.transducer.loss import resolve_backend
    from asrprune.transducer.model import build_model

    data, seed = config.data, config.seed
    tokenizer = load_tokenizer(lang_dir)
    cuts = open_cuts(manifest_dir, data.corpus, "train", data.lazy)
    about = read_statistics(manifest_dir, data.corpus)
    if (bins := len(about["feature_mean"])) != config.model.num_features:
        raise UserError(
            f"model.num_features={config.model.num_features}, but {manifest_dir} holds features of "
            f"{bins} mel bins"
        )
    torch.manual_seed(seed)
    model = build_model(config.model, config.loss, tokenizer.vocab_size)
    for name in ("feature_mean", "feature_std"):
        getattr(model, name).copy_(torch.tensor(about[name]))
    model.to(ranks.device)
    ranks.broadcast(model.state_dict().values())
    training_data = TrainingData(
        make_sampler(cuts, about["train"]["duration_bins"], data, seed, ranks.rank, ranks.world),
        training_dataset(tokenizer, data, seed),
        about["train"]["seconds"],
        {name: open_cuts(manifest_dir, data.corpus, name) for name in data.dev},
    )
    trainer = Trainer(config, model, training_data, ranks, folder)
    trainer.identity = {
        # the bins decide the batches as much as the cuts do
        "data_digest": f"{about['train']['digest']} {about['train']['duration_bins']}",
        "tokenizer_digest": tokenizer.digest,
        "vocab_size": tokenizer.vocab_size,
        "versions": {**versions(), "loss backend": resolve_backend(config.loss.backend)},
    }
    if ranks.first:
        count = sum(parameter.numel() for parameter in model.parameters())
        log.info("model: %.2f M parameters", count / 1e6)
        log.info("data: %d cuts, %.2f h", about["train"]["cuts"], training_data.seconds / 3600)
    return trainer


def read_statistics(manifest_dir: Path, corpus: str) -> dict[str, Any]:
    """What the validate stage measured of the training set."""
    from asrprune.files import read_json

    path = manifest_dir / f"{corpus}_statistics.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; the validate stage (3) makes it")
    return read_json(path)


def resume(trainer: "Trainer") -> None:
    """Go on from the last checkpoint of the trainer's folder, if there is one.

    :raises UserError: that checkpoint is of another model, data or set of options.
    """
    import torch

    from asrprune.training.checkpoint import also_as, latest_checkpoint

    found = latest_checkpoint(trainer.folder)
    if found is None:
        return
    path, state = found
    rebatched = _refuse_another_training(trainer, path, state)
    trainer.load_state_dict(state)
    at = trainer.position
    if trainer.ranks.first and not at.batches:  # saved where an epoch ended
        epoch_file = trainer.folder / f"epoch-{at.epoch - 1}.pt"
        if not epoch_file.exists():  # removed by hand
            also_as(path, epoch_file)
    if rebatched:
        trainer.restart_epoch()
    if trainer.ranks.first:
        log.info("going on from %s: epoch %d, step %d", path, at.epoch, at.step)
        if rebatched:
            log.warning(
                "%s changed: weights and schedule are kept, and epoch %d starts again in other "
                "batches",
                ", ".join(rebatched),
                at.epoch,
            )
        _note_other_versions(state["versions"], trainer.identity["versions"])
        if (threads := torch.get_num_threads()) != state["threads"]:
            log.warning(
                "%d threads a rank, %d before: results agree to rounding only (training.threads)",
                threads,
                state["threads"],
            )


def _note_other_versions(before: dict[str, str], now: dict[str, str]) -> None:
    changed = [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        log.warning("results agree to rounding only, because of %s", ", ".join(changed))


def _refuse_another_training(trainer: "Trainer", path: Path, state: dict[str, Any]) -> list[str]:
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
    if refused:
        raise UserError(
            f"{path} belongs to another training; changed: {'; '.join(refused)}. Choose another "
            f"--tag to train this one beside it, or delete {trainer.folder} to start again."
        )
    return rebatched


def scan_memory(trainer: "Trainer", manifest_dir: Path) -> None:
    """Try the largest batches of the present epoch, found with a sampler of its own."""
    from asrprune.corpus.batches import make_sampler, open_cuts
    from asrprune.training.guards import largest_batches

    config = trainer.config
    bins = read_statistics(manifest_dir, config.data.corpus)["train"]["duration_bins"]
    cuts = open_cuts(manifest_dir, config.data.corpus, "train", config.data.lazy)
    ranks = trainer.ranks
    sampler = make_sampler(cuts, bins, config.data, config.seed, ranks.rank, ranks.world)
    sampler.set_epoch(trainer.position.epoch)
    largest = largest_batches(sampler)
    trainer.scan_memory(largest)
    log.info("the largest %d batches of the epoch fit into memory", len(largest))


def _lock(folder: Path) -> Any:
    """Hold the folder's lock until the returned file is closed (or the process ends)."""
    import fcntl

    lock = open(folder / ".lock", "w")  # noqa: SIM115 (open as long as the training runs)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UserError(
            f"another training is running in {folder}; wait for it, stop it, or choose a --tag"
        ) from error
    return lock


def _write_command(folder: Path) -> None:
    """Write ``run.sh``, which repeats this training."""
    from asrprune.files import write_text

    command = shlex.join(["asrprune", *sys.argv[1:]])
    path = folder / "run.sh"
    write_text(path, f"#!/usr/bin/env bash\ncd {shlex.quote(os.getcwd())} || exit 1\n{command}\n")
    path.chmod(0o755)
