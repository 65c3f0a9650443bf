"""The load generator of the benches: raw HTTP/1.1 over kept connections, in a process and on a core of its own.

``python -m tests.bench.load URL`` with JSON settings on stdin prints one JSON line: requests answered, by status, the
seconds it took and the latencies' percentiles in ms. Closed loop: every connection sends its next request when the last
was answered; with ``rate`` open loop: requests leave by the clock, and waiting for a free connection counts as latency.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter, deque
from urllib.parse import urlsplit

import msgspec
import uvloop

MARK = b"@@@@@@@@@@@@@@@@"  # replaced by a number, so that every event has an id of its own


class Settings(msgspec.Struct):
    body: str
    seconds: float = 5.0
    connections: int = 64
    rate: float | None = None
    headers: dict[str, str] = {}
    first: int = 0


class Result(msgspec.Struct):
    answered: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float
    worst: float


class Sender(asyncio.Protocol):
    """One connection. Calls ``free`` when it has nothing under way."""

    def __init__(self, load: Load) -> None:
        self._load, self._began, self._buffer = load, 0.0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.free(self)

    def send(self, began: float) -> None:
        self._began = began
        self._transport.write(self._load.request())  # type: ignore[attr-defined]  # a stream transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        status = self._buffer[9:12].decode()
        self._buffer = b""
        self._load.answered(status, self._began)
        self._load.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._load.statuses["lost"] += 1


class Load:
    def __init__(self, url: str, settings: Settings) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        body = settings.body.encode()
        lines = [f"POST {parts.path}?{parts.query} HTTP/1.1", f"Host: {self.host}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in settings.headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        self._whole = "\r\n".join(lines).encode() + body
        self._marks = self._whole.count(MARK)
        self._numbers = itertools.count(settings.first)
        self.settings = settings
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []
        self._free: deque[Sender] = deque()
        self._waiting: deque[float] = deque()
        self._stop = False

    def request(self) -> bytes:
        if not self._marks:
            return self._whole
        parts = self._whole.split(MARK)
        out = [parts[0]]
        for part in parts[1:]:
            out.append(b"%016d" % next(self._numbers))
            out.append(part)
        return b"".join(out)

    def answered(self, status: str, began: float) -> None:
        self.statuses[status] += 1
        self.latencies.append(time.perf_counter() - began)

    def free(self, sender: Sender) -> None:
        if self._stop:
            return
        if self.settings.rate is None:
            sender.send(time.perf_counter())
        elif self._waiting:
            sender.send(self._waiting.popleft())
        else:
            self._free.append(sender)

    async def run(self) -> Result:
        loop = asyncio.get_running_loop()
        senders = [
            (await loop.create_connection(lambda: Sender(self), self.host, self.port))[0]
            for _ in range(self.settings.connections)
        ]
        began = time.perf_counter()
        if self.settings.rate is None:
            await asyncio.sleep(self.settings.seconds)
        else:
            await self._by_the_clock(began)
        took = time.perf_counter() - began
        answered, self._stop = sum(self.statuses.values()), True
        for transport in senders:
            transport.abort()
        ordered = sorted(self.latencies) or [0.0]

        def percentile(share: float) -> float:
            return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return Result(
            answered=answered,
            seconds=took,
            statuses=dict(self.statuses),
            p50=percentile(0.5),
            p99=percentile(0.99),
            worst=1000 * ordered[-1],
        )

    async def _by_the_clock(self, began: float) -> None:
        assert self.settings.rate is not None
        sent = 0
        while (now := time.perf_counter()) - began < self.settings.seconds:
            due = int((now - began) * self.settings.rate)
            for number in range(sent, due):
                at = began + number / self.settings.rate
                if self._free:
                    self._free.popleft().send(at)
                else:
                    self._waiting.append(at)
            sent = max(sent, due)
            await asyncio.sleep(0.001)


def main() -> None:
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    result = uvloop.run(Load(sys.argv[1], settings).run())
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
