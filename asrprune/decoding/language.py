"""Choose the pathway that decodes a cut.

The choice is the pathway of the cut's language, one pathway for all cuts, or a pathway that the
audio chooses. Two rules choose by the audio. They use the first seconds of an utterance:

- A language classifier chooses the most probable language (`decoding.language_classifier`).
- Without a classifier, the pathway with the best score is chosen. The score of a pathway is the
  log-probability of its greedy path, including blanks. All pathways get the same number of frames,
  so the sum and the mean per frame give the same ranking.
"""

import dataclasses
import logging
from collections import Counter

import torch
from lhotse import CutSet
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.data.batches import language_of
from asrprune.decoding.batches import feature_batches
from asrprune.decoding.language_classifier import LanguageClassifier, choose, load_classifier
from asrprune.decoding.options import AUTO, GIVEN, DecodingOptions
from asrprune.decoding.pathways import Pathways, grouped
from asrprune.decoding.search import recognize
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.pathways import pathway_of

log = logging.getLogger(__name__)


def check_language(
    options: DecodingOptions,
    pathways: Pathways | None,
    num_features: int,
    model: str = "the model",
) -> LanguageClassifier | None:
    """Check that ``options.language`` fits a model, and open the language classifier.

    Args:
        options: the options of the search.
        pathways: the pathways of the model; None: it has none.
        num_features: number of mel bins of the model.
        model: the model's name, for messages.

    Returns:
        The classifier that chooses languages, on the CPU. None if no classifier chooses.

    Raises:
        UserError: ``options.language`` needs pathways, and the model has none; there is no pathway
            for the language; or the classifier does not fit (`load_classifier`).
    """
    if options.language == GIVEN:
        return None
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
        return None
    if not options.language_classifier:
        return None
    return load_classifier(options.language_classifier, pathways.names, num_features)


def by_language(
    model: Transducer,
    cuts: CutSet,
    options: DecodingOptions,
    pathways: Pathways | None,
    device: torch.device,
    name: str,
    unk_id: int | None = None,
) -> list[tuple[str, CutSet]]:
    """Return for each language the cuts that its pathway decodes, following ``options.language``.

    Args:
        model: the model, in evaluation mode.
        cuts: the cuts of a set.
        options: the options of the search.
        pathways: the pathways of the model; None: it has none, and all cuts are of the language
            ``""``.
        device: the device of the model.
        name: the name of the set, for messages.
        unk_id: see `recognize`.

    Raises:
        UserError: see `check_language`; or the cuts choose the language, and a cut has no language,
            or there is no pathway for its language.
    """
    classifier = check_language(options, pathways, len(model.feature_mean))
    if pathways is None:
        return [("", cuts)]
    if options.language == GIVEN:
        return pathways.by_language(cuts, name)
    if options.language != AUTO:
        return [(options.language, cuts)]
    if classifier:
        classifier = classifier.to(device)
        chosen = classify_languages(classifier, cuts, options, pathways.names, name)
    else:
        chosen = choose_languages(model, cuts, options, pathways, device, name, unk_id)
    log.info(
        "%s: languages chosen by the first %g s of each utterance%s",
        name,
        options.language_seconds,
        described(cuts, chosen),
    )
    return grouped(cuts, lambda cut: chosen[cut.id])


def classify_languages(
    classifier: LanguageClassifier,
    cuts: CutSet,
    options: DecodingOptions,
    languages: list[str],
    name: str = "",
) -> dict[str, str]:
    """Return for each cut id the most probable language of its first seconds.

    The language in the cut's supervision has no effect.

    Args:
        classifier: the classifier, which must know the languages.
        cuts: the cuts of a set.
        options: the options of the search; ``language_seconds`` is the length of the audio used.
        languages: the languages that may be chosen.
        name: the name of the set, for the progress bar.
    """
    found = {}
    with tqdm(total=len(cuts), desc=f"{name}: languages", unit="utt", disable=None) as progress:
        for ids, x, lengths in feature_batches(_beginnings(cuts, options), options):
            with torch.inference_mode():
                logits = classifier(x.to(classifier.device), lengths.to(classifier.device))
            chosen = choose(logits, classifier.languages, languages)
            found.update(zip(ids, chosen, strict=True))
            progress.update(len(ids))
    return found


def choose_languages(
    model: Transducer,
    cuts: CutSet,
    options: DecodingOptions,
    pathways: Pathways,
    device: torch.device,
    name: str = "",
    unk_id: int | None = None,
) -> dict[str, str]:
    """Return for each cut id the language whose pathway has the best score on the first seconds.

    The language in the cut's supervision has no effect. Each batch of first seconds passes through
    every pathway. If scores are equal, the first language of the model is chosen. This is also the
    case for an utterance without frames.

    Args:
        model: the model, in evaluation mode.
        cuts: the cuts of a set.
        options: the options of the search; ``language_seconds`` is the length of the audio used.
        pathways: the pathways of the model.
        device: the device of the model.
        name: the name of the set, for the progress bar.
        unk_id: see `recognize`.
    """
    firsts = _beginnings(cuts, options)
    # With one symbol a frame, all paths have the same number of symbols and blanks. Without a
    # penalty, the probabilities are those of the model.
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
            order.reverse()  # the pathways that were cached last come first
            for cut_id, *values in zip(ids, *(scores[language] for language in names), strict=True):
                chosen[cut_id] = names[values.index(max(values))]
            progress.update(len(ids))
    return chosen


def _beginnings(cuts: CutSet, options: DecodingOptions) -> CutSet:
    """Return the first seconds of each cut, under the same ids."""
    return cuts.truncate(
        max_duration=options.language_seconds, offset_type="start", preserve_id=True
    ).to_eager()


def described(cuts: CutSet, chosen: dict[str, str]) -> str:
    """Return a text: how often each language was chosen, and how often the choice was right.

    The text begins with a colon. If cuts have a language, a table with a line for each language
    follows.

    Args:
        cuts: the cuts of a set.
        chosen: the chosen language for each cut id.
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
