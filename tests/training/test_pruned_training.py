"""Training with data pruning: exact resume, what is dropped and what never is, what is fed back."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut
from lhotse.testing.dummies import dummy_recording

from asrprune.base.errors import UserError
from asrprune.data.batches import open_cuts, transcript
from asrprune.data.tokenizer import load_tokenizer
from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions
from asrprune.data_pruning.record import cycle_files
from asrprune.data_pruning.scores import UNIT
from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import Ranks, start_ranks
from asrprune.training.metrics import Meter
from asrprune.training.pruning import check_has_audio
from asrprune.training.resume import resume
from asrprune.training.train import build_trainer, scan_memory
from asrprune.training.trainer import Trainer
from tests.conftest import tiny_config
from tests.training.command import assert_same, on_ranks, train_to_next

ALONE = Ranks(0, 1, torch.device("cpu"))
EPOCHS = 4  # one of warm-up, two pruned, one on everything
THROUGHOUT = {"start": 0.0, "end": 1.0}  # of the training
POLICIES = {
    "random": {"keep": 0.6, "rescale": True, "time": {"variant": "chunk", **THROUGHOUT}},
    "easy2hard": {"keep": 0.6, "strata": 2, "max_age": 2},
    "infobatch": {"keep": 0.5},
    "orderdp": {
        "keep": 0.6,
        "strata": 0,
        "time": {"variant": "point", "level": "encoder", **THROUGHOUT},
    },
}


def pruned_config(corpus, policy: str = "random", **options):
    """A config of `EPOCHS` epochs; ``options`` of data pruning, or dotted with ``__`` any."""
    pruning = {"policy": policy, "anneal": 0.25}
    pruning |= {key: options.pop(key) for key in list(options) if "__" not in key}
    return tiny_config(
        corpus,
        **{
            "data_pruning": pruning,
            "data__max_duration": 20.0,
            "training__epochs": EPOCHS,
            "training__checkpoint_interval": 1,
            "training__keep_checkpoints": 1000,
            **options,
        },
    )


@pytest.fixture
def make_trainer(tiny_corpus, tmp_path):
    """``make_trainer(folder, **options)``: a trainer at the start; options as `pruned_config`."""

    def make(folder: str = "exp", **options) -> Trainer:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        config = pruned_config(tiny_corpus, **options)
        return build_trainer(config, ALONE, place, tiny_corpus.manifests, tiny_corpus.lang)

    return make


def check_resume(ranks: Ranks, root: Path, corpus, policies, workers: int) -> None:
    """From each checkpoint to the next one, and from one to the end: the same bits.

    Those inside of the warm-up and of the last epoch are left out: tests/training/test_resume.py
    has the like.
    """
    for policy in policies:
        config = pruned_config(
            corpus,
            policy,
            data__num_workers=workers,
            data__dev=[],
            **POLICIES[policy],
        )

        def build(folder: Path, config=config) -> Trainer:
            folder.mkdir(exist_ok=True, parents=True)
            return build_trainer(config, ranks, folder, corpus.manifests, corpus.lang)

        whole = root / f"{policy}-{workers}"
        trainer = build(whole)
        assert trainer.run() == 0
        assert trainer.data.sampler.batches == trainer.data.sampler.state_dict()["batches"] > 0
        paths = numbered(whole, "checkpoint")
        assert len(paths) >= 2 * EPOCHS
        middle = len(paths) // 3  # in the first pruned epoch; goes on to the end
        checked = set()
        for number, (path, following) in enumerate(zip(paths, paths[1:], strict=False)):
            at = load_checkpoint(path)["position"]
            if at["batches"] and at["epoch"] not in (2, 3):
                continue
            checked.add((at["epoch"], at["batches"]))
            part = root / f"{policy}-{workers}-{path.stem}"
            trainer = build(part)
            if ranks.first:
                shutil.copy(path, part)
            ranks.barrier()
            resume(trainer)
            wanted = load_checkpoint(following)
            if number == middle:
                assert trainer.run() == 0
                wanted = load_checkpoint(paths[-1])
            else:
                train_to_next(trainer, wanted)
            assert_same(load_checkpoint(numbered(part, "checkpoint")[-1]), wanted)
        assert {(2, 0), (2, 1), (3, 0), (3, 1), (4, 0)} <= checked


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_every_batch(workers, tiny_corpus, tmp_path):
    check_resume(ALONE, tmp_path, tiny_corpus, POLICIES, workers)


def rank_main(rank: int, corpus, root: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    check_resume(ranks, root, corpus, POLICIES, 2)
    ranks.leave()


def test_resume_after_every_batch_on_two_ranks(tiny_corpus, tmp_path):
    on_ranks(rank_main, (tiny_corpus, tmp_path), 2)


def without_numbers(state: dict) -> dict:
    """What must be equal whatever draws the same batches."""
    return {name: state[name] for name in ("position", "model", "optimizer", "average", "progress")}


def test_pruning_nothing_is_one_training_however_it_is_asked_for(make_trainer):
    default = make_trainer("default", policy="full", anneal=0.125)
    assert default.config.data_pruning == DataPruningOptions()
    assert default.run() == 0
    for number, options in enumerate(
        [{"policy": "full"}, {"policy": "easy2hard", "keep": 1.0}, {"data__lazy": True}]
    ):
        full = make_trainer(f"full{number}", **{"policy": "full", **options})
        assert full.run() == 0
        assert_same(without_numbers(full.state_dict()), without_numbers(default.state_dict()))


def recorded(trainer: Trainer, monkeypatch) -> list[tuple]:
    """What goes through the model from now on: (epoch, training, batch, encoder lengths)."""
    calls, lengths = [], []
    forward = one_step.forward

    def spy(caller, batch, *words):
        result = forward(caller, batch, *words)
        if caller is trainer:
            calls.append((trainer.position.epoch, trainer.model.training, batch, lengths.pop()))
        return result

    def hook(module, words, result):
        lengths.append(result[1].tolist())

    monkeypatch.setattr(one_step, "forward", spy)
    trainer.model.encoder.register_forward_hook(hook)
    return calls


LEVELS = [("frames", "chunk"), ("samples", "chunk"), ("encoder", "point"), ("frames", "point")]


@pytest.mark.parametrize("topology", ["regular", "modified"])
@pytest.mark.parametrize("level, variant", LEVELS)
def test_time_is_dropped_in_pruned_epochs_only(
    level, variant, topology, make_trainer, tiny_corpus, monkeypatch
):
    time = {
        "level": level,
        "variant": variant,
        "drop_ratio": 0.4,
        "chunk_seconds": 0.08,
        **THROUGHOUT,
    }
    trainer = make_trainer(keep=0.7, time=time, loss__topology=topology)
    tokenizer = load_tokenizer(tiny_corpus.lang)
    cuts = {
        cut.id: cut
        for split in ("train", "dev")
        for cut in open_cuts(tiny_corpus.manifests, "tones", split)
    }
    calls = recorded(trainer, monkeypatch)
    assert trainer.run() == 0
    left: dict[bool, int] = {True: 0, False: 0}
    whole = dict(left)
    for epoch, training, batch, encoder_lens in calls:
        pruned = training and epoch in (2, 3)
        values = [batch[name].tolist() for name in ("feature_lens", "tokens", "token_lens")]
        rows = zip(batch["cut_ids"], encoder_lens, *values, strict=True)
        for name, encoder_frames, frames, tokens, count in rows:
            assert tokens[:count] == tokenizer.encode(transcript(cuts[name]))
            assert encoder_frames >= count
            full = cuts[name].num_frames
            if level == "encoder":
                assert frames == full
                full, frames = -(-full // 4), encoder_frames
            else:
                assert encoder_frames == -(-frames // 4)
            left[pruned] += frames
            whole[pruned] += full
    assert {training for _, training, *_ in calls} == {True, False}
    assert left[False] == whole[False] > 0
    assert left[True] == pytest.approx(0.6 * whole[True], rel=0.08)


@pytest.mark.parametrize("start, end, epochs", [(0.5, 1.0, {3}), (0.0, 0.5, {2})])
def test_time_dropping_has_a_start_and_an_end(start, end, epochs, make_trainer, monkeypatch):
    """Also for the sampler, which fills its batches by what is left."""
    time = {"variant": "point", "drop_ratio": 0.5, "start": start, "end": end}
    trainer = make_trainer(policy="full", time=time)
    calls = recorded(trainer, monkeypatch)
    assert trainer.run() == 0
    index = trainer.data.sampler.index
    steps, shorter = dict.fromkeys(range(1, EPOCHS + 1), 0), set()
    for epoch, training, batch, _ in calls:
        if training:
            steps[epoch] += 1
            whole = index.num_frames[index.cuts_of(batch["cut_ids"])]
            if (batch["feature_lens"].numpy() < whole).any():
                shorter.add(epoch)
    assert shorter == epochs == {epoch for epoch in steps if steps[epoch] < steps[1]}


def test_time_dropping_fills_batches_and_is_drawn_anew(make_trainer, monkeypatch):
    """As much audio left in a batch as without, so fewer steps; other frames in each epoch."""
    time = {"variant": "chunk", "drop_ratio": 0.5, "chunk_seconds": 0.04, **THROUGHOUT}
    trainer = make_trainer(policy="full", time=time, data__spec_augment={"probability": 0.0})
    calls = recorded(trainer, monkeypatch)
    assert trainer.run() == 0
    steps = [sum(training and epoch == n for epoch, training, *_ in calls) for n in range(1, 5)]
    assert steps[0] == steps[3] and max(steps[1:3]) <= 0.75 * steps[0]
    seen: dict[str, list[torch.Tensor]] = {}
    for epoch, training, batch, _ in calls:
        if training and epoch in (2, 3):
            for name, x, frames in zip(
                batch["cut_ids"], batch["features"], batch["feature_lens"].tolist(), strict=True
            ):
                seen.setdefault(name, []).append(x[:frames])
    assert len(seen) == 36
    assert not any(one.shape == other.shape and one.equal(other) for one, other in seen.values())


TRIMMER = "tests.transducer.tiny_encoder:Trimmer"


@pytest.mark.parametrize("level", ["frames", "samples", "encoder"])
@pytest.mark.parametrize("encoder", ["conformer", "emformer", "without padding"])
def test_short_cuts_keep_a_frame_for_each_token(level, encoder, make_trainer, monkeypatch):
    """However much is to go: the topology ``modified`` has no path else, and the loss no number."""
    time = {
        "level": level,
        "variant": "chunk",
        "drop_ratio": 0.95,
        "chunk_seconds": 0.04,
        **THROUGHOUT,
    }
    options = {"time": time, "loss__topology": "modified", "keep": 0.7}
    if encoder == "emformer":
        small = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32}
        name = "asrprune.transducer.emformer:emformer"
        options |= {"model__encoder": name, "model__encoder_options": small}
        if level == "encoder":
            with pytest.raises(UserError, match="level=encoder: .*:emformer cannot drop frames"):
                make_trainer(**options)
            return
    elif encoder == "without padding":  # makes less than ceil(T / 4) frames
        options |= {"model__encoder": TRIMMER, "model__encoder_options": {"width": 16}}
        if level == "encoder":
            with pytest.raises(UserError, match="level=encoder: .*:Trimmer cannot drop frames"):
                make_trainer(**options)
            return
    trainer = make_trainer(**options)
    calls = recorded(trainer, monkeypatch)
    assert trainer.run() == 0
    assert any(
        frames == count
        for epoch, training, batch, lengths in calls
        if training and epoch in (2, 3)
        for frames, count in zip(lengths, batch["token_lens"].tolist(), strict=True)
    )
    assert 0 < trainer.seen.clamped <= trainer.seen.cuts


PLAIN = {  # nothing random in a step
    "data__spec_augment": {"probability": 0.0},
    "data__noise": {"cuts": ""},
    "model__encoder_options__dropout": 0.0,
}


def in_cycle(trainer: Trainer, epoch: int) -> Trainer:
    """Before the first batch of an epoch, with scores from a first one that was not trained on."""
    pruning = trainer.data.sampler
    trainer.data.start_epoch(1)
    cuts = [cut for batch in pruning for cut in batch]
    losses = np.random.default_rng(1).uniform(1, 9, len(cuts))
    ones = [1] * len(cuts)
    pruning.update([cut.id for cut in cuts], losses, ones, num_frames=ones)
    for number in range(2, epoch + 1):
        trainer.position.epoch = number
        trainer.data.start_epoch(number)
    return trainer


@pytest.mark.parametrize("policy, options", [("random", {"rescale": True}), ("infobatch", {})])
def test_weights_multiply_losses_and_not_scores(policy, options, make_trainer):
    trainer = in_cycle(make_trainer(policy=policy, keep=0.5, detrend=False, **options, **PLAIN), 2)
    pruning = trainer.data.sampler
    [batch, *_] = trainer.batches()
    weights = torch.from_numpy(pruning.weights_of(batch["cut_ids"]))
    assert (weights > 1.3).any()
    simple, pruned = trainer.forward(batch)
    scale = trainer.config.loss.simple_scale
    expected = (weights * (scale * simple + pruned)).sum()
    loss, outputs = one_step.weighted_loss(trainer, batch, 0.5, Meter(ALONE))
    torch.testing.assert_close(loss, expected)
    assert torch.equal(outputs.pruned, pruned)
    trainer.step([batch], Meter(ALONE), False)
    at = pruning.index.utterances_of(batch["cut_ids"])
    found = UNIT * pruning.scores.pending()["sum"][at].double()
    torch.testing.assert_close(
        found, (pruned / (batch["token_lens"] + 1)).double().detach(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("level", ["frames", "encoder"])
def test_scores_per_frame_are_of_the_frames_that_are_left(level, make_trainer, monkeypatch):
    time = {
        "level": level,
        "variant": "chunk",
        "drop_ratio": 0.5,
        "chunk_seconds": 0.08,
        **THROUGHOUT,
    }
    options = {"score": "loss_per_frame", "detrend": False, "time": time, "keep": 0.6}
    trainer = in_cycle(make_trainer(policy="hard", **options, **PLAIN), 2)
    pruning, calls = trainer.data.sampler, recorded(trainer, monkeypatch)
    [batch, *_] = trainer.batches()
    pruned = trainer.forward(batch)[1].detach()
    trainer.step([batch], Meter(ALONE), False)
    lengths = torch.tensor(calls[-1][3])
    assert (4 * lengths < 0.8 * 100 * batch["seconds"] / len(lengths)).any()
    at = pruning.index.utterances_of(batch["cut_ids"])
    found = UNIT * pruning.scores.pending()["sum"][at].double()
    torch.testing.assert_close(found, (pruned / lengths).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["el2n", "loss_per_frame", "loss_sum"])
def test_every_score_can_be_trained_with(score, make_trainer):
    trainer = make_trainer(policy="el2n" if score == "el2n" else "hard", keep=0.6, score=score)
    assert trainer.run() == 0
    table = trainer.data.sampler.scores
    assert table.known.all() and np.isfinite(table.last).all() and (table.last > 0).all()
    assert len({*table.last.tolist()}) == len(table)


def test_a_scan_of_memory_changes_nothing(make_trainer, tmp_path):
    time = {"variant": "chunk", "level": "encoder", **THROUGHOUT}
    options = {"policy": "easy2hard", "keep": 0.6, "time": time}
    one = make_trainer("one", **options)
    assert one.run() == 0
    expected = load_checkpoint(numbered(one.folder, "epoch")[-1])
    paths = numbered(one.folder, "checkpoint")
    per_epoch = len(paths) // EPOCHS
    for number, path in enumerate([None, paths[per_epoch], paths[2 * per_epoch]]):
        other = make_trainer(f"other{number}", **options)
        if path:
            shutil.copy(path, other.folder)
            resume(other)
        scan_memory(other)
        assert other.run() == 0
        assert_same(load_checkpoint(numbered(other.folder, "epoch")[-1]), expected)


def test_other_batches_start_the_epoch_again(make_trainer, caplog, monkeypatch):
    """Scores and keep-set stay; each kept cut comes once in what is then a whole epoch."""
    options = {"policy": "easy2hard", "keep": 0.6}
    one = make_trainer("one", **options)
    one.run()
    states = map(load_checkpoint, numbered(one.folder, "checkpoint"))
    state = next(s for s in states if s["position"]["epoch"] == 2 and s["position"]["batches"] > 1)
    other = make_trainer("other", data__max_duration=9.0, **options)
    torch.save(state, other.folder / f"checkpoint-{state['position']['step']}.pt")
    resume(other)
    pruning = other.data.sampler
    assert other.position.batches == pruning.batches == 0
    assert_same(pruning.state_dict()["plan"], state["pruning"]["plan"])
    calls = recorded(other, monkeypatch)
    train_to_next(other, {"position": {"batches": 0}})
    names = [name for _, training, batch, _ in calls if training for name in batch["cut_ids"]]
    assert len(names) == len({*names}) == pruning.num_cuts
    batches = load_checkpoint(numbered(other.folder, "checkpoint")[-1])["pruning"]["batches"]
    assert batches == sum(training for _, training, *_ in calls)


@pytest.mark.parametrize("start_epoch, cycle, left", [(1, 1, []), (3, 1, [0, 1]), (4, 2, [0, 1])])
def test_records_of_epochs_that_were_given_up_are_set_aside(start_epoch, cycle, left, make_trainer):
    """Of epochs 1 to 4 in cycles from 0 on, of one epoch or two; the last record is of the end."""
    options = {"cycle": cycle, "data__dev": [], "training__checkpoint_interval": 1000}
    trainer = make_trainer(**options)
    resume(trainer)
    assert trainer.run() == 0
    folder = trainer.folder / "pruning"
    whole = list(range(4 // cycle + 1))
    assert list(cycle_files(folder)) == whole
    again = make_trainer(**options)
    resume(again, start_epoch)
    assert list(cycle_files(folder)) == left
    aside = sorted(path.name for path in folder.glob("*.old"))
    assert aside == [f"cycle-{number:03d}.npz.old" for number in whole[len(left) :]]
    assert again.run() == 0
    assert list(cycle_files(folder)) == whole


def test_epochs_are_of_what_is_kept(make_trainer):
    """The schedule advances by the audio of an epoch, however much of it there is."""
    trainer = make_trainer(keep=0.5)
    ends, seconds = [], []
    end = trainer._end_epoch

    def spy(*words):
        ends.append(trainer.elapsed())
        seconds.append(trainer.position.seconds)
        return end(*words)

    trainer._end_epoch = spy
    assert trainer.run() == 0
    assert ends == pytest.approx([1, 2, 3, 4], abs=1e-3)
    assert seconds[1] == pytest.approx(0.5 * seconds[0], rel=0.1)
    assert seconds[3] == pytest.approx(seconds[0])


def test_the_command_trains_with_a_preset(train_command, caplog, capsys):
    words = (
        *("data_pruning=recommended", "data_pruning.time.variant=chunk"),
        *("data_pruning.time.start=0", "data_pruning.time.end=1"),
        *("data_pruning.anneal=0.25", "training.epochs=4"),
    )
    assert train_command(*words) == 0
    lines = (train_command.exp / "log" / "metrics.jsonl").read_text()
    assert lines.count('"kind": "pruning"') == 4
    assert "epoch 2, cycle 1: {'policy': 'infobatch', 'phase': 'pruned'" in caplog.text
    state = train_command.last()
    assert state["config"]["data_pruning"]["time"]["variant"] == "chunk"
    assert state["seen"]["seconds_left"] < 0.9 * state["seen"]["seconds"]
    assert state["seen"]["cuts"] < 4 * 36
    assert train_command(*words, "data_pruning.keep=0.5") == 1
    assert "data_pruning.keep (0.7 -> 0.5)" in capsys.readouterr().err
    assert train_command(*words, "data_pruning.policy=easy3hard") == 1
    assert "choose one of" in capsys.readouterr().err


def test_raw_audio_that_is_not_there_cannot_be_dropped():
    cuts = CutSet.from_cuts([MonoCut("a", 0.0, 2.0, 0)])
    samples = TimeDroppingOptions("chunk", level="samples")
    with pytest.raises(UserError, match="training cut a has no recording. Set .*level=frames"):
        check_has_audio(cuts, samples)
    check_has_audio(cuts, TimeDroppingOptions("chunk"))
    check_has_audio(cuts, TimeDroppingOptions("none", level="samples"))
    cuts[0].recording = dummy_recording(0, duration=2.0)
    check_has_audio(cuts, samples)
