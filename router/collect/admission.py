"""Admission: how much is in hand at once.

Whoever comes while too much is in hand is sent away before its body is looked at: that costs a fiftieth of taking it, so
an overload is refused as fast as it comes, and memory stays flat. What was admitted is worked on in ``rounds``.
"""

from __future__ import annotations

# Bodies from their last byte to their answer, inflated: half a second's work or so.
MOST_BYTES = 8 * 1024 * 1024
MOST_REQUESTS = 2048


class Admission:
    """What is in hand: bodies that are whole and not answered yet. A slow sender's half body is none of it."""

    def __init__(self, most_bytes: int = MOST_BYTES, most_requests: int = MOST_REQUESTS) -> None:
        self.bytes = self.requests = 0
        self._most_bytes, self._most_requests = most_bytes, most_requests

    @property
    def full(self) -> bool:
        return self.bytes >= self._most_bytes or self.requests >= self._most_requests

    def enter(self, size: int) -> None:
        self.bytes += size
        self.requests += 1

    def leave(self, size: int) -> None:
        self.bytes -= size
        self.requests -= 1
