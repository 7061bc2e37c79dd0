"""Choose a sub-network of a model: by its sparsity, its size, or its language."""

import argparse
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.export.budget import (
    BYTES,
    MILLISECONDS,
    Amount,
    Measure,
    parse_amount,
    unit_of_sparsities,
)
from asrprune.export.milliseconds import measure_times
from asrprune.export.source import Source
from asrprune.weight_pruning.masks.bank import Choice
from asrprune.weight_pruning.pathways import pathway_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Name a sub-network that a user asks for: by a sparsity, by a budget, or by a language."""

    asked: str  # the option or the word of the user, for messages
    sparsity: float | None = None
    budget: Amount | None = None
    language: str | None = None


def wanted_of(word: str) -> Wanted:
    """Read a sparsity (``0.7``), a size (``5MB``, ``120MMAC``, ``1.2ms``), or else a language."""
    if re.fullmatch(r"-?[0-9.]*[0-9]", word) and word.count(".") < 2:
        return Wanted(word, sparsity=float(word))
    try:
        return Wanted(word, budget=parse_amount(word))
    except argparse.ArgumentTypeError:
        return Wanted(word, language=word)


def choose(source: Source, wanted: Wanted, search: Path | None = None) -> Choice:
    """Return the sub-network of a model that the user asks for.

    With a budget, the result is the lowest uniform sparsity within the budget. With ``search``, the
    result is the best sub-network of the search within the budget. With ``search``, a sparsity
    stands for the size of the uniform sub-network of this sparsity.

    Args:
        source: the model.
        wanted: what the user asks for.
        search: a ``pareto.json`` (stage 7), or None.

    Raises:
        UserError: the model has no such sub-network; or the file does not belong to a search of the
            model.
    """
    if wanted.language:
        return _pathway(source, wanted, search)
    if search:
        size = wanted.budget
        if size is None and (found := _of_sparsity(search, source, f"{wanted.sparsity:g}")):
            return found
        if size is None:
            unit = unit_of_sparsities(source.bank)
            measure = Measure(source.model, source.bank, unit)
            size = Amount(measure.of(_sparsity(wanted)), unit)
        again = size.written(between="") if wanted.budget else f"{wanted.sparsity:g}"
        return searched(search, size, source, again)
    return _uniform(source, wanted)


def searched(path: Path, budget: Amount, source: Source, again: str) -> dict[str, float]:
    """Return the sparsities of the best sub-network of a ``pareto.json`` within a budget.

    The best sub-network has the lowest word error rate. After a search with ``--rerank 0``, it has
    the lowest loss.

    Args:
        path: the file.
        budget: the highest cost.
        source: the model that was searched.
        again: the budget in the form that a search takes, for messages.

    Raises:
        UserError: the file is missing, is no ``pareto.json``, or belongs to another model; or no
            sub-network is within the budget.
    """
    content = read_json(path)
    try:
        digest, name = content["model_digest"], content["model"]
        networks = [one["best"] for one in content["budgets"]]
        sizes = [one.get(budget.unit) for one in networks]
        measures = ("wer", "fitness") if content["rerank"] else ("fitness",)
        worst = math.inf  # stands for None in a record
        ranked = sorted(
            networks,
            key=lambda one: [worst if one[key] is None else one[key] for key in measures],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no pareto.json; the search stage (7) makes it") from error
    if digest != source.digest:
        raise UserError(
            f"{path} is of another model than {source.path}, or weights or masks have changed "
            f"since the search of {name}. Search again (stage 7)"
        )
    if None in sizes:
        example = "120MMAC (multiply-adds)" if budget.unit == BYTES else "5MB"
        hint = f"Give another budget, such as {example}"
        if budget.unit == MILLISECONDS:
            hint = f"Search with --budgets {again}, or give another budget"
        raise UserError(f"{path} does not tell the {budget.unit} of its sub-networks. {hint}")
    for network in ranked:
        if network[budget.unit] <= budget.value:
            return network["sparsities"]
    raise UserError(
        f"{budget.written()} are less than the smallest sub-network of {path} has, "
        f"{Amount(min(sizes), budget.unit)}; search with --budgets {again}"
    )


def _of_sparsity(path: Path, source: Source, sparsity: str) -> dict[str, float] | None:
    """Return the sub-network that a search chose for a budget that was this sparsity.

    The search may have measured in milliseconds. Then a look-up by bytes or weights could return
    another sub-network, because these units may order sub-networks differently.

    Args:
        path: a ``pareto.json``.
        source: the model.
        sparsity: the sparsity as text.

    Returns:
        The sparsities of the sub-network; None if the sparsity was no budget of the search.
    """
    content = read_json(path)
    budgets = content.get("budgets") if isinstance(content, dict) else None
    if not isinstance(budgets, list) or content.get("model_digest") != source.digest:
        return None  # `searched` raises the error
    named = {one.get("budget"): one for one in budgets if isinstance(one, dict)}
    best = named.get(sparsity, {}).get("best")
    return best["sparsities"] if best else None


def _pathway(source: Source, wanted: Wanted, search: Path | None) -> str:
    if search:
        raise UserError("--search: is for a supernet. Leave it out, or leave out the language")
    if not source.bank.names:
        raise UserError(
            f"{wanted.asked}: {source.path} has no pathways of languages; sub-networks of it are "
            "named by sparsity, such as 0.7, or by size, such as 5MB"
        )
    try:
        return pathway_of(source.bank.names, wanted.language)
    except UserError as error:
        raise UserError(f"{wanted.asked}: {source.path}: {error}") from error


def _sparsity(wanted: Wanted) -> float:
    if not 0 <= wanted.sparsity <= 1:
        raise UserError(f"{wanted.asked}: a sparsity is between 0 and 1")
    return wanted.sparsity


def _uniform(source: Source, wanted: Wanted) -> float:
    """Return the sparsity of all layers that the user asks for."""
    if source.bank.names:
        raise UserError(
            f"{wanted.asked}: {source.path} has a pathway for each language, and no sizes: name "
            f"one of {', '.join(source.bank.names)}"
        )
    if wanted.budget:
        unit, times = wanted.budget.unit, None
        if unit == MILLISECONDS:
            times = measure_times(source.model, source.bank, source.sparsest)
        measure = Measure(source.model, source.bank, unit, times)
        found = measure.within(wanted.budget.value, source.sparsest, wanted.asked)
        return source.sparsest if source.single else found
    if source.single and abs(_sparsity(wanted) - source.sparsest) > 1e-9:
        raise UserError(
            f"{wanted.asked}: {source.path} was pruned gradually, and has the one size of sparsity "
            f"{source.sparsest:g}; other sizes are in a supernet (weight_pruning.method=supernet)"
        )
    if _sparsity(wanted) > source.sparsest + 1e-9:
        log.warning(
            "%s: no sub-network above sparsity %g was trained", wanted.asked, source.sparsest
        )
    return wanted.sparsity
