"""Sample events: what a shop with a job board would send, in every dialect, by people who do not exist.

One ``sample`` is what happened, written as a sender of its dialect writes it; a ``stream`` is visitors coming by, each
of whom keeps identifiers and dialect for the whole visit. Pure: time and dice are arguments, so a seed repeats a stream.

Addresses and numbers belong to nobody: RFC 2606 (example.com), RFC 5737 (IP addresses), Ofcom "Telephone numbers for
drama", ARCEP decision 2018-0881 (numbers for audiovisual works), NANPA (555-0100 to 555-0199).
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

Object = dict[str, Any]

SHOP = "https://shop.example.com"
MARKETING = "marketing"  # the category of consent that the samples grant or do not

_FIRST = ("Ana", "Léa", "Tom", "Mia", "Jonas", "Zoë", "Omar", "Ines", "Hugo", "Nora", "Paul", "Ida")
_LAST = ("Silva", "Martin", "Smith", "Brown", "Dubois", "Jones", "Haddad", "Moreau", "Lee", "Garcia")
_COUNTRIES = (("FR", "+33 6 39 98 00 {:02}"), ("GB", "+44 7700 9000{:02}"), ("US", "+1 212 555 01{:02}"))
_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
)
_PRODUCTS = (
    ("SKU-101", "Canvas sneaker", "Shoes", "Northway", 59.9),
    ("SKU-102", "Rain jacket", "Jackets", "Northway", 129.0),
    ("SKU-103", "Wool socks", "Socks", "Alpa", 12.5),
    ("SKU-104", "Day pack", "Bags", "Carry", 84.95),
    ("SKU-105", "Water bottle", "Outdoor", "Alpa", 19.9),
)
_SEARCHES = ("boots", "rain jacket", "socks wool", "gift")
_LINKS = ("SUMMER24", "ANAREF", "RUNCLUB")


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who comes by. Half of them are known to the shop; one in five does not agree to marketing."""

    anonymous_id: str
    user_id: str | None
    email: str | None
    phone: str | None
    first_name: str
    last_name: str
    country: str
    ip: str
    user_agent: str
    consent: bool


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, before it is put into a dialect. ``time`` is UTC ms; ``items`` are (product, quantity)."""

    name: str
    id: str
    time: int
    visitor: Visitor
    url: str
    title: str
    properties: Mapping[str, Any] = {}
    items: tuple[tuple[tuple[str, str, str, str, float], int], ...] = ()
    order_id: str | None = None

    def value(self) -> float:
        return round(sum(product[4] * quantity for product, quantity in self.items), 2)


def visitor(number: int) -> Visitor:
    """The visitor of this number, who is always the same."""
    country, phone = _COUNTRIES[number % len(_COUNTRIES)]
    first, last = _FIRST[number % len(_FIRST)], _LAST[number // 3 % len(_LAST)]
    known = number % 2 == 0
    return Visitor(
        anonymous_id=f"visitor-{number:06}",
        user_id=f"customer-{number:06}" if known else None,
        email=f"customer.{number}@example.com" if known else None,
        phone=phone.format(number % 100) if known else None,
        first_name=first,
        last_name=last,
        country=country,
        ip=f"{('198.51.100', '203.0.113')[number % 2]}.{1 + number % 254}",
        user_agent=_BROWSERS[number % len(_BROWSERS)],
        consent=number % 5 != 3,
    )


def sample(name: str, dialect: str, number: int, dice: random.Random, now: int) -> Object:
    """The event ``name`` by visitor ``number`` in a dialect. KeyError for a name or dialect that is none."""
    return DIALECTS[dialect](_MOMENTS[name](visitor(number), dice, now))


def stream(dice: random.Random) -> Iterator[tuple[str, str, int]]:
    """Visits without end: (name, dialect, visitor) for ``sample``."""
    dialects = tuple(DIALECTS)
    for number in itertools.count():
        visit = dice.choices(_VISITS, weights=_VISIT_WEIGHTS)[0]
        for name in visit:
            yield name, dialects[number % len(dialects)], number


_VISITS = (
    ("page_view", "view_item"),
    ("page_view", "search", "view_item", "add_to_cart"),
    ("page_view", "view_item", "add_to_cart", "begin_checkout", "purchase"),
    ("page_view", "sign_up", "view_item", "add_to_cart", "begin_checkout", "referral_purchase"),
    ("page_view", "job_click"),
)
_VISIT_WEIGHTS = (35, 20, 15, 10, 20)


# What happens


def _moment(name: str, who: Visitor, dice: random.Random, now: int, path: str, title: str, **more: Any) -> Moment:
    unique = f"{name}-{dice.getrandbits(48):012x}"
    return Moment(name=name, id=unique, time=now, visitor=who, url=SHOP + path, title=title, **more)


def _page_view(who: Visitor, dice: random.Random, now: int) -> Moment:
    click = f"?utm_source=snapchat&ScCid={dice.getrandbits(128):032x}" if dice.random() < 0.4 else ""
    return _moment("page_view", who, dice, now, f"/{click}", "Northway and friends")


def _search(who: Visitor, dice: random.Random, now: int) -> Moment:
    term = dice.choice(_SEARCHES)
    path = f"/search?q={term.replace(' ', '+')}"
    return _moment("search", who, dice, now, path, "Search", properties={"search_term": term})


def _sign_up(who: Visitor, dice: random.Random, now: int) -> Moment:
    properties = {"method": "email", "link_short_code": dice.choice(_LINKS)}
    return _moment("sign_up", who, dice, now, "/account/new", "Your account", properties=properties)


def _job_click(who: Visitor, dice: random.Random, now: int) -> Moment:
    """A click on a job advert, with the fields of IP Snare's click that are properties here."""
    job = f"job-{dice.randrange(1000, 2000)}"
    properties = {
        "source_id": "jobs-feed",
        "source_click_id": f"jf-{dice.getrandbits(40):010x}",
        "job_id": job,
        "job_country": who.country,
        "destination_id": "careers-site",
        "expired": False,
        "is_bot": False,
        "is_final": True,
    }
    return _moment("job_click", who, dice, now, f"/jobs/{job}", "Jobs", properties=properties)


def _with_items(name: str, path: str, title: str, most: int) -> Callable[[Visitor, random.Random, int], Moment]:
    def moment(who: Visitor, dice: random.Random, now: int) -> Moment:
        chosen = dice.sample(_PRODUCTS, dice.randint(1, most))
        items = tuple((product, dice.randint(1, most)) for product in chosen)
        place = path.format(chosen[0][0].lower())
        return _moment(name, who, dice, now, place, title, items=items)

    return moment


def _purchase(who: Visitor, dice: random.Random, now: int) -> Moment:
    moment = _with_items("purchase", "/checkout/thanks", "Thank you", 3)(who, dice, now)
    return msgspec.structs.replace(moment, order_id=f"O-{dice.getrandbits(32):08x}")


def _referral_purchase(who: Visitor, dice: random.Random, now: int) -> Moment:
    return msgspec.structs.replace(_purchase(who, dice, now), properties={"link_short_code": dice.choice(_LINKS)})


_MOMENTS: Mapping[str, Callable[[Visitor, random.Random, int], Moment]] = {
    "page_view": _page_view,
    "view_item": _with_items("view_item", "/products/{}", "Product", 1),
    "add_to_cart": _with_items("add_to_cart", "/products/{}", "Product", 1),
    "begin_checkout": _with_items("begin_checkout", "/checkout", "Checkout", 3),
    "purchase": _purchase,
    "referral_purchase": _referral_purchase,
    "search": _search,
    "sign_up": _sign_up,
    "job_click": _job_click,
}

NAMES = tuple(_MOMENTS)


# How it is written


def _plain(moment: Moment) -> Object:
    """As a backend writes it that follows nobody's specification."""
    who = moment.visitor
    return _present(
        {
            "event": moment.name,
            "event_id": moment.id,
            "timestamp": _iso(moment.time),
            **moment.properties,
            **_commerce(moment, "order_id"),
            "items": [_item(*each) for each in moment.items],
            "user": _present({"id": who.user_id, "anonymous_id": who.anonymous_id, **_person(who)}),
            "page": {"url": moment.url, "title": moment.title},
            "device": {"ip": who.ip, "user_agent": who.user_agent},
            "consent": {MARKETING: who.consent},
        }
    )


_SEGMENT_NAMES = {
    "search": "Products Searched",
    "view_item": "Product Viewed",
    "add_to_cart": "Product Added",
    "begin_checkout": "Checkout Started",
    "purchase": "Order Completed",
    "sign_up": "Signed Up",
}


def _segment(moment: Moment) -> Object:
    """Source: Segment, "Spec: V2 Ecommerce Events", "Consent in Segment Connections"."""
    who = moment.visitor
    page = {"url": moment.url, "title": moment.title}
    properties = {
        **moment.properties,
        **_commerce(moment, "order_id"),
        "products": [_present(_item(*each, id_name="product_id")) for each in moment.items],
    }
    call: Object
    if moment.name == "page_view":
        call = {"type": "page", "name": moment.title, "properties": page}
    else:
        name = _SEGMENT_NAMES.get(moment.name, moment.name)
        call = {"type": "track", "event": name, "properties": _present(properties)}
    context = {
        "ip": who.ip,
        "userAgent": who.user_agent,
        "page": page,
        "traits": _person(who),
        "consent": {"categoryPreferences": {MARKETING: who.consent}},
        "library": {"name": "turnout-sample", "version": "1"},
    }
    ids = {"userId": who.user_id, "anonymousId": who.anonymous_id, "messageId": moment.id}
    return _present({**call, **ids, "timestamp": _iso(moment.time), "context": context})


def _commandersact(moment: Moment) -> Object:
    """Source: Commanders Act, "HTTP tracking API", "Events reference"."""
    who = moment.visitor
    user = {
        "id": who.user_id,
        "consistent_anonymous_id": who.anonymous_id,
        "consent_categories": ["essential", MARKETING] if who.consent else ["essential"],
        **_person(who, first="firstname", last="lastname"),
    }
    items = [
        {"id": sku, "quantity": quantity, "product": _product(sku, name, category, brand, price)}
        for (sku, name, category, brand, price), quantity in moment.items
    ]
    context = {
        "event_id": moment.id,
        "event_timestamp": str(moment.time),
        "page": {"url": moment.url, "title": moment.title},
        "device": {"ip": who.ip, "user_agent": who.user_agent},
    }
    body = {**moment.properties, **_commerce(moment, "id"), "items": items}
    return _present({"event_name": moment.name, **body, "user": _present(user), "context": context})


DIALECTS: Mapping[str, Callable[[Moment], Object]] = {
    "plain": _plain,
    "segment": _segment,
    "commandersact": _commandersact,
}


def _commerce(moment: Moment, order_name: str) -> Object:
    if not moment.items:
        return {}
    return _present({"value": moment.value(), "currency": "EUR", order_name: moment.order_id})


def _person(who: Visitor, first: str = "first_name", last: str = "last_name") -> Object:
    if who.user_id is None:
        return {"country": who.country}
    named = {first: who.first_name, last: who.last_name}
    return {"email": who.email, "phone": who.phone, **named, "country": who.country}


def _item(product: tuple[str, str, str, str, float], quantity: int, id_name: str = "id") -> Object:
    sku, name, category, brand, price = product
    return {id_name: sku, "name": name, "category": category, "brand": brand, "price": price, "quantity": quantity}


def _product(sku: str, name: str, category: str, brand: str, price: float) -> Object:
    return {"id": sku, "name": name, "category_1": category, "brand": brand, "price": price}


def _present(fields: Object) -> Object:
    return {name: value for name, value in fields.items() if value is not None and value != []}


def _iso(time: int) -> str:
    moment = dt.datetime.fromtimestamp(time / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
