"""Read the configuration: typed dataclasses, filled from YAML and overrides ``key=value``.

Each package defines its own options. This module gathers, fills and checks them. An unknown key is
an error that names the nearest known key.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError, nearest
from asrprune.base.options import IDENTITY, check, flatten, option
from asrprune.data.options import DataOptions
from asrprune.data_pruning.options import DataPruningOptions, preset
from asrprune.decoding.options import DecodingOptions
from asrprune.training.options import TrainingOptions
from asrprune.transducer.options import LossOptions, ModelOptions
from asrprune.weight_pruning.options import OWN_METHODS, WeightPruningOptions

# option that names a factory or a policy -> the option that holds its own options
OPTIONS_OF = {
    "model.encoder": "model.encoder_options",
    "model.predictor": "model.predictor_options",
    "data_pruning.policy": "data_pruning.policy_options",
}

# YAML 1.1 reads 2:4 as a number of base 60; these find such values, to quote them
_PAIR_LINE = re.compile(r"^(\s*[\w.]+:\s+)(\d+:\d+)(\s*(?:#.*)?)$", re.MULTILINE)
_PAIR_WORD = re.compile(r"^([\w.]+=)(\d+:\d+)$")


@dataclasses.dataclass
class Config:
    """Hold all options of a training."""

    seed: int = option(42, minimum=0)
    data: DataOptions = option(factory=DataOptions)
    data_pruning: DataPruningOptions = option(factory=DataPruningOptions)
    weight_pruning: WeightPruningOptions = option(factory=WeightPruningOptions)
    model: ModelOptions = option(factory=ModelOptions)
    loss: LossOptions = option(factory=LossOptions)
    training: TrainingOptions = option(factory=TrainingOptions)
    decoding: DecodingOptions = option(factory=DecodingOptions)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply overrides ``key=value``, such as ``training.epochs=3``.

    The file's ``model.encoder_options`` belong to the file's encoder. If an override names another
    ``model.encoder``, these options are dropped. The encoder then has the options of the overrides,
    and defaults for the rest. The same holds for ``model.predictor``, ``data_pruning.policy`` and
    ``weight_pruning.method``.

    ``data_pruning`` may be the name of a preset, in the file or as an override. Other overrides
    then change the options of the preset.

    Args:
        path: the file.
        overrides: the overrides.

    Raises:
        UserError: the file is missing or no YAML, a key is unknown, or a value has a wrong type or
            is out of range.
    """
    content = read_yaml(path, "config")
    config = deepcopy(_defaults())
    _take_preset(config, content)
    config = _fill(config, content, f"config {path}")
    return _finished(_apply(config, overrides))


def read_yaml(path: str | Path, what: str) -> DictConfig:
    """Return the key: value pairs of a YAML file.

    Args:
        path: the file.
        what: the type of the file, for messages, such as ``config``.

    Raises:
        UserError: the file is missing, no YAML, or holds no key: value pairs.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist")
    try:
        content = OmegaConf.load(StringIO(_PAIR_LINE.sub(r'\1"\2"\3', "".join(text_lines(path)))))
    except UserError:  # the file has another encoding
        raise
    except Exception as error:  # the YAML library exports no common base class of its errors
        raise UserError(f"{what} {path} is not valid YAML: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"{what} {path} holds no key: value pairs")
    return content


def override(config: Config, words: Sequence[str]) -> Config:
    """Return a config with overrides ``key=value``, which apply as in `load_config`.

    Args:
        config: the config. It does not change.
        words: the overrides.

    Raises:
        UserError: a key is unknown, or a value has a wrong type or is out of range.
    """
    return _finished(_apply(OmegaConf.structured(config), words))


def config_from_dict(values: dict[str, Any]) -> Config:
    """Return the config of which ``dataclasses.asdict`` gives these values.

    Raises:
        UserError: a key is unknown, or a value has a wrong type or is out of range.
    """
    return _finished(_fill(deepcopy(_defaults()), OmegaConf.create(values), "saved config"))


def save_config(config: Config, path: Path) -> str:
    """Write a config to a YAML file, and return the text of the file."""
    from asrprune.base.files import write_text

    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    write_text(path, text)
    return text


def changes(old: Config, new: Config) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield key, old value, new value and type of change of every option that differs.

    The types of change are in `asrprune.base.options`.
    """
    for (key, before, field), (_, after, _) in zip(flatten(old), flatten(new), strict=True):
        if before != after:
            yield key, before, after, field.metadata.get("change", IDENTITY)


@cache
def _defaults() -> Any:
    return OmegaConf.structured(Config)


def _apply(config: Any, words: Sequence[str]) -> Any:
    """Return a structured config with overrides ``key=value``."""
    parsed = [_parse(word) for word in words]
    for values in parsed:
        _take_preset(config, values)
    for key, options in OPTIONS_OF.items():
        if _is_changed(config, key, parsed):
            OmegaConf.update(config, options, {}, merge=False)
    if _is_changed(config, "weight_pruning.method", parsed):
        before = config.weight_pruning.method
        if before in OWN_METHODS:
            config.weight_pruning[before] = getattr(WeightPruningOptions(), before)
    for values in parsed:
        _check_kinds(Config(), OmegaConf.to_container(values), "command line")
    # merged first, because each single merge would copy the whole config
    return _fill(config, OmegaConf.merge({}, *parsed), "command line")


def _is_changed(config: Any, key: str, parsed: Sequence[Any]) -> bool:
    """Return whether overrides change the value of an option.

    Args:
        config: the config before the overrides.
        key: the option, as ``section.name``.
        parsed: the parsed overrides.
    """
    section, name = key.split(".")
    given = [OmegaConf.to_container(values).get(section) for values in parsed]
    named = [part[name] for part in given if isinstance(part, dict) and name in part]
    return bool(named) and named[-1] != config[section][name]


def _take_preset(config: Any, values: Any) -> None:
    """Apply a preset to a config if ``data_pruning`` in the values names one.

    The name is removed from the values.
    """
    if isinstance(values.get("data_pruning"), str):
        options = OmegaConf.structured(DataPruningOptions)
        config.data_pruning = OmegaConf.merge(options, preset(values.data_pruning))
        del values["data_pruning"]


def _parse(word: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*=.*", word, re.DOTALL):
        raise UserError(f"{word!r} is not of the form key=value, such as training.epochs=3")
    try:
        return OmegaConf.from_dotlist([_PAIR_WORD.sub(r'\1"\2"', word)])
    except Exception as error:  # see `read_yaml`
        raise UserError(f"the value in {word!r} is not valid YAML") from error


def _fill(config: Any, values: Any, source: str) -> Any:
    _check_kinds(Config(), OmegaConf.to_container(values), source)
    try:
        return OmegaConf.unsafe_merge(config, values)  # safe: only this call uses the two objects
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        parent, _, name = key.rpartition(".")
        known = OmegaConf.select(config, parent) if parent else config
        raise UserError(f"{source}: unknown key {key!r}{nearest(name, map(str, known))}") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'value'}: {reason}") from error


def _check_kinds(known: Any, given: Any, source: str, key: str = "") -> None:
    """Check that values have the types that options need: section, list, mapping or single value.

    OmegaConf checks this too, but its errors do not name the key.

    Args:
        known: the default value of the option; a dataclass: a section of options.
        given: the given value.
        source: the source of the value, for messages.
        key: the option; empty: the whole config.

    Raises:
        UserError: a value has another type than its option.
    """
    if dataclasses.is_dataclass(known):
        options = {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
        if not isinstance(given, dict):
            example = f"{key}.{next(iter(options))}"
            raise UserError(f"{source}: {key} is a section of options, such as {example}")
        for name in filter(options.__contains__, given):
            _check_kinds(options[name], given[name], source, f"{key}.{name}" if key else name)
    elif isinstance(given, str) and "${" in given:
        return  # an interpolation stands for a value of any type
    elif isinstance(known, list) and not isinstance(given, list):
        raise UserError(f"{source}: {key} is a list, such as {key}=[a,b]")
    elif isinstance(known, dict) and not isinstance(given, dict):
        raise UserError(f"{source}: {key} holds options by name, such as {key}.name=value")
    elif isinstance(given, dict) and not isinstance(known, dict):
        raise UserError(f"{source}: {key} is one value and has no {'.'.join(map(str, given))}")


def _finished(config: Any) -> Config:
    try:
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error
    check(result)
    return result
