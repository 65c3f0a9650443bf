"""The event: what every dialect becomes, what the outbox keeps and every destination reads.

Nothing here is raw personal data. E-mail, phone, names and addresses exist only as ``Digests``; what a partner needs
readable (IP address, user agent, country ...) sits in ``Clear``, which the outbox keeps apart and encrypted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import msgspec

Kind = Literal["track", "page", "screen", "identify", "group", "alias"]


class Digests(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """SHA-256 digests (64 lower-case hex) in every form that some partner matches on.

    A form without suffix is the one of Snap and Meta; a suffix names what the form keeps or loses. The rules are in
    ``router.identifiers``. An absent form could not be made and is not sent.
    """

    email: str | None = None  # trimmed, lower case
    email_gmail: str | None = None  # and the dots before @gmail.com removed (GA4)
    email_bare: str | None = None  # dots and +tag removed for every domain (Reddit, Microsoft)
    phone: str | None = None  # country code and number, digits only
    phone_plus: str | None = None  # the same after a +
    first_name: str | None = None  # lower case, no punctuation
    first_name_tight: str | None = None  # lower case, no spaces (TikTok)
    first_name_letters: str | None = None  # letters only (GA4)
    first_name_plain: str | None = None  # trimmed, lower case (Pinterest)
    last_name: str | None = None
    last_name_tight: str | None = None
    last_name_letters: str | None = None
    last_name_plain: str | None = None
    street: str | None = None  # lower case, no symbols (GA4)
    city: str | None = None  # lower case, no spaces, no punctuation
    city_letters: str | None = None  # and no digits (Meta)
    state: str | None = None  # two-letter code where there is one, lower case
    zip: str | None = None  # lower case, no spaces; US: five digits
    zip_dashless: str | None = None  # and no dash (Meta)
    zip_digits: str | None = None  # digits only (Pinterest)
    country: str | None = None  # ISO 3166-1 alpha-2, lower case
    gender: str | None = None  # m or f
    gender_neutral: str | None = None  # n (Pinterest)
    birth_date: str | None = None  # YYYYMMDD
    external_id: str | None = None  # the sender's user id, trimmed
    advertising_id: str | None = None  # lower case


class Clear(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What some partner needs readable. Only the fields that a configured destination declares are kept."""

    ip: str | None = None
    user_agent: str | None = None
    country: str | None = None  # ISO 3166-1 alpha-2, upper case
    advertising_id: str | None = None  # lower case
    idfv: str | None = None


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: str | None = None  # an e-mail address or phone used as id is replaced by its digest
    anonymous_id: str | None = None
    session_id: str | None = None
    group_id: str | None = None
    previous_id: str | None = None
    digests: Digests = Digests()
    traits: dict[str, Any] = {}  # what is known of the person beside identifiers, scrubbed


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    url: str | None = None
    title: str | None = None
    referrer: str | None = None
    language: str | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    type: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    locale: str | None = None
    timezone: str | None = None
    carrier: str | None = None
    screen_width: int | None = None
    screen_height: int | None = None
    screen_density: float | None = None
    cpu_cores: int | None = None
    storage: str | None = None  # GB, as decimal text
    free_storage: str | None = None  # GB, as decimal text
    tracking_enabled: bool | None = None  # the answer to Apple's App Tracking Transparency question, or Android's


class App(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    name: str | None = None
    version: str | None = None
    build: str | None = None
    namespace: str | None = None


class Consent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Categories as text. ``known`` is False where the sender said nothing; a lane that needs consent then says no."""

    known: bool = False
    granted: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    opt_out: bool = False  # limited data use asked for (LMU, LDU, CCPA)


class Money(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Amounts are canonical decimal text ("142.52"), so that 142.52 and "142.52" are one and no cent is rounded away."""

    value: str | None = None  # what the customer pays: tax and shipping included
    revenue: str | None = None  # without tax and shipping
    tax: str | None = None
    shipping: str | None = None
    discount: str | None = None
    currency: str | None = None  # ISO 4217, upper case
    order_id: str | None = None
    coupon: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: str | None = None
    name: str | None = None
    price: str | None = None
    quantity: int | None = None
    brand: str | None = None
    category: str | None = None
    variant: str | None = None
    extra: dict[str, Any] = {}  # every other key the sender gave, scrubbed


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One thing that happened, normalised: the same whatever dialect it was sent in.

    ``name`` is the standard name where the dialect has one for it ("Order Completed" is ``purchase``), else what the
    sender wrote, which ``sent_name`` keeps whenever the two differ. Instants are whole UTC milliseconds.
    """

    id: str
    name: str
    time: int
    received: int
    source: str
    dialect: str
    kind: Kind = "track"
    sent_name: str | None = None
    sent_time: int | None = None  # what the sender claimed, where ``time`` had to be corrected
    user: User = User()
    page: Page = Page()
    device: Device = Device()
    app: App = App()
    consent: Consent = Consent()
    money: Money = Money()
    items: tuple[Item, ...] = ()
    clicks: dict[str, str] = {}  # advertisers' click ids by their parameter: ScCid, fbclid, ttclid, gclid ...
    cookies: dict[str, str] = {}  # partners' first-party cookies: _scid, _fbp, _fbc, _ga, _ttp ...
    properties: dict[str, Any] = {}  # everything else, scrubbed
    partners: dict[str, Any] = {}  # what the sender addressed to one partner (Commanders Act integrations.*)
    routing: dict[str, bool] = {}  # Segment's integrations switches: destination name or "All"
    test: str | None = None  # the sender's test code: test traffic
    notes: tuple[str, ...] = ()  # what was repaired, guessed or dropped on the way in: "unit_guessed", "bad_email" ...
    clear: Clear = Clear()  # never part of the stored payload; see the outbox


NOTHING: Clear = Event.__struct_defaults__[-1]  # what an event without any has, the very object
_A_CODE = 2  # letters of a country
_BARE, _PAYLOAD = "bare", "payload"  # beside the fields; whatever is made of an event knows nothing of them
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def opened(payload: bytes, clear: Clear = NOTHING) -> Event:
    """The event of its payload and its clear values. It remembers its payload, and itself without the clear values: each
    destination would make them anew. msgspec's errors where it is no payload.
    """
    bare = event = _decode(payload)
    if clear != NOTHING:
        event = msgspec.structs.replace(bare, clear=clear)
        event.__dict__[_BARE] = bare
    bare.__dict__[_PAYLOAD] = payload
    return event


def written(event: Event) -> bytes:
    """Its payload, which it remembers as if it had been ``opened``."""
    plain = bare(event)
    text = plain.__dict__[_PAYLOAD] = _encode(plain)
    if plain is not event:
        event.__dict__[_BARE] = plain
    return text


def bare(event: Event) -> Event:
    """The event without its clear values."""
    if event.clear is NOTHING:
        return event
    known: Event | None = getattr(event, _BARE, None)
    return known if known is not None else msgspec.structs.replace(event, clear=NOTHING)


def withheld(fields: Collection[str]) -> tuple[str, ...]:
    """The fields of ``Clear`` that whoever needs only these ``fields`` of it must not see."""
    return tuple(name for name in Clear.__struct_fields__ if name not in fields)


def without(event: Event, hidden: Collection[str]) -> Event:
    """The event without these of its clear values; the very object where it has none of them."""
    if event.clear is NOTHING:
        return event
    if len(hidden) == len(Clear.__struct_fields__):
        return bare(event)
    if not any(getattr(event.clear, name) for name in hidden):
        return event
    return msgspec.structs.replace(event, clear=msgspec.structs.replace(event.clear, **dict.fromkeys(hidden)))


def telling(clear: Clear, fields: Iterable[str]) -> Iterator[str]:
    """The values of these fields by which somebody could be known where they are repeated; a country's two letters occur
    in any text and say nothing.
    """
    return (value for name in fields if (value := getattr(clear, name)) and len(value) > _A_CODE)


def payload(event: Event) -> bytes:
    """The event as JSON, without its clear values: where it was stored, the very bytes that are stored."""
    plain = bare(event)
    known: bytes | None = getattr(plain, _PAYLOAD, None)
    return known if known is not None else _encode(plain)
