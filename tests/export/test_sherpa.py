"""What sherpa-onnx hears with exported networks is what our own decoder hears."""

import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.bench.export import own_text
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.language_classifier import (
    LanguageClassifier,
    choose,
    load_classifier,
    save_classifier,
)
from asrprune.export import listen
from asrprune.export.by_language import RecogniserByLanguage
from asrprune.export.in_turn import texts_path
from asrprune.export.sherpa import Recogniser, read_summary
from asrprune.export.source import open_source
from asrprune.scoring.files import read_recogs
from asrprune.scoring.wer import total, word_errors


def run(*words):
    return cli.main([str(word) for word in words])


def export(trained, *words):
    """All networks that are asked for; the folder of them."""
    folder = trained.model.with_name("onnx")
    common = ("--model", trained.model, "--lang-dir", trained.corpus.lang)
    assert run("export", *common, *words) == 0
    return folder


@pytest.fixture(scope="module")
def network(streaming):
    """A folder with the networks of the Emformer."""
    return export(streaming) / "whole"


def bench(trained, networks, capsys):
    """Decode the dev set with networks that were exported; the rows of the table."""
    corpus, folder = trained.corpus, trained.model.with_name("onnx")
    common = ("--onnx-dir", folder, "--lang-dir", corpus.lang, "--networks", *networks)
    manifests = ("--manifest-dir", corpus.manifests, "--test-set", "dev")
    capsys.readouterr()
    assert run("bench", "export", *manifests, *common) == 0
    shown = capsys.readouterr().out
    assert shown == (folder / "dev.md").read_text() and shown.count("\n") == 2 + 3 * len(networks)
    rows = read_json(folder / "dev.json")
    for row in rows:
        texts = read_recogs(texts_path(folder, "dev", row["network"], row["runs"]))
        assert len(texts) == row["utterances"] and total(word_errors(texts)).rate == row["wer"][0]
    return rows


def check(rows, networks):
    """The promises: the same text for 99 %, WER within 0.1 (float32) and within 0.5 (int8)."""
    assert [row["network"] for row in rows] == [name for name in networks for _ in range(3)]
    for ours, float32, int8 in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert [row["runs"] for row in (ours, float32, int8)] == ["ours", "float32", "int8"]
        assert ours["utterances"] == 150 and ours["wer"][0] < 0.5  # it says something
        assert float32["as_ours"] >= 0.99
        assert abs(float32["wer"][0] - ours["wer"][0]) <= 0.001
        assert abs(int8["wer"][0] - ours["wer"][0]) <= 0.005
        assert int8["bytes"] < float32["bytes"]
        assert float32["utterances"] == int8["utterances"] == 150  # in turn, and none left out
        assert "milliseconds" not in ours and "bytes" not in ours
        assert float32["milliseconds"] > 0 and int8["milliseconds"] > 0


def files_of(folder, name, int8):
    """Bytes on disk of the files that a runtime loads."""
    kind = ".int8" if int8 else ""
    files = f"encoder{kind}.onnx", "decoder.onnx", f"joiner{kind}.onnx"
    return sum((folder / name / file).stat().st_size for file in files)


def check_ratios(rows, folder):
    """Bytes are those on disk; ratios are to the network "whole" of the same type."""
    wholes = {row["runs"]: row for row in rows if row["network"] == "whole"}
    for row in rows:
        if row["runs"] != "ours":
            whole, int8 = wholes[row["runs"]], row["runs"] == "int8"
            assert row["bytes"] == files_of(folder, row["network"], int8)
            assert row["bytes_of_whole"] == row["bytes"] / files_of(folder, "whole", int8)
            assert row["time_of_whole"] == row["milliseconds"] / whole["milliseconds"]


def test_a_whole_utterance(offline, capsys):
    folder = export(offline, "--networks", "whole", "0.5")
    assert Recogniser(folder / "whole").recognise(np.zeros(0)).text == ""
    rows = bench(offline, ("whole", "0.5"), capsys)
    check(rows, ("whole", "0.5"))
    assert rows[0]["sparsity"] == 0 and 0.45 < rows[3]["sparsity"] < 0.55
    assert rows[0]["wer"] != rows[3]["wer"]  # two networks, not one
    check_ratios(rows, folder)
    assert {row.get("per") for row in rows} == {None, "second of speech"}
    shown = (folder / "dev.md").read_text()
    assert "| ms a second of speech |" in shown and f"| {rows[4]['time_of_whole']:.2f} |" in shown
    assert rows[4]["compressed_bytes"] < rows[1]["compressed_bytes"]
    assert rows[4]["bytes"] == rows[1]["bytes"]  # zeros take as much room as other numbers
    assert all(row["first_symbol"] is row["delay"] is None for row in rows)


def test_a_stream(streaming, network, capsys):
    rows = bench(streaming, ("whole",), capsys)
    check(rows, ("whole",))
    for row in rows[1:]:
        # a segment of 160 ms is waited for, and 40 ms after it; the first tone is at 0.1 s
        assert 0.2 < row["first_symbol"] < 0.8
        assert 0.04 < row["delay"] < 0.3
        assert row["per"] == "chunk" and row["time_of_whole"] == 1
    assert "| ms a chunk |" in (network.parent / "dev.md").read_text()


def test_a_stream_without_our_decoder(streaming, network, tmp_path):
    """The runtime's texts are those of a run with our own decoder."""
    folder = shutil.copytree(network.parent, tmp_path / "onnx")
    words = ("--manifest-dir", streaming.corpus.manifests, "--lang-dir", streaming.corpus.lang)
    words = ("--onnx-dir", folder, *words, "--test-set", "dev", "--utterances", "5")
    assert run("bench", "export", *words) == 0
    _, *with_ours = read_json(folder / "dev.json")
    assert run("bench", "export", *words, "--ours", "false") == 0
    rows = read_json(folder / "dev.json")
    assert [row["runs"] for row in rows] == ["float32", "int8"]
    assert [row["wer"] for row in rows] == [row["wer"] for row in with_ours]
    assert all(row["as_ours"] is None for row in rows)


@pytest.mark.parametrize("unit", ["layer", "head"])
def test_a_stream_with_fewer_units(unit, streaming, tmp_path):
    """sherpa-onnx holds the smaller state too: it writes the texts of our decoder."""
    corpus = streaming.corpus
    words = ("--networks", "0.5", f"weight_pruning.unit={unit}")
    common = ("--lang-dir", corpus.lang)
    assert run("export", "--model", streaming.model, "--out-dir", tmp_path, *common, *words) == 0
    manifests = ("--manifest-dir", corpus.manifests, "--test-set", "dev")
    networks = ("--networks", "0.5")
    assert run("bench", "export", "--onnx-dir", tmp_path, *manifests, *common, *networks) == 0
    ours, float32, int8 = read_json(tmp_path / "dev.json")
    assert float32["as_ours"] >= 0.99
    assert abs(float32["wer"][0] - ours["wer"][0]) <= 0.001
    assert int8["bytes"] < float32["bytes"]


def test_listening_to_files(streaming, network, capsys, tmp_path):
    """Any rate, one line a file, the same text as by the decoder."""
    source = open_source(streaming.model, [])
    tokenizer = load_tokenizer(streaming.corpus.lang)
    cuts = open_dev(streaming)
    files, texts = [], []
    for cut in cuts:
        files.append(tmp_path / f"{cut.id}.wav")
        cut.save_audio(files[-1])
        texts.append(own_text(source.model, tokenizer, cut, True, Recogniser(network).tail).text)
    twice = cuts[0].resample(32000)
    files.append(tmp_path / "twice.wav")
    twice.save_audio(files[-1])
    capsys.readouterr()
    assert run("listen", "--network", network, *files) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == [str(path) for path in files]
    assert [text for _, text in lines[:-1]] == texts and len(set(texts)) > 3
    assert lines[-1][1]


def open_dev(trained, count=6):
    from asrprune.data.batches import open_cuts

    return open_cuts(trained.corpus.manifests, "tones", "dev").to_eager().subset(first=count)


def test_what_is_heard_grows(streaming, network):
    """Partial results come while the speaker speaks; the last one is the whole."""
    recogniser = Recogniser(network)
    cut = max(open_dev(streaming, 50), key=lambda cut: cut.duration)
    samples = cut.load_audio()[0]
    texts = list(recogniser.live(np.array_split(samples, 20), 16000))
    assert texts[-1] == recogniser.recognise(samples).text
    assert len(texts) > 2 and len(set(texts)) == len(texts)
    lengths = [len(text) for text in texts]
    assert lengths == sorted(lengths)
    heard = recogniser.listen(samples)
    assert heard.text == texts[-1]
    # segments of 160 ms, of which the last one needs 40 ms more than it has
    spoken = len(samples) / 16000 + recogniser.tail
    assert spoken / 0.16 - 2 < len(heard.chunks) <= spoken / 0.16
    assert 0 < sum(heard.chunks) <= heard.cpu
    assert len(heard.delays) >= len(texts[-1].split())
    assert heard.first < len(samples) / 16000 + recogniser.tail


@pytest.mark.parametrize(
    "words, message",
    [
        (("{network}", "{folder}/no.wav"), "no.wav cannot be read as audio"),
        (("{network}", "{folder}/export.json"), "export.json cannot be read as audio"),
        (("{folder}/half",), "half is no exported network; .*export.json knows whole"),
        (("{folder}",), "export.json does not exist: .* holds no exported networks"),
    ],
)
def test_nothing_to_hear(words, message, network, capsys):
    names = {"network": network, "folder": network.parent}
    assert run("listen", "--network", *(word.format(**names) for word in words)) == 1
    assert re.search(message, capsys.readouterr().err)


def test_no_int8_files(network, tmp_path):
    """A folder of networks may be moved, and may be without them."""
    files = {f"{part}.onnx": {} for part in ("encoder", "decoder", "joiner")}
    whole = {"streaming": True, "tail": 0.8, "files": files}
    write_json(tmp_path / "export.json", {"networks": {"whole": whole}})
    with pytest.raises(UserError, match="whole has no int8 files; export with --int8 true"):
        Recogniser(tmp_path / "whole", int8=True)
    with pytest.raises(UserError, match="encoder.onnx does not exist; the export stage"):
        Recogniser(tmp_path / "whole")
    shutil.copytree(network, tmp_path / "whole")
    assert Recogniser(tmp_path / "whole").streaming


def test_without_a_microphone(network, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run("listen", "--network", network) == 1
    assert "the microphone needs sounddevice: pip install" in capsys.readouterr().err


def test_a_microphone(streaming, network, capsys, monkeypatch):
    """A stand-in for it says an utterance; then comes Ctrl-C."""
    samples = open_dev(streaming)[0].load_audio()[0]
    pieces = [piece.astype(np.float32) for piece in np.array_split(samples, 10)]

    class Stream:
        def __init__(self, rate, size, *, channels, dtype, callback):
            assert (rate, size, channels, dtype) == (16000, 1600, 1, "float32")
            for piece in pieces:
                callback(piece[:, None], len(piece), None, None)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Pieces(listen.queue.Queue):
        def get(self, timeout):
            if self.qsize() == 3:  # three are still to be taken
                signal.raise_signal(signal.SIGINT)
            return super().get(timeout=timeout)

    stand_in = type("sounddevice", (), {"InputStream": Stream, "PortAudioError": OSError})
    monkeypatch.setitem(sys.modules, "sounddevice", stand_in)
    monkeypatch.setattr(listen.queue, "Queue", Pieces)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert run("listen", "--network", network) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out.strip() == Recogniser(network).recognise(samples).text


def test_another_model_is_not_compared(streaming, network, tmp_path, capsys):
    shutil.copytree(network.parent, tmp_path / "onnx")
    about = read_json(tmp_path / "onnx" / "export.json")
    write_json(tmp_path / "onnx" / "export.json", {**about, "model_digest": "of another one"})
    corpus = streaming.corpus
    words = ("--manifest-dir", corpus.manifests, "--lang-dir", corpus.lang, "--test-set", "dev")
    assert run("bench", "export", "--onnx-dir", tmp_path / "onnx", *words) == 1
    assert "is another model by now than the one whose networks are in" in capsys.readouterr().err


def test_what_was_exported_is_told(network):
    about = read_summary(network.parent)
    assert list(about["networks"]) == ["whole"] and about["networks"]["whole"]["streaming"]
    assert about["networks"]["whole"]["tail"] == pytest.approx(0.6 + 0.2)  # of a segment
    for name, file in about["networks"]["whole"]["files"].items():
        assert (network / name).stat().st_size == file["bytes"] > file["compressed_bytes"]


# --- languages chosen by the audio ----------------------------------------------------------------


@pytest.fixture
def languages(network, tmp_path):
    """The folder of networks in two languages, and the words for a classifier of random weights."""
    folder, about = tmp_path / "onnx", read_summary(network.parent)
    for language in ("en", "fr"):
        shutil.copytree(network, folder / language)
        about["networks"][language] = {**about["networks"]["whole"], "choice": language}
    write_json(folder / "export.json", about)
    torch.manual_seed(0)
    path = tmp_path / "languages.pt"
    save_classifier(LanguageClassifier(["cy", "en", "fr"], 80), path, {})
    return folder, path


def test_listening_in_chosen_languages(languages, streaming, capsys, caplog, tmp_path):
    """The classifier hears the features of the first seconds, whatever the rate of the file."""
    folder, path = languages
    cuts, files = open_dev(streaming), []
    classifier = load_classifier(path, ["en", "fr"], 80)
    with torch.no_grad():  # so that each language is chosen sometimes
        x = [torch.from_numpy(cut.load_features())[:50] for cut in cuts]
        logits = torch.cat([classifier(one[None], torch.tensor([len(one)])) for one in x])
        classifier.output.bias -= logits.mean(0)
        expected = choose(logits - logits.mean(0), classifier.languages, ["en", "fr"])
    save_classifier(classifier, path, {})
    for cut in cuts:
        files.append(tmp_path / f"{cut.id}.wav")
        cut.save_audio(files[-1])
    caplog.set_level("INFO")
    words = ("--network", folder, "--language-classifier", path, "--language-seconds", "0.5")
    capsys.readouterr()
    assert run("listen", *words, *files) == 0
    out = capsys.readouterr().out
    assert [m for m in caplog.messages if ".wav: " in m] == [
        f"{file}: {language}" for file, language in zip(files, expected, strict=True)
    ]
    assert run("listen", "--network", folder / "fr", *files) == 0  # the same weights in both
    assert capsys.readouterr().out == out
    chooser = RecogniserByLanguage(folder, path, 0.5)
    assert chooser.languages == ["en", "fr"]
    assert chooser.recogniser("en") is chooser.recogniser("en")
    twice = [chooser.language_of(cut.resample(32000).load_audio()[0], 32000) for cut in cuts]
    assert sum(a == b for a, b in zip(twice, expected, strict=True)) >= len(cuts) - 1
    assert chooser.language_of(np.zeros(0, np.float32), 8000) in ("en", "fr")


def test_no_language_can_be_chosen(languages, network, capsys, tmp_path):
    folder, path = languages
    words = ("listen", "--network", folder, "--language-classifier", path)
    assert run(*words) == 1
    assert "the language of a microphone cannot be chosen" in capsys.readouterr().err
    words = (*words[:-1], tmp_path / "none.pt", tmp_path / "a.wav")
    assert run(*words) == 1
    assert (
        "--language-classifier " in (told := capsys.readouterr().err) and "does not exist" in told
    )
    save_classifier(LanguageClassifier(["cy", "fr"], 80), path, {})
    assert run(*words[:-2], path, tmp_path / "a.wav") == 1
    assert "know en" in (told := capsys.readouterr().err)
    assert "or leave --language-classifier out" in told
    words = ("listen", "--network", network.parent, "--language-classifier", path, "a.wav")
    assert run(*words) == 1
    assert "it has no networks of languages, only whole" in capsys.readouterr().err
