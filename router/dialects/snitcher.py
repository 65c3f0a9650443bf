"""Snitcher: sessions of companies' visitors as its API lists them, the companies, and what its webhooks tell.

An answer of Snitcher's is no event: ``session_items``, ``company_item`` and ``webhook_items`` cut it into items, each with
an id that is the same whenever the same answer is cut, and ``read`` sorts such an item. Nothing is recognised as
Snitcher's by its looks: only what we fetched or what came with its signature is read here.

Values of forms are raw personal data. What is cut here carries those that name a person under ``traits``, where the door
hashes them, and those the operator listed; all others are left behind. A company's own e-mail address and phone number
are left behind too: they identify no visitor.

Sources: Snitcher, "REST API" (sessions with events, organisations); its webhook documentation (triggers, signature).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import msgspec

from router.dialects.names import standard
from router.dialects.people import glean, identify
from router.dialects.picking import copied, first, keep
from router.dialects.reading import Object, Reading
from router.identifiers import Raw

NAME: Final = "snitcher"

_IDS: Final = uuid.UUID("6f3f7f0a-4b1c-5a77-9d0e-0d6f1c2b8a35")  # the namespace of every id that is made here
_SESSION: Final = ("uuid", "organisation_uuid", "started_at", "referrer", "device_type", "browser", "location")
_EVENT: Final = frozenset({"event_type", "url", "triggered_at", "fields", "traits", "kept"})
_LONGEST_NUMBER: Final = 300  # digits; a float holds some more, and Python's int() reads 4300 at most
DOCUMENTED: Final = frozenset({"pageview", "form_submit", "track", "click", "download"})


def decoded(raw: bytes) -> Any:
    """The JSON value, with a question mark for whatever no text can hold, or None. One odd character spoils no page."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        read = json.loads(raw.decode("utf-8", "replace"), parse_float=_number, parse_int=_number, parse_constant=_none)
        return msgspec.json.decode(json.dumps(read, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> int | float | None:
    """None for what no number here can hold."""
    value = float(text) if len(text) < _LONGEST_NUMBER else math.inf
    return (value if "." in text or "e" in text.lower() else int(text)) if math.isfinite(value) else None


def _none(_: str) -> None:
    """For NaN and the infinities."""


# Cutting


def session_items(session: Object, form_fields: Collection[str] = (), *, unknown: bool = True) -> list[Object]:
    """One item for each event of a session, in its order. ``unknown``: those of other types than documented too."""
    around = {key: session[key] for key in _SESSION if session.get(key) is not None}
    seen: Counter[str] = Counter()
    items = []
    for event in _events(session):
        if not unknown and event.get("event_type") not in DOCUMENTED:
            continue
        what = _identity(around, event)
        seen[what] += 1
        items.append({"id": _id(what, str(seen[what])), "session": around, "event": _reduced(event, form_fields)})
    return items


def _events(session: Object) -> Iterator[Object]:
    """The events of a session; where there is no such list, its views, which are deprecated and hold pages only."""
    events, views = session.get("events"), session.get("views")
    if isinstance(events, list):
        yield from (event for event in events if isinstance(event, dict))
    elif isinstance(views, list):
        for view in views:
            if isinstance(view, dict):
                seen_at = {"triggered_at": view.get("visited_at")}
                rest = {key: value for key, value in view.items() if key != "visited_at"}
                yield {"event_type": "pageview", **rest, **seen_at}


def _identity(session: Object, event: Object) -> str:
    """What tells an event of a session from the others: it has no id of its own, and ``time_on_page`` grows."""
    own = first(event.get("name"), event.get("form_id"))
    parts = (session.get("uuid"), event.get("event_type"), event.get("triggered_at"), event.get("url"), own)
    return "\0".join("" if part is None else str(part) for part in parts)


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_IDS, "\0".join(parts).encode("utf-8", "replace").decode()))


def _reduced(event: Object, form_fields: Collection[str]) -> Object:
    """The event without the values of its form, but for those that name a person and those that are listed."""
    if "fields" not in event and "traits" not in event and "kept" not in event:
        return event
    reduced = {key: value for key, value in event.items() if key not in {"fields", "traits", "kept"}}
    traits: Object = {}
    kept: dict[str, Any] = {}
    for name, value in _pairs(event.get("fields")):
        if (known := _recognised(name)) is not None:
            if value not in (None, "", []):
                traits.setdefault(known, value)
        elif name in form_fields:
            _add(kept, name, value)
    return reduced | {key: said for key, said in (("traits", traits), ("kept", kept)) if said}


def _pairs(said: Any) -> Iterator[tuple[str, Any]]:
    """The names and values of ``[{"name": ..., "value": ...}]``, or of an object."""
    if isinstance(said, dict):
        yield from said.items()
    elif isinstance(said, list):
        for pair in said:
            if isinstance(pair, dict) and isinstance(name := pair.get("name"), str):
                yield name, pair.get("value")


def _folded(said: Any) -> Object:
    folded: Object = {}
    for name, value in _pairs(said):
        _add(folded, name, value)
    return folded


class _Repeated(list[Any]):
    """The values of a name that came more than once: told from one value that is a list."""


def _add(object_: Object, name: str, value: Any) -> None:
    if name not in object_:
        object_[name] = value
    elif isinstance(there := object_[name], _Repeated):
        there.append(value)
    else:
        object_[name] = _Repeated((there, value))


# Forms' fields are named by whoever made the form: "your-email" (WordPress), "user[email]" (Rails), "FNAME" (Mailchimp).
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # and no number: "tel-647", "address1"
_FILLING: Final = frozenset(
    {"your", "my", "user", "customer", "contact", "visitor", "lead", "person", "form", "field", "input", "billing"}
    | {"work", "business", "professional", "data"}
)
_OTHER_NAMES: Final = {
    "e_mail_address": "email",
    "mail_address": "email",
    "fname": "first_name",
    "lname": "last_name",
    "tel": "phone",
    "tel_number": "phone",
    "mobile_number": "phone",
    "telephone_number": "phone",
    "company": "company",
    "company_name": "company",
    "organisation": "company",
    "organisation_name": "company",
    "organization": "company",
    "organization_name": "company",
}
_LONGEST_NAME: Final = 128


def _recognised(name: str) -> str | None:
    """What a form's field is, where it names a person or a company."""
    if len(name) > _LONGEST_NAME:
        return None
    words = [word.lower() for word in _WORD.findall(name)]
    folded = "_".join(word for word in words if word not in _FILLING)
    folded = _OTHER_NAMES.get(folded, folded)
    return folded if folded == "company" or _names_a_person(folded) else None


_PERSONAL: Final = ("email", "phone", "emails", "phones", "contacts")  # of a company: nobody's who visited
_MOVING: Final = ("uuid", "last_seen")  # who it is, and what changes with every visit


def company_traits(company: Object) -> Object:
    """What is told of a company: everything but its id, its last visit and how to reach people in it."""
    return {key: value for key, value in company.items() if key not in {*_PERSONAL, *_MOVING} and value is not None}


def company_digest(company: Object) -> str:
    """16 hex digits that change with the traits."""
    return hashlib.sha256(msgspec.json.encode(company_traits(company), order="sorted")).hexdigest()[:16]


def company_item(company: Object, change: int) -> Object:
    """The company's traits as they are after ``change`` changes: a value that comes back is a change too."""
    told = {"uuid": company.get("uuid"), **company_traits(company)}
    return {"id": _id("company", str(company.get("uuid")), str(change), company_digest(company)), "company": told}


def names_its_event(payload: Object) -> bool:
    """Does a webhook say what happened? Without that it is nothing of Snitcher's."""
    said = payload.get("event")
    return said is not None and bool(str(said).strip())


def webhook_items(
    payload: Object, form_fields: Collection[str] = (), *, unknown: bool = True, companies: bool = True
) -> list[Object]:
    """What a webhook tells: the company, what happened, and the events of the session where it brings them."""
    company, session = copied(payload.get("company")), copied(payload.get("session"))
    what = hashlib.sha256(msgspec.json.encode(payload, order="sorted")).hexdigest()
    items: list[Object] = []
    if companies and company.get("uuid") is not None:
        told = {"uuid": company["uuid"], **company_traits(company)}
        items.append({"id": _id("webhook", "group", what), "company": told, "timestamp": payload.get("timestamp")})
    items.append({"id": _id("webhook", "track", what), "webhook": _told(payload)})
    if isinstance(session.get("uuid"), str):
        session.setdefault("organisation_uuid", company.get("uuid"))
        items += session_items(session, form_fields, unknown=unknown)
    return items


def _contact(payload: Object) -> Object:
    return copied(first(payload.get("contact"), payload.get("person")))


# A contact's own words are kept where they are a position, not a person.
_POSITION: Final = ("uuid", "job_title", "title", "position", "seniority", "department", "role")
_REACHED: Final = {"emails": "email", "phones": "phone", "phone_numbers": "phone"}


def _told(payload: Object) -> Object:
    """The payload without what is nobody's business: lists of contacts, forms, a company's telephone."""
    told = {key: value for key, value in payload.items() if key not in {"contact", "person", "contacts"}}
    if company := copied(payload.get("company")):
        told["company"] = {"uuid": company.get("uuid"), **company_traits(company)}
    if session := copied(payload.get("session")):
        told["session"] = {key: value for key, value in session.items() if key not in {"events", "views"}}
    if contact := _contact(payload):
        told["contact"] = _person(contact)
    return told


def _person(contact: Object) -> Object:
    renamed = {_REACHED.get(key, key): value for key, value in contact.items()}
    kept = {key: renamed[key] for key in _POSITION if key in renamed}
    return kept | {key: value for key, value in renamed.items() if _names_a_person(key)}


def _names_a_person(key: str) -> bool:
    asked: Object = {key: "x"}
    identify(asked, Raw())
    return not asked


# Reading


def read(item: Object) -> Reading:
    if "webhook" in item:
        reading = _webhook(dict(item["webhook"]))
    elif "company" in item:
        reading = _company(dict(item["company"]))
        reading.time = item.get("timestamp")
    else:
        reading = _session_event(copied(item.get("session")), copied(item.get("event")))
    reading.id = item.get("id")
    return reading


def _company(company: Object) -> Reading:
    reading = Reading(dialect=NAME, kind="group", standard="group", raw=Raw(), group_id=company.pop("uuid", None))
    reading.properties = {"traits": company}
    return reading


def _session_event(session: Object, event: Object) -> Reading:
    reading = Reading(dialect=NAME, raw=Raw(), name_field="name")
    kind = event.get("event_type")
    reading.properties = {key: value for key, value in event.items() if key not in _EVENT}
    _EVENTS.get(kind if isinstance(kind, str) else "", _unknown)(reading, event)
    for name, value in copied(event.get("kept")).items():
        reading.properties.setdefault(name, value)
    traits = copied(event.get("traits"))
    identify(traits, reading.raw)
    reading.traits = traits
    glean(reading.properties, reading.raw)
    _around(reading, session)
    reading.time = first(event.get("triggered_at"), session.get("started_at"))
    reading.url = event.get("url")
    return reading


def _around(reading: Reading, session: Object) -> None:
    """What an event shares with its session. Snitcher tells no visitor's id: the session stands for the visitor."""
    reading.anonymous_id = reading.session_id = session.get("uuid")
    reading.group_id = session.get("organisation_uuid")
    reading.referrer = session.get("referrer")
    reading.device = {"type": session.get("device_type")}
    place = copied(session.get("location"))
    identify(place, reading.raw)
    keep(reading.properties, "location", place)
    if session.get("browser") is not None:
        reading.properties.setdefault("browser", session["browser"])


def _pageview(reading: Reading, event: Object) -> None:
    reading.kind, reading.standard = "page", "page_view"
    if event.get("url") is not None:
        reading.properties["url"] = event["url"]


def _form_submit(reading: Reading, _: Object) -> None:
    _named(reading, "Form Submitted")


def _track(reading: Reading, event: Object) -> None:
    properties = reading.properties = _own(reading)
    name = event.get("name")
    _named(reading, name if isinstance(name, str) and name.strip() else "Snitcher track")
    reading.standard = standard(name)
    reading.money = {key: properties.get(key) for key in _MONEY}
    reading.money["value"] = first(properties.get("total"), properties.get("value"), properties.get("revenue"))


_MONEY: Final = ("revenue", "tax", "shipping", "discount", "currency", "order_id", "coupon")


def _click(reading: Reading, event: Object) -> None:
    reading.properties = _own(reading)
    _named(reading, "Element Clicked")
    if event.get("name") is not None:
        reading.properties["element_name"] = event["name"]


def _download(reading: Reading, event: Object) -> None:
    properties = reading.properties = _own(reading)
    _named(reading, "File Downloaded")
    file = first(properties.pop("url", None), event.get("url"))
    if file is not None:
        properties["file_url"] = file


def _unknown(reading: Reading, event: Object) -> None:
    kind = event.get("event_type")
    _named(reading, f"Snitcher {kind}" if isinstance(kind, str) and kind.strip() else "Snitcher event")
    name = reading.properties.get("name")
    reading.properties = _own(reading)
    if name is not None:
        reading.properties.setdefault("name", name)


_EVENTS: Final[dict[str, Callable[[Reading, Object], None]]] = {
    "pageview": _pageview,
    "form_submit": _form_submit,
    "track": _track,
    "click": _click,
    "download": _download,
}


def _named(reading: Reading, name: str) -> None:
    reading.named, reading.name = True, name


def _own(reading: Reading) -> Object:
    """The sender's own properties, and beside them what else the event has."""
    rest = {key: value for key, value in reading.properties.items() if key not in {"name", "properties"}}
    return {**rest, **_folded(reading.properties.get("properties"))}


def _webhook(payload: Object) -> Reading:
    reading = Reading(dialect=NAME, raw=Raw(), name_field="event")
    _named(reading, _in_words(payload.pop("event", None)))
    reading.time = payload.pop("timestamp", None)
    company, session = copied(payload.get("company")), copied(payload.pop("session", None))
    reading.traits = copied(payload.pop("contact", None))
    identify(reading.traits, reading.raw)
    glean(payload, reading.raw)
    reading.properties = payload
    _around(reading, {"organisation_uuid": company.get("uuid"), **session})
    rest = {key: value for key, value in session.items() if key not in _SESSION or key == "started_at"}
    keep(reading.properties, "session", rest)
    return reading


def _in_words(trigger: Any) -> str:
    """The trigger company.identified as Company Identified, and one that is not documented by its own words too."""
    words = re.findall(r"[A-Za-z0-9]+", trigger) if isinstance(trigger, str) else []
    return " ".join(word.capitalize() for word in words) or "Snitcher webhook"
