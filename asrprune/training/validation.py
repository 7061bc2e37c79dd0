"""The loss on a development set, whose batches the ranks share among them."""

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
    """Measure the loss per token of a set, over the utterances that have one. Collective.

    Args:
        name: Of the set, for the progress bar.
        cuts: The set.
        forward: Gives the loss of each utterance of a batch, (B,).
        tokenizer: Makes the batches' tokens.
        options: Of the batches.
        ranks: Those that share the batches.
        stop: Whether to give up, asked before each batch.

    Returns:
        The loss, or None if ``stop`` said so on one of the ranks.
    """
    loss, tokens = 0.0, 0.0
    batches = dev_loader(cuts, tokenizer, options, ranks.rank, ranks.world)
    with dev_bar(name, len(cuts), ranks.first) as bar:
        for batch in batches:
            if stop():
                break
            # the same draws after any step, for an encoder that draws in evaluation mode too
            draws = keyed_global_generators("validation", batch["cut_ids"][0])
            with explain_no_memory(batch), draws:
                losses = forward(batch).double()
            # one with more symbols than frames has no path in the modified topology
            finite = losses.isfinite()
            loss += losses[finite].sum().item()
            tokens += int((batch["token_lens"] + 1)[finite.cpu()].sum())
            bar.update(len(losses) * ranks.world)
    loss, tokens, stops = ranks.total(loss, tokens, stop())
    return None if stops else loss / max(tokens, 1)
