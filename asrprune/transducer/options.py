"""Declare the options of the model and its loss, without torch, so that a dry run starts fast."""

from dataclasses import dataclass
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.options import RESUMABLE, option

BACKENDS = ("auto", "torch", "k2")


@dataclass
class ModelOptions:
    """Name the parts of the transducer.

    Factories are named ``package.module:callable``. Their options are in ``*_options``.
    """

    encoder: str = "asrprune.transducer.conformer:conformer"
    encoder_options: dict[str, Any] = option(factory=dict)
    predictor: str = "asrprune.transducer.predictor:stateless"
    predictor_options: dict[str, Any] = option(factory=dict)
    num_features: int = option(80, minimum=1)  # mel bins
    joiner_dim: int = option(512, minimum=1)


@dataclass
class LossOptions:
    """Hold the options of the pruned transducer loss (Kuang et al. 2022)."""

    # auto: k2 if its functions are available, else torch
    backend: str = option("auto", change=RESUMABLE, choices=BACKENDS)
    prune_range: int = option(5, minimum=1)
    lm_scale: float = option(0.25, minimum=0, maximum=1)  # simple loss: the predictor's part
    am_scale: float = option(0.0, minimum=0, maximum=1)  # simple loss: the encoder's part
    # modified: a symbol also moves to the next frame
    topology: str = option("regular", choices=("regular", "modified"))
    delay_penalty: float = option(0.0, minimum=0)  # per frame; above 0, symbols are emitted earlier
    simple_scale: float = option(0.5, minimum=0)  # weight of the simple loss after warm-up
    # Share of the training in which the weight of the simple loss goes from 1 to simple_scale, and
    # the weight of the pruned loss from 0.1 to 1.
    warmup: float = option(0.02, minimum=0, maximum=1)

    def check(self, prefix: str) -> None:
        """Check that the two scales leave a weight of at least 0 for both networks together.

        Args:
            prefix: the text before option names in messages.

        Raises:
            UserError: the sum of the scales is above 1.
        """
        if self.lm_scale + self.am_scale > 1:
            raise UserError(
                f"{prefix}lm_scale={self.lm_scale} and {prefix}am_scale={self.am_scale}: their sum "
                "must be at most 1"
            )
