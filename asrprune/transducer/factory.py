"""Parts of a model named by ``package.module:callable``, with options checked by its signature."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_origin

from asrprune.errors import UserError, nearest

_SIMPLE = {"int": int, "float": float, "str": str, "bool": bool}


def load_factory(name: str) -> Callable[..., Any]:
    """The callable ``package.module:callable``; UserError if there is none."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and attribute and all(x.isidentifier() for x in module_name.split("."))):
        raise UserError(f"{name!r} is not of the form package.module:callable")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there, and imports something that is not
        raise UserError(
            f"{name!r}: there is no module {error.name!r} on the Python path"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(f"{name!r}: {module_name} has no {attribute!r}{nearest(attribute, public)}")
    return factory


def build(what: str, name: str, argument: int, options: Mapping[str, Any]) -> Any:
    """Call the factory ``name`` with one positional argument and ``options``.

    ``what`` is the part's name in messages. UserError for an unknown option (it names the nearest
    one), a missing one, or a number, text, boolean or list where the signature says another. Of a
    factory that passes options on (``**options``), a TypeError counts as its word on them.
    """
    factory = load_factory(name)
    signature = inspect.signature(factory)
    parameters = list(signature.parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {
        p.name: p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    for key, value in options.items():
        if key in known:
            _check_type(f"{what}_options.{key}", value, known[key].annotation)
        elif not takes_any:
            listed = ", ".join(known) or "no options"
            raise UserError(
                f"{what}_options.{key}: unknown option{nearest(key, known)}; {name} takes {listed}"
            )
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise UserError(f"{what}_options: {name} needs {', '.join(missing)}")
    try:
        signature.bind(argument, **options)
    except TypeError as error:
        raise UserError(
            f"{what}: {name} cannot be called with one argument and {what}_options: {error}"
        ) from error
    passed_on = [key for key in options if key not in known]
    try:
        return factory(argument, **options)
    except TypeError as error:
        if not passed_on:  # then it is no matter of options
            raise
        raise UserError(
            f"{what}_options: {name} passes on {', '.join(passed_on)}, and fails: {error}"
        ) from error


def _check_type(option: str, value: Any, annotation: Any) -> None:
    if get_origin(annotation) in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{option}={value!r}: expected a list")
        return
    wanted = _SIMPLE.get(annotation if isinstance(annotation, str) else "", annotation)
    if wanted not in _SIMPLE.values():
        return
    if isinstance(value, bool):
        fits = wanted is bool
    else:
        fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits:
        raise UserError(f"{option}={value!r}: expected {wanted.__name__}")
