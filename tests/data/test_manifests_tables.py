"""Tables become manifests: what they say is what lhotse reads, and each mistake has its line."""

import json
import unicodedata
from pathlib import Path

import pytest
from lhotse import RecordingSet, SupervisionSet

from asrprune.base.errors import UserError
from asrprune.data import fbank, tokenizer, validate
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.importers import verb
from tests.conftest import call_verb
from tests.data.conftest import write_audio

HEAD = "id\tpath\ttext\tspeaker\tlanguage\n"
ROWS = "a\twav/a.wav\tone  two\tanna\ten\n\nb\twav/b.flac\t drei\tbert\tde\n"


@pytest.fixture(autouse=True)
def audio(tmp_path, importer):
    """Below ``corpus``: 1 s at 8 kHz, 2 s at 44.1 kHz, 5 s in two channels."""
    write_audio("corpus/wav/a.wav", 1.0, 8000)
    write_audio("corpus/wav/b.flac", 2.0, 44100)
    write_audio("corpus/wav/long.wav", 5.0, channels=2)


def table(content: str | bytes, name: str = "train.tsv") -> Path:
    path = Path("corpus", name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def objects(*rows: dict) -> Path:
    return table("".join(json.dumps(row) + "\n" for row in rows), "train.jsonl")


def test_what_a_table_says_is_what_lhotse_reads(importer):
    importer("tables", table(HEAD + ROWS))
    recordings = RecordingSet.from_file("out/c_recordings_train.jsonl.gz")
    supervisions = SupervisionSet.from_file("out/c_supervisions_train.jsonl.gz")
    assert {r.sampling_rate: r.duration for r in recordings} == {8000: 1.0, 44100: 2.0}
    assert all(r.load_audio().shape == (1, r.num_samples) for r in recordings)
    found = {s.id: (s.text, s.speaker, s.language, s.start, s.duration) for s in supervisions}
    assert found == {
        "a": ("one two", "anna", "en", 0.0, 1.0),
        "b": ("drei", "bert", "de", 0.0, 2.0),
    }
    assert not Path("out/c_left_out_train.tsv").exists()


def test_the_kinds_of_tables_are_equal(importer):
    expected = importer("tables", table(HEAD + ROWS))
    comma = "\ufeffspeaker,language,sentence,ignored,id,audio\r\n"
    comma += 'anna,en,"one  two",x,a,wav/a.wav\r\nbert,de,drei,,b,wav/b.flac\r\n'
    assert importer("tables", table(comma, "train.csv")) == expected
    rows = [
        {"id": "a", "audio_filepath": "wav/a.wav", "text": "one two", "speaker": "anna"},
        {"lang": "de", "speaker": "bert", "text": "drei", "path": "wav/b.flac", "id": "b"},
    ]
    rows[0] |= {"language": "en", "duration": 0.999}  # rounded
    assert importer("tables", objects(*rows)) == expected


def test_paths_are_relative_to_the_table_to_a_folder_or_absolute(importer):
    path = Path("elsewhere.tsv")
    path.write_text(f"path\ttext\nwav/a.wav\tone\n{Path('corpus/wav/b.flac').absolute()}\ttwo\n")
    with pytest.raises(UserError, match=r"elsewhere.tsv, line 2: the file does not exist \(wav/a"):
        importer("tables", path)
    found = importer("tables", path, "--audio-dir", "corpus")
    assert [entry["text"] for entry in found.values()] == ["one", "two"]
    assert found["wav-a"]["audio"]["sources"][0]["source"] == "corpus/wav/a.wav"


def folders(*names: str) -> list[str]:
    """Hugging Face's audio folders, each with files and texts of its own; the words for them."""
    for number, name in enumerate(names):
        for index in range(2):
            write_audio(f"{name}/{index:04d}.wav", 1.0 + number + 0.1 * index)
        rows = "".join(f"{index:04d}.wav,{name} {index}\n" for index in range(2))
        Path(name, "metadata.csv").write_text("file_name,transcription\n" + rows)
    return [f"{name}={name}/metadata.csv" for name in names]


def ids_of(split: str) -> dict[str, str]:
    supervisions = SupervisionSet.from_file(f"out/c_supervisions_{split}.jsonl.gz")
    return {s.id: s.recording_id for s in supervisions}


def several(*words: str) -> None:
    call_verb(verb, "--from", "tables", *words, "--corpus", "c", "--out-dir", "out", "--jobs", "1")


def test_files_of_one_name_in_two_folders_are_all_trained_on():
    several(*folders("train", "test"))
    assert ids_of("train") == {"0000": "train/0000.wav", "0001": "train/0001.wav"}
    assert ids_of("test") == {"test-0000": "test/0000.wav", "test-0001": "test/0001.wav"}
    for split in ("train", "test"):
        compute_split(FbankOptions("c", Path("out"), Path("fbank")), split)
    words = ("--manifest-dir", "fbank", "--out-dir", "valid", "--train", "train", "--eval", "test")
    call_verb(validate, "--corpus", "c", *words, "--jobs", "1")
    assert Path("valid/c_rejected.tsv").read_text().count("\n") == 1
    assert json.loads(Path("valid/c_statistics.json").read_text())["train"]["cuts"] == 2


def test_one_file_in_two_tables_keeps_its_id():
    """So that stage 3 holds it out: by its name, by a link or as a copy."""
    words = folders("train", "test")
    Path("test/0000.wav").unlink()
    Path("test/0000.wav").symlink_to("../train/0000.wav")
    Path("test/0001.wav").write_bytes(Path("train/0001.wav").read_bytes())
    several(*words)
    assert list(ids_of("test")) == list(ids_of("train")) == ["0000", "0001"]
    several("train=train/metadata.csv", "dev=train/metadata.csv")
    assert ids_of("dev") == ids_of("train")


def test_an_id_that_two_tables_give_to_two_files_is_one_message():
    words = folders("train", "test")
    for name in ("train", "test"):
        rows = "".join(f"{index},{index:04d}.wav,x\n" for index in range(2))
        Path(name, "metadata.csv").write_text("id,file_name,text\n" + rows)
    message = (
        "test/metadata.csv, line 2: the id '0' is that of another file in train: here "
        r"test/0000.wav, there train/0000.wav \(train/metadata.csv, line 2\). Give every"
    )
    with pytest.raises(UserError, match=message):
        several(*words)


def test_segments_of_a_long_file(importer):
    path = table(
        "path\ttext\tstart\tduration\tchannel\n"
        "wav/long.wav\tone\t0\t1.5\t\nwav/long.wav\ttwo\t1.5\t2\t1\nwav/long.wav\tthree\t3.5\t\t0\n"
    )
    found = importer("tables", path)
    assert {key: (s["start"], s["duration"], s["channel"]) for key, s in found.items()} == {
        "wav-long": (0.0, 1.5, 0),
        "wav-long-00001500": (1.5, 2.0, 1),
        "wav-long-00003500": (3.5, 1.5, 0),
    }
    assert len({s["recording_id"] for s in found.values()}) == 1
    compute_split(FbankOptions("c", Path("out"), Path("fbank")), "train")
    cuts = [json.loads(line) for line in fbank.read_lines("fbank/c_cuts_train.jsonl.gz", "")]
    assert [cut["features"]["num_frames"] for cut in cuts] == [150, 200, 150]


def test_8_khz_audio_becomes_features_of_16_khz(importer):
    importer("tables", table(HEAD + ROWS))
    compute_split(FbankOptions("c", Path("out"), Path("fbank"), speed_perturb=True), "train")
    cuts = [json.loads(line) for line in fbank.read_lines("fbank/c_cuts_train.jsonl.gz", "")]
    assert len(cuts) == 6
    assert {cut["features"]["sampling_rate"] for cut in cuts} == {16000}
    assert {cut["features"]["num_features"] for cut in cuts} == {80}


def test_texts_become_nfc_and_scripts_keep_their_letters(importer):
    texts = ["cafe\u0301 \u1112\u1161\u11ab", "我們 不會", "ไทย\u00a0ภาษา"]
    rows = [{"path": "wav/a.wav", "id": str(k), "text": text} for k, text in enumerate(texts)]
    found = importer("tables", objects(*rows))
    assert [entry["text"] for entry in found.values()] == ["café 한", "我們 不會", "ไทย ภาษา"]
    assert all(unicodedata.is_normalized("NFC", entry["text"]) for entry in found.values())


def test_a_script_without_spaces_goes_the_whole_way_to_its_characters(importer):
    rows = [
        {"path": "wav/a.wav", "id": "a", "text": "我們不會"},
        {"path": "wav/b.flac", "text": "會か\u3099"},
    ]
    importer("tables", objects(*rows))
    compute_split(FbankOptions("c", Path("out"), Path("fbank")), "train")
    folders = ("--manifest-dir", "fbank", "--out-dir", "valid")
    call_verb(validate, "--corpus", "c", *folders, "--train", "train", "--jobs", "1")
    valid = "valid/c_cuts_train.jsonl.gz"
    call_verb(tokenizer, "--manifest", valid, "--type", "char", "--out-dir", "lang")
    symbols = [line.split()[0] for line in Path("lang/tokens.txt").read_text().splitlines()]
    assert symbols[4:] == sorted("我們不會が")
    known = tokenizer.load_tokenizer("lang")
    assert known.decode(known.encode("會か\u3099我")) == "會が我"


def test_several_channels_are_said_aloud(importer, caplog):
    importer("tables", objects({"path": "wav/long.wav", "text": "one"}))
    assert "1 files have several channels; the first is taken" in caplog.text


def test_a_hundredfold_table_in_two_processes_is_the_same(importer, monkeypatch):
    from asrprune.data.importers import split

    monkeypatch.setattr(split, "PART", 10)
    for number in range(60):
        Path(f"corpus/wav/{number:02d}.wav").symlink_to("a.wav")
    lines = [f"wav/{number:02d}.wav\tword\n" for number in range(60)]
    path = table("path\ttext\n" + "".join(lines))
    one = importer("tables", path)
    assert list(one) == [f"wav-{number:02d}" for number in range(60)]
    assert importer("tables", path, "--jobs", "2") == one


EMPTY = HEAD + ROWS + "c\twav/a.wav\t \tanna\ten\nd\twav/a.wav\t\tanna\ten\n"


def test_empty_texts_are_left_out_and_listed(importer, caplog):
    assert list(importer("tables", table(EMPTY))) == ["a", "b"]
    assert "train: 2 of 4 utterances left out (empty-text: 2)" in caplog.text
    head, *rows = Path("out/c_left_out_train.tsv").read_text().splitlines()
    assert head == "utterance\twhere\treason\tdetail"
    assert rows[0] == "c\tcorpus/train.tsv, line 5\tempty-text\tno word"
    with pytest.raises(UserError, match=r"line 5: c has no text; 2 of 4 .* --empty-text skip"):
        importer("tables", table(EMPTY), "--empty-text", "error")


def test_what_was_left_out_once_is_forgotten(importer):
    importer("tables", table(EMPTY))
    importer("tables", table(HEAD + ROWS))
    assert not Path("out/c_left_out_train.tsv").exists()


def test_bad_audio_is_an_error_or_left_out(importer):
    Path("corpus/wav/noise.wav").write_bytes(b"RIFF, or what?")
    Path("corpus/wav/empty.wav").write_bytes(b"")
    rows = "".join(
        f"{name}\twav/{name}.wav\tone\tanna\ten\n" for name in ("gone", "noise", "empty")
    )
    path = table(HEAD + ROWS + rows)
    message = r"line 5: the file does not exist \(corpus/wav/gone.wav\); so it is with 3 of 5 .*"
    with pytest.raises(UserError, match=message + "missing-audio: 1.*--bad-audio skip"):
        importer("tables", path)
    assert list(importer("tables", path, "--bad-audio", "skip")) == ["a", "b"]
    listed = Path("out/c_left_out_train.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[2] for row in listed] == ["missing-audio", "not-audio", "empty-file"]


def test_nothing_is_left(importer):
    with pytest.raises(UserError, match=r"train: no utterance is left of 1 \(empty-text: 1\)"):
        importer("tables", objects({"path": "wav/a.wav", "text": ""}))
    with pytest.raises(UserError, match="train: no utterance is left$"):
        importer("tables", table(HEAD))


def test_a_failed_run_leaves_no_manifest(importer):
    with pytest.raises(UserError):
        importer("tables", table(HEAD + ROWS + "a\twav/a.wav\tone\tanna\ten\n"))
    assert not list(Path("out").iterdir())


def test_a_long_recording_must_say_where_its_utterances_are(importer):
    row = {"path": "wav/long.wav", "text": "one"}
    message = r"line 1: wav-long is one utterance of 5 s, and 4 s are the most .*start and end"
    with pytest.raises(UserError, match=message + ".*--longest"):
        importer("tables", objects(row), "--longest", "4")
    assert importer("tables", objects(row), "--longest", "5")
    rows = [{**row, "start": start, "duration": 2} for start in (0, 2)]
    assert len(importer("tables", objects(*rows), "--longest", "4")) == 2


def test_utterances_too_long_to_train_on_say_the_option(importer):
    row = {"path": "wav/long.wav", "text": "one"}
    importer("tables", objects(row, {"path": "wav/a.wav", "text": "one"}))
    compute_split(FbankOptions("c", Path("out"), Path("fbank")), "train")
    words = ("--corpus", "c", "--manifest-dir", "fbank", "--out-dir", "valid", "--train", "train")
    with pytest.raises(UserError, match="too-long: 1.*--max-seconds"):
        call_verb(validate, *words, "--jobs", "1", "--max-seconds", "4")


MISTAKES = {
    "no path": ("text\tpth\nx\ty\n", r"train.tsv: there is no column 'path' \(or audio.*text, pth"),
    "no text": ("path\twords\nx\ty\n", r"no column 'text' .*; there are: path, words"),
    "fields": (HEAD + "a\twav/a.wav\n", "line 2: 2 fields, where the header has 5"),
    "twice": (
        HEAD + ROWS + "a\twav/a.wav\tx\ty\tz\n",
        "line 5: the id 'a' is that of .*line 2 too",
    ),
    "space": (HEAD + "a b\twav/a.wav\tx\ty\tz\n", "line 2: the id 'a b' holds a space"),
    "latin": (
        HEAD.encode() + b"a\twav/a.wav\tcaf\xe9\t\t\n",
        r"line 2 is not UTF-8\. .*iconv -f CP1252 ",
    ),
    "column": ("path\ttext\tpath\n", "two columns are called 'path'"),
    "start": ("path\ttext\tstart\nwav/a.wav\tx\tzero\n", "line 2: 'zero' in the column 'start' is"),
    "minus": ("path\ttext\tstart\nwav/a.wav\tx\t-1\n", "line 2: -1 s is no start"),
    "none": ("path\ttext\tduration\nwav/a.wav\tx\t0\n", "line 2: 0 s is no duration"),
    "late": ("path\ttext\tstart\nwav/a.wav\tx\t1\n", "line 2: the utterance starts after the end"),
    "nan": ("path\ttext\tduration\nwav/a.wav\tx\tnan\n", "line 2: 'nan' in the column 'duration'"),
    "channel": ("path\ttext\tchannel\nwav/a.wav\tx\t1\n", "line 2: the file has no such channel"),
    "half": ("path\ttext\tchannel\nwav/a.wav\tx\t.5\n", "line 2: 0.5 is no channel"),
    "pathless": ("path\ttext\n\tx\n", "line 2: there is no path in the column 'path'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, importer):
    content, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        importer("tables", table(content))


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"path": "wav/a.wav"', "line 2: no JSON"),
        ('["wav/a.wav", "one"]', "line 2: no JSON object"),
        ('{"path": "wav/a.wav"}', "line 2: there is no column 'text'"),
        ('{"path": null, "text": "x"}', "line 2: there is no path"),
        ('{"path": "wav/a.wav", "text": 7}', "line 2: 7 in the column 'text' is no text"),
    ],
)
def test_a_mistake_in_json_is_one_message(line, message, importer):
    with pytest.raises(UserError, match=message):
        importer(
            "tables", table('{"path": "wav/a.wav", "text": "x"}\n' + line + "\n", "train.jsonl")
        )


def quoted(*texts: str, name: str = "train.csv", last: bool = True) -> Path:
    """A table of texts as they are, which are the last column or the second one."""
    sep = "," if name.endswith(".csv") else "\t"
    columns = ("id", "path", "text") if last else ("id", "text", "path")
    rows = [
        (f"u{n}", "wav/a.wav", text) if last else (f"u{n}", text, "wav/a.wav")
        for n, text in enumerate(texts, 1)
    ]
    return table("\n".join(sep.join(row) for row in (columns, *rows)) + "\n", name)


LONE = {  # texts of a CSV file and the line of the mistake
    "at the start, and one at the end later": (["one", '"two', "three", 'four"', "five"], 3),
    "at the start alone": (["one", '"two', "three"], 3),
    "in the last row": (["one", "two", '"three'], 4),
    "alone in a field": (["one", '"', "three", '"'], 3),
    "doubled and not closed": (["one", '"""two""', "three"], 3),
    "a sentence of two lines": (["one", '"two\nand more"', "three"], 3),
    "with other words behind": (["one", '"two" and', "three"], 3),
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("lone", LONE)
def test_a_quote_swallows_no_rows(lone, last, importer):
    texts, line = LONE[lone]
    path = quoted(*texts, last=last)
    with pytest.raises(UserError, match=f"train.csv, line {line}: a quotation mark .* as TSV"):
        importer("tables", path)
    assert not Path("out/c_supervisions_train.jsonl.gz").exists()


@pytest.mark.parametrize("last", [True, False])
def test_quotes_of_csv_that_mean_something(last, importer):
    path = quoted('"one, two"', '"say ""yes"""', 'five" nails', 'end"', '""', "six", last=last)
    found = importer("tables", path)
    assert {key: s["text"] for key, s in found.items()} == {
        "u1": "one, two",
        "u2": 'say "yes"',
        "u3": 'five" nails',
        "u4": 'end"',
        "u6": "six",
    }
    assert "u5\t" in Path("out/c_left_out_train.tsv").read_text()  # empty


@pytest.mark.parametrize("last", [True, False])
def test_quotes_of_tsv_are_characters(last, importer):
    texts = ['"one', 'two"', '"three"', '""four""', '"', 'fi"ve', '"six']
    found = importer("tables", quoted(*texts, name="train.tsv", last=last))
    assert [s["text"] for s in found.values()] == texts


def test_other_fields_that_span_lines(importer):
    for name, sep in (("train.csv", ","), ("train.tsv", "\t")):
        rows = [["path", "text"], ["wav/a.wav", "one\rtwo"]]
        path = table("\r\n".join(sep.join(row) for row in rows) + "\r\n", name)
        with pytest.raises(UserError, match=f"{name}, line 2 holds a carriage return inside"):
            importer("tables", path)
    path = table('path\ttext\nwav/a.wav\t"one\ntwo"\n', "train.tsv")
    with pytest.raises(UserError, match="train.tsv, line 3: 1 fields, where the header has 2"):
        importer("tables", path)
    with pytest.raises(UserError, match="train.csv, line 1: a quotation mark opens a field"):
        importer("tables", table('path,"te\nxt"\nwav/a.wav,one\n', "train.csv"))
    path = table('{"path": "wav/a.wav", "text": "one\ntwo"}\n', "train.jsonl")
    with pytest.raises(UserError, match="train.jsonl, line 1: no JSON"):
        importer("tables", path)


@pytest.mark.parametrize(
    "word, message",
    [
        ("train=corpus/none.tsv", "corpus/none.tsv does not exist"),
        ("train=corpus/wav/a.wav", "a.wav is no table: its name should end in .tsv"),
        ("corpus/train.tsv", "'corpus/train.tsv' is no SPLIT=PATH"),
        ("../train=corpus/train.tsv", "is no SPLIT=PATH"),
    ],
)
def test_a_path_or_split_that_is_none(word, message, tmp_path):
    options = ("--corpus", "c", "--out-dir", tmp_path / "out")
    with pytest.raises(UserError, match=message):
        call_verb(verb, "--from", "tables", word, *options)
    with pytest.raises(UserError, match="train comes twice, as a.tsv and as b.tsv"):
        call_verb(verb, "--from", "tables", "train=a.tsv", "train=b.tsv", *options)
