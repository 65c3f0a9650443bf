"""The only outgoing HTTP. One transport per lane: own connections, own resolver thread, own deadline.

Never follows a redirect, keeps no cookie, reads no proxy from the environment, asks for no compression and reads at
most 64 KB of an answer, or as much as its maker says. The guard looks at the address that is dialled, after name resolution
and for literals alike, so no spelling of a private address gets through and a name cannot be rebound between check and dial.

What happened is a value: a Response to classify, or a Failure where none came.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router import wire
from router.clock import Clock
from router.destination import Destination, Header, Request, Response
from router.secret import Secret
from router.settings import seconds
from router.wire import Connector

MAX_ANSWER = 65_536
CONNECT_TIMEOUT = 5.0
KEPT_ADDRESSES = 64
OURS = {"User-Agent": "Turnout/0.1", "Accept-Encoding": "identity"}

FailureKind = Literal["name", "connect", "timeout", "closed", "tls", "blocked", "address", "request"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """No answer came. ``reason`` is ours and names no address or secret."""

    kind: FailureKind
    reason: str


_REASONS: dict[FailureKind, str] = {
    "name": "the partner's name does not resolve",
    "connect": "no connection to the partner",
    "timeout": "no answer within the timeout",
    "closed": "the partner closed the connection without an answer",
    "tls": "no trusted TLS connection: check the partner's certificate and this machine's clock",
    "blocked": "a private or special address, or plain http: set allow_private = true if that is meant",
    "address": "no server can have this address: correct url or base_url",
    "request": "the request cannot be written as HTTP: check its headers",
}


class _Blocked(OSError):
    """The guard refused an address. One message for all, so that several addresses of a name end as one error."""

    def __init__(self) -> None:
        super().__init__("blocked")


# What ``is_global`` lets through and must not be dialled: translations of private addresses, retired and later ranges
# (IANA special-purpose registries, newer than some Pythons know), and a metadata address that looks public.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "::ffff:0:0:0/96",
        "::/96",
        "2002::/16",
        "2001::/23",
        "fec0::/10",
        "100::/32",
        "3fff::/20",
        "5f00::/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
    )
)


def is_public(address: str) -> bool:
    """May a lane dial this address without ``allow_private``?"""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _SPECIAL if net.version == ip.version)


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    if not is_public(str(info[4][0])):
        raise _Blocked
    return socket.socket(*info[:3])


class _Resolver(AbstractResolver):
    """getaddrinfo, one look-up at a time, on a thread that the process need not wait for: a hanging name server stops
    this lane only, and nobody's end (threads of an executor are joined at exit).
    """

    def __init__(self, name: str) -> None:
        self._name = f"resolve-{name}"
        self._one_at_a_time = asyncio.Lock()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        async with self._one_at_a_time:
            found = await self._looked_up(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def _looked_up(self, host: str, port: int, family: socket.AddressFamily) -> list[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def look() -> None:
            found: list[Any] | OSError | UnicodeError
            try:
                found = list(socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:  # the latter: a label too long for a name
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(_tell, answer, found)

        threading.Thread(target=look, name=self._name, daemon=True).start()
        return await answer

    async def close(self) -> None:
        """Nothing is kept."""


def _tell(answer: asyncio.Future[list[Any]], found: list[Any] | OSError | UnicodeError) -> None:
    if answer.done():
        return
    if isinstance(found, OSError | UnicodeError):
        answer.set_exception(found)
    else:
        answer.set_result(found)


def _text(value: Header) -> str:
    return value.reveal() if isinstance(value, Secret) else value


class Transport:
    """Send requests of one lane. ``timeout`` is the longest wait for one answer, in seconds, ``longest`` the bytes of it
    that are read.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        timeout: float,
        concurrency: int,
        allow_private: bool,
        longest: int = MAX_ANSWER,
    ) -> None:
        self._clock, self._allow_private, self._longest = clock, allow_private, longest
        self._name, self._timeout, self._concurrency = name, timeout, concurrency
        self._resolver: _Resolver | None = None
        self._kept: aiohttp.ClientSession | None = None  # keeps its connections
        self._fresh: aiohttp.ClientSession | None = None  # one connection a request
        self._urls: dict[str, URL] = {}
        self._heads: dict[URL, str] = {}

    @classmethod
    def to(cls, destination: Destination, name: str, clock: Clock, concurrency: int) -> Transport:
        """One that reaches a destination as its settings say."""
        timeout = seconds(destination.timeout or destination.default_timeout)
        return cls(name, clock, timeout=timeout, concurrency=concurrency, allow_private=destination.allow_private)

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        self._resolver = self._resolver or _Resolver(self._name)
        connector = Connector(
            limit=self._concurrency,
            resolver=self._resolver,
            ttl_dns_cache=30,
            force_close=fresh,
            socket_factory=None if self._allow_private else _guarded_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers=OURS,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT_TIMEOUT),
        )

    async def send(self, request: Request) -> Response | Failure:
        """One request, one answer. Where the partner closed a kept connection as we wrote, it is tried once more on a
        new one: the same dedup key travels, so a double arrival is recognised there.
        """
        try:
            url = self._url(request.url)
        except ValueError:
            return _failure("address")
        try:
            headers = _headers(request)
            if request.query:
                url = url.update_query({name: _text(value) for name, value in request.query.items()})
        except ValueError:
            return _failure("request")
        if url.scheme != "https" and not (self._allow_private and url.scheme == "http"):
            return _failure("blocked")
        if (answer := await self._on_a_kept_one(url, headers, request)) is None:
            self._kept = self._kept or self._session(fresh=False)
            answer = await self._tried(self._kept, url, headers, request)
        if answer is _RACED:
            self._fresh = self._fresh or self._session(fresh=True)
            return await self._tried(self._fresh, url, headers, request)
        return answer

    def _url(self, text: str) -> URL:
        """Parsed once for the many requests that go to one address."""
        if (url := self._urls.get(text)) is None:
            if len(self._urls) >= KEPT_ADDRESSES:
                self._urls.clear()
            url = self._urls[text] = URL(text)
        return url

    async def _on_a_kept_one(self, url: URL, headers: dict[str, str], request: Request) -> Response | Failure | None:
        """The answer to an ordinary POST on an open connection; None where there is none free."""
        if self._kept is None or request.method != "POST" or not wire.ordinary(url, headers):
            return None
        connector = self._kept.connector
        if not isinstance(connector, Connector) or (connection := await connector.kept(url)) is None:
            return None
        try:
            answer = await wire.post(
                connection, self._head(url), headers, request.body, within=self._timeout, longest=self._longest
            )
        except _FAULTS as error:
            return _RACED if _raced(error) else _failure(_kind(error))
        return self._response(answer.status, answer.headers, answer.body, request)

    def _head(self, url: URL) -> str:
        if (head := self._heads.get(url)) is None:
            if len(self._heads) >= KEPT_ADDRESSES:
                self._heads.clear()
            head = self._heads[url] = wire.head(url, "".join([f"{name}: {value}\r\n" for name, value in OURS.items()]))
        return head

    def _response(self, status: int, headers: Mapping[str, str], body: bytes, request: Request) -> Response:
        lower = {name.lower(): value for name, value in headers.items()}
        return Response(status=status, request=request, at=self._clock.now(), headers=lower, body=body)

    async def _tried(
        self, session: aiohttp.ClientSession, url: URL, headers: dict[str, str], request: Request
    ) -> Response | Failure:
        try:
            async with session.request(
                request.method, url, data=request.body, headers=headers, allow_redirects=False
            ) as answer:
                body = await wire.content_of(answer.content, self._longest)
                if len(body) >= self._longest or not answer.content.at_eof():
                    answer.close()
                return self._response(answer.status, answer.headers, body, request)
        except _FAULTS as error:
            return _RACED if _raced(error) else _failure(_kind(error))

    async def close(self) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        if self._resolver is not None:
            await self._resolver.close()
        self._kept = self._fresh = self._resolver = None


_NO_HEADER = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


def _headers(request: Request) -> dict[str, str]:
    """The headers as they may travel: no line break, no half character in a value. ValueError for others."""
    headers = {name: value if isinstance(value, str) else value.reveal() for name, value in request.headers.items()}
    if _NO_HEADER.search("\t".join([*headers, *headers.values()])):  # a tab may travel, so it is no find
        raise ValueError("a control character or half a character")
    return headers


_FAULTS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


def _kind(error: BaseException) -> FailureKind:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ClientConnectorDNSError():
            return "name"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, _Blocked):
            return "blocked"
        case aiohttp.InvalidURL() | UnicodeError():  # the latter: a name with an empty part, or one too long
            return "address"
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorError():
            return "connect"
        case aiohttp.ClientError() | OSError():
            return "closed"
        case _:
            return "request"


def _failure(kind: FailureKind) -> Failure:
    return Failure(kind=kind, reason=_REASONS[kind])


_RACED = _failure("closed")


def _raced(error: BaseException) -> bool:
    """Did the partner close or reset an open connection, as it may while we write on one that was kept alive?"""
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )
