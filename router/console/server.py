"""The console as an aiohttp application, with what holds for every address: headers, guards, the form of errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import structlog
from aiohttp import web

from router.clock import Clock
from router.console import guard, openapi, routes
from router.console.acts import Acts
from router.console.answers import Fault, Handler, answered
from router.console.api import LARGEST_BODY, Api, Exposition
from router.console.pages import Pages, wanted
from router.console.questions import Questions
from router.delivery.engine import Delivery
from router.outbox.errors import NotDurable, OutboxError
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.snapshots import ReadTooLong
from router.settings import Settings

log: Any = structlog.get_logger()

_STATUS_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_STATUS_WORDS = {
    404: "there is nothing at this address: GET / lists what there is",
    405: "this address takes another method: see /openapi.json",
    413: "the body is too large: send it in parts of 1 MiB at most",
}


def application(
    *,
    reader: Reader,
    store: Outbox,
    delivery: Delivery,
    settings: Settings,
    metrics: Exposition,
    closed: Callable[[], str | None] = lambda: None,
) -> web.Application:
    """Everything but the port. Runs beside the owner of the outbox, whose lanes the operator's acts are made on.

    ``closed`` says why senders find no open port, if so.
    """
    acts = Acts(reader, delivery, store)
    questions = Questions(reader, store, delivery, closed, acts)
    api = Api(reader, store, delivery, metrics, acts=acts, questions=questions)
    pages = Pages(reader, acts, questions, delivery)
    table = routes.table(api)
    unguarded = frozenset(route.path for route in table if route.open)
    app = web.Application(
        middlewares=[_headers, _Faults(pages), _Guard(settings, store.clock, unguarded)],
        client_max_size=LARGEST_BODY,
    )
    app.on_shutdown.append(api.close)
    index = {route.path: route.words for route in table if route.method == "GET" and "{" not in route.path}
    addresses = _always(lambda: {"addresses": {**index, "/openapi.json": "All of this, for programs."}})

    async def root(request: web.Request) -> web.StreamResponse:
        return await (pages.overview if wanted(request) else addresses)(request)

    app.router.add_get("/", root)
    for method, path, handler in pages.addresses():
        app.router.add_route(method, path, handler)
    app.router.add_get(
        "/openapi.json", _always(cache(partial(openapi.document, table)))
    )  # 20 ms that no start waits for
    for route in table:
        # aiohttp adds HEAD to GET: load balancers ask so.
        add = app.router.add_get if route.method == "GET" else app.router.add_post
        add(route.path, route.handler)
    return app


def _always(value: Callable[[], Any]) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return answered(value())

    return handler


@web.middleware
async def _headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page may set its own policy; what it leaves out is the strictest."""
    answer = await handler(request)
    for name, value in guard.HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


class _Faults:
    """The middleware of whatever goes wrong: it has a stable code and says what to do; nothing of ours or of the request
    shows. A browser is told on a page.
    """

    __middleware_version__ = 1  # what ``web.middleware`` sets on a function

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is has its answer
            fault, allow = _meant(error), error.headers.get("Allow") if isinstance(error, web.HTTPException) else None
        on_a_page = wanted(request) and not request.path.startswith("/api/")
        answer = self._pages.fault(fault) if on_a_page else fault.answer()
        if fault.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="turnout", charset="UTF-8"'
        if allow is not None:
            answer.headers["Allow"] = allow
        return answer


def _meant(error: Exception) -> Fault:
    match error:
        case Fault():
            return error
        case web.HTTPException():
            code = _STATUS_CODES.get(error.status, "refused")
            return Fault(error.status, code, _STATUS_WORDS.get(error.status, "this request was refused"))
        case ReadTooLong():
            return Fault(503, error.code, str(error))
        case NotDurable():
            return Fault(503, error.code, "this could not be written: see /readyz, then try again")
    log.error("console_failed", exc_info=error)
    if isinstance(error, OutboxError):
        return Fault(503, "outbox", "the outbox cannot be read: run turnout doctor")
    return Fault(500, "internal", "this could not be handled: the log says where")


class _Guard:
    """The middleware that lets nobody else in."""

    __middleware_version__ = 1  # what ``web.middleware`` sets on a function

    def __init__(self, settings: Settings, clock: Clock, unguarded: frozenset[str]) -> None:
        self._listen, self._hosts, self._token = settings.console.listen, settings.console.hosts, settings.console.token
        self._clock, self._unguarded = clock, unguarded
        self._guesses = guard.Guesses()

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not guard.known_host(request.headers.get("Host"), self._listen, self._hosts):
            raise Fault(421, "unknown_host", "the Host header is not the console's: list its name in [console] hosts")
        if request.path not in self._unguarded:
            self._identify(request)
        if request.method not in {"GET", "HEAD"} and guard.foreign(request.headers):
            raise Fault(403, "foreign_origin", "this was sent by a page of another origin: use the API or turnout")
        return await handler(request)

    def _identify(self, request: web.Request) -> None:
        """A request without a token is no guess: a scraper that lacks it shuts nobody out who shares its address."""
        header, address, now = request.headers.get("Authorization"), request.remote or "", self._clock.now()
        if header is not None and self._guesses.too_many(address, now):
            raise Fault(429, "too_many_guesses", "too many wrong tokens from this address: wait a minute")
        if not guard.authorised(header, self._token):
            if header is not None:
                self._guesses.wrong(address, now)
            raise Fault(401, "unauthorized", "send Authorization: Bearer and the token of [console]")
