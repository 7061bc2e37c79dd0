"""Give every utterance and every recording of a corpus an id that no other audio has."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from asrprune.base.errors import UserError
from asrprune.data.sources import AudioSpan, OwnIds

LOOKED_AT = 1 << 16  # bytes from the middle of a file that tell most files apart
OWN = (
    "Give every utterance of the corpus an id of its own, such as one with the split's name in "
    "front; tables without the column 'id' get ids made of the paths"
)


class Used(NamedTuple):
    """Which utterance has an id."""

    split: str
    where: str
    span: AudioSpan


class Claims:
    """The ids of a corpus: those of utterances, and those of recordings.

    Stage 3 holds out of the training what a test set has too, and knows it by its id. So one
    utterance keeps its id in every split, and two utterances never share one.
    """

    def __init__(self) -> None:
        self.recordings = OwnIds()
        self._used: dict[str, Used] = {}
        self._numbers: dict[str, int] = {}  # name -> the next number behind it
        # given id -> key of the audio -> ids; only of ids that were given to several utterances
        self._shared: dict[str, dict[tuple, list[str]]] = {}

    def utterance(self, ident: str, claim: Used, loose: bool) -> str:
        """Return the id of an utterance.

        Args:
            ident: The id that it was given.
            claim: The split, the place in it and the audio of the utterance.
            loose: The id may be changed where it is that of another utterance.

        Raises:
            UserError: The same utterance comes twice in a split, or the id is that of another one
                and must not be changed.
        """
        first = self._used.setdefault(ident, claim)
        if first is claim:
            return ident
        key = _key(claim.span)
        for own in self._candidates(ident, claim.span, key):
            there = self._used[own]
            within = there.split == claim.split
            if there.span.differs(claim.span) or (
                within and there.span.changes != claim.span.changes
            ):
                continue
            if within:
                raise UserError(
                    f"{claim.where}: the id {ident!r} is that of {there.where} too, and so is the "
                    f"audio ({claim.span}). Remove one of the two"
                )
            return own
        if not loose:
            raise self._refusal(ident, claim, first)
        own = self._free(ident if first.split == claim.split else f"{claim.split}-{ident}")
        self._used[own] = claim
        self._shared[ident].setdefault(key, []).append(own)
        return own

    def _candidates(self, ident: str, span: AudioSpan, key: tuple) -> Iterable[str]:
        """Return the ids, made of one id, whose audio may be this."""
        if ident not in self._shared:
            self._shared[ident] = {_key(self._used[ident].span): [ident]}
        shared = self._shared[ident]
        if not span.audio:  # features alone, which may be those of any of them
            return [own for ids in shared.values() for own in ids]
        return [*shared.get(key, ()), *shared.get((), ())]

    def _free(self, name: str) -> str:
        if name not in self._used:
            return name
        number = self._numbers.get(name, 2)
        while f"{name}-{number}" in self._used:
            number += 1
        self._numbers[name] = number + 1
        return f"{name}-{number}"

    def _refusal(self, ident: str, claim: Used, first: Used) -> UserError:
        if first.split == claim.split:
            return UserError(
                f"{claim.where}: the id {ident!r} is that of {first.where} too, with other audio: "
                f"here {claim.span}, there {first.span}. {OWN}"
            )
        how = first.span.differs(claim.span)
        here, there = claim.span.audio or claim.span, first.span.audio or first.span
        if how != "another file":
            here, there = claim.span, first.span
        return UserError(
            f"{claim.where}: the id {ident!r} is that of {how} in {first.split}: here {here}, "
            f"there {there} ({first.where}). {OWN}"
        )


def _key(span: AudioSpan) -> tuple:
    """Return what equal audio has in common: the size of its file and some of its bytes."""
    return _key_of_file(span.audio) if span.audio else ()


def _key_of_file(path: str) -> tuple:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - LOOKED_AT, 0) // 2)
            return size, blake2b(file.read(LOOKED_AT), digest_size=16).digest()
    except (OSError, ValueError):  # no file, or not here: the name decides
        return (path,)
