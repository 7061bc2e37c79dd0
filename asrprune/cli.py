"""Run the command ``asrprune VERB``. Each verb's module does the work."""

import importlib
import logging
import os
import sys
import warnings

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError, nearest
from asrprune.base.scripts import log_level, run_script

# verb -> (module, one line of help); a module is imported only when its verb is called
VERBS = {
    "doctor": ("asrprune.doctor", "versions, devices, loss backend, and what to do about gaps"),
    "rehearse": ("asrprune.rehearsal.rehearse", "write a small synthetic corpus in a real layout"),
    "manifests": ("asrprune.data.importers.verb", "manifests of tables, Kaldi directories, cuts"),
    "fbank": ("asrprune.data.fbank", "filter-bank features of the prepared manifests"),
    "validate": ("asrprune.data.validate", "check cuts, list the rejected, compute statistics"),
    "tokenizer": ("asrprune.data.tokenizer", "train a BPE or character tokenizer"),
    "train": ("asrprune.training.train", "train a transducer, or resume a training"),
    "average": ("asrprune.training.averaging", "average checkpoints into one model"),
    "search": ("asrprune.search.verb", "the best sub-networks of a supernet, by size"),
    "learn-languages": (
        "asrprune.decoding.learn_languages",
        "train a small classifier that hears which language is spoken",
    ),
    "decode": ("asrprune.decoding.decode", "decode cut sets and write result files"),
    "extract": ("asrprune.export.extract", "a sub-network of a model, by itself"),
    "export": ("asrprune.export.onnx_files", "ONNX files that sherpa-onnx runs, float32 and int8"),
    "listen": ("asrprune.export.listen", "recognise files or the microphone, as deployed"),
    "masks": ("asrprune.export.masks", "masks for pathways to begin with, by magnitude"),
    "score": ("asrprune.scoring.score", "error rates with confidence intervals"),
    "compare": ("asrprune.compare.verb", "train a grid of methods and compare them"),
    "report": ("asrprune.report.verb", "what data pruning did; what masks of languages share"),
    "bench": (
        "asrprune.bench.verb",
        "measure the loss, masks, pruning, exports and training",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a verb, and return the exit status.

    Args:
        argv: the words of the command after ``asrprune``; None: those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        return run_script("asrprune", _help)
    verb, *rest = argv
    if verb not in VERBS:
        sys.stderr.write(
            f"asrprune: unknown verb {verb!r}{nearest(verb, VERBS)}; there are: {' '.join(VERBS)}\n"
        )
        return 2
    try:
        level = log_level()
    except UserError as error:
        sys.stderr.write(f"asrprune: {error}\n")
        return 2
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    # This must be set before torch is imported. Otherwise torch's idle threads spin. On a machine
    # with other work, such as the data loader's, each small operation then takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A cut longer than data.max_duration gets its own batch. lhotse warns of each such batch.
    warnings.filterwarnings("ignore", "The first cut drawn in batch collection violates")
    warnings.filterwarnings("ignore", "We have exceeded the max_duration constraint")
    return run_script(f"asrprune {verb}", lambda: _run(verb, rest))


def _help() -> None:
    """List the verbs."""
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {verb:<{width}} {text}" for verb, (_, text) in VERBS.items())
    sys.stdout.write(
        f"usage: asrprune VERB [options]\n\n{lines}\n\n"
        "asrprune VERB --help lists the options of a verb\n"
    )


def _run(verb: str, words: list[str]) -> int | None:
    """Read the options of a verb, run the verb, and return its exit status; None: 0."""
    module = importlib.import_module(VERBS[verb][0])
    parser = Parser(prog=f"asrprune {verb}", description=module.__doc__)
    module.add_arguments(parser)
    return module.main(parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
