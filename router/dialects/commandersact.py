"""Commanders Act events: ``event_name``, the event's properties beside it, ``user`` and ``context``.

``id`` is the order's number, never the event's; ``integrations`` and ``partners`` address partners and switch nothing.
Version 1.0 ("commandersact-1") has ``properties`` as an object of its own, and the page and device at the root.

Source: Commanders Act, "HTTP tracking API" versions 2.0 and 1.0, "Events reference", "Mobile SDK event specificity".
"""

from __future__ import annotations

from router.dialects.people import glean, identify
from router.dialects.reading import Object, Reading, copied, first, keep
from router.identifiers import Raw

_ADDRESSING = frozenset(
    ("tc_s", "tc_skey", "tc_firsttime", "token")
)  # of the request; a token is not kept with the event
_OLDER_IDS = frozenset(("tcId", "tcid", "tc_id"))


def current(item: Object) -> Reading:
    properties = dict(item)
    context = copied(properties.pop("context", None))
    time = first(context.pop("event_timestamp", None), properties.pop("event_timestamp", None))
    user = copied(properties.pop("user", None))
    reading = _read("commandersact", properties, context, user)
    reading.time = first(time, properties.pop("ts_override", None))
    return reading


def version_1(item: Object) -> Reading:
    """Version 1.0, and the shape before it, which says ``event`` and not ``event_name``."""
    root = dict(item)
    properties = copied(root.pop("properties", None))
    user = {**copied(properties.pop("user", None)), **copied(root.pop("user", None))}
    context = copied(root.pop("context", None))
    for part in ("page", "device", "app"):
        if isinstance(root.get(part), dict):
            context.setdefault(part, root.pop(part))
    time = first(root.pop("event_timestamp", None), context.pop("event_timestamp", None))
    if "event_name" not in root and "event" in root:
        root["event_name"] = root.pop("event")
    reading = _read("commandersact-1", {**properties, **root}, context, user)
    reading.time = first(time, reading.properties.pop("event_timestamp", None))
    return reading


def _read(dialect: str, properties: Object, context: Object, user: Object) -> Reading:
    for key in _ADDRESSING & properties.keys():
        del properties[key]
    raw = Raw(phone_hash_has_plus=True)  # their phone numbers are E.164, hashed or not
    reading = Reading(dialect=dialect, raw=raw, named="event_name" in properties)
    reading.name = properties.pop("event_name", None)
    reading.id = first(context.pop("event_id", None), properties.pop("event_id", None))
    _user(reading, user)
    _device(reading, context)
    _page(reading, context, properties)
    reading.app = copied(context.pop("app", None))
    reading.cookie_header = first(reading.cookie_header, context.pop("cookie", None))
    for holder, key in ((context, "integrations"), (properties, "integrations"), (properties, "partners")):
        if isinstance(said := holder.pop(key, None), dict):
            reading.partners |= said
    reading.test = properties.pop("test_code", None)
    reading.items = properties.pop("items", None)
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
    keep(properties, "context", context)
    reading.properties = properties
    return reading


def _user(reading: Reading, user: Object) -> None:
    raw = reading.raw
    raw.user_id = first(user.pop("id", None), user.pop("ID", None))
    reading.anonymous_id = user.pop("consistent_anonymous_id", None)
    if not _OLDER_IDS.isdisjoint(user):
        reading.anonymous_id = first(reading.anonymous_id, *(user.pop(key, None) for key in _OLDER_IDS))
    reading.granted = user.pop("consent_categories", None)
    identify(user, raw)
    reading.traits = user


def _device(reading: Reading, context: Object) -> None:
    device = copied(context.pop("device", None))
    reading.ip = device.pop("ip", None)
    reading.user_agent = device.pop("user_agent", None)
    if not device:  # a browser's, as a rule, is no more than these two
        return
    system, network = copied(device.pop("os", None)), copied(device.pop("network", None))
    lifecycle = copied(device.pop("lifecycle", None))
    reading.cookie_header = device.pop("cookie", None)
    reading.locale = first(device.pop("lang", None), device.pop("language", None))
    reading.device["timezone"] = device.pop("timezone", None)
    reading.device["type"] = device.pop("type", None)
    reading.device["manufacturer"] = device.pop("manufacturer", None)
    reading.device["model"] = first(device.pop("model", None), device.pop("name", None))
    reading.device["os_name"], reading.device["os_version"] = system.get("name"), system.get("version")
    reading.device["carrier"] = network.pop("carrier", None)
    reading.screen = copied(device.pop("screen", None))
    reading.raw.advertising_id = device.pop("advertising_id", None)
    reading.idfv = device.pop("idfv", None)
    reading.tracking_enabled = device.pop("ad_tracking_enabled", None)
    reading.anonymous_id = first(reading.anonymous_id, device.get("sdk_id"))
    reading.session_id = lifecycle.pop("session_id", None)
    keep(device, "lifecycle", lifecycle)
    keep(device, "network", network)
    keep(context, "device", device)


def _page(reading: Reading, context: Object, properties: Object) -> None:
    """The page, wherever the sender has it: their web SDK writes it at the root of a page_view as well."""
    page = copied(context.pop("page", None))
    if page:
        _own_page(reading, page)
        keep(context, "page", page)
    if reading.name == "page_view":
        reading.url = first(reading.url, properties.pop("url", None))
        reading.title = first(reading.title, properties.pop("title", None))
        reading.referrer = first(reading.referrer, properties.pop("referrer", None))
        properties.pop("path", None)  # part of the url


def _own_page(reading: Reading, page: Object) -> None:
    location = page.pop("location", None)
    href = location.get("href") if isinstance(location, dict) else location
    reading.url = first(page.pop("url", None), href)
    reading.title = page.pop("title", None)
    reading.referrer = page.pop("referrer", None)
    reading.language = first(page.pop("lang", None), page.pop("language", None))
