"""Every configuration of every recipe loads, fits to its model, and every comparison has cells."""

from pathlib import Path

import pytest
import torch

from asrprune.compare.kinds import load_study
from asrprune.config import load_config
from asrprune.training.banks import groups_of
from asrprune.transducer.model import build_model

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("egs/*/*/conf/*.yaml"))
STUDIES = [path for path in FILES if path.stem.startswith("compare")]
CONFIGS = [path for path in FILES if path not in STUDIES]


def name(path):
    return path.relative_to(ROOT / "egs").as_posix()


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_config_makes_a_model_and_its_masks(path):
    config = load_config(path)
    with torch.device("meta"):
        model = build_model(config.model, config.loss, vocab_size=500)
    assert sum(value.numel() for value in model.parameters()) > 100_000
    pruned = sum(group.size for group in groups_of(model, config.weight_pruning))
    assert pruned > 0.5 * sum(value.numel() for value in model.encoder.parameters())


@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_a_comparison_has_cells(path, monkeypatch):
    monkeypatch.chdir(path.parent.parent)
    cells = load_study(path).cells()
    assert len({cell.name for cell in cells}) == len(cells) > 1
