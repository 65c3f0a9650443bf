"""The collect endpoint over HTTP: paths, deadlines, limits, keys, CORS and the words of every answer.

Content-Type is not trusted (browsers and SDKs label JSON as text or as a form), and neither is anything else that was
not measured here. Bodies are read under a deadline of our own, because the server has none, and inflated under our own
cap. Error bodies never repeat what was sent.

Senders whose addresses these are: Commanders Act (/events, /events/batch, the pixel), Segment and RudderStack (/v1/...
and its one-letter forms, /beacon/v1/batch). RudderStack's and PostHog's SDKs take 202 for a failure, so success is 200.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog
from aiohttp import HttpVersion10, web
from aiohttp.hdrs import AUTHORIZATION, CONTENT_TYPE
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, istr

from router import body as bodies
from router.clock import Clock
from router.collect import connections, keys
from router.collect.admission import Admission, Turns, first_turn
from router.collect.connections import Connection, Farewells, Silent
from router.collect.intake import Answer
from router.collect.keys import Keyring, Sender
from router.collect.webhooks import SIGNATURE, Told
from router.door import Visit
from router.failpoint import failpoint
from router.normalise import public_ip
from router.outbox.errors import Busy, NotDurable
from router.problem import Malformed

log: Any = structlog.get_logger()

BODY_DEADLINE = 10.0  # seconds for a whole body
UNDER_WAY = 32 * 1024 * 1024  # bytes of half bodies; a thousand slow senders must not take the memory
KEEP_ALIVE = 15.0
LINGER = 2.0  # seconds for the rest of a body that was refused: a sender that still writes would not see the answer
MAX_HEADER = 8190
LATEST = 5  # seconds that whoever is sent away is asked to wait, at most
SERVER = "Turnout"  # else the library's name and version

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
_GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
_JSON = "application/json"
_HEADERS = CIMultiDict({CONTENT_TYPE: _JSON, "Server": SERVER})
ORIGIN, API_KEY, TEST = istr("Origin"), istr("x-api-key"), istr("x-turnout-test")
KNOWN = 1024  # addresses with keys that are remembered
_encode = msgspec.json.Encoder().encode


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a 200. SDKs show ``code`` and ``message`` and nothing else."""

    success: bool = False
    code: str
    message: str
    errors: list[dict[str, str]] = []


class Network:
    """Whose word counts for the visitor's address: the connection's, or a listed proxy's X-Forwarded-For."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(ipaddress.ip_network(each, strict=False) for each in trusted)

    def visitor(self, peer: str | None, forwarded: str | None) -> str | None:
        """The last address in the chain that no trusted proxy vouches further for."""
        chain = [each.strip() for each in (forwarded or "").split(",") if each.strip()]
        address = peer
        while chain and address is not None and self._trusts(address):
            address = chain.pop()
        return public_ip(address)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._trusted if network.version == ip.version)


class _Known(NamedTuple):
    """A request's address and key, looked up: senders use the same ones for every request. Only right keys are kept."""

    method: str
    path: str
    sender: Sender | None  # None: the key is in the body


class Taker(Protocol):
    """Stores what is good of a request and quarantines what is not; NotDurable where it is not on disk."""

    async def take(self, body: bodies.Body, sender: Sender, visit: Visit) -> Answer: ...


class Listener(Protocol):
    """Takes what a source's partner posts; NotDurable where it is not on disk."""

    async def tell(self, name: str, raw: bytes, signature: str) -> Told: ...


class Collector:
    """Answers requests. ``draining`` and ``unwritable`` are set by the application while it stops or the disk fails."""

    def __init__(
        self,
        intake: Taker,
        webhooks: Listener,
        keyring: Keyring,
        clock: Clock,
        *,
        network: Network,
        turns: Turns | None = None,
        admission: Admission | None = None,
        strict_utf8: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.keyring = keyring
        self.draining = False
        self.turns, self._admission = turns or Turns(), admission or Admission()
        self._webhooks = webhooks
        self._under_way = 0  # bytes of bodies that are not whole yet, of all connections
        self._intake, self._clock, self._network, self._strict, self._chance = (
            intake,
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
        """Empty the memory of addresses, which may hold more than a key, as an erasure asks."""
        self._known: dict[tuple[str, str, str | None, str | None], _Known] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        origin = request.headers.get(ORIGIN)
        try:
            if request.method == "OPTIONS" and origin is not None:
                return self._preflight(origin)
            answer, sender = await self._answer(request)
        except asyncio.CancelledError:
            raise
        except Exception:
            # Nothing of ours may show; the sender tries again.
            log.exception("collect_failed")
            answer, sender = self._later(503, "internal", "this could not be handled; send it again later"), None
        if origin is not None and sender is not None and origin in sender.origins:
            _allow(answer, origin)
        return answer

    # Browsers

    def _preflight(self, origin: str) -> web.Response:
        answer = web.Response(status=204, headers={"Server": SERVER})
        if self.keyring.listed(origin):
            _allow(answer, origin)
            answer.headers["Access-Control-Allow-Methods"] = "POST, GET"
            answer.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
            answer.headers["Access-Control-Max-Age"] = "7200"
        return answer

    # One request

    async def _answer(self, request: web.BaseRequest) -> tuple[web.Response, Sender | None]:
        headers = request.headers
        asked = (request.method, request.raw_path, headers.get(AUTHORIZATION), headers.get(API_KEY))
        known = self._known.get(asked) or self._looked_up(request)
        if isinstance(known, web.Response):
            return known, None
        if isinstance(known, str):
            return await self._told(request, known), None
        if known.method == "POST" and known.sender is not None and len(self._known) < KNOWN:
            self._known[asked] = known
        if (refused := self._not_now(request)) is not None:
            return refused, None
        path, sender, pixel = known.path, known.sender, known.method == "GET"
        raw = b"" if pixel else await self._raw(request)
        if isinstance(raw, web.Response):
            return raw, sender
        if self._admission.full:  # it has filled up while the body came
            return self._busy(), sender
        size = bodies.inflated_size(raw)
        self._admission.enter(size)
        try:
            await self.turns.take(first_turn(size))
            return await self._judged(request, path, raw, sender, pixel=pixel)
        finally:
            self._admission.leave(size)

    async def _judged(
        self, request: web.BaseRequest, path: str, raw: bytes, sender: Sender | None, *, pixel: bool
    ) -> tuple[web.Response, Sender | None]:
        """The answer to a request that is whole and in hand."""
        body = _pixel(request) if pixel else self._body(request, raw)
        if isinstance(body, web.Response):
            return body, sender
        if sender is None:
            named = keys.in_body(body.wrapper, body.items[0].value if body.items else None)
            sender = self.keyring.sender(named, request.query.get("tc_s")) if named is not None else None
            if sender is None:
                return _unauthorized(), None
        if not sender.enabled:
            return _error(403, "source_disabled", "this source is switched off; ask its operator"), sender
        return await self._taken(request, path, body, sender, pixel=pixel), sender

    def _looked_up(self, request: web.BaseRequest) -> _Known | str | web.Response:
        """What the address and the headers with a key say, or the name of a webhook, or why not."""
        path, method = request.path.rstrip("/") or "/", request.method
        if path.startswith(WEBHOOKS):
            return path.removeprefix(WEBHOOKS)
        if path not in PATHS:
            return _error(404, "not_found", "send events to POST /collect")
        if method != "POST" and not (method == "GET" and path in PIXELS):
            allowed = "GET, POST, OPTIONS" if path in PIXELS else "POST, OPTIONS"
            return _error(405, "method_not_allowed", "send events with POST", {"Allow": allowed})
        query = request.query
        key = keys.presented(request.headers, list(query.items()))
        sender = self._keyring.sender(key, query.get("tc_s")) if key is not None else None
        if key is not None and sender is None:
            return self._not_now(request) or _unauthorized()
        return _Known(method, path, sender)

    def _not_now(self, request: web.BaseRequest) -> web.Response | None:
        if request.version < HttpVersion10:
            return _closing(_error(400, "bad_request", "send HTTP/1.1"))
        if self.draining:
            return self._later(503, "draining", "this server is stopping; send it again")
        return self._busy() if self._admission.full else None

    def _body(self, request: web.BaseRequest, raw: bytes) -> bodies.Body | web.Response:
        failpoint("collect_after_read")
        read = bodies.read(raw, request.headers.get("Content-Encoding"), strict_utf8=self._strict)
        return _malformed(read) if isinstance(read, Malformed) else read

    async def _raw(self, request: web.BaseRequest) -> bytes | web.Response:
        """The bytes of the body as they came, or why they are not taken."""
        if (request.charset or "utf-8").lower() not in _CHARSETS:
            return _closing(_error(415, "bad_charset", "send UTF-8"))
        try:
            if request.content.is_eof() and (request.content_length or 0) <= bodies.MAX_REQUEST:
                raw: bytes | None = await request.content.read()  # it came with the headers: nothing to wait for
            else:
                async with asyncio.timeout(BODY_DEADLINE):
                    raw = await self._read(request)
        except _Full:
            return _closing(self._busy())
        except TimeoutError:
            return _closing(_error(408, "slow_body", "the body did not arrive within 10 s; send it again"))
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError):
            return _closing(_error(400, "bad_request", "the body broke off or is not chunked right; send it again"))
        if raw is None:
            return _closing(
                _error(400, "request_too_large", f"send at most {bodies.MAX_REQUEST} bytes a request, after inflating")
            )
        return raw

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """The whole body, or None where it is longer than a request may be, even packed."""
        if (request.content_length or 0) > bodies.MAX_REQUEST:
            return None
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

    async def _taken(
        self, request: web.BaseRequest, path: str, body: bodies.Body, sender: Sender, *, pixel: bool
    ) -> web.Response:
        # A connection is the visitor's own only where a browser made it: servers send events of others.
        headers = request.headers
        browser = pixel or ORIGIN in headers
        visit = Visit(
            received=self._clock.now(),
            call=PATHS[path],
            wrapper=body.wrapper,
            ip=self._network.visitor(request.remote, headers.get("X-Forwarded-For")) if browser else None,
            user_agent=headers.get("User-Agent") if browser else None,
            test=TEST in headers,
        )
        try:
            answer = await self._intake.take(body, sender, visit)
        except Busy as error:
            return self._later(429, error.code, str(error))
        except NotDurable as error:
            return self._later(503, error.code, "this could not be stored; send it again later")
        failpoint("collect_before_answer")
        if pixel and "image/" in request.headers.get("Accept", ""):
            return web.Response(
                body=_GIF, content_type="image/gif", headers={"Cache-Control": "no-store", "Server": SERVER}
            )
        return web.Response(body=_encode(answer), headers=_HEADERS)

    # Webhooks

    async def _told(self, request: web.BaseRequest, name: str) -> web.Response:
        """A partner tells something."""
        if name not in self.keyring.hooks:
            return _error(404, "not_found", "there is no webhook here: check the source's name and its webhook_secret")
        if request.method != "POST":
            return _error(405, "method_not_allowed", "webhooks are sent with POST", {"Allow": "POST"})
        if self.draining:
            return self._later(503, "draining", "this server is stopping; send it again")
        if self._admission.full:
            return self._busy()
        raw = await self._raw(request)
        if isinstance(raw, web.Response):
            return raw
        self._admission.enter(len(raw))
        try:
            await self.turns.take(first_turn(len(raw)))
            told = await self._webhooks.tell(name, raw, request.headers.get(SIGNATURE, ""))
        except NotDurable as error:
            return self._not_stored(error)
        finally:
            self._admission.leave(len(raw))
        if told.code is not None:
            return _error(told.status, told.code, told.message)
        counts = {"accepted": told.accepted, "duplicate": told.duplicate, "rejected": told.rejected}
        return web.Response(body=_encode({"success": True, **counts}), headers=_HEADERS)

    def _not_stored(self, error: NotDurable) -> web.Response:
        if isinstance(error, Busy):
            return self._later(429, error.code, str(error))
        return self._later(503, error.code, "this could not be stored; send it again later")

    def refusal(self) -> bytes | None:
        """The answer to any POST while too much is in hand; None while it is to be looked at."""
        if self.draining or not self._admission.full:
            return None
        self.turns.set_aside()
        return _REFUSALS[self._some()]

    def _busy(self) -> web.Response:
        self.turns.set_aside()
        return self._later(429, _BUSY.code, _BUSY.message)

    def _later(self, status: int, code: str, message: str) -> web.Response:
        """Come back in 1 to 5 seconds: an integer, because Segment's browser SDK reads nothing else."""
        return _error(status, code, message, {"Retry-After": str(1 + self._some())})

    def _some(self) -> int:
        return int(self._chance() * LATEST)


def _pixel(request: web.BaseRequest) -> bodies.Body | web.Response:
    """The one event that a query string holds."""
    query = list(request.query.items())
    if len(query) > bodies.MAX_KEYS:
        return _error(400, "too_many_keys", f"send at most {bodies.MAX_KEYS} parameters")
    return bodies.Body(items=[bodies.Item(value=bodies.pixel(query), size=len(request.path_qs))], single=True)


class _Full(Exception):
    """So many bytes of requests are under way that no more are taken."""


def _allow(answer: web.StreamResponse, origin: str) -> None:
    """Echo the listed origin: a wildcard loses JSON beacons, which are credentialed."""
    answer.headers["Access-Control-Allow-Origin"] = origin
    answer.headers["Access-Control-Allow-Credentials"] = "true"
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.headers["Vary"] = "Origin"


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=_encode(Error(code=code, message=message)), headers=CIMultiDict(_HEADERS, **(headers or {}))
    )


def _whole(status: str, error: Error, connection: str, retry_after: int) -> bytes:
    """An answer as it goes over the wire, to whoever is told nothing else."""
    body = _encode(error)
    head = f"HTTP/1.1 {status}\r\nServer: {SERVER}\r\nContent-Type: {_JSON}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Retry-After: {retry_after}\r\nConnection: {connection}\r\n\r\n".encode() + body


def _unauthorized() -> web.Response:
    return _error(401, "unauthorized", "no source has this key; check token, site and how it is sent")


def _malformed(problem: Malformed) -> web.Response:
    errors = [{"field": problem.field, "message": problem.message}] if problem.field else []
    body = Error(code=problem.code, message=problem.message, errors=errors)
    return web.Response(status=problem.status, body=_encode(body), headers=_HEADERS)


def _closing(answer: web.Response) -> web.Response:
    """What is left of the request is not worth reading."""
    answer.force_close()
    return answer


class _Handler(Connection):
    """The server's connection, with our own words where a request is not even HTTP: the default quotes its bytes."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del request, message  # they hold what was sent
        if status >= 500:
            log.error("collect_failed", reason=type(exc).__name__)
            headers = {"Retry-After": "1"}
            return _closing(_error(503, "internal", "this could not be handled; send it again later", headers))
        return _closing(_error(400, "bad_request", "this is not a well-formed HTTP request; check the client"))


_BUSY = Error(code="busy", message="too much is under way; send it again later")
_REFUSALS = [_whole("429 Too Many Requests", _BUSY, "keep-alive", 1 + some) for some in range(LATEST)]
_TOO_MANY = Error(code="too_many_connections", message="too many connections are open; come back later")


class Server(web.Server):
    """The low-level server: no routing table, no decompression, no access log, short keep-alive, so many connections."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self._collector = collector
        self._most = connections.most()
        self._silent: set[Silent] = set()
        self._farewells = Farewells(_whole("503 Service Unavailable", _TOO_MANY, "close", 5))

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # what the event loop asks of it
        self._collector.turns.set_aside()
        if len(self._connections) + len(self._silent) >= self._most:
            return self._farewells()
        return Silent(self._silent, self._speaking, KEEP_ALIVE)

    def pre_shutdown(self) -> None:
        for each in list(self._silent):
            each.close()
        super().pre_shutdown()

    def _speaking(self) -> _Handler:
        return _Handler(
            self,
            self._collector.refusal,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
            access_log=None,  # what web.AppRunner passes for no access log
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
