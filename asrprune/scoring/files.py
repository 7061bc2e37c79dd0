"""Read and write result files in icefall's format: recogs, errs and wer-summary."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.base.files import write_text
from asrprune.scoring.wer import (
    NOTHING,
    ErrorCounts,
    Utterance,
    align,
    character_errors,
    total,
    word_errors,
)

LINE = re.compile(r"(.+):\t(ref|hyp)=(\[.*\])")


def write_results(
    folder: Path, test_set: str, suffix: str, setting: str, utterances: Sequence[Utterance]
) -> ErrorCounts:
    """Write the three result files of a test set, each atomically.

    Args:
        folder: the folder of the files.
        test_set: the name of the test set.
        suffix: the end of the file names.
        setting: the name of the decoding method in the summary.
        utterances: the utterances of the test set.

    Returns:
        The word errors of the test set.
    """
    words = total(word_errors(utterances))
    letters = total(character_errors(utterances))
    name = f"{test_set}-{suffix}.txt"
    write_errors(folder / f"errs-{name}", utterances)
    write_text(
        folder / f"wer-summary-{name}",
        f"settings\tWER\tCER\n{setting}\t{100 * words.rate:.2f}\t{100 * letters.rate:.2f}\n",
    )
    # The recogs file is the last. If it exists, all three files exist.
    write_recogs(folder / f"recogs-{name}", utterances)
    return words


def write_recogs(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write ``<id>:<tab>ref=['A', 'B']`` and ``<id>:<tab>hyp=['A', 'C']`` for each utterance.

    Raises:
        UserError: an id is empty or contains a line feed.
    """
    lines = []
    for utterance in utterances:
        if "\n" in utterance.id or not utterance.id:
            raise UserError(f"the cut id {utterance.id!r} cannot stand in a result file: rename it")
        lines.append(f"{utterance.id}:\tref={utterance.ref!r}\n")
        lines.append(f"{utterance.id}:\thyp={utterance.hyp!r}\n")
    write_text(path, "".join(lines))


def read_recogs(path: str | Path) -> list[Utterance]:
    """Read the utterances of a file that `write_recogs` has written.

    Raises:
        UserError: the file is missing, or a line has another form. The message names the first such
            line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; the decode stage (8) makes it")
    # read as bytes: text mode would treat a carriage return in an id as a line end
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error}); decode again (stage 8)") from error
    if lines.pop():
        raise UserError(f"{path} is cut off in its last line; decode again (stage 8)")
    found = [_parse(path, number, line) for number, line in enumerate(lines, 1)]
    utterances = {}
    for number, (refs, hyps) in enumerate(zip_longest(found[::2], found[1::2])):
        if not hyps or refs[:2] != (hyps[0], "ref") or hyps[1] != "hyp" or hyps[0] in utterances:
            raise UserError(f"{path}, line {2 * number + 1}: not one ref and one hyp of a new id")
        utterances[hyps[0]] = Utterance(hyps[0], refs[2], hyps[2])
    return list(utterances.values())


def _parse(path: Path, number: int, line: str) -> tuple[str, str, list[str]]:
    match = LINE.fullmatch(line)
    try:
        words = ast.literal_eval(match[3]) if match else None
    except (ValueError, SyntaxError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}, line {number}: not of the form ID:<tab>ref=['A', 'B']")
    return match[1], match[2], words


def write_errors(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write the confused words: by utterance, by type of error and by word.

    In the alignments, ``(A B->C)`` is a sequence of errors. ``*`` stands for no word.
    """
    substitutions, insertions, deletions, correct = Counter(), Counter(), Counter(), Counter()
    in_ref, in_hyp, details = Counter(), Counter(), []
    for utterance in utterances:
        in_ref.update(utterance.ref)
        in_hyp.update(utterance.hyp)
        pairs = align(utterance.ref, utterance.hyp)
        for ref, hyp in pairs:
            if ref == hyp:
                correct[ref] += 1
            elif ref == NOTHING:
                insertions[hyp] += 1
            elif hyp == NOTHING:
                deletions[ref] += 1
            else:
                substitutions[ref, hyp] += 1
        details.append(f"{utterance.id}:\t{show_alignment(pairs)}")

    counts = ErrorCounts(
        insertions.total(), deletions.total(), substitutions.total(), in_ref.total()
    )
    stats = []
    for word in in_ref | in_hyp:
        hits = correct[word]
        stats.append((in_ref[word] + in_hyp[word] - 2 * hits, hits, word))
    sections = [
        [
            f"%WER = {100 * counts.rate:.2f}",
            f"Errors: {counts.insertions} insertions, {counts.deletions} deletions, "
            f"{counts.substitutions} substitutions, over {counts.words} reference words "
            f"({correct.total()} correct)",
            "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, "
            "DELETIONS:, INSERTIONS:, PER-WORD STATS:",
        ],
        ["PER-UTT DETAILS: corr or (ref->hyp)", *details],
        [
            "SUBSTITUTIONS: count ref -> hyp",
            *(f"{count} {ref} -> {hyp}" for (ref, hyp), count in _most_first(substitutions)),
        ],
        ["DELETIONS: count ref", *(f"{n} {word}" for word, n in _most_first(deletions))],
        ["INSERTIONS: count hyp", *(f"{n} {word}" for word, n in _most_first(insertions))],
        [
            "PER-WORD STATS: word corr tot_errs count_in_ref count_in_hyp",
            *(
                f"{word} {hits} {errors} {in_ref[word]} {in_hyp[word]}"
                for errors, hits, word in sorted(stats, key=lambda row: (-row[0], -row[1], row[2]))
            ),
        ],
    ]
    write_text(path, "\n\n".join("\n".join(section) for section in sections) + "\n")


def show_alignment(pairs: Iterable[tuple[str, str]]) -> str:
    """Return an alignment as text, ``A (B C->D) E``: each sequence of errors is in parentheses."""
    shown = []
    for agrees, stretch in groupby(pairs, key=lambda pair: pair[0] == pair[1]):
        refs, hyps = zip(*stretch, strict=True)
        if agrees:
            shown.extend(refs)
        else:
            ref, hyp = (" ".join(filter(None, side)) or "*" for side in (refs, hyps))
            shown.append(f"({ref}->{hyp})")
    return " ".join(shown)


def _most_first(counter: Counter) -> list:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def result_files(folder: Path, test_set: str) -> list[Path]:
    """Return the recogs files of a test set, the newest last.

    A suffix starts with ``epoch-N`` or ``model_``. So files of ``test-clean`` are not taken for
    files of ``test``.
    """
    name = re.compile(rf"recogs-{re.escape(test_set)}-(epoch-\d|model_).*\.txt")
    found = [path for path in folder.glob("recogs-*.txt") if name.fullmatch(path.name)]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
