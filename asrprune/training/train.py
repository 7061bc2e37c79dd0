"""Train a transducer. The same command resumes from the last checkpoint, if there is one.

Overrides ``key=value`` change the config, such as ``training.optimizer.lr=2e-3``.
"""

import argparse
import copy
import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.config import Config, load_config, save_config
from asrprune.training import launch

if TYPE_CHECKING:  # a dry run loads the config without torch
    from asrprune.training.distributed import Ranks
    from asrprune.training.trainer import Trainer

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune train``."""
    parser.add_argument("--config", type=Path, required=True, help="a YAML file")
    parser.add_argument("--exp-dir", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    launch.add_arguments(parser)
    parser.add_argument("--max-duration", type=float, help="data.max_duration: seconds a batch")
    parser.add_argument("--epochs", type=int, help="training.epochs")
    parser.add_argument(
        "--init-from", help="training.init_from: a trained model whose weights to start with"
    )
    parser.add_argument(
        "--start-epoch",
        type=int,
        default=0,
        help="go back to the start of this epoch, 1: train anew; 0: from the last checkpoint",
    )
    parser.add_argument(
        "--dry-run",
        type=true_or_false,
        default=False,
        help="load the config and lay out the model, train nothing",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> int:
    """Train or resume, and return the exit status.

    Raises:
        UserError: options are invalid or say the same twice; or see `build_trainer`, `resume` and
            `Trainer.run`.
    """
    overrides = []
    for key in ("data.max_duration", "training.epochs", "training.init_from"):
        name = key.partition(".")[2]
        if (value := getattr(args, name)) is None:
            continue
        if any(word.startswith(f"{key}=") for word in args.overrides):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} and {key}= say the same: leave one of them out")
        overrides.append(f"{key}={json.dumps(value, ensure_ascii=False)}")  # a path is no YAML
    config = load_config(args.config, [*overrides, *args.overrides])
    if args.start_epoch < 0:
        raise UserError(f"--start-epoch {args.start_epoch}: at least 1, or 0 for none")
    launch.check(args)
    if args.dry_run:
        count, pruned = _lay_out(config)
        sys.stdout.write(f"{args.config}: ok, {count / 1e6:.1f} M parameters for 500 symbols\n")
        sys.stdout.write(pruned)
        return 0
    status = launch.launch(args, sys.argv[1:])
    return _train(config, args) if status is None else status


def _lay_out(config: Config) -> tuple[int, str]:
    """Make the model without weights, to find errors before the training.

    Returns:
        The number of parameters for 500 symbols, since there is no tokenizer yet; and a table of
        the pruned layers, empty if nothing is pruned.

    Raises:
        UserError: see `asrprune.transducer.model.build_model`, `freeze`, `check_initial`,
            `check_teacher`, `groups_of` and `check_joined`.
    """
    import torch

    from asrprune.training.banks import groups_of
    from asrprune.training.freezing import freeze
    from asrprune.training.initial import check_initial
    from asrprune.training.low_rank import add_low_rank
    from asrprune.training.methods import check_joined
    from asrprune.transducer.model import build_model
    from asrprune.weight_pruning.masks.prunable import table

    with torch.device("meta"):
        model = build_model(config.model, config.loss, vocab_size=500)
    count = sum(parameter.numel() for parameter in model.parameters())
    freeze(model, config.training.freeze)
    add_low_rank(model, config)
    start = Path(config.training.init_from)
    if start.is_file():  # the file may not exist yet, or may no longer be needed
        check_initial(model, start)
    if Path(config.training.teacher).is_file():
        from asrprune.training.teacher import check_teacher  # this module imports lhotse

        check_teacher(config, model)
    if config.weight_pruning.method == "none":
        return count, ""
    check_joined(config)
    groups = groups_of(model, config.weight_pruning)
    return count, table(model, [layer for group in groups for layer in group.layers])


def _train(config: Config, args: argparse.Namespace) -> int:
    import torch

    from asrprune.base.environment import git_state, machine, versions
    from asrprune.base.locks import open_locked
    from asrprune.data_pruning.record import write_index
    from asrprune.training.distributed import start_ranks
    from asrprune.training.metrics import log_to_file
    from asrprune.training.resume import resume

    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    ranks = start_ranks(config.training.device)
    handler = lock = None
    together = False
    try:
        if ranks.first:
            lock = open_locked(
                args.exp_dir / ".lock",
                f"another training is running in {args.exp_dir}; wait for it, stop it, or choose "
                "a --tag",
            )
            handler = log_to_file(args.exp_dir / "log" / "train.log")
            log.info("versions: %s; git: %s; machine: %s", versions(), git_state(), machine())
        else:
            logging.getLogger().setLevel(logging.ERROR)  # only the first rank prints warnings
        trainer = build_trainer(config, ranks, args.exp_dir, args.manifest_dir, args.lang_dir)
        resume(trainer, args.start_epoch)
        if ranks.first:
            manifest = args.manifest_dir / f"{config.data.corpus}_cuts_train.jsonl.gz"
            write_index(args.exp_dir / "pruning", trainer.data.sampler.index, str(manifest))
            log.info("config:\n%s", save_config(config, args.exp_dir / "config.yaml").rstrip())
            _write_command(args.exp_dir)
        if config.training.oom_scan and trainer.position.epoch <= config.training.epochs:
            scan_memory(trainer)
        stopped_by = trainer.run()
        together = True
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
        if handler:  # the caller prints the error; here it goes into the log file
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, str(error), (), None))
        raise
    finally:
        if handler:
            logging.getLogger().removeHandler(handler)
            handler.close()
        if lock:
            lock.close()
        ranks.leave(together)


def build_trainer(
    config: Config, ranks: "Ranks", folder: Path, manifest_dir: Path, lang_dir: Path
) -> "Trainer":
    """Return the trainer at the start of a training, with its model and its data.

    Args:
        config: the configuration of the training.
        ranks: the processes that train together.
        folder: the folder for checkpoints.
        manifest_dir: the folder of the validated cuts (stage 3).
        lang_dir: the folder of the tokenizer (stage 4).

    Raises:
        UserError: cuts, statistics or tokenizer are missing; or they do not fit the options.
    """
    import torch

    from asrprune.base.environment import versions
    from asrprune.base.randomness import seed_global_generators
    from asrprune.data.batches import alignable, open_cuts, training_dataset
    from asrprune.data.tokenizer import load_tokenizer
    from asrprune.data_pruning.time_dropping import TimeDropping
    from asrprune.training.low_rank import add_low_rank
    from asrprune.training.pruning import (
        TrainingData,
        check_can_drop,
        check_has_audio,
        make_pruning_sampler,
    )
    from asrprune.training.teacher import load_teacher
    from asrprune.training.trainer import Trainer
    from asrprune.transducer.loss import resolve_backend
    from asrprune.transducer.model import build_model
    from asrprune.weight_pruning.masks.prunable import table

    data, seed = config.data, config.seed
    tokenizer = load_tokenizer(lang_dir)
    cuts = open_cuts(manifest_dir, data.corpus, "train", data.lazy)
    about = read_statistics(manifest_dir, data.corpus)
    if (bins := len(about["feature_mean"])) != config.model.num_features:
        raise UserError(
            f"model.num_features={config.model.num_features}, but {manifest_dir} holds features of "
            f"{bins} mel bins"
        )
    seed_global_generators(seed)
    model = build_model(config.model, config.loss, tokenizer.vocab_size)
    for name in ("feature_mean", "feature_std"):
        getattr(model, name).copy_(torch.tensor(about[name]))
    add_low_rank(model, config)
    model.to(ranks.device)
    ranks.broadcast(model.state_dict().values())
    cuts = alignable(cuts, tokenizer, model.encoder.output_lengths)
    dev = {
        name: alignable(
            open_cuts(manifest_dir, data.corpus, name), tokenizer, model.encoder.output_lengths
        )
        for name in data.dev
    }
    dropping = None
    if config.data_pruning.time.variant != "none":
        encoder = model.encoder
        dropping = TimeDropping(
            config.data_pruning.time, seed, encoder.subsampling, encoder.output_lengths
        )
        check_can_drop(model.encoder, config.model.encoder, config.data_pruning.time)
        check_has_audio(cuts, config.data_pruning.time)
    dataset = training_dataset(tokenizer, data, seed, dropping)
    bins = about["train"]["duration_bins"]
    sampler = make_pruning_sampler(cuts, bins, config, ranks, dataset)
    training_data = TrainingData(
        sampler,
        dataset,
        # a plain float, because checkpoints contain values computed from it (rates, sparsities)
        about["train"]["seconds"]
        if len(sampler.index) == about["train"]["cuts"] and not data.languages
        else float(sampler.index.duration.sum(dtype=float)),
        dev,
    )
    teacher = load_teacher(config, model, tokenizer.digest, ranks)
    trainer = Trainer(config, model, training_data, ranks, folder, teacher)
    trainer.identity = {
        # the batches depend on the cuts and on the bins
        "data_digest": f"{about['train']['digest']} {about['train']['duration_bins']}",
        "tokenizer_digest": tokenizer.digest,
        "vocab_size": tokenizer.vocab_size,
        "symbols": tokenizer.symbols,
        "versions": {**versions(), "loss backend": resolve_backend(config.loss.backend)},
    }
    if ranks.first:
        count = sum(parameter.numel() for parameter in model.parameters())
        log.info("model: %.2f M parameters", count / 1e6)
        if trainer.frozen and config.training.freeze:
            log.info("frozen: %s of them, %s", f"{trainer.frozen:,}", config.training.freeze)
            if not config.training.init_from:
                log.warning("training.freeze without training.init_from: they stay as initialised")
        log.info("data: %d cuts, %.2f h", len(sampler.index), training_data.seconds / 3600)
        if trainer.masking:
            log.info("weight pruning:\n%s", table(model, trainer.masking.bank.layers).rstrip())
    return trainer


def read_statistics(manifest_dir: Path, corpus: str) -> dict[str, Any]:
    """Return the statistics of the training set from the validate stage.

    Raises:
        UserError: the file does not exist.
    """
    from asrprune.base.files import read_json

    path = manifest_dir / f"{corpus}_statistics.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; the validate stage (3) makes it")
    return read_json(path)


def scan_memory(trainer: "Trainer") -> None:
    """Try the largest batches of the present epoch. A copy of the sampler finds them.

    Raises:
        UserError: a batch does not fit into memory.
    """
    from asrprune.training.guards import largest_batches

    trainer.data.start_epoch(trainer.position.epoch)
    sampler = copy.copy(trainer.data.sampler)
    largest = largest_batches(sampler)
    trainer.scan_memory(largest)
    log.info("the largest %d batches of the epoch fit into memory", len(largest))


def _write_command(folder: Path) -> None:
    """Write ``run.sh``, which repeats this training in the folder of ``run.sh``.

    The script runs from any working directory, and needs no activated environment. Its own options
    come last, so they override the options of this training. In a copy of the folder, the script
    resumes the training in the copy.
    """
    from asrprune.base.files import write_text

    programs = shlex.quote(str(Path(sys.executable).parent))
    modules = shlex.quote(os.environ.get("PYTHONPATH", ""))
    words = sys.argv[1:]
    own = "--exp[-_]dir|--rendezvous"  # not repeated: they belong to this folder and this Slurm job
    for at in reversed([at for at, word in enumerate(words) if re.match(own, word)]):
        del words[at : at + 1 + ("=" not in words[at])]
    command = shlex.join(["asrprune", *words])
    path = folder / "run.sh"
    write_text(
        path,
        f"""#!/usr/bin/env bash
# Repeats this training: goes on from its last checkpoint, or does nothing where it has ended.
# Options may follow, such as --epochs 40 for more of it.
exp_dir=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" >/dev/null && pwd) || exit 1
cd {shlex.quote(os.getcwd())} || exit 1 # which relative paths are of
command -v asrprune >/dev/null || PATH={programs}:$PATH
export PYTHONPATH=${{PYTHONPATH-{modules}}}
exec {command} --exp-dir "$exp_dir" "$@"
""",
    )
    path.chmod(0o755)
