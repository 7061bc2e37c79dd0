"""Compare exported networks in sherpa-onnx with our own decoder: size, error rate and speed.

Each utterance of --test-set is recognised alone, by greedy search, on one thread. Streaming
networks receive the utterance in pieces of 40 ms, as if it was being spoken, and then a tail of
silence. Our own decoder receives the same silence. The column "as ours" is the share of utterances
with exactly the text of our own decoder. A symbol's delay is the time from the start of its encoder
frame until the symbol can be read. The delay consists of the rest of the chunk, the frames that the
chunk looks ahead, and the time to compute. The delay does not contain the time from the sound to
the encoder frame at which the model emits the symbol.

The networks in sherpa-onnx take turns, utterance by utterance, in float32 and int8. So a slow phase
of the machine slows all networks alike. Our own decoder is measured before the networks. The
real-time factor is computed from wall-clock time. Milliseconds are CPU time of this process. For
streaming networks, milliseconds are the time of one chunk (encoder, joiner and search). For other
networks, milliseconds are the time of one second of speech (features too). Milliseconds are medians
over all chunks, or over all utterances. "of whole: bytes" and "of whole: time" divide bytes and
milliseconds by those of the network "whole" of the same type. "int8 (2 in float32)" means that two
matrices stay in float32, because int8 adds too many errors. The texts are written beside the
networks, as ``recogs-SET-NETWORK-RUNS.txt``.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.cut import Cut
from tqdm import tqdm

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.base.files import write_json, write_text
from asrprune.base.markdown import table
from asrprune.data.audio import FEATURES
from asrprune.data.batches import open_cuts, transcript
from asrprune.data.tokenizer import Tokenizer, load_tokenizer, normalise
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.search import recognize
from asrprune.export.in_turn import (
    INT8,
    KINDS,
    Runs,
    headed,
    hear_in_turn,
    load_in_turn,
    milliseconds,
    number,
    texts_path,
    with_ratios,
)
from asrprune.export.network import network
from asrprune.export.onnx_files import WHOLE, sum_bytes
from asrprune.export.sherpa import RATE, Heard, Recognised, padded, read_summary
from asrprune.export.source import open_source
from asrprune.scoring.bootstrap import wer_interval
from asrprune.scoring.files import write_recogs
from asrprune.scoring.wer import Utterance, word_errors
from asrprune.transducer.model import Transducer

OURS = "ours"
COLUMNS = (
    "network", "runs", "sparsity", "MB", "of whole: bytes", "WER", "as ours", "real-time factor",
    "milliseconds", "of whole: time", "first symbol", "delay",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench export`` to a parser."""
    parser.add_argument("--onnx-dir", type=Path, required=True, help="the folder of stage 10")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--test-set", required=True, help="a set, such as test-clean")
    parser.add_argument("--networks", nargs="+", help="names; default: all exported networks")
    parser.add_argument(
        "--utterances", type=int, help="take the first so many of the set; default: all"
    )
    parser.add_argument(
        "--model", type=Path, help="the exported model, if its file has moved since the export"
    )
    parser.add_argument(
        "--ours",
        type=true_or_false,
        default=True,
        help="decode with our own decoder too, which takes most of the time",
    )


def main(args: argparse.Namespace) -> None:
    """Print a table, and write the table and its numbers beside the networks.

    Raises:
        UserError: the model is not the exported model; a network is unknown; or files are missing.
    """
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
    names = args.networks or list(about["networks"])
    if unknown := [name for name in names if name not in about["networks"]]:
        raise UserError(f"--networks {unknown[0]}: there are {', '.join(about['networks'])}")
    networks = {name: about["networks"][name] for name in names}
    texts = {}
    for name, one in networks.items() if args.ours else ():
        with network(source, one["choice"]) as model:
            texts[name] = [
                own_text(model, tokenizer, cut, one["streaming"], one["tail"])
                for cut in tqdm(cuts, f"{name}, {OURS}", disable=None)
            ]
    rows, found = measure(networks, args.onnx_dir, cuts, texts)
    for (name, runs), utterances in found.items():
        write_recogs(texts_path(args.onnx_dir, args.test_set, name, runs), utterances)
    text = markdown(rows)
    write_json(args.onnx_dir / f"{args.test_set}.json", rows)
    write_text(args.onnx_dir / f"{args.test_set}.md", text)
    sys.stdout.write(text)


def measure(
    networks: Mapping[str, Mapping[str, Any]],
    folder: Path,
    cuts: CutSet,
    ours: Mapping[str, Sequence[Recognised]],
) -> tuple[list[dict[str, Any]], dict[Runs, list[Utterance]]]:
    """Return the rows of the table: for each network our decoder, float32 and int8.

    Args:
        networks: what ``export.json`` says of each network, by the network's name.
        folder: the folder of ``export.json``.
        cuts: the utterances.
        ours: what our own decoder recognises with each network, utterance by utterance. Without a
            network, its row of our decoder and the column "as ours" stay empty.

    Returns:
        The rows, and the references and texts of each row.
    """
    recognisers = load_in_turn(networks, folder)
    utterances = (audio_of(cut) for cut in tqdm(cuts, "sherpa-onnx, in turn", disable=None))
    found = hear_in_turn(recognisers, utterances)
    seconds, rows, texts = [cut.duration for cut in cuts], [], {}
    for name, about in networks.items():
        common = {"network": name, "sparsity": about["sparsity"]}
        wanted = [one.text for one in ours[name]] if name in ours else None
        if wanted is not None:
            texts[name, OURS] = _utterances(cuts, ours[name])
            measured = _measured(cuts, ours[name], texts[name, OURS], wanted)
            rows.append({**common, "runs": OURS, **measured})
        for runs in KINDS:
            if (name, runs) in found:
                heard = found[name, runs]
                texts[name, runs] = _utterances(cuts, heard)
                sizes = sum_bytes(about["files"], runs == INT8)
                spent = milliseconds(heard, seconds)
                measured = _measured(cuts, heard, texts[name, runs], wanted)
                row = {**common, "runs": runs, **sizes, **spent, **measured}
                if runs == INT8 and about.get("int8"):
                    row["in_float32"] = len(about["int8"]["float32"])
                rows.append(row)
    return with_ratios(rows, WHOLE), texts


def own_text(
    model: Transducer, tokenizer: Tokenizer, cut: Cut, streaming: bool, tail: float
) -> Recognised:
    """Recognise an utterance with our own decoder, from the same samples, alone in its batch.

    Args:
        model: the network.
        tokenizer: the tokenizer of the model.
        cut: the utterance.
        streaming: whether to decode chunk by chunk.
        tail: seconds of silence after the utterance.
    """
    started, cpu = time.perf_counter(), time.process_time()
    samples = padded(audio_of(cut), RATE, tail)
    features = torch.as_tensor(Fbank(FbankConfig(**FEATURES)).extract(samples, RATE))[None]
    options = DecodingOptions(streaming=streaming)
    lengths = torch.tensor([features.shape[1]])
    found = recognize(model, features, lengths, options, tokenizer.unk_id)
    text = tokenizer.decode(found[0].tokens)
    return Recognised(text, time.perf_counter() - started, time.process_time() - cpu)


def audio_of(cut: Cut) -> np.ndarray:
    """Return the samples (n,) of a cut with one channel.

    Raises:
        UserError: the cut has no recording, or the samples cannot be read.
    """
    if not cut.has_recording:
        raise UserError(f"cut {cut.id} has features and no recording: sherpa-onnx needs its audio")
    try:
        return cut.resample(RATE).load_audio()[0]
    except Exception as error:  # lhotse's many readers raise exceptions of many types
        raise UserError(f"the audio of cut {cut.id} cannot be read: {error}") from error


def _utterances(cuts: CutSet, found: Sequence[Recognised]) -> list[Utterance]:
    """Return the references and the texts of utterances."""
    return [
        Utterance(cut.id, normalise(transcript(cut)).split(), one.text.split())
        for cut, one in zip(cuts, found, strict=True)
    ]


def _measured(
    cuts: CutSet,
    found: Sequence[Recognised],
    utterances: Sequence[Utterance],
    ours: Sequence[str] | None,
) -> dict[str, float | list[float] | None]:
    counts = word_errors(utterances)
    same = [one.text == text for one, text in zip(found, ours or [], strict=bool(ours))]
    wer = wer_interval([c.errors for c in counts], [len(u.ref) for u in utterances])
    heard = [one for one in found if isinstance(one, Heard)]
    firsts = [one.first for one in heard if one.first is not None]
    delays = [delay for one in heard for delay in one.delays]
    return {
        "utterances": len(found),
        "wer": list(wer),
        "as_ours": sum(same) / len(same) if same else None,
        "real_time_factor": sum(one.seconds for one in found) / sum(cut.duration for cut in cuts),
        "first_symbol": float(np.mean(firsts)) if firsts else None,
        "delay": float(np.mean(delays)) if delays else None,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the rows."""
    lines = []
    for row in rows:
        value, low, high = (100 * rate for rate in row["wer"])
        lines.append(
            (
                row["network"],
                _runs(row),
                f"{row['sparsity']:.2f}",
                number(row.get("bytes"), 1e-6, ".2f"),
                number(row.get("bytes_of_whole"), 1, ".2f"),
                f"{value:.2f} [{low:.2f}, {high:.2f}]",
                number(row["as_ours"], 100, ".1f", " %"),
                f"{row['real_time_factor']:.4f}",
                number(row.get("milliseconds"), 1, ".2f"),
                number(row.get("time_of_whole"), 1, ".2f"),
                number(row["first_symbol"], 1, ".2f", " s"),
                number(row["delay"], 1e3, ".0f", " ms"),
            )
        )
    return table(headed(COLUMNS, rows), lines) + "\n"


def _runs(row: dict[str, Any]) -> str:
    """Return a row's type, and how many matrices of an int8 network stay in float32."""
    count = row.get("in_float32")
    return f"{row['runs']} ({count} in float32)" if count else row["runs"]
