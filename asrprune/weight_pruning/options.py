"""Define the options of weight pruning, and how a block is written (standard library only)."""

import re
from dataclasses import dataclass

from asrprune.base.errors import UserError, nearest
from asrprune.base.options import flatten, option

OWN_METHODS = ("supernet", "pathways")  # each has a section of options of the same name
LANGUAGE = "{language}"  # in the name of a file: stands for each language in turn
LARGEST_GROUP = 64  # of N:M: levels distinguish 250 blocks at most, and the arithmetic is int16


@dataclass(frozen=True)
class Block:
    """The shape of a block: ``rows`` x ``columns`` entries of a matrix, kept or dropped together.

    With a ``group``, blocks are single entries, which compete within ``group`` consecutive columns
    of a row. ``kept_of_group`` of these entries are to be kept: the pattern N:M.
    """

    rows: int
    columns: int
    group: int = 0  # M of N:M, else 0
    kept_of_group: int = 0  # N of N:M, else 0

    def __str__(self) -> str:
        return f"{self.kept_of_group}:{self.group}" if self.group else f"{self.rows}x{self.columns}"

    @property
    def sparsity(self) -> float | None:
        """The maximum sparsity of N:M, 1 - N/M; None for other blocks."""
        return 1 - self.kept_of_group / self.group if self.group else None


def parse_block(text: str, key: str = "weight_pruning.block") -> Block:
    """Return the block that a text describes: ``8x1`` (rows x columns), or ``2:4`` (2 of 4 inputs).

    Args:
        text: the text.
        key: the option's name, for the message.

    Raises:
        UserError: the text is neither.
    """
    if match := re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text):
        rows, columns = map(int, match.groups())
        if rows and columns:
            return Block(rows, columns)
    elif match := re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", text):
        kept, group = map(int, match.groups())
        if 0 < kept < group <= LARGEST_GROUP:
            return Block(1, 1, group, kept)
    raise UserError(
        f"{key}={text}: must be rows x columns of a block, such as 8x1, or how many of consecutive "
        f"inputs are kept, such as 2:4 (of {LARGEST_GROUP} at most)"
    )


@dataclass
class ScheduleOptions:
    """How sparsity rises, and how often weights are ranked, over the progress from 0 to 1."""

    kind: str = option("cubic", choices=("constant", "linear", "cubic"))
    initial: float = option(0.0, minimum=0, maximum=0.99)  # sparsity until `start`
    final: float = option(0.7, minimum=0, maximum=0.99)  # sparsity from `end` on
    start: float = option(0.0, minimum=0, maximum=1)
    end: float = option(0.4, minimum=0, maximum=1)  # kind=constant uses `start` instead
    # From here on weights are not ranked again: a gradual mask and the masks of a supernet change
    # with sparsity alone, pathways do not. 0: weights are ranked only where the training begins.
    freeze: float = option(0.75, minimum=0, maximum=1)
    refresh_interval: int = option(200, minimum=1)  # steps of the optimiser between two rankings

    @property
    def settles(self) -> float:
        """The progress from which on sparsity is ``final``."""
        return self.start if self.kind == "constant" else self.end

    def check(self, prefix: str) -> None:
        """Check that sparsity starts to rise before it stops rising.

        Args:
            prefix: the text before an option's name in messages, such as
                ``weight_pruning.schedule.``.

        Raises:
            UserError: ``start`` comes after ``end``.
        """
        if self.kind != "constant" and self.start > self.end:
            raise UserError(
                f"{prefix}start={self.start}: must not come after {prefix}end={self.end}"
            )


@dataclass
class DistillationOptions:
    """How sparse sub-networks learn from the dense network within the same step.

    The pass of a sparse sub-network then needs a forward pass through the dense encoder too. Both
    take about 1.25 times as long as one alone (measured with a small Emformer). With sandwich
    sampling the dense network's own pass serves.
    """

    scale: float = option(0.0, minimum=0)  # factor of the divergence in the loss; 0: none
    # sub-networks of at least this mean sparsity (over all weights) learn
    from_sparsity: float = option(0.7, minimum=0, maximum=1)


@dataclass
class SupernetOptions:
    """Which sub-networks a step trains; the sparsest has the schedule's sparsity in all layers."""

    # single: one for each rank and micro-batch; sandwich: the dense, the sparsest and random ones
    sampling: str = option("single", choices=("single", "sandwich"))
    dense: float = option(0.25, minimum=0, maximum=1)  # single: probability of the dense network
    sparsest: float = option(0.25, minimum=0, maximum=1)  # single: probability of the sparsest
    random: int = option(1, minimum=0)  # sandwich: number of random sub-networks
    # Random sub-networks. mean: layers about one random sparsity; uniform: each layer on its own.
    space: str = option("mean", choices=("mean", "uniform"))
    jitter: float = option(0.2, minimum=0, maximum=1)  # mean: maximum distance from this sparsity
    # scaled: a sub-network's dropout is p (1 - mean sparsity); constant: p
    dropout: str = option("scaled", choices=("scaled", "constant"))
    distillation: DistillationOptions = option(factory=DistillationOptions)

    def check(self, prefix: str) -> None:
        """Check that the probabilities of the sub-networks sum to 1 at most.

        Args:
            prefix: the text before an option's name in messages, such as
                ``weight_pruning.supernet.``.

        Raises:
            UserError: ``dense`` and ``sparsest`` are together above 1.
        """
        if self.dense + self.sparsest > 1:
            raise UserError(
                f"{prefix}dense={self.dense} and {prefix}sparsest={self.sparsest}: together at "
                "most 1. The rest is for random sub-networks"
            )


REGROW = "regrow"
EXCHANGE = 0.1
UNCLAIMED = 0.5


@dataclass
class PathwaysOptions:
    """Each language has its own mask, its pathway, and its steps move nothing else.

    The schedule gives each language's sparsity, and ``refresh_interval`` counts the language's own
    steps. A language without a mask gets one from the weights at its first step: at ``final``
    sparsity, if masks do not adapt. Masks that adapt are made for the last time at ``freeze``, if
    no interval has brought them to the schedule before. So ``freeze`` must not come before ``end``.
    """

    # A model file with the first masks: one for each language, or one for all, as from gradual
    # pruning. With {language} in its name: a file for each language. Empty: none.
    masks: str = ""
    adapt: bool = True  # masks follow the weights until `freeze`; false: masks never change
    # What masks that adapt keep. regrow: the largest of their own weights. A share of the mask is
    # exchanged for the weights outside of it that have the largest gradients in the language's own
    # steps since the last renewal. magnitude: the largest weights, whichever language trained them,
    # so that languages come to have nearly the same mask.
    # sensitivity: the weights that the language's own steps since the last ranking need most, by
    # mean squares of weights and of their gradients (first order, arXiv 1906.10771). Of channels
    # and heads, the gradients of the columns count. Of dropped layers, few weights have gradients.
    renewal: str = option("magnitude", choices=(REGROW, "magnitude", "sensitivity"))
    # Share of a mask that a renewal exchanges at the start of the training, for renewal=regrow. It
    # falls to 0 at `freeze` (half a cosine).
    exchange: float = option(EXCHANGE, minimum=0, maximum=1)
    # masked: a step moves the weights that its mask keeps. all: it moves masked weights too, by the
    # gradients that they have as zeros (PARP, arXiv 2106.05933).
    grad: str = option("masked", choices=("masked", "all"))
    max_union_density: float = option(
        1.0, minimum=0, maximum=1
    )  # of all masks together, in each layer
    # Languages of `masks` that are not trained keep their weights bit by bit. They also keep the
    # values of all weights outside of blocks. The languages that are trained move these weights for
    # themselves alone.
    protect: bool = False
    # protect=true: least share of a new mask that no protected language keeps, if there are enough
    # unclaimed weights. Only unclaimed weights can be trained.
    unclaimed: float = option(UNCLAIMED, minimum=0, maximum=1)

    def check(self, prefix: str) -> None:
        """Check that the options of pathways go together.

        Args:
            prefix: the text before an option's name in messages, such as
                ``weight_pruning.pathways.``.

        Raises:
            UserError: ``protect`` does not go with ``masks`` or ``grad``; ``unclaimed`` is set
                where nothing is protected; ``exchange`` is set for masks that exchange nothing; or
                ``renewal=regrow`` or ``max_union_density`` are set for masks that do not adapt.
        """
        if self.protect and LANGUAGE in self.masks:
            raise UserError(f"{prefix}protect=true: {prefix}masks must name one file for all")
        if self.protect and not self.masks:
            raise UserError(f"{prefix}protect=true: {prefix}masks must name what is protected")
        if self.protect and self.grad == "all":
            raise UserError(f"{prefix}protect=true: {prefix}grad=all moves what is protected")
        if not self.protect and self.unclaimed != UNCLAIMED:
            raise UserError(
                f"{prefix}unclaimed={self.unclaimed:g}: is for {prefix}protect=true. Leave it out"
            )
        if self.renewal != REGROW and self.exchange != EXCHANGE:
            raise UserError(
                f"{prefix}exchange={self.exchange:g}: is for {prefix}renewal={REGROW}, and this is "
                f"{prefix}renewal={self.renewal}. Leave it out"
            )
        if self.renewal == REGROW and not self.adapt:
            raise UserError(
                f"{prefix}renewal={REGROW}: is for masks that adapt, and {prefix}adapt=false"
            )
        if not self.adapt and self.max_union_density < 1:
            raise UserError(
                f"{prefix}max_union_density={self.max_union_density:g}: is for masks that adapt, "
                f"and {prefix}adapt=false"
            )


FIRST_ORDER = "first_order"
CRITERIA = ("mean_square", "l1", FIRST_ORDER)


@dataclass
class WeightPruningOptions:
    """Which weights are pruned, in what blocks, by what score, and when."""

    # gradual: one mask, which follows the schedule. supernet: sub-networks of every size. pathways:
    # a mask for each language.
    method: str = option("none", choices=("none", "gradual", "supernet", "pathways"))
    # block: the entries of a block become zeros. channel: inner channels of feed-forward modules
    # are left out, and the rest is a smaller dense network. layer: whole layers are left out. head:
    # heads of attention are left out, equally many in all layers.
    unit: str = option("block", choices=("block", "channel", "layer", "head"))
    block: str = "8x1"  # rows x columns, or N:M
    multiple: int = option(8, minimum=1)  # unit=channel: round kept channels to this multiple
    # Score of a unit. mean_square, l1, or package.module:callable: the mean over its weights.
    # first_order (not for blocks): about how much the loss would change without the unit.
    criterion: str = "mean_square"
    # Which units compete. layer: units of one layer. global: units of all layers, which then have
    # different sparsities (only with blocks, and not with supernets).
    scope: str = option("layer", choices=("layer", "global"))
    # Patterns of parameters' names; empty: all. Input and output layers of an encoder stay dense.
    include: list[str] = option(factory=lambda: ["encoder.*layers.*"])
    exclude: list[str] = option(factory=list)
    recurrent: bool = False  # prune weights of LSTM and GRU too
    ragged: str = option("refuse", choices=("refuse", "pad"))  # if blocks do not divide a layer
    schedule: ScheduleOptions = option(factory=ScheduleOptions)
    supernet: SupernetOptions = option(factory=SupernetOptions)
    pathways: PathwaysOptions = option(factory=PathwaysOptions)

    def check(self, prefix: str) -> None:
        """Check that the options of weight pruning go together.

        Args:
            prefix: the text before an option's name in messages, such as ``weight_pruning.``.

        Raises:
            UserError: the block or criterion is not valid; an option does not go with the block; an
                option belongs to a method that this training does not use; or adapting pathways
                freeze before they reach their final sparsity.
        """
        self._check_idle(prefix)
        self._check_unit(prefix)
        block = parse_block(self.block, f"{prefix}block")
        if self.criterion not in CRITERIA and ":" not in self.criterion:
            raise UserError(
                f"{prefix}criterion={self.criterion}: choose one of {', '.join(CRITERIA)}, or name "
                f"your own as package.module:callable{nearest(self.criterion, CRITERIA)}"
            )
        if self.criterion == FIRST_ORDER and (self.unit == "block" or self.method == "pathways"):
            raise UserError(
                f"{prefix}criterion={FIRST_ORDER}: is for {prefix}unit=channel, layer or head with "
                f"{prefix}method=gradual or supernet. Choose one of {', '.join(CRITERIA[:-1])}"
            )
        if self.scope == "global" and self.unit != "block":
            raise UserError(
                f"{prefix}scope=global: is for {prefix}unit=block, and this is "
                f"{prefix}unit={self.unit}. Set {prefix}scope=layer"
            )
        if self.scope == "global" and self.method == "supernet":
            raise UserError(
                f"{prefix}scope=global: with {prefix}method=supernet each layer has a sparsity of "
                f"its own. Set {prefix}scope=layer"
            )
        if self.pathways.grad == "all" and self.unit != "block":
            raise UserError(
                f"{prefix}pathways.grad=all: is for {prefix}unit=block. The weights of a dropped "
                f"{self.unit} are all zero, so few or none of them have gradients. Leave it out"
            )
        regrown = self.pathways.renewal == REGROW
        if regrown and self.unit == "layer":
            raise UserError(
                f"{prefix}pathways.renewal={REGROW}: is for {prefix}unit=block, channel or head. "
                "A dropped layer has no gradients, so it would never come back. Set "
                f"{prefix}pathways.renewal=magnitude"
            )
        if regrown and (block.group or self.scope == "global"):
            what = f"block={self.block}" if block.group else "scope=global"
            raise UserError(
                f"{prefix}pathways.renewal={REGROW}: exchanges blocks within a whole layer, and "
                f"{prefix}{what} does not. Set {prefix}pathways.renewal=magnitude"
            )
        if block.group and self.scope == "global":
            raise UserError(
                f"{prefix}block={self.block} ranks inside of each {block.group} inputs: set "
                f"{prefix}scope=layer"
            )
        if block.group and self.pathways.max_union_density < 1:
            raise UserError(
                f"{prefix}pathways.max_union_density={self.pathways.max_union_density:g}: would "
                f"break the pattern of {prefix}block={self.block}"
            )
        if block.group and self.pathways.protect and self.pathways.unclaimed:
            raise UserError(
                f"{prefix}pathways.unclaimed={self.pathways.unclaimed:g}: would break the pattern "
                f"of {prefix}block={self.block}. Set {prefix}pathways.unclaimed=0"
            )
        most = block.sparsity
        if most is not None and self.method != "none" and self.schedule.final > most + 1e-6:
            raise UserError(
                f"{prefix}schedule.final={self.schedule.final:g}: {prefix}block={self.block} keeps "
                f"{block.kept_of_group} of each {block.group} inputs: at most {most:g}"
            )
        if self.method == "pathways" and self.pathways.adapt:
            self._check_adapting(prefix)

    def _check_idle(self, prefix: str) -> None:
        """Check that no options of another method were changed.

        Args:
            prefix: the text before an option's name in messages, such as ``weight_pruning.``.

        Raises:
            UserError: an option was changed that belongs to another method than this training's.
        """
        for name in OWN_METHODS:
            section = getattr(self, name)
            usual = flatten(type(section)())
            for (key, value, _), (_, default, _) in zip(flatten(section), usual, strict=True):
                if self.method != name and value != default:
                    raise UserError(
                        f"{prefix}{name}.{key}={value}: is for {prefix}method={name}, and this is "
                        f"{prefix}method={self.method}: leave it out, or take that method"
                    )

    def _check_unit(self, prefix: str) -> None:
        """Check that no option of another unit was changed.

        Raises:
            UserError: an option was changed that belongs to another unit than this training's.
        """
        usual = WeightPruningOptions()
        own = {"block": ("block", "recurrent", "ragged"), "channel": ("multiple",)}
        for unit, names in own.items():
            for name in names:
                value = getattr(self, name)
                if self.unit != unit and value != getattr(usual, name):
                    raise UserError(
                        f"{prefix}{name}={value}: is for {prefix}unit={unit}, and this is "
                        f"{prefix}unit={self.unit}: leave it out, or take that unit"
                    )

    def _check_adapting(self, prefix: str) -> None:
        """Check that adapting pathways reach their final sparsity before they freeze.

        Args:
            prefix: the text before an option's name in messages, such as ``weight_pruning.``.

        Raises:
            UserError: ``schedule.freeze`` comes before sparsity is ``schedule.final``.
        """
        freeze, settles = self.schedule.freeze, self.schedule.settles
        if freeze < settles:
            key = "start" if self.schedule.kind == "constant" else "end"
            raise UserError(
                f"{prefix}schedule.freeze={freeze:g}: pathways would freeze before they reach "
                f"{prefix}schedule.final, at {prefix}schedule.{key}={settles:g}. Set "
                f"freeze to at least {settles:g}, or {prefix}pathways.adapt=false for masks that "
                "never change"
            )
