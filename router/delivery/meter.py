"""How much of a partner's monthly quota is used, as far as we can count. Pure.

The partner's own count decides: it may know of events that we do not send, and it says when it is full.
"""

from __future__ import annotations

NEAR = 0.8  # of the quota: time to tell the operator


class Meter:
    """Counts one lane's events of one calendar month at a time."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.month = ""
        self.used = 0

    def begin(self, month: str, used: int) -> None:
        """A month, and what was used of it before."""
        self.month, self.used = month, used

    def near(self) -> bool:
        """Is the mark of ``NEAR`` reached?"""
        return self.used >= NEAR * self.quota

    def count(self, events: int) -> bool:
        """So many more. True the one time that this reaches the mark of ``NEAR``."""
        before, self.used = self.near(), self.used + events
        return not before and self.near()
