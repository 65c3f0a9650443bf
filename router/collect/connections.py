"""Connections: how many there may be, and how long a peer may take to read what it is told.

What aiohttp already does is left to it: its keep-alive timer closes whoever connects in silence or drips its headers. It
has no limit of connections, and waits for ever for a peer that does not read; both are here. Descriptors are kept back
for the outbox, the lanes and the console: acceptance stops while those still can open what they need.
"""

from __future__ import annotations

import asyncio
import resource
from typing import cast

from aiohttp.web_protocol import RequestHandler

READ_DEADLINE = 10.0  # seconds a peer has to read an answer
MOST = 12_000  # connections; 11 KB each (measured), 130 MB in all
RESERVED = 512  # descriptors that connections leave to everything else
OPEN_FILES = 65_536  # more than connections and lanes can use; some systems' hard limit is a thousand million
FAREWELL = 1.0  # seconds a refused peer has to read that it is refused
MOST_FAREWELLS = 256  # of these at once; beyond them the connection just ends


def raise_open_files() -> None:
    """Let this process open as many files as it may: the usual soft limit of 1024 is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most() -> int:
    """How many connections this process may hold."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST
    return min(MOST, limit - min(RESERVED, limit // 2))


class Connection(RequestHandler):
    """A connection whose peer has ``READ_DEADLINE`` to read what it is told, and is cut off then."""

    __slots__ = ("_unread",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._unread: asyncio.TimerHandle | None = None
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=0)  # one unread byte starts the clock

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._unread = self._loop.call_later(READ_DEADLINE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._read()
        super().connection_lost(exc)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class Farewells:
    """The connections beyond the limit: each is told ``words`` and ends."""

    def __init__(self, words: bytes) -> None:
        self.words = words
        self.number = 0  # of those whose peer may still read

    def __call__(self) -> asyncio.Protocol:
        return _Farewell(self)


class _Farewell(asyncio.Protocol):
    """A peer that still writes would not see the words if the connection closed at once (it would be reset)."""

    def __init__(self, farewells: Farewells) -> None:
        self._farewells = farewells
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = cast(asyncio.Transport, transport)
        self._farewells.number += 1
        peer.set_write_buffer_limits(high=0)  # written now, not at the end of the loop's round
        peer.write(self._farewells.words)
        if self._farewells.number > MOST_FAREWELLS:
            peer.abort()
            return
        peer.write_eof()
        self._end = asyncio.get_running_loop().call_later(FAREWELL, peer.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._farewells.number -= 1
        if self._end is not None:
            self._end.cancel()
