"""What Snap would refuse in an event, known before it is asked; and what it takes and could match or attribute better.

Source: Snap, "Using the API", Required Parameters; "Parameters"; "Verify Set Up", statuses. A field that Snap's pages do
not name is left alone: its own sample has free ones in ``custom_data``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from destinations.snap.body import EXTINFO_SLOTS, action_source, click_id
from destinations.snap.events import EVENT_NAMES
from router.event import Event

Rule = tuple[Callable[[Any], bool], str]

HASHED = ("em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country")

_SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_SHA256 = re.compile(rf"(?!{_SHA256_OF_NOTHING})[0-9a-f]{{64}}", re.ASCII)
_REMEMBERED = 8192  # digests; those of a visitor come with every event
_ABSOLUTE = re.compile(r"https?://[^\s/?#](.*\S)?", re.IGNORECASE | re.DOTALL)
_PLAIN_ADDRESS = re.compile(r"https?://[a-z0-9.-]*[a-z0-9](/[!-~]*)?", re.ASCII)  # nearly all; no parser is needed
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_APP_STORE = re.compile(r"[0-9]+", re.ASCII)
_SECONDS, _MILLISECONDS = range(10**9, 10**10), range(10**12, 10**13)  # 10 digits and 13


def faults(
    body: Mapping[str, Any],
    now: int | None = None,
    age: float | None = None,
    *,
    notes: Collection[str] = (),
    ours: bool = False,
) -> list[str]:
    """What Snap would refuse, as field and rule. Empty for an event that it documents as acceptable.

    With ``now`` (UTC ms) the time is judged too: not in the future and, with ``age``, at most so many seconds back.
    ``notes`` of the event tell what was sent and could not be read. ``ours``: ``body`` made it, and no ``map`` changed
    it, so that most of its fields have their form.
    """
    user, custom, app = _object(body, "user_data"), _object(body, "custom_data"), _object(body, "app_data")
    shapes, source = _COPIED if ours else _EVERY, body.get("action_source")
    found = _root_faults(body, now, age)
    found += _shape_faults(body, shapes.root, "")
    if not _matches(user, source):
        found.append(_NOBODY)
    found += _shape_faults(user, shapes.user, "user_data.")
    if _name(body) == "PURCHASE":
        found += [_needed(field, notes) for field in ("currency", "value") if custom.get(field) is None]
    found += _shape_faults(custom, shapes.custom, "custom_data.")
    if shapes.content:
        found += _contents_faults(custom.get("contents"), shapes.content)
    if app or source == "MOBILE_APP":
        found += _app_faults(app, source, shapes.app)
    return found


def hints(event: Event) -> Iterator[str]:
    """What is allowed and costs matches, attribution or a report."""
    digests, source = event.user.digests, action_source(event)
    if not (digests.email or digests.phone):
        yield "no e-mail and no phone: Snap matches few people by address and browser alone"
    if source == "WEB":
        yield from _web_hints(event)
    if source == "MOBILE_APP":
        yield from _app_hints(event)
    if event.money.value and not event.money.currency:
        read = "whose currency cannot be read" if "bad_currency" in event.notes else "without currency"
        yield f"a value {read}: send the ISO 4217 code with it, as EUR"
    if event.name == "purchase" and not event.money.order_id:
        yield "a purchase without order id: Snap knows a repeat of it by the event id alone"
    if "own_id" in event.notes:
        yield "no event id of the sender's: a Snap Pixel that reports the same event counts it a second time"


def _web_hints(event: Event) -> Iterator[str]:
    if click_id(event.clicks) is None:
        yield "no click id: send the page's address with its ScCid, or sc_click_id"
    if not (event.cookies.get("_scid") or event.user.digests.external_id or event.user.anonymous_id):
        yield "no _scid cookie and no id of the visitor: a click is not connected with what follows it"
    if not (event.clear.ip and event.clear.user_agent):
        yield "no IP address with user agent of the visitor: Snap has one match key less"


def _app_hints(event: Event) -> Iterator[str]:
    if not event.clear.advertising_id:
        yield "no advertising id: an app event is matched best by it; send it where the person has agreed"
    if event.device.tracking_enabled is None:
        yield "nothing is said of App Tracking Transparency: send the device's answer with every app event"


def _root_faults(body: Mapping[str, Any], now: int | None, age: float | None) -> list[str]:
    found, source = [], body.get("action_source")
    if _name(body) not in EVENT_NAMES:
        found.append("event_name: Snap has no such event; give it one of Snap's names or CUSTOM_EVENT_1 to 5 in events")
    found += _time_faults(body.get("event_time"), now, age)
    if source not in ("WEB", "MOBILE_APP", "OFFLINE"):
        found.append("action_source: it is WEB, MOBILE_APP or OFFLINE; correct map")
    if source == "WEB" and not _is_absolute(body.get("event_source_url")):
        found.append(
            "event_source_url: web events need an absolute http or https address; "
            "send the page's URL, or action_source where there is no page"
        )
    if "event_id" not in body:
        found.append("event_id: without it a resend would count twice; send an id with the event")
    return found


def _time_faults(time: Any, now: int | None, age: float | None) -> list[str]:
    if not _is_integer(time) or not (time in _SECONDS or time in _MILLISECONDS):
        return ["event_time: it is a whole number of seconds or milliseconds since 1970; take it out of map"]
    if now is None:
        return []
    at = time if time in _MILLISECONDS else time * 1000
    if at > now:
        return ["event_time: it is in the future; set the sender's clock right"]
    if age is not None and at < now - age * 1000:
        return ["event_time: it is older than Snap accepts; send events within seven days"]
    return []


_NOBODY = (
    "user_data: Snap matches nobody without em, ph, client_ip_address with client_user_agent, "
    "or madid of an app; send an e-mail, a phone, or the visitor's address and browser"
)


def _matches(user: Mapping[str, Any], source: object) -> bool:
    """Can Snap know anybody by it?"""
    return bool(
        user.get("em")
        or user.get("ph")
        or (user.get("client_ip_address") and user.get("client_user_agent"))
        or (source == "MOBILE_APP" and user.get("madid"))
    )


def _contents_faults(contents: Any, rules: Mapping[str, Rule]) -> list[str]:
    return [
        fault
        for place, content in enumerate(contents if isinstance(contents, list) else ())
        if isinstance(content, dict)
        for fault in _shape_faults(content, rules, f"custom_data.contents.{place}.")
    ]


def _needed(name: str, notes: Collection[str]) -> str:
    if f"bad_{name}" in notes:
        return f"custom_data.{name}: PURCHASE needs it, and {_UNREADABLE[name]}"
    return f"custom_data.{name}: PURCHASE needs it; send the {name} with the purchase"


_UNREADABLE: Mapping[str, str] = MappingProxyType(
    {
        "currency": "the one that was sent cannot be read; send its ISO 4217 code, as EUR",
        "value": "an amount that was sent cannot be read; send decimal numbers, as 142.52",
    }
)


def _app_faults(app: Mapping[str, Any], source: object, rules: Mapping[str, Rule]) -> list[str]:
    found = []
    if source == "MOBILE_APP" and "extinfo" not in app:
        found.append(f"app_data.extinfo: {_EXTINFO[1]}; correct map")
    found += _shape_faults(app, rules, "app_data.")
    extinfo, app_id = app.get("extinfo"), app.get("app_id")
    of_ios = isinstance(extinfo, list) and extinfo[:1] == ["i2"]
    if of_ios and isinstance(app_id, str) and not _APP_STORE.fullmatch(app_id):
        found.append("app_data.app_id: of an iOS app it is the App Store's number; set ios_app_id")
    return found


def _shape_faults(fields: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str) -> list[str]:
    """The fields that are there and have not their documented form."""
    if len(rules) < len(fields):
        return [
            f"{prefix}{name}: {words}; correct map"
            for name, (fits, words) in rules.items()
            if name in fields and not fits(fields[name])
        ]
    return [
        f"{prefix}{name}: {rules[name][1]}; correct map"
        for name, value in fields.items()
        if name in rules and not rules[name][0](value)
    ]


def _name(body: Mapping[str, Any]) -> str:
    """In capitals: Snap's own samples write Purchase and purchase too."""
    name = body.get("event_name")
    return name.upper() if isinstance(name, str) else ""


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_text_or_texts(value: Any) -> bool:
    return _is_text(value) or _is_texts(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_amount(value: Any) -> bool:
    return _DECIMAL.fullmatch(value) is not None if isinstance(value, str) else _is_number(value)


def _is_text_or_number(value: Any) -> bool:
    return _is_text(value) or _is_number(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_hashed(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_digest, value))
    return _is_digest(value)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _is_sha256(value)


@lru_cache(maxsize=_REMEMBERED)
def _is_sha256(value: str) -> bool:
    return _SHA256.fullmatch(value) is not None


def _is_currency(value: Any) -> bool:
    return isinstance(value, str) and _CURRENCY.fullmatch(value) is not None


def _is_extinfo(value: Any) -> bool:
    return _is_texts(value) and len(value) == EXTINFO_SLOTS


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _is_texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_absolute(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if _PLAIN_ADDRESS.fullmatch(value):
        return True
    try:
        return _ABSOLUTE.fullmatch(value) is not None and bool(urlsplit(value).hostname)
    except ValueError:  # "http://["
        return False


def _is_ip(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if _IPV4.fullmatch(value):
        return True
    try:
        return bool(ip_address(value))
    except ValueError:
        return False


_OBJECT: Rule = (_is_object, "it is an object")
_TEXT: Rule = (_is_text, "it is a text")
_TEXTS: Rule = (_is_texts, "it is a list of texts")
_EITHER: Rule = (_is_text_or_texts, "it is a text or a list of texts")
_INTEGER: Rule = (_is_integer, "it is a whole number")
_NUMBER: Rule = (_is_number, "it is a number")
_FLAG: Rule = (_is_flag, "it is 0 or 1")
_DIGEST: Rule = (_is_hashed, "it must be a SHA-256 of 64 lower-case hex digits, not of nothing")
_EXTINFO: Rule = (_is_extinfo, "app events need a list of 16 texts")


def _all(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


_ROOT: Mapping[str, Rule] = {
    **_all(_TEXT, "event_id", "integration", "test_event_code", "event_source_url"),
    **_all(_TEXTS, "data_processing_options", "data_use"),
    **_all(_OBJECT, "user_data", "custom_data", "app_data"),
}
_USER: Mapping[str, Rule] = {
    **_all(_DIGEST, *HASHED),
    "client_ip_address": (_is_ip, "it is no IPv4 or IPv6 address and must not be hashed"),
    "external_id": _EITHER,
    **_all(_TEXT, "client_user_agent", "sc_click_id", "sc_cookie1", "madid", "idfv"),
    **_all(_TEXT, "subscription_id", "lead_id", "download_id", "partner_id"),
    "anon_id": _TEXTS,
}
_CUSTOM: Mapping[str, Rule] = {
    "currency": (_is_currency, "it is an ISO 4217 code in capitals, as EUR"),
    "value": (_is_amount, "it is a number"),
    "contents": (_is_objects, "it is a list of objects"),
    **_all(_EITHER, "content_ids", "content_category", "brands"),
    **_all(_TEXT, "content_type", "content_name", "order_id", "search_string", "sign_up_method"),
    **_all(_TEXT, "delivery_category", "status", "event_tag"),
    "num_items": _INTEGER,
    "predicted_ltv": _NUMBER,
    "custom_fields": (_is_texts_by_name, "it is an object of texts"),
    **_all(_TEXT, "checkin_date", "travel_start", "travel_end", "hotel_score"),
    **_all(_TEXT, "departing_departure_date", "departing_arrival_date"),
    **_all(_TEXT, "returning_departure_date", "returning_arrival_date"),
    **_all(_TEXT, "origin_airport", "destination_airport"),
    **_all(_TEXT, "country", "city", "region", "neighborhood", "postal_code"),
    **_all(_INTEGER, "num_adults", "num_children", "num_infants"),
    **_all(_TEXTS, "suggested_destinations", "suggested_hotels", "preferred_neighborhoods"),
    **_all(_TEXTS, "preferred_star_ratings", "destination_ids"),
}
_CONTENT: Mapping[str, Rule] = _all(
    (_is_text_or_number, "it is a text or a number"),
    *("id", "quantity", "item_price", "delivery_category", "brand"),
)
_APP: Mapping[str, Rule] = {
    "app_id": _TEXT,
    **_all(_FLAG, "advertiser_tracking_enabled", "application_tracking_enabled"),
    "extinfo": _EXTINFO,
    **_all(_TEXT, "campaign_ids", "install_referrer", "installer_package", "windows_attribution_id"),
    "url_schemes": _TEXTS,
}


class _Shapes(NamedTuple):
    """The form of each field, by the object it is in."""

    root: Mapping[str, Rule]
    user: Mapping[str, Rule]
    custom: Mapping[str, Rule]
    content: Mapping[str, Rule]
    app: Mapping[str, Rule]


_EVERY = _Shapes(_ROOT, _USER, _CUSTOM, _CONTENT, _APP)
# What ``body`` copies from an event as it is; everything else it brings into its form, or leaves out.
_COPIED = _Shapes(
    root=_all(_TEXT, "event_id"),
    user={name: _USER[name] for name in (*HASHED, "client_ip_address")},
    custom={name: _CUSTOM[name] for name in ("currency", "value", "order_id")},
    content={},
    app={},
)
