"""Which pathway decodes a cut: that of the language it says, of one for all, or the best-scoring.

A pathway's score of an utterance is the log-probability of its greedy path over the first seconds,
blanks included: how sure the pathway is of what it hears. All pathways see as many frames, so that
the sum ranks them as the mean per frame would.
"""

import dataclasses
import logging
from collections import Counter

import torch
from lhotse import CutSet
from tqdm import tqdm

from asrprune.corpus.batches import language_of
from asrprune.decoding.batches import feature_batches
from asrprune.decoding.options import AUTO, GIVEN, DecodingOptions
from asrprune.decoding.pathways import Pathways, grouped
from asrprune.decoding.search import recognize
from asrprune.errors import UserError
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.pathways import pathway_of

log = logging.getLogger(__name__)


def check_language(
    options: DecodingOptions, pathways: Pathways | None, model: str = "the model"
) -> None:
    """Does ``options.language`` make sense with a model that has these pathways, or none?

    Raises:
        UserError: it does not.
    """
    if options.language == GIVEN:
        return
    word = f"decoding.language={options.language}"
    if pathways is None:
        raise UserError(
            f"{word}: {model} has no pathways, one of which would be taken: leave it out, or give "
            "a model that was trained with weight_pruning.method=pathways"
        )
    if options.language != AUTO:
        try:
            pathway_of(pathways.names, options.language)
        except UserError as error:
            raise UserError(f"{word}: {error}; or say {GIVEN} or {AUTO}") from error


def by_language(
    model: Transducer,
    cuts: CutSet,
    options: DecodingOptions,
    pathways: Pathways | None,
    device: torch.device,
    name: str,
    unk_id: int | None = None,
) -> list[tuple[str, CutSet]]:
    """The cuts that each language's pathway is to decode, as ``options.language`` says.

    Args:
        pathways: of the model; None: it has none, and all cuts are of the language ``""``.
        name: of the set, for messages.
        unk_id: see `recognize`.

    Raises:
        UserError: see `check_language`; ``given``, and a cut does not say its language, or says one
            without a pathway.
    """
    check_language(options, pathways)
    if pathways is None:
        return [("", cuts)]
    if options.language == GIVEN:
        return pathways.by_language(cuts, name)
    if options.language != AUTO:
        return [(options.language, cuts)]
    chosen = choose_languages(model, cuts, options, pathways, device, name, unk_id)
    log.info(
        "%s: languages chosen by the first %g s of each utterance%s",
        name,
        options.language_seconds,
        described(cuts, chosen),
    )
    return grouped(cuts, lambda cut: chosen[cut.id])


def choose_languages(
    model: Transducer,
    cuts: CutSet,
    options: DecodingOptions,
    pathways: Pathways,
    device: torch.device,
    name: str = "",
    unk_id: int | None = None,
) -> dict[str, str]:
    """By cut id, the language whose pathway scores best; what the cut says of it plays no part.

    Each batch of first seconds passes through every pathway. Of equal scores that of the language
    which the model names first counts, as with no frames at all.
    """
    firsts = cuts.truncate(
        max_duration=options.language_seconds, offset_type="start", preserve_id=True
    ).to_eager()
    # a symbol a frame: so each path has as many steps; no penalty: the model's own probabilities
    scoring = dataclasses.replace(
        options, method="greedy_search", max_sym_per_frame=1, blank_penalty=0.0
    )
    names = pathways.names
    order = list(names)
    chosen = {}
    with tqdm(total=len(firsts), desc=f"{name}: languages", unit="utt", disable=None) as progress:
        for ids, x, x_lens in feature_batches(firsts, scoring):
            x, x_lens = x.to(device), x_lens.to(device)
            scores = {}
            for language in order:
                with pathways.applied(language):
                    found = recognize(model, x, x_lens, scoring, unk_id)
                scores[language] = [hypothesis.score for hypothesis in found]
            order.reverse()  # there and back: those that were cached last come first
            for cut_id, *values in zip(ids, *(scores[language] for language in names), strict=True):
                chosen[cut_id] = names[values.index(max(values))]
            progress.update(len(ids))
    return chosen


def described(cuts: CutSet, chosen: dict[str, str]) -> str:
    """How often each language was chosen, and how often rightly where the cuts say theirs.

    Begins with a colon; a line of a table follows for each language that is said.
    """
    counts = Counter(chosen.values())
    head = ": " + (", ".join(f"{language} {n}" for language, n in counts.most_common()) or "none")
    taken: dict[str, Counter[str]] = {}
    for cut in cuts:
        if said := language_of(cut):
            taken.setdefault(said, Counter())[chosen[cut.id]] += 1
    if not taken:
        return f"{head}; no utterance says its own"
    width = max(len("language"), *map(len, taken))
    lines = [f"{'language':<{width}}  utterances  chosen rightly"]
    for said, found in sorted(taken.items()):
        total = found.total()
        wrong = [f"{language} {n}" for language, n in found.most_common() if language != said]
        lines.append(
            f"{said:<{width}}  {total:10d}  {found[said] / total:7.1%}"
            + (f" (else {', '.join(wrong)})" if wrong else "")
        )
    return "\n".join([head, *lines])
