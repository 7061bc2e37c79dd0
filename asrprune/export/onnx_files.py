"""Export networks as ONNX files, float32 and int8, which sherpa-onnx runs.

Each network gets its own folder in --out-dir, with encoder.onnx, decoder.onnx (the predictor),
joiner.onnx, encoder.int8.onnx, joiner.int8.onnx and tokens.txt. --networks names the networks:
"whole", a sparsity such as 0.7, a size such as 5MB, or a language of a model with pathways.
sherpa-onnx computes the features itself (80 mel bins of 16 kHz audio in [-1, 1]). The encoder
contains the normalisation of features.

With --dev-sets each network is decoded in float32 and in int8. If int8 adds more errors than
--int8-loss allows, the matrices that int8 hurts most stay in float32, as few as are enough.
export.json names these matrices.
"""

import argparse
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asrprune.base.arguments import share, true_or_false
from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path, write_json, write_text
from asrprune.data.tokenizer import load_tokenizer
from asrprune.export.budget import BYTES, MILLISECONDS
from asrprune.export.choice import Wanted, choose, wanted_of
from asrprune.export.dev_speech import DevSets, open_dev_sets
from asrprune.export.int8 import Int8Check, check_int8
from asrprune.export.milliseconds import time_file
from asrprune.export.network import network
from asrprune.export.onnx_graph import QUANTISED, check, check_packages, quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.export.source import Source, open_source
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import Choice

if TYPE_CHECKING:
    import onnx

WHOLE = "whole"
SUMMARY = "export.json"
FEATURES = 80  # mel bins that sherpa-onnx computes
FRAMES_A_SECOND = 100
NOISE = 0.05  # share by which times differ from one measurement to the next
TAIL = 0.6  # seconds of silence after a stream, in addition to the window of a chunk

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune export`` to a parser."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument(
        "--out-dir", type=Path, help="folder of the networks; default: onnx/ beside the model"
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        help="whole, sparsities (0.7), sizes (5MB, 120MMAC or 1.2ms), or languages; default: all "
        "languages of a model with pathways; whole for any other model",
    )
    parser.add_argument(
        "--search",
        type=Path,
        help="a pareto.json (stage 7): take its best sub-network within each size",
    )
    parser.add_argument(
        "--int8", type=true_or_false, default=True, help="write int8 files beside float32"
    )
    parser.add_argument(
        "--manifest-dir", type=Path, help="validated cuts (stage 3) of the --dev-sets"
    )
    parser.add_argument(
        "--dev-sets",
        nargs="+",
        help="sets to compare int8 with float32 on, such as dev-clean; the pathway of a language "
        "is compared on the cuts of its language; default: int8 is not compared",
    )
    parser.add_argument(
        "--dev-seconds",
        type=float,
        default=3600.0,
        help="decode so many seconds of speech of the --dev-sets",
    )
    parser.add_argument(
        "--int8-loss",
        type=share,
        default=0.01,
        help="share of float32's word errors that int8 may add on the --dev-sets. It may also add "
        "what can be chance, and always one error. 0: it adds none",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the files of each network, and then ``export.json``, which describes the networks.

    Raises:
        UserError: options do not go together; or a network cannot be exported or is too large.
    """
    check_packages()
    _check_dev_options(args)
    given = [*(args.networks or []), *(args.dev_sets or [])]
    words = [word for word in given if "=" in word] + args.overrides
    networks, dev_sets = (
        [word for word in some or [] if "=" not in word] for some in (args.networks, args.dev_sets)
    )
    tokenizer = load_tokenizer(args.lang_dir)
    source = open_source(args.model, words, tokenizer=tokenizer)
    if (bins := source.config.model.num_features) != FEATURES:
        raise UserError(
            f"{args.model} takes {bins} mel bins, and sherpa-onnx computes {FEATURES}: it cannot "
            "be exported"
        )
    networks = networks or source.bank.names or [WHOLE]
    if args.search and not any(_is_size(name, source) for name in networks):
        raise UserError(
            f"--search {args.search}: is for sizes and sparsities, and --networks names none"
        )
    for name in networks:
        budget = None if name == WHOLE else _wanted(name, source).budget
        int8 = budget and budget.unit in (BYTES, MILLISECONDS) and source.bank.cuts
        if int8 and not args.int8:
            raise UserError(f"--networks {name}: a size is that of int8 files. Set --int8 true")
    choices = {name: network_choice(source, name, args.search) for name in networks}
    dev = None
    if dev_sets:
        cuts = open_dev_sets(args.manifest_dir, source.config.data.corpus, dev_sets)
        dev = DevSets(dev_sets, cuts, args.dev_seconds, args.int8_loss, tokenizer)
    out_dir = args.out_dir or args.model.with_name("onnx")
    summary = out_dir / SUMMARY
    summary.unlink(missing_ok=True)
    digest, about = source.digest, {}
    for name, choice in choices.items():
        about[name] = _export(source, choice, out_dir / name, args.lang_dir, args.int8, dev)
        log.info("%s: %s", out_dir / name, _sizes(about[name]["files"]))
        _check_size(name, source, choice, about[name], out_dir / name)
    told = {"model": str(args.model), "model_digest": digest, "words": words}
    write_json(summary, {**told, "networks": about})
    found = sorted(path.parent for path in out_dir.glob("*/encoder.onnx"))
    if others := [str(folder) for folder in found if folder.name not in about]:
        log.warning(
            "these networks are from earlier exports, perhaps of another model: %s",
            ", ".join(others),
        )


def network_choice(source: Source, name: str, search: Path | None = None) -> Choice | None:
    """Return the sub-network that a word of ``--networks`` names; None for the whole model.

    Args:
        source: the model.
        name: the word.
        search: a ``pareto.json`` (stage 7) for sizes and sparsities, or None.

    Raises:
        UserError: the model has no such sub-network.
    """
    if name != WHOLE:
        if Path(name).name != name:
            raise UserError(f"--networks {name}: is no sparsity, size or language")
        return choose(source, _wanted(name, source), search if _is_size(name, source) else None)
    if source.bank.names:
        raise UserError(
            f"--networks whole: {source.path} has a pathway for each language, and no network for "
            f"all of them: name some of {', '.join(source.bank.names)}"
        )
    return None


def _check_dev_options(args: argparse.Namespace) -> None:
    """Check that the options of the comparison of int8 with float32 go together.

    Raises:
        UserError: an option needs or excludes another one.
    """
    if args.dev_sets and not args.manifest_dir:
        raise UserError(
            "--dev-sets: name the folder of the sets with --manifest-dir, such as data/valid"
        )
    if args.manifest_dir and not args.dev_sets:
        raise UserError(
            "--manifest-dir: is for --dev-sets, such as --dev-sets dev. Name some, or leave it out"
        )
    if args.dev_sets and not args.int8:
        raise UserError(
            "--dev-sets: are for comparing int8 with float32. Set --int8 true, or leave them out"
        )
    if not args.dev_seconds > 0:
        raise UserError(f"--dev-seconds {args.dev_seconds:g}: must be above 0")


def _check_size(
    name: str, source: Source, choice: Choice | None, about: Mapping[str, Any], folder: Path
) -> None:
    """Check the written bytes or measure the time. With blocks, log that no file is smaller.

    Raises:
        UserError: the int8 files are larger than the size that the network is named after.
    """
    if name == WHOLE:
        return
    if not source.bank.cuts:
        log.info(
            "%s: a runtime loads and multiplies the zeros of masked blocks too: size and speed are "
            "those of the dense network",
            name,
        )
        return
    budget = _wanted(name, source).budget
    written = sum_bytes(about["files"], True)["bytes"]
    if budget and budget.unit == BYTES and written > budget.value:
        message = f"--networks {name}: the int8 files have {written:,} bytes. "
        if about["int8"] and (floats := about["int8"]["float32"]):
            raise UserError(
                f"{message}{len(floats)} of their matrices stay in float32, since int8 hurts them, "
                "and take more room. Ask for a smaller size, or allow a larger --int8-loss"
            )
        raise UserError(f"{message}Ask for a smaller size")
    if budget and budget.unit == MILLISECONDS:
        with network(source, choice) as model:
            took = time_file(folder / "encoder.int8.onnx", model)
        log.log(
            logging.INFO if took <= (1 + NOISE) * budget.value else logging.WARNING,
            "%s: the int8 encoder takes %.3f ms, measured on this machine",
            folder,
            took,
        )


def _wanted(name: str, source: Source) -> Wanted:
    return Wanted(name, language=name) if name in source.bank.names else wanted_of(name)


def _is_size(name: str, source: Source) -> bool:
    return name != WHOLE and _wanted(name, source).language is None


def _export(
    source: Source,
    choice: Choice | None,
    folder: Path,
    lang_dir: Path,
    int8: bool,
    dev: DevSets | None,
) -> dict[str, Any]:
    """Write one network. Return its entry of ``export.json``."""
    for path in folder.glob("*.onnx"):  # files of an earlier export
        path.unlink()
    if choice is None and source.single:
        choice = source.sparsest  # its mask is applied already
    if isinstance(choice, str):
        source = source.of(choice)
    with network(source, choice) as model:
        language = choice if isinstance(choice, str) else None
        about, checked = write_network(model, folder, int8, str(source.path), dev, language)
    if int8:
        log.info("%s: %s", folder, checked or _unchecked(dev, language))
    # a language with own weights may have fewer symbols: the first of the tokenizer's symbols
    lines = (lang_dir / "tokens.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(folder / "tokens.txt", "".join(lines[: source.model.vocab_size]))
    sparsity = 0.0 if choice is None else 1 - source.bank.density(choice)
    return {**about, "sparsity": sparsity, "choice": choice}


def write_network(
    model: Transducer,
    folder: Path,
    int8: bool,
    what: str,
    dev: DevSets | None = None,
    language: str | None = None,
) -> tuple[dict[str, Any], Int8Check | None]:
    """Write the ONNX files of a model. Each file is checked against the model.

    Args:
        model: the model in evaluation mode.
        folder: the folder of the network.
        int8: whether to write int8 files, too.
        what: the model's name, for messages.
        dev: development sets, on which int8 is compared with float32; None: it is not compared.
        language: the language of the network; None: all languages of the sets.

    Returns:
        The network's entry of ``export.json``, with ``streaming``, ``tail``, ``files`` and
        ``int8``; and the comparison of int8 with float32, None without a comparison.

    Raises:
        UserError: the model cannot be exported, or a graph's outputs differ from the model's.
    """
    files: dict[str, Any] = {}
    parts, protos, checked = cut(model), {}, None
    # the seconds of silence after a stream complete the chunk of its last words
    window = parts["encoder"].metadata.get("T")
    tail = 0.0 if window is None else TAIL + window / FRAMES_A_SECOND
    for name, part in parts.items():
        protos[name] = to_onnx(part)
        check(part, protos[name], f"{what}: the {name}")
        _write(protos[name], folder / f"{name}.onnx", files)
    if int8:
        speech = dev and dev.speech(language, tail)
        if speech:
            graphs, checked = check_int8(parts, protos, speech, dev.max_loss)
        else:
            graphs = {name: quantised(protos[name], parts[name].metadata) for name in QUANTISED}
        for name, proto in graphs.items():
            _write(proto, folder / f"{name}.int8.onnx", files)
    record = checked and checked.record
    return {"streaming": window is not None, "tail": tail, "files": files, "int8": record}, checked


def _unchecked(dev: DevSets | None, language: str | None) -> str:
    """Return a message that says why int8 was not compared with float32."""
    if dev is None:
        return (
            "int8 was not compared with float32. Name development sets with --manifest-dir and "
            "--dev-sets"
        )
    return (
        f"int8 was not compared with float32: {' '.join(dev.names)} have no cuts of the language "
        f"{language}"
    )


def _write(proto: "onnx.ModelProto", path: Path, files: dict[str, Any]) -> None:
    """Write a graph to a file, and record its size."""
    content = proto.SerializeToString()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    files[path.name] = {"bytes": len(content), "compressed_bytes": len(zlib.compress(content, 6))}


def _sizes(files: Mapping[str, Mapping[str, int]]) -> str:
    """Return the MB of the three files that are run together, as text."""
    float32 = sum_bytes(files, False)
    parts = [f"float32 {float32['bytes'] / 1e6:.2f} MB"]
    if any(".int8." in name for name in files):
        parts.append(f"int8 {sum_bytes(files, True)['bytes'] / 1e6:.2f} MB")
    return ", ".join(parts)


def chosen_files(files: Sequence[str] | Mapping[str, Any], int8: bool) -> dict[str, str]:
    """Return the file of each part (encoder, decoder, joiner), in int8 if wanted and possible."""
    return {
        part: f"{part}.int8.onnx" if int8 and f"{part}.int8.onnx" in files else f"{part}.onnx"
        for part in ("encoder", "decoder", "joiner")
    }


def sum_bytes(files: Mapping[str, Mapping[str, int]], int8: bool) -> dict[str, int]:
    """Return ``bytes`` and ``compressed_bytes`` of the three files that are run together."""
    together = [files[name] for name in chosen_files(files, int8).values()]
    return {key: sum(file[key] for file in together) for key in ("bytes", "compressed_bytes")}
