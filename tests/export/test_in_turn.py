"""Networks that take turns, and the ratios of what they cost."""

from types import SimpleNamespace

import numpy as np
import pytest

from asrprune.export.in_turn import headed, hear_in_turn, milliseconds, number, with_ratios
from asrprune.export.sherpa import Heard, Recognised


def test_each_utterance_is_heard_by_all_before_the_next_one():
    order = []

    def recogniser(name, streaming):
        def hear(way):
            return lambda samples: order.append((name, way, int(samples[0]))) or order[-1]

        return SimpleNamespace(
            streaming=streaming, listen=hear("listen"), recognise=hear("recognise")
        )

    recognisers = {
        ("whole", "float32"): recogniser("whole", True),
        ("0.5", "float32"): recogniser("0.5", False),
    }
    found = hear_in_turn(recognisers, (np.array([n]) for n in range(3)))
    assert order == [
        one for n in range(3) for one in (("whole", "listen", n), ("0.5", "recognise", n))
    ]
    assert found["whole", "float32"] == [("whole", "listen", n) for n in range(3)]
    assert found["0.5", "float32"] == [("0.5", "recognise", n) for n in range(3)]


def test_time_of_a_chunk_and_of_a_second():
    """Medians: over the chunks of all utterances, or over utterances by their length."""
    heard = [Heard("", 9.0, 9.0, chunks=chunks) for chunks in ([0.001, 0.002], [0.003], [])]
    assert milliseconds(heard, [1.0, 1.0, 1.0]) == {
        "milliseconds": pytest.approx(2),
        "per": "chunk",
    }
    whole = [Recognised("", 9.0, cpu) for cpu in (0.1, 0.2, 9.0)]
    assert milliseconds(whole, [10.0, 4.0, 1.0]) == {
        "milliseconds": pytest.approx(50),
        "per": "second of speech",
    }


def test_ratios_are_to_the_same_type():
    rows = [
        {"network": "0.5", "runs": "int8", "bytes": 30, "milliseconds": 2.0},
        {"network": "whole", "runs": "float32", "bytes": 120, "milliseconds": 8.0},
        {"network": "whole", "runs": "int8", "bytes": 40, "milliseconds": 5.0},
        {"network": "whole", "runs": "ours"},
    ]
    half, whole, int8, ours = with_ratios(rows, "whole")
    assert (half["bytes_of_whole"], half["time_of_whole"]) == (0.75, 0.4)
    assert whole["time_of_whole"] == int8["bytes_of_whole"] == 1
    assert ours == rows[3]
    assert with_ratios(rows[:1], "whole") == rows[:1]  # nothing to divide by


def test_cells():
    assert headed(("MB", "milliseconds"), [{}, {"per": "chunk"}]) == ("MB", "ms a chunk")
    assert number(None, 1, ".2f") == "" and number(0.0, 1e3, ".1f", " ms") == "0.0 ms"
