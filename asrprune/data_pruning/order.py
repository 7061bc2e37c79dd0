"""Check that batches come in the same order after a restart as before."""

import hashlib
from collections import deque
from collections.abc import Iterable

from lhotse.cut import Cut

from asrprune.base.errors import UserError


class OrderOfBatches:
    """Keeps a digest of the batches of an epoch, up to the last batch that was trained on.

    A loader draws batches ahead of the training, so the digests of drawn batches wait until
    `consume`. After a restart the sampler draws the batches again that were trained on before. If
    their digest has changed, some cuts would be lost and others seen twice.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start an epoch. No batch of it has been trained on yet."""
        self._consumed = 0
        self._expected: tuple[int, int | None] | None = None  # (batches, digest after them)
        self._goes_on = False  # whether a batch has been trained on since `begin`
        self.begin_iteration()

    def begin_iteration(self) -> None:
        """Start to draw the epoch from its first batch."""
        if self._goes_on:  # an epoch that is begun again is not the rest of a restored one
            self._expected = None
        self._last, self._number = 0, 0
        self._drawn: deque[int] = deque()

    def expect(self, batches: int, digest: int | None) -> None:
        """Set what was trained on before the restart.

        The digest is checked when as many batches have been drawn again.

        Args:
            batches: number of batches.
            digest: digest of these batches, from `state`; None: unknown, and not checked.
        """
        self._expected, self._consumed = (batches, digest), digest or 0

    def draw(self, batch: Iterable[Cut]) -> None:
        """Count a batch that is drawn.

        Raises:
            UserError: the batches up to this batch differ from those before the restart.
        """
        text = f"{self._last:x}\x1f" + "\x1f".join(cut.id for cut in batch)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._last = int.from_bytes(digest, "little") >> 1  # fits a signed integer
        self._number += 1
        self._drawn.append(self._last)
        if self._expected is None or self._number > self._expected[0]:
            return
        self._drawn.clear()  # this batch was trained on before the restart
        if self._number < self._expected[0]:
            return
        self._consumed = self._last
        if self._expected[1] not in (None, self._last):
            raise UserError(
                f"The first {self._number} batches of this epoch differ from those before the "
                "restart, so the position in the epoch cannot be restored. The training cuts come "
                "in another order. Give the CutSet fixed seeds, or start this epoch again."
            )

    def consume(self) -> None:
        """Count a batch that was trained on."""
        self._goes_on = True
        if self._drawn:
            self._consumed = self._drawn.popleft()

    def state(self) -> int:
        """Return the digest of the batches that were trained on."""
        return self._consumed
