"""Some genuine utterances of LibriSpeech through ``run.sh``, from manifests to a trained epoch.

They lie in ``$ASRPRUNE_LIBRISPEECH``, the folder that holds train-clean-100, if anywhere.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPLIT = "train-clean-100"
CORPUS = Path(
    os.environ.get("ASRPRUNE_LIBRISPEECH", ROOT.parent / "shared" / "data" / "LibriSpeech")
)
UTTERANCES = 5


def link_shortest(corpus: Path, count: int) -> None:
    """Make a corpus of the ``count`` smallest files of one chapter."""
    table = min(CORPUS.glob(f"{SPLIT}/*/*/*.trans.txt"))
    lines = dict(line.split(" ", 1) for line in table.read_text().splitlines())
    audio = sorted(table.parent.glob("*.flac"), key=lambda path: path.stat().st_size)[:count]
    chapter = corpus / SPLIT / table.parent.parent.name / table.parent.name
    chapter.mkdir(parents=True)
    for path in audio:
        (chapter / path.name).symlink_to(path.resolve())
    (chapter / table.name).write_text("".join(f"{p.stem} {lines[p.stem]}\n" for p in audio))


@pytest.mark.skipif(not (CORPUS / SPLIT).is_dir(), reason="LibriSpeech is not here")
def test_genuine_files_train(tmp_path):
    link_shortest(tmp_path / "download" / "LibriSpeech", UTTERANCES)
    folders = [("--download-dir", "download"), ("--data-dir", "data"), ("--exp-dir", "exp")]
    command = [ROOT / "egs" / "librispeech" / "ASR" / "run.sh", "--stage", "manifests"]
    command += ["--stop-stage", "train", "--config", "conf/rehearsal.yaml", "--jobs", "1"]
    command += ["--train-splits", SPLIT, "--dev-splits", SPLIT, "--test-splits", SPLIT]
    command += ["--speed-perturb", "false", "--token-type", "char", "--epochs", "1"]
    command += [word for option, name in folders for word in (option, str(tmp_path / name))]
    done = subprocess.run(
        [*command, "model.encoder_options.num_layers=1"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"data: {UTTERANCES} cuts" in done.stderr
    assert "epoch 1 of 1, step " in done.stderr and "trained 1 epochs" in done.stderr
    assert (tmp_path / "exp" / "epoch-1.pt").is_file()
