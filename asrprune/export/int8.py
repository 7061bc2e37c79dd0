"""Keep the word error rate of float32 in int8: a few matrices stay in float32.

Each network is decoded in float32 and in int8, on the same utterances. Int8 may add a share of the
errors that float32 makes. Few utterances cannot show a small loss: int8 also corrects words, and
other utterances would give another difference. So int8 may add further errors: the square root of
the number of utterances in which the two differ. This is the standard deviation of the difference
if int8 is better by one word as often as it is worse by one word. In any case int8 may add one
error. With a share of 0, it may add none.

If int8 adds more errors, the matrices are ranked by their sensitivity. For this, each matrix alone
is made int8. Its sensitivity is how far the log-probabilities of the symbols then move. A word
error rate cannot rank matrices, because a single matrix changes few words. The most sensitive
matrices then stay in float32. The search tries 1, 2, 4, ... matrices until int8 adds few enough
errors, and finds the lowest number by bisection. One matrix fewer was tried, and adds too many
errors. A matrix that stays in float32 is multiplied by activations in float32.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from asrprune.export.dev_speech import DevSpeech
from asrprune.export.onnx_decoder import OnnxDecoder, open_session
from asrprune.export.onnx_graph import QUANTISED, quantised
from asrprune.export.onnx_matrices import Matrix, matrices
from asrprune.export.onnx_parts import Part

if TYPE_CHECKING:
    import onnx

RANKING_SECONDS = 60.0  # speech for sensitivities, which need far less than error rates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8Check:
    """Record the errors of int8 on development sets, and the matrices that stay in float32."""

    dev_sets: list[str]
    utterances: int
    words: int
    max_loss: float  # share of float32's errors that int8 may add
    errors_float32: int
    errors_all_int8: int  # with every matrix in int8
    chance: float  # how far errors_float32 and errors_all_int8 may differ by chance
    errors_int8: int  # with the int8 matrices that are written
    matrices: int  # number of matrices that int8 could hold
    float32: list[str]  # the matrices that stay in float32, the most sensitive first
    sensitivities: dict[str, float]  # nats a frame, highest first; empty if int8 loses nothing

    @property
    def record(self) -> dict[str, Any]:
        """Return the check for a JSON file, with word error rates."""
        return {
            **asdict(self),
            "wer_float32": self._rate(self.errors_float32),
            "wer_all_int8": self._rate(self.errors_all_int8),
            "wer_int8": self._rate(self.errors_int8),
        }

    def _rate(self, errors: int) -> float | None:
        return errors / self.words if self.words else None

    def __str__(self) -> str:
        """Return a line for users."""
        text = (
            f"float32 makes {self.errors_float32:,} errors in {self.words:,} words of "
            f"{' and '.join(self.dev_sets)}, int8 makes {self.errors_all_int8:,} "
            f"(by chance: {self.chance:.1f} more or fewer)"
        )
        if not self.float32:
            return f"{text}. Every matrix is in int8"
        stay = "1 matrix stays" if len(self.float32) == 1 else f"{len(self.float32)} matrices stay"
        return (
            f"{text}, and {self.errors_int8:,} where {stay} in float32, of {self.matrices}: "
            f"{', '.join(self.float32)}"
        )


def allowed_errors(errors: int, max_loss: float) -> int:
    """Return the number of errors that int8 may make, without the allowance for chance.

    Args:
        errors: number of errors of float32.
        max_loss: share of float32's errors that int8 may add.
    """
    more = math.floor(errors * max_loss + 1e-9)  # 0.07 * 100 is a little less than 7
    return errors + max(more, 1 if max_loss else 0)


def by_chance(float32: np.ndarray, int8: np.ndarray) -> float:
    """Return how far two sums of errors may differ by chance.

    The result is a standard deviation of the difference. It assumes that utterances differ by one
    error, and that both directions are equally probable. An utterance in which int8 adds many
    errors counts as one, too. So a large loss in few utterances does not count as chance.

    Args:
        float32: errors of each utterance (utterances,).
        int8: errors of each utterance (utterances,) with other networks.
    """
    return float(np.sqrt((int8 != float32).sum()))


def keeps_errors(float32: np.ndarray, int8: np.ndarray, max_loss: float) -> bool:
    """Return whether int8 adds few enough errors, with an allowance for chance.

    Args:
        float32: errors of each utterance (utterances,).
        int8: errors of each utterance (utterances,) with matrices in int8.
        max_loss: share of float32's errors that int8 may add.
    """
    noise = by_chance(float32, int8) if max_loss else 0.0
    return int8.sum() <= allowed_errors(int(float32.sum()), max_loss) + noise


def fewest(keeps: Callable[[int], bool], most: int) -> int:
    """Return the lowest number of first items of a ranking that is enough.

    Args:
        keeps: returns whether so many items are enough.
        most: a number of items that is enough. It is not tried.

    Returns:
        A number that is enough, while one less is not. Both were tried, except for 0 and ``most``.
        The function assumes that 0 items are not enough.
    """
    low, high = 0, 1
    while high < most and not keeps(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(middle):
            high = middle
        else:
            low = middle
    return high


class Int8Search:
    """Make the parts of one network with any of its matrices in int8, and decode with them."""

    def __init__(
        self, parts: Mapping[str, Part], protos: Mapping[str, "onnx.ModelProto"], speech: DevSpeech
    ):
        """Load the float32 graphs.

        Args:
            parts: the parts of the network.
            protos: the same parts as float32 graphs.
            speech: the speech to decode.
        """
        self.matrices = matrices(parts, protos)
        self._parts, self._protos, self._speech = parts, protos, speech
        self._sessions = {name: open_session(proto) for name, proto in protos.items()}
        self._metadata = {name: part.metadata for name, part in parts.items()}

    def graphs(self, floats: Sequence[Matrix] = ()) -> dict[str, "onnx.ModelProto"]:
        """Return the parts in int8, except for the matrices ``floats``, which stay in float32."""
        found = {}
        for part in QUANTISED:
            constants = {matrix.constant for matrix in floats if matrix.part == part}
            if all(m.constant in constants for m in self.matrices if m.part == part):
                found[part] = self._protos[part]  # nothing is left to quantise
            else:
                found[part] = quantised(self._protos[part], self._metadata[part], constants)
        return found

    def errors(self, graphs: Mapping[str, "onnx.ModelProto"], what: str) -> np.ndarray:
        """Return the word errors of each utterance when these graphs replace float32 graphs.

        Args:
            graphs: the graphs by the part's name.
            what: the network's name on the progress bar.
        """
        return self._speech.errors(self._decoder(graphs), what)

    def sensitivities(self) -> dict[Matrix, float]:
        """Return how far each matrix, alone in int8, moves the symbols' probabilities.

        Returns:
            The Kullback-Leibler divergence of the symbols' probabilities from those of float32, on
            the path of float32's greedy search, in nats for each encoder frame. The highest comes
            first.
        """
        float32 = self._decoder({})
        features = self._speech.part(RANKING_SECONDS)
        frames = [float32.encode(one) for one in features]
        paths = [float32.search(one) for one in frames]
        found = {}
        for matrix in tqdm(self.matrices, "sensitivity", leave=False, disable=None):
            others = [other for other in self.matrices if other != matrix]
            decoder = self._decoder({matrix.part: self.graphs(others)[matrix.part]})
            divergence = count = 0.0
            for one, wanted, path in zip(features, frames, paths, strict=True):
                h = decoder.encode(one) if matrix.part == "encoder" else wanted
                moved = path.log_probs - decoder.log_probs(h, path.contexts)
                divergence += float((np.exp(path.log_probs) * moved).sum())
                count += len(wanted)
            mean = divergence / max(count, 1)
            found[matrix] = mean if math.isfinite(mean) else math.inf
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _decoder(self, graphs: Mapping[str, "onnx.ModelProto"]) -> OnnxDecoder:
        changed = {name: open_session(graph) for name, graph in graphs.items()}
        unk_id = self._speech.tokenizer.unk_id
        return OnnxDecoder({**self._sessions, **changed}, self._metadata, unk_id)


def check_int8(
    parts: Mapping[str, Part],
    protos: Mapping[str, "onnx.ModelProto"],
    speech: DevSpeech,
    max_loss: float,
) -> tuple[dict[str, "onnx.ModelProto"], Int8Check]:
    """Make the int8 graphs of a network, and keep the matrices in float32 that int8 hurts.

    Args:
        parts: the parts of the network.
        protos: the same parts as float32 graphs.
        speech: the speech to decode.
        max_loss: share of float32's errors that int8 may add.

    Returns:
        The graphs of encoder and joiner, and the measurements.
    """
    search = Int8Search(parts, protos, speech)
    float32 = search.errors({}, "float32")
    count = int(float32.sum())
    if max_loss and count * max_loss < 1:
        log.warning(
            "--dev-sets %s: float32 makes %d errors in %d words, too few to see a loss of %g %%. "
            "Name larger sets, or raise --dev-seconds",
            " ".join(speech.sets), count, speech.words, 100 * max_loss,
        )  # fmt: skip
    graphs = search.graphs()
    errors = {0: search.errors(graphs, "int8"), len(search.matrices): float32}
    ranking, kept = {}, 0
    if not keeps_errors(float32, errors[0], max_loss):
        ranking = search.sensitivities()
        ranked = list(ranking)

        def keeps(number: int) -> bool:
            if number not in errors:
                what = f"int8, {number} of {len(ranked)} in float32"
                errors[number] = search.errors(search.graphs(ranked[:number]), what)
            return keeps_errors(float32, errors[number], max_loss)

        kept = fewest(keeps, len(ranked))
        graphs = search.graphs(ranked[:kept])
    check = Int8Check(
        speech.sets,
        len(speech.features),
        speech.words,
        max_loss,
        count,
        int(errors[0].sum()),
        by_chance(float32, errors[0]),
        int(errors[kept].sum()),
        len(search.matrices),
        [matrix.name for matrix in ranking][:kept],
        {matrix.name: value for matrix, value in ranking.items()},
    )
    return graphs, check
