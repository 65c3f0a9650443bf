"""A partner that costs nothing: raw HTTP/1.1 on uvloop, in a process and on a core of its own.

``python -m tests.bench.sink`` prints its port. It reads no more of a request than its length and answers by its path:

``/snap...``    what Snap says to a valid batch        ``/hook...``    an empty 200
``/timed``      200, and notes ms since ``"received"``  ``/slow/40``    200 after 40 ms
``/flap``       200 for a second, 503 for the next one ``/hang``       nothing
``/limit/50``   200, but 429 to what exceeds 50 in any second

``GET /told`` gives what came since the last time it was asked: counts by path, when the first request began and the
last one was answered, and the noted times; ``GET /heard`` the same without forgetting it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque

import msgspec
import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DOWN = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"
LIMITED = b"HTTP/1.1 429 Slower\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RECEIVED = re.compile(rb'"received":(\d+)')


def _json(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


VALID = _json(b'{"status":"VALID"}')


class Told(msgspec.Struct):
    """``first`` and ``last`` are of the monotonic clock, in seconds; ``ages`` in ms."""

    requests: int = 0
    paths: Counter[str] = msgspec.field(default_factory=Counter)
    refused: int = 0
    first: float = 0.0
    last: float = 0.0
    since: float = 0.0  # from the first to the last of those that ``ages`` are of
    until: float = 0.0
    ages: list[float] = []


class Sink:
    def __init__(self) -> None:
        self.told = Told()
        self._lately: dict[str, deque[float]] = {}

    def began(self) -> None:
        if not self.told.requests:
            self.told.first = time.monotonic()
        self.told.requests += 1

    def answer(self, path: str, body: bytes) -> tuple[bytes | None, float]:
        """What to say and after how many seconds; None: nothing, ever."""
        told = self.told
        told.paths[path] += 1
        told.last = now = time.monotonic()
        kind, _, number = path[1:].partition("/")
        if kind == "snap":
            return VALID, 0.0
        if kind == "timed" and (found := _RECEIVED.search(body)):
            told.since = told.since or now
            told.until = now
            told.ages.append(time.time() * 1000 - int(found[1]))
        if kind == "slow":
            return OK, int(number) / 1000
        if kind == "flap":
            return (OK if int(now) % 2 else DOWN), 0.0
        if kind == "limit":
            return self._limited(path, int(number), now), 0.0
        return (None if kind == "hang" else OK), 0.0

    def _limited(self, path: str, most: int, now: float) -> bytes:
        lately = self._lately.setdefault(path, deque())
        while lately and lately[0] <= now - 1.0:
            lately.popleft()
        if len(lately) >= most:
            self.told.refused += 1
            return LIMITED
        lately.append(now)
        return OK

    def report(self, *, forget: bool) -> bytes:
        told = self.told
        if forget:
            self.told = Told()
        return _json(msgspec.json.encode(told))


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after another."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._parts, self._missing = sink, bytearray(), 0
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        if self._head:
            self._missing -= len(data)
        else:
            self._parts += data
            if (end := self._parts.find(b"\r\n\r\n")) < 0:
                return
            self._sink.began()
            self._head = bytes(self._parts[:end])
            length = int(found[1]) if (found := _LENGTH.search(self._head)) else 0
            self._missing = length - (len(self._parts) - end - 4)
        if self._missing <= 0:
            self._answer()

    def _answer(self) -> None:
        head, body = self._head, bytes(self._parts)
        self._head, self._parts = b"", bytearray()
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path = target.partition("?")[0]
        if method == "GET":
            self._sink.told.requests -= 1
            self._transport.write(self._sink.report(forget=path == "/told"))
            return
        said, after = self._sink.answer(path, body)
        if said is not None and after:
            asyncio.get_running_loop().call_later(after, self._transport.write, said)
        elif said is not None:
            self._transport.write(said)


async def main() -> None:
    sink = Sink()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(sink), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
