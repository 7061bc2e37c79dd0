"""Where utterances begin and end in their files, whatever the columns are called."""

import json
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.data.importers.time_columns import find_time_columns, words_of
from tests.data.conftest import write_audio

SECONDS = [(0.0, 1.5), (1.5, 3.5), (3.5, 5.5)]  # starts and ends in a file of 6 s
TEXTS = ["what is said first", "and then some more words", "and the end of it all"]


@pytest.fixture(autouse=True)
def audio(importer):
    write_audio("long.wav", 6.0)


def table(names: list[str], rows: list[tuple], suffix: str = "tsv") -> Path:
    """Write a table of the texts with further columns."""
    rows = [("long.wav", text, *row) for text, row in zip(TEXTS, rows, strict=False)]
    names = ["path", "text", *names]
    path = Path(f"train.{suffix}")
    if suffix == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        sep = "," if suffix == "csv" else "\t"
        lines = [sep.join(map(str, row)) for row in (names, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def spans(found: dict[str, dict]) -> list[tuple[float, float]]:
    return [(s["start"], round(s["start"] + s["duration"], 6)) for s in found.values()]


def scaled(factor: float, kind: type = float) -> list[tuple]:
    return [tuple(kind(round(factor * x, 6)) for x in span) for span in SECONDS]


NAMES = [
    *(("start", "end"), ("start", "end_time"), ("start", "stop"), ("start_time", "end_time")),
    *(("Start", "End"), ("START", "STOP"), ("begin", "end"), ("beg", "end"), ("Begin", "Finish")),
    *(("startTime", "endTime"), ("starttime", "stoptime"), ("seg_start", "seg_end")),
    *(("onset", "offset"), ("offset", "end"), ("utterance start", "utterance end")),
    *(("start_s", "end_s"), ("start (s)", "end (s)"), ("Start [sec]", "End [sec]")),
    *(("start_seconds", "end_seconds"), ("StartSec", "EndSec"), ("time_start", "time_end")),
    *(("xmin", "xmax"), ("tmin", "tmax"), ("from", "to"), ("t0", "t1"), ("T1", "T2")),
    *(("audio_start", "audio_end"), ("segment-begin", "segment-end"), ("start_ts", "end_ts")),
    *(("Begin Time - ss.msec", "End Time - ss.msec"),),
]


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_starts_and_ends_of_any_name_are_read(names, importer):
    found = importer("tables", table(list(names), SECONDS))
    assert spans(found) == SECONDS
    assert list(found) == ["long", "long-00001500", "long-00003500"]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_all_kinds_of_tables_say_what_was_read_as_what(suffix, importer, caplog):
    caplog.set_level("INFO")
    found = importer(
        "tables", table(["start", "end_time", "note"], [(*s, 7) for s in SECONDS], suffix)
    )
    assert spans(found) == SECONDS
    assert "train: read 'end_time' as the end in seconds" in caplog.text
    assert "note" not in caplog.text


UNITS = {
    "ms in the names": (["start_ms", "end_ms"], scaled(1000, int)),
    "ms in other names": (["startMs", "stop[ms]"], scaled(1000, int)),
    "ms and a duration": (["start_ms", "duration_ms"], [(0, 1500), (1500, 2000), (3500, 2000)]),
    "samples in the names": (["start_sample", "end_sample"], scaled(16000, int)),
    "samples and their number": (
        ["frame_offset_samples", "num_samples"],
        [(0, 24000), (24000, 32000), (56000, 32000)],
    ),
    "samples of another rate": (
        ["start_sample", "end_sample", "sampling_rate"],
        [(*row, 8000) for row in scaled(8000, int)],
    ),
    "microseconds": (["start_us", "end_us"], scaled(1e6, int)),
    "minutes": (["start_min", "end_min"], [(a / 60, b / 60) for a, b in SECONDS]),
    "units in the values": (["start", "end"], [(f"{a}s", f"{1000 * b:g} ms") for a, b in SECONDS]),
    "clock": (["start", "end"], [(f"00:00:0{a}", f"0:00:0{b}") for a, b in SECONDS]),
    "clock of subtitles": (
        ["start", "end"],
        [tuple(f"00:00:0{x:.3f}".replace(".", ",") for x in span) for span in SECONDS],
    ),
    "twice, in two units": (
        ["start", "end", "start_ms", "end_ms"],
        [(*a, *b) for a, b in zip(SECONDS, scaled(1000, int), strict=True)],
    ),
    "an empty end": (["start", "end"], [(0, 1.5), (1.5, 3.5), (3.5, "")]),
}


@pytest.mark.parametrize("unit", UNITS)
def test_units_that_are_said_are_read(unit, importer):
    names, rows = UNITS[unit]
    expected = SECONDS if unit != "an empty end" else [*SECONDS[:2], (3.5, 6.0)]
    names = [name.replace("frame_offset_samples", "offset_samples") for name in names]
    assert spans(importer("tables", table(names, rows))) == expected


GUESSED = {
    "ms": (["start", "end"], scaled(1000, int)),
    "samples": (["start", "stop"], scaled(16000, int)),
    "ms and durations": (["offset", "duration"], [(0, 1500), (1500, 2000), (3500, 2000)]),
    "ms as text": (["begin", "end"], [(f"{a:.1f}", f"{b:.1f}") for a, b in scaled(1000)]),
    "samples, and the file's seconds": (
        ["duration", "start", "stop"],
        [(6.0, *row) for row in scaled(16000, int)],
    ),
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("case", GUESSED)
def test_a_unit_that_alone_fits_is_read_aloud(case, suffix, importer, caplog):
    names, rows = GUESSED[case]
    assert spans(importer("tables", table(names, rows, suffix))) == SECONDS
    unit = "samples" if "samples" in case else "milliseconds"
    assert f"as the start in {unit}" in caplog.text and "no other unit fits" in caplog.text


def test_durations_of_whole_files_in_milliseconds(importer, caplog):
    path = table(["duration"], [(6000,)])
    assert spans(importer("tables", path)) == [(0.0, 6.0)]
    assert "read 'duration' as the duration in milliseconds" in caplog.text


def test_the_unit_is_that_of_the_table_and_not_of_a_row(importer):
    """The first row alone could be in seconds."""
    rows = [(0, 3), (1500, 3500), (3500, 5500)]
    with pytest.raises(UserError, match="no time in seconds of long.wav, which has 6.000 s"):
        importer("tables", table(["start", "end"], rows[1:] + [(0, 0.25)]))
    rows[0] = (0, 1000)
    assert spans(importer("tables", table(["start", "end"], rows)))[0] == (0.0, 1.0)


UNSURE = {
    "two units": (["start", "duration"], [(100, 2.0), (1600, 2.0), (3200, 2.0)]),
    "feature frames": (["start", "end"], scaled(100, int)),
    "nothing fits": (["start", "end"], [(1e6, 2e6), (2e6, 3e6)]),
}


@pytest.mark.parametrize("case", UNSURE)
def test_a_unit_that_nobody_knows_is_one_message(case, importer):
    names, rows = UNSURE[case]
    message = (
        r"train.tsv, line \d: \S+ in the column '(start|end)' is no time in seconds of long.wav, "
        "which has 6.000 s, .* or say their unit in the columns' names, such as start_ms"
    )
    with pytest.raises(UserError, match=message):
        importer("tables", table(names, rows))


def test_a_row_beyond_its_file_changes_no_unit(importer):
    """It is a mistake of that row, which is left to the checks of stages 1 and 3."""
    found = importer("tables", table(["start", "end"], [*SECONDS[:2], (3.5, 26)]))
    assert spans(found) == [*SECONDS[:2], (3.5, 26.0)]
    with pytest.raises(UserError, match=r"line 4: the utterance starts after .*400 s.*start_ms"):
        importer("tables", table(["start", "end"], [*SECONDS[:2], (400, 402)]))


MISTAKES = {
    "before": (["start", "end"], [(2.0, 1.5)], r"from 2 s to 1.5 s is nothing \(start = 2, end ="),
    "nothing": (["start", "stop"], [(1.0, 1.0)], "from 1 s to 1 s is nothing"),
    "minus": (["start", "end"], [(1.0, -1)], "from 1 s to -1 s is nothing"),
    "no number": (["start", "end_time"], [(0, "late")], "'late' in the column 'end_time' is no"),
    "a comma": (["start", "end"], [(0, "1,5")], "'1,5' in the column 'end' is no number"),
    "minutes or hours": (["start", "end"], [(0, "1:30")], "'1:30' in the column 'end' is no"),
    "true": (["start", "end"], [(0, True)], "True in the column 'end' is no number"),
    "infinite": (["start", "end"], [(0, "inf")], "'inf' in the column 'end' is no number"),
    "disagreement": (
        ["start", "end", "duration"],
        [(0, 1.5, 2.5)],
        "the column 'end' says that 1.5 s are spoken, and the column 'duration' says 2.5 s",
    ),
    "two starts": (
        ["start", "start_ms", "end"],
        [(1.0, 1600, 2.0)],
        "the columns 'start_ms' and 'start' say 1.6 s and 1 s",
    ),
    "offset": (["start", "offset"], [(1.0, 2.0)], "the columns 'start' and 'offset' say 1 s and 2"),
    "frames": (["start_frame", "end_frame"], [(0, 150)], "0 in the column 'start_frame' counts fr"),
    "torchaudio": (["frame_offset", "num_frames"], [(0, 24000)], "'frame_offset' counts frames"),
    "list": (["timestamp"], [([0.0, 1.5],)], r"\[0.0, 1.5\] in the column 'timestamp' seems to"),
    "object": (["segment"], [({"start": 0, "end": 1},)], "in the column 'segment' seems to say"),
    "span": (["start-end"], [("0.5-2.5",)], "'0.5-2.5' in the column 'start-end' seems to say"),
    "languages": (["from", "to"], [("en", "fr")], "'en' in the column 'from' is no number.*ename"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, importer):
    names, rows, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=rf"train.jsonl, line 1: .*{message}") as caught:
        importer("tables", table(names, rows, "jsonl"))
    assert "Write times as numbers of seconds in the columns start and end" in str(caught.value)


HARMLESS = [
    *("is_end", "speaker_end", "start_date", "end_token", "text_length", "length", "len"),
    *("num_samples", "n_frames", "audio_duration", "up_votes", "weekend", "startup", "sample_rate"),
    *("to", "from", "time", "start_char", "stopwords", "index", "min", "legend", "gender", "spend"),
]


@pytest.mark.parametrize("name", HARMLESS)
def test_other_columns_are_passed_over(name, importer):
    for value in ("x", 3):
        assert spans(importer("tables", table([name], [(value,)]))) == [(0.0, 6.0)]


@pytest.mark.parametrize(
    "name, value",
    [("time", "12:30"), ("timestamp", "2024-05-06"), ("segment", "103-1240"), ("time", "3.5")],
)
def test_dates_and_names_are_passed_over(name, value, importer):
    assert spans(importer("tables", table([name], [(value,)]))) == [(0.0, 6.0)]


def test_words_of_a_timestamp_are_passed_over(importer):
    path = table(["start", "end", "timestamps"], [(0, 1.5, [[0, 0.5], [0.5, 1.5]])], "jsonl")
    assert spans(importer("tables", path)) == SECONDS[:1]


def test_an_end_alone_and_a_duration_of_the_file(importer):
    assert spans(importer("tables", table(["end"], [(1.5,)]))) == [(0.0, 1.5)]
    path = table(["start", "end", "duration"], [(*span, 6.0) for span in SECONDS])
    assert spans(importer("tables", path)) == SECONDS
    path = table(["start", "end", "duration"], [(a, b, b - a) for a, b in SECONDS])
    assert spans(importer("tables", path)) == SECONDS


def test_other_columns_may_be_written_in_capitals(importer):
    write_audio("two.wav", 2.0, channels=2)
    Path("train.tsv").write_text("Path\tText\tChannel\tID\ntwo.wav\tone\t1\tx\n")
    [found] = importer("tables", "train.tsv").values()
    assert (found["id"], found["text"], found["channel"]) == ("x", "one", 1)


# --- Kaldi's segments -----------------------------------------------------------------------------


def data_dir(segments: list[tuple]) -> Path:
    folder = Path("data")
    folder.mkdir(exist_ok=True)
    (folder / "wav.scp").write_text("rec long.wav\n")
    (folder / "text").write_text("".join(f"u{n} {text}\n" for n, text in enumerate(TEXTS)))
    lines = [" ".join(map(str, (f"u{n}", "rec", *row))) for n, row in enumerate(segments)]
    (folder / "segments").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("factor, unit", [(1, ""), (1000, "milliseconds"), (16000, "samples")])
def test_segments_of_kaldi_in_other_units(factor, unit, importer, caplog):
    caplog.set_level("INFO")
    assert spans(importer("kaldi", data_dir(scaled(factor)))) == SECONDS
    if unit:
        assert f"read 'end of the segment' as the end in {unit}" in caplog.text
    else:
        assert "read '" not in caplog.text


def test_segments_of_kaldi_that_nobody_understands(importer):
    message = "data/segments, line 2: 350 in the column 'end of the segment' is no .*write seconds"
    with pytest.raises(UserError, match=message):
        importer("kaldi", data_dir(scaled(100, int)))


def test_the_channel_of_a_segment_is_read(importer):
    write_audio("long.wav", 6.0, channels=2)
    found = importer("kaldi", data_dir([(*span, n % 2) for n, span in enumerate(SECONDS)]))
    assert [s["channel"] for s in found.values()] == [0, 1, 0] and spans(found) == SECONDS


def test_words_of_names():
    assert words_of("startTime(ms)") == ["start", "time", "ms"]
    assert words_of("END_TimeMS") == ["end", "time", "ms"]
    [column] = find_time_columns(("path", "durationMs", "n_frames"))
    assert (column.what, column.unit) == ("duration", "milliseconds")
