"""A fake Commanders Act: the collect endpoint of the HTTP Tracking API 2.0, read strictly.

``POST /events`` takes one event, ``POST /events/batch`` a ``{"batch": [...]}``. As its page says it answers 200 to
everything but what is too large or no JSON, a wrong key included; that it would not have processed something shows in
the log of calls (``accepted`` false, and the reason) and in the counts, as the real one's does in its inspector.

Source: Commanders Act, "HTTP tracking API source, version 2.0", its OpenAPI file, and "Events reference", About hashing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from router.mocks.partner import Answer, Call, Partner

MOST_OF_AN_EVENT = 32_000  # bytes: "32KB", in its smaller reading
MOST_OF_A_BATCH = 500_000  # bytes: "500KB"

_PATHS = frozenset({"/events", "/events/batch"})
_MILLISECONDS = re.compile(r"[0-9]{12,13}", re.ASCII)  # since 1973; seconds have ten digits
_HEX = {"_sha256": re.compile(r"[0-9a-f]{64}", re.ASCII), "_md5": re.compile(r"[0-9a-f]{32}", re.ASCII)}


class CommandersAct(Partner):
    """``site`` and ``token`` are those it knows; None takes any."""

    name: ClassVar[str] = "commandersact"

    def __init__(
        self, *, now: Callable[[], int], seed: int = 0, site: str | None = None, token: str | None = None
    ) -> None:
        super().__init__(now=now, seed=seed)
        self.site, self.token = site, token

    def answer(self, call: Call) -> Answer:
        if call.path not in _PATHS:
            return Answer(404, reason="no such path")
        if call.method != "POST":
            return Answer(405, reason="events come by POST")
        events = _events(call)
        if isinstance(events, Answer):
            return events
        if (strange := self._strange(call)) is not None:
            return Answer(200, accepted=False, reason=strange)
        found = [list(faults(event)) for event in events]
        keys = [event["context"]["event_id"] for event, wrong in zip(events, found, strict=True) if not wrong]
        reasons = [f"{index}: {', '.join(wrong)}" for index, wrong in enumerate(found) if wrong]
        if not reasons:
            return Answer(200, keys=tuple(keys), reason=_remark(events))
        return Answer(200, accepted=False, keys=tuple(keys), reason="; ".join(reasons))

    def _strange(self, call: Call) -> str | None:
        """Why nothing of a call would be processed although its answer is 200."""
        for name, known in (("tc_s", self.site), ("token", self.token)):
            given = call.query.get(name)
            if not given or (known is not None and given != known):
                return f"{name} is not known"
        if call.media_type() != "application/json":
            return "the Content-Type is not application/json"
        return None


def _events(call: Call) -> list[Any] | Answer:
    """The events of a request, or the only answer that is not 200. What is no batch is one event, and a strange one."""
    batch = call.path.endswith("/batch")
    if len(call.body) > (MOST_OF_A_BATCH if batch else MOST_OF_AN_EVENT):
        return _bad("the request is too large")
    try:
        body = msgspec.json.decode(call.body)
        listed = msgspec.json.decode(call.body, type=_Batch).batch if batch else []
    except msgspec.ValidationError:
        return [body]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _bad("the JSON is not valid")
    if any(len(bytes(each)) > MOST_OF_AN_EVENT for each in listed):
        return _bad("an event of the batch is too large")
    return body["batch"] if batch else [body]


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]


def faults(event: Any) -> Iterator[str]:
    """What keeps an event from being processed: what the OpenAPI file requires, and the form of hashes."""
    if not isinstance(event, dict):
        yield "the event is not an object"
        return
    if not _is_text(event.get("event_name")):
        yield "event_name is missing or not a string"
    user, context = event.get("user"), event.get("context")
    yield from _user(user) if isinstance(user, dict) else ["user is missing or not an object"]
    yield from _context(context) if isinstance(context, dict) else ["context is missing or not an object"]


def _user(user: dict[str, Any]) -> Iterator[str]:
    if not _is_text(user.get("consistent_anonymous_id")):
        yield "user.consistent_anonymous_id is missing or not a string"
    if "id" in user and not _is_text(user["id"]):
        yield "user.id is not a string"
    consent = user.get("consent_categories", [])
    if not isinstance(consent, list) or not all(type(each) in (int, str) for each in consent):
        yield "user.consent_categories is not a list of categories"
    for name, value in user.items():
        form = next((form for suffix, form in _HEX.items() if name.endswith(suffix)), None)
        if form is not None and not (isinstance(value, str) and form.fullmatch(value)):
            yield f"user.{name} is not written in lower-case hex"


def _context(context: dict[str, Any]) -> Iterator[str]:
    if not _is_text(context.get("event_id")):
        yield "context.event_id is missing or not a string"
    time = context.get("event_timestamp")
    if type(time) not in (int, str) or not _MILLISECONDS.fullmatch(str(time)):
        yield "context.event_timestamp is missing or not in milliseconds"
    for name in ("page", "device", "app"):
        if not isinstance(context.get(name, {}), dict):
            yield f"context.{name} is not an object"


def _remark(events: list[Any]) -> str:
    return f"{len(events)} events, {sum('test_code' in event for event in events)} test"


def _bad(reason: str) -> Answer:
    return Answer(400, reason=reason)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
