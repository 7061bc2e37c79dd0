"""Computes the error rates of each language from the decoding results of a pathways model."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.data.batches import language_of, open_cuts
from asrprune.decoding.decode import model_suffix
from asrprune.decoding.options import METHODS
from asrprune.scoring.files import read_recogs
from asrprune.scoring.score import score_set
from asrprune.scoring.wer import Utterance
from asrprune.weight_pruning.pathways import pathway_of

# settings of the search, which may follow the model in the name of a result file
SETTINGS = r"(?:-(?:max_sym_|beam_|blank-penalty-|streaming|language_).*)?"


def result_files_of(exp_dir: Path, model: Path) -> list[tuple[str, str, str, Path]]:
    """Return (test set, method, settings of the search, file) of all results of a model, in order.

    Settings are written as in the file's name, such as ``beam_4-streaming``. They are empty for the
    default settings.
    """
    name = re.compile(rf"recogs-(.+)-{re.escape(model_suffix(model))}({SETTINGS})\.txt")
    found = []
    for method in METHODS:
        for path in sorted((exp_dir / method).glob("recogs-*.txt")):
            if match := name.fullmatch(path.name):
                found.append((match[1], method, match[2].removeprefix("-"), path))
    return found


def scores_of(
    files: Sequence[tuple[str, str, str, Path]],
    languages: Sequence[str],
    manifest_dir: Path,
    corpus: str,
) -> list[dict[str, Any]]:
    """Return a row for each result file and each language in it, with ``WER`` and ``CER``.

    Scores are computed as in stage 9. Languages are those of the decoded cuts, in the order of
    ``languages``.

    Args:
        files: result files from `result_files_of`.
        languages: the languages of the model.
        manifest_dir: the folder with the manifests of the decoded cuts.
        corpus: the prefix of the manifests.

    Raises:
        UserError: a result is damaged; its manifest is missing or lacks a cut; or the model has no
            pathway for a language.
    """
    known: dict[str, dict[str, str]] = {}  # test set -> cut id -> language
    rows = []
    for test_set, method, settings, path in files:
        if test_set not in known:
            known[test_set] = _languages(manifest_dir, corpus, test_set)
        parts: dict[str, list[Utterance]] = {}
        for utterance in read_recogs(path):
            try:
                language = pathway_of(languages, known[test_set][utterance.id])
            except KeyError as error:
                raise UserError(
                    f"{path}: {corpus}_cuts_{test_set}.jsonl.gz of {manifest_dir} does not say in "
                    f"which language {utterance.id} is; give the --manifest-dir that was decoded, "
                    "or decode again (stage 8)"
                ) from error
            except UserError as error:
                raise UserError(f"{path}: {utterance.id}: {error}; decode again (8)") from error
            parts.setdefault(language, []).append(utterance)
        for language in sorted(parts, key=list(languages).index):
            about = {"language": language, "set": test_set, "method": method, "settings": settings}
            rows.append({**about, "file": f"{method}/{path.name}", **score_set(parts[language])})
    return rows


def _languages(manifest_dir: Path, corpus: str, test_set: str) -> dict[str, str]:
    """Return cut id -> language, for the cuts that have a language."""
    cuts = open_cuts(manifest_dir, corpus, test_set, lazy=True)
    return {cut.id: language for cut in cuts if (language := language_of(cut))}
