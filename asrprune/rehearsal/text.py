"""Draw English sentences for rehearsal corpora: numbers in short carrier sentences.

The words come from a closed list. Most of them are the few dozen words of numbers. So a small model
can learn the words from an hour of speech, but it cannot guess the content of a sentence. Each type
of text is a function from a random generator to a sentence.
"""

import random
import re
from collections.abc import Callable

from asrprune.base.errors import UserError

WORDS = {
    slot: words.split()
    for slot, words in {
        "name": "anna peter maria david laura simon helen robert alice martin julia daniel "
        "emma thomas nora oliver sarah victor linda george",
        "city": "london paris boston chicago berlin madrid dublin oslo geneva toronto "
        "denver lisbon vienna sydney athens houston naples warsaw kingston dallas",
        "items": "apples oranges tickets bottles chairs books boxes windows pencils letters "
        "cameras blankets flowers eggs candles lamps buttons shirts baskets plates",
        "thing": "radio bicycle camera jacket sofa guitar carpet mirror kettle table printer piano",
        "place": "kitchen garden office library station market museum harbour hotel school",
        "street": "river church park castle mill bridge",
        "weekday": "monday tuesday wednesday thursday friday saturday sunday",
        "month": "january february march april may june july august september october "
        "november december",
    }.items()
}

# Punctuation sets the synthesiser's pauses. The transcript does not contain it.
TEMPLATES = (
    "call me at {phone}.",
    "please call {name} at {phone}.",
    "my number is {phone}.",
    "the train to {city} leaves at {time}.",
    "the {ordinal} train to {city} is {small} minutes late.",
    "flight {digits} to {city} leaves from gate {small}.",
    "the flight from {city} arrives at {time} {part_of_day}.",
    "{name} will meet you at {time} in the {place}.",
    "wake me at {time} {part_of_day}.",
    "the {place} is open from {time} to {time}.",
    "the {thing} costs {money}.",
    "{name} paid {money} for the {thing}.",
    "we sold {small} {items} for {money}.",
    "{small} {items} and {small} {items} cost {money}.",
    "there are {number} {items} in the {place}.",
    "{name} has {number} {items} and {name} has {number}.",
    "bring {small} {items} to the {place} on {weekday}.",
    "the meeting is on {weekday}, {date}.",
    "{name} was born on {date}, {year}.",
    "in {year} {name} moved from {city} to {city}.",
    "the {place} was built in {year}.",
    "the letter of {date} arrived on {weekday}.",
    "it is {decimal} miles from {city} to {city}.",
    "the temperature in {city} is {small} degrees.",
    "on {weekday} it was minus {decimal} degrees in {city}.",
    "prices rose by {decimal} percent in {month}.",
    "in {month} we counted {thousands} visitors in {city}.",
    "{thousands} people live near the {place}.",
    "the {thing} is in the {place}, with {small} {items}.",
    "{name} lost a {thing} in {city} on {date}.",
    "{name} lives at {number} {street} street in {city}.",
    "turn left into {street} street after {number} metres.",
    "your room is {digits}, on the {ordinal} floor.",
    "open the book at page {number}, line {small}.",
    "the code for the {place} is {digits}.",
    "{name} came {ordinal} with {decimal} points.",
    "the final score was {small} to {small}.",
    "{name} is {small} years old.",
    "thank you {name}.",
    "good morning, {name}.",
    "see you on {weekday}.",
    "{number} {items}.",
    "{weekday}, {date}, {year}.",
    "{time} {part_of_day}.",
    "{money}.",
    "{phone}.",
    "{thousands}.",
)

# About forty words, each of them frequent in an hour of speech. Only their sounds must be learnt.
NUMBERS = ("{digits}.", "{phone}.", "{number}.", "{thousands}.", "{decimal}.", "{year}.")
DIGITS = ("{digits}.", "{phone}.")  # eleven words


def english_sentence(rng: random.Random) -> str:
    """Return a random lower-case English sentence with light punctuation and numbers as words."""
    return rng.choice(TEMPLATES).format_map(_Slots(rng))


def english_number(rng: random.Random) -> str:
    """Return a random number as an English sentence."""
    return rng.choice(NUMBERS).format_map(_Slots(rng))


def english_digits(rng: random.Random) -> str:
    """Return a few digits as an English sentence."""
    return rng.choice(DIGITS).format_map(_Slots(rng))


TEXTS: dict[str, Callable[[random.Random], str]] = {
    "sentences": english_sentence,
    "numbers": english_number,
    "digits": english_digits,
}


def transcript(sentence: str) -> str:
    """Return a sentence as LibriSpeech writes it: capitals, apostrophes and single spaces."""
    return " ".join(re.sub(r"[^a-z']+", " ", sentence).split()).upper()


def spell(number: int | float, language: str = "en", **kind: str) -> str:
    """Return a number in words.

    Args:
        number: the number.
        language: code of the language in num2words.
        kind: further arguments of num2words, such as ``to="ordinal"``.

    Raises:
        UserError: num2words is not installed.
    """
    try:
        from num2words import num2words
    except ImportError as error:
        raise UserError(
            "rehearsal corpora need num2words: bash tools/setup_env.sh installs it"
        ) from error
    return num2words(number, lang=language, **kind)


def _phone(rng: random.Random) -> str:
    zero = rng.choice(("zero", "oh"))
    digits = [spell(rng.randrange(10)) for _ in range(rng.choice((6, 7, 7)))]
    digits = [zero if digit == "zero" else digit for digit in digits]
    return f"{' '.join(digits[:3])}, {' '.join(digits[3:])}"


def _digits(rng: random.Random) -> str:
    return " ".join(spell(rng.randrange(10)) for _ in range(rng.choice((3, 4))))


def _time(rng: random.Random) -> str:
    hour = spell(rng.randint(1, 12))
    kind = rng.randrange(5)
    if kind == 0:
        return f"{hour} o'clock"
    if kind == 1:
        return f"{rng.choice(('half past', 'quarter past', 'quarter to'))} {hour}"
    if kind == 2:
        minutes = spell(5 * rng.randint(1, 5))
        return f"{minutes} {rng.choice(('past', 'to'))} {hour}"
    return f"{hour} {spell(rng.randint(10, 59))}"


def _date(rng: random.Random) -> str:
    day = spell(rng.randint(1, 31), to="ordinal")
    month = rng.choice(WORDS["month"])
    return rng.choice((f"the {day} of {month}", f"{month} the {day}"))


def _money(rng: random.Random) -> str:
    dollars = rng.choice((rng.randint(2, 20), rng.randint(2, 99), rng.randint(100, 999)))
    text = f"{spell(dollars)} dollars"
    if rng.random() < 0.5:
        text += f" and {spell(5 * rng.randint(1, 19))} cents"
    return text


def _decimal(rng: random.Random) -> str:
    places = rng.choice((10, 10, 100))
    return spell((rng.randint(1, 99) * places + rng.randint(1, places - 1)) / places)


_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "month": lambda rng: rng.choice(WORDS["month"]),
    "part_of_day": lambda rng: rng.choice(
        ("in the morning", "in the afternoon", "in the evening", "at night")
    ),
    "small": lambda rng: spell(rng.randint(2, 99)),
    "number": lambda rng: spell(rng.choice((rng.randint(2, 99), rng.randint(100, 999)))),
    "thousands": lambda rng: spell(rng.randint(11, 999) * rng.choice((100, 1000))),
    "ordinal": lambda rng: spell(rng.randint(1, 31), to="ordinal"),
    "year": lambda rng: spell(rng.randint(1900, 2029), to="year"),
    "phone": _phone,
    "digits": _digits,
    "time": _time,
    "date": _date,
    "money": _money,
    "decimal": _decimal,
}


class _Slots:
    """Fill the slots of a template. Each slot is a new random draw."""

    def __init__(self, rng: random.Random):
        self._rng = rng

    def __getitem__(self, slot: str) -> str:
        if slot in WORDS:
            return self._rng.choice(WORDS[slot])
        return _NUMBERS[slot](self._rng)
