"""The report of a comparison of pathways, a pure function of its options and records."""

from collections.abc import Callable, Sequence

from asrprune.base.markdown import NOTHING, table
from asrprune.compare.drawing import plot_path
from asrprune.compare.markup import image
from asrprune.compare.pathways.claims import judge
from asrprune.compare.pathways.grid import LanguagesCell
from asrprune.compare.pathways.options import ALL, PathwaysStudyOptions
from asrprune.compare.pathways.plots import PLOTS
from asrprune.compare.pathways.summary import Summary
from asrprune.compare.rows import Row, difference, mean
from asrprune.compare.study import Record
from asrprune.compare.verdicts import INTERVALS, LEGEND, show

CLAIMS = ("claim", "verdict", "measured", "detectable")
COSTS = (
    *("training", "models", "seeds", "density", "density of all languages", "overlap", "passes"),
    *("passes with sources", "training, CPU s"),
)


def sections(
    options: PathwaysStudyOptions, cells: Sequence[LanguagesCell], records: Sequence[Record]
) -> list[str]:
    """Return tables of errors, masks, passes and claims, a legend, and links to the plots."""
    summary = Summary(cells, records)
    base = next((method for method in summary.methods if not _begins(cells, method)), None)
    parts = [
        _what_they_are(options, summary),
        _of_sets(options, summary),
        _by_language(summary, "WER", summary.methods, _rate),
    ]
    rivals = _rivals(options, summary.methods)
    for rival in rivals:
        others = [method for method in summary.methods if method not in (rival, base)]
        parts.append(f"Differences from *{rival}*:")
        parts.append(_by_language(summary, f"− {rival}", others, _against(summary, rival)))
    parts.append(table(COSTS, (_cost(summary, method) for method in summary.methods)))
    if options.claims:
        found = [(claim.claim, judge(claim, summary, options.margin)) for claim in options.claims]
        lines = ((text, f"**{v.verdict}**", v.found, v.could_show) for text, v in found)
        parts.append(table(CLAIMS, lines))
    parts.append(_legend(options))
    return parts + [
        image(options, text, plot_path(options.results, name)) for name, text in PLOTS.items()
    ]


def _begins(cells: Sequence[LanguagesCell], method: str) -> bool:
    """Return whether a method begins with the model of another method."""
    return any(cell.after for cell in cells if cell.method == method)


def _rivals(options: PathwaysStudyOptions, methods: Sequence[str]) -> list[str]:
    """Return the first rival that the claims name; differences from this rival get a table."""
    named = [name for claim in options.claims for name in claim.than if name in methods]
    return named[:1]


def _what_they_are(options: PathwaysStudyOptions, summary: Summary) -> str:
    lines = []
    for name in summary.methods:
        training = options.trainings[name]
        parts = [training.about] if training.about else []
        if training.start:
            parts.append(f"from the weights of *{training.start}*")
        if training.masks:
            which = f"at sparsity {training.sparsity:g}" if training.sparsity else "as they are"
            parts.append(f"masks of *{training.masks}* {which}")
        if training.languages:
            parts.append(f"trained on {', '.join(training.languages)}")
        if training.each_language:
            parts.append("a model for each language")
        lines.append(f"- *{name}*: {'; '.join(parts)}")
    return "\n".join(lines)


def _of_sets(options: PathwaysStudyOptions, summary: Summary) -> str:
    rows = [
        (name, summary.rows.get((method, name)))
        for method in summary.methods
        for name in summary.languages
    ]
    shown: dict[str, str] = {}
    for language, row in rows:
        if row and language not in shown:
            record = next(iter(row.records.values()))
            shown[language] = (
                f"{record['set']}, {record['words']} words of {len(record['speakers'])} speakers"
            )
    speech = "Test sets (synthetic)" if options.synthetic else "Test sets"
    return (
        f"{speech}: {'; '.join(shown.values())}. Decoded by {options.decoding_method}. Error rates "
        "in per cent:"
    )


def _by_language(
    summary: Summary, title: str, methods: Sequence[str], shown: Callable[[str, str, Row], str]
) -> str:
    """Return a table with a row for each method and a column for each language."""
    languages = [*summary.languages, ALL]
    rows = []
    for method in methods:
        found = {name: summary.rows.get((method, name)) for name in languages}
        counts = sorted({len(row.records) for row in found.values() if row})
        seeds = "–".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
        cells = [shown(method, name, row) if row else NOTHING for name, row in found.items()]
        rows.append([method, seeds, *cells])
    return table([title, "seeds", *languages], rows)


def _rate(method: str, language: str, row: Row) -> str:
    value, low, high = (f"{100 * part:.2f}" for part in row.rate[:3])
    return f"{value} [{low}, {high}]"


def _against(summary: Summary, rival: str) -> Callable[[str, str, Row], str]:
    def shown(method: str, language: str, row: Row) -> str:
        found = difference(row, summary.rows.get((rival, language)))
        return show(found[0]) if found else NOTHING

    return shown


def _cost(summary: Summary, method: str) -> list[str]:
    row = summary.rows.get((method, ALL))
    some = row.records if row else {}
    one_model = summary.models(method) == 1
    corpus = summary.corpus_hours()
    own, whole = (summary.hours(method, with_sources=flag) for flag in (False, True))
    overlaps = [mean(record["overlaps"].values()) for record in some.values()]
    return [
        method,
        str(summary.models(method)),
        str(len(some)),
        _number(mean(record["density"] for record in some.values()), 3),
        _number(mean(record["union_density"] for record in some.values()), 3)
        if one_model
        else NOTHING,
        _number(mean(overlaps), 3) if one_model else NOTHING,
        *(_number(_over(mean(hours.values()), corpus), 1) for hours in (own, whole)),
        _number(mean(summary.cpu_seconds(method).values())),
    ]


def _over(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _legend(options: PathwaysStudyOptions) -> str:
    return (
        f"*{ALL}*: the utterances of all languages together. *Density*: the share of the pruned "
        "layers' weights that a language uses, as a mean over languages. *Density of all "
        "languages*: the share that at least one language uses. *Overlap*: weights that both of "
        "two languages use over weights that at least one of them uses (Jaccard), as a mean over "
        "pairs. *Passes*: hours of speech in all trainings of a row over the hours of the training "
        "set. *Passes with sources*: the same, with the trainings from which the row's weights and "
        "masks come. The training from nothing is left out, because all need it. *Training, CPU "
        "s*: the time of the row's own trainings, as a mean over seeds in which no training was "
        f"stopped. {INTERVALS}. **An interval of a single seed holds for that seed only.** *No "
        f"worse*: the WER is at most {100 * options.margin:g} % (relative) above the other's. "
        f"{LEGEND}"
    )


def _number(value: float | None, digits: int = 0) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"
