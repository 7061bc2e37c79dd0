"""The policies by name, and the user's own; how options reach them."""

import importlib
import inspect
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

    :raises UserError: no such policy; an unknown option (it names the nearest one), a missing one,
        or a number, text or boolean where the signature says another.
    """
    if name in POLICIES:
        policy = POLICIES[name]
    elif ":" in name:
        policy = Policy(_import(name))
    else:
        raise UserError(f"data_pruning.policy={name}: no such policy{nearest(name, POLICIES)}")
    _check_options(name, policy.function, options)
    return Policy(
        partial(policy.function, **options), policy.static, policy.stratified, policy.emergent
    )


def _import(name: str) -> Callable[..., Answer]:
    module_name, _, attribute = name.partition(":")
    if not (attribute and all(part.isidentifier() for part in module_name.split("."))):
        raise UserError(f"data_pruning.policy={name}: not of the form package.module:callable")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there, and imports something that is not
        raise UserError(
            f"data_pruning.policy={name}: there is no module {error.name!r} on the Python path"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(
            f"data_pruning.policy={name}: {module_name} has no {attribute!r}"
            f"{nearest(attribute, public)}"
        )
    return function


def _check_options(name: str, function: Callable[..., Answer], options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    fixed = function.keywords if isinstance(function, partial) else {}
    known = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in fixed
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for key, value in options.items():
        place = f"data_pruning.policy_options.{key}"
        if key in known:
            wanted = {"int": int, "float": float, "str": str, "bool": bool}.get(
                getattr(known[key].annotation, "__name__", known[key].annotation)
            )
            if wanted and not _fits(value, wanted):
                raise UserError(f"{place}={value!r}: expected {wanted.__name__}")
        elif not takes_any:
            raise UserError(
                f"{place}: unknown option{nearest(key, known)}; policy {name} takes "
                f"{', '.join(known) or 'no options'}"
            )
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise UserError(f"data_pruning.policy_options: {name} needs {', '.join(missing)}")


def _fits(value: Any, wanted: type) -> bool:
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)
