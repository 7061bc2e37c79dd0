"""Trainings with masks, of some ten steps an epoch."""

from pathlib import Path

import torch

from asrprune.training.distributed import Ranks
from asrprune.training.train import build_trainer
from tests.conftest import tiny_config

ALONE = Ranks(0, 1, torch.device("cpu"))
SCHEDULE = {"final": 0.8, "start": 0.1, "end": 0.6, "freeze": 0.7, "refresh_interval": 3}
SUPERNET = {"method": "supernet", "schedule": SCHEDULE}
DISTILLATION = {"scale": 0.5, "from_sparsity": 0.3}
CHANNELS = {"unit": "channel", "multiple": 2}
METHODS = {
    "gradual": {"method": "gradual", "schedule": SCHEDULE},
    "supernet": SUPERNET,
    "sandwich": {**SUPERNET, "supernet": {"sampling": "sandwich"}},
    "distilled": {**SUPERNET, "supernet": {"distillation": DISTILLATION}},
    "distilled sandwich": {
        **SUPERNET,
        "supernet": {"sampling": "sandwich", "distillation": DISTILLATION},
    },
    "channels, gradual": {"method": "gradual", "schedule": SCHEDULE, **CHANNELS},
    "channels, sandwich": {**SUPERNET, "supernet": {"sampling": "sandwich"}, **CHANNELS},
    "channels, supernet": {**SUPERNET, **CHANNELS},
    "channels, first order": {**SUPERNET, **CHANNELS, "criterion": "first_order"},
}
# units that need models of several layers, or heads
UNITS = {
    "layers, supernet": {**SUPERNET, "unit": "layer"},
    "heads, sandwich": {**SUPERNET, "supernet": {"sampling": "sandwich"}, "unit": "head"},
}


def masked_config(corpus, masking, **options):
    """Two epochs of some ten steps; ``masking`` are options of weight pruning."""
    return tiny_config(
        corpus,
        **{
            "weight_pruning": masking,
            "data__max_duration": 9.0,
            "data__num_workers": 0,
            "training__checkpoint_interval": 1,
            "training__keep_checkpoints": 1000,
            "model__encoder_options__dropout": 0.1,
            **({"model__encoder_options__num_layers": 3} if "layer" in masking.values() else {}),
            **options,
        },
    )


def trainer_of(config, corpus, folder: Path, ranks: Ranks = ALONE):
    """A trainer at the start, in a folder that is made."""
    folder.mkdir(exist_ok=True, parents=True)
    return build_trainer(config, ranks, folder, corpus.manifests, corpus.lang)
