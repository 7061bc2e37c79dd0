"""Declare the options of the search, with the standard library only."""

from dataclasses import dataclass

from asrprune.base.options import RESUMABLE, option

METHODS = ("greedy_search", "modified_beam_search", "fast_beam_search")
GIVEN, AUTO = "given", "auto"  # values of `DecodingOptions.language`


@dataclass
class DecodingOptions:
    """Hold the options for decoding cuts. They do not change the trained model."""

    method: str = option("greedy_search", change=RESUMABLE, choices=METHODS)
    max_sym_per_frame: int = option(1, change=RESUMABLE, minimum=1)  # greedy_search
    beam_size: int = option(4, change=RESUMABLE, minimum=1)  # modified_beam_search: hypotheses
    fast_beam: float = option(20.0, change=RESUMABLE, minimum=0)  # fast_beam_search: log-prob width
    max_contexts: int = option(8, change=RESUMABLE, minimum=1)  # fast_beam_search: per frame
    max_states: int = option(64, change=RESUMABLE, minimum=1)  # fast_beam_search: per frame
    # Subtracted from blank's logit. Raise it for a model that deletes words (icefall's
    # --blank-penalty).
    blank_penalty: float = option(0.0, change=RESUMABLE, minimum=0)
    streaming: bool = option(False, change=RESUMABLE)  # chunk by chunk, as a live decoder would
    max_duration: float = option(300.0, change=RESUMABLE, minimum=0.1)  # seconds in a batch
    num_workers: int = option(2, change=RESUMABLE, minimum=0)  # processes that load features
    # Which pathway decodes a cut. given: the pathway of the cut's language. auto: the pathway of
    # the language recognised in the first seconds. Otherwise: the language whose pathway decodes
    # all cuts.
    language: str = option(GIVEN, change=RESUMABLE)
    language_seconds: float = option(3.0, change=RESUMABLE, minimum=0.1)  # auto: seconds to use
    # auto: the file of asrprune learn-languages that chooses. Empty: the best score chooses.
    language_classifier: str = option("", change=RESUMABLE)
