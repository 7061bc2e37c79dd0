"""The rehearsal in many languages is a pure function of its options, complete, and CommonVoice."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")
pytest.importorskip("num2words")

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_random
from asrprune.rehearsal import commonvoice as rehearsing
from asrprune.rehearsal import commonvoice_layout as commonvoice
from asrprune.rehearsal import rehearse as rehearsal
from asrprune.rehearsal.espeak import Espeak, Voice
from asrprune.rehearsal.phrases import LANGUAGES
from asrprune.rehearsal.room_acoustics import Acoustics
from asrprune.rehearsal.text import TEXTS

HOURS = 0.02  # two batches of English, one of anything else
HEAD = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\t"
    "accents\tvariant\tlocale\tsegment"
)


def files(corpus: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in corpus.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two languages, written undisturbed by two processes."""
    out_dir = tmp_path_factory.mktemp("rehearsal")
    rehearsing.rehearse_commonvoice(out_dir, HOURS, seed=0, jobs=2, languages=["en", "nl"])
    return out_dir / commonvoice.RELEASE


@pytest.fixture(scope="module")
def espeak():
    with Espeak() as running:
        yield running


def command(out_dir: Path) -> list[str]:
    verb = [sys.executable, "-m", "asrprune.cli", "rehearse", "--layout", "commonvoice"]
    words = ["--train-hours", str(HOURS), "--jobs", "1", "--languages", "nl", "en"]
    return [*verb, "--out-dir", str(out_dir), *words]


def test_killed_and_resumed_by_one_process_gives_the_same_bytes(corpus, tmp_path):
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE)
    seen = b""
    while not re.search(rb" [1-9]\d*/", seen):  # the progress bar: a batch is done
        byte = process.stderr.read(1)
        assert byte, seen
        seen += byte
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = tmp_path / commonvoice.RELEASE
    kept = {path: content for path, content in files(killed).items() if ".tmp-" not in path}
    assert not commonvoice.is_finished(killed / "nl")
    assert any(path.endswith(".mp3") for path in kept)
    (killed / "nl" / "clips" / ".tmp-elsewhere-1-common_voice_nl_1.mp3").write_bytes(b"half")
    subprocess.run(command(tmp_path), check=True, stderr=subprocess.DEVNULL)
    resumed = files(killed)
    assert resumed == files(corpus)
    assert kept.items() <= resumed.items()


def test_a_clip_that_is_missing_is_made_again(corpus, tmp_path):
    rehearsing.rehearse_commonvoice(tmp_path, HOURS, seed=0, jobs=1, languages=["nl"])
    nl = tmp_path / commonvoice.RELEASE / "nl"
    before = files(nl)
    assert before == files(corpus / "nl")  # without English beside it
    min((nl / "clips").iterdir()).unlink()
    rehearsing.rehearse_commonvoice(tmp_path, HOURS, seed=0, jobs=1, languages=["nl"])
    assert files(nl) == before


def test_a_finished_corpus_is_left_alone_and_never_mixed(corpus):
    before = files(corpus)
    out_dir, languages = corpus.parent, ["en"]
    rehearsing.rehearse_commonvoice(out_dir, HOURS, seed=0, jobs=1, languages=languages)
    with pytest.raises(UserError, match=r"rehearsal/en holds.*seed is 0 there and 1 here"):
        rehearsing.rehearse_commonvoice(out_dir, HOURS, seed=1, jobs=1, languages=languages)
    with pytest.raises(UserError, match="text is None there and numbers here"):
        rehearsing.rehearse_commonvoice(
            out_dir, HOURS, seed=0, jobs=1, languages=languages, text="numbers"
        )
    assert files(corpus) == before


def test_a_real_corpus_is_never_touched(tmp_path):
    (tmp_path / commonvoice.RELEASE / "fr" / "clips").mkdir(parents=True)
    with pytest.raises(UserError, match="no rehearsal corpus"):
        rehearsing.rehearse_commonvoice(tmp_path, HOURS, seed=0, jobs=1, languages=["fr"])


def test_unknown_languages_and_layouts_without_languages(tmp_path):
    words = ["--out-dir", str(tmp_path), "--languages"]
    for layout, language, message in (
        ("commonvoice", "xx", "no rehearsal in 'xx'.*there are: en fr it nl"),
        ("librispeech", "fr", "--languages: the layout librispeech has but one"),
        (
            "commonvoice",
            "fr --text digits",
            "--text digits: there is no such text .* fr",
        ),
    ):
        parser = Parser()
        rehearsal.add_arguments(parser)
        with pytest.raises(UserError, match=message):
            rehearsal.main(parser.parse_args(["--layout", layout, *words, *language.split()]))
    assert not list(tmp_path.iterdir())


def test_tables_clips_and_durations_agree(corpus):
    for language in ("en", "nl"):
        folder = corpus / language
        durations = dict(
            line.split("\t") for line in (folder / "clip_durations.tsv").read_text().splitlines()
        )
        assert durations.pop("clip") == "duration[ms]"
        rows = {}
        for split in commonvoice.SPLITS:
            head, *rows[split] = (folder / f"{split}.tsv").read_text().splitlines()
            assert head == HEAD
        head, *validated = (folder / "validated.tsv").read_text().splitlines()
        assert head == HEAD and validated == [row for own in rows.values() for row in own]
        table = [dict(zip(HEAD.split("\t"), row.split("\t"), strict=True)) for row in validated]
        assert {row["path"] for row in table} == {path.name for path in folder.glob("clips/*")}
        assert {row["path"] for row in table} == set(durations)
        for row in table:
            info = soundfile.info(folder / "clips" / row["path"])
            assert (info.samplerate, info.channels, info.format) == (32000, 1, "MP3")
            assert 1.0 <= info.duration <= 10.0
            assert abs(1000 * info.duration - int(durations[row["path"]])) <= 1
            assert row["locale"] == language and re.fullmatch("[0-9a-f]{128}", row["client_id"])
            assert re.match("[A-ZÉ']", row["sentence"]) or row["sentence"].startswith("\u2019")
        speakers = {split: {row.split("\t")[0] for row in own} for split, own in rows.items()}
        assert sum(map(len, speakers.values())) == len(set().union(*speakers.values()))
    assert len(list(corpus.glob("en/clips/*"))) > len(list(corpus.glob("nl/clips/*")))


def test_what_is_decoded_is_what_was_said(corpus, espeak):
    """Of a clip alone, said after others, or in another corpus."""
    for batch in commonvoice.batches("train", rehearsing.num_batches(HOURS))[::-1]:
        spoken = rehearsing.speak_batch(espeak, "en", 0, batch, "sentences", Acoustics())
        for name, (_, samples) in zip(batch.names("en"), spoken, strict=True):
            there, _ = soundfile.read(corpus / "en" / "clips" / name, dtype="int16")
            assert len(there) == len(samples)  # no delay of the encoder is left in it
            assert np.corrcoef(there, samples)[0, 1] > 0.95


def test_larger_corpora_contain_smaller_ones():
    small, large = (commonvoice.batches("train", count) for count in (10, 1000))
    assert large[:10] == small
    assert len({name for batch in large for name in batch.names("it")}) == 8000
    assert len({batch.table for batch in large}) == 1000


def test_languages_have_their_own_speakers_and_sizes(espeak):
    sizes = [language.size for language in LANGUAGES.values()]
    assert len(sizes) >= 4 and sizes == sorted(sizes, reverse=True) and sizes[-1] <= 0.25
    batch = commonvoice.batches("test", 1)[0]
    voices = {code: rehearsing.speaker_of(code, 0, batch).voice for code in LANGUAGES}
    assert len({(voice.rate, voice.pitch) for voice in voices.values()}) == len(LANGUAGES)
    accents = [accent for language in LANGUAGES.values() for accent in language.accents]
    assert len({espeak.speak("water, a lot", Voice(name)).tobytes() for name in accents}) == len(
        accents
    )


LETTERS = {
    "en": "a-z",
    "fr": "a-zàâçèéêëîïôœùûü",
    "it": "a-zàèéìíòù",
    "nl": "a-zéèëïöü",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text, most", [("sentences", 1500), ("numbers", 120)])
def test_every_sentence_is_spelt_in_the_words_of_its_language(language, text, most):
    assert set(LANGUAGES[language].texts) <= set(TEXTS)
    words = set()
    for number in range(1500):
        sentence = LANGUAGES[language].texts[text](keyed_random(language, number))
        assert re.fullmatch(rf"['{LETTERS[language]} ,.!?-]+", sentence.lower()), sentence
        assert re.search("[.!?]$", sentence)
        words |= set(re.findall(rf"[{LETTERS[language]}']+", sentence.lower()))
    assert 25 < len(words) < most


def test_sentences_are_printed_as_people_print_them():
    assert rehearsing.typewritten("'s avonds is l'eau froide.") == "'S avonds is l'eau froide."
    assert rehearsing.typewritten("één.") == "Één."
    assert rehearsing.typographic("zo'n tafel.") == "Zo\u2019n tafel."
