"""Trains the pathways of several languages: a mask of each, which may adapt while training.

A step is of one language: it computes with that language's mask and moves what this keeps. After so
many steps of its own, a language's mask is made anew of all weights (Dynamic ASR Pathways, arXiv
2309.13018), as sparse as the schedule says by then. Where masks begin to stand still, all that are
not at the final sparsity are made for the last time, so that none is denser than the schedule.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asrprune.config import Config
from asrprune.errors import UserError
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.masking import Masking, Network, refuse_running_statistics
from asrprune.training.model_file import masks_of
from asrprune.weight_pruning.groups import unit_scores
from asrprune.weight_pruning.options import LANGUAGE
from asrprune.weight_pruning.pathways import pathway_of, renew

_KEY = "weight_pruning.pathways.masks"
FEW = 0.05  # share of a new mask that is not worth training where the rest is protected

log = logging.getLogger(__name__)


class PathwaysMasking(Masking):
    """A mask for each language (``method=pathways``)."""

    all_gradients = True  # masks may go by them, and what is protected is closed by the gate alone

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
            optimizer: of the model.
            config: of the training.
            ranks: that train together.
            languages: that are trained.

        Raises:
            UserError: the options do not fit the model; a norm keeps running statistics; or a
                frozen layer has no gradients that sensitivity scores could be made from.
        """
        refuse_running_statistics(model, "pathways")
        super().__init__(model, optimizer, config, ranks)
        self.steps = dict.fromkeys(languages, 0)  # that each language has taken
        self._made: dict[str, float] = {}  # the sparsity of each language's mask
        self._settled = False  # the mask of the present step stays as it is
        self._language = ""  # of the present step
        # language -> layer -> sums (blocks,) of the gradients' mean squares since its last mask
        self._felt: dict[str, dict[str, Tensor]] = {}
        blocks = self.bank.parameters()
        if self.options.pathways.protect:
            for name, parameter in model.named_parameters():
                if name not in blocks:
                    parameter.requires_grad_(False)
        still = [name for name, parameter in blocks.items() if not parameter.requires_grad]
        if still and self.options.pathways.score == "sensitivity":
            raise UserError(
                f"training.freeze: {still[0]} would have no gradients, which "
                "weight_pruning.pathways.score=sensitivity ranks by: set score=magnitude, or leave "
                "it out of weight_pruning.include"
            )

    def begin(self) -> None:
        """Take the masks that the languages begin with.

        Raises:
            UserError: the file of masks is missing, has none or those of another model; none for a
                language whose masks do not adapt; nothing to protect.
        """
        super().begin()
        pattern, options = self.options.pathways.masks, self.options.pathways
        if not pattern:
            return
        if LANGUAGE in pattern:
            self._begin_each(pattern)
            return
        sparsity = self._load(pattern)
        names = ", ".join(self.bank.names)
        if options.protect and not self._protected():
            has = f"its languages ({names}) are all trained here" if names else "it has one for all"
            raise UserError(
                f"{_KEY}={pattern}: {has}; there is none for weight_pruning.pathways.protect"
            )
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
                f"{_KEY}={pattern}: there is no mask of {', '.join(missing)}, but of {names}. Add "
                "one, or set weight_pruning.pathways.adapt=true, which makes it"
            )

    def _begin_each(self, pattern: str) -> None:
        """Take each language's mask of a file of its own."""
        found = {}
        for language in self.steps:
            path = pattern.replace(LANGUAGE, language)
            sparsity = self._load(path)
            try:
                choice = pathway_of(self.bank.names, language) if self.bank.names else sparsity
            except UserError as error:
                raise UserError(f"{_KEY}: {path}: {error}") from error
            found[language] = self.bank.blocks(choice)
        for name in self.bank.names:
            self.bank.delete(name)
        for language, blocks in found.items():
            self.bank.name(language, blocks)

    def _load(self, path: str) -> float:
        """Take over the masks of a file; returns the sparsity of the one that has no name."""
        if not Path(path).is_file():
            raise UserError(f"{_KEY}={path}: there is no such file")
        masks = masks_of(load_checkpoint(Path(path)))
        if not masks:
            raise UserError(f"{_KEY}={path}: the model was trained without masks")
        try:
            self.bank.load_state_dict(masks["bank"])
        except UserError as error:
            raise UserError(f"{_KEY}={path}: {error}") from error
        return masks["sparsity"]

    def networks(self, step: int, number: int, rank: int | None = None) -> list[Network]:
        """That of the step's language, on all ranks."""
        return [self._language]

    def gate(self, step: int, batches: int) -> dict[str, Tensor] | None:
        """What the language's mask keeps, but for what is protected; None: all blocks.

        Where masks go by sensitivity it takes note of the step's gradients, which are there by now.
        """
        if self.options.pathways.score == "sensitivity" and not self._settled:
            self._feel()
        if self.options.pathways.grad == "all":
            return None
        blocks = self.bank.blocks(self._language)
        if protected := self._protected():
            others = self.bank.union(*protected)
            blocks = {name: kept & ~others[name] for name, kept in blocks.items()}
        return blocks

    def tested(self, language: str | None) -> dict[str, Network]:
        """The set's own pathway; none, before its language has taken a step."""
        return {"": language} if language in self.bank.names else {}

    def check_tested(self, languages: Mapping[str, str | None]) -> None:
        """See `Masking`."""
        for name, language in languages.items():
            if language is None:
                raise UserError(
                    f"data.dev: the set {name} is not of one language, and pathways have one each"
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
        own = {"steps": dict(self.steps), "made": dict(self._made), "felt": self._felt}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Masking`."""
        super().load_state_dict(state)
        self.steps = dict(state["steps"])
        self._made = dict(state.get("made", {}))
        parameters = self.bank.parameters()
        devices = {
            group.name: parameters[group.layers[0].name].device for group in self.bank.groups
        }
        self._felt = {
            language: {name: felt.to(devices[name], copy=True) for name, felt in layers.items()}
            for language, layers in state.get("felt", {}).items()
        }

    def end(self, step: int) -> None:
        """See `Masking`. What is made only now was never trained, which is warned of."""
        super().end(step)
        if self.news and self._ranks.first:
            log.warning(
                "%s: the last masks were made when the training ended, and were not trained: a "
                "lower weight_pruning.schedule.freeze makes them before",
                ", ".join(self.news),
            )

    def _renew(self, step: int, progress: float, language: str | None) -> bool:
        """Make the mask of a language that has none, or anew after an interval of its own steps.

        From where masks stand still, and once for all languages, those that are late.
        """
        self._language = language = language or ""
        options, schedule = self.options.pathways, self.options.schedule
        taken = self.steps[language]
        self.steps[language] += 1
        frozen = progress >= schedule.freeze  # where sparsity is final, if masks adapt
        self._settled = frozen or not options.adapt
        due = taken and taken % schedule.refresh_interval == 0 and not self._settled
        if language not in self.bank.names or due:
            self._make(language)
        if frozen:
            self._renew_late()
        return bool(self.news)

    def _renew_late(self) -> bool:
        """See `Masking`; languages that have no mask yet get theirs in their first step."""
        late = [
            language
            for language in self.steps
            if self.options.pathways.adapt
            and language in self.bank.names
            and self._made.get(language) != self.sparsity
        ]
        for language in late:
            self._make(language)
        return bool(late)

    def _make(self, language: str) -> None:
        """Make a language's mask of the present weights."""
        options = self.options.pathways
        sparsity = self.sparsity if options.adapt else self.options.schedule.final
        self.bank.refresh(factors=self._felt.pop(language, None))
        changed = renew(self.bank, language, sparsity, options.most)
        self._made[language] = sparsity
        self.news[f"pathway-{language}"] = {
            "density": self.bank.density(language),
            "changed": changed,
            "union": self.bank.density(self.bank.union(*self.bank.names)),
            **self._free(language),
        }

    def _free(self, language: str) -> dict[str, float]:
        """The share of a new mask that its language can train, where others are protected."""
        if not (protected := self._protected()):
            return {}
        others = self.bank.union(*protected)
        own = {name: kept & ~others[name] for name, kept in self.bank.blocks(language).items()}
        free = self.bank.density(own) / self.bank.density(language)
        if free < FEW:
            log.warning(
                "pathway %s: %.1f %% of what its mask keeps is not protected, and can be trained. "
                "A lower weight_pruning.schedule.final leaves more, and so does "
                "weight_pruning.pathways.score=sensitivity",
                language,
                100 * free,
            )
        return {"free": free}

    def _feel(self) -> None:
        """Add up the gradients of a step, of masked weights too; not those that overflowed."""
        gradients = {name: parameter.grad for name, parameter in self.bank.parameters().items()}
        found = {group.name: unit_scores(group, gradients) for group in self.bank.groups}
        finite = [squares.isfinite().all() for squares in found.values()]
        if not torch.stack(finite).all():  # read from the device once
            return
        felt = self._felt.setdefault(self._language, {})
        for name, squares in found.items():
            felt[name] = felt[name] + squares if name in felt else squares

    def _protected(self) -> list[str]:
        """The languages whose weights must stand still."""
        protect = self.options.pathways.protect
        return [name for name in self.bank.names if protect and name not in self.steps]
