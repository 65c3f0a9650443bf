"""Admission: how much is in hand at once, and whose turn it is.

Whoever comes while too much is in hand is sent away before its body is looked at: that costs a fiftieth of taking it, so
an overload is refused as fast as it comes, and memory stays flat. What was admitted is worked on in turn, a stretch of
so many bytes at a time, between which the event loop sees to everybody else: refusals, health, lanes.

Work is measured in bytes and not in seconds: the same load is cut the same way on every machine. Each refusal and each
new connection buys as much work, so that these, however many, never take more than half of the time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

# Bodies from their last byte to their answer, inflated: half a second's work or so. Decoded they take six times that.
MOST_BYTES = 8 * 1024 * 1024
MOST_REQUESTS = 2048
STRETCH = 8192  # bytes of events that are worked on in one round of the event loop: about a millisecond
LONGEST_STRETCH = 32_768
SLICE = 4096  # bytes of one request's events between two turns
ASIDE = 512  # bytes of events that are as much work as a refusal or a new connection
READING = 8  # bytes of a body that are read in the time in which one byte of an event goes through the rules


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


def first_turn(size: int) -> int:
    """Bytes of work that a body of ``size`` bytes is until its second turn: it is read, and its first events prepared."""
    return size // READING + min(size, SLICE)


class Turns:
    """Shares the event loop by bytes: what is begun is finished before anything new, first come first served."""

    def __init__(self, stretch: int = STRETCH) -> None:
        self._stretch = self._left = stretch
        self._aside = 0
        self._renewing = False
        self._new: deque[_Waiting] = deque()
        self._begun: deque[_Waiting] = deque()

    def set_aside(self) -> None:
        """Something else was done that nobody asked us to do: the next round is the longer."""
        self._aside = min(self._aside + ASIDE, LONGEST_STRETCH - STRETCH)

    async def take(self, size: int, *, begun: bool = False) -> None:
        """Returns when ``size`` bytes may be worked on, at once where this round has room. A round's first may have any
        size, so nothing waits for ever.
        """
        if self._left > 0 and not self._new and not self._begun:
            self._use(size)
            return
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        (self._begun if begun else self._new).append(waiting)
        await waiting.future

    def _use(self, size: int) -> None:
        self._left -= size
        if not self._renewing:  # the first of this round
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """A new round."""
        self._left, self._aside, self._renewing = self._stretch + self._aside, 0, False
        while self._left > 0 and (queue := self._begun or self._new):
            size, future = queue.popleft()
            if not future.done():  # else whoever waited has gone
                future.set_result(None)
                self._use(size)


class _Waiting(NamedTuple):
    size: int
    future: asyncio.Future[None]
