"""What the languages of a pathways model have each, what they share, and how that came about.

Writes ``pathways.json`` (plain values), ``pathways.md`` (tables) and two pictures into the
training's folder: ``pathways.png`` with the overlap of each two masks and densities by layer, and
``pathways-training.png`` with how the masks changed over the training. With --manifest-dir, error
rates of each language too, where something has been decoded.
"""

import argparse
import logging
import sys
from pathlib import Path

from asrprune.errors import UserError
from asrprune.export.source import Source, open_source
from asrprune.files import write_json, write_text
from asrprune.studies.pathways_report.markdown import markdown
from asrprune.studies.pathways_report.plots import draw_masks, draw_training
from asrprune.studies.pathways_report.record import record_of
from asrprune.studies.pathways_report.renewals import read_renewals
from asrprune.studies.pathways_report.scores import result_files_of, scores_of

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune pathways``."""
    parser.add_argument("exp_dir", type=Path, help="folder of the training, such as exp/pathways")
    parser.add_argument("--model", type=Path, help="default: EXP_DIR/averaged.pt (stage 6)")
    parser.add_argument(
        "--manifest-dir", type=Path, help="the decoded cuts (stage 3), which say their languages"
    )
    parser.add_argument("--out-dir", type=Path, help="where the report goes; default: EXP_DIR")


def main(args: argparse.Namespace) -> None:
    """Print the report, and write it beside its pictures.

    Raises:
        UserError: the model or the metrics are missing, damaged or of something else; results of
            decoding that do not fit to the model or the manifests.
    """
    path = args.model or args.exp_dir / "averaged.pt"
    source = _open(path)
    languages = sorted(source.bank.names)
    renewals = read_renewals(args.exp_dir / "log" / "metrics.jsonl", languages)
    files = result_files_of(args.exp_dir, path)
    if files and not args.manifest_dir:
        log.warning("no error rates: --manifest-dir is to say in which languages the cuts are")
        files = []
    scores = scores_of(files, languages, args.manifest_dir, source.config.data.corpus)
    record = record_of(source, scores, renewals)

    text = markdown(record) + "\n"
    target = (args.out_dir or args.exp_dir) / "pathways.md"
    training = target.with_name("pathways-training.png")
    draw_masks(record, target.with_suffix(".png"))
    draw_training(record, training)
    write_json(target.with_suffix(".json"), record)
    write_text(target, text)  # last: where it is, the others are too
    sys.stdout.write(f"{text}\n{target}, {target.with_suffix('.png')}, {training}\n")


def _open(path: Path) -> Source:
    """A model that has pathways.

    Raises:
        UserError: the file is missing, damaged, or of a model without.
    """
    try:
        source = open_source(path, [])
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}; the average stage (6) makes it anew") from error
    method = source.config.weight_pruning.method
    if method != "pathways" or not source.trained or not source.bank.names:
        raise UserError(
            f"{path} has no pathways (weight_pruning.method={method}"
            f"{'' if source.trained else ', without masks'}): give a training with "
            "weight_pruning.method=pathways, or its averaged.pt by --model"
        )
    return source
