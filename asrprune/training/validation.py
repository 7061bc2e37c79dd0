"""Measure the loss on a development set. The ranks share the batches of the set."""

from collections.abc import Callable

from lhotse import CutSet
from torch import Tensor

from asrprune.base.randomness import keyed_global_generators
from asrprune.data.batches import Batch, dev_loader
from asrprune.data.options import DataOptions
from asrprune.data.tokenizer import Tokenizer
from asrprune.training.distributed import Ranks
from asrprune.training.guards import explain_no_memory
from asrprune.training.metrics import dev_bar


def loss_per_token(
    name: str,
    cuts: CutSet,
    forward: Callable[[Batch], Tensor],
    tokenizer: Tokenizer,
    options: DataOptions,
    ranks: Ranks,
    stop: Callable[[], bool],
) -> float | None:
    """Measure the loss per token of a set. Collective.

    Utterances whose loss is not finite are left out.

    Args:
        name: name of the set, for the progress bar.
        cuts: the set.
        forward: returns the loss of each utterance of a batch, (B,).
        tokenizer: the tokenizer for the tokens of the batches.
        options: options of the batches.
        ranks: the processes that share the batches.
        stop: asked before each batch; True: give up.

    Returns:
        The loss; None if ``stop`` returned True on a rank.
    """
    loss, tokens = 0.0, 0.0
    batches = dev_loader(cuts, tokenizer, options, ranks.rank, ranks.world)
    with dev_bar(name, len(cuts), ranks.first) as bar:
        for batch in batches:
            if stop():
                break
            # the same random draws after any step, for encoders that draw in evaluation mode
            draws = keyed_global_generators("validation", batch["cut_ids"][0])
            with explain_no_memory(batch), draws:
                losses = forward(batch).double()
            # an utterance with more symbols than frames has no path in the modified topology
            finite = losses.isfinite()
            loss += losses[finite].sum().item()
            tokens += int((batch["token_lens"] + 1)[finite.cpu()].sum())
            bar.update(len(losses) * ranks.world)
    loss, tokens, stops = ranks.total(loss, tokens, stop())
    return None if stops else loss / max(tokens, 1)
