"""Feature frames to encoder frames and back, of every encoder, by its own numbers."""

import pickle

import numpy as np
import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.data_pruning.encoder_frames import LONGEST, EncoderFrames
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import TimeDropping
from asrprune.transducer.conformer import conformer
from asrprune.transducer.emformer import emformer
from asrprune.transducer.streaming_conformer import streaming_conformer
from tests.transducer.tiny_encoder import Skipper, Trimmer

SMALL = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16}


def zipformer(x_lens: torch.Tensor) -> torch.Tensor:
    """What icefall's Zipformer makes of feature frames: less than ceil(T / 4)."""
    return ((x_lens - 7) // 2 + 1) // 2


def jumping(x_lens: torch.Tensor) -> torch.Tensor:
    """Not monotone: every tenth utterance length gives two frames less."""
    return (x_lens // 3 - 2 * (x_lens % 10 == 0)).clamp(min=0)


OUTPUT_LENGTHS = {
    "conformer": lambda: conformer(8, **SMALL).output_lengths,
    "emformer": lambda: emformer(8, **SMALL).output_lengths,
    "streaming conformer": lambda: streaming_conformer(8, **SMALL).output_lengths,
    "somebody's": lambda: Skipper(8).output_lengths,
    "without padding": lambda: Trimmer(8).output_lengths,
    "zipformer": lambda: zipformer,
    "not monotone": lambda: jumping,
    "none at all": lambda: lambda x_lens: x_lens,
}


@pytest.mark.parametrize("name", OUTPUT_LENGTHS)
def test_the_table_says_what_the_encoder_says(name):
    output_lengths = OUTPUT_LENGTHS[name]()
    table = EncoderFrames(output_lengths)
    lengths = [max(0, int(output_lengths(torch.tensor([frames]))[0])) for frames in range(400)]
    assert table.of(np.arange(400)).tolist() == lengths
    for wanted in range(60):
        least = int(table.needed(wanted))
        assert all(length >= wanted for length in lengths[least:])
        assert least == 0 or lengths[least - 1] < wanted
    again = pickle.loads(pickle.dumps(table))  # for a loader's worker, without the encoder
    assert np.array_equal(again.needed(np.arange(60)), table.needed(np.arange(60)))


def test_what_no_utterance_gives_needs_more_than_any():
    table = EncoderFrames(lambda x_lens: x_lens.clamp(max=5))
    assert table.needed([5, 6]).tolist() == [5, LONGEST + 1]
    dropping = TimeDropping(
        TimeDroppingOptions("point", drop_ratio=0.9), 0, 1, lambda x: x.clamp(max=5)
    )
    dropping.active = True
    assert dropping.length_left(300, "a", 5) < dropping.length_left(300, "a", 6) == 300


@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x[:7], lambda x: 3])
def test_no_number_for_each_utterance_is_refused(wrong):
    with pytest.raises(UserError, match="output_lengths returned a tensor of shape"):
        EncoderFrames(wrong)


@pytest.mark.parametrize("level", ["frames", "samples", "encoder"])
@pytest.mark.parametrize("name", OUTPUT_LENGTHS)
def test_each_token_keeps_an_encoder_frame(name, level):
    """However much is to go; and where it is too much, no more stays than is needed."""
    output_lengths = OUTPUT_LENGTHS[name]()
    options = TimeDroppingOptions("point", drop_ratio=0.95, level=level)
    dropping = TimeDropping(options, 1, 4, output_lengths)
    dropping.active = True
    table, clamped = dropping.encoder, 0
    for tokens in range(0, 30, 3):
        for frames in range(0, 150, 7):
            whole = length = int(table.of(frames))
            if level == "encoder":
                lengths = torch.tensor([whole])
                transform = dropping.frame_transform(["a"], [tokens])
                left = int(transform(torch.zeros(1, whole, 1), lengths)[1]) if whole else 0
                found = left
            else:
                length = frames
                if level == "frames":
                    found = len(dropping.frames(torch.zeros(frames, 1), "a", tokens)[0])
                else:
                    audio = dropping.samples(torch.zeros(frames * 160), 160, "a", tokens)[0]
                    found = (len(audio) + 80) // 160
                left = int(table.of(found))
            assert left >= min(whole, max(tokens, 1))
            if dropping.plan(length, "a", tokens).clamped:
                clamped += 1
                least = max(tokens, 1) if level == "encoder" else int(table.needed(max(tokens, 1)))
                assert found == min(length, least)
            else:
                assert 0 <= found - 0.05 * length + 1 < 2
    assert clamped > 20
