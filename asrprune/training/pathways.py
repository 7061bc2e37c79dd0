"""Trains the pathways of several languages: each language has a mask, which may adapt in training.

Each step belongs to one language. The step computes with this language's mask and moves the weights
that the mask keeps. After an interval of the language's own steps, its mask is made again: from all
weights (Dynamic ASR Pathways, arXiv 2309.13018), or from the mask itself and the language's own
gradients (`asrprune.weight_pruning.pathways.ranks_from_mask`). The new mask has the sparsity that
the schedule has reached by then. From ``weight_pruning.schedule.freeze`` on, masks no longer
change. At this point all masks that lack the final sparsity are made for the last time. So no mask
is denser than the schedule says.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.masking import Masking, Network, refuse_running_statistics
from asrprune.training.model_file import masks_of
from asrprune.training.own_weights import (
    OwnWeights,
    check_used,
    keep_own_weights,
    on_device,
    own_applied,
    own_weights_of,
)
from asrprune.weight_pruning.masks.cutting import outlets
from asrprune.weight_pruning.masks.groups import unit_scores
from asrprune.weight_pruning.options import LANGUAGE, REGROW
from asrprune.weight_pruning.pathways import pathway_of, ranks_from_mask, renew, share_at

_KEY = "weight_pruning.pathways.masks"
FEW = 0.05  # below this unprotected share of a new mask, a training gets a warning

log = logging.getLogger(__name__)


class PathwaysMasking(Masking):
    """A mask for each language (``method=pathways``)."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        config: Config,
        ranks: Ranks,
        languages: Sequence[str],
    ):
        """Prepare a mask for each language.

        `begin` takes the first masks.

        Args:
            model: the network to prune.
            optimizer: the optimiser of the model.
            config: the configuration of the training.
            ranks: the processes that train together.
            languages: the languages that are trained.

        Raises:
            UserError: the options do not fit the model; a norm keeps running statistics; or a
                frozen layer has no gradients, which the renewal needs.
        """
        refuse_running_statistics(model, "pathways")
        super().__init__(model, optimizer, config, ranks)
        self.steps = dict.fromkeys(languages, 0)  # number of steps that each language has taken
        self._made: dict[str, float] = {}  # the sparsity of each language's mask
        self._settled = False  # whether masks no longer change
        self._language = ""  # language of the present step
        # language -> group -> sums (units,) of the gradients' mean squares since the language's
        # last mask
        self._gradient_sums: dict[str, dict[str, Tensor]] = {}
        # of each group, the parameters whose gradients count
        self._outlets = [replace(group, layers=outlets(group)) for group in self.bank.groups]
        blocks = self.bank.parameters()
        # of protected languages, the weights outside of blocks; see `asrprune.training.own_weights`
        self.own: OwnWeights = {}
        still = [name for name, parameter in blocks.items() if not parameter.requires_grad]
        renewal = self.options.pathways.renewal
        if still and self._needs_gradients:
            raise UserError(
                f"training.freeze: {still[0]} would have no gradients, which "
                f"weight_pruning.pathways.renewal={renewal} ranks by: set renewal=magnitude, or "
                "leave the layer out of weight_pruning.include"
            )

    gates_gradients = True  # of weights that the mask keeps and another language protects, too

    @property
    def all_gradients(self) -> bool:
        """Whether masked weights get gradients too, so that the gate alone protects them.

        Blocks always do: to mask gradients would cost time and change nothing. Units do while
        renewals need their gradients. Afterwards units are cut out, and steps multiply smaller
        matrices.
        """
        return not self.bank.cuts or (self._needs_gradients and not self._settled)

    def begin(self) -> None:
        """Take the first masks of the languages.

        Raises:
            UserError: the file of masks is missing, has no masks, or has masks of another model; a
                language has no mask and masks do not adapt; or there is no mask to protect.
        """
        super().begin()
        pattern, options = self.options.pathways.masks, self.options.pathways
        if not pattern:
            return
        if LANGUAGE in pattern:
            self._begin_each(pattern)
            return
        content = self._load(pattern)
        sparsity = masks_of(content)["sparsity"]
        names = ", ".join(self.bank.names)
        if options.protect and not self._protected():
            has = f"all its languages ({names}) are trained" if names else "it has one common mask"
            raise UserError(
                f"{_KEY}={pattern}: {has}. So weight_pruning.pathways.protect protects nothing"
            )
        if taken := [one for one in own_weights_of(content) if one in self.steps]:
            raise UserError(
                f"{_KEY}={pattern}: {taken[0]} has weights of its own, which a training cannot go "
                f"on with. Leave {taken[0]} out of data.languages, or take its network out "
                f"(asrprune extract --language {taken[0]}) and train this network"
            )
        if options.protect:
            self._warn_of_zeros(pattern)
            own = keep_own_weights(content, self._model, self.bank.parameters())
            own = {language: one for language, one in own.items() if language in self._protected()}
            self.own = on_device(own, self._model)
        missing = [language for language in self.steps if language not in self.bank.names]
        absent = [language for language in self.bank.names if language not in self.steps]
        if absent and not options.protect and self._ranks.first:
            log.warning(
                "%s=%s: %s is not trained here, and its pathway will change: other languages move "
                "weights that it shares with them. weight_pruning.pathways.protect=true keeps it",
                _KEY,
                pattern,
                ", ".join(absent),
            )
        if not names:
            for language in self.steps:
                self.bank.name(language, sparsity)
        elif missing and not options.adapt:
            raise UserError(
                f"{_KEY}={pattern}: there are masks of {names}, but none of {', '.join(missing)}. "
                "Add a mask, or set weight_pruning.pathways.adapt=true, which makes one"
            )

    def _warn_of_zeros(self, path: str) -> None:
        """Give a warning if weights outside of the protected masks are all zeros."""
        if not (protected := self._protected()):
            return
        claimed, parameters = self.bank.union(*protected), self.bank.parameters()
        scores = {group.name: unit_scores(group, parameters) for group in self.bank.groups}
        free = torch.cat([scores[name][~claimed[name]].cpu() for name in scores])
        if len(free) and not free.any() and self._ranks.first:
            log.warning(
                "%s=%s: the file holds the weights of its languages alone, so an added language "
                "begins with zeros elsewhere. The averaged.pt of that training has all weights",
                _KEY,
                path,
            )

    def _begin_each(self, pattern: str) -> None:
        """Take the mask of each language from a file of its own."""
        found = {}
        for language in self.steps:
            path = pattern.replace(LANGUAGE, language)
            sparsity = masks_of(self._load(path))["sparsity"]
            try:
                choice = pathway_of(self.bank.names, language) if self.bank.names else sparsity
            except UserError as error:
                raise UserError(f"{_KEY}: {path}: {error}") from error
            found[language] = self.bank.blocks(choice)
        for name in self.bank.names:
            self.bank.delete(name)
        for language, blocks in found.items():
            self.bank.name(language, blocks)

    def _load(self, path: str) -> dict[str, Any]:
        """Load the masks of a model file. Return the content of the file."""
        if not Path(path).is_file():
            raise UserError(f"{_KEY}={path}: there is no such file")
        content = load_checkpoint(Path(path))
        masks = masks_of(content)
        check_used(content, self.options.pathways.protect, f"{_KEY}={path}")
        if not masks:
            raise UserError(f"{_KEY}={path}: the model was trained without masks")
        try:
            self.bank.load_state_dict(masks["bank"])
        except UserError as error:
            raise UserError(f"{_KEY}={path}: {error}") from error
        return content

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """Return the pathway of the step's language, on all ranks."""
        return [self._language]

    @contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """See `Masking`. A protected language also computes with its own weights."""
        with own_applied(self._model, self.own, network), super().applied(network):
            yield

    def gate(self, step: int, batches: int) -> dict[str, Tensor] | None:
        """Return the blocks that the language's mask keeps, without protected blocks.

        If masks are made anew by gradients, this also collects those of the step: they are complete
        now.

        Returns:
            See `Masking.gate`; None: the step moves all blocks.
        """
        if self._needs_gradients and not self._settled:
            self._add_gradients()
        if self.options.pathways.grad == "all":
            return None
        blocks = self.bank.blocks(self._language)
        if protected := self._protected():
            others = self.bank.union(*protected)
            blocks = {name: kept & ~others[name] for name, kept in blocks.items()}
        return blocks

    def tested(self, language: str | None) -> dict[str, Network]:
        """Return the pathway of the set's language; nothing before the language has a mask."""
        return {"": language} if language in self.bank.names else {}

    def check_tested(self, languages: Mapping[str, str | None]) -> None:
        """See `Masking`."""
        for name, language in languages.items():
            if language is None:
                raise UserError(
                    f"data.dev: the set {name} is not of one language, and a pathway has one "
                    "language. Leave the set out, or split it by language"
                )
            try:
                pathway_of(dict.fromkeys([*self.bank.names, *self.steps]), language)
            except UserError as error:
                raise UserError(
                    f"data.dev: the set {name}: {error}. Leave the set out, or train on the "
                    "language too"
                ) from error

    def state_dict(self) -> dict[str, Any]:
        """See `Masking`."""
        return {
            **super().state_dict(),
            "steps": dict(self.steps),
            "made": dict(self._made),
            "gradient_sums": self._gradient_sums,
            "own": self.own,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Masking`."""
        super().load_state_dict(state)
        self.steps = dict(state["steps"])
        self._made = dict(state["made"])
        self.own = on_device(state["own"], self._model)
        parameters = self.bank.parameters()
        devices = {
            group.name: parameters[group.layers[0].name].device for group in self.bank.groups
        }
        self._gradient_sums = {
            language: {name: sums.to(devices[name], copy=True) for name, sums in groups.items()}
            for language, groups in state["gradient_sums"].items()
        }

    def end(self, step: int) -> None:
        """See `Masking`. A mask that is made only now was never trained: this gives a warning."""
        super().end(step)
        if self.mask_events and self._ranks.first:
            log.warning(
                "%s: the last masks were made when the training ended, and were not trained. A "
                "lower weight_pruning.schedule.freeze makes them earlier",
                ", ".join(self.mask_events),
            )

    def _renew(self, step: int, progress: float, language: str | None) -> bool:
        """Make the first mask of the step's language, or renew the mask if it is time.

        A mask is renewed after an interval of the language's own steps.

        From ``weight_pruning.schedule.freeze`` on, also renew all masks that lack the final
        sparsity.
        """
        self._language = language = language or ""
        options, schedule = self.options.pathways, self.options.schedule
        taken = self.steps[language]
        self.steps[language] += 1
        frozen = progress >= schedule.freeze  # if masks adapt, the sparsity is final by now
        self._settled = frozen or not options.adapt
        due = taken and taken % schedule.refresh_interval == 0 and not self._settled
        if language not in self.bank.names or due:
            self._make(language, share_at(progress, options.exchange, schedule.freeze))
        if frozen:
            self._renew_late()
        return bool(self.mask_events)

    def _renew_late(self) -> bool:
        """See `Masking`. A language without a mask gets its mask in its first step."""
        late = [
            language
            for language in self.steps
            if self.options.pathways.adapt
            and language in self.bank.names
            and self._made.get(language) != self.sparsity
        ]
        for language in late:
            self._make(language, 0.0)  # what comes in now would not be trained for long
        return bool(late)

    @property
    def _needs_gradients(self) -> bool:
        """Whether masks are made anew by the gradients of the languages' steps."""
        return self.options.pathways.renewal in (REGROW, "sensitivity")

    def _make(self, language: str, share: float) -> None:
        """Make a language's mask from the present weights, and from the mask before.

        Args:
            language: the language.
            share: share of the mask that is exchanged, if masks are regrown.
        """
        options = self.options.pathways
        sparsity = self.sparsity if options.adapt else self.options.schedule.final
        sums = self._gradient_sums.pop(language, None)
        if options.renewal == REGROW and language in self.bank.names:
            scores = ranks_from_mask(self.bank, language, sparsity, share, sums or {})
            self.bank.refresh(scores=scores)
        else:
            self.bank.refresh(factors=sums if options.renewal == "sensitivity" else None)
        protected = self._protected()
        changed = renew(
            self.bank, language, sparsity, options.max_union_density, protected, options.unclaimed
        )
        self._made[language] = sparsity
        self.mask_events[f"pathway-{language}"] = {
            "density": self.bank.density(language),
            "changed": changed,
            "union": self.bank.density(self.bank.union(*self.bank.names)),
            **self._free(language),
        }

    def _free(self, language: str) -> dict[str, float]:
        """Return the unprotected share of a new mask; nothing if no mask is protected."""
        if not (protected := self._protected()):
            return {}
        others = self.bank.union(*protected)
        own = {name: kept & ~others[name] for name, kept in self.bank.blocks(language).items()}
        free = self.bank.density(own) / self.bank.density(language)
        if free < FEW:
            log.warning(
                "pathway %s: only %.1f %% of the weights that its mask keeps can be trained; the "
                "rest is protected. A lower weight_pruning.schedule.final leaves more, and so does "
                "a higher weight_pruning.pathways.unclaimed",
                language,
                100 * free,
            )
        return {"free": free}

    def _add_gradients(self) -> None:
        """Add a step's gradients to the gradient sums, also those of masked weights.

        Gradients that overflowed are not added.
        """
        gradients = {name: parameter.grad for name, parameter in self.bank.parameters().items()}
        found = {group.name: unit_scores(group, gradients) for group in self._outlets}
        finite = [squares.isfinite().all() for squares in found.values()]
        if not torch.stack(finite).all():  # one transfer from the device for all groups
            return
        sums = self._gradient_sums.setdefault(self._language, {})
        for name, squares in found.items():
            sums[name] = sums[name] + squares if name in sums else squares

    def _protected(self) -> list[str]:
        """Return the languages whose weights must not change."""
        protect = self.options.pathways.protect
        return [name for name in self.bank.names if protect and name not in self.steps]
