"""Recognise test sets with a trained model and write their result files.

Overrides such as ``decoding.fast_beam=8`` change the search. A model with a pathway for each
language decodes a cut with the pathway of the cut's language. With ``decoding.language=auto``, the
first ``decoding.language_seconds`` of the cut choose the language. ``decoding.language_classifier``
names the file of ``asrprune learn-languages`` that chooses. Without such a file, the pathway with
the best score is chosen, which is often wrong.
"""

import argparse
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from lhotse import CutSet
from tqdm import tqdm

from asrprune.base.arguments import true_or_false
from asrprune.base.devices import choose_device
from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.config import override
from asrprune.data.batches import open_cuts, transcript
from asrprune.data.tokenizer import Tokenizer, load_tokenizer, normalise
from asrprune.decoding.batches import feature_batches
from asrprune.decoding.hypothesis import Hypothesis
from asrprune.decoding.language import by_language, check_language
from asrprune.decoding.load import load_model, load_pathways
from asrprune.decoding.options import AUTO, GIVEN, METHODS, DecodingOptions
from asrprune.decoding.pathways import Pathways
from asrprune.decoding.search import make_search, recognize
from asrprune.scoring.files import write_results
from asrprune.scoring.wer import Utterance
from asrprune.transducer.model import Transducer

log = logging.getLogger(__name__)

# option of the command line -> option of the section `decoding`
NAMED = {
    "decoding_method": "method",
    "beam_size": "beam_size",
    "streaming": "streaming",
    "max_duration": "max_duration",
}
MOST_THREADS = 8  # more threads make the small operations of a search slower


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune decode`` to a parser."""
    parser.add_argument("--exp-dir", type=Path, required=True, help="results go to EXP_DIR/METHOD")
    parser.add_argument("--model", type=Path, help="default: EXP_DIR/averaged.pt (stage 6)")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--test-sets", nargs="+", required=True, help="such as test-clean")
    parser.add_argument("--decoding-method", choices=METHODS, help="decoding.method")
    parser.add_argument("--beam-size", type=int, help="decoding.beam_size: hypotheses kept")
    parser.add_argument("--streaming", type=true_or_false, help="decoding.streaming: in chunks")
    parser.add_argument("--max-duration", type=float, help="decoding.max_duration: seconds a batch")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> None:
    """Decode every test set. Nothing is written for a set that does not finish."""
    test_sets = [word for word in args.test_sets if "=" not in word]
    overrides = [word for word in args.test_sets if "=" in word] + args.overrides
    device = choose_device(args.device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
    path = args.model or args.exp_dir / "averaged.pt"
    tokenizer = load_tokenizer(args.lang_dir)
    model, config = load_model(path, device, tokenizer)
    pathways = load_pathways(path, model, config)
    # Overrides of other sections are checked too, but have no effect: they concern the training.
    options = override(config, [*overrides, *option_words(args, overrides)]).decoding
    check_language(options, pathways, config.model.num_features, str(path))
    make_search(model, 1, device, options, tokenizer.unk_id)  # raise errors of the search now
    sets = {name: open_cuts(args.manifest_dir, config.data.corpus, name) for name in test_sets}
    for name, cuts in sets.items():
        utterances = decode_cuts(model, cuts, tokenizer, options, device, name, pathways)
        folder, suffix = args.exp_dir / options.method, result_suffix(path, options)
        words = write_results(folder, name, suffix, options.method, utterances)
        log.info("%%WER %s %s %s, written to %s", words, name, options.method, folder)


def option_words(args: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """Return the named options of the command line as ``key=value`` overrides.

    Args:
        args: the arguments of the command line.
        overrides: the overrides of the command line.

    Raises:
        UserError: ``overrides`` contain the same option.
    """
    words = []
    for option, name in NAMED.items():
        value, key = getattr(args, option), f"decoding.{name}="
        if value is None:
            continue
        if any(word.startswith(key) for word in overrides):
            raise UserError(f"--{option.replace('_', '-')} and {key}... are given: leave one out")
        words.append(f"{key}{value}")
    return words


def model_suffix(model: Path) -> str:
    """Return the part of the result files' names that identifies the model.

    The suffix is ``epoch-30-avg-9`` if the JSON file of the model (stage 6) says so, otherwise
    ``model_<file name>``. ``-last_steps`` marks an average of only the last steps of the epochs.
    """
    about = model.with_suffix(".json")
    content = read_json(about) if about.is_file() else {}
    if "epoch" not in content:
        return f"model_{model.stem}"
    last_steps = "" if content.get("use_averaged_model", True) else "-last_steps"
    return f"epoch-{content['epoch']}-avg-{content['avg']}{last_steps}"


def result_suffix(model: Path, options: DecodingOptions) -> str:
    """Return the end of the result files' names: the model and the changed search options.

    An example is ``epoch-30-avg-9-beam_4``.
    """
    parts = [model_suffix(model)]
    if options.method == "greedy_search" and options.max_sym_per_frame > 1:
        parts.append(f"max_sym_{options.max_sym_per_frame}")
    if options.method == "modified_beam_search":
        parts.append(f"beam_{options.beam_size}")
    if options.method == "fast_beam_search":
        parts.append(
            f"beam_{options.fast_beam:g}-contexts_{options.max_contexts}-"
            f"states_{options.max_states}"
        )
    if options.blank_penalty:
        parts.append(f"blank-penalty-{options.blank_penalty:g}")
    if options.streaming:
        parts.append("streaming")
    if options.language == AUTO:
        rule = "classified" if options.language_classifier else "auto"
        parts.append(f"language_{rule}_{options.language_seconds:g}s")
    elif options.language != GIVEN:
        parts.append(f"language_{options.language}")
    return "-".join(parts)


def decode_cuts(
    model: Transducer,
    cuts: CutSet,
    tokenizer: Tokenizer,
    options: DecodingOptions,
    device: torch.device,
    name: str,
    pathways: Pathways | None = None,
) -> list[Utterance]:
    """Recognise every cut, in the order of ``cuts``.

    Args:
        model: the model, in evaluation mode.
        cuts: the cuts of a set.
        tokenizer: the tokenizer of the model.
        options: the options of the search.
        device: the device of the model.
        name: the name of the set, for the progress bar and the log.
        pathways: the pathways of the model; None: it has none. ``options.language`` chooses the
            pathway of each cut.

    Raises:
        UserError: two cuts have the same id; a cut has no features, or its language has no pathway;
            or ``options.language`` needs pathways, and the model has none.
    """
    cuts = cuts.to_eager()
    _check(cuts, name)
    found: dict[str, str] = {}
    started = time.monotonic()
    parts = by_language(model, cuts, options, pathways, device, name, tokenizer.unk_id)
    with tqdm(total=len(cuts), desc=name, unit="utt", disable=None) as progress:
        for language, part in parts:
            with pathways.applied(language) if pathways else nullcontext():
                batches = hypotheses_of(model, part, options, device, tokenizer.unk_id)
                for ids, hypotheses in batches:
                    for cut_id, hypothesis in zip(ids, hypotheses, strict=True):
                        found[cut_id] = tokenizer.decode(hypothesis.tokens)
                    progress.update(len(ids))
    seconds, spoken = time.monotonic() - started, sum(cut.duration for cut in cuts)
    log.info(
        "%s: %d utterances, %.2f h of speech in %.1f s on %s (real-time factor %.4f)",
        name,
        len(found),
        spoken / 3600,
        seconds,
        device,
        seconds / max(spoken, 1e-9),
    )
    # References are normalised like the tokenizer's output, so that the encoding causes no errors.
    return [
        Utterance(cut.id, normalise(transcript(cut)).split(), found[cut.id].split()) for cut in cuts
    ]


def hypotheses_of(
    model: Transducer,
    cuts: CutSet,
    options: DecodingOptions,
    device: torch.device,
    unk_id: int | None,
) -> Iterator[tuple[list[str], list[Hypothesis]]]:
    """Yield ``(cut ids, hypotheses)`` for each batch, from the longest cuts to the shortest."""
    for ids, features, lengths in feature_batches(cuts, options):
        yield ids, recognize(model, features.to(device), lengths.to(device), options, unk_id)


def _check(cuts: CutSet, name: str) -> None:
    seen = set()
    for cut in cuts:
        if cut.id in seen:
            raise UserError(f"{name}: two cuts have the id {cut.id!r}; rename one")
        seen.add(cut.id)
        if not cut.has_features:
            raise UserError(
                f"{name}: cut {cut.id} has no features; the features stage (2) adds them"
            )
