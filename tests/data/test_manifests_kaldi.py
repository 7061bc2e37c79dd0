"""Kaldi's data directories become manifests; their commands are not run."""

from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from tests.data.conftest import write_audio

FILES = {
    "wav.scp": "rec1 wav/1.wav\nrec2 wav/2.wav\n",
    "text": "rec1 ONE  TWO\nrec2 ZWEI\n",
    "utt2spk": "rec1 anna\nrec2 bert\n",
    "utt2lang": "rec1 en\nrec2 de\n",
}
SEGMENTS = {
    "text": "u1 ONE\nu2 TWO\nu3 THREE\n",
    "utt2spk": "u1 anna\nu2 anna\nu3 bert\n",
    "utt2lang": "",
    "segments": "u1 rec1 0 0.5\nu2 rec1 0.5 1.0\nu3 rec2 1.5 -1\n",
}


@pytest.fixture(autouse=True)
def audio(importer):
    write_audio("corpus/wav/1.wav", 1.0, 8000)
    write_audio("corpus/wav/2.wav", 2.0)


def data_dir(**changes: str) -> Path:
    folder = Path("corpus/data/train")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **{k.replace("_", "."): v for k, v in changes.items()}}.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_whole_recordings(importer):
    found = importer("kaldi", data_dir())
    assert {key: (s["text"], s["speaker"], s["language"]) for key, s in found.items()} == {
        "rec1": ("ONE TWO", "anna", "en"),
        "rec2": ("ZWEI", "bert", "de"),
    }
    assert [s["audio"]["sampling_rate"] for s in found.values()] == [8000, 16000]


@pytest.mark.parametrize("files, count", [(FILES, 2), (SEGMENTS, 3)])
def test_a_byte_order_mark_is_no_part_of_an_id(files, count, importer):
    expected = importer("kaldi", data_dir(**files))
    marked = {name: "\ufeff" + content for name, content in {**FILES, **files}.items()}
    assert importer("kaldi", data_dir(**marked)) == expected
    assert len(expected) == count


def test_segments(importer):
    found = importer("kaldi", data_dir(**SEGMENTS))
    assert {key: (s["text"], s["start"], s["duration"]) for key, s in found.items()} == {
        "u1": ("ONE", 0.0, 0.5),
        "u2": ("TWO", 0.5, 0.5),
        "u3": ("THREE", 1.5, 0.5),
    }
    assert len({s["recording_id"] for s in found.values()}) == 2


def test_only_text_and_wav_scp_are_needed(importer):
    folder = data_dir()
    for name in ("utt2spk", "utt2lang"):
        (folder / name).unlink()
    assert [s.get("speaker") for s in importer("kaldi", folder).values()] == [None, None]
    (folder / "text").unlink()
    with pytest.raises(UserError, match="train/text does not exist; a data directory"):
        importer("kaldi", folder)


@pytest.mark.parametrize("place", ["here", "beside", "given", "absolute"])
def test_where_relative_paths_begin(place, importer, monkeypatch):
    folder, words = data_dir(), ()
    if place == "here":
        folder = folder.absolute()
        monkeypatch.chdir("corpus")
    elif place == "beside":
        Path("corpus/wav").rename(folder / "wav")
    elif place == "given":
        Path("corpus").rename("moved")
        (Path("elsewhere")).mkdir()
        folder = Path("moved/data/train").rename("elsewhere/train")
        words = ("--audio-dir", "moved")
    else:
        lines = (
            (folder / "wav.scp").read_text().replace(" wav", f" {Path('corpus/wav').absolute()}")
        )
        (folder / "wav.scp").write_text(lines)
    assert list(importer("kaldi", folder, *words)) == ["rec1", "rec2"]


def test_paths_that_lead_nowhere(importer):
    with pytest.raises(UserError, match="names wav/none.wav, which is neither here.*--audio-dir"):
        importer("kaldi", data_dir(wav_scp="rec1 wav/none.wav\nrec2 wav/2.wav\n"))
    with pytest.raises(
        UserError, match=r"text, line 2: the file does not exist \(.*corpus/wav/none"
    ):
        importer("kaldi", data_dir(wav_scp="rec1 wav/1.wav\nrec2 wav/none.wav\n"))


@pytest.mark.parametrize("command", ["touch ran; cat wav/2.wav |", "| touch ran"])
def test_commands_are_refused_and_not_run(command, importer):
    message = r"wav.scp, line 2: .* is a command, and commands in files are not run here. Run it"
    with pytest.raises(UserError, match=message):
        importer("kaldi", data_dir(wav_scp=f"rec1 wav/1.wav\nrec2 {command}\n"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("path", ["raw.ark:17", "/x/raw.ark"])
def test_archives_are_refused(path, importer):
    with pytest.raises(UserError, match=r"wav.scp, line 2: .* is an archive of Kaldi's"):
        importer("kaldi", data_dir(wav_scp=f"rec1 wav/1.wav\nrec2 {path}\n"))


MISTAKES = {
    "no recording": ({"text": "rec3 X\n"}, "text, line 1: the recording rec3 is not in .*wav.scp"),
    "no segment": ({**SEGMENTS, "segments": "u1 rec1 0 1\n"}, "line 2: u2 is not in .*segments"),
    "words": ({**SEGMENTS, "segments": "u1 rec1 0\n"}, "segments, line 1: expected an utterance"),
    "times": ({**SEGMENTS, "segments": "u1 rec1 a b\n"}, "segments, line 1: expected an utterance"),
    "order": (
        {**SEGMENTS, "text": "u1 A\n", "segments": "u1 rec1 .9 .5\n"},
        "segments, line 1: from 0.9 s to 0.5 s is nothing .*write seconds",
    ),
    "channel": (
        {**SEGMENTS, "text": "u1 A\n", "segments": "u1 rec1 0 1 A\n"},
        "text, line 1: 'A' in the column 'channel' is no number",
    ),
    "twice": ({"text": "rec1 A\nrec1 B\n"}, "text, line 2: rec1 is on line 1 too: here 'B', th"),
    "two files": (
        {"wav_scp": "rec1 wav/1.wav\nrec1 wav/2.wav\n"},
        "wav.scp, line 2: rec1 is on line 1 too: here 'wav/2.wav', there 'wav/1.wav'",
    ),
    "lone": ({"wav_scp": "rec1\n"}, "wav.scp, line 1: nothing but rec1"),
    "empty": ({"wav_scp": "\n"}, "wav.scp is empty"),
    "latin": ({"text": b"rec1 caf\xe9\n"}, "text, line 1 is not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, importer):
    changes, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        importer("kaldi", data_dir(**changes))


def test_a_folder_that_is_none(importer):
    with pytest.raises(UserError, match="corpus/data is no folder, such as"):
        importer("kaldi", "corpus/data")


@pytest.mark.parametrize("segments", [True, False])
def test_utterances_without_a_line_in_text_are_left_out_aloud(segments, importer, caplog):
    """Even if their audio is not there; what has none of text's lines is listed after it."""
    name = "segments" if segments else "wav.scp"
    changes = {**SEGMENTS, "text": "u1 ONE\n"} if segments else {"text": "rec1 ONE\n"}
    folder = data_dir(**changes)
    (folder / "wav.scp").write_text("rec1 wav/1.wav\nrec2 wav/none.wav\n")
    lost = ["u2", "u3"] if segments else ["rec2"]
    found = importer("kaldi", folder)
    assert [entry["text"] for entry in found.values()] == ["ONE"]
    count = f"{len(lost)} of {len(lost) + 1} utterances left out (empty-text: {len(lost)})"
    assert count in caplog.text
    assert Path("out/c_left_out_train.tsv").read_text().splitlines()[1:] == [
        f"{ident}\t{folder}/{name}, line {line}\tempty-text\tno line in {folder}/text"
        for line, ident in enumerate(lost, 2)
    ]
    with pytest.raises(UserError, match=f"{name}, line 2: {lost[0]} has no text"):
        importer("kaldi", folder, "--empty-text", "error")


def test_empty_texts_and_long_recordings(importer):
    assert list(importer("kaldi", data_dir(text="rec1\nrec2 ZWEI\n"))) == ["rec2"]
    with pytest.raises(UserError, match="rec2 is one utterance of 2 s.*write a file segments"):
        importer("kaldi", data_dir(), "--longest", "1.5")
