"""Report on a pathways model: the masks of its languages, their overlap, and their changes.

Writes four files into the training's folder. ``pathways.json`` has all values, and ``pathways.md``
has tables. ``pathways.png`` shows the overlap of each two masks, and densities by layer.
``pathways-training.png`` shows how the masks changed over the training. With --manifest-dir, the
report has the error rates of each language, if test sets have been decoded.
"""

import argparse
import logging
import sys
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.base.files import write_json, write_text
from asrprune.export.source import Source, open_source
from asrprune.report.pathways.markdown import markdown
from asrprune.report.pathways.plots import draw_masks, draw_training
from asrprune.report.pathways.record import record_of
from asrprune.report.pathways.renewals import read_renewals
from asrprune.report.pathways.scores import result_files_of, scores_of

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune report pathways`` to a parser."""
    parser.add_argument("exp_dir", type=Path, help="folder of the training, such as exp/pathways")
    parser.add_argument("--model", type=Path, help="default: EXP_DIR/averaged.pt (stage 6)")
    parser.add_argument(
        "--manifest-dir",
        type=Path,
        help="validated cuts (stage 3) that were decoded; they have the languages of the cuts",
    )
    parser.add_argument("--out-dir", type=Path, help="folder of the report; default: EXP_DIR")


def main(args: argparse.Namespace) -> None:
    """Print the report, and write it with its plots.

    Raises:
        UserError: the model or the metrics are missing, damaged or of another training; or the
            results of decoding do not fit the model or the manifests.
    """
    path = args.model or args.exp_dir / "averaged.pt"
    source = _open(path)
    languages = sorted(source.bank.names)
    renewals = read_renewals(args.exp_dir / "log" / "metrics.jsonl", languages)
    files = result_files_of(args.exp_dir, path)
    if files and not args.manifest_dir:
        log.warning("no error rates: give --manifest-dir, which has the languages of the cuts")
        files = []
    scores = scores_of(files, languages, args.manifest_dir, source.config.data.corpus)
    record = record_of(source, scores, renewals)

    text = markdown(record) + "\n"
    target = (args.out_dir or args.exp_dir) / "pathways.md"
    training = target.with_name("pathways-training.png")
    draw_masks(record, target.with_suffix(".png"))
    draw_training(record, training)
    write_json(target.with_suffix(".json"), record)
    write_text(target, text)  # last: if this file exists, the others exist too
    sys.stdout.write(f"{text}\n{target}, {target.with_suffix('.png')}, {training}\n")


def _open(path: Path) -> Source:
    """Open a model with pathways.

    Raises:
        UserError: the file is missing or damaged, or its model has no pathways.
    """
    try:
        source = open_source(path, [])
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}; run the average stage (6) again") from error
    method = source.config.weight_pruning.method
    if method != "pathways" or not source.trained or not source.bank.names:
        raise UserError(
            f"{path} has no pathways (weight_pruning.method={method}"
            f"{'' if source.trained else ', without masks'}): give a training with "
            "weight_pruning.method=pathways, or its averaged.pt by --model"
        )
    return source
