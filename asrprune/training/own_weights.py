"""Hold each language's own values of the parameters that no mask covers.

Masks cover some matrices of a model. All languages share the norms, the biases, the predictor and
the joiner. A language that is added to trained pathways needs other values of these parameters: for
example, output rows of new symbols. So the added language trains these parameters, and each former
language keeps their former values as its *own weights*. The own weights also name the tokenizer of
the language, since they may have fewer symbols.

A model file holds own weights beside its masks: for each language that has some, the description
that `asrprune.training.model_file.description` returns, and the ``values`` by parameter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.training.model_file import description, masks_of
from asrprune.weight_pruning.masks.swap import swapped

OwnWeights = dict[str, dict[str, Any]]


def own_weights_of(content: Mapping[str, Any]) -> OwnWeights:
    """Return the own weights of each language in a model file or a checkpoint."""
    masks = masks_of(content)
    return masks.get("own", {}) if masks else {}


def of_language(content: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return the content of a model file as if it were of one language alone.

    The model has the own weights of the language, and the configuration and the tokenizer that
    belong to them. The masks of all languages stay.
    """
    masks = masks_of(content)
    own = own_weights_of(content).get(language)
    if not own:
        return dict(content)
    kept = {key: value for key, value in masks.items() if key != "own"}
    model = {**content["model"], **own["values"]}
    return {**content, **description(own), "model": model, "masks": kept}


def check_used(content: Mapping[str, Any], protect: bool, where: str) -> None:
    """Check that a training would use the own weights of a model file.

    Args:
        content: the content of the file.
        protect: whether the training protects languages.
        where: the option and the path of the file, for the message.

    Raises:
        UserError: languages have own weights, and the training does not protect them.
    """
    if (own := own_weights_of(content)) and not protect:
        raise UserError(
            f"{where}: {', '.join(own)} have weights of their own, which this training would not "
            "use. Set weight_pruning.pathways.protect=true to add a language. Or take a language "
            "out (asrprune extract --language)"
        )


def count_own_weights(own: Mapping[str, Any]) -> int:
    """Return the number of own weights of all languages. Values that languages share count once."""
    values = {
        value.data_ptr(): value.numel() for one in own.values() for value in one["values"].values()
    }
    return sum(values.values())


def keep_own_weights(
    content: Mapping[str, Any], model: nn.Module, covered: Mapping[str, Any]
) -> OwnWeights:
    """Return the own weights of all languages of a model file, for a training that adds another.

    Languages without own weights get the values of the file. They share the memory of these values.
    Parameters that the new training freezes are left out: they stay as they are for all languages.

    Args:
        content: the content of the model file.
        model: the model of the new training.
        covered: the parameters that masks cover, by name. Languages share these parameters.
    """
    shared = {id(parameter) for parameter in covered.values()}
    values = {
        name: content["model"][name]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) not in shared and parameter.requires_grad
    }
    common = {**description(content), "values": values}
    own = own_weights_of(content)
    kept = {}
    for language in masks_of(content)["bank"]["named"]:
        one = own.get(language, common)
        # the first values are of parameters that an earlier training froze and this one trains
        kept[language] = {**one, "values": {**values, **one["values"]}}
    return kept


def on_device(own: Mapping[str, Any], model: nn.Module) -> OwnWeights:
    """Return own weights with each value on the device of its parameter."""
    devices = {
        name: parameter.device for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    moved: dict[int, Tensor] = {}  # so that shared values stay shared

    def move(name: str, value: Tensor) -> Tensor:
        return moved.setdefault(id(value), value.to(devices[name]))

    return {
        language: {**one, "values": {name: move(name, v) for name, v in one["values"].items()}}
        for language, one in own.items()
    }


@contextmanager
def own_applied(model: nn.Module, own: Mapping[str, Any], language: Any) -> Iterator[None]:
    """Let a model compute with the own weights of a language inside of ``with``.

    Args:
        model: the model.
        own: the own weights of some languages.
        language: the language. Without own weights, the model computes as it is.

    Raises:
        UserError: an optimiser changed the weights inside. The change is lost.
    """
    if not isinstance(language, str) or language not in own:
        yield
        return
    values = own[language]["values"]
    parameters = {name: model.get_parameter(name) for name in values}
    unique = {id(parameter): name for name, parameter in parameters.items()}  # one name if tied
    names = unique.values()
    with swapped({n: parameters[n] for n in names}, {n: values[n] for n in names}):
        yield
