"""The server of the collect endpoint: which connections it takes, and how each is served.

It is aiohttp's low-level one, with no routing table, no decompression, no access log, and a short keep-alive.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import web

from router.collect import connections
from router.collect.answers import closing, refused, wire_refusal
from router.collect.connections import Connection, Farewells, Silent
from router.collect.http import LATEST, Collector
from router.problem import Error

log: Any = structlog.get_logger()

KEEP_ALIVE = 15.0
LINGER = 2.0  # seconds for the rest of a body that was refused: a sender that still writes would not see the answer
MAX_HEADER = 8190

_TOO_MANY = Error(code="too_many_connections", message="too many connections are open; come back later")


class Handler(Connection):
    """The server's connection, with our own answer where a request is not even HTTP: the default quotes its bytes."""

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
            reply = refused(503, "internal", "this could not be handled; send it again later", {"Retry-After": "1"})
        else:
            reply = refused(400, "bad_request", "this is not a well-formed HTTP request; check the client")
        cast(Collector, self._collect).tally.refused("", reply.code)
        return closing(reply).response()


class Server(web.Server):
    """Makes what serves a connection, as long as there are not too many."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self._collector = collector
        self._most = connections.most()
        self._silent: set[Silent] = set()
        # No page can read this one: it is sent before a head has come, so nobody knows of which origin the page is.
        self._farewells = Farewells(wire_refusal(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY, "close", LATEST))

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # what the event loop asks of it
        self._collector.rounds.set_aside()
        if len(self._connections) + len(self._silent) >= self._most:
            self._collector.tally.refused("", _TOO_MANY.code)
            return self._farewells()
        return Silent(self._silent, self._speaking, KEEP_ALIVE)

    def pre_shutdown(self) -> None:
        for each in list(self._silent):
            each.close()
        super().pre_shutdown()

    def _speaking(self) -> Handler:
        return Handler(
            self,
            self._collector,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
            access_log=None,  # what web.AppRunner passes for no access log
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
