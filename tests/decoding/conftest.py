"""Tiny real models and cut sets for the tests of decoding."""

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, NumpyFilesWriter, SupervisionSegment
from lhotse.features import Features

from asrprune.transducer.model import build_model
from asrprune.transducer.options import LossOptions, ModelOptions

STREAMING = "asrprune.transducer.emformer:emformer"
OFFLINE = "asrprune.transducer.conformer:conformer"
NUM_FEATURES = 8


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def tiny_options(predictor: str = "stateless", encoder: str = STREAMING) -> ModelOptions:
    sizes = {"segment_length": 2, "left_context_length": 4} if encoder == STREAMING else {}
    return ModelOptions(
        encoder=encoder,
        encoder_options={"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, **sizes},
        predictor=f"asrprune.transducer.predictor:{predictor}",
        predictor_options={"dim": 8},
        num_features=NUM_FEATURES,
        joiner_dim=16,
    )


@pytest.fixture
def tiny_model():
    """``tiny_model(predictor=…, encoder=…, vocab_size=…, seed=…)``: peaky, about half blanks."""

    def make(predictor="stateless", encoder=STREAMING, vocab_size=6, seed=0):
        torch.manual_seed(seed)
        model = build_model(tiny_options(predictor, encoder), LossOptions(), vocab_size).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # the encoder's branches start silent
                parameter += 0.1 * torch.randn_like(parameter)
            model.joiner.output.weight.mul_(6)
            model.joiner.output.bias[0] = 1.0
            model.feature_mean.fill_(-3.0)
            model.feature_std.fill_(2.0)
        return model.requires_grad_(False)

    return make


@pytest.fixture
def make_cuts(tmp_path):
    """``make_cuts({id: (frames, text)})``: cuts with stored random features."""

    def make(content, seed=0):
        generator = np.random.default_rng(seed)
        writer = NumpyFilesWriter(tmp_path / "feats")
        cuts = []
        for cut_id, (frames, text) in content.items():
            array = generator.normal(-3, 2, (frames, NUM_FEATURES)).astype(np.float32)
            seconds = frames / 100
            key = writer.write(cut_id, array)
            features = Features(
                "fbank", frames, NUM_FEATURES, 0.01, 16000, 0, seconds, writer.name,
                str(writer.storage_path), key, channels=0,
            )  # fmt: skip
            spoken = SupervisionSegment(cut_id, cut_id, 0, seconds, text=text)
            cuts.append(MonoCut(cut_id, 0, seconds, 0, [spoken], features=features))
        return CutSet.from_cuts(cuts)

    return make
