"""Proof: whatever a partner does on the wire, each delivery ends as the reference says, and no secret goes astray.

A raw-socket server misbehaves in every way of ``BEHAVIOURS``. Each is put before every destination (a column; some take
single events and batches), once as a single exchange and once through the delivery engine with a real outbox, where the
partner then recovers and everything that has no end yet must get one. What each cell must give is ``MEANS``, a table
written from the partners' documents and RFC 9110, not from the code. Then private addresses in every spelling: nothing
may be dialled. One JSON line says the verdict.

    python -m tests.proof.partners

Two controls must fail: a guard that looks at names before the dial and not at the dial, and redirects that are followed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime as dt
import email.utils
import gzip
import hashlib
import io
import ipaddress
import json
import logging
import resource
import socket
import sqlite3
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from destinations import CommandersAct, IpSnare, LinkTrace, Snap, Webhook
from router import logs, transport
from router.clock import SystemClock
from router.delivery.ends import Job
from router.delivery.engine import Delivery
from router.delivery.sender import Sender
from router.destination import Destination, Request, Response
from router.event import Clear, Digests, Event, Money, Page, User
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outcome import Delivered, Outcome, Retry
from router.secret import Secret
from router.transport import MAX_ANSWER, Transport
from tests.builders import NOW, an_event, rows
from tests.stepped import SteppedClock

# Short where the partner never answers, so that many such cells fit; long where it does, so that a busy machine
# changes no verdict.
IMPATIENT, PATIENT = "600ms", "20s"
EVENTS = 2  # of each lane
BOUND = 48 * 1024 * 1024  # bytes: what an endless answer may cost; sockets and their buffers hold some of it
STAND_IN = "127.0.0.2"  # a public address, where the proof says so: there is no other in a closed machine
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, for no time; close() sends RST (socket(7))

# Destinations and what they say when they took it


class Column(NamedTuple):
    """A destination as the proof configures it. ``good`` is its own answer of success."""

    name: str
    batch: int
    good_status: int
    good_body: bytes


COLUMNS = (
    Column("snap", 1, 200, b'{"status":"VALID","reason":"All events processed"}'),
    Column("snap", EVENTS, 200, b'{"status":"VALID","reason":"All events processed"}'),
    Column("linktrace", 1, 202, b'{"success":true,"queued":true}'),
    Column("ipsnare", 1, 200, b'{"success":true}'),
    Column("commandersact", 1, 200, b""),
    Column("commandersact", EVENTS, 200, b""),
    Column("webhook", 1, 200, b'{"ok":true}'),
    Column("webhook", EVENTS, 200, b'{"ok":true}'),
)

# What a client sees on the wire, and what it means for each column: Delivered, Unverified, reTry, Rejected, Split, Hold.
#
# "Rules that hold everywhere": failures, 408, 425, 429, 5xx retry; 3xx, 401, 403 hold; 413 and other 4xx split a batch
# and reject one. A status above 599 counts as 5xx (RFC 9110, section 15), an upgrade nobody asked for is no answer
# (section 15.2.2). What no partner documents proves nothing: unverified, but for a webhook, where the status is the
# contract. 410 holds: the address is gone for every event. TLS and a private address hold: no retry mends them.
# Bytes beyond an answer's end, come with it, make it garbage: retry, by the same dedup key.
# Snap: 404 is an unknown pixel. LinkTrace: 404 without its code, IP Snare: its one address, so the address is wrong.
MEANS = """
             snap snap* linktrace ipsnare commandersact commandersact* webhook webhook*
good         D    D     D         D       U             U              D       D
200          U    U     U         U       U             U              D       D
201          U    U     U         U       U             U              D       D
204          U    U     U         U       U             U              D       D
206          U    U     U         U       U             U              D       D
3xx          H    H     H         H       H             H              H       H
400          R    S     R         R       R             S              R       S
401          H    H     H         H       H             H              H       H
402          R    S     R         R       R             S              R       S
403          H    H     H         H       H             H              H       H
404          H    H     H         H       R             S              R       S
405          R    S     R         R       R             S              R       S
408          T    T     T         T       T             T              T       T
409          R    S     R         R       R             S              R       S
410          H    H     H         H       H             H              H       H
413          R    S     R         R       R             S              R       S
415          R    S     R         R       R             S              R       S
418          R    S     R         R       R             S              R       S
422          R    S     R         R       R             S              R       S
425          T    T     T         T       T             T              T       T
429          T    T     T         T       T             T              T       T
431          R    S     R         R       R             S              R       S
5xx          T    T     T         T       T             T              T       T
101          T    T     T         T       T             T              T       T
connect      T    T     T         T       T             T              T       T
closed       T    T     T         T       T             T              T       T
timeout      T    T     T         T       T             T              T       T
name         T    T     T         T       T             T              T       T
tls          H    H     H         H       H             H              H       H
blocked      H    H     H         H       H             H              H       H
"""
_WORDS = {"D": "delivered", "U": "unverified", "T": "retry", "R": "rejected", "S": "split", "H": "hold"}


def meaning(seen: str, column: Column) -> str:
    """What ``MEANS`` says."""
    row = {"3": "3xx", "5": "5xx", "9": "5xx"}.get(seen[0], seen) if seen[0].isdigit() else seen
    (cells,) = (line.split()[1:] for line in MEANS.splitlines() if line.split()[:1] == [row])
    return _WORDS[cells[COLUMNS.index(column)]]


def canary(column: Column, behaviour: str) -> str:
    """The secret of one cell; whoever is not its partner must never hold it."""
    return "canary-" + hashlib.sha256(f"{label(column)} {behaviour}".encode()).hexdigest()[:24]


def destination(column: Column, behaviour: Behaviour, url: str) -> Destination:
    key = canary(column, behaviour.name)
    common: dict[str, Any] = {
        "base_url": url,
        "allow_private": behaviour.private,
        "timeout": PATIENT if behaviour.answers else IMPATIENT,
        "concurrency": 1,
        "batch": column.batch,
        "rate": "1000/s",
    }
    match column.name:
        case "snap":
            return Snap(pixel_id="11111111-2222-3333-4444-555555555555", access_token=Secret(key), **common)
        case "linktrace":
            return LinkTrace(api_key=Secret(key), **common)
        case "ipsnare":
            return IpSnare(api_key=Secret(key), events=("purchase",), **common)
        case "commandersact":
            return CommandersAct(site="1234", token=Secret(key), **common)
    signing = "whsec_" + base64.b64encode(key.encode()).decode()
    return Webhook(url=url, secrets=(Secret(signing),), **common)


def events() -> list[Event]:
    """Events that every destination can express."""
    return [
        an_event(
            f"e-{number}",
            name="purchase",
            user=User(id=f"u-{number}", anonymous_id=f"a-{number}", digests=Digests(email="a" * 64)),
            page=Page(url="https://shop.example/thanks"),
            money=Money(value="12.5", currency="EUR", order_id=f"o-{number}"),
            clear=Clear(ip="192.0.2.7", user_agent="Mozilla/5.0 (X11; Linux x86_64)", country="FR"),
            properties={
                "link_short_code": "SUMMER24",
                "source_id": "s",
                "source_click_id": f"c-{number}",
                "job_id": "j",
                "job_country": "FR",
                "destination_id": "d",
            },
        )
        for number in range(1, EVENTS + 1)
    ]


# The partner


class Listener:
    """One address of a partner: it behaves in one way until it recovers, and records every byte that it gets."""

    def __init__(self, behaviour: Behaviour, column: Column, elsewhere: Listener | None) -> None:
        self.behaviour, self.column, self.elsewhere = behaviour, column, elsewhere
        self.port = 0
        self.recovered = False
        self.received = bytearray()
        self.connections = self.requests = self.sent = 0
        self.said = asyncio.Event()  # everything that one answer takes
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._lines: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        how = self.behaviour.listens
        if how == "refused":
            self._hold()
        elif how == "full":
            self._fill()
        else:
            self.port = await self._bind("127.0.0.1", context(how) if how in CERTIFICATES else None)

    async def recover(self) -> None:
        """From now on it is a good partner."""
        self.recovered = True
        for line in [*self._lines]:
            line.transport.abort()
        if self.behaviour.listens:
            await self._unbind()
            tls = context("good") if self.behaviour.scheme == "https" else None
            self.port = await self._bind("127.0.0.1", tls)
            if not self.behaviour.private:
                await self._bind(STAND_IN, tls)

    async def close(self) -> None:
        await self._unbind()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _bind(self, host: str, tls: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(self._serve, host, self.port, ssl=tls, limit=1 << 20)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _unbind(self) -> None:
        for server in self._servers:
            server.close()
        for each in self._sockets:
            each.close()
        for line in [*self._lines]:
            line.transport.abort()
        self._servers, self._sockets = [], []

    def _hold(self) -> None:
        """A port where nobody listens, and that nobody else can be given meanwhile."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self.port = held.getsockname()[1]
        self._sockets.append(held)

    def _fill(self) -> None:
        """A backlog that is full and that nobody empties: the next SYN gets no answer."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        self.port = listener.getsockname()[1]
        self._sockets.append(listener)
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self.port))
            self._sockets.append(waiting)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._lines.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(self, reader, writer)
        try:
            await (good if self.recovered else self.behaviour.script)(line)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has had enough
        except asyncio.CancelledError:
            pass  # the proof is over
        finally:
            self.said.set()
            self._lines.discard(writer)
            self._tasks.discard(task)
            writer.close()


class Line:
    """One connection to a partner."""

    def __init__(self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.listener, self._reader, self.writer = listener, reader, writer

    async def request(self) -> bytes:
        """One whole request: head and body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.listener.received += head
        lengths = [each for each in head.lower().split(b"\r\n") if each.startswith(b"content-length:")]
        body = await self._reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
        self.listener.received += body
        self.listener.requests += 1
        return head + body

    async def rest(self) -> None:
        """Read and record until the client goes."""
        while part := await self._reader.read(65_536):
            self.listener.received += part

    async def some(self) -> bytes:
        part = await self._reader.read(1)
        self.listener.received += part
        return part

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            self.listener.sent += len(part)
            await self.writer.drain()

    async def for_ever(self, part: bytes, pause: float = 0.0) -> None:
        while True:
            await self.say(part)
            await asyncio.sleep(pause)

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    def good(self, *headers: bytes) -> bytes:
        """The partner's own answer of success."""
        return self.http(self.listener.column.good_status, self.listener.column.good_body, *headers)

    @staticmethod
    def http(status: int, body: bytes = b"", *headers: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d Said" % status, b"Content-Length: %d" % len(body), *headers]
        return b"\r\n".join([*lines, b"", body])


Script = Callable[[Line], Awaitable[None]]


class Behaviour(NamedTuple):
    """One way to behave. ``seen`` is what a client must see (a row of ``MEANS`` or a status).

    ``answers``: does it answer or fail at once, so that a long timeout costs nothing? ``listens``: what is particular
    about the address itself, up to the first byte of HTTP. ``before``: exchanges before the one that is judged, over
    kept connections. ``wait``: seconds that the partner asked for. ``engine``: can several events follow one another?
    """

    name: str
    seen: str
    script: Script
    answers: bool = True
    listens: str = ""
    scheme: str = "http"
    host: str = "127.0.0.1"
    private: bool = True
    before: int = 0
    wait: tuple[float | None, ...] | None = None
    engine: bool = True


async def good(line: Line) -> None:
    while True:
        await line.request()
        await line.say(line.good())
        line.listener.said.set()


def answer(*parts: bytes) -> Script:
    """These bytes in answer to one request, then the end of the connection."""

    async def script(line: Line) -> None:
        await line.request()
        await line.say(*parts)

    return script


def kept(*parts: bytes) -> Script:
    """These bytes in answer to every request, over a connection that is kept."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(*parts)

    return script


def own(make: Callable[[Line], bytes]) -> Script:
    """An answer made from the partner's own, over a connection that is kept."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(make(line))
            line.listener.said.set()

    return script


def then(*parts: bytes, end: str) -> Script:
    """These bytes in answer to a request, then silence or a reset."""

    async def script(line: Line) -> None:
        await line.request()
        await line.say(*parts)
        if end == "reset":
            await asyncio.sleep(0.05)  # what was said is to arrive before the reset
            line.reset()
        else:
            await line.rest()

    return script


def endless(start: bytes, part: bytes, pause: float = 0.0) -> Script:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(start)
        await line.for_ever(part, pause)

    return script


async def silence(line: Line) -> None:
    await line.rest()


async def deaf(line: Line) -> None:
    """Accepts and reads nothing at all."""
    await asyncio.sleep(3600)


async def shut_at_once(line: Line) -> None:
    return


async def reset_at_once(line: Line) -> None:
    line.reset()


async def answers_unasked(line: Line) -> None:
    """The answer is under way before a byte of the request was read."""
    await line.say(line.good(b"Connection: close"))
    await line.rest()


async def refuses_unread(line: Line) -> None:
    """413 after the first byte of the request, the rest is never read."""
    await line.some()
    await line.say(line.http(413, b"", b"Connection: close"))
    await line.rest()


async def answers_plainly(line: Line) -> None:
    """Where TLS is spoken to it, it answers as HTTP does."""
    await line.some()
    await line.say(line.http(400))


async def refuses_the_version(line: Line) -> None:
    """A fatal alert, "protocol_version" (RFC 8446, section 6.2): what a server of TLS 1.1 answers."""
    await line.some()
    await line.say(b"\x15\x03\x01\0\x02\x02\x46")
    await line.rest()


async def speaks_first_as_another(line: Line) -> None:
    await line.say(b"220 mail.example ESMTP ready\r\n")
    await line.rest()


def stale(end: str) -> Script:
    """One good answer; the kept connection ends as the next request arrives."""

    async def script(line: Line) -> None:
        await line.request()
        await line.say(line.good())
        line.listener.said.set()
        await line.some()
        if end == "reset":
            line.reset()

    return script


def trailing(after: Callable[[Line], bytes], delay: float) -> Script:
    """One good answer with something behind it, which no later request must take for its answer."""

    async def script(line: Line) -> None:
        await line.request()
        if delay:
            await line.say(line.good())
            await asyncio.sleep(delay)
            await line.say(after(line))
        else:
            await line.say(line.good() + after(line))
        await asyncio.sleep(0.1)  # it has arrived; what arrives together with a request cannot be told from its answer
        line.listener.said.set()
        await good(line)

    return script


async def lies(line: Line) -> None:
    """A good answer, and another that nobody asked for; whatever is asked after that fails."""
    if line.listener.connections == 1:
        await line.request()
        await line.say(line.good())
        await asyncio.sleep(0.05)
        await line.say(line.good())
        await asyncio.sleep(0.1)
        line.listener.said.set()
    while True:
        await line.request()
        await line.say(line.http(503))


def moved(status: int, location: str) -> Script:
    """A redirect. ``{elsewhere}`` is another listener, ``{port}`` its port, ``{self}`` this one."""

    async def script(line: Line) -> None:
        other = line.listener.elsewhere
        assert other is not None
        here = f"127.0.0.1:{line.listener.port}"
        target = location.format(elsewhere=f"127.0.0.1:{other.port}", port=other.port, self=here)
        said = line.http(status, b"", *([f"Location: {target}".encode()] if location else []))
        while True:
            await line.request()
            await line.say(said)

    return script


def status(code: int, body: bytes = b"", *headers: bytes) -> Script:
    return kept(Line.http(code, body, *headers))


def echo(code: int) -> Script:
    """Repeats the whole request, key and all, in an error page."""

    async def script(line: Line) -> None:
        while True:
            said = await line.request()
            await line.say(line.http(code, said))

    return script


def http_date(seconds: float) -> bytes:
    return email.utils.format_datetime(dt.datetime.fromtimestamp(NOW / 1000 + seconds, dt.UTC), usegmt=True).encode()


BOMB = gzip.compress(bytes(1 << 20)) * 64  # 65 KB that become 64 MB
DEEP = b"[" * 200_000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ODD_JSON: dict[str, bytes] = {
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a text": b'"VALID"',
    "wrong types": b'{"status":7,"success":"true","deduplicated":1,"code":[],"errors":9,"event":"x","resetsOn":{}}',
    "wrong types inside": b'{"status":["VALID"],"success":{},"errors":[1,null,"x",[],{"field":[],"message":{}}]}',
    "numbers without end": b'{"status":' + b"9" * 5000 + b',"success":1e999999}',
    "NaN": b'{"status":NaN,"success":Infinity}',
    "twice": b'{"status":"INVALID","status":null}',
    "lone surrogate": b'{"status":"\\ud800","success":null}',
    "trailing": b'{"success":true,"status":"VALID"} and more',
}
WAITS: dict[str, tuple[tuple[bytes, ...], tuple[float | None, ...]]] = {
    "seconds": ((b"7",), (7.0,)),
    "date": ((http_date(60),), (60.0,)),
    "past date": ((http_date(-60),), (1.0,)),
    "year 9999": ((b"Fri, 31 Dec 9999 23:59:59 GMT",), (86_400.0,)),
    "zero": ((b"0",), (1.0,)),
    "a day and more": ((b"9999999",), (86_400.0,)),
    "negative": ((b"-5",), (None,)),
    "twenty digits": ((b"9" * 20,), (None,)),
    "1e9": ((b"1e9",), (None,)),
    "inf": ((b"inf",), (None,)),
    "nan": ((b"nan",), (None,)),
    "a fraction": ((b"1.5",), (None,)),
    "Arabic digits": (("٧".encode(),), (None,)),
    "garbage": ((b"soon \xff\xfe",), (None,)),
    "no such date": ((b"Mon, 99 Foo 2026 99:99:99 GMT",), (None,)),
    "empty": ((b"",), (None,)),
    "several": ((b"5", b"60"), (None, 5.0, 60.0)),
    "a list": ((b"5, 60",), (None, 5.0, 60.0)),
}

BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour("good", "good", good),
    # Silence and slowness
    Behaviour("accepts and reads nothing", "timeout", deaf, answers=False),
    Behaviour("reads and says nothing", "timeout", silence, answers=False),
    Behaviour("silent after the status line", "timeout", then(HEAD, end="silence"), answers=False),
    Behaviour("silent within a header", "timeout", then(HEAD + b"Content-Le", end="silence"), answers=False),
    Behaviour("silent after the headers", "timeout", then(HEAD + b"Content-Length: 9\r\n\r\n", end="silence"), False),
    Behaviour("silent within the body", "timeout", then(HEAD + b"Content-Length: 9\r\n\r\nx", end="silence"), False),
    Behaviour("silent within a chunk", "timeout", then(CHUNKED + b"5\r\nhel", end="silence"), answers=False),
    Behaviour("silent after 100", "timeout", then(b"HTTP/1.1 100 Continue\r\n\r\n", end="silence"), answers=False),
    Behaviour("drips headers", "timeout", endless(HEAD, b"x", 0.02), answers=False),
    Behaviour("drips the body", "timeout", endless(HEAD + b"Content-Length: 9999\r\n\r\n", b"x", 0.02), answers=False),
    Behaviour("drips chunks", "timeout", endless(CHUNKED, b"1\r\nx\r\n", 0.02), answers=False),
    # Ends without an answer
    Behaviour("reset at once", "closed", reset_at_once),
    Behaviour("reset after the request", "closed", then(end="reset")),
    Behaviour("reset after the status line", "closed", then(HEAD, end="reset")),
    Behaviour("closed at once", "closed", shut_at_once),
    Behaviour("closed after the request", "closed", answer()),
    Behaviour("half a status line", "closed", answer(b"HTTP/1.1 200")),
    Behaviour("half a header", "closed", answer(HEAD + b"X-A")),
    Behaviour("garbage", "closed", answer(b"\x16\x03\x01garbage\r\n\r\n")),
    Behaviour("every byte", "closed", answer(bytes(range(256)) * 64)),
    Behaviour("zeros", "closed", answer(b"\0" * 4096)),
    Behaviour("HTTP/0.9", "closed", answer(b"<html>welcome</html>")),
    Behaviour("HTTP/2", "closed", answer(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\4\0\0\xff\xff")),
    Behaviour("another protocol", "closed", speaks_first_as_another),
    Behaviour("status in two digits", "closed", answer(b"HTTP/1.1 20 OK\r\n\r\n")),
    Behaviour("status in four digits", "closed", answer(b"HTTP/1.1 2000 OK\r\n\r\n")),
    Behaviour("status in letters", "closed", answer(b"HTTP/1.1 two OK\r\n\r\n")),
    # Lengths and chunks
    Behaviour("length too long", "200", answer(HEAD + b"Content-Length: 100\r\n\r\n{")),
    Behaviour("length too short", "closed", kept(HEAD + b"Content-Length: 1\r\n\r\n{}{}{}")),
    Behaviour("length too long with an error", "503", answer(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n{")),
    Behaviour("reset within the body", "200", then(HEAD + b"Content-Length: 100\r\n\r\n{", end="reset")),
    Behaviour("negative length", "closed", answer(HEAD + b"Content-Length: -5\r\n\r\n")),
    Behaviour("length with a sign", "closed", answer(HEAD + b"Content-Length: +5\r\n\r\nhello")),
    Behaviour("length in words", "closed", answer(HEAD + b"Content-Length: five\r\n\r\nhello")),
    Behaviour("length without end", "closed", answer(HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nhello")),
    Behaviour("two lengths", "closed", answer(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")),
    Behaviour(
        "length and chunks",
        "closed",
        answer(HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ),
    Behaviour("chunks that are none", "closed", answer(CHUNKED + b"zz\r\nnonsense\r\n")),
    Behaviour("half a chunk", "200", answer(CHUNKED, b"5\r\nhel")),
    Behaviour("chunks without an end", "200", answer(CHUNKED, b"5\r\nhello\r\n")),
    Behaviour("a chunk of 2^68", "closed", answer(CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n")),
    Behaviour("a negative chunk", "closed", answer(CHUNKED + b"-5\r\nhello\r\n")),
    Behaviour("chunks without end", "200", endless(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n")),
    Behaviour("a body without end", "200", endless(HEAD + b"\r\n", b"x" * 65_536)),
    Behaviour("an error without end", "500", endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65_536)),
    Behaviour("ten megabytes", "200", kept(Line.http(200, b"x" * 10_000_000))),
    Behaviour("one byte a chunk", "200", answer(CHUNKED, b"1\r\nx\r\n" * 30_000, b"0\r\n\r\n")),
    Behaviour("blank lines without end", "timeout", endless(b"", b"\r\n" * 100, 0.02), answers=False),
    Behaviour("a chunk's size without end", "timeout", endless(CHUNKED, b"0" * 1000, 0.02), answers=False),
    Behaviour("a chunk's words without end", "timeout", endless(CHUNKED + b"1;", b"x" * 1000, 0.02), answers=False),
    Behaviour("trailers without end", "timeout", endless(CHUNKED + b"0\r\n", b"X-T: y\r\n", 0.02), answers=False),
    # Bodies
    Behaviour("gzip bomb", "200", kept(Line.http(200, BOMB, b"Content-Encoding: gzip"))),
    Behaviour("gzip that is none", "200", status(200, b"not packed", b"Content-Encoding: gzip")),
    Behaviour(
        "gzip nobody asked for",
        "200",
        status(200, gzip.compress(b'{"status":"VALID","success":true}'), b"Content-Encoding: gzip"),
    ),
    Behaviour("unknown packing", "200", status(200, b"x", b"Content-Encoding: br, zstd, x-own")),
    Behaviour("no text", "200", status(200, b"\xff\xfe\x00\xc3\x28")),
    Behaviour("no text within JSON", "200", status(200, b'{"status":"\xff\xfe","success":"\xc3\x28"}')),
    Behaviour("UTF-16", "200", status(200, '{"status":"VALID","success":true}'.encode("utf-16"))),
    Behaviour("an unknown charset", "200", status(200, b"{}", b"Content-Type: application/json; charset=none-such")),
    Behaviour("deep JSON", "200", status(200, DEEP)),
    *(Behaviour(f"JSON: {name}", "200", status(200, body)) for name, body in ODD_JSON.items()),
    Behaviour("HTML", "200", status(200, b"<!doctype html><h1>Welcome", b"Content-Type: text/html")),
    Behaviour("nothing", "200", status(200)),
    Behaviour("created", "201", status(201, b"made")),
    Behaviour("no content", "204", kept(b"HTTP/1.1 204 No Content\r\n\r\n")),
    Behaviour("no content with a body", "closed", answer(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello")),
    Behaviour("part of something", "206", status(206, b"{}", b"Content-Range: bytes 0-1/9")),
    Behaviour("repeats the request, 400", "400", echo(400)),
    Behaviour("repeats the request, 500", "500", echo(500)),
    Behaviour("repeats the request, 401", "401", echo(401)),
    # Around a good answer
    Behaviour("HTTP/1.0", "good", own(lambda line: line.good().replace(b"1.1", b"1.0", 1))),
    Behaviour("early hints", "good", own(lambda line: b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" * 3 + line.good())),
    Behaviour("continue unasked", "good", own(lambda line: b"HTTP/1.1 100 Continue\r\n\r\n" + line.good())),
    Behaviour("500 early hints", "good", own(lambda line: b"HTTP/1.1 103 Early\r\n\r\n" * 500 + line.good())),
    Behaviour("early hints without end", "timeout", endless(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 40, 0.002), False),
    Behaviour("an upgrade", "101", answer(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello")),
    Behaviour(
        "cookies",
        "good",
        own(lambda line: line.good(b"Set-Cookie: a=cookie-canary; Path=/", b"Set-Cookie: b")),
        before=1,
    ),
    Behaviour("100 headers", "good", own(lambda line: line.good(*(b"X-%d: y" % n for n in range(100))))),
    Behaviour("5000 headers", "closed", answer(HEAD + b"X-A: y\r\n" * 5000 + b"Content-Length: 0\r\n\r\n")),
    Behaviour("headers without end", "closed", endless(HEAD, b"X-A: " + b"y" * 4000 + b"\r\n")),
    Behaviour("a header of 7 KB", "good", own(lambda line: line.good(b"X-A: " + b"y" * 7000))),
    Behaviour("a header of 1 MB", "closed", answer(HEAD + b"X-A: " + b"y" * 1_000_000 + b"\r\n\r\n")),
    Behaviour("a reason of 1 MB", "closed", answer(b"HTTP/1.1 200 " + b"y" * 1_000_000 + b"\r\n\r\n")),
    Behaviour("NUL in a header", "closed", answer(HEAD + b"X-A: a\0b\r\nContent-Length: 0\r\n\r\n")),
    Behaviour("a bare CR in a header", "closed", answer(HEAD + b"X-A: a\rX-B: b\r\nContent-Length: 0\r\n\r\n")),
    Behaviour("a space before the colon", "closed", answer(HEAD + b"X-A : a\r\nContent-Length: 0\r\n\r\n")),
    Behaviour("a header without a name", "closed", answer(HEAD + b": a\r\nContent-Length: 0\r\n\r\n")),
    Behaviour("no text in a header", "good", own(lambda line: line.good(b"X-A: \xff\xfe\x80"))),
    # Kept connections
    Behaviour("ends the kept connection", "good", stale("close"), before=1),
    Behaviour("resets the kept connection", "good", stale("reset"), before=1),
    Behaviour("answers unasked", "good", answers_unasked),
    Behaviour("refuses without reading", "413", refuses_unread),
    Behaviour("answers twice", "good", trailing(lambda line: line.http(401), 0.0), before=1),
    Behaviour("answers twice, later", "good", trailing(lambda line: line.http(401), 0.05), before=1, engine=False),
    Behaviour("answers twice, later, then fails", "503", lies, before=1, engine=False),
    Behaviour("answers, garbage behind it", "closed", own(lambda line: line.good() + b"\0\xffgarbage\r\n\r\n")),
    Behaviour("answers, then garbage", "good", trailing(lambda _: b"\0\xff\r\n\r\n", 0.05), before=1, engine=False),
    Behaviour("answers, then half of one", "good", trailing(lambda _: b"HTTP/1.1 401 N", 0.05), before=1, engine=False),
    # Redirects
    *(
        Behaviour(f"{code} {name}", str(code), moved(code, location))
        for code in (301, 302, 303, 307, 308)
        for name, location in (("elsewhere", "http://{elsewhere}/in"), ("on itself", "/again"))
    ),
    Behaviour("307 in a loop", "307", moved(307, "http://{self}/v3/loop/events")),
    Behaviour("307 to https", "307", moved(307, "https://{elsewhere}/in")),
    Behaviour("307 without a scheme", "307", moved(307, "//{elsewhere}/in")),
    Behaviour("307 with another's name", "307", moved(307, "http://user:pass@localhost:{port}/in")),
    Behaviour("302 to a file", "302", moved(302, "file:///etc/passwd")),
    Behaviour("302 to a script", "302", moved(302, "javascript:alert(1)")),
    Behaviour("302 to nothing", "302", moved(302, "")),
    Behaviour("302 to no address", "302", moved(302, "http://[::1")),
    Behaviour("302 to a metadata address", "302", moved(302, "http://169.254.169.254/latest/meta-data/")),
    Behaviour("300", "300", moved(300, "http://{elsewhere}/in")),
    Behaviour("304", "304", kept(b"HTTP/1.1 304 Not Modified\r\n\r\n")),
    Behaviour("305", "305", moved(305, "http://{elsewhere}/")),
    # Statuses
    *(
        Behaviour(f"HTTP {code}", str(code), status(code, b"no"))
        for code in (400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 418, 422, 425, 429, 431)
    ),
    *(Behaviour(f"HTTP {code}", str(code), status(code, b"<h1>oops")) for code in (500, 501, 502, 503, 504, 520, 599)),
    Behaviour("HTTP 999", "999", status(999)),
    *(
        Behaviour(
            f"429, wait: {name}", "429", status(429, b"", *(b"Retry-After: " + value for value in values)), wait=wait
        )
        for name, (values, wait) in WAITS.items()
    ),
    Behaviour("503, wait: seconds", "503", status(503, b"", b"Retry-After: 7"), wait=(7.0,)),
    # Below HTTP
    Behaviour("refused", "connect", good, listens="refused"),
    Behaviour("a full backlog", "timeout", deaf, listens="full", answers=False),
    Behaviour("TLS: speaks none", "tls", answers_plainly, listens="plain", scheme="https"),
    Behaviour("TLS: only older versions", "tls", refuses_the_version, listens="plain", scheme="https"),
    Behaviour("TLS: never answers", "timeout", silence, listens="silent", scheme="https", answers=False),
    *(
        Behaviour(f"TLS: {name}", "tls", good, listens=name, scheme="https")
        for name in ("signed by itself", "unknown issuer", "expired", "not yet valid", "wrong name")
    ),
    Behaviour("TLS: good", "good", good, listens="good", scheme="https", host="partner.example"),
    Behaviour("DNS: unknown name", "name", good, listens="name", host="unknown.example"),
    Behaviour("DNS: server fails", "name", good, listens="name", host="servfail.example"),
    Behaviour("DNS: no address", "name", good, listens="name", host="empty.example"),
    Behaviour("DNS: never answers", "timeout", good, listens="name", host="hanging.example", answers=False),
    Behaviour(
        "DNS: bound anew", "blocked", good, listens="name", scheme="https", host="rebound.example", private=False
    ),
)
ELSEWHERE = Behaviour("elsewhere", "good", good)

# Certificates

CERTIFICATES = ("good", "signed by itself", "unknown issuer", "expired", "not yet valid", "wrong name")
NAMES = ("partner.example", "rebound.example", "moved.example")


class Issuer:
    """Signs certificates; the proof trusts the one of ``_issuers["known"]``."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _common_name("Issuer of the proof")
        self.certificate = self.sign(self.name, self.key, 0, 1, names=(), authority=True)

    def sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        first: int,
        last: int,
        *,
        names: Sequence[str],
        authority: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=first, hours=-1))
            .not_valid_after(now + dt.timedelta(days=last))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(authority=authority), critical=True)
        )
        if names:
            alternatives = [
                x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdigit() else x509.DNSName(each)
                for each in names
            ]
            made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return made.sign(self.key, hashes.SHA256())


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_issuers: dict[str, Issuer] = {}


def issuer(name: str) -> Issuer:
    if name not in _issuers:
        _issuers[name] = Issuer()
    return _issuers[name]


def context(kind: str) -> ssl.SSLContext:
    """A server's side of TLS with a certificate of that kind. Only its one fault is wrong about each."""
    key = ec.generate_private_key(ec.SECP256R1())
    by = issuer("unknown" if kind == "unknown issuer" else "known")
    subject = _common_name("partner.example")
    first, last = {"expired": (-9, -1), "not yet valid": (2, 9)}.get(kind, (0, 1))
    names = ("other.example",) if kind == "wrong name" else ("127.0.0.1", STAND_IN, *NAMES)
    if kind == "signed by itself":
        by = Issuer()
        by.key, by.name = key, subject
    certificate = by.sign(subject, key, first, last, names=names)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        pair.flush()
        made.load_cert_chain(pair.name)
    return made


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def trusting() -> Iterator[None]:
    """The issuer of the proof is trusted beside the machine's, as a partner's is."""
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(cadata=issuer("known").certificate.public_bytes(serialization.Encoding.PEM).decode())
    with replaced(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusted):
        yield


@contextlib.contextmanager
def stand_in_is_public() -> Iterator[None]:
    honest = transport.is_public
    with replaced(transport, "is_public", lambda address: address == STAND_IN or honest(address)):
        yield


# Names

_NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
_NO_ADDRESS = socket.gaierror(socket.EAI_NODATA, "No address associated with hostname")
_SERVER_FAILS = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class NameServer:
    """A resolver for the proof: names have addresses, faults, or another answer at every look-up. Nobody else is asked.

    Numbers in any spelling, and the machine's own names, are the machine's to read, without a network.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known
        self.released = threading.Event()
        self._ask = socket.getaddrinfo

    def look_up(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        answer = self.known.get(name.lower().rstrip("."))
        if answer is None:
            return self._of_the_machine(name, port, *args, **kwargs)
        if answer == "hang":
            self.released.wait(60)
            raise _SERVER_FAILS
        if isinstance(answer, OSError):
            raise answer
        if answer and isinstance(answer[0], list):  # another at every look-up; the last stays
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return [found for address in answer for found in self._ask(address, port, type=socket.SOCK_STREAM)]

    def _of_the_machine(self, name: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        hosts = {"localhost", "localhost.", "ip6-localhost", "vm", socket.gethostname().lower()}
        if name.lower() in hosts:
            return self._ask("127.0.0.1", port, type=socket.SOCK_STREAM) + self._ask(
                "::1", port, type=socket.SOCK_STREAM
            )
        try:
            socket.inet_aton(name)
        except (OSError, UnicodeError):
            kwargs["flags"] = kwargs.get("flags", 0) | socket.AI_NUMERICHOST
        return self._ask(name, port, *args, **kwargs)

    @contextlib.contextmanager
    def serving(self) -> Iterator[NameServer]:
        with replaced(socket, "getaddrinfo", self.look_up):
            try:
                yield self
            finally:
                self.released.set()


def names_of_the_behaviours() -> dict[str, Any]:
    return {
        "partner.example": ["127.0.0.1"],
        "unknown.example": _NO_NAME,
        "servfail.example": _SERVER_FAILS,
        "empty.example": _NO_ADDRESS,
        "hanging.example": "hang",
        "rebound.example": ["127.0.0.1"],
    }


def recovered_names() -> dict[str, Any]:
    return {name: [STAND_IN] if name == "rebound.example" else ["127.0.0.1"] for name in names_of_the_behaviours()}


# One exchange


class Cell(NamedTuple):
    behaviour: str
    column: str
    expected: str
    got: str


def label(column: Column) -> str:
    return column.name + ("*" if column.batch > 1 else "")


def word(outcome: Outcome) -> str:
    unverified = isinstance(outcome, Delivered) and outcome.unverified
    return "unverified" if unverified else type(outcome).__name__.lower()


@contextlib.asynccontextmanager
async def listening(column: Column, chosen: Sequence[Behaviour]) -> AsyncIterator[tuple[dict[str, Listener], Listener]]:
    """A listener for each behaviour by its name, and the one where redirects point."""
    elsewhere = Listener(ELSEWHERE, column, None)
    await elsewhere.open()
    opened = {each.name: Listener(each, column, elsewhere) for each in chosen}
    try:
        for each in opened.values():
            await each.open()
        yield opened, elsewhere
    finally:
        for each in (*opened.values(), elsewhere):
            await each.close()


def address(behaviour: Behaviour, listener: Listener) -> str:
    return f"{behaviour.scheme}://{behaviour.host}:{listener.port}"


async def exchange(column: Column, behaviour: Behaviour, listener: Listener) -> list[Cell]:
    """What a lane's sender makes of one answer: what it saw, what that means, how long it is to wait, what it cost."""
    clock = SteppedClock()
    sender = Sender("lane", destination(column, behaviour, address(behaviour, listener)), clock, 1)
    seen = ""
    on_the_wire = sender._transport.send

    async def watched(request: Request) -> Response | transport.Failure:
        nonlocal seen
        came = await on_the_wire(request)
        if isinstance(came, Response):
            taken = (column.good_status, column.good_body) == (came.status, came.body) and behaviour.seen == "good"
            seen = "good" if taken else str(came.status)
            if len(came.body) > MAX_ANSWER:
                seen = f"{len(came.body)} bytes"
        else:
            seen = came.kind
        return came

    sender._transport.send = watched  # type: ignore[method-assign]  # watched
    jobs = [Job(number, event) for number, event in enumerate(events()[: column.batch], 1)]
    try:
        ((request, carried),) = sender.write(jobs).requests
        for _ in range(behaviour.before):
            await sender.send(request, carried)
            async with asyncio.timeout(10):
                await listener.said.wait()
        outcome, _ = await sender.send(request, carried)
    finally:
        await sender.close()
    cells = [
        Cell(
            behaviour.name,
            label(column),
            f"{behaviour.seen}: {meaning(behaviour.seen, column)}",
            f"{seen}: {word(outcome)}",
        )
    ]
    if behaviour.wait is not None and not (isinstance(outcome, Retry) and outcome.after in behaviour.wait):
        waits = getattr(outcome, "after", None)
        cells.append(Cell(behaviour.name, label(column), f"wait {behaviour.wait}", f"wait {waits}"))
    if listener.sent > BOUND and "early" not in behaviour.name:
        cells.append(Cell(behaviour.name, label(column), "little is read", f"{listener.sent} bytes were taken"))
    return cells


async def exchanges(column: Column, chosen: Sequence[Behaviour] = BEHAVIOURS) -> tuple[list[Cell], list[str]]:
    """Every behaviour once before one column. Returns the cells and where a secret went that was not meant for it."""
    async with listening(column, chosen) as (opened, elsewhere):
        few = asyncio.Semaphore(64)

        async def one(behaviour: Behaviour) -> list[Cell]:
            async with few:
                try:
                    return await exchange(column, behaviour, opened[behaviour.name])
                except Exception as error:  # noqa: BLE001 - whatever is raised is what the proof looks for
                    return [Cell(behaviour.name, label(column), "no exception", type(error).__name__)]

        cells = [cell for made in await asyncio.gather(*map(one, chosen)) for cell in made]
        return cells, astray(column, opened, elsewhere)


def astray(column: Column, opened: dict[str, Listener], elsewhere: Listener) -> list[str]:
    """Who holds a byte that was not meant for it: another's key, a cookie that came back, anything at all elsewhere."""
    found = []
    if elsewhere.connections or elsewhere.received:
        found.append(f"{label(column)}: a redirect was followed")
    for name, listener in opened.items():
        rest = bytes(listener.received).replace(canary(column, name).encode(), b"")
        if b"canary-" in rest or b"Y2FuYXJ5" in rest:  # as it is, and as base64
            found.append(f"{label(column)}, {name}: another's key")
        if b"cookie-canary" in rest or b"\r\ncookie:" in rest.lower():
            found.append(f"{label(column)}, {name}: a cookie came back")
        if listener.behaviour.seen == "tls" and not listener.recovered and b"POST" in rest:
            found.append(f"{label(column)}, {name}: a request without trusted TLS")
    return found


# Private addresses


class Vector(NamedTuple):
    """One way to write, or to resolve to, an address that must not be dialled."""

    url: str  # with {port}
    known: dict[str, Any] = {}  # noqa: RUF012 - never changed: copied for every use


# Sources: the table of github.com/stripe/smokescreen; RFC 6890 and the IANA special-purpose registries; the clouds'
# metadata addresses; WHATWG URL, host parsing; RFC 6874 (zones).
_HOSTS = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0177.1", "0x7f000001", "0x7f.0.0.1",
    "0x7f.1", "0X7F000001", "127.0.0.1.", "127.0.0.1..", "127.127.127.127", "127.255.255.254", "0", "0.0.0.0",
    "00", "0x0", "000.000.000.000", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:1::1]",
    "[2001:0:7f00:1::1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "１２７.0.0.1", "１２７．０．０．１", "127。0。0。1",
    "①②⑦.0.0.1", "⑴⑵⑺.0.0.1", "[::１]", "localhost", "localhost.", "LOCALHOST", "LocalHost", "ｌｏｃａｌｈｏｓｔ", "ip6-localhost",
    "[::1%25lo]", "[::1%lo]", "[fe80::1%25lo]", "[fe80::1%25eth0]", "[fe80::1]", "169.254.169.254", "169.254.170.2",
    "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "192.0.0.192", "2852039166",
    "0xa9fea9fe", "0251.0376.0251.0376", "100.64.0.1", "100.127.255.254", "10.0.0.1", "10.1", "172.16.0.1",
    "172.31.255.254", "192.168.0.1", "192.168.257", "192.0.0.1", "192.88.99.1", "198.18.0.1", "192.0.2.1", "224.0.0.1",
    "[ff02::1]", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[2001:db8::1]", "[100::1]",
    "[3fff::1]", "[5f00::1]",
    # An address in another part of the URL, or hidden in a name
    "user:pass@127.0.0.1", "partner.example@127.0.0.1", "partner.example%40127.0.0.1", "127.0.0.1%00.partner.example",
    "127.0.0.1%2f.partner.example", "127.0.0.1\\@partner.example", "partner.example\\@127.0.0.1", "127.0.0.1\t",
    "127.0.0.1 ", "127.0.0.1\r\nHost: x", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "localhost%2e", "1\u00ad27.0.0.1",
    "127\u200b.0.0.1",
)  # fmt: skip
_RESOLVED: tuple[Any, ...] = (
    ["127.0.0.1"], ["127.8.8.8"], ["::1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["::"], ["10.0.0.1"], ["172.16.0.1"],
    ["192.168.0.1"], ["169.254.169.254"], ["100.64.0.1"], ["fd00:ec2::254"], ["fe80::1"], ["64:ff9b::7f00:1"],
    ["2002:7f00:1::1"], ["127.0.0.1", "::1"], ["10.0.0.1", "127.0.0.1"], ["8.8.8.8", "127.0.0.1"],
    ["127.0.0.1", "8.8.8.8"], ["2606:4700::1111", "127.0.0.1"], ["8.8.8.8", "::1"], ["::1", "2606:4700::1111"],
    ["8.8.8.8", "169.254.169.254", "::ffff:127.0.0.1"],
    [["8.8.8.8"], ["127.0.0.1"]], [["8.8.8.8"], ["::1"]], [["8.8.8.8", "1.1.1.1"], ["127.0.0.1", "8.8.8.8"]],
    [["8.8.8.8"], ["8.8.8.8"], ["127.0.0.1"]], [["2606:4700::1111"], ["::ffff:127.0.0.1"]],
)  # fmt: skip
_SCHEMES = (
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "HTTP://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/", "wss://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x",
    "file://127.0.0.1/etc/passwd", "unix:///run/x.sock", "//127.0.0.1:{port}/", "https:127.0.0.1:{port}/",
    "https:/127.0.0.1:{port}/", "https:///127.0.0.1:{port}/", "https://127.0.0.1:{port}#@partner.example/",
    "https://127.0.0.1:{port}?@partner.example/", "https://127.0.0.1:{port}/../../x", "https://@127.0.0.1:{port}/",
    "tcp://127.0.0.1:{port}/", "unix+https://127.0.0.1:{port}/",
)  # fmt: skip
_NAMED = {"partner.example": ["8.8.8.8"]}
VECTORS = (
    *(Vector(f"https://{host}:{{port}}/in", _NAMED) for host in _HOSTS),
    *(Vector("https://inside.example:{port}/in", {"inside.example": found}) for found in _RESOLVED),
    *(Vector(url, _NAMED) for url in _SCHEMES),
)
# Where a partner on a public address points to with a redirect.
POINTERS = (
    "http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://localhost:{port}/",
    "http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/",
    "http://169.254.169.254/latest/meta-data/", "http://inside.example:{port}/", "https://user@127.0.0.1:{port}/",
    "file:///etc/passwd",
)  # fmt: skip


class Dials:
    """Every address that is dialled while it looks on. What is not this machine is refused, so nothing leaves it."""

    def __init__(self) -> None:
        self.private: list[str] = []
        self.public = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[Dials]:
        loop = asyncio.get_running_loop()
        dial = loop.sock_connect

        async def watched(sock: socket.socket, address: Any) -> None:
            host = str(address[0])
            if host != STAND_IN and not transport.is_public(host):
                self.private.append(host)
            self.public += transport.is_public(host)
            if not _here(host):
                raise ConnectionRefusedError(111, "there is no network")
            await dial(sock, address)

        loop.sock_connect = watched  # type: ignore[assignment, method-assign]  # watched
        try:
            yield self
        finally:
            del loop.sock_connect  # type: ignore[attr-defined]  # it is there


def _here(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


class Counter:
    """A listener on the loopback addresses that counts who comes."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = bytearray()
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            self.received += await reader.read(65_536)
            writer.write(Line.http(200))
        writer.close()

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator[Counter]:
        servers = [await asyncio.start_server(self._serve, "127.0.0.1", 0)]
        self.port = servers[0].sockets[0].getsockname()[1]
        for host in ("::1", "127.127.127.127", "127.8.8.8"):
            with contextlib.suppress(OSError):  # a machine without IPv6
                servers.append(await asyncio.start_server(self._serve, host, self.port))
        try:
            yield self
        finally:
            for each in servers:
                each.close()


async def _asked(url: str) -> None:
    sender = Transport("guarded", SystemClock(), timeout=2.0, concurrency=2, allow_private=False)
    try:
        key = Secret("canary-ssrf")
        await sender.send(Request(url=url, body=b"canary-body", events=(), headers={"x-api-key": key}))
    finally:
        await sender.close()


async def private_addresses(vectors: Sequence[Vector] = VECTORS) -> dict[str, Any]:
    """Every vector against the guard: how many were tried, what was dialled, who came."""
    dials, counter, raised = Dials(), Counter(), []
    async with counter.counting():
        with dials.watching():
            for vector in vectors:
                known = {name: [*found] for name, found in vector.known.items()}
                with NameServer(known).serving():
                    lists = max([len(each) for each in known.values() if isinstance(each[0], list)], default=1)
                    for _ in range(lists):
                        try:
                            await _asked(vector.url.format(port=counter.port))
                        except Exception as error:  # noqa: BLE001 - whatever is raised is what the proof looks for
                            raised.append(f"{vector.url}: {type(error).__name__}")
            followed = await _pointed(counter)
    return {
        "vectors": len(vectors) + len(POINTERS),
        "connections": counter.connections,
        "dialled": sorted(set(dials.private)),
        "public": dials.public,
        "followed": followed,
        "raised": raised,
    }


async def _pointed(counter: Counter) -> int:
    """Redirects from a partner on a public address to private ones. Returns how many came back as what they are not."""
    wrong = 0
    for pointer in POINTERS:
        location = pointer.format(port=counter.port)

        async def redirect(line: Line, location: str = location) -> None:
            await line.request()
            await line.say(line.http(307, b"", f"Location: {location}".encode(), b"Connection: close"))

        behaviour = Behaviour("redirect", "307", redirect, listens="good", scheme="https", private=False)
        listener = Listener(behaviour, COLUMNS[0], None)
        listener.port = await listener._bind(STAND_IN, context("good"))
        known = {"moved.example": [STAND_IN], "inside.example": ["127.0.0.1"]}
        sender = Transport("pointed", SystemClock(), timeout=5.0, concurrency=2, allow_private=False)
        with NameServer(known).serving():
            request = Request(url=f"https://moved.example:{listener.port}/in", body=b"canary-body", events=())
            came = await sender.send(request)
        wrong += not (isinstance(came, Response) and came.status == 307)
        await sender.close()
        await listener.close()
    return wrong


@contextlib.contextmanager
def guard_by_name() -> Iterator[None]:
    """The control: names are resolved and judged, then resolved once more and dialled, and the dial is not judged."""
    honest = transport._Resolver._looked_up

    async def looked_up(self: Any, host: str, port: int, family: Any) -> list[Any]:
        if not all(transport.is_public(str(each[4][0])) for each in await honest(self, host, port, family)):
            raise OSError("blocked")
        return await honest(self, host, port, family)

    with (
        replaced(transport, "_guarded_socket", lambda info: socket.socket(*info[:3])),
        replaced(transport._Resolver, "_looked_up", looked_up),
    ):
        yield


@contextlib.contextmanager
def redirects_followed() -> Iterator[None]:
    """The other control: the client does as its library would by itself."""
    honest = aiohttp.ClientSession._request

    async def following(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await honest(self, *args, **{**kwargs, "allow_redirects": True})

    with replaced(aiohttp.ClientSession, "_request", following):
        yield


async def redirects_leak() -> int:
    """Bytes that reach the other host from the redirects of ``BEHAVIOURS``."""
    chosen = [each for each in BEHAVIOURS if each.name.endswith(" elsewhere")]
    column = COLUMNS[2]  # its key is a header of its own, which no library knows for one
    async with listening(column, chosen) as (opened, elsewhere):
        for each in chosen:
            await exchange(column, each, opened[each.name])
        return bytes(elsewhere.received).count(b"canary-")


# The engine


def lane_of(number: int) -> str:
    return f"lane-{number}"


async def through_engine(column: Column, chosen: Sequence[Behaviour] = BEHAVIOURS) -> tuple[list[Cell], list[str]]:
    """Every behaviour as a lane of one outbox: the end or the wait of each event; then all partners recover.

    Returns the cells, and what must not be: a lost event, a delivery that no partner got, a fault of ours, a secret.
    """
    chosen = [each for each in chosen if each.engine]
    names, clock = NameServer(names_of_the_behaviours()), SteppedClock()
    with tempfile.TemporaryDirectory() as name, names.serving(), logged() as log:
        directory = Path(name)
        async with listening(column, chosen) as (opened, elsewhere):
            lanes = {lane_of(number): each for number, each in enumerate(chosen)}
            made = {lane: destination(column, each, address(each, opened[each.name])) for lane, each in lanes.items()}
            store = await Outbox.open(directory / "outbox", clock)
            delivery = Delivery(store, clock)
            try:
                await delivery.apply(made)
                await store.append(rows(*events()))
                sums = await _until(
                    directory, lanes, lambda one: _settled(one) or bool(one["parked"] or one["hold_by"])
                )
                expected = {lane: meaning(each.seen, column) for lane, each in lanes.items()}
                cells = [
                    Cell(each.name, label(column), _AS_STATE[expected[lane]], _state(sums[lane]))
                    for lane, each in lanes.items()
                ]
                for listener in opened.values():
                    await listener.recover()
                names.known = recovered_names()
                names.released.set()
                for runner in delivery.lanes.values():  # what was looked up is kept for 30 s
                    session = runner._sender._transport._kept
                    if session is not None:
                        session.connector.clear_dns_cache()  # type: ignore[union-attr]  # it is there
                sums = await _until(directory, lanes, _settled, lambda: clock.step(900))
                await delivery.stop(2.0)
                reader = Reader(directory / "outbox")
                wrong = (
                    [f"{label(column)}: ledger differs by {off}"] if (off := (await reader.ledger()).difference) else []
                )
                wrong += [f"{label(column)}: {each}" for each in await reader.recount()]
            finally:
                await delivery.stop(2.0)
                await store.close()
            for lane, each in lanes.items():
                wrong += [
                    f"{label(column)}, {each.name}: {fault}"
                    for fault in _after(sums[lane], expected[lane], opened[each.name])
                ]
            wrong += astray(column, opened, elsewhere)
        kept = {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        kept["log"] = log.getvalue().encode()
        for lane, each in lanes.items():
            secret = canary(column, each.name).encode()
            for place, content in kept.items():
                if secret in content or base64.b64encode(secret) in content:
                    wrong.append(f"{label(column)}, {lane}: a secret in {Path(place).name}")
        wrong += [f"{label(column)}: the log says {fault}" for fault in _FAULTS_OF_OURS if fault in log.getvalue()]
        if '"attempt"' not in log.getvalue():
            wrong.append(f"{label(column)}: nothing was logged, so nothing was proven of it")
    return cells, wrong


_FAULTS_OF_OURS = ("carry_failed", "lane_failed", "outcome_failed", "mapping_failed", '"exception"')
_AS_STATE = {
    "delivered": "delivered",
    "unverified": "delivered, unverified",
    "retry": "waiting",
    "rejected": "dead",
    "split": "dead",  # each half is answered the same way, to the last event
    "hold": "held",
}
_COLUMNS_OF_A_LANE = ("delivered", "unverified", "dead", "parked", "hold_by")


def _settled(sums: dict[str, Any]) -> bool:
    return bool(sums["delivered"] + sums["dead"] == EVENTS)


def _state(sums: dict[str, Any]) -> str:
    match sums:
        case {"hold_by": "partner", "delivered": 0, "dead": 0}:
            return "held"
        case {"hold_by": None, "delivered": 0, "dead": 0, "parked": parked} if parked:
            return "waiting"
        case {"hold_by": None, "delivered": 0, "dead": dead, "parked": 0} if dead == EVENTS:
            return "dead"
        case {"hold_by": None, "delivered": delivered, "unverified": 0} if delivered == EVENTS:
            return "delivered"
        case {"hold_by": None, "delivered": delivered, "unverified": unverified} if delivered == unverified == EVENTS:
            return "delivered, unverified"
    return ", ".join(f"{name} {value}" for name, value in sums.items() if value)


def _after(sums: dict[str, Any], expected: str, listener: Listener) -> Iterator[str]:
    """What is wrong once the partner works again: each event is dead, where it was refused, or the partner has it."""
    refused = expected in {"rejected", "split"}
    if not _settled(sums) or sums["parked"] or sums["hold_by"]:
        yield f"it does not go on after the partner recovered: {_state(sums)}"
    elif bool(sums["dead"]) != refused:
        yield f"{sums['dead']} events died"
    if not refused:
        for number in range(1, EVENTS + 1):
            if not any(f'{kind}-{number}"'.encode() in listener.received for kind in ("e", "o")):
                yield f"event {number} was never received"


async def _until(
    directory: Path,
    lanes: dict[str, Behaviour],
    reached: Callable[[dict[str, Any]], bool],
    step: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """The sums of every lane once all are there, or after 200 steps."""
    connection = sqlite3.connect(f"file:{directory / 'outbox' / 'state.db'}?mode=ro", uri=True)
    try:
        async with asyncio.timeout(150):
            for _ in range(200):
                step()
                await asyncio.sleep(0.15)
                found = {
                    lane: dict(zip(_COLUMNS_OF_A_LANE, values, strict=True))
                    for lane, *values in connection.execute(f"SELECT name, {', '.join(_COLUMNS_OF_A_LANE)} FROM lane")
                }
                if all(reached(found[lane]) for lane in lanes):
                    break
    finally:
        connection.close()
    return found


@contextlib.contextmanager
def logged() -> Iterator[io.StringIO]:
    """The product's log at DEBUG; as it was before, afterwards."""
    written, before, root = io.StringIO(), structlog.get_config(), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in (None, *logs.PINNED)}
    handlers = root.handlers[:]
    logs.configure("debug", written, json=True)
    try:
        yield written
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        for each, level in levels.items():
            logging.getLogger(each).setLevel(level)


# The verdict

_PROVEN_BY_BODY = ("snap", "snap*", "linktrace", "ipsnare")  # a status alone says less there than the documented body

# Where the product does not yet do what the tables say; ("*" is every column). A cell that keeps its promise again must
# leave this list, or the proof fails.
OPEN = {}


def misclassified(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.expected != cell.got]


def is_open(behaviour: str, column: str) -> bool:
    return (behaviour, "*") in OPEN or (behaviour, column) in OPEN


def surprises(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that differ from the table and are not in ``OPEN``, or are and do not."""
    return [cell for cell in cells if (cell.expected != cell.got) != is_open(cell.behaviour, cell.column)]


@contextlib.contextmanager
def in_the_proof() -> Iterator[None]:
    with trusting(), stand_in_is_public():
        yield


async def every_exchange() -> tuple[list[Cell], list[str]]:
    cells, wrong = [], []
    for column in COLUMNS:
        with NameServer(names_of_the_behaviours()).serving():
            made, astray_there = await exchanges(column)
        cells += made
        wrong += astray_there
    return cells, wrong


async def every_lane() -> tuple[list[Cell], list[str]]:
    cells, wrong = [], []
    for column in COLUMNS:
        made, faults = await through_engine(column)
        cells += made
        wrong += faults
    return cells, wrong


def faults_besides(wrong: Sequence[str]) -> list[str]:
    """Those that do not follow from a cell of ``OPEN``."""
    return [each for each in wrong if not is_open(each.partition(", ")[2].partition(":")[0], each.partition(",")[0])]


async def prove() -> dict[str, Any]:
    """Run all of it. The verdict is "ok" or counts what is wrong."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with in_the_proof():
        cells, wrong = await every_exchange()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        made, faults = await every_lane()
        addresses = await private_addresses()
        with guard_by_name():
            by_name = await private_addresses()
        with redirects_followed():
            leaked = await redirects_leak()
    cells += made
    wrong += faults
    bad = misclassified(cells)
    ok = not (bad or wrong or addresses["connections"] or addresses["dialled"] or addresses["followed"])
    ok = ok and not addresses["raised"] and by_name["connections"] > 0 and leaked > 0
    return {
        "name": "partners",
        "behaviours": len(BEHAVIOURS),
        "destinations": len({column.name for column in COLUMNS}),
        "columns": len(COLUMNS),
        "cells": len(cells),
        "misclassified": len(bad),
        "open": sorted({f"{cell.behaviour}: {cell.column}" for cell in bad}),
        "wrong": wrong,
        "vectors": addresses["vectors"],
        "connections": addresses["connections"],
        "dialled": addresses["dialled"],
        "raised": addresses["raised"],
        "control connections": by_name["connections"],
        "control leaks": leaked,
        "grown_mb": round(grown / 1024),
        "verdict": "ok" if ok else "wrong",
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    result = asyncio.run(prove())
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
