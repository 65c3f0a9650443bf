"""The link between a collecting process and the one that keeps the outbox: messages over a pair of connected sockets.

A message is four bytes of length and MessagePack. What is sent in one round of the event loop leaves in one write, and
an answer names the number of its question. Nothing secret crosses: keys go as digests, a webhook is looked at over there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias, cast

import msgspec
import structlog

from router.body import Body
from router.collect.admission import Turns
from router.collect.intake import Answer, Intake
from router.collect.keys import Keyring, Sender
from router.collect.prepared import Prepared, prepare
from router.collect.webhooks import Told, Webhooks
from router.door import Visit
from router.outbox.errors import Broken, Busy, DiskFull, NotDurable

log: Any = structlog.get_logger()

LENGTH = 4


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
    answer: Answer


class Heard(msgspec.Struct, tag=6, array_like=True):
    number: int
    told: Told


class NotStored(msgspec.Struct, tag=7, array_like=True):
    number: int
    code: str
    message: str


class Ready(msgspec.Struct, tag=8, array_like=True):
    """From a collecting process: it listens."""


class Store(msgspec.Struct, tag=9, array_like=True):
    number: int
    prepared: Prepared


class Tell(msgspec.Struct, tag=10, array_like=True):
    number: int
    name: str
    raw: bytes
    signature: str


Order: TypeAlias = Begin | Keys | Forget | Drain | Answered | Heard | NotStored  # to a collecting process
Report: TypeAlias = Ready | Store | Tell  # from one

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

    def __init__(self, wire: Wire, new_id: Callable[[], str], turns: Turns) -> None:
        self._wire, self._new_id, self._turns = wire, new_id, turns
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def take(self, body: Body, sender: Sender, visit: Visit) -> Answer:
        """As ``Intake.take``; what needs the outbox happens over there."""
        prepared = await prepare(body, sender, visit, self._new_id, self._turns)
        for row in prepared.rows:
            row.event = None  # its payload goes, and is decoded where somebody asks
        return cast(Answer, await self._ask(lambda number: Store(number, prepared)))

    async def tell(self, name: str, raw: bytes, signature: str) -> Told:
        """As ``Webhooks.tell``."""
        return cast(Told, await self._ask(lambda number: Tell(number, name, raw, signature)))

    async def _ask(self, question: Callable[[int], Report]) -> Any:
        number = next(self._numbers)
        self._asked[number] = future = asyncio.get_running_loop().create_future()
        self._wire.send(question(number))
        try:
            return await future
        finally:
            del self._asked[number]

    def lost(self) -> None:
        """Nobody is there any more to answer."""
        for future in self._asked.values():
            if not future.done():
                future.set_exception(NotDurable("the process that keeps the outbox is gone"))

    def answered(self, message: Answered | Heard | NotStored) -> None:
        future = self._asked.get(message.number)
        if future is None or future.done():
            return
        match message:
            case Answered(answer=answer):
                future.set_result(answer)
            case Heard(told=told):
                future.set_result(told)
            case NotStored(code=code, message=why):
                future.set_exception(_FAULTS.get(code, NotDurable)(why))


class Desk:
    """Answers one collecting process, on the outbox's side. What came in one round of the event loop is stored as one."""

    def __init__(self, wire: Wire, intake: Intake, webhooks: Webhooks) -> None:
        self._wire, self._intake, self._webhooks = wire, intake, webhooks
        self._came: list[Store] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def asked(self, message: Store | Tell) -> None:
        if isinstance(message, Tell):
            self._begin(self._tell(message))
            return
        if not self._came:
            asyncio.get_running_loop().call_soon(self._take)
        self._came.append(message)

    async def settled(self) -> None:
        """Until every question is answered: what a process that is gone has asked is stored all the same."""
        self._take()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self) -> None:
        came, self._came = self._came, []
        if came:
            self._begin(self._store(came))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store(self, came: list[Store]) -> None:
        try:
            answers = await self._intake.store([each.prepared for each in came])
        except Exception as fault:  # noqa: BLE001 - whoever waits over there must be told, whatever went wrong
            self._fail([each.number for each in came], fault)
            return
        for each, answer in zip(came, answers, strict=True):
            self._wire.send(Answered(each.number, answer))

    async def _tell(self, message: Tell) -> None:
        try:
            told = await self._webhooks.tell(message.name, message.raw, message.signature)
        except Exception as fault:  # noqa: BLE001 - as above
            self._fail([message.number], fault)
            return
        self._wire.send(Heard(message.number, told))

    def _fail(self, numbers: Sequence[int], fault: Exception) -> None:
        if not isinstance(fault, NotDurable):
            log.error("collect_failed", exc_info=fault)
            fault = NotDurable("a fault of ours")
        for number in numbers:
            self._wire.send(NotStored(number, fault.code, str(fault)))
