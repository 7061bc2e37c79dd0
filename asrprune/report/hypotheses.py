"""Recognise cuts with the model of a run, and compare what it recognises with the transcripts."""

import copy
import dataclasses
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from asrprune.base.errors import UserError
from asrprune.data.batches import language_of
from asrprune.data.features import load_features
from asrprune.data.tokenizer import UNKNOWN_ID, CharacterTokenizer, normalise
from asrprune.decoding.load import pathways_of
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.pathways import Pathways
from asrprune.decoding.search import recognize
from asrprune.report.hardest import HardCut
from asrprune.scoring.wer import Utterance, align
from asrprune.training.checkpoint import numbered
from asrprune.training.model_file import model_of, read_model_file
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.pathways import pathway_of

EQUAL, SUBSTITUTION, DELETION, INSERTION = "", "substitution", "deletion", "insertion"

log = logging.getLogger(__name__)


@dataclass
class Recognised:
    """What a model recognised in some cuts."""

    model: Path | None = None  # None: there is no model
    note: str = ""  # why no cut was recognised; empty: some were
    utterances: dict[str, Utterance] = field(default_factory=dict)  # by cut id
    notes: dict[str, str] = field(default_factory=dict)  # cut id -> why it was not recognised


def recognise_cuts(cuts: Sequence[HardCut], exp_dir: Path, model: Path | None = None) -> Recognised:
    """Recognise cuts by greedy search, on the CPU.

    A supernet is used with all its weights. A model with pathways is used with the pathway of the
    language that the cut says.

    Args:
        cuts: the cuts.
        exp_dir: the folder of the run. Its ``averaged.pt`` is used, or else the newest
            ``epoch-N.pt``. Without a model that can be read, no cut is recognised.
        model: a model file to use instead.

    Raises:
        UserError: ``model`` is missing, damaged or no model.
    """
    path = model or _model_of(exp_dir)
    if path is None:
        return Recognised(
            note=f"{exp_dir} holds neither averaged.pt nor a file epoch-N.pt, so no cut was "
            "recognised. Train an epoch, or name a model by --model."
        )
    if not cuts:
        return Recognised(path)
    try:
        return _recognised(cuts, path)
    except UserError as error:
        if model:
            raise
        log.warning("no cut was recognised: %s", error)
        return Recognised(path, f"No cut was recognised: {error}")


def _model_of(exp_dir: Path) -> Path | None:
    """Return the averaged model of a run, or else the newest checkpoint of an epoch."""
    averaged = exp_dir / "averaged.pt"
    if averaged.is_file():
        return averaged
    return next(reversed(numbered(exp_dir, "epoch")), None)


def _recognised(cuts: Sequence[HardCut], path: Path) -> Recognised:
    content = read_model_file(path, "--model")
    model, config = model_of(content, path)
    model.eval()
    symbols = content.get("symbols")
    if not symbols:
        raise UserError(f"{path} does not name its symbols. Average the model again (stage 6)")
    # to write ids as a text, any tokenizer needs its symbols only
    tokenizer = CharacterTokenizer(symbols, content["tokenizer_digest"])
    pathways = pathways_of(content, model, config)
    options = dataclasses.replace(config.decoding, method="greedy_search", streaming=False)
    found = Recognised(path)
    for cut in cuts:
        try:
            tokens = _tokens_of(cut, model, pathways, options)
        except UserError as error:
            found.notes[cut.id] = str(error)
            continue
        words = tokenizer.decode(tokens).split()
        found.utterances[cut.id] = Utterance(cut.id, normalise(cut.transcript).split(), words)
    return found


def _tokens_of(
    hard: HardCut, model: Transducer, pathways: Pathways | None, options: DecodingOptions
) -> list[int]:
    """Return the ids of the symbols that a model recognises in a cut.

    Raises:
        UserError: the cut has no features that fit the model and can be read, or no pathway.
    """
    cut = lhotse_cut(hard)
    x = load_features(cut)
    if x.shape[1] != len(model.feature_mean):
        raise UserError(
            f"cut {cut.id} has {x.shape[1]} mel bins, and the model reads "
            f"{len(model.feature_mean)}. Name the model of this training by --model"
        )
    applied = nullcontext()
    if pathways:
        if not (language := language_of(cut)):
            raise UserError(f"cut {cut.id} names no language, so no pathway can be chosen")
        applied = pathways.applied(pathway_of(pathways.names, language))
    with applied:
        return recognize(model, x[None], torch.tensor([len(x)]), options, UNKNOWN_ID)[0].tokens


def lhotse_cut(cut: HardCut) -> Cut:
    """Return a cut as an object of lhotse.

    Raises:
        UserError: its entry in the manifest is damaged.
    """
    try:
        return deserialize_item(copy.deepcopy(cut.entry))  # it takes the entry apart
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        raise UserError(
            f"cut {cut.id}: its entry in the manifest is not one of lhotse ({error!r}). Write the "
            "manifest anew (stage 3)"
        ) from error


def differences(utterance: Utterance) -> list[tuple[str, str, str]]:
    """Return the aligned words of an utterance: (kind of difference, word of each side).

    The kind is one of `EQUAL`, `SUBSTITUTION`, `DELETION` and `INSERTION`. The first word is the
    transcript's, and it is empty for an insertion. The second word is the model's, and it is empty
    for a deletion.
    """
    found = []
    for ref, hyp in align(utterance.ref, utterance.hyp):
        kind = EQUAL if ref == hyp else SUBSTITUTION if ref and hyp else DELETION
        found.append((kind if ref else INSERTION, ref, hyp))
    return found
