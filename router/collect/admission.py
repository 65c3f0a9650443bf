"""Admission: how much is in hand at once, and whose turn it is.

Whoever comes while too much is in hand is sent away before its body is looked at: that costs a fiftieth of taking it, so
an overload is refused as fast as it comes, and memory stays flat. What was admitted is worked on in turn, a stretch of
so many bytes at a time, between which the event loop sees to everybody else: refusals, health, lanes.

Work is measured in bytes of bodies and not in seconds: the same load is cut the same way on every machine.
"""

from __future__ import annotations

import asyncio
from collections import deque

MOST_BYTES = (
    16 * 1024 * 1024
)  # of bodies from their last byte to their answer, inflated; decoded they take 6 times that
MOST_REQUESTS = 2048
STRETCH = 65_536  # bytes of bodies that are worked on in one round of the event loop: some 5 ms


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


class Turns:
    """Shares the event loop by bytes, first come first served."""

    def __init__(self, stretch: int = STRETCH) -> None:
        self._stretch = self._left = stretch
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Returns when ``size`` bytes may be worked on, at once where this round has room. Size does not matter for a
        round's first: nothing waits for ever.
        """
        if self._left > 0 and not self._waiting:
            self._use(size)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        await future

    def _use(self, size: int) -> None:
        if self._left == self._stretch:  # the first of this round
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= max(1, size)

    def _renew(self) -> None:
        """A new round."""
        self._left = self._stretch
        while self._waiting and self._left > 0:
            size, future = self._waiting.popleft()
            if not future.done():  # else whoever waited has gone
                future.set_result(None)
                self._use(size)
