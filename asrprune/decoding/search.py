"""Recognise features: run the encoder, on whole utterances or in chunks, and then a search."""

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
    """Return a new search for ``batch_size`` utterances.

    Raises:
        UserError: ``fast_beam_search`` without k2, or with a predictor without bounded context.
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
    """Recognise B utterances.

    An encoder may draw random numbers in evaluation mode too, such as the size of a chunk. Such an
    encoder draws the same numbers for each batch.

    Args:
        model: the model, in evaluation mode.
        x: features (B, T, num_features).
        x_lens: feature frames of each utterance (B,) int64.
        options: the options of the search.
        unk_id: the tokenizer's id of ``<unk>``, which is never emitted; None: no such symbol.

    Raises:
        UserError: see `make_search`; or ``options.streaming`` with an offline encoder.
    """
    search = make_search(model, x.shape[0], x.device, options, unk_id)
    with keyed_global_generators("recognition"):
        pieces = encode_chunks(model, x, x_lens) if options.streaming else [model.encode(x, x_lens)]
        for h, h_lens in pieces:
            search.advance(h, h_lens)
        return search.results()
