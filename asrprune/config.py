"""Configuration: typed dataclasses filled from YAML and ``key=value`` words.

The dataclasses live in the rooms that they configure; this module gathers, fills and checks them.
An unknown key is an error that names the nearest one.
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

# a factory or policy, and the options that are its own
OPTIONS_OF = {
    "model.encoder": "model.encoder_options",
    "model.predictor": "model.predictor_options",
    "data_pruning.policy": "data_pruning.policy_options",
}

# values such as 2:4, which YAML 1.1 reads as numbers to the base of 60
_PAIR_LINE = re.compile(r"^(\s*[\w.]+:\s+)(\d+:\d+)(\s*(?:#.*)?)$", re.MULTILINE)
_PAIR_WORD = re.compile(r"^([\w.]+=)(\d+:\d+)$")


@dataclasses.dataclass
class Config:
    """Everything that a training depends on, besides the data."""

    seed: int = option(42, minimum=0)
    data: DataOptions = option(factory=DataOptions)
    data_pruning: DataPruningOptions = option(factory=DataPruningOptions)
    weight_pruning: WeightPruningOptions = option(factory=WeightPruningOptions)
    model: ModelOptions = option(factory=ModelOptions)
    loss: LossOptions = option(factory=LossOptions)
    training: TrainingOptions = option(factory=TrainingOptions)
    decoding: DecodingOptions = option(factory=DecodingOptions)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``key=value`` words, such as ``training.epochs=3``.

    A word that names another ``model.encoder`` than the file drops the file's
    ``model.encoder_options``, which were the other one's: those given by words apply, and defaults
    else. So it is with ``model.predictor``, ``data_pruning.policy`` and ``weight_pruning.method``.
    ``data_pruning`` may be the name of a preset, in the file or as a word, and other words then
    change it.

    Raises:
        UserError: missing file, no YAML, unknown key, value of a wrong type or out of range.
    """
    content = read_yaml(path, "config")
    config = deepcopy(_defaults())
    _take_preset(config, content)
    config = _fill(config, content, f"config {path}")
    return _finished(_apply(config, overrides))


def read_yaml(path: str | Path, what: str) -> DictConfig:
    """The key: value pairs of a YAML file; ``what`` it is, for messages.

    Raises:
        UserError: missing file, no YAML, no pairs.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist")
    try:
        content = OmegaConf.load(StringIO(_PAIR_LINE.sub(r'\1"\2"\3', "".join(text_lines(path)))))
    except UserError:  # of another encoding
        raise
    except Exception as error:  # the YAML library's errors have no common base that it exports
        raise UserError(f"{what} {path} is not valid YAML: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"{what} {path} holds no key: value pairs")
    return content


def override(config: Config, words: Sequence[str]) -> Config:
    """A config after ``key=value`` words, as `load_config` applies them to a file.

    Raises:
        UserError: as of `load_config`.
    """
    return _finished(_apply(OmegaConf.structured(config), words))


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of ``dataclasses.asdict``, checked like a file."""
    return _finished(_fill(deepcopy(_defaults()), OmegaConf.create(values), "saved config"))


def save_config(config: Config, path: Path) -> str:
    """The YAML text of a config, also written to ``path``."""
    from asrprune.base.files import write_text

    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    write_text(path, text)
    return text


def changes(old: Config, new: Config) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield ``(key, old value, new value, kind of change)`` of every option that differs."""
    for (key, before, field), (_, after, _) in zip(flatten(old), flatten(new), strict=True):
        if before != after:
            yield key, before, after, field.metadata.get("change", IDENTITY)


@cache
def _defaults() -> Any:
    return OmegaConf.structured(Config)


def _apply(config: Any, words: Sequence[str]) -> Any:
    """Fill a structured config from ``key=value`` words."""
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
    # one by one they would be copied with the whole config, each time
    return _fill(config, OmegaConf.merge({}, *parsed), "command line")


def _is_changed(config: Any, key: str, parsed: Sequence[Any]) -> bool:
    """Whether words give ``section.name`` another value than it has."""
    section, name = key.split(".")
    given = [OmegaConf.to_container(values).get(section) for values in parsed]
    named = [part[name] for part in given if isinstance(part, dict) and name in part]
    return bool(named) and named[-1] != config[section][name]


def _take_preset(config: Any, values: Any) -> None:
    """Put the preset that ``data_pruning`` names in ``values``, if it does, into the config."""
    if isinstance(values.get("data_pruning"), str):
        options = OmegaConf.structured(DataPruningOptions)
        config.data_pruning = OmegaConf.merge(options, preset(values.data_pruning))
        del values["data_pruning"]


def _parse(word: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*=.*", word, re.DOTALL):
        raise UserError(f"{word!r} is not of the form key=value, such as training.epochs=3")
    try:
        return OmegaConf.from_dotlist([_PAIR_WORD.sub(r'\1"\2"', word)])
    except UserError:  # of another encoding
        raise
    except Exception as error:  # the YAML library's, as in `load_config`
        raise UserError(f"the value in {word!r} is not valid YAML") from error


def _fill(config: Any, values: Any, source: str) -> Any:
    _check_kinds(Config(), OmegaConf.to_container(values), source)
    try:
        return OmegaConf.unsafe_merge(config, values)  # both are of this call
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        parent, _, name = key.rpartition(".")
        known = OmegaConf.select(config, parent) if parent else config
        raise UserError(f"{source}: unknown key {key!r}{nearest(name, map(str, known))}") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'value'}: {reason}") from error


def _check_kinds(known: Any, given: Any, source: str, key: str = "") -> None:
    """Refuse a value where there is a section, and the like, of which OmegaConf names no key."""
    if dataclasses.is_dataclass(known):
        options = {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
        if not isinstance(given, dict):
            example = f"{key}.{next(iter(options))}"
            raise UserError(f"{source}: {key} is a section of options, such as {example}")
        for name in filter(options.__contains__, given):
            _check_kinds(options[name], given[name], source, f"{key}.{name}" if key else name)
    elif isinstance(given, str) and "${" in given:
        return  # stands for a value of any kind
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
