"""The tables of the report on a pathways model."""

from typing import Any

from asrprune.base.markdown import NOTHING, table
from asrprune.report.pathways.record import Record
from asrprune.report.pathways.renewals import Renewals, changes
from asrprune.weight_pruning.masks.groups import CHANNEL, HEAD, LAYER

SIZES = ("density", "parameters (M)", "mask (kB)")


def _units(block: str) -> str:
    return f"{block}s" if block in (CHANNEL, LAYER, HEAD) else f"blocks of {block}"


def markdown(record: Record) -> str:
    """Return the report on a model, a pure function of its record."""
    union, languages = record["union"], record["languages"]
    return "\n\n".join(
        [
            f"# Pathways of {record['model']}",
            f"{len(languages)} languages share one set of weights, which is pruned in "
            f"{_units(record['block'])}. Densities are shares of the weights of the pruned layers. "
            "Parameters are weights that are kept or never pruned. A mask takes one bit for each "
            "unit."
            + (" Word error rates in per cent, with 95 % intervals." * bool(record["scores"])),
            _sizes(record),
            "## The union of all masks",
            table(
                ["", "density"],
                [
                    ["if all masks were equal (1-s)", _share(union["equal"])],
                    ["**union**", f"**{_share(union['density'])}**"],
                    ["by chance, with the densities of each layer", _share(union["chance"])],
                    [
                        f"if masks were independent (1-s^{len(languages)})",
                        _share(union["independent"]),
                    ],
                    ["**shared by all languages**", f"**{_share(record['shared']['density'])}**"],
                    ["by chance", _share(record["shared"]["chance"])],
                ],
            ),
            "s is the sparsity of a mask. If masks have different sparsities, 1-s is the density "
            f"of the densest mask, and s^{len(languages)} is the product of all sparsities. *By "
            "chance*: for masks that are drawn at random and keep as many blocks of each layer.",
            "## Overlap of each two languages",
            "Weights that both languages keep over weights that at least one of them keeps "
            "(Jaccard). In brackets: the overlap by chance.",
            _overlap(record["overlap"]),
            "## Renewals",
            _renewals(record["renewals"]),
        ]
    )


def _sizes(record: Record) -> str:
    columns = sorted({(row["method"], row["settings"]) for row in record["scores"]})
    rows = [
        [name, *(_scores(record, name, *column) for column in columns), *_described(one)]
        for name, one in record["languages"].items()
    ]
    for name, key in (
        ("**union**", "union"),
        ("shared by all", "shared"),
        ("without masks", "dense"),
    ):
        rows.append([name, *([""] * len(columns)), *_described(record[key])])
    titles = [f"WER {' '.join(filter(None, column))}" for column in columns]
    return table(["language", *titles, *SIZES], rows)


def _described(one: dict[str, Any]) -> list[str]:
    mask = one.get("mask_bytes")
    return [
        _share(one["density"]),
        f"{one['parameters'] / 1e6:.3f}",
        "" if mask is None else f"{mask / 1e3:.1f}",
    ]


def _scores(record: Record, language: str, method: str, settings: str) -> str:
    """Return the error rates of a language. Sets are named if the language has several."""
    wanted = (language, method, settings)
    rows = [
        row
        for row in record["scores"]
        if (row["language"], row["method"], row["settings"]) == wanted
    ]
    cells = [
        "{} [{}, {}]".format(*(_percent(row["WER"][key]) for key in ("rate", "low", "high")))
        for row in rows
    ]
    if len(rows) > 1:
        cells = [f"{row['set']}: {cell}" for row, cell in zip(rows, cells, strict=True)]
    return "; ".join(cells) or NOTHING


def _overlap(overlap: dict[str, Any]) -> str:
    names = overlap["languages"]
    rows = []
    for row, name in enumerate(names):
        cells = [
            f"{value:.3f} ({chance:.3f})" if column != row else "1"
            for column, (value, chance) in enumerate(
                zip(overlap["jaccard"][row], overlap["chance"][row], strict=True)
            )
        ]
        rows.append([name, *cells])
    return table(["", *names], rows)


def _renewals(renewals: Renewals) -> str:
    if not any(renewals.values()):
        return "The training renewed no mask."
    rows = []
    for language, lines in renewals.items():
        again = [line["changed"] for line in changes(lines)]
        ends = (lines[0], lines[-1]) if lines else ()
        rows.append(
            [
                language,
                str(len(lines)),
                " to ".join(dict.fromkeys(str(line["step"]) for line in ends)) or NOTHING,
                " to ".join(dict.fromkeys(_share(line["density"]) for line in ends)) or NOTHING,
                _share(sum(again) / len(again)) if again else NOTHING,
                _share(again[-1]) if again else NOTHING,
            ]
        )
    columns = ["language", "masks made", "steps", "density", "mean change", "last change"]
    return (
        "*Change*: 1 minus the overlap with the language's mask before. The first mask of a "
        "language does not count as a change.\n\n" + table(columns, rows)
    )


def _share(value: float) -> str:
    return f"{value:.3f}"


def _percent(rate: float | None) -> str:
    return "inf" if rate is None else f"{100 * rate:.2f}"
