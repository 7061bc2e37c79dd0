"""The report of a comparison of sparse models, a pure function of its options and records."""

from collections.abc import Callable, Sequence

from asrprune.base.markdown import NOTHING, table
from asrprune.compare.drawing import plot_path
from asrprune.compare.markup import image, of_set, times
from asrprune.compare.rows import difference, mean
from asrprune.compare.study import Record
from asrprune.compare.verdicts import INTERVALS, LEGEND, show
from asrprune.compare.weight_pruning.claims import judge
from asrprune.compare.weight_pruning.costs import Cost, costs_of
from asrprune.compare.weight_pruning.grid import TABLES, NetworksCell
from asrprune.compare.weight_pruning.options import DENSE, GRADUAL, SEARCHED, WeightStudyOptions
from asrprune.compare.weight_pruning.plots import PLOTS, is_drawn
from asrprune.compare.weight_pruning.summary import NetworkRow, Summary
from asrprune.export.in_turn import FLOAT32, INT8, KINDS

COSTS = (
    *("cost of all sizes", "seeds", "trainings", "passes", "training, s", "training, CPU s"),
    *("evaluations", "search, s", "time / one dense", "CPU time / one dense"),
    *("time / all gradual", "CPU time / all gradual"),
)
RUNTIME = (
    *("in sherpa-onnx", "sparsity", "seeds", "WER, float32", "WER, int8", "int8 − float32"),
    *("int8 MB", "ms, float32", "ms, int8"),
)
CLAIMS = ("claim", "verdict", "measured", "detectable")


def sections(
    options: WeightStudyOptions, cells: Sequence[NetworksCell], records: Sequence[Record]
) -> list[str]:
    """Return the tables of each test set, a legend, and links to the plots.

    Args:
        options: options of the comparison.
        cells: all cells of the grid, for the costs of each method.
        records: the current records.
    """
    parts: list[str] = []
    for name in options.test_sets:
        found = [record for record in records if record["set"] == name]
        summary = Summary(found, name)
        if not summary.rows:
            continue
        parts.append(of_set(options, name, found[0]))
        parts.append(_errors(summary))
        if any(method == GRADUAL for method, _ in summary.rows):
            parts.append("Differences from the *gradual* model of the same sparsity:")
            parts.append(_differences(summary))
        if name == options.test_sets[0]:
            parts += _runtime(summary)
            parts += [_costs(summary, cells, found), *_searches(summary)]
        if options.claims:
            verdicts = [
                (claim.claim, judge(claim, summary, cells, found, options.margin))
                for claim in options.claims
            ]
            lines = ((text, f"**{v.verdict}**", v.found, v.could_show) for text, v in verdicts)
            parts.append(table(CLAIMS, lines))
    parts.append(_legend(options, records))
    plots = {name: text for name, text in PLOTS.items() if is_drawn(name, records)}
    parts += [image(options, text, plot_path(options.results, p)) for p, text in plots.items()]
    return parts


def _errors(summary: Summary) -> str:
    """Return the table of error rates: a row for each method, a column for each sparsity.

    Behind an error rate stands the size of the network.
    """
    return _by_sparsity(summary, "WER (int8 MB)", summary.methods, _rate)


def _differences(summary: Summary) -> str:
    def against_gradual(row: NetworkRow) -> str:
        found = difference(row, summary.rows.get((GRADUAL, row.sparsity)))
        return show(found[0]) if found else NOTHING

    others = [method for method in summary.methods if method != GRADUAL]
    return _by_sparsity(summary, "− gradual", others, against_gradual)


def _by_sparsity(
    summary: Summary,
    title: str,
    methods: Sequence[str],
    shown: Callable[[NetworkRow], str],
) -> str:
    levels, rows = summary.sparsities, []
    for method in methods:
        found = {level: summary.rows.get((method, level)) for level in levels}
        counts = sorted({len(row.records) for row in found.values() if row})
        seeds = "–".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
        rows.append([method, seeds, *(shown(row) if row else NOTHING for row in found.values())])
    return table([title, "seeds", *(f"{level:g}" for level in levels)], rows)


def _rate(row: NetworkRow) -> str:
    value, low, high = (f"{100 * part:.2f}" for part in row.rate[:3])
    return f"{value} [{low}, {high}] ({row.mean('bytes') / 1e6:.2f})"


def _runtime(summary: Summary) -> list[str]:
    """Return the table of networks that were run in sherpa-onnx; nothing if none was run."""
    lines = []
    for (method, sparsity), row in summary.rows.items():
        kinds = {kind: row.in_runtime(kind) for kind in KINDS}
        if method == row.method and all(kinds.values()):  # not again for methods that share it
            float32, int8 = kinds[FLOAT32], kinds[INT8]
            lines.append(
                [
                    method,
                    f"{sparsity:g}",
                    str(len(int8.records)),
                    *(f"{100 * one.rate.value:.2f}" for one in kinds.values()),
                    show(difference(int8, float32)[0]),
                    f"{row.mean('bytes') / 1e6:.2f}",
                    *(f"{one.mean('milliseconds'):.2f}" for one in kinds.values()),
                ]
            )
    return [table(RUNTIME, lines)] if lines else []


def _costs(summary: Summary, cells: Sequence[NetworksCell], records: Sequence[Record]) -> str:
    dense = costs_of(DENSE, cells, records)
    gradual = costs_of(GRADUAL, cells, records)
    rows = []
    for method in summary.methods:
        costs = costs_of(method, cells, records)
        if not costs:
            continue
        first = next(iter(costs.values()))
        rows.append(
            [
                method,
                str(len(costs)),
                str(first.trainings),
                *(
                    _number(mean(getattr(cost, name) for cost in costs.values()))
                    for name in ("passes", "training_seconds", "training_cpu_seconds")
                ),
                *(
                    _number(mean(getattr(cost, name) for cost in costs.values()))
                    if first.evaluations
                    else NOTHING
                    for name in ("evaluations", "search_seconds")
                ),
                *(
                    times(_ratio(costs, others, name))
                    for others in (dense, gradual)
                    for name in ("seconds", "cpu_seconds")
                ),
            ]
        )
    return table(COSTS, rows)


def _ratio(costs: dict[int, Cost], others: dict[int, Cost], name: str) -> float | None:
    """Return the ratio of two costs, summed over the seeds for which both are known."""
    pairs = [
        (getattr(costs[seed], name), getattr(others[seed], name))
        for seed in sorted(costs.keys() & others.keys())
    ]
    known = [pair for pair in pairs if None not in pair]
    return sum(top for top, _ in known) / sum(bottom for _, bottom in known) if known else None


def _searches(summary: Summary) -> list[str]:
    """Return the losses of searched networks, and their correlation with error rates."""
    methods = [method for method in summary.methods if method in TABLES]
    if not methods:
        return []
    some = next(row for (method, _), row in summary.rows.items() if method in TABLES)
    search = next(iter(some.records.values()))["search"]
    return [
        f"Loss per token on {search['dev_set']} of the network that was taken for each size, "
        "as a mean over seeds. In parentheses: the best network within the same size that has one "
        "sparsity in all layers.",
        _by_sparsity(summary, "loss", methods, _loss),
        *_correlations(summary),
    ]


def _correlations(summary: Summary) -> list[str]:
    """Return a sentence on the rank correlation of loss and WER among networks of one size."""
    rows = [row for (method, _), row in summary.rows.items() if method == SEARCHED]
    some = next((record["search"] for row in rows for record in row.records.values()), None)
    if not (some and some["sample_of_each"]):
        return []
    found = {row.sparsity: _correlation(row) for row in rows}
    shown = ", ".join(f"{_number(one, 2)} at {level:g}" for level, one in sorted(found.items()))
    return [
        f"Rank correlation of this loss with the WER on {some['dev_set']}, as means over seeds: "
        f"{shown}; {_number(mean(found.values()), 2)} on average. For each size, up to "
        f"{some['sample_of_each']} evaluated sub-networks of nearly the same size are compared: at "
        f"most {100 * some['band']:g} % smaller than the uniform network of the sparsity."
    ]


def _correlation(row: NetworkRow) -> float | None:
    return mean(record["search"]["rank_correlation"] for record in row.records.values())


def _loss(row: NetworkRow) -> str:
    searches = [record["search"] for record in row.records.values()]
    best, uniform = (mean(one[name] for one in searches) for name in ("loss", "uniform_loss"))
    return NOTHING if best is None else f"{best:.4f} ({_number(uniform, 4)})"


def _legend(options: WeightStudyOptions, records: Sequence[Record]) -> str:
    runtime = ""
    if any(record.get("runtime") for record in records):
        runtime = (
            "*In sherpa-onnx*: each utterance is followed by silence, as at the end of a stream. "
            "*ms*: CPU time for a chunk (for a second of speech without streaming) on one thread. "
            "Other trainings may have run at that time. "
        )
    return (
        "*int8 MB*: the files that a runtime loads, encoder and joiner in int8. Masked blocks make "
        f"no file smaller. Error rates are of float32. {runtime}"
        "*one_shot*: the dense model, pruned after its training. *small*: one dense training for "
        "each sparsity, of a model with the sizes of the network that has this sparsity in all "
        "layers; at 0 the dense model. *gradual*: one training for each "
        "sparsity; at 0 the dense model. *supernet*: one training for all sparsities. Its "
        "sub-networks have one sparsity in all layers and are not trained further. *searched*: the "
        "best sub-network of the supernet that a search finds within the size of the uniform "
        "sub-network: of those with the lowest loss on the development set, the one with the "
        "lowest WER there. *random_search*: the best of as many random draws. *Search, s*: time "
        "of all evaluations and decodings of the search, also of those that the other search had "
        f"done before. Their CPU time is not known. {INTERVALS}. *Passes*: forward and backward "
        "passes of a "
        "micro-batch. A teacher's forward pass counts a third. Times are means over processes that "
        "were never stopped, from start to end. *Time / one dense* and *time / all gradual*: the "
        "time of trainings and search over the time of one dense training, and over the time of "
        f"all gradual trainings. *No worse*: the WER is at most {100 * options.margin:g} % "
        f"(relative) above the other's. {LEGEND}"
    )


def _number(value: float | None, digits: int = 0) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"
