"""Which member of a batch makes it fail, in few questions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Bisection(Generic[T]):
    """Find one bad member in at most ceil(log2 n) + 1 questions, one of which asks about it alone.

    Send ``question``, then say ``good`` or ``bad``. A half that proves good is done. What was not asked about, because
    the bad one was in the other half, gathers in ``untested`` and is sent again as one batch.
    """

    def __init__(self, members: Sequence[T]) -> None:
        self._suspects = list(members)
        self.untested: list[T] = []
        self.finished = not self._suspects

    def question(self) -> list[T]:
        """The members to send next; one of the suspects is known to be bad."""
        return self._suspects[: max(1, len(self._suspects) // 2)]

    def good(self) -> None:
        """Those asked about were accepted, so the bad one is among the other suspects."""
        self._suspects = self._suspects[len(self.question()) :]
        self.finished = not self._suspects

    def bad(self, asked: Sequence[T]) -> None:
        """One of those ``asked`` about, here as they are now, is bad; alone, it is found."""
        self.untested += self._suspects[len(asked) :]
        self._suspects = list(asked)
        self.finished = len(asked) == 1

    def abandon(self) -> list[T]:
        """Stop asking: the members that were not part of the last question and have no end yet."""
        left = self._suspects[len(self.question()) :] + self.untested
        self._suspects, self.untested, self.finished = [], [], True
        return left
