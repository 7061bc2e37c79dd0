"""Reads the budgets of a search, and chooses the sparsities that layers may have within them."""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.randomness import seed_global_generators
from asrprune.config import Config
from asrprune.export.budget import (
    MILLISECONDS,
    WEIGHTS,
    Measure,
    parse_amount,
    unit_of_sparsities,
)
from asrprune.export.milliseconds import require_cuts
from asrprune.export.source import SPARSEST, sparsest_untrained
from asrprune.training.banks import make_bank
from asrprune.transducer.model import build_model
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.blocks import LEVELS, dropped, level_of
from asrprune.weight_pruning.options import Block, WeightPruningOptions, parse_block
from asrprune.weight_pruning.supernet import GRID, windows

FEWEST_SYMBOLS = 2  # the smallest vocabulary: the blank and one more symbol


@dataclass(frozen=True)
class Budget:
    """The highest cost that a sub-network may have."""

    cost: float  # in the unit of the search
    sparsity: float  # the uniform sub-network of this sparsity has this cost


def unit_of(texts: Sequence[str], bank: MaskBank) -> str:
    """Return the unit in which budgets are written.

    If all are sparsities, the unit is bytes of int8 files, or weights where blocks are pruned.

    Raises:
        UserError: the budgets have two units, or a text is not a budget.
    """
    units = {}
    for text in texts:
        if _sparsity(text) is not None:
            continue
        try:
            units.setdefault(parse_amount(text).unit, text)
        except argparse.ArgumentTypeError as error:
            raise UserError(
                f"--budgets: {text!r} is neither a size, such as 800kB or 5MB, nor multiply-adds "
                "for a second of speech, such as 120MMAC, nor milliseconds, such as 1.2ms, nor a "
                "sparsity of at least 0 and below 1"
            ) from error
    if len(units) > 1:
        raise UserError(
            f"--budgets {' '.join(units.values())}: all budgets of a search have one unit: bytes, "
            "multiply-adds or milliseconds. Run two searches: the second search uses the "
            "evaluations of the first"
        )
    return next(iter(units), unit_of_sparsities(bank))


def budget_of(text: str, measure: Measure, sparsest: float) -> Budget:
    """Read a budget: an amount in the measure's unit, or a sparsity such as 0.7.

    Args:
        text: the budget as the user wrote it.
        measure: measures the cost of sub-networks.
        sparsest: the highest sparsity of a uniform sub-network.

    Raises:
        UserError: the budget is below the cost of the uniform sub-network of ``sparsest``.
    """
    sparsity = _sparsity(text)
    if sparsity is None:
        amount = parse_amount(text).value
        return Budget(amount, measure.within(amount, sparsest, "--budgets"))
    if sparsity > sparsest + 1e-6:
        raise UserError(f"--budgets {text}: no sub-network above sparsity {sparsest:g} was trained")
    sparsity = level_of(sparsity) / LEVELS
    return Budget(measure.of(sparsity), sparsity)


def check_budgets(texts: Sequence[str], config: Config, vocabulary: int | None = None) -> None:
    """Check, before a training, that its model will have sub-networks within the budgets.

    Sizes are computed from the shapes of the weights. Milliseconds are measured by the search, so
    here only their unit is checked. With ``scope=global`` sizes depend on the values of the weights
    too, so only budgets that are sparsities are checked.

    Args:
        texts: the budgets as the user wrote them.
        config: the configuration of the training.
        vocabulary: the number of symbols; None while it is unknown: the smallest vocabulary.

    Raises:
        UserError: a budget is not valid (`unit_of`) or too small (`budget_of`); or the options of
            the configuration do not go together.
    """
    options = config.weight_pruning
    seed_global_generators(config.seed)
    model = build_model(config.model, config.loss, vocabulary or FEWEST_SYMBOLS)
    bank = make_bank(model, options)
    unit = unit_of(texts, bank)
    if unit == MILLISECONDS:
        require_cuts(bank)
        texts = [text for text in texts if _sparsity(text) is not None]
    if all(_sparsity(text) is not None for text in texts):
        unit = WEIGHTS  # the check is the same in any unit, and bytes would need an export
    measure = Measure(model, bank, unit)
    untrained = options.method == "none"
    sparsest = (
        sparsest_untrained(parse_block(options.block)) if untrained else options.schedule.final
    )
    for text in texts:
        if options.scope == "layer" or _sparsity(text) is not None:
            budget_of(text, measure, sparsest)


def choices_of(block: Block, sparsest: float, wanted: Iterable[float]) -> list[float]:
    """Return the sparsities that a layer may have in a search, ascending.

    A supernet trains the sparsities of a grid (tenths, or multiples of 1/M with N:M) and its
    highest sparsity. A model without masks has no such highest sparsity. The sparsities of the
    budgets are added, so a search may choose the uniform sub-network that just fits its budget.

    Args:
        block: the shape of a block.
        sparsest: the highest sparsity of a layer.
        wanted: the sparsities of the budgets.
    """
    parts = block.group or GRID
    steps = {part / parts for part in range(parts) if part / parts <= sparsest + 1e-6}
    if not block.group and sparsest != SPARSEST:
        steps.add(level_of(sparsest) / LEVELS)
    return sorted(steps.union(wanted))


def windows_of(
    options: WeightPruningOptions, sparsest: float, choices: Sequence[float]
) -> list[list[float]]:
    """Return the sets of choices that the layers of one sub-network may have in a search.

    For a supernet these are the sets that its training draws from
    (`asrprune.weight_pruning.supernet.windows`). A sparsity that only a budget has was not trained.
    So only the uniform sub-network of this sparsity is searched.

    Args:
        options: the options of the training.
        sparsest: the highest sparsity of a layer.
        choices: the sparsities that a layer may have.

    Returns:
        For a supernet, ascending sets of choices. For a model that was trained without masks none,
        because no sub-network of it was trained.
    """
    if options.method != "supernet":
        return []
    block = parse_block(options.block)
    grid = set(choices_of(block, sparsest, []))

    def mask(sparsity: float) -> int:
        """Return a number that is equal for sparsities with equal masks."""
        level = level_of(sparsity)
        return dropped(level, block.group) if block.group else level

    found: list[list[float]] = []
    for trained in windows(options.supernet, sparsest):
        masks = {mask(sparsity) for sparsity in trained}
        window = [choice for choice in choices if choice in grid and mask(choice) in masks]
        if window and window not in found:  # blocks of N:M may not have its masks
            found.append(window)
    return found


def _sparsity(text: str) -> float | None:
    """Return the sparsity that a text states; None if the text is not a sparsity."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return number if 0 <= number < 1 else None
