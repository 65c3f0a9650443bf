"""The collect endpoint over HTTP: paths, deadlines, limits, keys and CORS.

Content-Type is not trusted (browsers and SDKs label JSON as text or as a form), and neither is anything else that was
not measured here. Bodies are read under a deadline of our own, because the server has none, and inflated under our own
cap.

Senders whose addresses these are: Commanders Act (/events, /events/batch, the pixel), Segment and RudderStack (/v1/...
and its one-letter forms, /beacon/v1/batch). RudderStack's and PostHog's SDKs take 202 for a failure, so success is 200.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.hdrs import AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from multidict import MultiMapping, istr

from router import body as bodies
from router.clock import Clock
from router.collect import keys
from router.collect.admission import Admission
from router.collect.answers import GIF, Reply, allowed, closing, encode, malformed, refused, wire_allowing, wire_refusal
from router.collect.connections import Connection
from router.collect.intake import Answer, Tally
from router.collect.keys import Keyring, Sender
from router.collect.network import Network
from router.collect.preparing import UNAUTHORIZED, Job
from router.collect.rounds import Rounds
from router.collect.webhooks import SIGNATURE, WebhookResult
from router.failpoint import failpoint
from router.outbox.errors import Busy, NotDurable
from router.problem import Error, Malformed
from router.visit import Visit

log: Any = structlog.get_logger()

BODY_DEADLINE = 10.0  # seconds for a whole body
UNDER_WAY = 32 * 1024 * 1024  # bytes of half bodies; a thousand slow senders must not take the memory
LATEST = 5  # seconds that whoever is sent away is asked to wait, at most

_LETTERS = {"t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias", "b": None}
_CALLS = ("track", "page", "screen", "identify", "group", "alias")
# path -> the kind of call that it implies; None: the item says it
PATHS: dict[str, str | None] = {
    "/collect": None,
    "/events": None,
    "/events/batch": None,
    "/v1/batch": None,
    "/beacon/v1/batch": None,
    **{f"/v1/{call}": call for call in _CALLS},
    **{f"/v1/{letter}": call for letter, call in _LETTERS.items()},
}
PIXELS = frozenset({"/events", "/collect"})
WEBHOOKS = "/webhooks/"  # and the name of the source

_ALLOWED_HEADERS = (
    "authorization, content-type, content-encoding, x-api-key, x-retry-count, idempotency-key, traceparent"
)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
ORIGIN, API_KEY, TEST = istr("Origin"), istr("x-api-key"), istr("x-turnout-test")
AGENT, FORWARDED = istr("User-Agent"), istr("X-Forwarded-For")
KNOWN = 1024  # addresses with keys that are remembered, and heads

_K = TypeVar("_K")
_V = TypeVar("_V")

_BUSY = Error(code="busy", message="too much is under way; send it again later")
_REFUSALS = [wire_refusal(HTTPStatus.TOO_MANY_REQUESTS, _BUSY, "keep-alive", 1 + some) for some in range(LATEST)]


class _Known(NamedTuple):
    """A request's address and key, looked up: senders use the same ones for every request. Only right keys are kept."""

    method: str
    path: str
    sender: Sender | None  # None: the key is in the body


class Head(NamedTuple):
    """What the head of a request says. Of an ordinary POST the same one comes again and again: only the body is new."""

    sender: Sender | None  # None: the key is in the body
    call: str | None
    length: int  # bytes of the body; -1 where it was sent in chunks
    encoding: str | None
    origin: str | None
    forwarded: str | None
    agent: str | None
    test: bool


class WebhookReceiver(Protocol):
    """Takes what a source's partner posts; NotDurable where it is not on disk."""

    async def receive(self, name: str, raw: bytes, signature: str) -> WebhookResult: ...


class Collector:
    """Answers requests, once their jobs have gone through ``rounds``. ``draining`` is set while the application stops."""

    def __init__(
        self,
        rounds: Rounds,
        webhooks: WebhookReceiver,
        keyring: Keyring,
        clock: Clock,
        *,
        network: Network,
        admission: Admission | None = None,
        tally: Tally | None = None,
        strict_utf8: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.keyring = keyring
        self.draining = False
        self._admission = admission or Admission()
        self.tally = tally or Tally()
        self._webhooks = webhooks
        self._under_way = 0  # bytes of bodies that are not whole yet, of all connections
        self.rounds, self._clock, self._network, self._strict, self._chance = (
            rounds,
            clock,
            network,
            strict_utf8,
            chance,
        )

    @property
    def keyring(self) -> Keyring:
        return self._keyring

    @keyring.setter
    def keyring(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.forget()

    def forget(self) -> None:
        """Empty the memory of addresses and heads, which may hold more than a key, as an erasure asks."""
        self._known: dict[tuple[str, str, str | None, str | None], _Known] = {}
        self.heads: dict[bytes, Head] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        origin = request.headers.get(ORIGIN)
        try:
            if request.method == "OPTIONS" and origin is not None:
                return self._preflight(origin).response()
            reply, sender = await self._answer(request)
        except asyncio.CancelledError:
            raise
        except Exception as fault:  # noqa: BLE001 - nothing of ours may show; the sender tries again
            reply, sender = self._failed(fault), None
        self._count(reply, sender)
        if sender is None and origin is not None and self.keyring.listed(origin):
            reply = reply.allowing(origin)  # as a preflight: its pages must learn when to come back
        return _to(origin, sender, reply).response()

    def _count(self, reply: Reply, sender: Sender | None) -> None:
        """What is told of a request of which nothing was taken; that its events are lost shows nowhere else."""
        if reply.code:
            self.tally.refused("" if sender is None else sender.name, reply.code)

    def _failed(self, fault: Exception) -> Reply:
        log.error("collect_failed", exc_info=fault)
        return self._later(503, "internal", "this could not be handled; send it again later")

    # Browsers

    def _preflight(self, origin: str) -> Reply:
        if not self.keyring.listed(origin):
            return Reply(204, b"")
        asked = {
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": "7200",
        }
        return Reply(204, b"", allowed(origin) | asked)

    # One request

    def take(self, message: RawRequestMessage, payload: StreamReader, connection: Connection) -> Head | None:
        """Take a POST that came whole, to an address and with a key that were looked up before. Else it is not ordinary,
        and ``__call__`` answers it.
        """
        headers = message.headers
        known = self._known.get((message.method, message.path, headers.get(AUTHORIZATION), headers.get(API_KEY)))
        if known is None or known.sender is None or self.draining or message.version != HttpVersion11:
            return None
        if "charset" in headers.get(CONTENT_TYPE, "").lower():
            return None
        head = _head(known, headers, -1 if message.chunked else int(headers.get(CONTENT_LENGTH, 0)))
        self._begin(head, payload.read_nowait(), connection)
        return head

    def again(self, head: Head, body: bytes, connection: Connection) -> bool:
        """Take what came with a head that ``take`` has seen."""
        if self.draining or self._admission.full:
            return False
        self._begin(head, body, connection)
        return True

    def learn(self, sent: bytes, head: Head) -> None:
        """So that ``again`` need not parse it."""
        _remember(self.heads, sent, head)

    def _begin(self, head: Head, body: bytes, connection: Connection) -> None:
        size = bodies.inflated_size(body)
        self._admission.enter(size)
        visit = self._visit(head, connection.peername, browser=head.origin is not None)
        done = partial(self._taken, connection, size, head)
        self.rounds.add(Job(body, head.sender, visit, done, head.encoding, self._strict))

    def _taken(self, connection: Connection, size: int, head: Head, outcome: object) -> None:
        """Answer what was taken."""
        self._admission.leave(size)
        reply, sender = self._reply(outcome), head.sender
        self._count(reply, sender)
        connection.answer(_to(head.origin, sender, reply).wire())

    def _visit(self, head: Head, peer: Any, *, browser: bool) -> Visit:
        """A connection is the visitor's own only where a browser made it: servers send events of others."""
        return Visit(
            received=self._clock.now(),
            call=head.call,
            ip=self._network.visitor(peer[0] if peer else None, head.forwarded) if browser else None,
            user_agent=head.agent if browser else None,
            test=head.test,
        )

    async def _answer(self, request: web.BaseRequest) -> tuple[Reply, Sender | None]:
        headers = request.headers
        asked = (request.method, request.raw_path, headers.get(AUTHORIZATION), headers.get(API_KEY))
        known = self._known.get(asked) or self._looked_up(request)
        if isinstance(known, Reply):
            return known, None
        if isinstance(known, str):
            return await self._webhook(request, known), None
        if known.method == "POST" and known.sender is not None:
            _remember(self._known, asked, known)
        if (not_now := self._not_now(request)) is not None:
            return not_now, None
        if known.method == "GET":
            return await self._pixel(request, known)
        raw = await self._raw(request)
        if isinstance(raw, Reply):
            return raw, known.sender
        return await self._done(request, known, raw)

    async def _pixel(self, request: web.BaseRequest, known: _Known) -> tuple[Reply, Sender | None]:
        """The one event that a query string holds."""
        query = list(request.query.items())
        if len(query) > bodies.MAX_KEYS:
            return refused(400, "too_many_keys", f"send at most {bodies.MAX_KEYS} parameters"), known.sender
        item = bodies.Item(value=bodies.pixel(query), size=len(request.path_qs))
        reply, sender = await self._done(request, known, bodies.Body(items=[item], single=True))
        if reply.status == 200 and "image/" in request.headers.get("Accept", ""):
            return Reply(200, GIF, {"Cache-Control": "no-store"}, "image/gif"), sender
        return reply, sender

    async def _done(
        self, request: web.BaseRequest, known: _Known, body: bytes | bodies.Body
    ) -> tuple[Reply, Sender | None]:
        """The answer to a request that is whole."""
        if self._admission.full:  # it has filled up while the body came
            return self._busy(), known.sender
        size = bodies.inflated_size(body) if isinstance(body, bytes) else body.items[0].size
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        head = _head(known, request.headers, size)
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        visit = self._visit(head, peer, browser=known.method == "GET" or head.origin is not None)
        job = Job(body, head.sender, visit, told.set_result, head.encoding, self._strict)
        if known.sender is None:
            job.find = partial(self._named, request.query.get("tc_s"))
        self._admission.enter(size)
        try:
            self.rounds.add(job)
            outcome = await asyncio.shield(told)
        finally:
            self._admission.leave(size)
        return self._reply(outcome), job.sender

    def _named(self, site: str | None, body: bodies.Body) -> Sender | None:
        """Whose key is in the body."""
        key = keys.in_body(body.wrapper, body.items[0].value if body.items else None)
        return None if key is None else self.keyring.sender(key, site)

    def _reply(self, outcome: object) -> Reply:
        """The answer to a job, by what became of it."""
        try:
            if isinstance(outcome, (bytes, Answer)):
                failpoint("collect_before_answer")
                return Reply(200, outcome if isinstance(outcome, bytes) else encode(outcome))
        except Exception as fault:  # noqa: BLE001 - nothing of ours may show; the sender tries again
            return self._failed(fault)
        match outcome:
            case Malformed():
                return malformed(outcome)
            case NotDurable():
                return self._not_stored(outcome)
            case Exception():
                return self._failed(outcome)
        raise TypeError(outcome)

    def _looked_up(self, request: web.BaseRequest) -> _Known | str | Reply:
        """What the address and the headers with a key say, or the name of a webhook, or why not."""
        path, method = request.path.rstrip("/") or "/", request.method
        if path.startswith(WEBHOOKS):
            return path.removeprefix(WEBHOOKS)
        if path not in PATHS:
            return refused(404, "not_found", "send events to POST /collect")
        if method != "POST" and not (method == "GET" and path in PIXELS):
            allowed = "GET, POST, OPTIONS" if path in PIXELS else "POST, OPTIONS"
            return refused(405, "method_not_allowed", "send events with POST", {"Allow": allowed})
        query = request.query
        key = keys.presented(request.headers, list(query.items()))
        sender = self._keyring.sender(key, query.get("tc_s")) if key is not None else None
        if key is not None and sender is None:
            return self._not_now(request) or malformed(UNAUTHORIZED)
        return _Known(method, path, sender)

    def _not_now(self, request: web.BaseRequest) -> Reply | None:
        if request.version < HttpVersion10:
            return closing(refused(400, "bad_request", "send HTTP/1.1"))
        if self.draining:
            return self._later(503, "draining", "this server is stopping; send it again")
        return self._busy() if self._admission.full else None

    async def _raw(self, request: web.BaseRequest) -> bytes | Reply:
        """The bytes of the body as they came, or why they are not taken."""
        if (request.charset or "utf-8").lower() not in _CHARSETS:
            return closing(refused(415, "bad_charset", "send UTF-8"))
        try:
            if request.content.is_eof() and (request.content_length or 0) <= bodies.MAX_REQUEST:
                raw: bytes | None = await request.content.read()  # it came with the headers: nothing to wait for
            else:
                async with asyncio.timeout(BODY_DEADLINE):
                    raw = await self._read(request)
        except _Full:
            return closing(self._busy())
        except TimeoutError:
            return closing(refused(408, "slow_body", "the body did not arrive within 10 s; send it again"))
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError):
            return closing(refused(400, "bad_request", "the body broke off or is not chunked right; send it again"))
        if raw is None:
            return closing(
                refused(400, "request_too_large", f"send at most {bodies.MAX_REQUEST} bytes a request, after inflating")
            )
        return raw

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """The whole body, or None where it is longer than a request may be, even packed."""
        if (request.content_length or 0) > bodies.MAX_REQUEST:
            return None
        _ask_for_it(request)
        parts: list[bytes] = []
        size = 0
        try:
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                self._under_way += len(part)
                if size > bodies.MAX_REQUEST:
                    return None
                if self._under_way > UNDER_WAY:
                    raise _Full
        finally:
            self._under_way -= size
        return b"".join(parts)

    # Webhooks

    async def _webhook(self, request: web.BaseRequest, name: str) -> Reply:
        """What a partner posts."""
        if name not in self.keyring.hooks:
            return refused(404, "not_found", "there is no webhook here: check the source's name and its webhook_secret")
        if request.method != "POST":
            return refused(405, "method_not_allowed", "webhooks are sent with POST", {"Allow": "POST"})
        if self.draining:
            return self._later(503, "draining", "this server is stopping; send it again")
        if self._admission.full:
            return self._busy()
        raw = await self._raw(request)
        if isinstance(raw, Reply):
            return raw
        self._admission.enter(len(raw))
        try:
            result = await self._webhooks.receive(name, raw, request.headers.get(SIGNATURE, ""))
        except NotDurable as fault:
            return self._not_stored(fault)
        finally:
            self._admission.leave(len(raw))
        if result.code is not None:
            return refused(result.status, result.code, result.message)
        counts = {"accepted": result.accepted, "duplicate": result.duplicate, "rejected": result.rejected}
        return Reply(200, encode({"success": True, **counts}))

    def _not_stored(self, fault: NotDurable) -> Reply:
        if isinstance(fault, Busy):
            return self._later(429, fault.code, str(fault))
        return self._later(503, fault.code, "this could not be stored; send it again later")

    def refusal(self, message: RawRequestMessage) -> bytes | None:
        """The answer to any POST while too much is in hand; None while it is to be looked at."""
        if self.draining or not self._admission.full:
            return None
        self.rounds.set_aside()
        self.tally.refused("", _BUSY.code)
        response, origin = _REFUSALS[self._some()], message.headers.get(ORIGIN)
        return wire_allowing(response, origin) if origin is not None and self.keyring.listed(origin) else response

    def _busy(self) -> Reply:
        self.rounds.set_aside()
        return self._later(429, _BUSY.code, _BUSY.message)

    def _later(self, status: int, code: str, message: str) -> Reply:
        """Come back in 1 to 5 seconds: an integer, because Segment's browser SDK reads nothing else."""
        return refused(status, code, message, {"Retry-After": str(1 + self._some())})

    def _some(self) -> int:
        return int(self._chance() * LATEST)


def _remember(memory: dict[_K, _V], key: _K, value: _V) -> None:
    """One more of ``KNOWN``. A full memory is emptied: whoever still sends is soon in it again."""
    if len(memory) >= KNOWN and key not in memory:
        memory.clear()
    memory[key] = value


def _head(known: _Known, headers: MultiMapping[str], length: int) -> Head:
    return Head(
        sender=known.sender,
        call=PATHS[known.path],
        length=length,
        encoding=headers.get(CONTENT_ENCODING),
        origin=headers.get(ORIGIN),
        forwarded=",".join(headers.getall(FORWARDED, ())) or None,  # a proxy may add a line of its own to the client's
        agent=headers.get(AGENT),
        test=TEST in headers,
    )


def _ask_for_it(request: web.BaseRequest) -> None:
    """The body of whoever first waits for a word (RFC 9110, 10.1.1): curl does for a second, where it is large."""
    waits = request.headers.get(EXPECT, "").lower() == "100-continue" and request.version >= HttpVersion11
    if waits and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _to(origin: str | None, sender: Sender | None, reply: Reply) -> Reply:
    """The same, for whoever asked: pages read only what their own origin may."""
    return reply.allowing(origin) if origin is not None and sender is not None and origin in sender.origins else reply


class _Full(Exception):
    """So many bytes of requests are under way that no more are taken."""
