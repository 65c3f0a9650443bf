"""Segment and RudderStack calls: track, page, screen, identify, group and alias.

A single call does not say which it is; its path does, else its fields. ``integrations`` are switches per destination.

Source: Segment, "HTTP API", "Spec: Common Fields", "Spec: V2 Ecommerce Events", "Consent in Segment Connections".
"""

from __future__ import annotations

from typing import Any, Final, get_args

from router.dialects.names import standard
from router.dialects.people import glean, identify
from router.dialects.picking import built, copied, fill, first, keep
from router.dialects.reading import Object, Reading
from router.event import Kind
from router.identifiers import Raw

KINDS: Final[dict[str, Kind]] = {word: word for word in get_args(Kind)}
MARKS: Final[frozenset[str]] = frozenset(
    ("userId", "anonymousId", "messageId", "originalTimestamp", "sentAt", "writeKey", "groupId", "previousId")
)
_WRAPPER: Final = ("_metadata", "writeKey", "version", "channel", "type", "receivedAt", "sentAt")
_ITEM_KEYS: Final = ("product_id", "sku", "name", "price", "quantity", "brand", "category", "variant")


def kind_of(item: Object, call: str | None) -> Kind:
    """Which call this is. Only a path can tell a screen from a page."""
    said = item.get("type")
    for word in (said, call):
        if isinstance(word, str) and (kind := KINDS.get(word)) is not None:
            return kind
    if "previousId" in item:
        return "alias"
    if "traits" in item:
        return "group" if "groupId" in item else "identify"
    return "page" if "event" not in item and ("name" in item or "category" in item) else "track"


def read(item: Object, call: str | None, wrapper: Object) -> Reading:
    root = dict(item)
    kind = kind_of(root, call)
    context = {**copied(wrapper.get("context")), **copied(root.pop("context", None))}
    properties = copied(root.pop("properties", None))
    reading = Reading(dialect="segment", kind=kind, raw=Raw(user_id=root.pop("userId", None)))
    reading.id = root.pop("messageId", None)
    reading.anonymous_id = root.pop("anonymousId", None)
    reading.group_id = first(root.pop("groupId", None), context.pop("groupId", None))
    reading.previous_id = root.pop("previousId", None)
    _name(reading, root)
    _time(reading, root, wrapper)
    group = _traits(reading, root, context)
    _context(reading, context)
    if kind in {"page", "screen"}:
        _page_call(reading, properties)
    _integrations(reading, {**copied(wrapper.get("integrations")), **copied(root.pop("integrations", None))})
    for key in _WRAPPER:
        root.pop(key, None)
    _commerce(reading, properties)
    for key, value in root.items():
        properties.setdefault(key, value)
    glean(properties, reading.raw)
    if context:
        glean(context, reading.raw)
        keep(properties, "context", context)
    keep(properties, "traits", group)
    reading.properties = properties
    return reading


def _name(reading: Reading, root: Object) -> None:
    if reading.kind == "track":
        reading.name_field, reading.named = "event", "event" in root
        reading.name = root.pop("event", None)
        reading.standard = standard(reading.name)
    else:
        reading.standard = {"page": "page_view", "screen": "screen_view"}.get(reading.kind, reading.kind)
        if reading.kind in {"page", "screen"}:
            reading.name = root.pop("name", None)


def _time(reading: Reading, root: Object, wrapper: Object) -> None:
    """A call that has ``receivedAt`` went through Segment's own servers, which have set ``timestamp`` right already."""
    original, stamped = root.pop("originalTimestamp", None), root.pop("timestamp", None)
    if stamped is not None and root.get("receivedAt") is not None:
        reading.time = stamped
        return
    reading.time = first(original, stamped)
    reading.sent_at = first(root.get("sentAt"), wrapper.get("sentAt"))


def _traits(reading: Reading, root: Object, context: Object) -> Object:
    """The person's traits go into the reading. A group's are a company's, and returned: they identify nobody."""
    own, ambient = copied(root.pop("traits", None)), copied(context.pop("traits", None))
    company, person = (own, ambient) if reading.kind == "group" else ({}, {**ambient, **own})
    person.pop("id", None)
    identify(person, reading.raw)
    reading.traits = person
    return company


def _context(reading: Reading, context: Object) -> None:
    device, system = copied(context.pop("device", None)), copied(context.pop("os", None))
    page, network = copied(context.pop("page", None)), copied(context.pop("network", None))
    reading.ip = context.pop("ip", None)
    reading.user_agent = context.pop("userAgent", None)
    reading.locale = context.pop("locale", None)
    reading.device["timezone"] = context.pop("timezone", None)
    reading.session_id = context.pop("sessionId", None)
    reading.url, reading.title = page.pop("url", None), page.pop("title", None)
    reading.referrer = page.pop("referrer", None)
    if reading.url:
        page.pop("path", None)  # parts of the url, where they would escape its scrubbing
        page.pop("search", None)
    if device:
        reading.device["type"] = device.pop("type", None)
        reading.device["manufacturer"] = device.pop("manufacturer", None)
        reading.device["model"] = first(device.pop("model", None), device.pop("name", None))
        reading.raw.advertising_id = device.pop("advertisingId", None)
        reading.tracking_enabled = device.pop("adTrackingEnabled", None)
        reading.idfv = device.pop("id", None) if str(system.get("name")).lower() in {"ios", "ipados"} else None
        fill(reading, built(device))
    reading.device["os_name"], reading.device["os_version"] = system.get("name"), system.get("version")
    reading.device["carrier"] = network.pop("carrier", None)
    reading.screen = copied(context.pop("screen", None))
    reading.app = copied(context.pop("app", None))
    reading.cookies = copied(context.pop("cookies", None))
    consent = context.pop("consent", None)
    if isinstance(consent, dict):
        reading.preferences = consent.get("categoryPreferences")
    if isinstance(context.get("location"), dict):
        _place(reading, context)
    for key, rest in (("device", device), ("page", page), ("network", network)):
        keep(context, key, rest)


def _place(reading: Reading, context: Object) -> None:
    place = dict(context.pop("location"))
    identify(place, reading.raw)
    keep(context, "location", place)


def _page_call(reading: Reading, properties: Object) -> None:
    """A page call carries its page among its own properties; elsewhere a "title" may be a book's."""
    reading.name = first(reading.name, properties.get("name"))
    reading.url = first(properties.pop("url", None), reading.url)
    reading.title = first(properties.pop("title", None), reading.title)
    reading.referrer = first(properties.pop("referrer", None), reading.referrer)
    if reading.url:
        properties.pop("path", None)
        properties.pop("search", None)


def _integrations(reading: Reading, switches: Object) -> None:
    """False and true switch; an object is true and its content is meant for that destination."""
    reading.partners = {name: value for name, value in switches.items() if isinstance(value, dict)}
    reading.routing = {name: value is not False for name, value in switches.items() if isinstance(value, (bool, dict))}


def _commerce(reading: Reading, properties: Object) -> None:
    total, value = properties.get("total"), properties.get("value")
    reading.money = {
        "value": first(total, value, properties.get("revenue")),
        "revenue": properties.get("revenue"),
        "tax": properties.get("tax"),
        "shipping": properties.get("shipping"),
        "discount": properties.get("discount"),
        "currency": properties.get("currency"),
        "order_id": properties.get("order_id"),
        "coupon": properties.get("coupon"),
    }
    products: Any = properties.pop("products", None)
    if products is None and reading.standard is not None and ("product_id" in properties or "sku" in properties):
        products = [{key: properties[key] for key in _ITEM_KEYS if key in properties}]
    reading.items = products
