"""Training on a GPU: losses of a CPU, steps that stay in their pathway, and exact resume."""

import json
import statistics
import time
from types import SimpleNamespace

import pytest
import torch

from asrprune.base.devices import device_of_rank
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import Ranks
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from asrprune.transducer.conformer import conformer
from tests.languages import LANGUAGES, in_languages
from tests.training.command import assert_same
from tests.training.masked_cases import ALONE, SCHEDULE, masked_config, trainer_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
EMFORMER = {
    "model__encoder": "asrprune.transducer.emformer:emformer",
    "model__encoder_options__num_layers": 2,
}
METHODS = {
    "plain": {},
    "gradual": {"method": "gradual", "schedule": SCHEDULE},
    "supernet": {"method": "supernet", "schedule": SCHEDULE},
    "pathways": {"method": "pathways", "schedule": SCHEDULE},
    "sensitivity": {
        "method": "pathways",
        "schedule": SCHEDULE,
        "pathways": {"renewal": "sensitivity"},
    },
}


@pytest.fixture(scope="module")
def corpus(tiny_corpus, tmp_path_factory) -> SimpleNamespace:
    """The tiny corpus as if it were of three languages."""
    return in_languages(tiny_corpus, tmp_path_factory.mktemp("languages"))


@pytest.fixture
def gpu():
    """This GPU, alone on it, with kernels whose bits are always the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        torch.use_deterministic_algorithms(True)
        yield Ranks(0, 1, torch.device("cuda", 0))
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def make(corpus, tmp_path):
    """``make(folder, method, ranks)``: a trainer at its start."""

    def make(folder, method, ranks, **options):
        languages = {
            "data__batches": "monolingual",
            "data__max_duration": 4.0,
            "data__dev": [f"dev-{language}" for language in LANGUAGES],
        }
        more = languages if METHODS[method].get("method") == "pathways" else {}
        config = masked_config(corpus, METHODS[method], **{**more, **options})
        return trainer_of(config, corpus, tmp_path / folder, ranks)

    return make


@pytest.mark.parametrize("encoder", [{}, EMFORMER], ids=["conformer", "emformer"])
def test_losses_and_gradients_are_those_of_a_cpu(encoder, make, gpu):
    # draws differ between devices, and so would gradients
    still = {f"model__encoder_options__{kind}": 0.0 for kind in ("dropout", "attention_dropout")}
    here, there = (
        make(ranks.device.type, "plain", ranks, **{**encoder, **still}) for ranks in (ALONE, gpu)
    )
    there.model.load_state_dict(here.model.state_dict())
    here.data.start_epoch(1)
    for batch in list(here.batches())[:3]:
        found = []
        for trainer in (here, there):
            torch.manual_seed(0)
            trainer.model.zero_grad()
            simple, pruned = trainer.forward(batch)
            (simple + pruned).sum().backward()
            gradients = [p.grad.cpu() for p in trainer.model.parameters() if p.grad is not None]
            found.append([simple.detach().cpu(), pruned.detach().cpu(), *gradients])
        for cpu, other in zip(*found, strict=True):
            scale = float(cpu.abs().max())
            torch.testing.assert_close(other, cpu, rtol=1e-3, atol=1e-4 * scale + 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("encoder", [{}, EMFORMER], ids=["conformer", "emformer"])
def test_resume_is_exact(method, encoder, make, gpu):
    trainer = make("whole", method, gpu, **encoder)
    resume(trainer)
    assert trainer.run() == 0
    last, *earlier = reversed(numbered(trainer.folder, "checkpoint"))
    expected = load_checkpoint(last)
    for path in earlier[:: len(earlier) // 3]:
        part = make(path.stem, method, gpu, **encoder)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), expected)


def test_a_step_moves_its_own_pathway(make, gpu):
    trainer = make("exp", "pathways", gpu)
    trainer.begin()
    trainer.data.start_epoch(1)
    bank, moved = trainer.masking.bank, set()
    for step, batch in enumerate(list(trainer.batches())):
        language, parameters = trainer.data.language(1, step), bank.parameters()
        before = {name: p.detach().clone() for name, p in parameters.items()}
        trainer.step([batch], Meter(trainer.ranks), False)
        for name, kept in bank.masks(language).items():
            changed = parameters[name] != before[name]
            assert changed.is_cuda and not changed[~kept].any()
            if changed.any():
                moved.add(language)
    assert moved == set(LANGUAGES)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_as_float32_does(precision, make, gpu):
    torch.use_deterministic_algorithms(False)
    losses = []
    for kind in ("float32", precision):
        trainer = make(kind, "pathways", gpu, training__precision=kind)
        resume(trainer)
        assert trainer.run() == 0
        lines = (trainer.folder / "log" / "metrics.jsonl").read_text().splitlines()
        read = map(json.loads, lines)
        losses.append([line["loss"] for line in read if line["kind"] == "train"])
    assert len(losses[0]) > 3 and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_new_shape_costs_a_step_no_plan(gpu):
    """cuDNN's attention and depthwise convolution would take ten times as long for each."""
    device_of_rank("cuda", 0)
    torch.use_deterministic_algorithms(False)
    encoder = conformer(80, dim=192, num_layers=4, num_heads=3, ffn_dim=256).to(gpu.device)
    seconds = []
    for frames in (400, 500, 600, 700, 800) * 2:
        x = torch.randn(8, frames + 1, 80, device=gpu.device)
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            h, _ = encoder(x, torch.full((8,), frames + 1, device=gpu.device))
        h.sum().backward()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    new, known = seconds[1:5], seconds[6:]  # not the first of all
    assert statistics.median(new) < 4 * statistics.median(known)
