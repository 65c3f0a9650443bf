"""The flood of the overload proof: more than a server can take, by the clock, in a process of its own.

Requests leave when they are due, whatever became of those before them, over as many connections as that needs; what one
waits for a connection counts as its latency (no coordinated omission). Beside them: connections that stay silent, heads
and bodies that drip a byte a second, and gzip bombs. JSON settings on stdin, one JSON line on stdout.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import zlib
from collections import Counter, deque
from typing import Any

import msgspec
import uvloop

from router.collect.connections import raise_open_files

MARK = b"@@@@@@@@@@@@@@@@"  # replaced by the request's number
REFUSALS = (429, 503)
PATIENCE = 20.0  # seconds for the last answers


class Settings(msgspec.Struct, kw_only=True):
    port: int
    path: str
    body: str
    rate: float  # requests a second
    seconds: float
    first: int = 0  # number of the first request
    ready: int = 1024  # connections for requests that are open from the start
    most: int = 1500  # of these at most
    idle: int = 0  # connections that say nothing
    dripping: int = 0  # heads, and as many bodies, that come byte by byte
    bombs: float = 0.0  # a second


class Result(msgspec.Struct, kw_only=True):
    due: int
    sent: int
    acknowledged: list[int]
    refused: int
    unanswered: list[int]  # sent; the connection ended without an answer
    statuses: dict[str, int]
    refused_ms: dict[str, float]
    accepted_ms: dict[str, float]
    retry_after: dict[str, int]
    bombs: dict[str, int]
    bomb_ms: dict[str, float]
    idle: int  # at once, at most
    dripping_heads_s: float  # the longest that one was open
    dripping_bodies: dict[str, int]
    late_ms: float  # the generator's own worst


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {
        "p50": round(1000 * ordered[len(ordered) // 2], 1),
        "p99": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 1),
        "worst": round(1000 * ordered[-1], 1),
    }


def bomb() -> bytes:
    """Half a megabyte that inflates to half a gigabyte; nobody should come to its end, which is missing."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * ((500_000 - len(head)) // len(block))


class Answers(asyncio.Protocol):
    """A connection that reads whole answers, each with a Content-Length."""

    def __init__(self) -> None:
        self._buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = self._buffer[:head].lower()
        if len(self._buffer) < head + 4 + int(_header(lines, b"content-length") or 0):
            return
        status, self._buffer = int(lines[9:12]), b""
        self.answered(status, lines)

    def answered(self, status: int, head: bytes) -> None:
        raise NotImplementedError


def _header(lines: bytes, name: bytes) -> bytes | None:
    at = lines.find(b"\r\n" + name + b":")
    return None if at < 0 else lines[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip()


class Sender(Answers):
    """Sends what is due, one request after the other."""

    def __init__(self, flood: Flood) -> None:
        super().__init__()
        self._flood, self.number, self._due = flood, -1, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._flood.free(self)

    def send(self, number: int, due: float) -> None:
        self.number, self._due = number, due
        self.transport.write(self._flood.request(number))

    def answered(self, status: int, head: bytes) -> None:
        number, self.number = self.number, -1
        self._flood.note(number, status, time.perf_counter() - self._due, head)
        if b"connection: close" in head:
            self.transport.close()
        else:
            self._flood.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._flood.lost(self)


class Idler(asyncio.Protocol):
    """Says nothing, or drips; comes back when it is sent away."""

    def __init__(self, flood: Flood, opening: bytes = b"") -> None:
        self._flood, self._opening, self._began, self._answer = flood, opening, 0.0, b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self._began = transport, time.perf_counter()
        self._flood.idlers.add(self)
        if self._opening:
            self.transport.write(self._opening)

    def drip(self) -> None:
        if self._opening and not self.transport.is_closing():
            self.transport.write(b"x")

    def data_received(self, data: bytes) -> None:
        self._answer += data

    def connection_lost(self, _: Exception | None) -> None:
        self._flood.idlers.discard(self)
        self._flood.idler_ended(self._opening, self._answer, time.perf_counter() - self._began)


class Bomber(Answers):
    def __init__(self, flood: Flood, request: bytes) -> None:
        super().__init__()
        self._flood, self._request, self._began = flood, request, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._began = time.perf_counter()
        transport.write(self._request)  # type: ignore[attr-defined]  # a stream's

    def answered(self, status: int, head: bytes) -> None:
        self._flood.bombs[str(status)] += 1
        self._flood.bomb_times.append(time.perf_counter() - self._began)
        self.transport.close()


class Flood:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        body = settings.body.encode()
        self._whole = self._head(len(body)) + body
        self._free: deque[Sender] = deque()
        self._waiting: deque[tuple[int, float]] = deque()
        self._opened = 0  # connections of senders, made or in the making
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop = False
        self.due = self.sent = self.most_idle = 0
        self.late = self.heads_open = 0.0
        self.acknowledged: list[int] = []
        self.unanswered: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.retry_after: Counter[str] = Counter()
        self.bombs: Counter[str] = Counter()
        self.dripping_bodies: Counter[str] = Counter()
        self.refused_times: list[float] = []
        self.accepted_times: list[float] = []
        self.bomb_times: list[float] = []
        self.idlers: set[Idler] = set()
        self._under_way = 0

    def _head(self, length: int, more: str = "") -> bytes:
        lines = f"POST {self.settings.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
        return f"{lines}Content-Length: {length}\r\n\r\n".encode()

    def request(self, number: int) -> bytes:
        self.sent += 1
        self._under_way += 1
        return self._whole.replace(MARK, b"%016d" % number)

    # What senders tell

    def free(self, sender: Sender) -> None:
        if self._waiting:
            sender.send(*self._waiting.popleft())
        else:
            self._free.append(sender)

    def note(self, number: int, status: int, took: float, head: bytes) -> None:
        self._under_way -= 1
        self.statuses[str(status)] += 1
        if status == 200:
            self.acknowledged.append(number)
            self.accepted_times.append(took)
        elif status in REFUSALS:
            self.refused_times.append(took)
            self.retry_after[(_header(head, b"retry-after") or b"none").decode()] += 1

    def lost(self, sender: Sender) -> None:
        self._opened -= 1
        if sender.number >= 0:
            self._under_way -= 1
            self.unanswered.append(sender.number)
        elif sender in self._free:
            self._free.remove(sender)

    def idler_ended(self, opening: bytes, answer: bytes, open_for: float) -> None:
        if opening.endswith(b"\r\n\r\n"):
            self.dripping_bodies[answer[9:12].decode() or "none"] += 1
        elif opening:
            self.heads_open = max(self.heads_open, open_for)
        if not self._stop:
            delay = 1.0 if b" 503 " in answer else 0.0
            asyncio.get_running_loop().call_later(delay, self._open, lambda: Idler(self, opening))

    # Running

    def _open(self, protocol: Any) -> None:
        task = asyncio.create_task(self._connect(protocol))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, protocol: Any) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop:
            try:
                await loop.create_connection(protocol, "127.0.0.1", self.settings.port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return

    async def _open_idlers(self) -> None:
        body_opening = self._head(1000)
        openings = [b"POST /collect HTTP/1.1\r\nX: ", body_opening] * self.settings.dripping
        openings += [b""] * self.settings.idle
        for number, opening in enumerate(openings):
            self._open(lambda opening=opening: Idler(self, opening))
            if number % 20 == 19:
                await asyncio.sleep(0.01)  # 2 000 a second

    async def _tend_idlers(self) -> None:
        while not self._stop:
            self.most_idle = max(self.most_idle, sum(1 for each in self.idlers if not each._opening))
            for each in list(self.idlers):
                each.drip()
            await asyncio.sleep(1)

    async def _throw_bombs(self) -> None:
        packed = bomb()
        request = self._head(len(packed), "Content-Encoding: gzip\r\n") + packed
        while not self._stop:
            self._open(lambda: Bomber(self, request))
            await asyncio.sleep(1 / self.settings.bombs)

    async def _send_by_the_clock(self) -> None:
        began = last = time.perf_counter()
        numbers = itertools.count(self.settings.first)
        while (now := time.perf_counter()) - began < self.settings.seconds:
            self.late, last = max(self.late, now - last - 0.001), now
            while self.due < (now - began) * self.settings.rate:
                self._send(next(numbers), began + self.due / self.settings.rate)
                self.due += 1
            await asyncio.sleep(0.001)
        self._waiting.clear()

    def _send(self, number: int, due: float) -> None:
        while self._free:
            sender = self._free.pop()
            if not sender.transport.is_closing():  # the server has ended it, and we are yet to be told
                sender.send(number, due)
                return
        self._waiting.append((number, due))
        if self._opened < self.settings.most:
            self._one_more()

    def _one_more(self) -> None:
        self._opened += 1
        self._open(lambda: Sender(self))

    async def _open_senders(self) -> None:
        for _ in range(self.settings.ready):
            self._one_more()
        while len(self._free) < self.settings.ready:  # noqa: ASYNC110 - no signal for so many
            await asyncio.sleep(0.01)

    async def run(self) -> Result:
        if self.settings.idle or self.settings.dripping:
            await self._open_idlers()
        tending = asyncio.create_task(self._tend_idlers())
        bombing = asyncio.create_task(self._throw_bombs()) if self.settings.bombs else None
        await self._open_senders()
        await self._send_by_the_clock()
        until = time.perf_counter() + PATIENCE
        while self._under_way and time.perf_counter() < until:  # noqa: ASYNC110 - nor for the last of these
            await asyncio.sleep(0.01)
        self._stop = True
        for task in (tending, bombing):
            if task is not None:
                task.cancel()
        return self._result()

    def _result(self) -> Result:
        return Result(
            due=self.due,
            sent=self.sent,
            acknowledged=self.acknowledged,
            refused=len(self.refused_times),
            unanswered=self.unanswered,
            statuses=dict(self.statuses),
            refused_ms=percentiles(self.refused_times),
            accepted_ms=percentiles(self.accepted_times),
            retry_after=dict(self.retry_after),
            bombs=dict(self.bombs),
            bomb_ms=percentiles(self.bomb_times),
            idle=self.most_idle,
            dripping_heads_s=round(self.heads_open, 1),
            dripping_bodies=dict(self.dripping_bodies),
            late_ms=round(1000 * self.late, 1),
        )


def main() -> None:
    raise_open_files()
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    result = uvloop.run(_run(settings))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


async def _run(settings: Settings) -> Result:
    return await Flood(settings).run()


if __name__ == "__main__":
    main()
