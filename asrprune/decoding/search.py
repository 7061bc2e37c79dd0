"""From features to hypotheses: the encoder, whole or in chunks, and then a search."""

import torch
from torch import Tensor

from asrprune.base.randomness import keyed_global_generators
from asrprune.decoding.beam import BeamSearch
from asrprune.decoding.fast_beam import FastBeamSearch
from asrprune.decoding.greedy import GreedySearch
from asrprune.decoding.hypothesis import Hypothesis, Search
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.streaming import encode_chunks
from asrprune.transducer.model import Transducer


def make_search(
    model: Transducer,
    batch_size: int,
    device: torch.device,
    options: DecodingOptions,
    unk_id: int | None = None,
) -> Search:
    """A fresh search for ``batch_size`` utterances.

    Raises:
        UserError: ``fast_beam_search`` without k2, or with a predictor it cannot use.
    """
    if options.method == "greedy_search":
        return GreedySearch(
            model, batch_size, device, options.max_sym_per_frame, unk_id, options.blank_penalty
        )
    if options.method == "modified_beam_search":
        return BeamSearch(
            model, batch_size, device, options.beam_size, unk_id, options.blank_penalty
        )
    return FastBeamSearch(model, batch_size, device, options, unk_id)


@torch.no_grad()
def recognize(
    model: Transducer,
    x: Tensor,
    x_lens: Tensor,
    options: DecodingOptions,
    unk_id: int | None = None,
) -> list[Hypothesis]:
    """Recognise B utterances: features ``x`` (B, T, num_features), ``x_lens`` (B,) int64.

    ``model`` is in evaluation mode; ``unk_id`` is the tokenizer's, and is never emitted. An encoder
    that draws in evaluation mode too, such as a chunk's size, draws the same for each batch.

    Raises:
        UserError: see `make_search`; ``options.streaming`` with an offline encoder.
    """
    search = make_search(model, x.shape[0], x.device, options, unk_id)
    with keyed_global_generators("recognition"):
        pieces = encode_chunks(model, x, x_lens) if options.streaming else [model.encode(x, x_lens)]
        for h, h_lens in pieces:
            search.advance(h, h_lens)
        return search.results()
