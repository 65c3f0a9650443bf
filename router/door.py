"""The door: one decoded item becomes an ``Event``, or is turned away with the reason.

Personal data is hashed here, before anything is written, and free text is scrubbed. Depth, size and number of keys were
checked by ``router.body``. Pure: the time and new ids are arguments. The notes an event may carry are listed in
``router.normalise``.

Pages, devices, products and what was agreed to repeat from event to event, so what was made of each is remembered
(``router.recall``), as ``router.identifiers`` does with persons and ``router.scrub`` with texts. ``forget`` empties all of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from router import bots, dialects, identifiers, normalise, scrub
from router.dialects.people import strip
from router.dialects.reading import Reading
from router.event import App, Clear, Consent, Device, Event, Item, Money, Page, User
from router.normalise import Findings, amount, whole
from router.problem import Problem
from router.recall import recalled
from router.visit import Door, TurnedAway, Visit

MAX_NAME: Final = 128
MAX_ID: Final = 128
MAX_LABEL: Final = 256  # a device's model, an app's name, a product's id
_SHORT: Final = scrub.LEAST
# msgspec leaves a field out of the stored bytes where it is the default object itself, not merely equal to it.
_NOTHING: Final = Event(id="", name="", time=0, received=0, source="", dialect="")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNUSABLE: Final = re.compile(_CONTROL.pattern + "|\ufffd")  # a repaired id may stand for several
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,4}", re.ASCII)


def admit(
    item: Any, door: Door, visit: Visit, new_id: Callable[[], str], notes: tuple[str, ...] = ()
) -> Event | TurnedAway:
    """The event, or why not. Never raises, whatever JSON value ``item`` is."""
    if not isinstance(item, dict):
        return _turned_away(item, "not_an_object", "send each event as a JSON object")
    reading = dialects.read(item, visit.call, visit.wrapper, visit.dialect)
    if reading is None:
        return _turned_away(
            item, "unknown_format", "send a Commanders Act, Segment or plain JSON event, one object an event"
        )
    if (problem := _name_problem(reading)) is not None:
        return _turned_away(item, *problem, field=reading.name_field, id=_given_id(reading))
    findings = Findings(notes)
    _lift(reading)
    event = _event(reading, door, visit, new_id, findings)
    if findings.long_key:
        return _turned_away(
            item, "bad_key", f"shorten every key to at most {scrub.LONGEST_KEY} characters", id=event.id
        )
    if findings.out_of_range is not None:
        return _turned_away(
            item,
            "number_out_of_range",
            "send a number between -2^53 and 2^53",
            field=findings.out_of_range,
            id=event.id,
        )
    return event


def forget() -> None:
    """Empty every memory of what senders sent, as an erasure asks."""
    bots.forget()
    dialects.forget()
    identifiers.forget()
    normalise.forget()
    scrub.forget()


# -- turning away ----------------------------------------------------------------------------------------------------


def _turned_away(item: Any, code: str, message: str, *, field: str | None = None, id: str | None = None) -> TurnedAway:  # noqa: A002 - the word of Problem
    return TurnedAway(problem=Problem(code=code, field=field, message=message, id=id), scrubbed=remains(item))


def remains(item: Any) -> Any:
    """What may be kept of an item that was turned away: without identifiers, and scrubbed."""
    kept, _ = scrub.tree(strip(item))
    return None if kept is scrub.LONG_KEY else kept


def _name_problem(reading: Reading) -> tuple[str, str] | None:
    if reading.kind != "track":
        return None
    name = reading.name
    if name is None and not reading.named:
        return "missing", f"add {reading.name_field}: the name of what happened"
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or _CONTROL.search(name):
        return "bad_event_name", f"send {reading.name_field} as 1 to {MAX_NAME} characters without control characters"
    return None


def _given_id(reading: Reading) -> str | None:
    """The sender's event id, where it is usable."""
    given = reading.id
    if not isinstance(given, str) or not given.strip() or len(given) > MAX_ID or _UNUSABLE.search(given):
        return None
    return scrub.safe_id(given.strip(), seldom=True)


def given_id(item: Any) -> str | None:
    """The event id that an item brings, where it is usable and safe to repeat."""
    reading = dialects.read(item, None, {}) if isinstance(item, dict) else None
    return None if reading is None else _given_id(reading)


# -- letting in ------------------------------------------------------------------------------------------------------


def _event(reading: Reading, door: Door, visit: Visit, new_id: Callable[[], str], findings: Findings) -> Event:
    time, sent_time = normalise.event_time(reading.time, reading.sent_at, visit.received, findings)
    sent = _words(reading.name, MAX_NAME, findings)
    name = reading.standard or sent or reading.kind
    if (event_id := _given_id(reading)) is None:
        event_id = new_id()
        findings.note("own_id")
    page, landed = _page(reading, findings)
    return Event(
        id=event_id,
        name=name,
        time=time,
        received=visit.received,
        source=door.source,
        dialect=reading.dialect,
        kind=reading.kind,
        sent_name=sent if sent != name else None,
        sent_time=sent_time,
        user=_user(reading, door, findings),
        page=page,
        device=_device(reading, findings),
        app=_app(reading.app, findings),
        consent=_consent(reading, findings),
        money=_money(reading.money, findings),
        items=_items(reading.items, findings),
        clicks=_clicks(reading, landed),
        cookies=_cookies(reading),
        properties=_tree(reading.properties, findings),
        partners=_tree(reading.partners, findings),
        routing={_words(key, MAX_LABEL, findings) or "": value for key, value in reading.routing.items()},
        test=_words(reading.test, MAX_NAME, findings) or ("test" if visit.test else None),
        clear=_clear(reading, door, visit, findings),
        notes=tuple(findings.notes),
    )


def _user(reading: Reading, door: Door, findings: Findings) -> User:
    raw = reading.raw
    digests, dropped = identifiers.digests(raw, door.default_country)
    findings.note(*dropped)
    return User(
        id=_ident(raw.user_id),
        anonymous_id=_ident(reading.anonymous_id),
        session_id=_ident(reading.session_id),
        group_id=_ident(reading.group_id),
        previous_id=_ident(reading.previous_id),
        digests=digests,
        traits=_tree(reading.traits, findings),
    )


def _tree(value: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """What is kept as it came. Only here can a key of the sender's own survive, so only here is its length looked at."""
    if not value:
        return value
    cleaned, changed = scrub.tree(value)
    if cleaned is scrub.LONG_KEY:
        findings.long_key = True
        return {}
    if changed:
        findings.note("pii_scrubbed")
    return cleaned if isinstance(cleaned, dict) else {}


def _words(value: Any, longest: int, findings: Findings) -> str | None:
    """Free text: stripped, scrubbed, cut."""
    said = value if value is None or isinstance(value, str) else _number_as_text(value)
    if said is None or (len(said) < _SHORT and said.isalnum()):
        return said
    if not (said := said.strip()):
        return None
    cleaned = scrub.text(said)
    if cleaned is not said:
        findings.note("pii_scrubbed")
    return cleaned[:longest]


def _number_as_text(value: Any) -> str | None:
    if isinstance(value, float):
        return str(value) if abs(value) < 10**12 else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**19 else None
    return None


def _ident(value: Any) -> str | None:
    """An id of a person, session, group or order; one that is an e-mail address or a phone becomes its digest."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**64 else None
    if not isinstance(value, str):
        return None
    if len(value) < _SHORT and value.isalnum():
        return value
    if not (value := value.strip()) or len(value) > MAX_LABEL:
        return None
    return scrub.safe_id(value)


def _url(value: Any, findings: Findings) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    cleaned = scrub.url(value)
    if cleaned is None:
        findings.note("bad_url")
    elif cleaned != value:
        findings.note("pii_scrubbed")
    return cleaned


def _language(value: Any) -> str | None:
    return value if isinstance(value, str) and _LANGUAGE.fullmatch(value) else None


def _page(reading: Reading, findings: Findings) -> tuple[Page, dict[str, str]]:
    """The page, and the click ids in its address."""
    if not (reading.url or reading.title or reading.referrer or reading.language):
        return _NOTHING.page, {}
    page, landed, noticed = _visited((reading.url, reading.title, reading.referrer, reading.language))
    findings.take(noticed)
    return page, landed


@recalled
def _visited(said: Any) -> tuple[Page, dict[str, str], Findings]:
    """The page before counts for click ids too where it is of the same site: the landing page of the visit, as a rule.
    A click id in the address of another site is not that site's to pass on.
    """
    url, title, referrer, language = said
    findings = Findings()
    page = Page(
        url=_url(url, findings),
        title=_words(title, normalise.MAX_TEXT, findings),
        referrer=_url(referrer, findings),
        language=_language(language),
    )
    landed = normalise.clicks_of(url) if isinstance(url, str) else {}
    if isinstance(referrer, str) and (before := normalise.clicks_of(referrer)) and normalise.same_site(url, referrer):
        landed = before | landed
    return page, landed, findings


def _device(reading: Reading, findings: Findings) -> Device:
    said = (
        reading.device,
        reading.locale,
        reading.att_status,
        reading.tracking_enabled,
        reading.screen,
        reading.hardware,
    )
    if said == _UNSAID:  # most browsers
        return _NOTHING.device
    device, noticed = _described(said)
    findings.take(noticed)
    return device


_UNSAID: Final[tuple[Any, ...]] = ({}, None, None, None, {}, {})


@recalled
def _described(said: Any) -> tuple[Device, Findings]:
    named, locale, att_status, tracking_enabled, screen, hardware = said
    findings = Findings()
    known: dict[str, Any] = {
        field: _words(value, MAX_LABEL, findings) for field, value in named.items() if value is not None
    }
    if locale is not None:
        known["locale"] = _language(locale)
    if att_status is not None:
        known["tracking_enabled"] = normalise.att_status(att_status)
    if tracking_enabled is not None and known.get("tracking_enabled") is None:
        known["tracking_enabled"] = normalise.truth(tracking_enabled)
    if screen:
        known["screen_width"] = whole(screen.get("width"), "screen.width", findings)
        known["screen_height"] = whole(screen.get("height"), "screen.height", findings)
        known["screen_density"] = normalise.ratio(screen.get("density"))
    if hardware:
        known["cpu_cores"] = whole(hardware.get("cpu_cores"), "device.cpu_cores", findings)
        known["storage"] = amount(hardware.get("storage"), findings)
        known["free_storage"] = amount(hardware.get("free_storage"), findings)
    return (Device(**known) if known else _NOTHING.device), findings


def _app(app: dict[str, Any], findings: Findings) -> App:
    if not app:
        return _NOTHING.app
    return App(
        name=_words(app.get("name"), MAX_LABEL, findings),
        version=_words(app.get("version"), MAX_LABEL, findings),
        build=_words(app.get("build"), MAX_LABEL, findings),
        namespace=_words(app.get("namespace"), MAX_LABEL, findings),
    )


_ADDRESSES: Final = ("user_ip", "client_ip_address", "client_ip", "ip_address", "ip_override", "ip")
_AGENTS: Final = ("user_agent", "client_user_agent", "userAgent")
_LIFTED: Final = frozenset((*_ADDRESSES, *_AGENTS, "user_country"))


def _lift(reading: Reading) -> None:
    """Take what is kept apart from the payload out of an event's own properties; IP Snare's senders put it there."""
    properties = reading.properties
    if _LIFTED.isdisjoint(properties):
        return
    for key in _ADDRESSES:
        if key in properties:
            reading.ip = properties.pop(key) or reading.ip
    for key in _AGENTS:
        if key in properties:
            reading.user_agent = properties.pop(key) or reading.user_agent
    if "user_country" in properties:
        country = properties.pop("user_country")
        if identifiers.alpha2(country) is not None or not reading.raw.country:
            reading.raw.country = country


def _clear(reading: Reading, door: Door, visit: Visit, findings: Findings) -> Clear:
    """Only what a configured destination has declared; the rest is forgotten here."""
    wanted = door.keep_clear
    if not wanted:
        return _NOTHING.clear
    ip = normalise.public_ip(reading.ip or visit.ip) if "ip" in wanted else None
    if reading.ip and ip is None and "ip" in wanted:
        findings.note("bad_ip")
    raw = reading.raw
    return Clear(
        ip=ip,
        user_agent=normalise.user_agent(reading.user_agent or visit.user_agent) if "user_agent" in wanted else None,
        country=identifiers.alpha2(raw.country) if "country" in wanted else None,
        advertising_id=normalise.device_id(raw.advertising_id) if "advertising_id" in wanted else None,
        idfv=normalise.device_id(reading.idfv) if "idfv" in wanted else None,
    )


def _consent(reading: Reading, findings: Findings) -> Consent:
    consent = _NOTHING.consent
    if reading.granted is not None or reading.preferences is not None:
        consent, noticed = _agreed((reading.granted, reading.preferences))
        findings.take(noticed)
    return msgspec.structs.replace(consent, opt_out=True) if _opt_out(reading) else consent


@recalled
def _agreed(said: Any) -> tuple[Consent, Findings]:
    """What was granted, as text. A shape nobody knows counts as nothing said, so a lane that needs consent says no."""
    listed, preferences = said
    findings = Findings()
    granted: list[str] = []
    denied: list[str] = []
    if listed is not None:
        members = listed.split(",") if isinstance(listed, str) else listed if isinstance(listed, list) else [listed]
        granted = [name for member in members if (name := _words(member, MAX_LABEL, findings))]
        if isinstance(listed, (dict, bool)):
            findings.note("bad_consent")
            return _NOTHING.consent, findings
    elif isinstance(preferences, dict):
        for key, answer in preferences.items():
            if name := _words(key, MAX_LABEL, findings):
                (granted if answer is True or answer == "granted" else denied).append(name)
    else:
        return _NOTHING.consent, findings
    return Consent(known=True, granted=tuple(granted), denied=tuple(denied)), findings


def _opt_out(reading: Reading) -> bool:
    """Among the event's own properties, in its context, of the person or in its consent."""
    properties = reading.properties
    said = (properties, properties.get("context"), reading.traits, reading.preferences)
    for flags in said:
        if (
            flags
            and isinstance(flags, dict)
            and not normalise.OPT_OUTS.isdisjoint(flags)
            and normalise.opted_out(flags)
        ):
            return True
    return False


def _money(money: dict[str, Any], findings: Findings) -> Money:
    known: dict[str, Any] = {}
    for field, value in money.items():
        if value is None:
            continue
        if field == "order_id":
            known[field] = _ident(value)
        elif field == "coupon":
            known[field] = _words(value, MAX_LABEL, findings)
        else:
            known[field] = normalise.currency(value, findings) if field == "currency" else amount(value, findings)
    return Money(**known) if known else _NOTHING.money


# Commanders Act, Segment (and its "sku") and GA4 name the same things; one vocabulary serves all dialects.
_ITEM_FIELDS: Final = {
    "id": "id",
    "product_id": "id",
    "item_id": "id",
    "name": "name",
    "item_name": "name",
    "product_name": "name",
    "price": "price",
    "item_price": "price",
    "quantity": "quantity",
    "item_quantity": "quantity",
    "brand": "brand",
    "item_brand": "brand",
    "category": "category",
    "category_1": "category",
    "item_category": "category",
    "variant": "variant",
    "item_variant": "variant",
}


def _items(items: Any, findings: Findings) -> tuple[Item, ...]:
    """In the order sent; what is no object is no item."""
    if not isinstance(items, list):
        return ()
    return tuple([_item(item, index, findings) for index, item in enumerate(items) if isinstance(item, dict)])


def _item(item: dict[str, Any], index: int, findings: Findings) -> Item:
    made, noticed = _read_item(item)
    if noticed.out_of_range is not None and findings.out_of_range is None:
        findings.out_of_range = f"items.{index}.{noticed.out_of_range}"
    findings.take(noticed)
    return made


@recalled
def _read_item(item: Any) -> tuple[Item, Findings]:
    """Commanders Act has a product inside the item, whose id is not that of the variant sold: the item's own wins."""
    findings = Findings()
    known: dict[str, Any] = {}
    rest = _sorted_out(item, known)
    product = rest.get("product")
    if isinstance(product, dict):
        inner = _sorted_out(product, known)
        if inner:
            rest["product"] = inner
        else:
            del rest["product"]
    if "id" not in known and "sku" in rest:
        known["id"] = rest.pop("sku")
    made: dict[str, Any] = {}
    for field, value in known.items():
        if field == "price":
            made[field] = amount(value, findings)
        elif field == "quantity":
            made[field] = whole(value, field, findings)
        elif field == "id" and (scrub.is_shops_number(number := str(value).strip()) or scrub.is_bar_code(number)):
            made[field] = number
        else:
            made[field] = _words(value, normalise.MAX_TEXT, findings)
    return Item(**made, extra=_tree(rest, findings)), findings


def _sorted_out(item: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Put what has a field into ``known``, unless it has one already; the rest is returned."""
    rest = {}
    for key, value in item.items():
        field = _ITEM_FIELDS.get(key)
        if field is None or field in known:
            rest[key] = value
        elif value is not None:
            known[field] = value
    return rest


def _clicks(reading: Reading, landed: dict[str, str]) -> dict[str, str]:
    """Those of the page's address, and what the sender passed on by name, which is taken out of properties."""
    clicks, properties = landed, reading.properties
    if not _CLICK_KEYS.isdisjoint(properties):
        clicks = clicks | _named_clicks({key: properties.pop(key) for key in _CLICK_KEYS if key in properties})
    for partner, said in reading.partners.items():
        if isinstance(said, dict):
            clicks = clicks | _named_clicks(said)
            parameter = normalise.partners_click_id(partner)
            if parameter is not None and (click := normalise.opaque(said.get("click_id"))) is not None:
                clicks = clicks | {parameter: click}
    return clicks


def _named_clicks(holder: dict[str, Any]) -> dict[str, str]:
    return {
        normalise.CLICK_IDS[key]: click
        for key in _CLICK_KEYS
        if key in holder and (click := normalise.opaque(holder[key])) is not None
    }


def _cookies(reading: Reading) -> dict[str, str]:
    """From the Cookie header, from an object of cookies, and from what the sender passed on by name."""
    header, properties = reading.cookie_header, reading.properties
    cookies = normalise.cookies_of(header) if isinstance(header, str) else {}
    if reading.cookies:
        cookies |= normalise.named_cookies(reading.cookies)
    if not _COOKIE_KEYS.isdisjoint(properties):
        cookies |= normalise.named_cookies({key: properties.pop(key) for key in _COOKIE_KEYS if key in properties})
    for said in reading.partners.values():
        if isinstance(said, dict):
            cookies |= normalise.named_cookies(said)
    return cookies


_CLICK_KEYS: Final = frozenset(normalise.CLICK_IDS)
_COOKIE_KEYS: Final = frozenset(normalise.COOKIES)
