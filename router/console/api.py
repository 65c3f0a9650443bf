"""The addresses for programs, one function each: read the question, ask the reader or the acts, answer."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from router.console.acts import Acts, Again, Choice, Forgotten, Giving, Nothing, Reason
from router.console.answers import JSON, Fault, answered
from router.console.questions import Questions, digits, invalid, who
from router.console.stream import EVENT_STREAM, Question, Streams
from router.delivery.engine import Delivery
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import MOST, Reader
from router.outbox.reads.views import Configs, Destinations

T = TypeVar("T", bound=msgspec.Struct)

LARGEST_BODY = 1 << 20  # a thousand people by all their identifiers, or a thousand long ids


class Exposition(Protocol):
    """What makes the metrics page."""

    async def exposition(self, reader: Reader, store: Outbox, now: int) -> bytes: ...


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``reason``: starting, draining, disk_full, or why the outbox failed."""

    ready: bool
    reason: str | None = None


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    alive: bool = True


class Api:
    """Every handler takes the request and gives the answer; a ``Fault`` is the answer where it cannot."""

    def __init__(
        self,
        reader: Reader,
        store: Outbox,
        delivery: Delivery,
        metrics: Exposition,
        *,
        acts: Acts,
        questions: Questions,
    ) -> None:
        self._reader, self._store, self._acts, self._questions = reader, store, acts, questions
        self._metrics = metrics
        self._streams = Streams(reader, store, delivery)

    # Health

    async def healthz(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(Alive())

    async def readyz(self, request: web.Request) -> web.Response:
        _asked(request)
        reason = self._questions.unready()
        return answered(Health(ready=reason is None, reason=reason), status=200 if reason is None else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        _asked(request)
        page = await self._metrics.exposition(self._reader, self._store, self._store.clock.now())
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    # Reads

    async def ledger(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(await self._reader.ledger())

    async def destinations(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(Destinations(items=await self._reader.lanes()))

    async def events(self, request: web.Request) -> web.Response:
        asked = _asked(request, "id", "limit", "after")
        if "id" in asked:
            found = await self._reader.find(asked["id"])
            return answered(await self._reader.events([each.seq for each in found]))
        return answered(await self._reader.recent(_limit(asked), _after(asked)))

    async def event(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(await self._questions.story(request.match_info["id"]))

    async def deliveries(self, request: web.Request) -> web.Response:
        asked = _asked(request, "to", "state", "limit", "after")
        found = self._questions.deliveries(asked.get("to"), asked.get("state"), _limit(asked), asked.get("after"))
        return answered(await found)

    async def quarantine(self, request: web.Request) -> web.Response:
        asked = _asked(request, "limit", "after")
        return answered(await self._reader.quarantined(_limit(asked), _after(asked)))

    async def quarantined(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(await self._questions.quarantined(request.match_info["number"]))

    async def audit(self, request: web.Request) -> web.Response:
        asked = _asked(request, "limit", "after")
        return answered(await self._reader.audit(_limit(asked), _after(asked)))

    async def configs(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(Configs(items=await self._reader.configs()))

    # Live

    async def stream(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(request, "source", "to", "name", "after")
        after = request.headers.get("Last-Event-ID") or asked.get("after")
        if after is not None and digits(after) is None:
            raise invalid("after", "give the number of an event, or leave it out to begin now")
        if (to := asked.get("to")) is not None:
            await self._acts.known(to)
        if request.method == "HEAD":
            return web.Response(content_type=EVENT_STREAM)
        question = Question(
            source=asked.get("source"),
            to=to,
            name=asked.get("name"),
            after=None if after is None else digits(after),
            resumed="Last-Event-ID" in request.headers,
        )
        return await self._streams.answer(request, question)

    async def close(self, _: web.Application) -> None:
        """The server stops: what is open without end is ended."""
        await self._streams.close()

    # Acts

    async def retry(self, request: web.Request) -> web.Response:
        return answered(await self._acts.retry(await _read(request, Choice), who(request)))

    async def drop(self, request: web.Request) -> web.Response:
        return answered(await self._acts.drop(await _read(request, Giving), who(request)))

    async def hold(self, request: web.Request) -> web.Response:
        reason = (await _read(request, Reason)).reason.strip()[:200] or Reason().reason
        return answered(await self._acts.hold(request.match_info["name"], reason, who(request)))

    async def resume(self, request: web.Request) -> web.Response:
        await _read(request, Nothing)
        return answered(await self._acts.resume(request.match_info["name"], who(request)))

    async def replay(self, request: web.Request) -> web.Response:
        return answered(await self._acts.replay(await _read(request, Again), who(request)))

    async def replays(self, request: web.Request) -> web.Response:
        _asked(request)
        return answered(await self._acts.replays())

    async def cancel(self, request: web.Request) -> web.Response:
        await _read(request, Nothing)
        number = digits(request.match_info["number"]) or 0  # replays are counted from 1
        return answered(await self._acts.cancel(number, who(request)))

    async def forget(self, request: web.Request) -> web.Response:
        body = await _read(request, Forgotten)
        return answered(await self._acts.erase(body, who(request)))


def _asked(request: web.Request, *known: str) -> dict[str, str]:
    """The parameters of the query; one that is not known, or comes twice, is refused rather than ignored."""
    for name in request.query:
        if name not in known:
            raise Fault(400, "unknown_field", f"this address takes {', '.join(known) or 'no parameters'}")
        if len(request.query.getall(name)) > 1:
            raise invalid(name, "give it once")
    return dict(request.query)


def _limit(asked: dict[str, str]) -> int:
    limit = digits(asked.get("limit", "100"))
    if limit is None or not 1 <= limit <= MOST:
        raise invalid("limit", f"write a number from 1 to {MOST}")
    return limit


def _after(asked: dict[str, str]) -> str | None:
    after = asked.get("after")
    if after is not None and digits(after) is None:
        raise invalid("after", 'give the "next" of the page before')
    return after


async def _read(request: web.Request, form: type[T]) -> T:
    """The body as ``form``; no body is an empty one. What is not a field of it is refused, never ignored."""
    try:
        raw = await request.read()
    except web.RequestPayloadError:
        raise Fault(400, "malformed", "the body broke off, or is not compressed as its Content-Encoding says") from None
    if raw and request.content_type != JSON:
        raise Fault(415, "unsupported_media_type", "send JSON with Content-Type: application/json")
    try:
        fields = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault(400, "malformed", "the body must be one JSON object") from None
    if unknown := set(fields) - set(form.__struct_fields__):
        takes = ", ".join(form.__struct_fields__) or "no fields"
        raise Fault(
            400, "unknown_field", f"{len(unknown)} of the fields are not known here: this address takes {takes}"
        )
    for name in form.__struct_fields__:
        _convert_field(form, name, fields)
    return msgspec.convert(fields, form)


def _convert_field(form: type[msgspec.Struct], name: str, fields: dict[str, Any]) -> None:
    field = next(each for each in msgspec.structs.fields(form) if each.name == name)
    if name not in fields:
        if field.required:
            raise invalid(name, "it is needed")
        return
    try:
        msgspec.convert(fields[name], field.type)
    except msgspec.ValidationError:
        raise invalid(name, "it is not of the form that /openapi.json describes") from None
