"""The rehearsal corpus is a pure function of its options, complete, and LibriSpeech to lhotse."""

import argparse
import re
import resource
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")
pytest.importorskip("num2words")

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_random
from asrprune.rehearsal import librispeech_layout as librispeech
from asrprune.rehearsal import rehearse as rehearsal
from asrprune.rehearsal.espeak import Espeak, Voice
from asrprune.rehearsal.text import TEXTS, transcript
from asrprune.rehearsal.units import acoustics_of
from asrprune.rehearsal.voices import ENGLISH_ACCENTS, VARIANTS, english_speaker

HOURS = 0.02  # one or two chapters of training speech, one of each other split


def files(corpus: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in corpus.rglob("*")
        if path.is_file()
    }


def command(out_dir: Path, *options: str) -> list[str]:
    verb = [sys.executable, "-m", "asrprune.cli", "rehearse", "--layout", "librispeech"]
    return [*verb, "--out-dir", str(out_dir), "--train-hours", str(HOURS), *options]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A tiny corpus, written undisturbed by two processes."""
    out_dir = tmp_path_factory.mktemp("rehearsal")
    rehearsal.rehearse_librispeech(out_dir, HOURS, seed=0, jobs=2)
    return out_dir / "LibriSpeech"


@pytest.fixture(scope="module")
def espeak():
    with Espeak() as running:
        yield running


def test_killed_and_resumed_by_one_process_gives_the_same_bytes(corpus, tmp_path):
    process = subprocess.Popen(command(tmp_path, "--jobs", "1"), stderr=subprocess.PIPE)
    seen = b""
    while not re.search(rb" [1-9]\d*/", seen):  # the progress bar: a chapter is done
        byte = process.stderr.read(1)
        assert byte, seen
        seen += byte
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = tmp_path / "LibriSpeech"
    kept = {path: content for path, content in files(killed).items() if ".tmp-" not in path}
    assert not librispeech.is_finished(killed)
    assert any(path.endswith(".flac") for path in kept)
    (killed / "dev-clean" / "5001" / ".tmp-1-50010000").mkdir(parents=True, exist_ok=True)

    subprocess.run(command(tmp_path, "--jobs", "1"), check=True, stderr=subprocess.DEVNULL)
    resumed = files(killed)
    assert resumed == files(corpus)
    assert kept.items() <= resumed.items()
    assert not list(killed.rglob(".tmp-*"))


def test_a_finished_corpus_is_left_alone_and_never_mixed(corpus):
    before = files(corpus)
    rehearsal.rehearse_librispeech(corpus.parent, HOURS, seed=0, jobs=1)
    with pytest.raises(UserError, match=r"seed is 0 there and 1 here.*--out-dir"):
        rehearsal.rehearse_librispeech(corpus.parent, HOURS, seed=1, jobs=1)
    with pytest.raises(UserError, match=r"train_hours is 0.02 there and 3 here"):
        rehearsal.rehearse_librispeech(corpus.parent, 3, seed=0, jobs=1)
    with pytest.raises(UserError, match=r"text is None there and numbers here"):
        rehearsal.rehearse_librispeech(corpus.parent, HOURS, seed=0, jobs=1, text="numbers")
    with pytest.raises(UserError, match=r"snr_db is None there and \[0.0, 5.0\] here"):
        rehearsal.rehearse_librispeech(corpus.parent, HOURS, seed=0, jobs=1, snr_db=(0.0, 5.0))
    assert files(corpus) == before


@pytest.mark.parametrize("group", ["dev", "test"])
def test_more_hours_of_another_set_change_nothing_else(corpus, tmp_path, group):
    rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=2, **{f"{group}_hours": 0.03})
    larger, smaller = files(tmp_path / "LibriSpeech"), files(corpus)
    audio = {path for path in smaller if path.endswith(".flac")}
    assert all(larger[path] == smaller[path] for path in audio)
    more = {path for path in larger if path.endswith(".flac")} - audio
    assert len(more) == librispeech.UTTERANCES_PER_CHAPTER
    assert all(path.startswith(f"{group}-clean/") for path in more)
    with pytest.raises(UserError, match=f"{group}_hours is 0.03 there and None here"):
        rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=1)


def test_few_utterances_of_each_speaker_give_many_speakers(corpus, tmp_path, espeak):
    options = {"dev_hours": 0.01, "test_hours": 0.01, "utterances_per_speaker": 2}
    rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=2, **options)
    made = tmp_path / "LibriSpeech"
    for split, speakers in {"train-clean-100": 6, "dev-clean": 3, "test-clean": 3}.items():
        folders = list((made / split).iterdir())
        assert len(folders) == speakers
        assert all(len(list(folder.rglob("*.flac"))) == 2 for folder in folders)
    # the first utterances of a speaker are the same, however many there are
    first = "train-clean-100/1001/10010000/1001-10010000-0001.flac"
    assert (made / first).read_bytes() == (corpus / first).read_bytes()
    with pytest.raises(UserError, match="utterances_per_speaker is 2 there and None here"):
        rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=1, **options | {
            "utterances_per_speaker": None
        })  # fmt: skip


def test_impossible_numbers_of_utterances_per_speaker(tmp_path):
    with pytest.raises(UserError, match="--utterances-per-speaker must be at least 1, not 0"):
        rehearsal.rehearse_librispeech(tmp_path, HOURS, 0, 1, utterances_per_speaker=0)
    with pytest.raises(
        UserError, match="train-clean-100 would have 5538 speakers.*maximum is 4000"
    ):
        rehearsal.rehearse_librispeech(tmp_path, 10.0, 0, 1, utterances_per_speaker=1)
    assert not list(tmp_path.iterdir())
    words = ["rehearse", "--layout", "table", "--out-dir", str(tmp_path)]
    assert cli.main([*words, "--utterances-per-speaker", "2"]) == 1


def test_a_real_corpus_is_never_touched(tmp_path):
    (tmp_path / "LibriSpeech" / "train-clean-100").mkdir(parents=True)
    with pytest.raises(UserError, match="no rehearsal corpus"):
        rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=1)


def test_a_lower_signal_to_noise_ratio_changes_the_noise_alone(espeak):
    chapter = librispeech.chapters("train-clean-100", "train", 1)[0]

    def first(low, high):
        conditions = acoustics_of((low, high))
        text, samples = next(rehearsal.speak_chapter(espeak, 0, chapter, "digits", conditions))
        return text, samples.astype(float)

    (text, clean), (same, noisy) = first(60, 60), first(0, 0)
    assert text == same and len(clean) == len(noisy)
    # the louder sum may have been scaled down, so as not to clip
    scale = (clean @ noisy) / (clean @ clean)
    noise = noisy - scale * clean
    assert 10 * np.log10((scale * clean) @ (scale * clean) / (noise @ noise)) == pytest.approx(
        0, abs=0.5
    )
    for bad in ((5.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(UserError, match="--snr-db"):
            acoustics_of(bad)


@pytest.mark.parametrize(
    "hours, dev, test, jobs",
    [
        (0.0, None, None, 1),
        (float("nan"), 1, 1, 1),
        (float("inf"), 1, 1, 1),
        (1, -1.0, 1, 1),
        (1, 1, 0.0, 1),
        (1, None, None, 0),
    ],
)
def test_senseless_sizes_are_refused(tmp_path, hours, dev, test, jobs):
    args = argparse.Namespace(
        layout="librispeech",
        out_dir=tmp_path,
        train_hours=hours,
        dev_hours=dev,
        test_hours=test,
        seed=0,
        jobs=jobs,
    )
    with pytest.raises(UserError, match="--train-hours|--dev-hours|--test-hours|--jobs"):
        rehearsal.main(args)
    assert not list(tmp_path.iterdir())


def test_every_flac_has_a_transcript_and_a_fitting_length(corpus):
    flacs = {path.stem: path for path in corpus.rglob("*.flac")}
    lines = [
        line.split(" ", 1)
        for path in corpus.rglob("*.trans.txt")
        for line in path.read_text().splitlines()
    ]
    assert sorted(name for name, _ in lines) == sorted(flacs)
    speakers = (corpus / "SPEAKERS.TXT").read_text()
    for name, text in lines:
        speaker, chapter, _ = name.split("-")
        assert flacs[name].parent.relative_to(corpus).parts[1:] == (speaker, chapter)
        assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", text)
        info = soundfile.info(flacs[name])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.0 <= info.duration <= 15.0
        assert re.search(rf"^{speaker} +\| [FM] \| ", speakers, re.MULTILINE)


def test_lhotse_prepares_it(corpus, tmp_path):
    from lhotse.recipes import prepare_librispeech

    manifests = prepare_librispeech(corpus, output_dir=tmp_path)
    assert sorted(manifests) == ["dev-clean", "test-clean", "train-clean-100"]
    for split, parts in manifests.items():
        assert len(parts["recordings"]) == len(list((corpus / split).rglob("*.flac")))
        assert len(parts["supervisions"]) == len(parts["recordings"])


def test_an_utterance_does_not_depend_on_what_was_said_before(corpus, espeak):
    """Nor on the corpus's size: a chapter alone, in reverse order of chapters, is the file's."""
    plan = librispeech.chapters("train-clean-100", "train", rehearsal.num_chapters(HOURS))
    for chapter in reversed(plan):
        spoken = list(rehearsal.speak_chapter(espeak, 0, chapter))
        name = f"{chapter.speaker_id}-{chapter.id}"
        for number, (_, samples) in enumerate(spoken):
            there, _ = soundfile.read(
                corpus / chapter.folder / f"{name}-{number:04d}.flac", dtype="int16"
            )
            assert np.array_equal(samples, there)


def test_larger_corpora_contain_smaller_ones():
    small, large = (librispeech.chapters("s", "train", count) for count in (10, 1000))
    assert large[:10] == small
    assert len({chapter.folder for chapter in large}) == 1000


def test_another_seed_says_other_things(espeak):
    chapter = librispeech.chapters("s", "train", 1)[0]
    first, other = (next(rehearsal.speak_chapter(espeak, seed, chapter)) for seed in (0, 1))
    assert first[0] != other[0]


def test_espeak_answers_the_same_in_any_order(espeak):
    requests = [
        (text, Voice(name, rate=rate))
        for text in ("one two", "good morning, anna.")
        for name in ("en-us+f2", "en+klatt3", "en-gb-scotland+m1")
        for rate in (140, 190)
    ]
    first = [espeak.speak(*request) for request in requests]
    with Espeak() as another:
        second = [another.speak(*request) for request in reversed(requests)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({a.tobytes() for a in first}) == len(requests)


def test_espeak_refuses_an_unknown_voice_and_goes_on(espeak):
    with pytest.raises(UserError, match="no voice 'nosuch'"):
        espeak.speak("one", Voice("nosuch"))
    assert len(espeak.speak("one", Voice("en-us")))


def test_every_variant_and_accent_speaks(espeak):
    variants = [variant for group in VARIANTS.values() for variant in group]
    voices = [f"en-us+{variant}" for variant in variants]
    voices += [f"{accent}+f2" for accent in ENGLISH_ACCENTS]
    said = [espeak.speak("twenty five", Voice(voice)).tobytes() for voice in voices]
    assert len(set(said)) == len(set(voices))  # a variant that is missing would sound like none


def test_test_voices_are_unseen():
    variants = defaultdict(set)
    voices = []
    for group, count in librispeech.NUM_SPEAKERS.items():
        for index in range(count):
            speaker = english_speaker(0, group, index)
            variants[group].add(speaker.voice.name.split("+")[1])
            voices.append(speaker.voice)
    assert not variants["train"] & variants["test"]
    assert not variants["train"] & variants["dev"]
    assert not variants["dev"] & variants["test"]
    assert len(set(voices)) == len(voices)
    assert len(variants["train"]) >= 40


@pytest.mark.parametrize(
    "text, most, least", [("sentences", 400, 200), ("numbers", 45, 30), ("digits", 12, 10)]
)
def test_every_sentence_is_spelt_in_plain_words(text, most, least):
    words = set()
    for number in range(2000):
        sentence = TEXTS[text](keyed_random("sentence", number))
        assert re.fullmatch(r"[a-z' ,.-]+", sentence), sentence
        assert sentence.endswith(".")
        words |= set(transcript(sentence).split())
    assert least < len(words) < most
    assert transcript("at twenty-one o'clock, anna.") == "AT TWENTY ONE O'CLOCK ANNA"


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    chapter = librispeech.chapters("s", "train", 1)[0]
    noise = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match=r"1001-10010000-0000\.flac.*Free some space"):
            librispeech.write_chapter(tmp_path, chapter, [("ONE", noise)], 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not librispeech.is_written(tmp_path, chapter)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    librispeech.write_chapter(tmp_path, chapter, [("ONE", noise)], 16000)
    assert librispeech.is_written(tmp_path, chapter)


def test_missing_extra_is_named(monkeypatch, tmp_path):
    for package in ("espeakng_loader", "num2words"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match="tools/setup_env.sh"):
                rehearsal.rehearse_librispeech(tmp_path, HOURS, seed=0, jobs=1)
    assert not list(tmp_path.iterdir())
