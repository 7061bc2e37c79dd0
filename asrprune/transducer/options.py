"""Options of the model and its loss (standard library only, so that a dry run needs no torch)."""

from dataclasses import dataclass
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.options import RESUMABLE, option

BACKENDS = ("auto", "torch", "k2")


@dataclass
class ModelOptions:
    """What the transducer is made of; ``package.module:callable`` factories take ``*_options``."""

    encoder: str = "asrprune.transducer.conformer:conformer"
    encoder_options: dict[str, Any] = option(factory=dict)
    predictor: str = "asrprune.transducer.predictor:stateless"
    predictor_options: dict[str, Any] = option(factory=dict)
    num_features: int = option(80, minimum=1)  # mel bins
    joiner_dim: int = option(512, minimum=1)


@dataclass
class LossOptions:
    """The pruned transducer loss (Kuang et al. 2022)."""

    # auto: k2 if its functions are there, else torch
    backend: str = option("auto", change=RESUMABLE, choices=BACKENDS)
    prune_range: int = option(5, minimum=1)
    lm_scale: float = option(0.25, minimum=0, maximum=1)  # smooths the simple loss: predictor alone
    am_scale: float = option(0.0, minimum=0, maximum=1)  # and encoder alone
    # modified: a symbol also moves one frame on
    topology: str = option("regular", choices=("regular", "modified"))
    delay_penalty: float = option(0.0, minimum=0)  # per frame; > 0 emits symbols earlier
    simple_scale: float = option(0.5, minimum=0)  # weight of the simple loss after warm-up
    # share of the training over which simple goes from 1 to simple_scale and pruned from 0.1 to 1
    warmup: float = option(0.02, minimum=0, maximum=1)

    def check(self, prefix: str) -> None:
        """What the two scales leave of 1 is that of both networks together: it is not negative.

        Raises:
            UserError: it is.
        """
        if self.lm_scale + self.am_scale > 1:
            raise UserError(
                f"{prefix}lm_scale={self.lm_scale} and {prefix}am_scale={self.am_scale}: their sum "
                "must be at most 1"
            )
