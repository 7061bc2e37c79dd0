"""Give every utterance and every recording of a corpus an id that no other audio has."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from asrprune.base.errors import UserError
from asrprune.data.sources import AudioSpan, OwnIds

LOOKED_AT = 1 << 16  # bytes from the middle of a file, in which most files differ
OWN = (
    "Give every utterance of the corpus an id of its own, such as one with the split's name in "
    "front; tables without the column 'id' get ids made of the paths"
)


class Used(NamedTuple):
    """The utterance that has an id: its split, its position in the corpus, and its audio."""

    split: str
    where: str
    span: AudioSpan


class Claims:
    """The ids of the utterances and of the recordings of a corpus.

    Stage 3 removes a training utterance if an evaluation set has an utterance with the same id. So
    an utterance has the same id in every split, and two utterances never share an id.
    """

    def __init__(self) -> None:
        self.recordings = OwnIds()
        self._used: dict[str, Used] = {}
        self._numbers: dict[str, int] = {}  # name -> the next number to append
        # given id -> key of the audio -> ids; only for given ids that several utterances share
        self._shared: dict[str, dict[tuple, list[str]]] = {}

    def utterance(self, ident: str, claim: Used, loose: bool) -> str:
        """Return the id of an utterance: the given id, or a new id if other audio has that id.

        Args:
            ident: The given id of the utterance.
            claim: The split, the position and the audio of the utterance.
            loose: Whether the id may be changed, if another utterance has the id.

        Raises:
            UserError: The same utterance comes twice in a split; or another utterance has the id,
                and the id must not be changed.
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
        """Return the ids that were made from ``ident`` and whose audio may equal ``span``."""
        if ident not in self._shared:
            self._shared[ident] = {_key(self._used[ident].span): [ident]}
        shared = self._shared[ident]
        if not span.audio:  # features alone may belong to any of the ids
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
    """Return a key that is the same for equal audio: file size, and a digest of some bytes."""
    return _key_of_file(span.audio) if span.audio else ()


def _key_of_file(path: str) -> tuple:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - LOOKED_AT, 0) // 2)
            return size, blake2b(file.read(LOOKED_AT), digest_size=16).digest()
    except (OSError, ValueError):  # no file on this machine: the name is the key
        return (path,)
