"""The budgets of a search: what was asked for, and the sparsities that layers may have for it."""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asrprune.config import Config
from asrprune.errors import UserError
from asrprune.export.budget import BYTES, Measure, parse_amount
from asrprune.export.source import SPARSEST, sparsest_untrained
from asrprune.randomness import seed_global_generators
from asrprune.training.masking import make_bank
from asrprune.transducer.model import build_model
from asrprune.weight_pruning.blocks import LEVELS, level_of
from asrprune.weight_pruning.options import Block, parse_block
from asrprune.weight_pruning.supernet import GRID

FEWEST_SYMBOLS = 2  # of a vocabulary: the blank and another one


@dataclass(frozen=True)
class Budget:
    """What sub-networks may cost."""

    cost: float  # in the unit of the search
    sparsity: float  # of the uniform sub-network of this cost


def unit_of(texts: Sequence[str]) -> str:
    """The unit that budgets are written in: bytes, where all are sparsities.

    Raises:
        UserError: the budgets have two units, or a text is no budget.
    """
    units = {}
    for text in texts:
        if _sparsity(text) is not None:
            continue
        try:
            units.setdefault(parse_amount(text).unit, text)
        except argparse.ArgumentTypeError as error:
            raise UserError(
                f"--budgets: {text!r} is neither a size, such as 800kB or 5MB, nor work for a "
                "second of speech, such as 120MMAC, nor a sparsity of at least 0 and below 1"
            ) from error
    if len(units) > 1:
        raise UserError(
            f"--budgets {' '.join(units.values())}: bytes or multiply-adds, a search has one of "
            "them (the evaluations of one serve the other)"
        )
    return next(iter(units), BYTES)


def budget_of(text: str, measure: Measure, sparsest: float) -> Budget:
    """A budget as it is written: an amount in the measure's unit, or a sparsity, such as 0.7.

    Raises:
        UserError: it is less than the uniform sub-network of ``sparsest`` takes.
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
    """See, before there is a model of a config, whether it will have sub-networks of some budgets.

    By shapes, from which sizes follow. With ``scope=global`` they follow from the weights as well,
    and only sparsities are looked at.

    Args:
        vocabulary: the number of symbols; while it is unknown, the fewest that there may be.

    Raises:
        UserError: it will not, as of `unit_of` and `budget_of`; options that do not fit.
    """
    unit, options = unit_of(texts), config.weight_pruning
    seed_global_generators(config.seed)
    model = build_model(config.model, config.loss, vocabulary or FEWEST_SYMBOLS)
    measure = Measure(model, make_bank(model, options), unit)
    untrained = options.method == "none"
    sparsest = (
        sparsest_untrained(parse_block(options.block)) if untrained else options.schedule.final
    )
    for text in texts:
        if options.scope == "layer" or _sparsity(text) is not None:
            budget_of(text, measure, sparsest)


def choices_of(block: Block, sparsest: float, wanted: Iterable[float]) -> list[float]:
    """The sparsities that a layer may have: of the grid, the sparsest, and those of the budgets.

    A supernet trains tenths (of N:M, parts of M) and the sparsest, which a model without masks does
    not have. With those of the budgets, the uniform sub-network that just fits is among those a
    budget is searched for.

    Args:
        wanted: the sparsities of the budgets.
    """
    parts = block.group or GRID
    steps = {part / parts for part in range(parts) if part / parts <= sparsest + 1e-6}
    if not block.group and sparsest != SPARSEST:
        steps.add(level_of(sparsest) / LEVELS)
    return sorted(steps.union(wanted))


def _sparsity(text: str) -> float | None:
    """The sparsity that a text is, if it is one."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return number if 0 <= number < 1 else None
