"""Define the options, presets and policy names of data pruning (standard library only)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from asrprune.base.errors import UserError, nearest
from asrprune.base.options import RESUMABLE, option

# A dynamic policy chooses again in each cycle. A static policy chooses once, after the warm-up.
DYNAMIC_POLICIES = (
    "full", "random", "easy", "hard", "middle", "easy2hard", "infobatch", "epsilon_greedy", "ucb",
    "seta", "orderdp", "duration_matched",
)  # fmt: skip
STATIC_POLICIES = (
    "static_random", "static_easy", "static_hard", "static_middle", "el2n", "forgetting",
    "cowerage", "longest", "shortest",
)  # fmt: skip
UNSCORED_POLICIES = ("full", "random", "static_random", "longest", "shortest")


@dataclass
class TimeDroppingOptions:
    """Options of time dropping: parts of an utterance are removed to make its sequence shorter.

    The variant ``chunk`` removes pieces of ``chunk_seconds``. The variant ``point`` removes single
    frames. With ``none`` no time is dropped.

    Time is dropped in pruned cycles only, and only in cycles between the shares ``start`` and
    ``end`` of the training. Before ``start`` the model learns an alignment. After ``end`` the model
    learns whole utterances, while the learning rate is still high.
    """

    variant: str = option("none", choices=("none", "chunk", "point"))
    drop_ratio: float = option(0.3, minimum=0, maximum=0.95)  # share of the time that is removed
    chunk_seconds: float = option(0.2, minimum=0.01, maximum=10)
    level: str = option("frames", choices=("samples", "frames", "encoder"))
    start: float = option(0.3, minimum=0, maximum=1)  # share of the training before the first drop
    end: float = option(0.6, minimum=0, maximum=1)  # share of the training until the last drop

    def check(self, prefix: str) -> None:
        """Check that the options of time dropping go together.

        Args:
            prefix: the text before an option's name in messages, such as ``data_pruning.time.``.

        Raises:
            UserError: ``start`` is not below ``end``.
        """
        if self.start >= self.end:
            raise UserError(
                f"{prefix}start={self.start} must be below {prefix}end={self.end}. To drop no "
                f"time, set {prefix}variant=none."
            )


@dataclass
class DataPruningOptions:
    """Options of data pruning: which utterances train in a cycle, and by what score."""

    policy: str = "full"  # one of the names above, or package.module:callable
    policy_options: dict[str, Any] = option(factory=dict)
    keep: float = option(1.0, maximum=1)  # keep ratio of a pruned cycle; 1: everything
    unit: str = option("seconds", choices=("seconds", "utterances"))  # of `keep` and the floors
    strata: int = option(10, minimum=0, maximum=100)  # duration strata to rank in; 0, 1: no strata
    # rank each language or corpus by itself, and keep the same share of each; empty: all together
    stratify_by: str = option("", choices=("", "language", "corpus"))
    cycle: int = option(1, minimum=1)  # epochs between two plans
    warmup_cycles: int = option(1, minimum=0)  # first cycles, which train on everything
    anneal: float = option(0.125, minimum=0, maximum=1)  # share of last cycles, on everything
    # cycles in a row that may leave out a cut before it is due to be kept; 0: no limit
    max_age: int = option(5, minimum=0, maximum=1000)
    # grouping -> minimum share kept of each group
    floors: dict[str, float] = option(factory=dict, change=RESUMABLE)
    rescale: bool = False  # weigh a kept cut by the inverse of its chance to be kept
    score: str = option("loss", choices=("loss", "loss_sum", "loss_per_frame", "el2n"))
    detrend: bool = True  # divide a score by the trend of the losses at the time of the visit
    ema: float = option(0.8, minimum=0, maximum=0.999)  # weight of the past in running averages
    smooth: bool = True  # rank by an utterance's typical score, not by its last score
    share_copies: bool = True  # speed-perturbed copies have one score
    time: TimeDroppingOptions = option(factory=TimeDroppingOptions)

    def check(self, prefix: str) -> None:
        """Check that the options of data pruning go together.

        Args:
            prefix: the text before an option's name in messages, such as ``data_pruning.``.

        Raises:
            UserError: a keep ratio or a floor is out of its range; the policy is unknown; or the
                policy does not go with ``keep``, ``max_age``, ``score`` or ``warmup_cycles``.
        """
        if not 0 < self.keep <= 1:
            raise UserError(f"{prefix}keep={self.keep}: must be above 0 and at most 1")
        known = DYNAMIC_POLICIES + STATIC_POLICIES
        if self.policy not in known and ":" not in self.policy:
            raise UserError(
                f"{prefix}policy={self.policy}: choose one of {', '.join(known)}, or name your own "
                f"as package.module:callable{nearest(self.policy, known)}"
            )
        dynamic = self.policy not in STATIC_POLICIES and self.policy != "full"
        if dynamic and self.max_age and self.keep < 1 / (self.max_age + 1):
            raise UserError(
                f"{prefix}keep={self.keep} is too low for {prefix}max_age={self.max_age}: the "
                f"visits that age forces need a keep ratio of {1 / (self.max_age + 1):.4f} or "
                f"more. Raise either option, or set {prefix}max_age=0."
            )
        for name, share in self.floors.items():
            if not 0 <= share <= 1:
                raise UserError(f"{prefix}floors.{name}={share}: must be between 0 and 1")
        if self.policy == "el2n" and self.score != "el2n":
            raise UserError(f"{prefix}policy=el2n ranks by EL2N scores. Set {prefix}score=el2n.")
        # a cut has a score after one visit; a score can get worse only after two visits
        least = 2 if self.policy == "forgetting" else int(self.policy not in UNSCORED_POLICIES)
        if ":" not in self.policy and self.warmup_cycles < least:
            raise UserError(
                f"{prefix}warmup_cycles={self.warmup_cycles}: policy {self.policy} needs at least "
                f"{least}. Its scores come from the warm-up."
            )


def preset(name: str) -> dict[str, Any]:
    """Return all options of a preset, as a new dictionary.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(
            f"data_pruning={name}: there is no such preset{nearest(name, PRESETS)}. Choose one of "
            f"{', '.join(PRESETS)}. To choose a policy, set data_pruning.policy={name}."
        )
    return dataclasses.asdict(PRESETS[name])


# `ddp_asr_paper` follows the abstract of arXiv 2406.18373, and what others write about the paper:
# easy2hard at 70 % of the utterances, 30 % of chunks dropped. The length of a chunk is our choice.
# `recommended` was as good as full data, with 22 to 25 % less audio, in two comparisons: on
# synthetic digits and on real ones. It was better than full data for fewer epochs, with as much
# audio. On the real digits this difference may be chance (RESULTS.md of the two recipes).
PRESETS = {
    "full": DataPruningOptions(),
    "ddp_asr_paper": DataPruningOptions(
        policy="easy2hard",
        policy_options={"mode": "window"},
        keep=0.7,
        unit="utterances",
        strata=0,
        anneal=0.0,
        max_age=0,
        score="loss_sum",
        detrend=False,
        smooth=False,
        time=TimeDroppingOptions("chunk", drop_ratio=0.3, level="samples", start=0.0, end=1.0),
    ),
    "recommended": DataPruningOptions(
        policy="infobatch",
        keep=0.7,
        time=TimeDroppingOptions("point"),
    ),
}
