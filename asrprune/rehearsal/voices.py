"""Draw voices for rehearsal corpora: accent, variant, speed and pitch.

Training and test sets never share a variant. A variant of espeak-ng is a vocal tract and a voice
quality. The lists are espeak-ng's variants without the whispering, robotic and barely intelligible
ones. Near copies (``klatt3`` and ``klatt4``) stay in one split. So no test voice is in the training
set under another name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.base.randomness import keyed_random
from asrprune.rehearsal.espeak import Voice

ENGLISH_ACCENTS = (
    "en-us",
    "en",  # Great Britain
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-029",  # Caribbean
)
VARIANTS = {
    group: variants.split()
    for group, variants in {
        ("train", "F"): "f1 f5 Alicia Andrea belinda grandma shelby steph anika",
        ("train", "M"): "m1 m2 m4 m6 m8 Andy Diogo Gene Henrique Hugo Lee Marco Michael Mike "
        "Nguyen Reed RicishayMax adam announcer boris david ed edward grandpa gustave ian iven3 "
        "john kaukovalta klatt klatt3 klatt4 marcelo max mike2 pablo paul rob sandro victor",
        ("dev", "F"): "f3 Annie",
        ("dev", "M"): "m5 Mario norbert quincy",
        ("test", "F"): "f2 f4 linda aunty",
        ("test", "M"): "m3 m7 Alex Denis michel robert travis miguel",
    }.items()
}
RATE = (135, 195)  # words per minute
PITCH = (30, 70)
PITCH_RANGE = (30, 75)


@dataclass(frozen=True)
class Speaker:
    """Hold the voice and the sex of a speaker."""

    voice: Voice
    sex: str  # "F" or "M"


def english_speaker(seed: int, group: str, index: int) -> Speaker:
    """Return an English speaker, see `speaker`."""
    return speaker(ENGLISH_ACCENTS, seed, group, index)


def speaker(accents: Sequence[str], seed: int, group: str, index: int, *language: str) -> Speaker:
    """Return a speaker, a pure function of the arguments.

    Women and men alternate. All variants of the group are used before a variant is used again. The
    later use has another accent, speed and pitch.

    Args:
        accents: espeak-ng voices of the language.
        seed: seed of the corpus.
        group: "train", "dev" or "test".
        index: index of the speaker in the group.
        language: code of the language, so that languages have different speakers. Corpora of a
            single language leave it out.
    """
    sex = "FM"[index % 2]
    variants = list(VARIANTS[group, sex])
    turn, place = divmod(index // 2, len(variants))
    keyed_random(seed, "variants", group, sex, turn, *language).shuffle(variants)
    rng = keyed_random(seed, "speaker", group, index, *language)
    voice = Voice(
        name=f"{rng.choice(accents)}+{variants[place]}",
        rate=rng.randint(*RATE),
        pitch=rng.randint(*PITCH),
        pitch_range=rng.randint(*PITCH_RANGE),
    )
    return Speaker(voice, sex)
