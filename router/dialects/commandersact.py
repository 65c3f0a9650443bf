"""Commanders Act events: ``event_name``, the event's properties beside it, ``user`` and ``context``.

``id`` is the order's number, never the event's; ``integrations`` and ``partners`` address partners and switch nothing.
Version 1.0 ("commandersact-1") has ``properties`` as an object of its own, and the page and device at the root.

What has no field of ours stays where the sender put it: of ``context`` under ``properties.context``, of ``user`` among
the traits. ``refused_vendors`` and ``rejected_vendors`` are such traits and no denied consent: vendors and categories
are numbered apart, and vendor 1 is not category 1.

Source: Commanders Act, "HTTP tracking API" versions 2.0 and 1.0, "Pixel tracking", "Events reference", "Web event
specificity", "Mobile SDK event specificity", "Consent Object"; its web container, which writes ``context.eventId`` and
``context.created``.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

from router.dialects.people import glean, identify
from router.dialects.picking import built, copied, fill, first, keep
from router.dialects.reading import Object, Reading
from router.identifiers import Raw
from router.recall import recalled

_ADDRESSING = frozenset(
    ("tc_s", "tc_skey", "tc_firsttime", "token")
)  # of the request; a token is not kept with the event
_OLDER_IDS = ("tcId", "tcid", "tc_id")
_APP = ("name", "version", "build", "namespace")
_SCREEN = ("width", "height", "density")
_IN_HREF: Final = ("hostname", "pathname", "search")  # where they would escape the scrubbing of an address
_DIGITS_OF_MS: Final = 12  # or more, since 1973; fewer are seconds


def current(item: Object) -> Reading:
    properties = dict(item)
    context, user = _taken(properties, "context"), _person(properties)
    time = first(context.pop("event_timestamp", None), properties.pop("event_timestamp", None))
    reading = _read("commandersact", properties, context, user)
    reading.time = first(time, reading.time)
    return reading


def version_1(item: Object) -> Reading:
    """Version 1.0, and the shape before it, which says ``event`` and not ``event_name``."""
    root = dict(item)
    properties = copied(root.pop("properties", None))
    inner = _person(properties)
    user = {**inner, **_person(root)}
    context = _taken(root, "context")
    for part in ("page", "device", "app"):
        if isinstance(root.get(part), dict) and part not in context:
            context[part] = root.pop(part)
    time = first(root.pop("event_timestamp", None), context.pop("event_timestamp", None))
    time = first(time, properties.pop("event_timestamp", None))
    if "event_name" not in root and "event" in root:
        root["event_name"] = root.pop("event")
    hidden = {key: value for key, value in properties.items() if key in root and value != root[key]}
    merged = {**properties, **root}
    keep(merged, "properties", hidden)
    reading = _read("commandersact-1", merged, context, user)
    reading.time = first(time, reading.time)
    return reading


def _taken(holder: Object, key: str) -> Object:
    """A copy of the object under ``key``, which leaves ``holder``; what is no object stays there."""
    value = holder.pop(key, None)
    if isinstance(value, dict):
        return dict(value)
    if value is not None:
        holder[key] = value
    return {}


def _person(properties: Object) -> Object:
    """The user; one that is a text or a number is the user's id."""
    user = properties.get("user")
    if isinstance(user, (str, int)) and not isinstance(user, bool):
        return {"id": properties.pop("user")}
    return _taken(properties, "user")


def _read(dialect: str, properties: Object, context: Object, user: Object) -> Reading:
    if not _ADDRESSING.isdisjoint(properties):
        for key in _ADDRESSING:
            properties.pop(key, None)
    person, said = _known(user)
    raw = copy(person)
    reading = Reading(dialect=dialect, raw=raw, named="event_name" in properties)
    fill(reading, said)
    reading.name = properties.pop("event_name", None)
    reading.id = first(context.pop("event_id", None), properties.pop("event_id", None))
    if reading.id is None:
        reading.id = context.pop("eventId", None)
    reading.time = context.get("created")
    if "ts_override" in properties:
        reading.time = _milliseconds(properties.pop("ts_override"))
    _device(reading, context)
    _page(reading, context, properties)
    if app := _taken(context, "app"):
        reading.app = {key: app.pop(key) for key in _APP if key in app}
        keep(context, "app", app)
    _cookies(reading, context)
    if "integrations" in context or "integrations" in properties or "partners" in properties:
        for holder, key in ((context, "integrations"), (properties, "integrations"), (properties, "partners")):
            _address(reading.partners, _taken(holder, key))
    if "test_code" in properties:
        reading.test = _test_code(properties.pop("test_code"))
    _items(reading, properties)
    reading.money = {
        "value": properties.get("value"),
        "revenue": properties.get("revenue"),
        "tax": properties.get("tax_amount"),
        "shipping": properties.get("shipping_amount"),
        "discount": properties.get("discount"),
        "currency": properties.get("currency"),
        "order_id": properties.get("id"),
        "coupon": properties.get("coupon"),
    }
    glean(properties, raw)
    if context:
        glean(context, raw)
        keep(properties, "context", context)
    reading.properties = properties
    return reading


def _milliseconds(value: Any) -> Any:
    """``ts_override`` is documented in seconds; other times are milliseconds."""
    text = str(value).strip()
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) < _DIGITS_OF_MS else value


def _test_code(code: Any) -> Any:
    """The code; a sender who only says yes has said that it is a test."""
    if isinstance(code, (str, int, float)) and not isinstance(code, bool):
        return code
    return "test" if code else None


def _address(partners: Object, said: Object) -> None:
    """Add what is said to each partner; both places may address one, and the later word on one thing counts."""
    for partner, value in said.items():
        there = partners.get(partner)
        partners[partner] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value


def _items(reading: Reading, properties: Object) -> None:
    """The items; those of a pixel that counts from 1 or leaves a number out come as an object. The rest is kept."""
    items = properties.pop("items", None)
    if isinstance(items, dict) and items and all(key.isascii() and key.isdigit() for key in items):
        items = [items[key] for key in sorted(items, key=int)]
    if isinstance(items, list):
        reading.items = items
        items = [item for item in items if not isinstance(item, dict)]
    keep(properties, "items", items)


@recalled
def _known(user: Any) -> tuple[Raw, Object]:
    """A visitor's identifiers, and what else is said of them, by the reading's own field names."""
    raw = Raw(phone_hash_has_plus=True)  # their phone numbers are E.164, hashed or not
    raw.user_id = first(user.pop("id", None), user.pop("ID", None))
    anonymous_id = first(user.pop("consistent_anonymous_id", None), *[user.pop(key, None) for key in _OLDER_IDS])
    granted = user.pop("consent_categories", None)
    identify(user, raw)
    return raw, {"anonymous_id": anonymous_id, "granted": granted, "traits": user}


def _device(reading: Reading, context: Object) -> None:
    device = context.get("device")
    if not isinstance(device, dict):
        return
    del context["device"]
    said, advertising_id, sdk_id, rest = _described(device)
    fill(reading, said)
    reading.raw.advertising_id = advertising_id
    reading.anonymous_id = first(reading.anonymous_id, sdk_id)
    keep(context, "device", rest)


@recalled
def _described(sent: Any) -> tuple[Object, Any, Any, Object]:
    """What a device says by the reading's own field names, its advertising id, its SDK's id, and what has no field."""
    device = dict(sent)
    network, screen, lifecycle = _taken(device, "network"), _taken(device, "screen"), _taken(device, "lifecycle")
    cookie = device.pop("cookie", None)
    advertising_id = device.pop("advertising_id", None)
    said = {
        "ip": device.pop("ip", None),
        "user_agent": device.pop("user_agent", None),
        "cookie_header": cookie if isinstance(cookie, str) else None,
        "cookies": cookie if isinstance(cookie, dict) else None,
        "idfv": device.pop("idfv", None),
        "session_id": lifecycle.pop("session_id", None),
        "locale": first(device.pop("lang", None), device.pop("language", None)),
        "tracking_enabled": device.pop("ad_tracking_enabled", None),
        "screen": {side: screen.pop(side) for side in _SCREEN if side in screen},
        "device": {
            "timezone": device.pop("timezone", None),
            "type": device.pop("type", None),
            "manufacturer": device.pop("manufacturer", None),
            "model": _either(device.pop("model", None), device, "name"),
            **_system(device),
            "carrier": network.pop("carrier", None),
        },
        **built(device),
    }
    said["device"] = {field: value for field, value in said["device"].items() if value is not None}
    for key, rest in (("network", network), ("screen", screen), ("lifecycle", lifecycle)):
        keep(device, key, rest)
    said = {field: value for field, value in said.items() if value not in (None, {})}
    return said, advertising_id, device.get("sdk_id"), device


def _system(device: Object) -> Object:
    if isinstance(device.get("os"), str):
        return {"os_name": device.pop("os")}
    system = _taken(device, "os")
    said = {"os_name": system.pop("name", None), "os_version": system.pop("version", None)}
    keep(device, "os", system)
    return said


def _cookies(reading: Reading, holder: Object) -> None:
    """The raw header, seen in the device and directly in the context, or an object of cookies."""
    if "cookie" not in holder:
        return
    said, there = holder.pop("cookie"), reading.cookie_header
    if isinstance(said, dict):
        reading.cookies = {**said, **reading.cookies}
    elif isinstance(said, str):
        reading.cookie_header = f"{said}; {there}" if there else said  # of one name the last counts: the device's


def _page(reading: Reading, context: Object, properties: Object) -> None:
    """The page, wherever the sender has it: their web SDK writes it at the root of a page_view as well."""
    if page := _taken(context, "page"):
        _own_page(reading, page)
        keep(context, "page", page)
    if reading.name == "page_view":
        reading.url = _either(reading.url, properties, "url")
        reading.title = _either(reading.title, properties, "title")
        reading.referrer = _either(reading.referrer, properties, "referrer")
        if reading.url:
            properties.pop("path", None)  # part of the url


def _own_page(reading: Reading, page: Object) -> None:
    reading.url = page.pop("url", None)
    if location := _taken(page, "location"):
        reading.url = _either(reading.url, location, "href")
        for part in _IN_HREF if reading.url else ():
            location.pop(part, None)
        keep(page, "location", location)
    reading.url = _either(reading.url, page, "location")
    reading.title = page.pop("title", None)
    reading.referrer = page.pop("referrer", None)
    reading.language = _either(page.pop("lang", None), page, "language")


def _either(value: Any, holder: Object, key: str) -> Any:
    """``value``, or where it says nothing the text that ``holder`` has under ``key``; another text stays there."""
    other = holder.get(key)
    if not isinstance(other, str) or (first(value) is not None and value != other):
        return value
    return first(value, holder.pop(key))
