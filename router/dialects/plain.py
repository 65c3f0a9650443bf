"""Plain JSON: an object that names an event, from a backend, a beacon or a server-side tag manager.

The simplest is ``{"event": "purchase", "value": 12, "currency": "EUR", "user": {"email": "..."}}``. Properties may
stand at the root or in ``properties``. Google Tag Manager's server-side JSON request, walkerOS and the event of Meta's and
Snap's conversion APIs are close enough to be read here too.

Source: Google, "Common event data" (server-side tagging); Meta, "Conversions API parameters"; walkerOS, "Event model".
"""

from __future__ import annotations

from typing import Any, Final

from router.dialects.names import standard_of_any
from router.dialects.people import glean, identify
from router.dialects.picking import built, copied, fill, first, keep
from router.dialects.reading import Object, Reading
from router.identifiers import Raw

# Names in Meta's and Snap's user_data, and the cookie each holds the value of.
_COOKIES: Final = {"fbp": "_fbp", "fbc": "_fbc", "sc_cookie1": "_scid", "ttp": "_ttp"}
NAME_KEYS: Final = ("event", "event_name", "name")
_TIMES: Final = ("timestamp", "time", "event_time", "event_timestamp", "occurred_at", "ts")
_EXTINFO: Final = 16
_ADDRESSING: Final = ("token", "writeKey", "write_key", "api_key", "k")


def read(item: Object) -> Reading:
    root = dict(item)
    reading = Reading(dialect="plain", raw=Raw(), name_field=next((key for key in NAME_KEYS if key in root), "event"))
    reading.named, reading.name = reading.name_field in root, root.pop(reading.name_field, None)
    reading.standard = standard_of_any(reading.name)
    for key in _ADDRESSING:
        root.pop(key, None)
    reading.id = first(*(root.pop(key, None) for key in ("event_id", "message_id", "messageId", "id")))
    reading.time = first(*(root.pop(key, None) for key in _TIMES))
    reading.test = first(root.pop("test_code", None), root.pop("test_event_code", None))
    context = copied(root.pop("context", None))
    properties = _merged(root)
    _user(reading, properties)
    _page(reading, properties, context)
    _device(reading, properties, context)
    _consent(reading, properties, context)
    reading.app = copied(first(properties.pop("app", None), context.pop("app", None)))
    reading.cookies |= copied(context.pop("cookies", None)) | copied(properties.pop("cookies", None))
    reading.cookie_header = context.pop("cookie", None)
    reading.partners = {**copied(properties.pop("integrations", None)), **copied(properties.pop("partners", None))}
    _commerce(reading, properties)
    glean(properties, reading.raw)
    if context:
        glean(context, reading.raw)
        keep(properties, "context", context)
    reading.properties = properties
    return reading


def _merged(root: Object) -> Object:
    """One object of properties: those at the root win over the same ones further in."""
    inner = {
        **copied(root.pop("data", None)),
        **copied(root.pop("custom_data", None)),
        **copied(root.pop("properties", None)),
    }
    return {**inner, **root} if inner else root


def _user(reading: Reading, properties: Object) -> None:
    raw, user = reading.raw, properties.pop("user", None)
    person = {"id": user} if isinstance(user, (str, int)) else copied(user)
    data = copied(properties.pop("user_data", None))
    raw.user_id = first(
        person.pop("id", None),
        person.pop("user_id", None),
        data.pop("external_id", None),
        properties.pop("user_id", None),
        properties.pop("userId", None),
    )
    reading.anonymous_id = first(
        person.pop("anonymous_id", None),
        person.pop("device", None),
        properties.pop("anonymous_id", None),
        properties.pop("anonymousId", None),
        properties.pop("client_id", None),
    )
    reading.session_id = first(
        person.pop("session_id", None),
        person.pop("session", None),
        properties.pop("session_id", None),
        properties.pop("ga_session_id", None),
    )
    reading.group_id = person.pop("group_id", None)
    raw.advertising_id = first(data.pop("madid", None), person.pop("advertising_id", None))
    reading.idfv = data.pop("idfv", None)
    reading.ip, reading.user_agent = data.pop("client_ip_address", None), data.pop("client_user_agent", None)
    reading.cookies = {cookie: data.pop(key) for key, cookie in _COOKIES.items() if key in data}
    if "sc_click_id" in data:
        properties.setdefault("sc_click_id", data.pop("sc_click_id"))
    person = {**copied(properties.pop("traits", None)), **person}
    identify(person, raw)
    identify(data, raw)
    reading.traits = {**data, **person}


def _page(reading: Reading, properties: Object, context: Object) -> None:
    page = {**copied(context.pop("page", None)), **copied(properties.pop("page", None))}
    reading.url = first(
        page.pop("url", None),
        page.pop("location", None),
        properties.pop("url", None),
        properties.pop("page_location", None),
        properties.pop("page_url", None),
        properties.pop("event_source_url", None),
    )
    reading.title = first(page.pop("title", None), properties.pop("page_title", None))
    reading.referrer = first(
        page.pop("referrer", None), properties.pop("page_referrer", None), properties.pop("referrer", None)
    )
    reading.language = first(page.pop("language", None), page.pop("lang", None))
    if reading.url:
        page.pop("path", None)  # parts of the url, where they would escape its scrubbing
        page.pop("search", None)
    keep(properties, "page", page)


def _device(reading: Reading, properties: Object, context: Object) -> None:
    device = {**copied(context.pop("device", None)), **copied(properties.pop("device", None))}
    reading.ip = first(
        device.pop("ip", None),
        properties.pop("ip", None),
        properties.pop("ip_override", None),
        properties.pop("ip_address", None),
        context.pop("ip", None),
        reading.ip,
    )
    reading.user_agent = first(
        device.pop("user_agent", None),
        properties.pop("user_agent", None),
        properties.pop("userAgent", None),
        context.pop("userAgent", None),
        context.pop("user_agent", None),
        reading.user_agent,
    )
    if device or context:
        _described(reading, device, context)
        keep(properties, "device", device)
    reading.locale = first(reading.locale, properties.get("language"))
    if isinstance(properties.get("app_data"), dict):
        _app_data(reading, properties)


def _described(reading: Reading, device: Object, context: Object) -> None:
    """What is said of the device itself, if anything is."""
    system = device.pop("os", None)
    reading.device["type"] = device.pop("type", None)
    reading.device["manufacturer"] = device.pop("manufacturer", None)
    reading.device["model"] = device.pop("model", None)
    reading.device["os_name"] = system.get("name") if isinstance(system, dict) else system
    reading.device["os_name"] = first(reading.device["os_name"], device.pop("os_name", None))
    reading.device["os_version"] = system.get("version") if isinstance(system, dict) else None
    reading.device["os_version"] = first(reading.device["os_version"], device.pop("os_version", None))
    reading.locale = first(
        device.pop("locale", None),
        device.pop("language", None),
        context.pop("locale", None),
    )
    reading.device["timezone"] = first(device.pop("timezone", None), context.pop("timezone", None))
    reading.device["carrier"] = device.pop("carrier", None)
    reading.screen = copied(device.pop("screen", None))
    for side in ("width", "height", "density"):
        if f"screen_{side}" in device:
            reading.screen.setdefault(side, device.pop(f"screen_{side}"))
    reading.raw.advertising_id = first(reading.raw.advertising_id, device.pop("advertising_id", None))
    reading.idfv = first(reading.idfv, device.pop("idfv", None))
    reading.tracking_enabled = first(device.pop("tracking_enabled", None), device.pop("ad_tracking_enabled", None))
    fill(reading, built(device))


def _app_data(reading: Reading, properties: Object) -> None:
    """The app's and the phone's description as Snap and Meta want it; of its sixteen texts two say the time zone.

    What was said of the device by name counts more. The sixteen stay as they came, for who is sent them again.
    """
    data = dict(properties.pop("app_data"))
    reading.tracking_enabled = first(reading.tracking_enabled, data.pop("advertiser_tracking_enabled", None))
    reading.att_status = first(reading.att_status, data.pop("att_status", None))
    extinfo = data.get("extinfo")
    if isinstance(extinfo, list) and len(extinfo) == _EXTINFO:
        described = {"os_version": extinfo[4], "model": extinfo[5], "carrier": extinfo[8]}
        described["os_name"] = {"a2": "android", "i2": "ios"}.get(extinfo[0] if isinstance(extinfo[0], str) else "")
        described["timezone"] = first(extinfo[15], extinfo[7])
        reading.device |= {field: first(reading.device.get(field), said) for field, said in described.items()}
        reading.locale = first(reading.locale, extinfo[6])
        screen = {"width": extinfo[9], "height": extinfo[10], "density": extinfo[11]}
        reading.screen = {**screen, **reading.screen}
        hardware = {"cpu_cores": extinfo[12], "storage": extinfo[13], "free_storage": extinfo[14]}
        reading.hardware = {**hardware, **reading.hardware}
        app = {"namespace": extinfo[1], "build": extinfo[2], "version": extinfo[3]}
        properties["app"] = {**app, **copied(properties.get("app"))}
    keep(properties, "app_data", data)


def _consent(reading: Reading, properties: Object, context: Object) -> None:
    """An object of category -> bool; a list of the granted ones is taken too."""
    consent = first(properties.pop("consent", None), context.pop("consent", None))
    if isinstance(consent, list):
        reading.granted = consent
    elif isinstance(consent, dict):
        inner = consent.get("categoryPreferences")
        reading.preferences = inner if isinstance(inner, dict) else consent


def _commerce(reading: Reading, properties: Object) -> None:
    reading.money = {
        "value": properties.get("value"),
        "revenue": properties.get("revenue"),
        "tax": properties.get("tax"),
        "shipping": properties.get("shipping"),
        "discount": properties.get("discount"),
        "currency": properties.get("currency"),
        "order_id": first(properties.get("order_id"), properties.get("transaction_id")),
        "coupon": properties.get("coupon"),
    }
    items: Any = None
    for key in ("items", "products", "contents"):
        if isinstance(properties.get(key), list):
            items = items or properties.pop(key)
    reading.items = items
