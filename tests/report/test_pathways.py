"""The report on a pathways model: its numbers counted again, equal files, and what is refused."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment

from asrprune import cli
from asrprune.base.files import read_json, write_json
from asrprune.report.pathways.renewals import read_renewals
from asrprune.scoring.files import write_recogs
from asrprune.scoring.wer import Utterance
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.transducer.model import build_model
from tests.conftest import tiny_config

SPARSITIES = {"cy": 0.6, "en": 0.3, "fr": 0.5}  # in the order of the report
LINES = [
    {"kind": "pathway-en", "step": 1, "density": 0.9, "changed": 1.0, "union": 0.9},
    {"kind": "train", "step": 1, "loss": 2.5},
    {"kind": "pathway-fr", "step": 2, "density": 0.9, "changed": 0.4, "union": 0.95},  # taken over
    {"kind": "dev", "step": 3, "loss": float("nan")},
    {"kind": "pathway-en", "step": 5, "density": 0.8, "changed": 0.25, "union": 0.92},
    {"kind": "pathway-en", "step": 9, "density": 0.7, "changed": 0.15, "union": 0.8},
]
FILES = ["pathways-training.png", "pathways.json", "pathways.md", "pathways.png"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    """A model with a mask for each language, untrained, and its bank; masks of unlike weights."""
    pruning = {"method": "pathways", "block": "8x1", "schedule": {"final": 0.6}}
    options = {"weight_pruning": pruning, "data__batches": "monolingual", "data__noise__cuts": ""}
    config = tiny_config(SimpleNamespace(noise=""), **options)
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, 9)
    bank = make_bank(model, config.weight_pruning)
    for language, sparsity in reversed(SPARSITIES.items()):
        with torch.no_grad():
            for parameter in bank.parameters().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        bank.refresh()
        bank.name(language, sparsity)
    path = tmp_path_factory.mktemp("trained") / "averaged.pt"
    about = {"config": asdict(config), "vocab_size": 9, "tokenizer_digest": "0", "symbols": []}
    masks = {"sparsity": 0.6, "bank": bank.state_dict(), "steps": dict.fromkeys(SPARSITIES, 9)}
    save_checkpoint({"model": model.state_dict(), **about, "masks": masks}, path)
    return SimpleNamespace(path=path, model=model, bank=bank)


@pytest.fixture
def exp(trained, tmp_path) -> Path:
    """The folder of a training that nothing has been decoded of."""
    folder = tmp_path / "exp"
    (folder / "log").mkdir(parents=True)
    (folder / "averaged.pt").write_bytes(trained.path.read_bytes())
    write_json(folder / "averaged.json", {"epoch": 2, "avg": 1, "use_averaged_model": True})
    write_metrics(folder, LINES)
    return folder


def write_metrics(folder: Path, lines: list[dict]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log" / "metrics.jsonl").write_text(text)


def decoded(exp: Path, name: str, languages: str, suffix="epoch-2-avg-1", wrong=2) -> Path:
    """Write a set's cuts and its results: 4 words each, up to so many of them wrong.

    Returns the manifest folder.
    """
    cuts, utterances = [], []
    for number, language in enumerate(languages.split()):
        cut_id, errors = f"{name}-{number}", number % (wrong + 1)
        spoken = SupervisionSegment(cut_id, cut_id, 0, 1.0, language=language)
        cuts.append(MonoCut(cut_id, 0, 1.0, 0, [spoken]))
        ref = ["A", "B", "C", "D"]
        utterances.append(Utterance(cut_id, ref, ref[: 4 - errors] + ["X"] * errors))
    folder = exp.parent / "valid"
    folder.mkdir(exist_ok=True)
    CutSet.from_cuts(cuts).to_file(folder / f"tones_cuts_{name}.jsonl.gz")
    method = "modified_beam_search" if "beam" in suffix else "greedy_search"
    write_recogs(exp / method / f"recogs-{name}-{suffix}.txt", utterances)
    return folder


def report(*words, code=0):
    assert cli.main(["report", "pathways", *map(str, words)]) == code


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("pathways*"))}


def test_numbers_are_those_counted_again(trained, exp, capsys):
    report(exp)
    record, bank = read_json(exp / "pathways.json"), trained.bank
    assert list(record["languages"]) == list(SPARSITIES)
    masks = {
        language: np.concatenate([mask.numpy().ravel() for mask in bank.masks(language).values()])
        for language in SPARSITIES
    }
    rest = sum(p.numel() for p in trained.model.parameters()) - len(masks["en"])
    blocks = [len(kept) for kept in bank.blocks("en").values()]
    described = {
        **{language: record["languages"][language] for language in SPARSITIES},
        "union": record["union"],
        "shared": record["shared"],
    }
    masks["union"] = masks["en"] | masks["fr"] | masks["cy"]
    masks["shared"] = masks["en"] & masks["fr"] & masks["cy"]
    for name, one in described.items():
        assert one["density"] == masks[name].mean()
        assert one["parameters"] == rest + masks[name].sum()
        if name != "shared":
            count = sum(-(-number // 8) for number in blocks)
            assert one["mask_bytes"] == count * (3 if name == "union" else 1)
    for row, a in enumerate(SPARSITIES):
        for column, b in enumerate(SPARSITIES):
            jaccard = (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum()
            assert record["overlap"]["jaccard"][row][column] == pytest.approx(jaccard, abs=1e-15)
    union = record["union"]
    densities = [masks[language].mean() for language in SPARSITIES]
    assert union["equal"] == max(densities)
    assert union["independent"] == pytest.approx(1 - np.prod(1 - np.array(densities)))
    assert sum(layer["union"] * layer["weights"] for layer in record["layers"]) == pytest.approx(
        masks["union"].sum()
    )
    assert {k: [line["step"] for line in v] for k, v in record["renewals"].items()} == {
        "en": [1, 5, 9],
        "fr": [2],
        "cy": [],
    }
    text = (exp / "pathways.md").read_text()
    assert "WER" not in text and record["scores"] == []
    assert "| en | 3 | 1 to 9 | 0.900 to 0.700 | 0.200 | 0.150 |" in text
    assert "| fr | 1 | 2 | 0.900 | 0.400 | 0.400 |" in text
    assert "| cy | 0 | – | – | – | – |" in text
    assert text in capsys.readouterr().out


def test_error_rates_are_those_of_the_score_stage(exp):
    for language in SPARSITIES:
        manifests = decoded(exp, f"test-{language}", f"{language} " * 7, "epoch-2-avg-1-streaming")
    decoded(exp, "test-fr", "fr " * 7, "epoch-2-avg-1-beam_4", wrong=1)
    for other in ("epoch-1-avg-1", "epoch-2-avg-10", "epoch-2-avg-1-last_steps", "model_averaged"):
        decoded(exp, "test-en", "en " * 7, other, wrong=4)  # of other models
    report(exp, "--manifest-dir", manifests)
    scores = read_json(exp / "pathways.json")["scores"]
    for path in (exp / "greedy_search").iterdir():
        if not path.name.endswith("avg-1-streaming.txt"):
            path.unlink()
    for method, count in (("greedy_search", 3), ("modified_beam_search", 1)):
        sets = [f"test-{language}" for language in (SPARSITIES if count == 3 else ["fr"])]
        told = ["score", "--exp-dir", exp, "--decoding-method", method, "--test-sets", *sets]
        assert cli.main(list(map(str, told))) == 0
        stage = {row["file"]: row for row in read_json(exp / f"results-{method}.json").values()}
        ours = {row["file"]: row for row in scores if row["method"] == method}
        assert ours.keys() == stage.keys() and len(ours) == count
        for file, row in ours.items():
            assert (row["WER"], row["CER"]) == (stage[file]["WER"], stage[file]["CER"])
            assert row["set"] == f"test-{row['language']}"
    text = (exp / "pathways.md").read_text()
    assert "| language | WER greedy_search streaming | WER modified_beam_search beam_4 |" in text
    assert re.search(r"\| en \| 21\.43 \[[\d.]+, [\d.]+\] \| – \|", text)  # 6 of 28


def test_sets_of_several_languages_are_parted(exp):
    manifests = decoded(exp, "a", "en fr en cy fr en en")
    decoded(exp, "b", "fr fr cy")
    report(exp, "--manifest-dir", manifests)
    counts = {
        (row["set"], row["language"]): (row["WER"]["counts"]["substitutions"], row["utterances"])
        for row in read_json(exp / "pathways.json")["scores"]
    }
    # cut n of a set has n modulo 3 errors
    assert counts == {
        **{("a", "en"): (0 + 2 + 2 + 0, 4), ("a", "fr"): (1 + 1, 2), ("a", "cy"): (0, 1)},
        **{("b", "fr"): (0 + 1, 2), ("b", "cy"): (2, 1)},
    }
    assert re.search(r"\| fr \| a: 25\.00 \[.*\]; b: 12\.50 \[", (exp / "pathways.md").read_text())


def test_equal_inputs_give_equal_files(exp, tmp_path):
    manifests = decoded(exp, "test", "en fr en cy")
    report(exp, "--manifest-dir", manifests)
    first = written(exp)
    report(exp, "--manifest-dir", manifests, "--out-dir", tmp_path / "again")
    assert list(first) == FILES and written(tmp_path / "again") == first
    assert all(first[name].startswith(b"\x89PNG") for name in FILES if name.endswith("png"))
    write_metrics(exp, LINES[:-1])
    report(exp, "--manifest-dir", manifests)
    changed = [name for name in FILES if written(exp)[name] != first[name]]
    assert changed == ["pathways-training.png", "pathways.json", "pathways.md"]


def test_without_renewals_and_without_manifests(exp, caplog):
    """Of a training that took its masks over, whose results are there."""
    decoded(exp, "test", "en fr")
    write_metrics(exp, [LINES[1]])
    report(exp)
    assert "give --manifest-dir" in caplog.text
    text = (exp / "pathways.md").read_text()
    assert "The training renewed no mask." in text and "WER" not in text
    assert list(written(exp)) == FILES


def test_half_a_last_line_is_passed_over(exp):
    path = exp / "log" / "metrics.jsonl"
    whole = read_renewals(path, list(SPARSITIES))
    path.write_text(path.read_text() + '{"kind": "pathway-fr", "st')
    assert read_renewals(path, list(SPARSITIES)) == whole
    assert whole["en"][1] == {"step": 5, "density": 0.8, "changed": 0.25, "union": 0.92}


def no_model(exp):
    (exp / "averaged.pt").unlink()


def damaged_model(exp):
    (exp / "averaged.pt").write_bytes((exp / "averaged.pt").read_bytes()[:-900])


def damaged_masks(exp):
    content = load_checkpoint(exp / "averaged.pt")
    named = content["masks"]["bank"]["named"]
    named["fr"] = named["fr"][:-1]
    save_checkpoint(content, exp / "averaged.pt")


def other_method(exp):
    content = load_checkpoint(exp / "averaged.pt")
    content["config"]["weight_pruning"]["method"] = "supernet"
    save_checkpoint(content, exp / "averaged.pt")


def no_masks(exp):
    content = load_checkpoint(exp / "averaged.pt")
    del content["masks"]
    save_checkpoint(content, exp / "averaged.pt")


def no_metrics(exp):
    (exp / "log" / "metrics.jsonl").unlink()


def damaged_metrics(exp):
    path = exp / "log" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"changed": 0.25', '"changed": 0.2.5'))


def wanting_metrics(exp):
    write_metrics(exp, [*LINES, {"kind": "pathway-en", "step": 11, "density": 0.7, "union": 0.8}])


def nan_metrics(exp):
    write_metrics(exp, [*LINES, {**LINES[0], "changed": float("nan")}])


def binary_metrics(exp):
    (exp / "log" / "metrics.jsonl").write_bytes(b"\xff\xfe\n")


def other_metrics(exp):
    write_metrics(exp, [*LINES, {**LINES[0], "kind": "pathway-de"}])


def no_manifest(exp):
    decoded(exp, "test", "en fr")
    (exp.parent / "valid" / "tones_cuts_test.jsonl.gz").unlink()


def other_manifest(exp):
    for name in ("test", "more"):
        folder = decoded(exp, name, "en fr")
    (folder / "tones_cuts_more.jsonl.gz").replace(folder / "tones_cuts_test.jsonl.gz")
    (exp / "greedy_search" / "recogs-more-epoch-2-avg-1.txt").unlink()


def other_language(exp):
    decoded(exp, "test", "en de")


def damaged_results(exp):
    decoded(exp, "test", "en fr")
    path = exp / "greedy_search" / "recogs-test-epoch-2-avg-1.txt"
    path.write_text(path.read_text()[:-5])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (no_model, r"averaged.pt does not exist; the average stage \(6\) makes it"),
        (damaged_model, r"averaged.pt is damaged.*the average stage \(6\) makes it anew"),
        (damaged_masks, r"averaged.pt: the saved masks are damaged: mask 'fr' .*stage \(6\)"),
        (other_method, r"averaged.pt has no pathways \(weight_pruning.method=supernet\): give a"),
        (no_masks, r"averaged.pt has no pathways \(.*, without masks\): give a training with"),
        (no_metrics, "log/metrics.jsonl does not exist; give the folder of the training"),
        (damaged_metrics, "metrics.jsonl, line 5, is damaged; give the folder of the training"),
        (wanting_metrics, "metrics.jsonl, line 7, is damaged"),
        (nan_metrics, "metrics.jsonl, line 7, is damaged"),
        (binary_metrics, "metrics.jsonl is damaged: it is no UTF-8 text"),
        (
            other_metrics,
            "line 7, is of another training .* no pathway for 'de', but for cy, en, fr",
        ),
        (no_manifest, r"tones_cuts_test.jsonl.gz does not exist; the validate stage \(3\)"),
        (other_manifest, "recogs-test-.*does not say in which language test-0 is; give the --mani"),
        (other_language, r"recogs-test-.*test-1: there is no pathway for language 'de'.*\(8\)"),
        (damaged_results, r"recogs-test-.* is cut off in its last line; decode again \(stage 8\)"),
    ],
)
def test_what_is_refused(spoil, message, exp, capsys):
    """By one message; and nothing is written."""
    spoil(exp)
    report(exp, "--manifest-dir", exp.parent / "valid", code=1)
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert not written(exp)
