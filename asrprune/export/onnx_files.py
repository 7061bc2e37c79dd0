"""Export networks as ONNX files, float32 and int8, which sherpa-onnx runs.

Each network is a folder of its own in --out-dir: encoder.onnx, decoder.onnx (the predictor),
joiner.onnx, encoder.int8.onnx, joiner.int8.onnx and tokens.txt. --networks name them: "whole", a
sparsity such as 0.7, a size such as 5MB, or a language of a model with pathways. Features are
sherpa-onnx's own (80 mel bins of 16 kHz audio in [-1, 1]); what normalises them is in the encoder.
"""

import argparse
import logging
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asrprune.arguments import true_or_false
from asrprune.corpus.tokenizer import load_tokenizer
from asrprune.errors import UserError
from asrprune.export.choice import Wanted, choose, wanted_of
from asrprune.export.onnx_parts import Part, cut
from asrprune.export.source import Source, open_source
from asrprune.files import atomic_path, write_json
from asrprune.weight_pruning.bank import Choice

if TYPE_CHECKING:
    import onnx

WHOLE = "whole"
SUMMARY = "export.json"
TOLERANCE = 1e-3  # of the largest output, between torch and the exported network
QUANTISED = ("encoder", "joiner")  # the predictor is a table and a small convolution
MOST = 2**31  # elements of a weight
FEATURES = 80  # mel bins that sherpa-onnx computes
FRAMES_A_SECOND = 100
TAIL = 0.6  # seconds of silence after a stream, and as long as the window of a chunk

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune export``."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--out-dir", type=Path, help="default: onnx/ beside the model")
    parser.add_argument(
        "--networks",
        nargs="+",
        help="whole, sparsities (0.7), sizes (5MB), languages; default: every language of a model "
        "with pathways, of another one the whole",
    )
    parser.add_argument(
        "--search", type=Path, help="a pareto.json (stage 7): the best of these of each size"
    )
    parser.add_argument("--int8", type=true_or_false, default=True, help="write int8 as well")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the files of each network, and last ``export.json``, which tells of them all."""
    check_packages()
    given = args.networks or []
    networks = [word for word in given if "=" not in word]
    words = [word for word in given if "=" in word] + args.overrides
    source = open_source(args.model, words, tokenizer=load_tokenizer(args.lang_dir))
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
    choices = {name: network_choice(source, name, args.search) for name in networks}
    out_dir = args.out_dir or args.model.with_name("onnx")
    summary = out_dir / SUMMARY
    summary.unlink(missing_ok=True)
    digest, about = source.digest, {}
    for name, choice in choices.items():
        about[name] = _export(source, choice, out_dir / name, args.lang_dir, args.int8)
        log.info("%s: %s", out_dir / name, _sizes(about[name]["files"]))
    told = {"model": str(args.model), "model_digest": digest, "words": words}
    write_json(summary, {**told, "networks": about})
    found = sorted(path.parent for path in out_dir.glob("*/encoder.onnx"))
    if others := [str(folder) for folder in found if folder.name not in about]:
        log.warning("of earlier exports, perhaps of another model: %s", ", ".join(others))


def check_packages() -> None:
    """Check that the packages which export and quantise are installed.

    Raises:
        UserError: onnx, onnxruntime or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UserError(
            f"exporting needs {error.name}, which is not installed: pip install 'asrprune[export]'"
        ) from error
    del onnx, onnxruntime, onnxscript


def network_choice(source: Source, name: str, search: Path | None = None) -> Choice | None:
    """The sub-network of a word; None for the whole model.

    Raises:
        UserError: there is none.
    """
    if name != WHOLE:
        if Path(name).name != name:
            raise UserError(f"--networks {name}: is no sparsity, size or language")
        return choose(source, _wanted(name, source), search if _is_size(name, source) else None)
    if source.bank.names:
        raise UserError(
            f"--networks whole: {source.path} has a pathway for each language, and is no network "
            f"as a whole: name some of {', '.join(source.bank.names)}"
        )
    return None


def _wanted(name: str, source: Source) -> Wanted:
    return Wanted(name, language=name) if name in source.bank.names else wanted_of(name)


def _is_size(name: str, source: Source) -> bool:
    return name != WHOLE and _wanted(name, source).language is None


def _export(
    source: Source, choice: Choice | None, folder: Path, lang_dir: Path, int8: bool
) -> dict[str, Any]:
    """Write one network; what is told of it."""
    bank, files = source.bank, {}
    for path in folder.glob("*.onnx"):  # of an earlier one
        path.unlink()
    if choice is None and source.single:
        choice = source.sparsest  # its mask is on already
    with applied(source, choice):
        parts = cut(source.model)
        for name, part in parts.items():
            proto = to_onnx(part)
            check(part, proto, f"{source.path}: the {name}")
            _write(proto, folder / f"{name}.onnx", files)
            if int8 and name in QUANTISED:
                _write(quantised(proto, part.metadata), folder / f"{name}.int8.onnx", files)
    with atomic_path(folder / "tokens.txt") as temporary:
        shutil.copyfile(lang_dir / "tokens.txt", temporary)
    # seconds of silence after a stream, so that its last words are in a whole chunk
    window = parts["encoder"].metadata.get("T")
    return {
        "streaming": window is not None,
        "tail": 0.0 if window is None else TAIL + window / FRAMES_A_SECOND,
        "sparsity": 0.0 if choice is None else 1 - bank.density(choice),
        "choice": choice,
        "files": files,
    }


def applied(source: Source, choice: Choice | None) -> AbstractContextManager[None]:
    """Inside of it the model is the sub-network; None: as a whole."""
    return nullcontext() if choice is None else source.bank.apply(choice)


def to_onnx(part: Part) -> "onnx.ModelProto":
    """A network as ONNX, of any batch size and length."""
    any_size = torch.export.Dim.DYNAMIC
    shapes: dict[str, dict[int, Any]] = {name: {} for name in part.inputs}
    for axes in (part.batch_axes, part.time_axes):
        for name, axis in axes.items():
            shapes[name][axis] = any_size
    with _quietly():
        from onnxscript.optimizer import optimize

        program = torch.onnx.export(
            part.module,
            tuple(part.inputs.values()),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=tuple(shapes.values()),
            dynamo=True,
            verbose=False,
        )
        # a weight that is cut or turned before it is used is no constant, and stays in float32
        program.model = optimize(program.model, input_size_limit=MOST, output_size_limit=MOST)
    return _described(program.model_proto, part.metadata)


def _described(proto: "onnx.ModelProto", metadata: Mapping[str, Any]) -> "onnx.ModelProto":
    """With this metadata, and without what the exporter says of our source code."""
    del proto.metadata_props[:]
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, str(value)
    return proto


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporter and quantiser have to say, a line for each of their steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def quantised(proto: "onnx.ModelProto", metadata: Mapping[str, Any]) -> "onnx.ModelProto":
    """The same with matrices in int8; activations are quantised as they come (dynamically).

    Each column of a matrix has its own scale, which costs no room to speak of: on a streaming
    Emformer of 1.4 M parameters 99.2 % of the texts stayed as they were, with one scale 97.5 %
    (weights of eight bits). A weight uses seven of its eight bits: x86 processors without VNNI
    add two products in 16 bits and cut off what is too large, which took a WER of 11 % to 79 %.
    """
    import tempfile

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        return _described(onnx.load(path), metadata)


def check(part: Part, proto: "onnx.ModelProto", what: str) -> None:
    """Run both on random inputs, of a batch and a length that the exporter has not seen.

    Raises:
        UserError: they differ.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for seed, batch in enumerate((1, 3)):
        inputs = _random(part, batch, seed)
        with torch.no_grad():
            wanted = part.module(*inputs.values())
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for name, ours, theirs in zip(part.outputs, wanted, found, strict=True):
            ours, theirs = ours.double(), torch.from_numpy(theirs).double()
            if ours.shape != theirs.shape:
                raise UserError(f"{what}: {name} has shape {tuple(theirs.shape)} once exported")
            most = (ours - theirs).abs().max().item() / max(ours.abs().max().item(), 1e-9)
            if not most <= TOLERANCE:
                raise UserError(f"{what}: {name} differs by {most:.2g} of its size once exported")


def _random(part: Part, batch: int, seed: int) -> dict[str, Tensor]:
    """Inputs of a network: ``x_lens`` within ``x``, whole numbers of others as in the example."""
    generator = torch.Generator().manual_seed(seed)
    frames, inputs = 201 + 97 * batch, {}
    for name, example in part.inputs.items():
        shape = list(example.shape)
        shape[part.batch_axes[name]] = batch
        if name in part.time_axes:
            shape[part.time_axes[name]] = frames
        if example.is_floating_point():
            inputs[name] = torch.randn(shape, generator=generator)
        elif name == "x_lens":
            inputs[name] = frames - 31 * torch.arange(batch)
        elif name == "y":
            inputs[name] = torch.arange(-1, example.shape[1] - 1).expand(shape).clone()
        else:
            inputs[name] = int(example.max()) * torch.arange(batch)
    return inputs


def _write(proto: "onnx.ModelProto", path: Path, files: dict[str, Any]) -> None:
    content = proto.SerializeToString()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    files[path.name] = {"bytes": len(content), "compressed_bytes": len(zlib.compress(content, 6))}


def _sizes(files: Mapping[str, Mapping[str, int]]) -> str:
    """Of the networks that are run together, in MB."""
    float32 = sum_bytes(files, False)
    parts = [f"float32 {float32['bytes'] / 1e6:.2f} MB"]
    if any(".int8." in name for name in files):
        parts.append(f"int8 {sum_bytes(files, True)['bytes'] / 1e6:.2f} MB")
    return ", ".join(parts)


def chosen_files(files: Sequence[str] | Mapping[str, Any], int8: bool) -> dict[str, str]:
    """The file of each part: encoder, decoder, joiner; that in int8 where there is one."""
    return {
        part: f"{part}.int8.onnx" if int8 and f"{part}.int8.onnx" in files else f"{part}.onnx"
        for part in ("encoder", "decoder", "joiner")
    }


def sum_bytes(files: Mapping[str, Mapping[str, int]], int8: bool) -> dict[str, int]:
    """``bytes`` and ``compressed_bytes`` of the three files that are run together."""
    together = [files[name] for name in chosen_files(files, int8).values()]
    return {key: sum(file[key] for file in together) for key in ("bytes", "compressed_bytes")}
