"""An event as Snap reads it: where each of its fields comes from.

What the sender addressed to Snap counts before what it said to everybody. Properties are scrubbed before they are
stored, and nothing here reads anything else of the sender's own words.

Source: Snap, "Parameters": root, user_data, custom_data, contents, app_data, extinfo.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from router.event import App, Event, Item
from router.identifiers import sha256

ActionSource = Literal["WEB", "MOBILE_APP", "OFFLINE"]

EXTINFO_SLOTS = 16

# Snap's own values, and Meta's, which it takes as aliases; everything that is neither web nor app is offline.
_ACTION_SOURCES: Mapping[str, ActionSource] = MappingProxyType(
    {
        "web": "WEB",
        "website": "WEB",
        "app": "MOBILE_APP",
        "mobile_app": "MOBILE_APP",
        "offline": "OFFLINE",
        "physical_store": "OFFLINE",
        "phone_call": "OFFLINE",
        "email": "OFFLINE",
        "chat": "OFFLINE",
        "business_messaging": "OFFLINE",
        "system_generated": "OFFLINE",
        "other": "OFFLINE",
    }
)

_EXTINFO_FORMATS = {"android": "a2", "ios": "i2", "ipados": "i2", "iphone os": "i2"}

# Properties that Snap knows under the same name.
_TEXTS = ("content_name", "content_type", "delivery_category", "status", "event_tag")
_JOURNEY_TEXTS = (
    *("checkin_date", "travel_start", "travel_end", "departing_departure_date", "departing_arrival_date"),
    *("returning_departure_date", "returning_arrival_date", "origin_airport", "destination_airport", "hotel_score"),
)
_JOURNEY_COUNTS = ("num_adults", "num_children", "num_infants")
_JOURNEY_LISTS = (
    *("suggested_destinations", "suggested_hotels", "preferred_neighborhoods", "preferred_star_ratings"),
    "destination_ids",
)
_RARE = frozenset((*_JOURNEY_TEXTS, *_JOURNEY_COUNTS, *_JOURNEY_LISTS, "predicted_ltv", "custom_fields"))
_SIGN_UP = ("sign_up_method", "method")
_SEARCHES = ("search_string", "search_term", "query")
_CATEGORIES = ("content_category", "category")
# All of the properties that ``custom_data`` is made of.
_READ = _RARE.union(
    _TEXTS, _SIGN_UP, _SEARCHES, _CATEGORIES, ("brands", "brand", "content_ids", "contents", "num_items")
)
_NOTHING_SAID: Mapping[str, Any] = {}
_PLACES = ("country", "city", "region", "neighborhood", "postal_code")
_USER_IDS = ("subscription_id", "lead_id", "download_id", "partner_id")
_APP_TEXTS = ("campaign_ids", "install_referrer", "installer_package", "windows_attribution_id")

_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_NO_ADVERTISING_ID = "00000000-0000-0000-0000-000000000000"  # what iOS and Android give where tracking is off


def action_source(event: Event) -> ActionSource:
    """Where it happened: what the sender says, else a call or a shop for a sale, else a screen or an app without page.

    Commanders Act marks a sale by ``type``: online, offline or call.
    """
    said = event.properties.get("action_source")
    if isinstance(said, str) and (native := _ACTION_SOURCES.get(said.strip().lower())) is not None:
        return native
    if event.name == "purchase" and event.properties.get("type") in ("offline", "call"):
        return "OFFLINE"
    if event.kind == "screen" or (event.page.url is None and event.app != App()):
        return "MOBILE_APP"
    return "WEB"


def event_time(event: Event, unit: Literal["s", "ms"] = "s") -> int:
    """When it happened, since the epoch (UTC), rounded down; never later than when we received it.

    Snap's examples are in seconds, its tag template sends milliseconds. What it does with a time in the future is not
    documented, so none is sent.
    """
    time = min(event.time, event.received)
    return time if unit == "ms" else time // 1000


def addressed(event: Event) -> Mapping[str, Any]:
    """What the sender addressed to Snap alone: Commanders Act's ``integrations.snapchat``, Segment's object of that name.

    Segment's destination goes by "Snap Conversions Api" and two more names, so the beginning tells.
    """
    if not event.partners:
        return _NOTHING_SAID
    found: dict[str, Any] = {}
    for partner, said in event.partners.items():
        if isinstance(said, dict) and partner.lower().startswith("snap"):
            found.update(said)
    return found


def given(event: Event) -> Mapping[str, Any]:
    """The event's properties under what was addressed to Snap."""
    own = addressed(event)
    return {**event.properties, **own} if own else event.properties


def options(event: Event) -> list[str]:
    """Members of ``data_processing_options``: LMU where limited use is asked for, DELETE where the sender says so.

    Snap's own sample sends the text "['LMU']", its Parameters page says a list; senders' words are read in either form.
    """
    own, limited, delete = addressed(event), event.consent.opt_out, False
    if own:
        words = f"{own.get('data_processing_options')} {own.get('data_use')}".upper()
        limited = limited or "LMU" in words or "LDU" in words
    said = own if "data_processing_options" in own else event.properties
    if asked := said.get("data_processing_options"):
        delete = "DELETE" in str(asked).upper()
    return [*(["LMU"] if limited else []), *(["DELETE"] if delete else [])]


def test_code(event: Event) -> str | None:
    if not (own := addressed(event)):
        return None
    return text(own.get("test_code")) or text(own.get("test_event_code"))


def user_data(event: Event, source: ActionSource) -> dict[str, Any]:
    digests, clear, traits, own = event.user.digests, event.clear, event.user.traits, addressed(event)
    said = {**traits, **event.properties, **own} if traits or own else event.properties
    in_app = source == "MOBILE_APP"
    return present(
        {
            "em": [digests.email] if digests.email else None,
            "ph": [digests.phone] if digests.phone else None,
            "fn": digests.first_name,
            "ln": digests.last_name,
            "ge": digests.gender,
            "db": digests.birth_date,
            "ct": digests.city,
            "st": digests.state,
            "zp": digests.zip,
            "country": digests.country,
            "external_id": digests.external_id or _own_cookie(event, source),
            "client_ip_address": clear.ip,
            "client_user_agent": clear.user_agent,
            "sc_click_id": text(own.get("click_id")) or click_id(event.clicks),
            "sc_cookie1": event.cookies.get("_scid"),
            # Plain, as the parameter examples and the v3 connectors have it; only a best-practice page hashes it.
            "madid": clear.advertising_id if in_app and clear.advertising_id != _NO_ADVERTISING_ID else None,
            "idfv": clear.idfv if in_app else None,
            **said_texts(said, _USER_IDS),
            "anon_id": texts(said.get("anon_id")) or _install(event, source),
        }
    )


def _own_cookie(event: Event, source: ActionSource) -> str | None:
    """The digest of the visitor's id, where there is no Snap Pixel: "you can pass your cookie ID into external_id"."""
    if source != "WEB" or "_scid" in event.cookies or event.user.anonymous_id is None:
        return None
    return sha256(event.user.anonymous_id)


def _install(event: Event, source: ActionSource) -> list[str]:
    """The id of the installation: a mobile SDK makes its anonymous id when the app is installed."""
    return [event.user.anonymous_id] if source == "MOBILE_APP" and event.user.anonymous_id else []


def click_id(clicks: Mapping[str, str]) -> str | None:
    """The value of ScCid, whose name Snap's tag template reads in any case."""
    if not clicks:
        return None
    return next((value for name, value in clicks.items() if name.lower() == "sccid"), None)


def custom_data(event: Event) -> dict[str, Any]:
    money, items, said = event.money, event.items, given(event)
    if _READ.isdisjoint(said):  # as most events
        said = _NOTHING_SAID
    return present(
        {
            "currency": money.currency,
            # As text, like the page's own sample: our amounts are exact decimals, and a float would round them.
            "value": money.value or money.revenue,
            "order_id": money.order_id,
            **(_of_items(items, said) if items else _without_items(said) if said else _NOTHING_SAID),
            "content_category": _category(items, said),
            "brands": _brands(items, said),
            **(_of_properties(event, said) if said else _NOTHING_SAID),
        }
    )


def _of_properties(event: Event, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "search_string": _first_text(said, *_SEARCHES),
        "sign_up_method": _first_text(said, *(_SIGN_UP if event.name == "sign_up" else _SIGN_UP[:1])),
        **said_texts(said, _TEXTS),
        **(_rarely(said) if not _RARE.isdisjoint(said) else {}),
    }


def _of_items(items: tuple[Item, ...], said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "content_ids": [item.id for item in items if item.id] or _ids(said.get("content_ids")),
        "contents": [content for content in map(_content, items) if content],
        "num_items": _quantity(items),
    }


def _without_items(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "content_ids": _ids(said.get("content_ids")),
        "contents": _contents(said.get("contents")),
        "num_items": whole(said.get("num_items")),
    }


def _rarely(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "predicted_ltv": number(said.get("predicted_ltv")),
        "custom_fields": custom_fields(said.get("custom_fields")),
        **_journey(said),
    }


def custom_fields(value: Any) -> dict[str, str]:
    """The sender's own fields: text by name. Yes and no become text; lists and objects have no place there."""
    if not isinstance(value, dict):
        return {}
    said = {name: str(one).lower() if isinstance(one, bool) else text(one) for name, one in value.items()}
    return {name: one for name, one in said.items() if one}


def _journey(said: Mapping[str, Any]) -> dict[str, Any]:
    """The travel fields.

    A city or a country goes along only beside one of them: in other events it says where somebody lives.
    """
    found = present(
        {
            **{name: text(said.get(name)) for name in _JOURNEY_TEXTS},
            **{name: whole(said.get(name)) for name in _JOURNEY_COUNTS},
            **{name: texts(said.get(name)) for name in _JOURNEY_LISTS},
        }
    )
    return {**found, **{name: text(said.get(name)) for name in _PLACES}} if found else {}


def _contents(said: Any) -> list[dict[str, Any]]:
    """The sender's own ``contents``; Snap documents every field of it as a string."""
    listed = said if isinstance(said, list) else []
    fields = ("id", "quantity", "item_price", "delivery_category", "brand")
    made = (present({name: text(one.get(name)) for name in fields}) for one in listed if isinstance(one, dict))
    return [content for content in made if content]


def _content(item: Item) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if item.id:
        made["id"] = item.id
    if item.quantity is not None:
        made["quantity"] = str(item.quantity)
    if item.price:
        made["item_price"] = item.price
    if item.extra and (category := text(item.extra.get("delivery_category"))):
        made["delivery_category"] = category
    if item.brand:
        made["brand"] = item.brand
    return made


def _quantity(items: tuple[Item, ...]) -> int:
    return sum([1 if item.quantity is None else item.quantity for item in items])


def _category(items: tuple[Item, ...], said: Mapping[str, Any]) -> str | None:
    """One text, as Snap documents it; connectors that send a list here are not known to be understood."""
    if said and (own := _first_text(said, *_CATEGORIES) or ", ".join(texts(said.get(_CATEGORIES[0])))):
        return own
    found = [item.category for item in items if item.category]
    return ", ".join(dict.fromkeys(found)) if found else None


def _brands(items: tuple[Item, ...], said: Mapping[str, Any]) -> str | list[str] | None:
    """Snap takes one text or a list; one brand goes as the page's sample has it."""
    brands = [item.brand for item in items if item.brand]
    if brands:
        brands = list(dict.fromkeys(brands))
    elif said:
        brands = texts(said.get("brands")) or texts(said.get("brand"))
    return brands if len(brands) > 1 else brands[0] if brands else None


def _ids(value: Any) -> list[str]:
    """A list, or the text with commas that one of Snap's own templates makes."""
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else texts(value)


def app_data(event: Event, ios_app_id: str | None) -> dict[str, Any]:
    said = given(event)
    shaped = said.get("app_data")
    own: dict[str, Any] = {**(shaped if isinstance(shaped, dict) else {}), **addressed(event)}
    told = {**said, **own}
    tracking = event.device.tracking_enabled
    return present(
        {
            "app_id": _app_id(event, text(own.get("app_id")), ios_app_id),
            "advertiser_tracking_enabled": flag(
                own.get("advertiser_tracking_enabled") if tracking is None else tracking
            ),
            "application_tracking_enabled": flag(told.get("application_tracking_enabled")),
            "extinfo": _extinfo(event, own.get("extinfo")),
            **{name: ",".join(texts(told.get(name))) for name in _APP_TEXTS},
            "url_schemes": texts(told.get("url_schemes")),
        }
    )


def _app_id(event: Event, said: str | None, ios_app_id: str | None) -> str | None:
    """The App Store's number of an iOS app, the package name of an Android app; of another system what the sender says."""
    match _extinfo_format(event):
        case "i2":
            return said if said is not None and said.isascii() and said.isdigit() else ios_app_id
        case "a2":
            return said or event.app.namespace
        case _:
            return said


def _extinfo_format(event: Event) -> str:
    """By the name of the system; Commanders Act's and Segment's mobile SDKs say it as the type of the device too."""
    names = (event.device.os_name, event.device.type)
    return next((found for name in names if (found := _EXTINFO_FORMATS.get((name or "").strip().lower()))), "")


def _extinfo(event: Event, sent: Any) -> list[str]:
    """Snap's sixteen texts about app and device, empty where unknown; those that the sender wrote itself stay."""
    app, device = event.app, event.device
    zone = device.timezone or ""
    slots = [
        _extinfo_format(event),
        app.namespace,
        app.build or app.version,
        app.version,
        device.os_version,
        device.model,
        (device.locale or "").replace("-", "_"),
        "" if "/" in zone else zone,
        device.carrier,
        text(device.screen_width),
        text(device.screen_height),
        None if device.screen_density is None else f"{device.screen_density:.2f}",
        text(device.cpu_cores),
        device.storage,
        device.free_storage,
        zone if "/" in zone else "",
    ]
    own = sent if isinstance(sent, list) and len(sent) == EXTINFO_SLOTS else [None] * EXTINFO_SLOTS
    return [text(said) or slot or "" for said, slot in zip(own, slots, strict=True)]


# Values


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, or empty; 0 and False stay."""
    return {name: value for name, value in fields.items() if value or value == 0}


def text(value: Any) -> str | None:
    """Text or a number as text; None for everything else and for blank text."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def texts(value: Any) -> list[str]:
    """A list of texts; one text is a list of it."""
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [one for each in values if (one := text(each))]


def whole(value: Any) -> int | None:
    """A whole number, also where it was written as text or as 2.0."""
    if value is None:
        return None
    found = number(value)
    return int(found) if found is not None and int(found) == found else None


def number(value: Any) -> int | float | None:
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value.strip()) is None:
            return None
        value = float(value) if "." in value else int(value)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def flag(value: Any) -> int | None:
    """1 or 0, for a yes or no in any of the ways it is written."""
    if isinstance(value, str):
        return {"1": 1, "true": 1, "0": 0, "false": 0}.get(value.strip().lower())
    return int(value) if isinstance(value, int) and value in (0, 1) else None


def said_texts(said: Mapping[str, Any], names: Iterable[str]) -> dict[str, str | None]:
    """Those of the names that the sender said, as texts; most events say none of them."""
    return {name: text(said[name]) for name in names if name in said}


def _first_text(said: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        if name in said and (found := text(said[name])):
            return found
    return None
