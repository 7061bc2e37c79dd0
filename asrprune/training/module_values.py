"""Save and restore numbers that modules keep as plain attributes, outside of their state dict.

Zipformer's ``Whiten`` keeps such a number: the probability that it acts. Its backward pass changes
this probability. A resumed training without this number would draw other random decisions.
"""

from typing import Any

from torch import nn

Values = dict[str, dict[str, Any]]  # module's name -> attribute -> value
_TYPES = (bool, int, float, str)


class ModuleValues:
    """Find the attributes of a model's modules that have changed since the model was made."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._start = _values_of(model)

    def state_dict(self) -> Values:
        """Return the numbers, strings and booleans that differ from their first values."""
        changed: Values = {}
        for name, now in _values_of(self._model).items():
            before = self._start.get(name, {})
            for key, value in now.items():
                if key not in before or before[key] != value:
                    changed.setdefault(name, {})[key] = value
        return changed

    def load_state_dict(self, state: Values) -> None:
        """Restore the result of `state_dict`. The modules must have their first values."""
        modules = dict(self._model.named_modules())
        for name, values in state.items():
            for key, value in values.items():
                setattr(modules[name], key, value)


def _values_of(model: nn.Module) -> Values:
    return {
        name: {
            key: value
            for key, value in vars(module).items()
            if type(value) in _TYPES and key != "training"
        }
        for name, module in model.named_modules()
    }
