"""What a comparison of trainings is made of: methods, keep ratios, seeds, and claims to judge."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from asrprune.errors import UserError, nearest
from asrprune.options import check, option

FULL, COMPRESSED, RANDOM = "full", "full_compressed", "random"
# Always part of a comparison; the words that their trainings add. `COMPRESSED` is full data for
# fewer epochs, with its whole schedule, such that it sees the audio that a keep ratio leaves.
CONTROLS = {
    FULL: ["data_pruning=full"],
    COMPRESSED: ["data_pruning=full"],
    RANDOM: ["data_pruning.policy=random"],
}
PARITY, BETTER, FASTER = "parity", "better", "faster"


@dataclass
class GridOptions:
    """Each of these methods at each of these keep ratios with each of these seeds."""

    methods: list[str] = option(factory=list)
    keep: list[float] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class ClaimOptions:
    """A sentence to judge by what is measured of ``method`` at ``keep``.

    - ``parity``: its error rate is that of full data
    - ``better``: its error rate is lower than that of each of ``than`` at the same keep ratio
    - ``faster``: it trains ``by`` times as fast as full data
    """

    claim: str = ""
    kind: str = option(PARITY, choices=(PARITY, BETTER, FASTER))
    method: str = ""
    keep: float = 1.0
    than: list[str] = option(factory=list)
    by: float = option(1.0, minimum=1)


@dataclass
class StudyOptions:
    """A comparison. Paths are relative to the present folder, the recipe's."""

    title: str = "Comparison"
    config: str = ""  # of all trainings
    words: list[str] = option(factory=list)  # key=value, changes to it for all trainings
    manifest_dir: str = ""  # validated cuts (stage 3)
    lang_dir: str = ""  # the tokenizer (stage 4)
    test_sets: list[str] = option(factory=list)
    exp_dir: str = ""  # gets a folder a training
    results: str = "results/compare.json"
    report: str = "RESULTS.md"  # gets the tables, between two marks
    methods: dict[str, list[str]] = option(factory=dict)  # name -> key=value words
    grid: list[GridOptions] = option(factory=list)
    claims: list[ClaimOptions] = option(factory=list)
    avg: int = option(1, minimum=1)  # epochs to average
    decoding_method: str = "greedy_search"
    threads: int = option(1, minimum=1)  # CPU threads of each training
    margin: float = option(0.05, minimum=0, maximum=1)  # of full data's WER: less is no difference
    synthetic: bool = False  # the speech is; said wherever its numbers appear

    def check(self, prefix: str) -> None:
        """:raises UserError: something is missing, or options that do not go together."""
        for name in ("config", "manifest_dir", "lang_dir", "test_sets", "exp_dir", "grid"):
            if not getattr(self, name):
                raise UserError(f"{prefix}{name} is not set")
        known = [*CONTROLS, *self.methods]
        for name, words in self.methods.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise UserError(f"{prefix}methods: {name!r} is to be of letters, digits and _")
            if name in CONTROLS and list(words) != CONTROLS[name]:
                raise UserError(f"{prefix}methods.{name} is a control, whose words are fixed")
        for part in self.grid:
            for name in part.methods:
                _check_method(f"{prefix}grid", name, known)
            for keep in part.keep:
                if not 0 < keep <= 1:
                    raise UserError(f"{prefix}grid: keep={keep} must be above 0 and at most 1")
            if not (part.keep and part.seeds) or min(part.seeds) < 0:
                raise UserError(f"{prefix}grid: each part needs keep, and seeds of 0 or more")
        for claim in self.claims:
            for name in (claim.method, *claim.than):
                _check_method(f"{prefix}claims: {claim.claim}", name, known)
            if claim.kind == BETTER and not claim.than:
                raise UserError(f"{prefix}claims: {claim.claim}: better than which methods?")


def load_study(path: str | Path) -> StudyOptions:
    """Read a comparison from a YAML file.

    :raises UserError: missing file, no YAML, unknown key, value of a wrong type or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"comparison {path} does not exist")
    try:
        content = OmegaConf.load(path)
    except Exception as error:  # the YAML library's errors have no common base that it exports
        raise UserError(f"comparison {path} is not valid YAML: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"comparison {path} holds no key: value pairs")
    return study_from(content, f"comparison {path}")


def study_from(values: Any, source: str = "comparison") -> StudyOptions:
    """A comparison from a dictionary.

    :raises UserError: as of `load_study`.
    """
    known = StudyOptions.__dataclass_fields__
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyOptions), values))
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        raise UserError(f"{source}: unknown key {key!r}{nearest(key, known)}") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'value'}: {reason}") from error
    check(study, "")
    for part in (*study.grid, *study.claims):  # `check` looks into no lists
        check(part, "claims.")
    return study


def _check_method(where: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UserError(f"{where}: unknown method {name!r}{nearest(name, known)}")
