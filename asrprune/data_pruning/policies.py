"""The policies by name, and the user's own; how options reach them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asrprune.data_pruning import policies_emergent as emergent
from asrprune.data_pruning import policies_ranked as ranked
from asrprune.data_pruning.context import Context, Ranking, Selection, check_range
from asrprune.data_pruning.selection import select, totals
from asrprune.errors import UserError, nearest
from asrprune.factory import check_options, load_callable

Answer = np.ndarray | Ranking | Selection


@dataclass(frozen=True)
class Policy:
    """A rule, and how the plan is to treat it."""

    function: Callable[..., Answer]  # (context, **options)
    static: bool = False  # chooses once, after the warm-up
    stratified: bool = True  # ranks inside of duration strata
    emergent: bool = False  # its rule decides how much is kept


def duration_matched(context: Context, like: str = "easy", bins: int = 20) -> Ranking:
    """A random draw with the durations of what another policy would keep.

    In each of ``bins`` classes of duration as much is drawn as ``like`` keeps there: a control that
    shows whether that policy's choice is more than one of durations.
    """
    check_range("bins", bins, 1, 100)
    known = [name for name in POLICIES if name != "duration_matched"]
    if like not in known:
        raise UserError(
            f"data_pruning.policy_options.like={like}: there is no such policy"
            f"{nearest(like, known)}"
        )
    answer = POLICIES[like].function(context)
    if isinstance(answer, Selection):
        model = answer.keep
    else:
        model = context.first(answer.priority, context.keep, answer.tier)
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
    """The policy of a name, or of ``package.module:callable``, with its options bound.

    A callable takes a :class:`Context` and its options, and returns a priority (N,) float32 (lower
    is kept first), a :class:`Ranking` or a :class:`Selection`.

    Raises:
        UserError: no such policy; an unknown option (it names the nearest one), a missing one, or a
            number, text or boolean where the signature says another.
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
