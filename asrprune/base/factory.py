"""Build parts of a model from ``package.module:callable`` names and check their options."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Any, get_args, get_origin

from asrprune.base.errors import UserError, nearest

_SIMPLE = {"int": int, "float": float, "str": str, "bool": bool}


def load_callable(option: str, name: str) -> Callable[..., Any]:
    """Return the callable that an option names as ``package.module:callable``.

    Args:
        option: the name of the option, for messages.
        name: the value of the option.

    Raises:
        UserError: there is no such callable.
    """
    module_name, _, attribute = name.partition(":")
    if not (attribute and all(part.isidentifier() for part in module_name.split("."))):
        raise UserError(f"{option}={name}: not of the form package.module:callable")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name + ".").startswith(error.name + "."):
            raise  # the module exists, but a module that it imports is missing
        raise UserError(
            f"{option}={name}: there is no module {error.name!r} on the Python path"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(
            f"{option}={name}: {module_name} has no {attribute!r}{nearest(attribute, public)}"
        )
    return function


def check_options(
    option: str, name: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    """Check the options of a callable against its signature.

    The first parameter of the callable is not an option.

    Args:
        option: the option that names the callable. ``<option>_options`` holds the options.
        name: the value of ``option``.
        function: the callable.
        options: the options to check.

    Raises:
        UserError: an option is unknown (the message suggests the nearest name), missing, or of
            another type than the signature says. Numbers, texts, booleans and lists are checked.
    """
    known = _options_of(function)
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for key, value in options.items():
        if key in known:
            _check_type(f"{option}_options.{key}", value, known[key].annotation)
        elif not takes_any:
            raise UserError(
                f"{option}_options.{key}: unknown option{nearest(key, known)}; {name} takes "
                f"{', '.join(known) or 'no options'}"
            )
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise UserError(f"{option}_options: {name} needs {', '.join(missing)}")


def build(option: str, name: str, argument: int, options: Mapping[str, Any]) -> Any:
    """Call a callable with one argument and its options, and return its result.

    Args:
        option: the option that names the callable. ``<option>_options`` holds the options.
        name: the value of ``option``, as ``package.module:callable``.
        argument: the first argument of the callable.
        options: the options of the callable.

    Raises:
        UserError: see `load_callable` and `check_options`. If the callable passes options on
            (``**options``), its TypeError is reported as wrong options.
    """
    function = load_callable(option, name)
    check_options(option, name, function, options)
    try:
        inspect.signature(function).bind(argument, **options)
    except TypeError as error:
        raise UserError(
            f"{option}={name} cannot be called with one argument and {option}_options: {error}"
        ) from error
    known = _options_of(function)
    passed_on = [key for key in options if key not in known]
    try:
        return function(argument, **options)
    except TypeError as error:
        if not passed_on:  # then the options did not cause the error
            raise
        raise UserError(
            f"{option}_options: {name} passes on {', '.join(passed_on)}, and fails: {error}"
        ) from error


def _options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    fixed = function.keywords if isinstance(function, partial) else {}
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in fixed
    }


def _check_any_type(option: str, value: Any, annotations: Sequence[Any]) -> None:
    errors = []
    for annotation in annotations:
        try:
            _check_type(option, value, annotation)
        except UserError as error:
            errors.append(error)
    if len(errors) == len(annotations):
        raise errors[0]


def _check_type(option: str, value: Any, annotation: Any) -> None:
    if isinstance(annotation, UnionType):
        _check_any_type(option, value, get_args(annotation))
        return
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
