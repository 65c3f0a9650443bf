"""Snap Conversions API v3: web and offline events to a pixel, app events to a Snap App ID.

What an event looks like to Snap, what Snap would refuse, and what its answers mean. Which events come here, how old
they may be and when they are tried again is decided elsewhere.

Source: Snap, "Conversions API": "Using the API", "Parameters", "Verify Set Up"
(https://developers.snap.com/api/marketing-api/Conversions-API). Its pages contradict each other in places; every
choice is explained where it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from router.destination import Destination, Header, Request, Response, mapped
from router.event import App, Event, Item
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry, Split
from router.secret import Secret

ActionSource = Literal["WEB", "MOBILE_APP", "OFFLINE"]

# The names that Snap's tag template and the public connectors agree on. There is no LEAD: Snap's template files
# generate_lead under SIGN_UP, Commanders Act under SUBSCRIBE; ``events`` in the configuration overrides it.
DEFAULT_EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "page_view": "PAGE_VIEW",
        "view_item": "VIEW_CONTENT",
        "view_item_list": "LIST_VIEW",
        "search": "SEARCH",
        "add_to_cart": "ADD_CART",
        "add_to_wishlist": "ADD_TO_WISHLIST",
        "begin_checkout": "START_CHECKOUT",
        "add_payment_info": "ADD_BILLING",
        "purchase": "PURCHASE",
        "sign_up": "SIGN_UP",
        "generate_lead": "SIGN_UP",
        "login": "LOGIN",
        "share": "SHARE",
        "tutorial_complete": "COMPLETE_TUTORIAL",
        "start_trial": "START_TRIAL",
        "subscribe": "SUBSCRIBE",
        "ad_view": "AD_VIEW",
        "ad_click": "AD_CLICK",
        "app_install": "APP_INSTALL",
        "app_open": "APP_OPEN",
    }
)

EVENT_NAMES = frozenset(
    {
        *DEFAULT_EVENTS.values(),
        *("SAVE", "LEVEL_COMPLETE", "INVITE", "RESERVE", "ACHIEVEMENT_UNLOCKED", "SPENT_CREDITS", "RATE"),
        *(f"CUSTOM_EVENT_{slot}" for slot in range(1, 6)),
    }
)

# Snap documents no limit in bytes. 2 MB is what a large customer data platform allows itself per request.
MAX_BYTES = 2_000_000

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

_HASHED = ("em", "ph", "fn", "ln", "ge", "db", "ct", "st", "zp", "country")
_CLEAR = (
    "external_id",
    "client_ip_address",
    "client_user_agent",
    "sc_click_id",
    "sc_cookie1",
    "madid",
    "idfv",
)
_ROOT = ("event_name", "event_time", "event_source_url", "event_id", "action_source", "integration")

# Properties that Snap knows under the same name. Its places (city, country, postal_code ...) are left to ``map``: in
# most senders' properties they say where somebody lives, not where they travel.
_TEXTS = (
    "content_name",
    "content_type",
    "delivery_category",
    "event_tag",
    "checkin_date",
    "travel_start",
    "travel_end",
    "departing_departure_date",
    "departing_arrival_date",
    "returning_departure_date",
    "returning_arrival_date",
    "origin_airport",
    "destination_airport",
    "hotel_score",
)
_NUMBERS = ("predicted_ltv", "num_adults", "num_children", "num_infants")
_LISTS = (
    "suggested_destinations",
    "suggested_hotels",
    "preferred_neighborhoods",
    "preferred_star_ratings",
    "destination_ids",
)

_ASSET_ID = "^[0-9A-Za-z-]{1,64}$"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_ABSOLUTE = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_NO_ADVERTISING_ID = "00000000-0000-0000-0000-000000000000"  # what iOS and Android give where tracking is off


class Snap(Destination, tag="snap", frozen=True, kw_only=True):
    pixel_id: Annotated[
        str, Meta(pattern=_ASSET_ID, description="Events Manager, Pixel ID. Web and offline events go there.")
    ]
    access_token: Annotated[Secret, Meta(description="Business Details, Conversions API Tokens.")]
    app_id: Annotated[
        Annotated[str, Meta(pattern=_ASSET_ID)] | None,
        Meta(description="Snap App ID. App events go there; without it they are refused."),
    ] = None
    token_in_header: Annotated[bool, Meta(description="Send the token as Authorization: Bearer, not in the URL.")] = (
        False
    )
    oauth: Annotated[bool, Meta(description="The token is an OAuth token: Snap allows those 10 requests a second.")] = (
        False
    )
    test_event_code: Annotated[
        str | None, Meta(description="Marks every event as a test: Snap shows it and does not process it.")
    ] = None
    integration: Annotated[str, Meta(min_length=1, description="The name under which Snap lists this integration.")] = (
        "turnout"
    )
    time_unit: Annotated[Literal["s", "ms"], Meta(description="Unit of event_time; Snap takes both.")] = "s"
    max_age: Annotated[
        str | None, Meta(description='Oldest event to send. Snap takes "7d"; up to "37d" for offline uploads.')
    ] = None

    title: ClassVar[str] = "Snapchat"
    home: ClassVar[str] = "https://tr.snapchat.com"
    docs: ClassVar[str] = "https://developers.snap.com/api/marketing-api/Conversions-API"
    max_batch: ClassVar[int] = 2000
    default_batch: ClassVar[int] = 100
    default_rate: ClassVar[str | None] = "1000/s"
    window: ClassVar[str | None] = "7d"
    dedup_key: ClassVar[str] = "event_id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent", "advertising_id", "idfv"})
    default_events: ClassVar[Mapping[str, str] | None] = DEFAULT_EVENTS

    def __post_init__(self) -> None:
        if self.oauth and self.rate is None:
            msgspec.structs.force_setattr(self, "rate", "10/s")

    def requests(self, events: Sequence[Event], now: int) -> Iterable[Request | Refusal]:  # noqa: ARG002 - the contract's; nothing of Snap's depends on it
        # Web events and app events have different addresses, so a batch holds one kind only.
        by_asset: dict[str, list[tuple[Event, bytes]]] = {}
        for event in events:
            body = self.body(event)
            asset = self.asset(body)
            if asset is None or (reason := ". ".join(faults(body))):
                yield Refusal(event, reason if asset else "action_source: app events need a Snap App ID; set app_id")
            else:
                by_asset.setdefault(asset, []).append((event, msgspec.json.encode(body)))
        size = min(self.batch or self.default_batch, self.max_batch)
        for asset, members in by_asset.items():
            for part in _parts(members, size):
                yield self._request(asset, part)

    def body(self, event: Event) -> dict[str, Any]:
        """The event as Snap reads it, ``map`` applied. Whether Snap would take it is what ``faults`` says."""
        source = action_source(event)
        body = _present(
            {
                "integration": self.integration,
                "event_name": (self.partner_name(event) or "").upper(),
                "event_time": event_time(event, self.time_unit),
                "action_source": source,
                "event_source_url": event.page.url,
                "event_id": event.id,
                "test_event_code": _for_snap(event, "test_code") or self.test_event_code or event.test,
                # The page's own sample has the text "['LMU']"; its Parameters page says a list.
                "data_processing_options": ["LMU"] if event.consent.opt_out else None,
                "app_data": _app_data(event) if source == "MOBILE_APP" else None,
                "custom_data": _custom_data(event),
            }
        )
        body["user_data"] = _user_data(event, source)
        return mapped(body, event, self.map)

    def asset(self, body: Mapping[str, Any]) -> str | None:
        """Whose event it is: the app's or the pixel's. None for an app event where no app is set."""
        return self.app_id if body.get("action_source") == "MOBILE_APP" else self.pixel_id

    def validation(self, request: Request) -> Request:
        """The same request as a question: Snap checks the events, says what is wrong and processes none."""
        return msgspec.structs.replace(request, url=f"{request.url}/validate")

    def outcome(self, response: Response) -> Outcome:
        answer = response.object()
        match response.status, answer.get("status"):
            case 200, "VALID":
                return Delivered()
            case (200, "INVALID") | (400, _):
                return _refused(response, answer)
            case 200, _:
                return Delivered(unverified=True)
            case 401, _:
                return Hold("Snap refused the access token: set a valid access_token, then resume")
            case 403, _:
                return Hold(
                    "the access token may not send to this pixel or app: use a token of the organisation that owns it, "
                    "then resume"
                )
            case 404, _:
                return Hold("Snap does not know this pixel or app: check pixel_id and app_id, then resume")
            case 429, _:
                return Retry("Snap limits the rate: it is tried again later; a lower rate avoids this")
            case status, _ if status >= 500:
                return Retry(f"Snap failed (HTTP {status}): it is tried again later")
            case _:
                return super().outcome(response)

    def _request(self, asset: str, members: Sequence[tuple[Event, bytes]]) -> Request:
        headers: dict[str, Header] = {"Content-Type": "application/json"}
        query: dict[str, Header] = {}
        if self.token_in_header:
            headers["Authorization"] = Secret(f"Bearer {self.access_token.reveal()}", self.access_token.reference)
        else:
            query["access_token"] = self.access_token
        return Request(
            url=self.endpoint(f"/v3/{asset}/events"),
            body=b'{"data":[%b]}' % b",".join(body for _, body in members),
            events=tuple(event for event, _ in members),
            headers=headers,
            query=query,
        )


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


def faults(body: Mapping[str, Any]) -> Iterator[str]:
    """What Snap would refuse in this event, as field and rule. Empty for an event that it documents as acceptable.

    The age is not judged here. Source: Snap, "Using the API", Required Parameters; "Verify Set Up", statuses.
    """
    user, custom, app = (_object(body, name) for name in ("user_data", "custom_data", "app_data"))
    yield from _root_faults(body)
    yield from _match_faults(user, body.get("action_source"))
    yield from _money_faults(custom, body.get("event_name"))
    if body.get("action_source") == "MOBILE_APP" and not _is_extinfo(app.get("extinfo")):
        yield "app_data.extinfo: app events need a list of 16 texts; correct map"


def _root_faults(body: Mapping[str, Any]) -> Iterator[str]:
    if body.get("event_name") not in EVENT_NAMES:
        yield "event_name: Snap has no such event; give it one of Snap's names or CUSTOM_EVENT_1 to 5 in events"
    if not _is_integer(body.get("event_time")):
        yield "event_time: it is a whole number; take it out of map"
    if body.get("action_source") not in ("WEB", "MOBILE_APP", "OFFLINE"):
        yield "action_source: it is WEB, MOBILE_APP or OFFLINE; correct map"
    if body.get("action_source") == "WEB" and not _is_absolute(body.get("event_source_url")):
        yield (
            "event_source_url: web events need an absolute http or https address; "
            "send the page's URL, or action_source where there is no page"
        )
    yield from _shape_faults(body)


def _shape_faults(body: Mapping[str, Any]) -> Iterator[str]:
    if "event_id" not in body:
        yield "event_id: without it a resend would count twice; send an id with the event"
    for name in ("event_id", "integration", "test_event_code", "event_source_url"):
        if name in body and not _is_text(body[name]):
            yield f"{name}: it is a text; correct map"
    if not _is_list_of_text(body.get("data_processing_options", [])):
        yield "data_processing_options: it is a list of texts; correct map"
    for name in ("user_data", "custom_data", "app_data"):
        if not isinstance(body.get(name, {}), dict):
            yield f"{name}: it is an object; correct map"


def _match_faults(user: Mapping[str, Any], source: object) -> Iterator[str]:
    keys = [user.get("em"), user.get("ph"), user.get("client_ip_address") and user.get("client_user_agent")]
    if source == "MOBILE_APP":
        keys.append(user.get("madid"))
    if not any(keys):
        yield (
            "user_data: Snap matches nobody without em, ph, client_ip_address with client_user_agent, "
            "or madid of an app; send an e-mail, a phone, or the visitor's address and browser"
        )
    for name in _HASHED:
        if name in user and not _is_hashed(user[name]):
            yield f"user_data.{name}: it must be a SHA-256 of 64 lower-case hex digits, not of nothing; correct map"
    if "client_ip_address" in user and not _is_ip(user["client_ip_address"]):
        yield "user_data.client_ip_address: it is no IPv4 or IPv6 address; send the visitor's, in clear"


def _money_faults(custom: Mapping[str, Any], name: object) -> Iterator[str]:
    currency, value = custom.get("currency"), custom.get("value")
    if name == "PURCHASE" and currency is None:
        yield "custom_data.currency: PURCHASE needs it; send the currency with the purchase"
    if name == "PURCHASE" and value is None:
        yield "custom_data.value: PURCHASE needs it; send the value with the purchase"
    if currency is not None and not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
        yield "custom_data.currency: it is an ISO 4217 code in capitals, as EUR; correct map"
    if value is not None and not _is_number(value):
        yield "custom_data.value: it is a number; correct map"


def _user_data(event: Event, source: ActionSource) -> dict[str, Any]:
    digests, clear = event.user.digests, event.clear
    in_app = source == "MOBILE_APP"
    return _present(
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
            "external_id": digests.external_id,
            "client_ip_address": clear.ip,
            "client_user_agent": clear.user_agent,
            "sc_click_id": _for_snap(event, "click_id") or _click_id(event.clicks),
            "sc_cookie1": event.cookies.get("_scid"),
            # Plain, as the parameter examples and the v3 connectors have it; only a best-practice page hashes it.
            "madid": clear.advertising_id if in_app and clear.advertising_id != _NO_ADVERTISING_ID else None,
            "idfv": clear.idfv if in_app else None,
        }
    )


def _for_snap(event: Event, name: str) -> str | None:
    """What the sender addressed to Snap by Commanders Act's ``integrations.snapchat``."""
    addressed = event.partners.get("snapchat")
    return _text(addressed.get(name)) if isinstance(addressed, dict) else None


def _click_id(clicks: Mapping[str, str]) -> str | None:
    """The value of ScCid, whose name Snap's tag template reads in any case."""
    return next((value for name, value in clicks.items() if name.lower() == "sccid"), None)


def _custom_data(event: Event) -> dict[str, Any]:
    money, items, given = event.money, event.items, event.properties
    return _present(
        {
            "currency": money.currency,
            # As text, like the page's own sample: our amounts are exact decimals, and a float would round them.
            "value": money.value or money.revenue,
            "order_id": money.order_id,
            "content_ids": [item.id for item in items if item.id] or _texts(given.get("content_ids")),
            "contents": [content for content in map(_content, items) if content],
            "num_items": sum(1 if item.quantity is None else item.quantity for item in items) if items else None,
            "content_category": _category(event),
            "search_string": _first_text(given, "search_string", "search_term", "query"),
            "brands": _brands(event),
            "sign_up_method": _first_text(given, "sign_up_method", *(["method"] if event.name == "sign_up" else [])),
            **{name: _text(given.get(name)) for name in _TEXTS},
            **{name: given.get(name) for name in _NUMBERS if _is_number(given.get(name))},
            **{name: _texts(given.get(name)) for name in _LISTS},
        }
    )


def _content(item: Item) -> dict[str, Any]:
    """One of ``contents``; Snap documents every field of it as a string."""
    return _present(
        {
            "id": item.id,
            "quantity": None if item.quantity is None else str(item.quantity),
            "item_price": item.price,
            "delivery_category": _text(item.extra.get("delivery_category")),
            "brand": item.brand,
        }
    )


def _category(event: Event) -> str | None:
    """One text, as Snap documents it; connectors that send a list here are not known to be understood."""
    given = _first_text(event.properties, "content_category", "category")
    return given or ", ".join(dict.fromkeys(item.category for item in event.items if item.category)) or None


def _brands(event: Event) -> str | list[str] | None:
    """Snap takes one text or a list; one brand goes as the page's sample has it."""
    brands = list(dict.fromkeys(item.brand for item in event.items if item.brand))
    if len(brands) > 1:
        return brands
    return brands[0] if brands else _first_text(event.properties, "brands", "brand")


def _app_data(event: Event) -> dict[str, Any]:
    system = _extinfo_format(event)
    tracking = event.device.tracking_enabled
    return _present(
        {
            # For iOS this is the App Store's number, which no sender gives; the bundle id is in extinfo.
            "app_id": event.app.namespace if system == "a2" else None,
            "advertiser_tracking_enabled": None if tracking is None else int(tracking),
            "extinfo": _extinfo(event),
        }
    )


def _extinfo_format(event: Event) -> str:
    return _EXTINFO_FORMATS.get((event.device.os_name or "").strip().lower(), "")


def _extinfo(event: Event) -> list[str]:
    """Snap's sixteen texts about app and device, empty where unknown. Cores and storage are never known."""
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
        None if device.screen_width is None else str(device.screen_width),
        None if device.screen_height is None else str(device.screen_height),
        None if device.screen_density is None else f"{device.screen_density:.2f}",
        *("", "", ""),
        zone if "/" in zone else "",
    ]
    return [slot or "" for slot in slots]


def _parts(members: Sequence[tuple[Event, bytes]], size: int) -> Iterator[list[tuple[Event, bytes]]]:
    """Runs of at most ``size`` events and ``MAX_BYTES``; one event alone may be larger. There is at least one member."""
    part: list[tuple[Event, bytes]] = []
    weight = 0
    for member in members:
        if part and (len(part) == size or weight + len(member[1]) > MAX_BYTES):
            yield part
            part, weight = [], 0
        part.append(member)
        weight += len(member[1]) + 1  # the comma
    yield part


# Reading an answer


# A parser's "unexpected token" is about the body and not about ours.
_ABOUT_TOKEN = re.compile(r"(?<!unexpected )(?:\b|_)token\b|unauthori[sz]ed", re.IGNORECASE)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"|`([^`]*)`")
_PLAIN_WORD = re.compile(
    r"\(?(?:(?:(?:user_data|custom_data|app_data)\.)?[A-Za-z][A-Za-z_'-]{0,39}[0-9]?|[0-9]{1,4})[.,:;!?)]*", re.ASCII
)
_KNOWN_WORDS = frozenset({*_ROOT, *_HASHED, *_CLEAR, "user_data", "custom_data", "app_data", "value", "currency"})
_LONGEST_QUOTE = 200


def _refused(response: Response, answer: Mapping[str, Any]) -> Outcome:
    """An INVALID answer: about the token (Snap reports a bad one as 400 too), one event it names, or who knows."""
    said = _said(answer)
    if _ABOUT_TOKEN.search(said or _plain(response.body[:4096].decode("utf-8", "replace"))):
        return Hold("Snap refused the access token: set a valid access_token, then resume")
    reason = f"Snap refused the event: {said or 'it gives no reason'}; correct the field, then retry"
    events, index = response.request.events, answer.get("event")
    if len(events) == 1:
        return Rejected(reason)
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(events):
        return Split(reason, rejected={index: reason})
    return Split("Snap refused the batch and names no event: it is divided to find which")


def _said(answer: Mapping[str, Any]) -> str:
    """Snap's codes and messages, safe to show; empty where it gives none in the documented shape."""
    errors = answer.get("errors")
    told = errors if isinstance(errors, dict) else {}
    messages = [*_scalars(told.get("codes")), *_scalars(told.get("error_msgs")), *_scalars(answer.get("reason"))]
    return _plain(", ".join(dict.fromkeys(messages)))


def _plain(text: str) -> str:
    """``text`` without what it may repeat from an event: quotations, addresses, long numbers, anything but words."""
    kept: list[str] = []
    for word in _QUOTED.sub(_unquoted, text[:4096]).split():
        shown = word if _PLAIN_WORD.fullmatch(word) else "…"
        if not (shown == "…" and kept and kept[-1] == "…"):
            kept.append(shown)
    plain = " ".join(kept)
    return plain if len(plain) <= _LONGEST_QUOTE else plain[: _LONGEST_QUOTE - 1] + "…"


def _unquoted(found: re.Match[str]) -> str:
    inside = next(group for group in found.groups() if group is not None)
    return inside if inside in _KNOWN_WORDS else " … "


def _scalars(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if isinstance(one, str | int) and not isinstance(one, bool)]


# Values


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    """Text or a number as text; None for everything else and for blank text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _texts(value: Any) -> list[str]:
    return [text for one in value if (text := _text(one))] if isinstance(value, list | tuple) else []


def _first_text(given: Mapping[str, Any], *names: str) -> str | None:
    return next((text for name in names if (text := _text(given.get(name)))), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_hashed(value: Any) -> bool:
    digests = value if isinstance(value, list) else [value]
    return bool(digests) and all(
        isinstance(digest, str) and _SHA256.fullmatch(digest) and digest != _SHA256_OF_NOTHING for digest in digests
    )


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_extinfo(value: Any) -> bool:
    return _is_list_of_text(value) and len(value) == EXTINFO_SLOTS


def _is_absolute(value: Any) -> bool:
    try:
        return isinstance(value, str) and _ABSOLUTE.match(value) is not None and bool(urlsplit(value).hostname)
    except ValueError:  # "http://["
        return False


def _is_ip(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ip_address(value))
    except ValueError:
        return False
