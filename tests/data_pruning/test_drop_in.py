"""The sampler in a training as icefall writes it: a data module, a scan of memory, a checkpoint."""

import io
from typing import Any

import pytest
import torch
from lhotse import CutSet
from lhotse.dataset import K2SpeechRecognitionDataset
from lhotse.dataset.sampling.utils import find_pessimistic_batches
from torch.utils.data import DataLoader

from asrprune.data.batches import open_cuts
from asrprune.data_pruning import CutIndex, DataPruningOptions, PruningSampler

EPOCHS = 4


class Training:
    """The parts of icefall's `asr_datamodule.py` and `train.py` that meet the sampler."""

    def __init__(self, cuts: CutSet, workers: int, state: dict[str, Any] | None = None):
        self.sampler = PruningSampler(
            cuts,
            CutIndex.from_cuts(cuts),
            DataPruningOptions("infobatch", keep=0.5, anneal=0.25),
            epochs=EPOCHS,
            max_duration=6.0,
            num_buckets=3,
            drop_last=False,
            seed=1,
        )
        self.dataset = K2SpeechRecognitionDataset(return_cuts=True)
        if state is not None:
            self.sampler.load_state_dict(state)
        self.loader = DataLoader(
            self.dataset, sampler=self.sampler, batch_size=None, num_workers=workers,
            generator=torch.Generator(),
        )  # fmt: skip
        self.model = torch.nn.Linear(80, 1)
        self.seen: list[tuple[int, tuple[str, ...], list[float] | None]] = []

    def compute_loss(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weighed loss of a batch, and what `update` takes; also called in validation."""
        frames = batch["supervisions"]["num_frames"]
        losses = self.model(batch["inputs"]).squeeze(2).pow(2).mean(dim=1) * frames
        tokens = torch.tensor([len(text) for text in batch["supervisions"]["text"]])
        weights = self.sampler.weights_of(batch["supervisions"]["cut"])
        weighed = losses if weights is None else losses * torch.from_numpy(weights)
        return weighed.sum(), losses, tokens

    def scan(self) -> None:
        """As `scan_pessimistic_batches_for_oom`."""
        batches, _ = find_pessimistic_batches(self.loader.sampler)
        for cuts in batches.values():
            self.compute_loss(self.dataset[cuts])

    def run(self, dev: CutSet, stop_after: int | None = None) -> bytes:
        """Train up to the end, or so many batches; return what the first rank saves."""
        self.scan()
        for epoch in range(self.sampler.epoch, EPOCHS):
            self.loader.sampler.set_epoch(epoch)
            for batch in self.loader:
                _, losses, tokens = self.compute_loss(batch)
                own = batch["supervisions"]["cut"]
                weights = self.sampler.weights_of(own)
                names = tuple(cut.id for cut in own)
                self.seen.append((epoch, names, None if weights is None else weights.tolist()))
                self.sampler.update(own, losses, tokens)
                if len(self.seen) == stop_after:
                    return self._saved()
                if len(self.seen) % 3 == 0:
                    self.compute_loss(self.dataset[dev])  # validation
        return self._saved()

    def _saved(self) -> bytes:
        file = io.BytesIO()
        torch.save({"sampler": self.sampler.state_dict()}, file)
        return file.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_as_icefall_writes_it(workers, tiny_corpus):
    cuts = open_cuts(tiny_corpus.manifests, "tones", "train")
    dev = open_cuts(tiny_corpus.manifests, "tones", "dev")
    torch.manual_seed(0)
    whole = Training(cuts, workers)
    whole.run(dev)
    per_epoch = [[names for at, names, _ in whole.seen if at == epoch] for epoch in range(EPOCHS)]
    assert len(per_epoch[0]) == len(per_epoch[3]) > len(per_epoch[2]) > 1
    assert any(weights for _, _, weights in whole.seen)
    assert whole.sampler.left_out == 0
    for stop in (1, len(per_epoch[0]) + 2, len(whole.seen) - 2):
        torch.manual_seed(0)
        first = Training(cuts, workers)
        state = torch.load(io.BytesIO(first.run(dev, stop)), weights_only=True)
        rest = Training(cuts, workers, state["sampler"])
        rest.model = first.model
        rest.run(dev)
        assert first.seen + rest.seen == whole.seen


def test_a_scan_before_a_later_epoch_counts_no_cycle(tiny_corpus, caplog):
    """As icefall's --start-epoch without a state: there are no scores, and everything is kept."""
    training = Training(open_cuts(tiny_corpus.manifests, "tones", "train"), 0)
    training.scan()
    training.sampler.set_epoch(2)
    assert "needs scores, and there are none yet" in caplog.text
    assert training.sampler.plan.keep.all() and not training.sampler.history.visits.any()
