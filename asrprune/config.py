"""Configuration: typed dataclasses filled from YAML and ``key=value`` words.

The dataclasses live in the rooms that they configure; this module gathers, fills and checks them.
An unknown key is an error that names the nearest one.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from asrprune.corpus.options import DataOptions
from asrprune.decoding.options import DecodingOptions
from asrprune.errors import UserError, nearest
from asrprune.options import IDENTITY, option
from asrprune.training.options import TrainingOptions
from asrprune.transducer.options import LossOptions, ModelOptions


@dataclasses.dataclass
class Config:
    """Everything that a training depends on, besides the data."""

    seed: int = option(42, minimum=0)
    data: DataOptions = option(factory=DataOptions)
    model: ModelOptions = option(factory=ModelOptions)
    loss: LossOptions = option(factory=LossOptions)
    training: TrainingOptions = option(factory=TrainingOptions)
    decoding: DecodingOptions = option(factory=DecodingOptions)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``key=value`` words, such as ``training.epochs=3``.

    :raises UserError: missing file, no YAML, unknown key, value of a wrong type or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config {path} does not exist")
    try:
        content = OmegaConf.load(path)
    except Exception as error:  # the YAML library's errors have no common base that it exports
        raise UserError(f"config {path} is not valid YAML: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"config {path} holds no key: value pairs")
    for word in overrides:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*=.*", word, re.DOTALL):
            raise UserError(f"{word!r} is not of the form key=value, such as training.epochs=3")
        try:
            OmegaConf.from_dotlist([word])
        except Exception as error:  # as above
            raise UserError(f"the value in {word!r} is not valid YAML") from error
    config = _fill(OmegaConf.structured(Config), content, f"config {path}")
    config = _fill(config, OmegaConf.from_dotlist(list(overrides)), "command line")
    return _finished(config)


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of ``dataclasses.asdict``, checked like a file."""
    return _finished(_fill(OmegaConf.structured(Config), OmegaConf.create(values), "saved config"))


def save_config(config: Config, path: Path) -> str:
    """The YAML text of a config, also written to ``path``."""
    from asrprune.files import write_text

    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    write_text(path, text)
    return text


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yield ``(dotted key, value, field)`` of every option."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def changes(old: Config, new: Config) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield ``(key, old value, new value, kind of change)`` of every option that differs."""
    for (key, before, field), (_, after, _) in zip(flatten(old), flatten(new), strict=True):
        if before != after:
            yield key, before, after, field.metadata.get("change", IDENTITY)


def check(config: Config) -> None:
    """Hold every option against the limits that its field declares.

    :raises UserError: the first option out of its limits.
    """
    for key, value, field in flatten(config):
        limits = field.metadata
        if limits.get("choices") and value not in limits["choices"]:
            raise UserError(
                f"{key}={value}: choose one of {', '.join(limits['choices'])}"
                f"{nearest(str(value), limits['choices'])}"
            )
        low, high = limits.get("minimum"), limits.get("maximum")
        # said so that NaN does not pass
        if not (low is None or value >= low) or not (high is None or value <= high):
            span = f"at least {low}" if high is None else f"between {low} and {high}"
            raise UserError(f"{key}={value}: must be {span}")


def _fill(config: Any, values: Any, source: str) -> Any:
    try:
        return OmegaConf.merge(config, values)
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        parent, _, name = key.rpartition(".")
        known = OmegaConf.select(config, parent) if parent else config
        raise UserError(f"{source}: unknown key {key!r}{nearest(name, map(str, known))}") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'value'}: {reason}") from error


def _finished(config: Any) -> Config:
    try:
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error
    check(result)
    return result
