"""Gate an optimiser's step by block: an inactive block does not change by a single bit.

Masked weights have zero gradients, but decay and momentum still move them. Here a block behaves as
under its own optimiser, which steps only when the block is active. An inactive block has no decay,
no update and no change of its moments. Bias correction counts the block's own steps. So a block
that is first active late begins with zero moments, and without a jump.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.block_update import (
    SLAB_ON_CPU,
    Ages,
    BlockUpdate,
    Update,
    as_bits,
    check_flags,
    slabs,
)
from asrprune.weight_pruning.masks.prunable import Layer, refuse_sharded

Gates = Mapping[str, Tensor]  # name of a gate -> the active units (units,) bool
_NEVER = 2**31 - 1  # more steps than any block has


class GatedOptimizer(Optimizer):
    """torch's AdamW, Adam, SGD or RMSprop, with a gate for each block of the given layers.

    The gate of a step is the union of all masks that took part in the step: of all ranks,
    sub-networks and micro-batches. Parameters outside of the layers take the optimiser's own step.
    With all gates open, or with a mask that never changes, active weights have the bits of the
    plain optimiser.

    This is a ``torch.optim.Optimizer``: schedulers, hooks and a ``GradScaler``
    (``scaler.step(gated, gates)``) work as with any other optimiser. Its ``param_groups``,
    ``state`` and ``defaults`` are those of the wrapped optimiser. Each gated step is one step of
    the wrapped optimiser, with its hooks. An optimiser may be wrapped after some steps: then each
    block begins with the number of steps of its parameter.

    Args:
        optimizer: the optimiser to wrap. Its state is shared, not copied.
        layers: parameter's name -> the parameter and its layer.
        gates: parameter's name -> the name of its gate. Layers of one group share a gate
            (`MaskBank.gates`). None: each layer has a gate of its own, with the layer's name.

    Raises:
        UserError: the optimiser is of another class, has a flag that cannot be gated, or does not
            train a layer; or a parameter has two names, or is sharded.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        layers: Mapping[str, tuple[torch.nn.Parameter, Layer]],
        gates: Mapping[str, str] | None = None,
    ):
        self._wrap(optimizer, dict(layers), dict(gates or {name: name for name in layers}))
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names: dict[int, str] = {}
        self.counts: dict[str, Tensor] = {}  # layer's name -> steps of each block, (blocks,) int32
        for name, (parameter, layer) in self.layers.items():
            refuse_sharded(name, parameter)
            if id(parameter) not in trained:
                raise UserError(f"GatedOptimizer: the optimiser does not train {name}")
            if id(parameter) in names:
                raise UserError(
                    f"GatedOptimizer: {names[id(parameter)]} and {name} are one parameter; leave "
                    "one of them out"
                )
            names[id(parameter)] = name
            self.counts[name] = torch.full(
                (layer.blocks,),
                self._update.steps_taken(parameter),
                dtype=torch.int32,
                device=parameter.device,
            )

    def _wrap(
        self,
        optimizer: Optimizer,
        layers: dict[str, tuple[torch.nn.Parameter, Layer]],
        gates: dict[str, str],
    ) -> None:
        """Become an optimiser around another one, without parameters of its own."""
        self._update = BlockUpdate(optimizer)
        self.optimizer = optimizer
        self.layers = layers
        self.gates = gates
        self._units: dict[str, int] = {}  # name of a gate -> number of its units
        for name, (_, layer) in layers.items():
            self._units[gates[name]] = max(layer.end, self._units.get(gates[name], 0))
        # Optimizer.__init__ would make new groups and a new state. __setstate__ adds only the
        # tables of hooks, as after unpickling.
        super().__setstate__({})

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]  # the wrapped one's
        """The groups of the wrapped optimiser; changes count from the next step on."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]  # the wrapped one's
        """The wrapped optimiser's state; a layer's ``step`` is the greatest count of its blocks."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]  # the wrapped one's
        """The defaults of the wrapped optimiser."""
        return self.optimizer.defaults

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and deepcopy store: all but hooks, as of any optimiser."""
        names = ("optimizer", "layers", "gates", "counts")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` returned."""
        self._wrap(state["optimizer"], state["layers"], state["gates"])
        self.counts = state["counts"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to train, which are not gated.

        Raises:
            UserError: the group has a flag that cannot be gated.
        """
        check_flags(self.optimizer, [param_group])
        self.optimizer.add_param_group(param_group)

    @torch.no_grad()
    def gate_gradients(self, gates: Gates | None) -> None:
        """Zero the gradients of inactive blocks in place, even NaN, for norms and clipping.

        Args:
            gates: as for :meth:`step`, which does not need this call.

        Raises:
            UserError: as for :meth:`step`.
        """
        for name, active in self._checked(gates).items():
            parameter, layer = self.layers[name]
            if active is None or parameter.grad is None:
                continue
            for views, blocks, spread in slabs({"": parameter.grad}, layer):
                bits = as_bits(views[""])
                bits.mul_(spread(active[blocks].to(bits.dtype)))

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's, with gates before the closure
        self,
        gates: Gates | Callable[[], Any] | None = None,
        closure: Callable[[], Any] | None = None,
    ) -> Any:
        """Take one step of the active blocks, and of all parameters outside of the layers.

        A parameter without a gradient takes no step, as everywhere in torch.

        Args:
            gates: every gate, by its name, (units,) bool. A layer outside of groups has its blocks
                as units, row by row of its grid. None: all blocks are active. A function here is
                the closure, as in ``torch.optim``.
            closure: computes the loss and its gradients; called once before the step.

        Returns:
            What the closure returns.

        Raises:
            UserError: a gate is missing, unknown, or of another shape or type than its layer needs.
        """
        if closure is None and callable(gates):
            gates, closure = None, gates
        checked = self._checked(cast("Gates | None", gates))
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = {
            name: active
            for name, active in checked.items()
            if self.layers[name][0].grad is not None
        }
        if whole := [self.counts[name] for name, active in moving.items() if active is None]:
            torch._foreach_add_(whole, 1)
        if partly := {name: active for name, active in moving.items() if active is not None}:
            torch._foreach_add_([self.counts[name] for name in partly], list(partly.values()))
        ages = self._ages(moving)
        groups = {id(p): group for group in self.param_groups for p in group["params"]}
        # the optimiser's own step does all other layers
        gated = {
            name: age
            for name, age in ages.items()
            if not self._is_plain(groups[id(self.layers[name][0])], age)
        }
        gradients = {name: self.layers[name][0].grad for name in gated}
        try:
            for name in gated:
                self.layers[name][0].grad = None
            self.optimizer.step()
        finally:
            for name, gradient in gradients.items():
                self.layers[name][0].grad = gradient
        updates = []
        for name, age in gated.items():
            if age.youngest:
                parameter, layer = self.layers[name]
                counts, active = self.counts[name], moving[name]
                active = torch.ones_like(counts, dtype=torch.bool) if active is None else active
                group = groups[id(parameter)]
                updates.append(Update(parameter, layer, group, active, counts, age))
        self._update(updates)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapped optimiser's ``state`` and ``param_groups``, with each block's steps.

        Like torch's state dict, this one holds no copies.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = {
            **self.optimizer.state_dict(),
            "blocks": {name: str(layer.block) for name, (_, layer) in self.layers.items()},
            "counts": dict(self.counts),
        }
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            UserError: the state has other layers or blocks, or is of an optimiser without gates.
                The message names the first difference. Nothing changes then.
        """
        state = dict(state_dict)
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state)
            state = state if changed is None else changed
        self._check_fits(state)
        plain = {key: value for key, value in state.items() if key not in ("blocks", "counts")}
        self.optimizer.load_state_dict(plain)
        for name, counts in self.counts.items():
            counts.copy_(state["counts"][name])
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        """Refuse a state with other layers or blocks."""
        if "counts" not in state:
            raise UserError(
                "GatedOptimizer: this is the state of an optimiser without gates. Load the state "
                "into an optimiser without gates, then wrap that optimiser"
            )
        saved = state["counts"]
        for name in [*self.counts, *saved]:
            if name not in saved or name not in self.counts:
                whose = "not in this state" if name in self.counts else "only in this state"
                raise UserError(f"GatedOptimizer: layer {name} is {whose}")
        for name, counts in self.counts.items():
            block, own = state["blocks"][name], self.layers[name][1].block
            if block != str(own):
                raise UserError(
                    f"GatedOptimizer: layer {name} is in blocks of {own}, and in this state in "
                    f"blocks of {block}"
                )
            if len(saved[name]) != len(counts):
                raise UserError(
                    f"GatedOptimizer: layer {name} has {len(counts)} blocks, and "
                    f"{len(saved[name])} in this state"
                )

    def _checked(self, gates: Gates | None) -> dict[str, Tensor | None]:
        """Return each layer's gate on the device of its counts; None if ``gates`` is None."""
        if gates is None:
            return dict.fromkeys(self.layers)
        if unknown := gates.keys() - set(self.gates.values()):
            name = sorted(unknown)[0]
            raise UserError(f"GatedOptimizer: there is a gate for {name}, but no such layer")
        checked: dict[str, Tensor | None] = {}
        for name, counts in self.counts.items():
            if self.gates[name] not in gates:
                raise UserError(f"GatedOptimizer: layer {name} has no gate")
            gate, units = gates[self.gates[name]], self._units[self.gates[name]]
            layer = self.layers[name][1]
            if gate.dtype != torch.bool or gate.shape != (units,):
                what = f"{layer.block} block" if units == len(counts) else "unit"
                raise UserError(
                    f"GatedOptimizer: the gate of {name} is {tuple(gate.shape)} of {gate.dtype}, "
                    f"and should be ({units},) of torch.bool, one for each {what}"
                )
            checked[name] = layer.of(gate).to(counts.device)
        return checked

    def _ages(self, gates: Mapping[str, Tensor | None]) -> dict[str, Ages]:
        """Return the ages of each layer's blocks, with a single read from the device."""
        alike: dict[tuple[int, torch.device], list[str]] = {}
        for name in gates:
            counts = self.counts[name]
            alike.setdefault((len(counts), counts.device), []).append(name)
        names, rows = [], []
        for (blocks, _), found in alike.items():
            together = max(1, SLAB_ON_CPU // max(1, blocks))  # layers at once: copies stay small
            for start in range(0, len(found), together):
                part = found[start : start + together]
                names += part
                rows.append(self._ages_of({name: gates[name] for name in part}))
        if not rows:
            return {}
        table = torch.cat([row.to(rows[0].device) for row in rows]).tolist()
        ages = {
            name: Ages(bool(row[0]), row[1] if row[2] else 0, *row[2:])
            for name, row in zip(names, table, strict=True)
        }
        return {name: ages[name] for name in gates}

    def _ages_of(self, gates: Mapping[str, Tensor | None]) -> Tensor:
        """Return the fields of `Ages`, (layers, 4) int32, of layers with as many blocks each."""
        counts = torch.stack([self.counts[name] for name in gates])
        opened = torch.ones_like(counts)
        for row, active in zip(opened, gates.values(), strict=True):
            if active is not None:
                row.copy_(active)
        # inactive blocks are 0 in both products: below every count, above every count - _NEVER
        oldest = counts.mul(opened).amax(1)
        youngest = counts.sub(_NEVER).mul_(opened).amin(1) + _NEVER
        return torch.stack([opened.amin(1), youngest, oldest, counts.amax(1)], 1)

    def _is_plain(self, group: dict[str, Any], ages: Ages) -> bool:
        """Return whether a step of the whole parameter gives the same result."""
        return ages.all_active and not self._update.kind.depends(group, ages)
