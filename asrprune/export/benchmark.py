"""Size, error rate and speed of exported networks in sherpa-onnx, beside our own decoder.

Each utterance of --test-set is recognised by itself, by greedy search, on one thread. Networks for
streaming hear it in pieces of 40 ms, as they come in while it is spoken, and a tail of silence,
which our own decoder then hears as well. "as ours" is the share of utterances with exactly the text
of our own decoder. A symbol's delay is from the start of its encoder frame until it can be read:
the rest of its chunk, what the chunk looks ahead to, and the time to compute; how late after the
sound the model decides to emit it is not in it. "int8 (2 in float32)" are networks of which two
matrices stay in float32, since int8 hurts them.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.cut import Cut
from tqdm import tqdm

from asrprune.corpus.audio import FEATURES
from asrprune.corpus.batches import open_cuts, transcript
from asrprune.corpus.tokenizer import Tokenizer, load_tokenizer, normalise
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.search import recognize
from asrprune.errors import UserError
from asrprune.export.network import network
from asrprune.export.onnx_files import sum_bytes
from asrprune.export.sherpa import RATE, Heard, Recognised, Recogniser, padded, read_summary
from asrprune.export.source import open_source
from asrprune.files import write_json, write_text
from asrprune.scoring.bootstrap import wer_interval
from asrprune.scoring.wer import Utterance, word_errors
from asrprune.transducer.model import Transducer

OURS, FLOAT32, INT8 = "ours", "float32", "int8"
COLUMNS = (
    "network", "runs", "sparsity", "MB", "compressed MB", "WER", "as ours", "real-time factor",
    "first symbol", "delay",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--onnx-dir", type=Path, required=True, help="what stage 10 made")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--test-set", required=True, help="such as test-clean")
    parser.add_argument("--networks", nargs="+", help="default: all that were exported")
    parser.add_argument("--utterances", type=int, help="take so many of the test set; default: all")
    parser.add_argument("--model", type=Path, help="if what was exported has moved")


def main(args: argparse.Namespace) -> None:
    """Print a table, and write it and its numbers beside the networks."""
    torch.set_num_threads(1)
    about = read_summary(args.onnx_dir)
    tokenizer = load_tokenizer(args.lang_dir)
    source = open_source(args.model or Path(about["model"]), about["words"], tokenizer=tokenizer)
    if source.digest != about["model_digest"]:
        raise UserError(
            f"{source.path} is another model by now than the one whose networks are in "
            f"{args.onnx_dir}: export again (stage 10)"
        )
    cuts = open_cuts(args.manifest_dir, source.config.data.corpus, args.test_set).to_eager()
    cuts = cuts.subset(first=min(args.utterances or len(cuts), len(cuts)))
    rows = []
    for name in args.networks or about["networks"]:
        if name not in about["networks"]:
            raise UserError(f"--networks {name}: there are {', '.join(about['networks'])}")
        with network(source, about["networks"][name]["choice"]) as model:
            rows += _rows(name, about["networks"][name], args.onnx_dir, model, tokenizer, cuts)
    table = markdown(rows)
    write_json(args.onnx_dir / f"{args.test_set}.json", rows)
    write_text(args.onnx_dir / f"{args.test_set}.md", table)
    sys.stdout.write(table)


def _rows(
    name: str,
    about: dict[str, Any],
    folder: Path,
    model: Transducer,
    tokenizer: Tokenizer,
    cuts: CutSet,
) -> Iterator[dict[str, Any]]:
    """A row for our decoder and one for each kind of the network's files."""
    streaming, files = about["streaming"], about["files"]
    common = {"network": name, "sparsity": about["sparsity"]}
    ours = [
        own_text(model, tokenizer, cut, streaming, about["tail"])
        for cut in tqdm(cuts, f"{name}, {OURS}", disable=None)
    ]
    texts = [one.text for one in ours]
    yield {**common, "runs": OURS, **_measured(cuts, ours, texts)}
    for int8 in (False, True) if any(".int8." in file for file in files) else (False,):
        kind = INT8 if int8 else FLOAT32
        recogniser = Recogniser(folder / name, int8)
        recognise = recogniser.listen if streaming else recogniser.recognise
        found = [recognise(audio_of(cut)) for cut in tqdm(cuts, f"{name}, {kind}", disable=None)]
        row = {**common, "runs": kind, **sum_bytes(files, int8), **_measured(cuts, found, texts)}
        checked = about.get("int8")
        yield {**row, "in_float32": len(checked["float32"])} if int8 and checked else row


def own_text(
    model: Transducer, tokenizer: Tokenizer, cut: Cut, streaming: bool, tail: float
) -> Recognised:
    """What our own decoder hears in the same samples, by itself in a batch."""
    started = time.perf_counter()
    samples = padded(audio_of(cut), RATE, tail)
    features = torch.as_tensor(Fbank(FbankConfig(**FEATURES)).extract(samples, RATE))[None]
    options = DecodingOptions(streaming=streaming)
    lengths = torch.tensor([features.shape[1]])
    found = recognize(model, features, lengths, options, tokenizer.unk_id)
    return Recognised(tokenizer.decode(found[0].tokens), time.perf_counter() - started)


def audio_of(cut: Cut) -> np.ndarray:
    """The samples (n,) of a cut of one channel.

    Raises:
        UserError: they cannot be read.
    """
    if not cut.has_recording:
        raise UserError(f"cut {cut.id} has features and no recording: sherpa-onnx needs its audio")
    try:
        return cut.resample(RATE).load_audio()[0]
    except Exception as error:  # lhotse wraps what its many readers raise
        raise UserError(f"the audio of cut {cut.id} cannot be read: {error}") from error


def _measured(
    cuts: CutSet, found: Sequence[Recognised], ours: Sequence[str]
) -> dict[str, float | list[float] | None]:
    utterances = [
        Utterance(cut.id, normalise(transcript(cut)).split(), one.text.split())
        for cut, one in zip(cuts, found, strict=True)
    ]
    counts = word_errors(utterances)
    same = [one.text == text for one, text in zip(found, ours, strict=True)]
    wer = wer_interval([c.errors for c in counts], [len(u.ref) for u in utterances])
    heard = [one for one in found if isinstance(one, Heard)]
    firsts = [one.first for one in heard if one.first is not None]
    delays = [delay for one in heard for delay in one.delays]
    return {
        "utterances": len(found),
        "wer": list(wer),
        "as_ours": sum(same) / len(same),
        "real_time_factor": sum(one.seconds for one in found) / sum(cut.duration for cut in cuts),
        "first_symbol": float(np.mean(firsts)) if firsts else None,
        "delay": float(np.mean(delays)) if delays else None,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the rows, with a line that says what was measured."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in rows:
        value, low, high = (100 * rate for rate in row["wer"])
        lines.append(
            (
                row["network"],
                _runs(row),
                f"{row['sparsity']:.2f}",
                _number(row.get("bytes"), 1e-6, ".2f"),
                _number(row.get("compressed_bytes"), 1e-6, ".2f"),
                f"{value:.2f} [{low:.2f}, {high:.2f}]",
                f"{100 * row['as_ours']:.1f} %",
                f"{row['real_time_factor']:.4f}",
                _number(row["first_symbol"], 1, ".2f", " s"),
                _number(row["delay"], 1e3, ".0f", " ms"),
            )
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _runs(row: dict[str, Any]) -> str:
    """What a row runs, and how many matrices of an int8 network stay in float32."""
    count = row.get("in_float32")
    return f"{row['runs']} ({count} in float32)" if count else row["runs"]


def _number(value: float | None, factor: float, digits: str, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:{digits}}{unit}"
