"""Options of data pruning, its presets and the names of its policies (standard library only)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from asrprune.errors import UserError, nearest
from asrprune.options import option

# Policies by kind: a dynamic one chooses anew in each cycle; a static one chooses once, after the
# warm-up, and keeps its choice.
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
    """Which parts inside of an utterance are removed, so that its sequence gets shorter.

    Two variants are rivals to compare with: ``mask`` overwrites the chunks with the mean and saves
    nothing, ``speed`` plays all of the audio faster and saves as much.

    Time is dropped in pruned cycles only, and only in cycles between the shares ``start`` and
    ``end`` of the training. Before ``start`` the model has no alignment yet. After ``end`` the
    model learns whole utterances.
    """

    variant: str = option("none", choices=("none", "chunk", "span", "point", "mask", "speed"))
    drop_ratio: float = option(0.3, minimum=0, maximum=0.95)  # share that is removed
    chunk_seconds: float = option(0.2, minimum=0.01, maximum=10)
    level: str = option("frames", choices=("samples", "frames", "encoder"))
    start: float = option(0.0, minimum=0, maximum=1)  # share of the training before the first drop
    end: float = option(1.0, minimum=0, maximum=1)  # share of the training after the last drop

    def check(self, prefix: str) -> None:
        """Check that the options of time dropping go together.

        Args:
            prefix: the text before an option's name in messages, such as ``data_pruning.time.``.

        Raises:
            UserError: the variant does not work at this level, or ``start`` is not below ``end``.
        """
        needed = {"mask": "frames", "speed": "samples"}.get(self.variant, self.level)
        if self.level != needed:
            raise UserError(f"{prefix}variant={self.variant} works at {prefix}level={needed} only")
        if self.start >= self.end:
            raise UserError(
                f"{prefix}start={self.start} must be below {prefix}end={self.end}. To drop no "
                f"time, set {prefix}variant=none."
            )


@dataclass
class DataPruningOptions:
    """Which utterances train in a cycle, by what score, and what is never forgotten."""

    policy: str = "full"  # one of the names above, or package.module:callable
    policy_options: dict[str, Any] = option(factory=dict)
    keep: float = option(1.0, maximum=1)  # share that trains in a cycle; 1: everything
    unit: str = option("seconds", choices=("seconds", "utterances"))  # of `keep` and the floors
    strata: int = option(10, minimum=0, maximum=100)  # rank inside duration strata; 0, 1: none
    # rank inside of each of them, and keep as large a share of each; empty: of all together
    stratify_by: str = option("", choices=("", "language", "corpus"))
    cycle: int = option(1, minimum=1)  # epochs between two choices
    warmup_cycles: int = option(1, minimum=0)  # first cycles, on everything
    anneal: float = option(0.125, minimum=0, maximum=1)  # share of last cycles, on everything
    max_age: int = option(5, minimum=0, maximum=1000)  # cycles skipped before a visit; 0: no limit
    floors: dict[str, float] = option(factory=dict)  # least share of each language, speaker, corpus
    rescale: bool = False  # weigh what is kept by the inverse of its chance to be kept
    score: str = option("loss", choices=("loss", "loss_sum", "loss_per_frame", "el2n"))
    detrend: bool = True  # divide a score by the running mean at the time of the visit
    ema: float = option(0.5, minimum=0, maximum=0.999)  # weight of the past in mean and variance
    smooth: bool = False  # rank by the running mean of an utterance's scores, not by the last one
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
                f"{prefix}keep={self.keep}: with {prefix}max_age={self.max_age} every utterance "
                f"is visited once in {self.max_age + 1} cycles, for which keep must be at least "
                f"{1 / (self.max_age + 1):.4f}; raise either, or set {prefix}max_age=0"
            )
        for name, share in self.floors.items():
            if not 0 <= share <= 1:
                raise UserError(f"{prefix}floors.{name}={share}: must be between 0 and 1")
        if self.policy == "el2n" and self.score != "el2n":
            raise UserError(f"{prefix}policy=el2n ranks by EL2N scores: set {prefix}score=el2n")
        # a score exists after one visit, and whether it got worse after two
        least = 2 if self.policy == "forgetting" else int(self.policy not in UNSCORED_POLICIES)
        if ":" not in self.policy and self.warmup_cycles < least:
            raise UserError(
                f"{prefix}warmup_cycles={self.warmup_cycles}: policy {self.policy} needs at least "
                f"{least}, for there are no scores before"
            )


def preset(name: str) -> dict[str, Any]:
    """All options of a preset, as a dictionary to fill in and change.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(
            f"data_pruning={name}: there is no such preset{nearest(name, PRESETS)}; choose one of "
            f"{', '.join(PRESETS)}, or give options as data_pruning.policy={name}"
        )
    return dataclasses.asdict(PRESETS[name])


# `ddp_asr_paper` follows what the abstract of arXiv 2406.18373, and others' words about the paper,
# say: easy2hard at 70 % of the utterances, 30 % of chunks dropped. A chunk's length is our choice.
# `recommended` drops no time: in our comparisons (the recipes' RESULTS.md) every way to do so was
# worse than keeping fewer utterances, of as much audio together.
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
        time=TimeDroppingOptions(variant="chunk", drop_ratio=0.3, level="samples"),
    ),
    "recommended": DataPruningOptions(
        policy="easy2hard",
        policy_options={"mode": "window"},
        keep=0.7,
    ),
}
