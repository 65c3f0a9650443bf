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
_EMPTY_DIGEST = "e3b0c44298fc1c14"  # how the digest of nothing begins
_AMOUNT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_HEX = frozenset("0123456789abcdef")


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
        self._live: deque[tuple[str, int]] = deque(maxlen=KEPT)

    def answer(self, call: Call) -> Answer:
        path = _PATH.fullmatch(call.path)
        if path is None:
            return _error(404, "no such path")
        if (refused := _access(call, path["asset"])) is not None:
            return refused
        if self._too_many(call.at):
            return _error(429, "too many requests")
        if call.method == "POST" and call.media_type() != "application/json":
            return _invalid(Fault("INVALID_CONTENT_TYPE", "Content-Type must be application/json"))
        match call.method, path["rest"]:
            case "POST", None:
                return self._send(call, path["asset"])
            case "POST", "/validate":
                return self._validate(call, path["asset"])
            case "GET", "/validate/logs":
                return Answer(200, {"status": "SUCCESS", "reason": "", "logs": self._logs(call.at, path["asset"])})
            case "GET", "/validate/stats":
                return Answer(200, {"status": "SUCCESS", "reason": "", "stats": self._stats(call.at, path["asset"])})
        return _error(405, "method not allowed")

    def _too_many(self, at: int) -> bool:
        if self.limit is None:
            return False
        if at // 1000 != self._second:
            self._second, self._asked = at // 1000, 0
        self._asked += 1
        return self._asked > self.limit

    def _send(self, call: Call, asset: str) -> Answer:
        events = _envelope(call.json())
        if isinstance(events, Fault):
            return _invalid(events)
        for index, event in enumerate(events):
            if found := list(faults(event, call.at)):
                return _invalid(*found, index=index if self.points else None)
        keys = tuple(self._key(event) for event in events)
        self._live.extend((asset, call.at) for _ in events)
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
            advice = list(warnings(event))
            logs.append(_event_log(index, found, advice))
            self._judged.append(_log(event, found, advice, asset=asset, at=call.at))
        ok = all(log["status"] == "VALID" for log in logs)
        reason = "Events are valid." if ok else "Some events are not valid."
        body = {"status": _status(ok=ok), "test_event": True, "reason": reason, "event_logs": logs}
        return Answer(200 if ok else 400, body, reason="validation only")

    def _logs(self, at: int, asset: str) -> list[dict[str, Any]]:
        recent = (log for log in self._judged if log["asset_id"] == asset and at - log["at"] <= DAY)
        return [{name: value for name, value in log.items() if name != "at"} for log in recent]

    def _stats(self, at: int, asset: str) -> dict[str, Any]:
        tested = [log["at"] for log in self._judged if log["asset_id"] == asset and at - log["at"] <= DAY]
        live = [seen for to, seen in self._live if to == asset and at - seen <= DAY]
        return {"test": _stat(tested, at), "live": _stat(live, at)}


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
    yield from _forms(event, _ROOT_FORMS, "")
    yield from _time(event, at)
    yield from _user(event)
    yield from _custom(event)
    yield from _source(event)


def warnings(event: dict[str, Any]) -> Iterator[str]:
    """What the page recommends and the event lacks, and the fields it does not know."""
    user, app = _part(event, "user_data"), _part(event, "app_data")
    if "event_id" not in event:
        yield "event_id is recommended for deduplication"
    if not (user.get("sc_click_id") or user.get("sc_cookie1")):
        yield "sc_click_id and sc_cookie1 are recommended"
    for holder, known, prefix in (
        (event, _ROOT_FORMS.keys() | _JUDGED, ""),
        (user, _USER_FORMS.keys(), "user_data."),
        (app, _APP_FORMS.keys(), "app_data."),
    ):
        yield from (f"Unknown field {prefix}{name}" for name in holder if name not in known)


def _required(event: dict[str, Any]) -> Iterator[Fault]:
    for name in ("event_name", "event_time", "action_source", "user_data"):
        if name not in event:
            yield Fault("MISSING_FIELD", f"Missing required field {name}")
    name = event.get("event_name", "PAGE_VIEW")
    if not isinstance(name, str) or name.lower() not in _NAMES:
        yield Fault("INVALID_EVENT_NAME", "event_name is not a Snap event or custom event")


def _time(event: dict[str, Any], at: int) -> Iterator[Fault]:
    time = event.get("event_time", at)
    if isinstance(time, bool) or not isinstance(time, int) or len(str(time)) not in (10, 13) or time < 0:
        yield Fault("INVALID_TIMESTAMP", "event_time must be an epoch of 10 or 13 digits")
        return
    instant = time if len(str(time)) == 13 else time * 1000
    oldest = OLDEST_OFFLINE if event.get("action_source") == "OFFLINE" else OLDEST
    if not at - oldest - 1000 < instant <= at + FUTURE:
        yield Fault("TIMESTAMP_OUT_OF_RANGE", "event_time is out of range")


def _user(event: dict[str, Any]) -> Iterator[Fault]:
    user = _part(event, "user_data")
    both = bool(user.get("client_ip_address")) and bool(user.get("client_user_agent"))
    madid = event.get("action_source") == "MOBILE_APP" and bool(user.get("madid"))
    if not (user.get("em") or user.get("ph") or both or madid):
        yield Fault("INSUFFICIENT_PII", "Not enough match keys in user_data")
    yield from _forms(user, _USER_FORMS, "user_data.")


def _custom(event: dict[str, Any]) -> Iterator[Fault]:
    custom = _part(event, "custom_data")
    if str(event.get("event_name")).lower() == "purchase":
        for name in ("currency", "value"):
            if name not in custom:
                yield Fault("MISSING_FIELD", f"Missing {name} in a purchase")
    yield from _forms(custom, _CUSTOM_FORMS, "custom_data.")
    for content in custom["contents"] if _objects(custom.get("contents")) else ():
        yield from _forms(content, _CONTENT_FORMS, "custom_data.contents.")


def _source(event: dict[str, Any]) -> Iterator[Fault]:
    app = _part(event, "app_data")
    match event.get("action_source", "OFFLINE"):
        case "WEB":
            if not _is_web_address(event.get("event_source_url")):
                yield Fault("INVALID_FIELD", "event_source_url must be an absolute URL")
        case "MOBILE_APP":
            if "extinfo" not in app:
                yield Fault("MISSING_FIELD", "app_data.extinfo must be 16 strings")
        case "OFFLINE":
            pass
        case _:
            yield Fault("INVALID_FIELD", "action_source must be WEB, MOBILE_APP or OFFLINE")
    yield from _forms(app, _APP_FORMS, "app_data.")
    ios = isinstance(app.get("extinfo"), list) and app["extinfo"][:1] == ["i2"]
    app_id = app.get("app_id")
    if ios and isinstance(app_id, str) and app_id and not (app_id.isascii() and app_id.isdigit()):
        yield Fault("INVALID_FIELD", "app_data.app_id must be numeric for iOS")


def _part(event: dict[str, Any], name: str) -> dict[str, Any]:
    part = event.get(name)
    return part if isinstance(part, dict) else {}


Form = tuple[Callable[[Any], bool], str, str]  # does it hold, the code and the words where it does not


def _forms(fields: dict[str, Any], forms: dict[str, Form], prefix: str) -> Iterator[Fault]:
    for name, (holds, code, words) in forms.items():
        if name in fields and not holds(fields[name]):
            yield Fault(code, f"{prefix}{name} must be {words}")


def _digests(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(
        isinstance(one, str) and len(one) == 64 and _HEX.issuperset(one) and not one.startswith(_EMPTY_DIGEST)
        for one in values
    )


def _address(value: Any) -> bool:
    try:
        return bool(ipaddress.ip_address(value)) if isinstance(value, str) else False
    except ValueError:
        return False


def _string(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _string_or_strings(value: Any) -> bool:
    return _string(value) or _strings(value)


def _string_or_number(value: Any) -> bool:
    return _string(value) or _numeric(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _amount(value: Any) -> bool:
    return _numeric(value) or (isinstance(value, str) and _AMOUNT.fullmatch(value) is not None)


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _iso_4217(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _map_of_strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _sixteen(value: Any) -> bool:
    return _strings(value) and len(value) == 16


def _wrong(holds: Callable[[Any], bool], words: str, *names: str) -> dict[str, Form]:
    return dict.fromkeys(names, (holds, "INVALID_FIELD", words))


_JUDGED = frozenset({"event_name", "event_time", "action_source"})
_ROOT_FORMS: dict[str, Form] = {
    **_wrong(_string, "a string", "event_id", "integration", "test_event_code", "event_source_url"),
    **_wrong(_strings, "a list of strings", "data_processing_options", "data_use"),
    **_wrong(_object, "an object", "user_data", "custom_data", "app_data"),
}
_USER_FORMS: dict[str, Form] = {
    **dict.fromkeys(
        ("em", "ph", "fn", "ln", "ge", "ct", "st", "zp", "country", "db"),
        (_digests, "UNHASHED_PII", "hashed with SHA-256"),
    ),
    "client_ip_address": (_address, "INVALID_IP", "an address, not hashed"),
    **_wrong(_string_or_strings, "a string or a list of strings", "external_id"),
    **_wrong(_string, "a string", "client_user_agent", "sc_click_id", "sc_cookie1", "madid", "idfv"),
    **_wrong(_string, "a string", "subscription_id", "lead_id", "download_id", "partner_id"),
    **_wrong(_strings, "a list of strings", "anon_id"),
}
_CUSTOM_FORMS: dict[str, Form] = {
    **_wrong(_iso_4217, "an ISO 4217 code in capitals", "currency"),
    **_wrong(_amount, "a number", "value"),
    **_wrong(_string_or_strings, "a string or a list of strings", "content_ids", "content_category", "brands"),
    **_wrong(_objects, "a list of objects", "contents"),
    **_wrong(_string, "a string", "content_type", "content_name", "order_id", "search_string", "sign_up_method"),
    **_wrong(_string, "a string", "delivery_category", "status", "event_tag", "hotel_score"),
    **_wrong(_integer, "an integer", "num_items", "num_adults", "num_children", "num_infants"),
    **_wrong(_numeric, "a number", "predicted_ltv"),
    **_wrong(_map_of_strings, "a map of strings", "custom_fields"),
    **_wrong(_string, "a date", "checkin_date", "travel_start", "travel_end", "departing_departure_date"),
    **_wrong(_string, "a date", "departing_arrival_date", "returning_departure_date", "returning_arrival_date"),
    **_wrong(_string, "a string", "origin_airport", "destination_airport", "country", "city", "region"),
    **_wrong(_string, "a string", "neighborhood", "postal_code"),
    **_wrong(_strings, "a list of strings", "suggested_destinations", "suggested_hotels", "preferred_neighborhoods"),
    **_wrong(_strings, "a list of strings", "preferred_star_ratings", "destination_ids"),
}
# Documented as strings; connectors send numbers, and they are taken.
_CONTENT_FORMS: dict[str, Form] = _wrong(
    _string_or_number, "a string", "id", "quantity", "item_price", "delivery_category", "brand"
)
_APP_FORMS: dict[str, Form] = {
    **_wrong(_string, "a string", "app_id", "campaign_ids", "install_referrer", "installer_package"),
    **_wrong(_string, "a string", "windows_attribution_id"),
    **_wrong(_yes_or_no, "0 or 1", "advertiser_tracking_enabled", "application_tracking_enabled"),
    **_wrong(_sixteen, "16 strings", "extinfo"),
    **_wrong(_strings, "a list of strings", "url_schemes"),
}


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


def _event_log(index: int, found: list[Fault], advice: list[str]) -> dict[str, Any]:
    return {"event": index, "status": _status(ok=not found), "errors": _errors(found), "warnings": advice}


def _log(event: dict[str, Any], found: list[Fault], advice: list[str], *, asset: str, at: int) -> dict[str, Any]:
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
        "warning_records": advice,
        "event_metadata": {},
        "at": at,
    }


def _stat(times: list[int], at: int) -> dict[str, Any]:
    past_hour = Counter(at - time <= HOUR for time in times)[True]
    return {"event_count_past_hour": past_hour, "latest_event_ts": times[-1] if times else None}
