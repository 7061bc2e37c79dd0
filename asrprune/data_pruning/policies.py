"""Load policies by name, also the user's own, and bind their options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asrprune.base.errors import UserError, nearest
from asrprune.base.factory import check_options, load_callable
from asrprune.data_pruning import policies_emergent as emergent
from asrprune.data_pruning import policies_ranked as ranked
from asrprune.data_pruning.context import Context, Ranking, Selection, check_range
from asrprune.data_pruning.selection import select, totals

Answer = np.ndarray | Ranking | Selection


@dataclass(frozen=True)
class Policy:
    """A policy's function, and how the plan treats it."""

    function: Callable[..., Answer]  # (context, **options)
    static: bool = False  # chooses once, after the warm-up
    stratified: bool = True  # ranks inside duration strata
    emergent: bool = False  # its rule decides how much is kept


def duration_matched(context: Context, like: str = "easy", bins: int = 20) -> Ranking:
    """Draw cuts at random, with the same durations as the cuts that another policy would keep.

    In each of ``bins`` duration classes as much is drawn as the policy ``like`` keeps there, if
    ``like`` ranks inside the same strata. The share kept is ``keep``, also if ``like`` has an
    emergent budget. This control shows whether ``like`` chooses by more than the duration.
    """
    check_range("bins", bins, 1, 100)
    known = [name for name in POLICIES if name not in ("full", "duration_matched")]
    if like not in known:
        raise UserError(
            f"data_pruning.policy_options.like={like}: there is no such policy"
            f"{nearest(like, known)}"
        )
    answer = POLICIES[like].function(context)
    if isinstance(answer, Selection):
        model = answer.keep
    else:
        ranking = answer if isinstance(answer, Ranking) else Ranking(answer)
        model = context.first(ranking.priority, context.keep, ranking.tier)
    codes = context.index.strata(bins)
    draws = context.uniform()
    budgets = totals(context.cost, codes, bins, model)
    chosen = select(draws, context.cost, budgets, codes)
    return Ranking(draws, (~chosen).view(np.uint8))


POLICIES: dict[str, Policy] = {
    "full": Policy(lambda context: np.zeros(len(context), np.float32)),
    "random": Policy(ranked.random),
    "easy": Policy(ranked.easy),
    "hard": Policy(ranked.hard),
    "middle": Policy(ranked.middle),
    "easy2hard": Policy(ranked.easy2hard),
    "epsilon_greedy": Policy(ranked.epsilon_greedy),
    "ucb": Policy(ranked.ucb),
    "orderdp": Policy(ranked.orderdp),
    "duration_matched": Policy(duration_matched),
    "infobatch": Policy(emergent.infobatch, stratified=False, emergent=True),
    "seta": Policy(emergent.seta, stratified=False, emergent=True),
    "static_random": Policy(partial(ranked.random, replacement=True), static=True),
    "static_easy": Policy(ranked.easy, static=True),
    "static_hard": Policy(ranked.hard, static=True),
    "static_middle": Policy(ranked.middle, static=True),
    "el2n": Policy(ranked.el2n, static=True),
    "forgetting": Policy(ranked.forgetting, static=True),
    "longest": Policy(ranked.longest, static=True, stratified=False),
    "shortest": Policy(ranked.shortest, static=True, stratified=False),
    "cowerage": Policy(emergent.cowerage, static=True, stratified=False, emergent=True),
}


def load_policy(name: str, options: Mapping[str, Any]) -> Policy:
    """Return the policy with a name, or of ``package.module:callable``, with its options bound.

    A callable takes a `Context` and its options. It returns a priority (N,) float32 (lower is kept
    first), a `Ranking` or a `Selection`.

    Args:
        name: of the policy, or ``package.module:callable``.
        options: ``data_pruning.policy_options``.

    Raises:
        UserError: the policy is unknown; or an option is unknown (the message names the nearest
            option), missing, or not of the type (number, text, boolean) in the signature.
    """
    if name in POLICIES:
        policy = POLICIES[name]
    elif ":" in name:
        policy = Policy(load_callable("data_pruning.policy", name))
    else:
        raise UserError(f"data_pruning.policy={name}: no such policy{nearest(name, POLICIES)}")
    check_options("data_pruning.policy", name, policy.function, options)
    return Policy(
        partial(policy.function, **options), policy.static, policy.stratified, policy.emergent
    )
