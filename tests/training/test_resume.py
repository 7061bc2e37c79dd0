"""The promise: stopped after any batch and resumed, a training ends with the same bits."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import start_ranks
from asrprune.training.resume import resume
from asrprune.training.train import build_trainer
from tests.conftest import tiny_config
from tests.training.command import assert_same, on_ranks


def train(config, ranks, folder: Path, corpus) -> list[list[str]]:
    """Train or resume in a folder; returns the cuts of each batch of this rank."""
    trainer = build_trainer(config, ranks, folder, corpus.manifests, corpus.lang)
    order = []
    forward = one_step.forward

    def spy(caller, batch, *words):
        if caller.model.training:
            order.append(batch["cut_ids"])
        return forward(caller, batch, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_step, "forward", spy)
        resume(trainer)
        assert trainer.run() == 0
    return order


def rank_main(rank: int, world: int, corpus, root: Path, workers: tuple[int, ...]) -> None:
    """One rank: trains without a break, then resumes from each of its checkpoints."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    for count in workers:
        config = tiny_config(
            corpus,
            data__num_workers=count,
            data__max_duration=20.0 if world == 1 else 14.0,
            training__checkpoint_interval=1,
            training__keep_checkpoints=1000,
        )
        whole = root / f"workers{count}"
        whole.mkdir(exist_ok=True)
        order = train(config, ranks, whole, corpus)
        last, *earlier = reversed(numbered(whole, "checkpoint"))
        expected = load_checkpoint(last)
        assert expected["position"]["step"] >= 4
        for path in earlier:
            part = root / f"workers{count}-{path.stem}"
            part.mkdir(exist_ok=True)
            if rank == 0:
                shutil.copy(path, part)
            ranks.barrier()
            rest = train(config, ranks, part, corpus)
            assert rest and order[-len(rest) :] == rest
            step = int(path.stem.split("-")[1])
            assert len(order) == step + len(rest), (step, len(order), len(rest))
            assert_same(load_checkpoint(numbered(part, "checkpoint")[-1]), expected)
    ranks.leave()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_resume_after_every_batch(world, tiny_corpus, tmp_path):
    workers = (2,) if world == 2 else (0, 2)
    on_ranks(rank_main, (world, tiny_corpus, tmp_path, workers), world)
