"""Lists the types of comparison, and reads a comparison from its file."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from asrprune.base.errors import UserError, nearest
from asrprune.base.options import check
from asrprune.compare.data_pruning.study import DataPruningStudy
from asrprune.compare.options import DATA_PRUNING, PATHWAYS, TIME_TO_WER, WEIGHT_PRUNING
from asrprune.compare.pathways.study import PathwaysStudy
from asrprune.compare.study import Study
from asrprune.compare.time_to_wer.study import TimeToWerStudy
from asrprune.compare.weight_pruning.study import WeightPruningStudy
from asrprune.config import read_yaml

KINDS: dict[str, type[Study]] = {
    DATA_PRUNING: DataPruningStudy,
    TIME_TO_WER: TimeToWerStudy,
    WEIGHT_PRUNING: WeightPruningStudy,
    PATHWAYS: PathwaysStudy,
}


def load_study(path: str | Path) -> Study:
    """Read a comparison from a YAML file.

    The key ``like`` names another file in the same folder, whose values are taken over. A key that
    is in both files has the value of this file.

    Raises:
        UserError: the file is missing or is not YAML; a key is unknown; a value has a wrong type
            or is out of range; or the file of ``like`` has a ``like`` itself.
    """
    values = read_yaml(path, "comparison")
    if (like := values.pop("like", None)) is not None:
        taken = read_yaml(Path(path).with_name(str(like)), f"comparison {path}: like:")
        if "like" in taken:
            raise UserError(
                f"comparison {path}: like: {like} has a key 'like' itself. Name a file without it"
            )
        values = {**taken, **values}
    return study_from(values, f"comparison {path}")


def study_from(values: Any, source: str = "comparison") -> Study:
    """Make a comparison from a dictionary of its options.

    Args:
        values: the options, as a YAML file of a comparison holds them.
        source: where the options come from, for messages.

    Raises:
        UserError: a key is unknown, or a value has a wrong type or is out of range.
    """
    kind = values.get("kind", DATA_PRUNING)
    if kind not in KINDS:
        raise UserError(
            f"{source}: kind={kind}: choose one of {', '.join(KINDS)}{nearest(str(kind), KINDS)}"
        )
    study = KINDS[kind]
    known = study.Options.__dataclass_fields__
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(study.Options), values))
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        raise UserError(f"{source}: unknown key {key!r}{nearest(key, known)}") from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'value'}: {reason}") from error
    check(options)
    return study(options)
