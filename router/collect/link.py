"""The link between a collecting process and the one that keeps the outbox: messages over a pair of connected sockets.

A message is four bytes of length and MessagePack. What is sent in one round of the event loop leaves in one write, and
an answer names the number of its question. Nothing secret crosses: keys go as digests, a webhook is looked at over there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import structlog

from router.collect.answers import encode
from router.collect.intake import Answer, Intake, Tally, settle, tell_all, when_done
from router.collect.keys import Keyring
from router.collect.preparing import Job, Prepared
from router.collect.rounds import Rounds
from router.collect.webhooks import WebhookResult, Webhooks
from router.outbox.errors import Broken, Busy, DiskFull, NotDurable

log: Any = structlog.get_logger()

T = TypeVar("T")

LENGTH = 4
TELL = 1.0  # seconds in which refusals are told together: a flood of them is one message


class Begin(msgspec.Struct, tag=1, array_like=True):
    """To a collecting process: listen here, as this configuration says."""

    host: str
    port: int
    keyring: Keyring
    trusted_proxies: tuple[str, ...]
    strict_utf8: bool
    log_level: str


class Keys(msgspec.Struct, tag=2, array_like=True):
    """After a reload."""

    keyring: Keyring


class Forget(msgspec.Struct, tag=3, array_like=True):
    """Somebody was erased: remember nothing of what was sent."""


class Drain(msgspec.Struct, tag=4, array_like=True):
    """Take nothing new, answer what was admitted, and end."""


class Answered(msgspec.Struct, tag=5, array_like=True):
    number: int
    answers: list[bytes]  # JSON


class WebhookDone(msgspec.Struct, tag=6, array_like=True):
    number: int
    result: WebhookResult


class NotStored(msgspec.Struct, tag=7, array_like=True):
    number: int
    code: str
    message: str


class Ready(msgspec.Struct, tag=8, array_like=True):
    """From a collecting process: it listens."""


class Store(msgspec.Struct, tag=9, array_like=True):
    """What was prepared in one round."""

    number: int
    prepared: list[Prepared]


class Refusals(msgspec.Struct, tag=11, array_like=True):
    """Requests that were refused as a whole, since the last of these."""

    counts: dict[tuple[str, str], int]  # by source and code


class WebhookPosted(msgspec.Struct, tag=10, array_like=True):
    number: int
    name: str
    raw: bytes
    signature: str


Order: TypeAlias = Begin | Keys | Forget | Drain | Answered | WebhookDone | NotStored  # to a collecting process
Report: TypeAlias = Ready | Store | WebhookPosted | Refusals  # from one

_encode = msgspec.msgpack.Encoder().encode
_FAULTS: dict[str, type[NotDurable]] = {fault.code: fault for fault in (Busy, DiskFull, Broken, NotDurable)}


class Wire(asyncio.Protocol):
    """One end. ``received`` is called with every message, ``lost`` once, when the other end is gone."""

    def __init__(self, kind: Any, received: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._received, self._lost = received, lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._leaving: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, message: Order | Report) -> None:
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._leave)
        body = _encode(message)
        self._leaving.append(len(body).to_bytes(LENGTH))
        self._leaving.append(body)

    def _leave(self) -> None:
        leaving, self._leaving = b"".join(self._leaving), []
        if self._transport is not None:
            self._transport.write(leaving)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= LENGTH:
            end = start + LENGTH + int.from_bytes(buffer[start : start + LENGTH])
            if len(buffer) < end:
                break
            self._received(self._decode(memoryview(buffer)[start + LENGTH : end].tobytes()))
            start = end
        del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._lost()

    def close(self) -> None:
        if self._transport is not None:
            self._leave()
            self._transport.close()


class Remote:
    """The outbox's side as a collecting process sees it: takes requests and webhooks as if it were here."""

    def __init__(self, wire: Wire, new_id: Callable[[], str]) -> None:
        self.rounds = Rounds(self._prepared, new_id)
        self._wire = wire
        self._numbers = itertools.count()
        self._asked: dict[int, Callable[[Any], None]] = {}
        self._lost = False

    def _prepared(self, jobs: Sequence[Job]) -> None:
        """What needs the outbox happens over there."""
        number = self._ask(partial(tell_all, jobs))
        self._wire.send(Store(number, [each.prepared for each in jobs]))

    async def receive(self, name: str, raw: bytes, signature: str) -> WebhookResult:
        """As ``Webhooks.receive``."""
        result: asyncio.Future[WebhookResult] = asyncio.get_running_loop().create_future()
        self._wire.send(WebhookPosted(self._ask(partial(settle, result)), name, raw, signature))
        return await result

    def _ask(self, done: Callable[[Any], None]) -> int:
        """A question's number; ``done`` is told the answer."""
        number = next(self._numbers)
        self._asked[number] = done
        if self._lost:
            asyncio.get_running_loop().call_soon(self.lost)
        return number

    def lost(self) -> None:
        """Nobody is there any more to answer."""
        self._lost = True
        asked, self._asked = self._asked, {}
        for done in asked.values():
            done(NotDurable("the process that keeps the outbox is gone"))

    def answered(self, message: Answered | WebhookDone | NotStored) -> None:
        done = self._asked.pop(message.number)
        match message:
            case Answered(answers=answers):
                done(answers)
            case WebhookDone(result=result):
                done(result)
            case NotStored(code=code, message=why):
                done(_FAULTS.get(code, NotDurable)(why))


class RefusalCount(Tally):
    """Counts what a collecting process refuses as a whole, for the first process to know."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._counts: Counter[tuple[str, str]] = Counter()

    def refused(self, source: str, code: str, count: int = 1) -> None:
        if not self._counts:
            asyncio.get_running_loop().call_later(TELL, self.tell)
        self._counts[source, code] += count

    def tell(self) -> None:
        if self._counts:
            self._wire.send(Refusals(dict(self._counts)))
            self._counts.clear()


class Desk:
    """Answers one collecting process, on the outbox's side."""

    def __init__(self, wire: Wire, intake: Intake, webhooks: Webhooks) -> None:
        self._wire, self._intake, self._webhooks = wire, intake, webhooks
        self._open: set[asyncio.Future[Any]] = set()  # questions

    def asked(self, message: Store | WebhookPosted | Refusals) -> None:
        match message:
            case Refusals(counts=counts):
                for (source, code), count in counts.items():
                    self._intake.tally.refused(source, code, count)
            case Store(number=number, prepared=prepared):
                when_done(self._kept(self._intake.store(prepared)), partial(self._stored, number))
            case WebhookPosted():
                self._kept(asyncio.create_task(self._receive(message)))

    def _kept(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """It counts as open until it is done."""
        self._open.add(future)
        when_done(future, self._open.discard)
        return future

    async def settled(self) -> None:
        """Until every question is answered: what a process that is gone has asked is stored all the same."""
        if self._open:
            await asyncio.wait(set(self._open))

    def _stored(self, number: int, answered: asyncio.Future[list[Answer]]) -> None:
        if (fault := answered.exception()) is not None:
            self._fail(number, fault)
        else:
            self._wire.send(Answered(number, [encode(each) for each in answered.result()]))

    async def _receive(self, message: WebhookPosted) -> None:
        try:
            result = await self._webhooks.receive(message.name, message.raw, message.signature)
        except Exception as fault:  # noqa: BLE001 - as above
            self._fail(message.number, fault)
            return
        self._wire.send(WebhookDone(message.number, result))

    def _fail(self, number: int, fault: BaseException) -> None:
        if not isinstance(fault, NotDurable):
            log.error("collect_failed", exc_info=fault)
            fault = NotDurable("a fault of ours")
        self._wire.send(NotStored(number, fault.code, str(fault)))
