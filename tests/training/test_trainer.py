"""The trainer's arithmetic against a few lines of plain torch, and what it does when stopped."""

import copy
import os
import shutil
import signal

import pytest
import torch
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.data import batches
from asrprune.data.batches import SpeechDataset
from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import Ranks
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from asrprune.training.schedule import loss_weights, rate_factor
from asrprune.training.step import PRECISION
from asrprune.training.train import build_trainer, scan_memory
from tests.conftest import tiny_config
from tests.training.command import assert_same, shake

ALONE = Ranks(0, 1, torch.device("cpu"))
PLAIN = {  # nothing random in a step
    "data__spec_augment": {"probability": 0.0},
    "data__noise": {"cuts": ""},
    "model__encoder_options": {
        **{"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "kernel_size": 7},
        "dropout": 0.0,
    },
}


@pytest.fixture
def make_trainer(tiny_corpus, tmp_path):
    """``make_trainer(folder, **options)``: a trainer at the start."""

    def make(folder=None, **options):
        config = tiny_config(tiny_corpus, **options)
        place = folder or tmp_path / "exp"
        place.mkdir(exist_ok=True)
        trainer = build_trainer(config, ALONE, place, tiny_corpus.manifests, tiny_corpus.lang)
        shake(trainer.model)
        return trainer

    return make


def first_batches(trainer, count: int) -> list[dict]:
    """The first batches of the epoch."""
    sampler = trainer.data.sampler
    sampler.set_epoch(1)
    return [trainer.data.dataset[cuts] for cuts, _ in zip(sampler, range(count), strict=False)]


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters()}


def test_gradient_of_micro_batches_is_that_of_the_mean_loss_per_token(make_trainer):
    trainer = make_trainer(
        training__grad_accumulation=2, training__optimizer__clip_norm=0, loss__warmup=0.5, **PLAIN
    )
    batches = first_batches(trainer, 2)
    model, options = trainer.model, trainer.config.loss
    elapsed = sum(batch["seconds"] for batch in batches) / trainer.data.epoch_seconds
    progress = elapsed / trainer.options.epochs  # inside the warm-up of the loss weights
    assert 0 < progress < options.warmup
    simple_weight, pruned_weight = loss_weights(progress, options)
    total = tokens = 0.0
    for batch in batches:
        simple, pruned = model(
            *(batch[name] for name in ("features", "feature_lens", "tokens", "token_lens"))
        )
        total = total + (simple_weight * simple + pruned_weight * pruned).sum()
        tokens += sum(len(row) + 1 for row in _rows(batch))
    (total / tokens).backward()
    expected = gradients(model)
    trainer.step(batches, Meter(ALONE), False)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def _rows(batch) -> list[list[int]]:
    """The transcripts without their padding (no symbol is 0)."""
    return [[token for token in row if token] for row in batch["tokens"].tolist()]


def test_one_batch_or_the_same_cuts_in_two(make_trainer):
    trainer = make_trainer(training__optimizer__clip_norm=0, **PLAIN)
    sampler = trainer.data.sampler
    sampler.set_epoch(1)
    one, other = (cuts for cuts, _ in zip(sampler, range(2), strict=False))
    found = []
    for parts in ([one + other], [one, other]):
        fresh = make_trainer(training__optimizer__clip_norm=0, **PLAIN)
        fresh.step([fresh.data.dataset[cuts] for cuts in parts], Meter(ALONE), False)
        found.append(gradients(fresh.model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_clipping_bounds_the_whole_gradient(make_trainer):
    trainer = make_trainer(training__optimizer__clip_norm=1e-3, **PLAIN)
    trainer.step(first_batches(trainer, 1), Meter(ALONE), False)
    norm = torch.cat([g.flatten() for g in gradients(trainer.model).values()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_rate_and_average_over_a_run(make_trainer):
    trainer = make_trainer(training__epochs=3, **PLAIN)
    rates, models = [], []
    step = trainer.step

    def spy(batches, meter, stop):
        result = step(batches, meter, stop)
        rates.append((trainer.elapsed(), trainer.optimizer.param_groups[1]["lr"]))
        models.append({k: v.detach().double() for k, v in trainer.model.named_parameters()})
        models[-1] = {name: value.clone() for name, value in models[-1].items()}
        return result

    trainer.step = spy
    assert trainer.run() == 0
    options = trainer.options.optimizer
    assert 0 < rates[0][0] < 1 and rates[-1][0] == pytest.approx(3)
    for elapsed, rate in rates:
        assert rate == pytest.approx(options.lr * rate_factor(elapsed / 3, options))
    period = trainer.options.average_period
    taken = models[period - 1 :: period]
    assert trainer.average.count == len(taken) > 3
    for name, mean in trainer.average.mean.items():
        expected = torch.stack([model[name] for model in taken]).mean(0)
        torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)


def test_audio_of_an_epoch_adds_up(make_trainer):
    trainer = make_trainer(training__epochs=1)
    ends = []
    end = trainer._end_epoch
    trainer._end_epoch = lambda *args: ends.append(trainer.elapsed()) or end(*args)
    trainer.run()
    assert ends == [pytest.approx(1.0, abs=1e-3)]


def test_dev_loss_is_the_mean_per_token_whatever_the_batches(make_trainer):
    trainer = make_trainer()
    whole = trainer.validate()
    total = tokens = 0.0
    trainer.model.eval()
    with torch.no_grad():
        for cut in trainer.data.dev["dev"]:
            features = torch.from_numpy(cut.load_features()).unsqueeze(0)
            y = trainer.data.dataset.tokenizer.encode(cut.supervisions[0].text)
            loss = trainer.model(
                features, torch.tensor([features.shape[1]]),
                torch.tensor([y]), torch.tensor([len(y)]),
            )  # fmt: skip
            total += loss.pruned.item()
            tokens += len(y) + 1
    assert whole == {"dev": pytest.approx(total / tokens, rel=1e-4)}
    trainer.config.data.max_duration = 2.0
    assert trainer.validate() == {"dev": pytest.approx(whole["dev"], rel=1e-4)}
    assert trainer.model.training


@pytest.mark.filterwarnings("ignore:The first cut drawn")
def test_ranks_share_the_dev_set(make_trainer):
    shares: list[list[str]] = [[], [], []]
    for rank, share in enumerate(shares):
        trainer = make_trainer(data__max_duration=1.5)
        trainer.ranks = Ranks(rank, 3, ALONE.device)
        trainer.ranks.total = lambda *numbers: list(numbers)

        def spy(batch, share=share, forward=trainer.forward):
            share.extend(batch["cut_ids"])
            return forward(batch)

        trainer.forward = spy
        trainer.validate()
    assert all(shares)
    assert sorted(sum(shares, [])) == sorted(cut.id for cut in trainer.data.dev["dev"])


def test_resume_with_accumulation_from_every_step(make_trainer, tmp_path):
    options = {
        "data__max_duration": 14.0,
        "training__grad_accumulation": 4,  # does not divide the batches of an epoch
        "training__checkpoint_interval": 1,
        "training__keep_checkpoints": 100,
    }
    whole = make_trainer(tmp_path / "whole", **options)
    batches = sum(1 for _ in iter_epoch(whole))
    assert batches % 4
    assert whole.run() == 0
    *earlier, last = numbered(tmp_path / "whole", "checkpoint")
    assert len(earlier) + 1 == 2 * -(-batches // 4)
    for path in earlier:
        folder = tmp_path / path.stem
        folder.mkdir()
        shutil.copy(path, folder)
        part = make_trainer(folder, **options)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(folder, "checkpoint")[-1]), load_checkpoint(last))


def iter_epoch(trainer):
    trainer.data.sampler.set_epoch(1)
    return iter(trainer.data.sampler)


def test_epochs_and_batches_changed_at_once(make_trainer):
    """The epoch starts again while the schedule has moved on: the rate waits and does not jump."""
    options = {"training__optimizer__warmup": 0.5}
    trainer = make_trainer(
        data__max_duration=5.0, training__checkpoint_interval=7, training__epochs=20, **options
    )
    with pytest.raises(KeyboardInterrupt):
        stop_at(trainer, 7)
        trainer.run()
    changed = make_trainer(data__max_duration=9.0, training__epochs=1, **options)
    resume(changed)
    assert changed.position.batches == 0
    rates = []
    step = changed.step

    def spy(*args):
        result = step(*args)
        rates.append(changed.optimizer.param_groups[0]["lr"])
        return result

    changed.step = spy
    changed.run()
    reached = 0.001 * rate_factor(trainer.elapsed() / 20, trainer.options.optimizer)
    assert rates[0] == pytest.approx(reached) and 0 < reached < 1e-4
    top = rates.index(max(rates))
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)


def stop_at(trainer, step: int) -> None:
    """Crash before a step."""
    original = trainer.step

    def stepping(*args):
        if trainer.position.step == step:
            raise KeyboardInterrupt
        return original(*args)

    trainer.step = stepping


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nothing_is_updated_when_a_number_is_none(where, make_trainer):
    trainer = make_trainer(**PLAIN)
    trainer.step(first_batches(trainer, 1), Meter(ALONE), False)
    before = copy.deepcopy(trainer.model.state_dict())
    batches = first_batches(trainer, 2)[1:]
    if where == "loss":
        batches[0]["features"][1, 2:5] = float("nan")
        text = f"the loss is not finite for cut {batches[0]['cut_ids'][1]}. Nothing was updated"
    else:
        trainer.model.joiner.output.weight.register_hook(lambda g: g * float("inf"))
        text = f"gradient is not finite after a step on cuts {batches[0]['cut_ids'][0]}, "
    with pytest.raises(UserError, match=text):
        trainer.step(batches, Meter(ALONE), False)
    assert_same(trainer.model.state_dict(), before)
    assert trainer.position.step == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_and_trains(precision, make_trainer):
    exact = make_trainer(**PLAIN)
    half = make_trainer(training__precision=precision, **PLAIN)
    [batch] = first_batches(exact, 1)
    wanted, found = exact.forward(batch)[1], half.forward(batch)[1]
    assert found.dtype == torch.float32 and not torch.equal(wanted, found)
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.1)
    assert half.run() == 0
    assert half.validate()["dev"] < exact.validate()["dev"]
    assert set(PRECISION) == {"float32", "bfloat16", "float16"}


def test_a_step_that_float16_cannot_hold_is_left_out(make_trainer):
    trainer = make_trainer(training__precision="float16", training__log_interval=1, **PLAIN)
    batches, meter = first_batches(trainer, 2), Meter(ALONE)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too much for any gradient
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.step(batches[:1], meter, False)
    numbers = meter.read()
    assert numbers["skipped_steps"] == 1 and numbers["gradient_norm"] == 0
    assert_same(trainer.model.state_dict(), before)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    trainer.step(batches[1:], meter, False)
    numbers = meter.read()
    assert "skipped_steps" not in numbers and 0 < numbers["gradient_norm"] < float("inf")


def test_a_ctrl_c_during_the_validation_is_answered(make_trainer, tmp_path, monkeypatch):
    whole, stopped = (make_trainer(tmp_path / name, training__epochs=2) for name in ("a", "b"))
    whole.run()
    forward, validating = stopped.forward, []

    def interrupted(batch):
        if not torch.is_grad_enabled() and not validating:
            validating.append(batch)
            os.kill(os.getpid(), signal.SIGINT)
        return forward(batch)

    monkeypatch.setattr(stopped, "forward", interrupted)
    assert stopped.run() == signal.SIGINT
    assert len(validating) == 1 and not numbered(stopped.folder, "epoch")
    again = make_trainer(tmp_path / "b", training__epochs=2)
    resume(again)
    assert again.position.epoch == 1
    assert again.run() == 0
    first = [load_checkpoint(numbered(t.folder, "epoch")[-1]) for t in (whole, again)]
    assert_same(*first)


class Dying(SpeechDataset):
    """Takes the worker with it."""

    def __getitem__(self, cuts):
        os._exit(9)


def test_a_dead_worker_is_one_message(make_trainer):
    trainer = make_trainer(data__num_workers=1)
    trainer.data.dataset.__class__ = Dying
    with pytest.raises(UserError, match=r"a process that loads data died \(.*lower data.num_work"):
        trainer.run()


@pytest.mark.parametrize("topology", ["regular", "modified"])
def test_an_epoch_is_as_long_as_what_is_trained_on(make_trainer, monkeypatch, topology):
    """Without the cuts that have more symbols than frames, else its progress would never be 1."""
    whole = make_trainer(loss__topology=topology).data
    first = batches.alignable
    monkeypatch.setattr(
        batches, "alignable", lambda cuts, *words: CutSet.from_cuts(list(first(cuts, *words))[3:])
    )
    trainer = make_trainer(loss__topology=topology, training__epochs=1)
    seconds = sum(cut.duration for cuts in iter_epoch(trainer) for cut in cuts)
    assert seconds < whole.epoch_seconds - 1
    assert trainer.data.epoch_seconds == pytest.approx(seconds, abs=0.01)
    for name, cuts in trainer.data.dev.items():
        assert len(cuts) == len(whole.dev[name]) - 3


def test_a_scan_of_memory_changes_nothing(make_trainer, tiny_corpus, monkeypatch):
    one, other = make_trainer(training__epochs=1), make_trainer(training__epochs=1)
    scanned = []
    forward = one_step.forward

    def watched(caller, batch, *words):
        scanned.append(batch)
        return forward(caller, batch, *words)

    monkeypatch.setattr(one_step, "forward", watched)
    scan_memory(other)
    epoch = [sorted(cut.id for cut in cuts) for cuts in iter_epoch(other)]
    assert scanned and all(sorted(batch["cut_ids"]) in epoch for batch in scanned)
    monkeypatch.setattr(one_step, "forward", forward)
    one.run()
    state = load_checkpoint(numbered(one.folder, "epoch")[-1])
    other.run()
    assert_same(load_checkpoint(numbered(other.folder, "epoch")[-1]), state)


def test_no_memory_in_a_scan_names_the_way_out(make_trainer, tiny_corpus, monkeypatch):
    trainer = make_trainer()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(one_step, "forward", full)
    with pytest.raises(UserError, match="out of memory on a batch of .* Lower --max-duration"):
        scan_memory(trainer)


def test_a_restarted_epoch_does_not_turn_the_schedule_back(make_trainer):
    trainer = make_trainer(**PLAIN)
    trainer.position.epoch, trainer.position.seconds = 2, 0.6 * trainer.data.seconds
    before = trainer.progress.at(trainer.elapsed())
    assert before == pytest.approx(0.8)
    trainer.restart_epoch()
    assert trainer.position.batches == 0 and trainer.elapsed() == 1.0
    assert trainer.progress.at(trainer.elapsed()) == pytest.approx(before)
    assert trainer.progress.at(1.6) == pytest.approx(before)
    assert before < trainer.progress.at(1.8) < 1 == trainer.progress.at(2.0)
