"""A fake Snap: the Conversions API v3 as its pages describe it, and stricter where they leave doubt.

``POST /v3/{asset}/events`` takes events, ``…/events/validate`` only judges them, ``GET …/validate/logs`` and
``…/validate/stats`` tell of those judged in the last 24 h. The token "expired" gives 401, "forbidden" 403 and
"invalid" the 400 that Snap really answers; the asset "unknown" gives 404; every other token and asset is good.

Snap publishes no list of its error codes: those here are ours.

Source: Snap, "Conversions API": "Using the API", "Parameters", "Verify Set Up"
(https://developers.snap.com/api/marketing-api/Conversions-API).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from router.mocks.partner import Answer, Call, Partner

HOUR = 3_600_000
DAY = 24 * HOUR
MINUTE = 60_000

MOST_EVENTS = 2000
OLDEST = 7 * DAY  # the parameter rules
OLDEST_OFFLINE = 37 * DAY  # "maximum 37 days back to be eligible"
FUTURE = 5 * MINUTE  # not documented; clocks differ by this much
KEPT = 1000  # judged events that the logs remember

_PATH = re.compile(r"/v3/(?P<asset>[^/]+)/events(?P<rest>/validate(?:/logs|/stats)?)?", re.ASCII)
_NAMES = frozenset(
    {
        *("purchase", "save", "start_checkout", "add_cart", "view_content", "add_billing", "sign_up", "search"),
        *("page_view", "subscribe", "ad_click", "ad_view", "complete_tutorial", "level_complete", "invite", "login"),
        *("share", "reserve", "achievement_unlocked", "add_to_wishlist", "spent_credits", "rate", "start_trial"),
        *("list_view", "app_install", "app_open"),
        *(f"custom_event_{slot}" for slot in range(1, 6)),
    }
)
_HASHED = ("em", "ph", "fn", "ln", "ge", "ct", "st", "zp", "country", "db")
_TEXTS = ("event_id", "integration", "test_event_code", "event_source_url")
_EMPTY_DIGEST = "e3b0c442"


class Fault(NamedTuple):
    code: str
    message: str


class Snap(Partner):
    """Takes events for any pixel or app.

    ``points`` says whether an INVALID answer names the event by its index; without it a client has to bisect.
    ``limit`` is the number of requests taken in one second before 429.
    """

    name: ClassVar[str] = "snap"

    def __init__(self, *, now: Callable[[], int], seed: int = 0, points: bool = True, limit: int | None = None) -> None:
        self.points = points
        self.limit = limit
        super().__init__(now=now, seed=seed)

    def reset(self) -> None:
        super().reset()
        self._second = 0
        self._asked = 0
        self._nameless = 0
        self._judged: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._live: deque[int] = deque(maxlen=KEPT)

    def answer(self, call: Call) -> Answer:
        path = _PATH.fullmatch(call.path)
        if path is None:
            return _error(404, "no such path")
        if (refused := _access(call, path["asset"])) is not None:
            return refused
        if self._too_many(call.at):
            return _error(429, "too many requests")
        match call.method, path["rest"]:
            case "POST", None:
                return self._send(call)
            case "POST", "/validate":
                return self._validate(call, path["asset"])
            case "GET", "/validate/logs":
                return Answer(200, {"status": "SUCCESS", "reason": "", "logs": self._logs(call.at, path["asset"])})
            case "GET", "/validate/stats":
                return Answer(200, {"status": "SUCCESS", "reason": "", "stats": self._stats(call.at)})
        return _error(405, "method not allowed")

    def _too_many(self, at: int) -> bool:
        if self.limit is None:
            return False
        if at // 1000 != self._second:
            self._second, self._asked = at // 1000, 0
        self._asked += 1
        return self._asked > self.limit

    def _send(self, call: Call) -> Answer:
        events = _envelope(call.json())
        if isinstance(events, Fault):
            return _invalid(events)
        for index, event in enumerate(events):
            if found := list(faults(event, call.at)):
                return _invalid(*found, index=index if self.points else None)
        keys = tuple(self._key(event) for event in events)
        self._live.append(call.at)
        return Answer(
            200,
            {"status": "VALID", "reason": "Events have been processed successfully."},
            keys=keys,
            reason=self._remark(events, keys),
        )

    def _key(self, event: dict[str, Any]) -> str:
        """Snap's dedup key. An event without id is a new one every time."""
        if event.get("event_id"):
            return f"{event['event_id']} {event['event_name'].upper()}"
        self._nameless += 1
        return f"no id {self._nameless}"

    def _remark(self, events: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
        repeated = len(keys) - len({key for key in keys if key not in self.taken})
        tests = sum("test_event_code" in event for event in events)
        return f"{len(keys)} events, {repeated} duplicate, {tests} test"

    def _validate(self, call: Call, asset: str) -> Answer:
        events = _envelope(call.json())
        if isinstance(events, Fault):
            return _invalid(events)
        logs = []
        for index, event in enumerate(events):
            found = list(faults(event, call.at))
            logs.append(_event_log(index, found))
            self._judged.append(_log(event, found, asset=asset, at=call.at))
        ok = all(log["status"] == "VALID" for log in logs)
        reason = "Events are valid." if ok else "Some events are not valid."
        body = {"status": _status(ok=ok), "test_event": True, "reason": reason, "event_logs": logs}
        return Answer(200 if ok else 400, body, reason="validation only")

    def _logs(self, at: int, asset: str) -> list[dict[str, Any]]:
        recent = (log for log in self._judged if log["asset_id"] == asset and at - log["at"] <= DAY)
        return [{name: value for name, value in log.items() if name != "at"} for log in recent]

    def _stats(self, at: int) -> dict[str, Any]:
        return {"test": _stat([log["at"] for log in self._judged], at), "live": _stat(list(self._live), at)}


def _access(call: Call, asset: str) -> Answer | None:
    match call.query.get("access_token") or call.bearer():
        case None:
            return _error(401, "Missing access token")
        case "expired":
            return _error(401, "The access token has expired")
        case "forbidden":
            return _error(403, "No permission for this asset")
        case "invalid":
            return _invalid(Fault("INVALID_TOKEN", "Invalid access token"))
    return _error(404, "Unknown pixel or app") if asset == "unknown" else None


def _envelope(body: Any) -> list[dict[str, Any]] | Fault:
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(event, dict) for event in data):
        return Fault("INVALID_BODY", "The body must be a JSON object with a list data of events")
    if not 1 <= len(data) <= MOST_EVENTS:
        return Fault("INVALID_COUNT", f"data must hold 1 to {MOST_EVENTS} events")
    if len({event.get("action_source") == "MOBILE_APP" for event in data}) > 1:
        return Fault("MIXED_ASSETS", "App events and other events belong to different assets")
    return data


def faults(event: dict[str, Any], at: int) -> Iterator[Fault]:
    """Everything in an event that Snap documents a refusal for, judged at the instant ``at`` (UTC ms)."""
    yield from _required(event)
    yield from _time(event, at)
    yield from _user(event)
    yield from _purchase(event)
    yield from _source(event)
    options = event.get("data_processing_options")
    if options is not None and not (isinstance(options, list) and all(isinstance(one, str) for one in options)):
        yield Fault("INVALID_FIELD", "data_processing_options must be a list of strings")
    if not isinstance(event.get("app_data", {}), dict):
        yield Fault("INVALID_FIELD", "app_data must be an object")
    for name in _TEXTS:
        if name in event and not (isinstance(event[name], str) and event[name]):
            yield Fault("INVALID_FIELD", f"{name} must be a string")


def _required(event: dict[str, Any]) -> Iterator[Fault]:
    for name in ("event_name", "event_time", "action_source", "user_data"):
        if name not in event:
            yield Fault("MISSING_FIELD", f"Missing required field {name}")
    name = event.get("event_name", "PAGE_VIEW")
    if not isinstance(name, str) or name.lower() not in _NAMES:
        yield Fault("INVALID_EVENT_NAME", "event_name is not a Snap event or custom event")


def _time(event: dict[str, Any], at: int) -> Iterator[Fault]:
    time = event.get("event_time", at)
    if isinstance(time, bool) or not isinstance(time, int) or len(str(time)) not in (10, 13):
        yield Fault("INVALID_TIMESTAMP", "event_time must be an epoch of 10 or 13 digits")
        return
    instant = time if len(str(time)) == 13 else time * 1000
    oldest = OLDEST_OFFLINE if event.get("action_source") == "OFFLINE" else OLDEST
    if not at - oldest - 1000 < instant <= at + FUTURE:
        yield Fault("TIMESTAMP_OUT_OF_RANGE", "event_time is out of range")


def _user(event: dict[str, Any]) -> Iterator[Fault]:
    user = event.get("user_data", {})
    if not isinstance(user, dict):
        yield Fault("INVALID_FIELD", "user_data must be an object")
        return
    both = bool(user.get("client_ip_address")) and bool(user.get("client_user_agent"))
    madid = event.get("action_source") == "MOBILE_APP" and bool(user.get("madid"))
    if not (user.get("em") or user.get("ph") or both or madid):
        yield Fault("INSUFFICIENT_PII", "Not enough match keys in user_data")
    for name in _HASHED:
        if name in user and not _all_digests(user[name]):
            yield Fault("UNHASHED_PII", f"{name} must be hashed with SHA-256")
    if "client_ip_address" in user and not _is_address(user["client_ip_address"]):
        yield Fault("INVALID_IP", "client_ip_address must be an address and must not be hashed")


def _purchase(event: dict[str, Any]) -> Iterator[Fault]:
    custom = event.get("custom_data", {})
    if not isinstance(custom, dict):
        yield Fault("INVALID_FIELD", "custom_data must be an object")
        return
    if str(event.get("event_name")).lower() == "purchase":
        for name in ("currency", "value"):
            if name not in custom:
                yield Fault("MISSING_FIELD", f"Missing {name} in a purchase")
    currency = custom.get("currency", "USD")
    if not (
        isinstance(currency, str)
        and len(currency) == 3
        and currency.isascii()
        and currency.isalpha()
        and currency.isupper()
    ):
        yield Fault("INVALID_FIELD", "currency must be an ISO 4217 code in capitals")
    if not _is_amount(custom.get("value", 0)):
        yield Fault("INVALID_FIELD", "value must be a number")


def _source(event: dict[str, Any]) -> Iterator[Fault]:
    match event.get("action_source"):
        case "WEB":
            if not _is_web_address(event.get("event_source_url")):
                yield Fault("INVALID_FIELD", "event_source_url must be an absolute URL")
        case "MOBILE_APP":
            app = event.get("app_data")
            extinfo = app.get("extinfo") if isinstance(app, dict) else None
            if not (isinstance(extinfo, list) and len(extinfo) == 16 and all(isinstance(one, str) for one in extinfo)):
                yield Fault("INVALID_FIELD", "app_data.extinfo must be 16 strings")
        case "OFFLINE" | None:
            return
        case _:
            yield Fault("INVALID_FIELD", "action_source must be WEB, MOBILE_APP or OFFLINE")


def _all_digests(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(
        isinstance(one, str) and len(one) == 64 and set(one) <= set("0123456789abcdef") and one[:8] != _EMPTY_DIGEST
        for one in values
    )


def _is_address(value: Any) -> bool:
    try:
        return bool(ipaddress.ip_address(value)) if isinstance(value, str) else False
    except ValueError:
        return False


def _is_amount(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.removeprefix("-").replace(".", "", 1).isdigit() and value[-1] != "."
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_web_address(value: Any) -> bool:
    if not isinstance(value, str) or value != value.strip():
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _status(*, ok: bool) -> str:
    return "VALID" if ok else "INVALID"


def _errors(found: list[Fault] | tuple[Fault, ...]) -> dict[str, Any]:
    return {"codes": [fault.code for fault in found], "error_msgs": [fault.message for fault in found]}


def _invalid(*found: Fault, index: int | None = None) -> Answer:
    body: dict[str, Any] = {"status": "INVALID", "errors": _errors(found)}
    if index is not None:
        body["event"] = index
    return Answer(400, body, reason="; ".join(fault.message for fault in found))


def _error(status: int, reason: str) -> Answer:
    return Answer(status, {"status": "INVALID", "reason": reason}, reason=reason)


def _event_log(index: int, found: list[Fault]) -> dict[str, Any]:
    return {"event": index, "status": _status(ok=not found), "errors": _errors(found), "warnings": []}


def _log(event: dict[str, Any], found: list[Fault], *, asset: str, at: int) -> dict[str, Any]:
    name = event.get("event_name")
    return {
        "event_name": str(name).upper(),
        "raw_event_name": name,
        "event_time": event.get("event_time"),
        "action_source": event.get("action_source"),
        "asset_id": asset,
        "status": _status(ok=not found),
        "integration": event.get("integration"),
        "error_records": [fault.message for fault in found],
        "warning_records": [],
        "event_metadata": {},
        "at": at,
    }


def _stat(times: list[int], at: int) -> dict[str, Any]:
    past_hour = Counter(at - time <= HOUR for time in times)[True]
    return {"event_count_past_hour": past_hour, "latest_event_ts": times[-1] if times else None}
