"""Whether batches come in the same order after a restart as before."""

import hashlib
from collections import deque
from collections.abc import Iterable

from lhotse.cut import Cut

from asrprune.errors import UserError


class OrderOfBatches:
    """A digest of the batches of an epoch, up to the last one that was trained on.

    A loader draws batches ahead of the training, so the digests of what is drawn wait until
    `consume`. After a restart the position is found again by drawing what was trained on before;
    where the digest is then another one, cuts would be lost and others seen twice.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start an epoch, in which no batch has been trained on."""
        self._consumed = 0
        self._expected: tuple[int, int] | None = None  # after so many batches, this digest
        self.begin_iteration()

    def begin_iteration(self) -> None:
        """Start to draw the epoch from its first batch on."""
        self._last, self._number = 0, 0
        self._drawn: deque[int] = deque()

    def expect(self, batches: int, digest: int) -> None:
        """Say what was trained on before the restart; checked when so many are drawn again."""
        self._expected, self._consumed = (batches, digest), digest

    def draw(self, batch: Iterable[Cut]) -> None:
        """Count a batch that is drawn.

        Raises:
            UserError: the batches up to this one are others than before the restart.
        """
        text = f"{self._last:x}\x1f" + "\x1f".join(cut.id for cut in batch)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._last = int.from_bytes(digest, "little") >> 1  # fits a signed integer
        self._number += 1
        self._drawn.append(self._last)
        if self._expected is None or self._number > self._expected[0]:
            return
        self._drawn.clear()  # it was trained on before the restart
        if self._number == self._expected[0] and self._last != self._expected[1]:
            raise UserError(
                f"The first {self._number} batches of this epoch are others than before the "
                "restart, so the position in it cannot be found again. The training cuts come in "
                "another order: give the CutSet fixed seeds, or start this epoch again."
            )

    def consume(self) -> None:
        """Count a batch that was trained on."""
        if self._drawn:
            self._consumed = self._drawn.popleft()

    def state(self) -> int:
        """Return the digest of what was trained on."""
        return self._consumed
