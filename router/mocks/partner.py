"""What all fake partners share: they record calls, misbehave when told to, and serve HTTP.

A partner's rules are its ``answer``, a function of the call and of what it took before; sockets, delays and resets
are here. Beside the partner's own paths the server has those of ``CONTROLS``, for the person or the test that drives it;
``GET /`` lists them, and none of them is recorded.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, ClassVar

import msgspec
from aiohttp import web
from msgspec import Meta

KEPT = 100_000  # calls that /received remembers; counts go on
LONGEST = 600.0  # seconds that a call is kept hanging or dripping; every client has given up by then
DRIP = 0.05  # seconds between two bytes: each one restarts a client's wait for the next
FLOOD = 1 << 28  # bytes of an answer that does not end

_MASKED = frozenset({"access_token", "api_secret", "api_key", "key", "token"})
_RESET = struct.pack("ii", 1, 0)  # linger on, for no time: close() sends RST (socket(7), SO_LINGER)


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path by which a fake partner is driven; ``example`` is a body for it."""

    method: str
    path: str
    what: str
    example: Any = None


EXAMPLE = {"status": 503, "retry_after": "2", "times": 3}
CONTROLS = (
    Control("GET", "/", "this list"),
    Control("GET", "/received", "every call and what was said to it; ?after=N: those after the N-th"),
    Control("GET", "/counts", "exact totals"),
    Control("GET", "/trouble", "how it misbehaves"),
    Control("POST", "/trouble", "let it misbehave: one trouble or a list, instead of the one before", EXAMPLE),
    Control("DELETE", "/trouble", "let it behave"),
    Control("POST", "/reset", "forget everything"),
)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the partner sees it. Header names are in lower case; ``at`` is UTC ms."""

    method: str = "POST"
    path: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: bytes = b""
    at: int

    def json(self) -> Any:
        """The decoded body, or None where it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty where there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def bearer(self) -> str | None:
        """The token of ``Authorization: Bearer``, if there is one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class Answer(msgspec.Struct, frozen=True):
    """What the partner says. ``body`` is sent as JSON; bytes and text are sent as they are.

    ``accepted`` is whether it took what the call carried, where the status does not tell. ``keys`` are the dedup keys
    of the events it took. ``reason`` is for the log of calls and does not travel.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = {}
    accepted: bool | None = None
    keys: tuple[str, ...] = ()
    reason: str = ""

    def took(self) -> bool:
        return 200 <= self.status < 300 if self.accepted is None else self.accepted


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One call as ``GET /received`` lists it: ``n`` counts from 1, secrets are masked."""

    n: int
    at: int
    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int
    accepted: bool
    reason: str = ""
    keys: tuple[str, ...] = ()


class Counts(msgspec.Struct):
    """Exact totals. ``events`` counts every event taken, ``distinct`` every dedup key once."""

    received: int = 0
    accepted: int = 0
    refused: int = 0
    troubled: int = 0
    events: int = 0
    distinct: int = 0


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way to misbehave, applied to the calls that it matches before the partner's rules are asked.

    A plain delay goes on to the rules. Everything else takes their place, unless ``taken`` says that the partner does
    its work and only the answer is lost or replaced.
    """

    status: Annotated[Annotated[int, Meta(ge=200, le=599)] | None, Meta(description="Answer this status.")] = None
    body: Annotated[Any, Meta(description="Body of that answer.")] = None
    headers: Annotated[dict[str, str], Meta(description="Headers of that answer.")] = {}
    retry_after: Annotated[str | None, Meta(description="Retry-After of that answer.")] = None
    delay: Annotated[float, Meta(ge=0, le=LONGEST, description="Seconds before anything else.")] = 0.0
    reset: Annotated[bool, Meta(description="TCP reset instead of an answer.")] = False
    hang: Annotated[bool, Meta(description="No answer at all.")] = False
    drip: Annotated[bool, Meta(description="Headers, then one byte at a time.")] = False
    flood: Annotated[bool, Meta(description="Headers, then more bytes than anybody wants.")] = False
    raw: Annotated[str | None, Meta(description="These characters on the socket instead of HTTP, then close.")] = None
    taken: Annotated[bool, Meta(description="The partner takes the call first.")] = False
    times: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="So many calls; without it, for ever.")] = None
    share: Annotated[float, Meta(gt=0, le=1, description="Share of the calls it hits.")] = 1.0
    match: Annotated[str | None, Meta(description="Only calls whose body contains this text.")] = None

    def replaces_answer(self) -> bool:
        return self.status is not None or self.reset or self.hang or self.drip or self.flood or self.raw is not None


class Partner(abc.ABC):
    """A fake partner: ``answer`` holds its documented rules; the rest remembers and counts.

    ``now`` gives UTC ms. A seed makes the dice of ``Trouble.share`` repeatable.
    """

    name: ClassVar[str]
    masked: ClassVar[frozenset[str]] = _MASKED  # query parameters whose values are not listed
    own_controls: ClassVar[tuple[Control, ...]] = ()  # those that only this partner has

    def __init__(self, *, now: Callable[[], int], seed: int = 0) -> None:
        self.now = now
        self.seed = seed
        self.trouble: list[Trouble] = []
        self.received: list[Received] = []
        self.counts = Counts()
        self.taken: Counter[str] = Counter()  # dedup key -> how often the partner took it
        self._changed = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Forget everything but how the partner is set up. A partner with a memory of its own extends this."""
        self.trouble = []
        self.received.clear()
        self.counts = Counts()
        self.taken.clear()
        self._dice = random.Random(self.seed)  # noqa: S311 - repeatable on purpose, guards nothing

    @abc.abstractmethod
    def answer(self, call: Call) -> Answer:
        """What the partner documents for this call. No IO; may change what the partner remembers."""

    def take(self, call: Call) -> Answer:
        """The partner's answer, recorded."""
        answer = self.answer(call)
        self.record(call, answer)
        return answer

    def next_trouble(self, call: Call) -> Trouble | None:
        """The first trouble that hits this call; one with ``times`` is used up by it."""
        for index, trouble in enumerate(self.trouble):
            if trouble.match is not None and trouble.match.encode() not in call.body:
                continue
            if trouble.share < 1 and self._dice.random() >= trouble.share:
                continue
            if trouble.times == 1:
                del self.trouble[index]
            elif trouble.times is not None:
                self.trouble[index] = msgspec.structs.replace(trouble, times=trouble.times - 1)
            return trouble
        return None

    def record(self, call: Call, answer: Answer, *, troubled: bool = False) -> None:
        self._count(answer, troubled=troubled)
        if len(self.received) >= KEPT:
            del self.received[: KEPT // 10]
        self.received.append(
            Received(
                n=self.counts.received,
                at=call.at,
                method=call.method,
                path=call.path,
                query={name: "***" if name in self.masked else value for name, value in call.query.items()},
                body=_readable(call),
                status=answer.status,
                accepted=answer.took(),
                reason=answer.reason,
                keys=answer.keys,
            )
        )
        self._changed.set()

    async def wait_for(self, count: int, *, accepted: bool = True) -> None:
        """Return once so many calls were accepted, or, with ``accepted=False``, received at all."""
        while (self.counts.accepted if accepted else self.counts.received) < count:
            self._changed.clear()
            await self._changed.wait()

    async def wait_for_events(self, distinct: int) -> None:
        """Return once so many different events were taken."""
        while self.counts.distinct < distinct:
            self._changed.clear()
            await self._changed.wait()

    def _count(self, answer: Answer, *, troubled: bool) -> None:
        self.counts.received += 1
        self.counts.accepted += answer.took()
        self.counts.refused += not answer.took()
        self.counts.troubled += troubled
        self.counts.events += len(answer.keys)
        self.taken.update(answer.keys)
        self.counts.distinct = len(self.taken)


def trouble_fields() -> dict[str, str]:
    """The fields of a trouble, with what each does."""
    return {each.name: str(each.type.__metadata__[0].description) for each in msgspec.structs.fields(Trouble)}


def application(partner: Partner) -> web.Application:
    """The partner as an aiohttp application. Serve it with ``handler_cancellation``, as ``running`` does."""
    control = _Control(partner)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/", control.index)
    app.router.add_get("/received", control.received)
    app.router.add_get("/counts", control.counts)
    app.router.add_get("/trouble", control.trouble)
    app.router.add_post("/trouble", control.make_trouble)
    app.router.add_delete("/trouble", control.end_trouble)
    app.router.add_post("/reset", control.reset)
    app.router.add_route("*", "/{path:.*}", control.partner_path)
    return app


@contextlib.asynccontextmanager
async def running(partner: Partner, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The partner on a socket; gives its base URL. Port 0 takes a free one."""
    runner = web.AppRunner(application(partner), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Control:
    """The paths of the server."""

    def __init__(self, partner: Partner) -> None:
        self.partner = partner

    async def index(self, _: web.Request) -> web.Response:
        controls = [*CONTROLS, *self.partner.own_controls]
        return _json(200, {"type": self.partner.name, "controls": controls, "trouble": trouble_fields()})

    async def trouble(self, _: web.Request) -> web.Response:
        return _json(200, self.partner.trouble)

    async def received(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdigit()):
            return _refused("after is the n of the last call you have seen")
        return _json(200, [call for call in self.partner.received if call.n > int(after)])

    async def counts(self, _: web.Request) -> web.Response:
        return _json(200, self.partner.counts)

    async def make_trouble(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=Trouble | list[Trouble])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _refused(f"not a trouble: {error}")
        self.partner.trouble = wanted if isinstance(wanted, list) else [wanted]
        return _json(200, self.partner.trouble)

    async def end_trouble(self, _: web.Request) -> web.Response:
        self.partner.trouble = []
        return _json(200, [])

    async def reset(self, _: web.Request) -> web.Response:
        self.partner.reset()
        return _json(200, self.partner.counts)

    async def partner_path(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
            at=self.partner.now(),
        )
        trouble = self.partner.next_trouble(call)
        if trouble is not None and trouble.delay:
            await asyncio.sleep(trouble.delay)
        if trouble is None or not trouble.replaces_answer():
            return _response(self.partner.take(call))
        answer = _troubled(trouble, self.partner.answer(call) if trouble.taken else None)
        self.partner.record(call, answer, troubled=True)
        return await _misbehave(trouble, answer, request)


def _troubled(trouble: Trouble, taken: Answer | None) -> Answer:
    """What a troubled call ends in: the wire shows the trouble, the counts show what the partner did."""
    headers = dict(trouble.headers)
    if trouble.retry_after is not None:
        headers["Retry-After"] = trouble.retry_after
    return Answer(
        status=trouble.status or 200,
        body=trouble.body,
        headers=headers,
        accepted=taken is not None and taken.took(),
        keys=taken.keys if taken is not None else (),
        reason="told to misbehave",
    )


async def _misbehave(trouble: Trouble, answer: Answer, request: web.Request) -> web.StreamResponse:
    if trouble.hang:
        await asyncio.sleep(LONGEST)
    if trouble.reset:
        _reset(request)
    if trouble.raw is not None and request.transport is not None:
        request.transport.write(trouble.raw.encode("latin-1", "replace"))
        request.transport.close()
    if trouble.drip or trouble.flood:
        return await _endless(trouble, answer, request)
    return _response(answer)


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        request.transport.abort()


async def _endless(trouble: Trouble, answer: Answer, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    with contextlib.suppress(ConnectionError):  # the client has had enough
        await response.prepare(request)
        if trouble.flood:
            block = b" " * 65_536
            for _ in range(FLOOD // len(block)):
                await response.write(block)
        else:
            for _ in range(int(LONGEST / DRIP)):
                await response.write(b" ")
                await asyncio.sleep(DRIP)
    return response


def _response(answer: Answer) -> web.Response:
    if answer.body is None:
        return web.Response(status=answer.status, headers=answer.headers)
    if isinstance(answer.body, bytes | str):
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        return web.Response(status=answer.status, body=body, headers=answer.headers)
    return _json(answer.status, answer.body, answer.headers)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or {}
    )


def _refused(message: str) -> web.Response:
    return _json(400, {"message": message})


def _readable(call: Call) -> Any:
    body = call.json()
    return call.body.decode("utf-8", "replace") if body is None else body
