"""Models that have learnt what tones mean: their texts differ from utterance to utterance."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrprune import cli
from tests.conftest import prepare_tones, tiny_config

ENCODERS = {
    "conformer": ("conformer:conformer", {"kernel_size": 7}),
    "emformer": ("emformer:emformer", {"left_context_length": 8, "kernel_size": 5}),
    "streaming_conformer": (
        "streaming_conformer:streaming_conformer",
        {"kernel_size": 5, "chunk_length": 4, "left_context_length": 8},
    ),
}


@dataclass(frozen=True)
class Trained:
    """A trained model and the corpus that it knows."""

    corpus: SimpleNamespace
    model: Path  # averaged.pt


@pytest.fixture(scope="session")
def many_tones(tmp_path_factory) -> SimpleNamespace:
    """Enough of them to learn from, and to tell error rates by."""
    return prepare_tones(tmp_path_factory.mktemp("many"), {"train": 240, "dev": 150})


def train_tones(
    corpus: SimpleNamespace, folder: Path, kind: str, epochs: int, **options
) -> Trained:
    """Train an encoder of ``ENCODERS`` until it knows most letters; ten seconds or so."""
    from asrprune.training.distributed import Ranks
    from asrprune.training.train import build_trainer

    encoder, sizes = ENCODERS[kind]
    common = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64, "dropout": 0.0}
    config = tiny_config(
        corpus,
        model__encoder=f"asrprune.transducer.{encoder}",
        model__encoder_options={**common, **sizes},
        model__predictor_options={"dim": 32},
        model__joiner_dim=32,
        data__dev=[],
        data__max_duration=40.0,
        data__noise={},
        data__spec_augment__probability=0.0,
        loss__warmup=0.12,
        training__epochs=epochs,
        training__optimizer={"lr": 5e-3, "warmup": 0.4},
        **options,
    )
    ranks = Ranks(0, 1, torch.device("cpu"))
    trainer = build_trainer(config, ranks, folder, corpus.manifests, corpus.lang)
    assert trainer.run() == 0
    assert cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
    return Trained(corpus, folder / "averaged.pt")


@pytest.fixture(scope="session")
def offline(many_tones, tmp_path_factory) -> Trained:
    """A Conformer, as a supernet."""
    schedule = {"final": 0.6, "start": 0.1, "end": 0.6, "freeze": 0.7, "refresh_interval": 10}
    pruning = {"method": "supernet", "schedule": schedule}
    folder = tmp_path_factory.mktemp("conformer")
    return train_tones(many_tones, folder, "conformer", 14, weight_pruning=pruning)


@pytest.fixture(scope="session")
def streaming(many_tones, tmp_path_factory) -> Trained:
    """An Emformer with convolutions."""
    return train_tones(many_tones, tmp_path_factory.mktemp("emformer"), "emformer", 24)
