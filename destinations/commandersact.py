"""Commanders Act: events to a source of its platform, over the HTTP Tracking API 2.0.

One event goes to ``POST /events`` as it is, several to ``POST /events/batch``, a closed beta that Commanders Act opens
on request; so one event a request is the default. It answers 200 whatever it was sent, a wrong key included: a delivery
is accepted and unverified, and its Live Event Inspector tells what became of it.

Source: Commanders Act, "HTTP tracking API source, version 2.0" and its OpenAPI file, whose server is
https://collect.commander1.com/events; "Events reference", "Web" and "Mobile event specificity"
(https://doc.commandersact.com, https://github.com/CommandersAct/Platform-Documentation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeGuard

import msgspec
from msgspec import Meta

from router.destination import Destination, Request, Response, mapped
from router.event import Digests, Event, Item
from router.outcome import Delivered, Outcome, Refusal, Rejected, Split
from router.secret import Secret

# "32KB" and "500KB", without saying which KB: the smaller reading, so that no event vanishes behind a 200.
MAX_EVENT = 32_000
MAX_REQUEST = 500_000

# What a property of the sender's must not become: it would be read as something else than a property.
_RESERVED = frozenset(
    {"event_name", "event", "event_id", "event_timestamp", "ts_override", "properties", "user", "context", "test_code"}
    | {"tc_s", "tc_skey", "tc_firsttime", "token"}
)
_RESERVED_OF_USER = frozenset({"id", "ID", "consistent_anonymous_id", "tcId", "tcid", "tc_id", "consent_categories"})
_MOVED = "property_"  # stands before the name of a property whose own name is taken

_ENVELOPE = b'{"batch":[%b]}'
_EARLIEST = 100_000_000_000  # ms, 1973; a smaller number is in seconds
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_HASHES = {"_sha256": re.compile(r"[0-9a-f]{64}", re.ASCII), "_md5": re.compile(r"[0-9a-f]{32}", re.ASCII)}
_COOKIE = re.compile(r"[!-+\--:<-~]+", re.ASCII)  # printable, no space, comma or semicolon
_NO_CODE = "test"  # what stands where a sender marks test traffic and gives no code


class CommandersAct(Destination, tag="commandersact", frozen=True, kw_only=True):
    """Takes every event, under its standard name: Commanders Act and Turnout use the same words."""

    site: Annotated[str, Meta(min_length=1, description="Site id (workspace), sent as tc_s.")]
    token: Annotated[Secret, Meta(description="Source key, shown in the settings of the source there.")]
    test_event_code: Annotated[
        str | None,
        Meta(description="Lets test events through and marks every event with this test_code; an event's own wins."),
    ] = None

    title: ClassVar[str] = "Commanders Act"
    home: ClassVar[str] = "https://collect.commander1.com"
    docs: ClassVar[str] = "https://doc.commandersact.com/features/sources/sources-catalog/server/http-tracking-api"
    max_batch: ClassVar[int] = 1000
    default_batch: ClassVar[int] = 1
    default_rate: ClassVar[str | None] = "500/s"  # "faster than 500 requests per second, please contact us beforehand"
    dedup_key: ClassVar[str] = "context.event_id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent", "country", "advertising_id", "idfv"})
    identifiers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "consistent_anonymous_id": ("user.anonymous_id",),
        "id": ("user.id",),
        "email_sha256": ("user.digests.email",),
        "phone_sha256": ("user.digests.phone_plus",),
    }

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:  # noqa: ARG002 - the contract's; nothing here depends on it
        members: list[tuple[Event, bytes]] = []
        for event in events:
            body = self.body(event)
            encoded = msgspec.json.encode(body)
            if reason := ". ".join((*faults(body), *_too_large(encoded))):
                yield Refusal(event, reason)
            else:
                members.append((event, encoded))
        for part in self.batched(members, MAX_REQUEST - len(_ENVELOPE % b"")):
            yield self._request(part)

    def body(self, event: Event) -> dict[str, Any]:
        """The event as Commanders Act reads it, ``map`` applied. Whether it would process it is what ``faults`` says."""
        partners = _partners(event)
        root = _present(
            {
                "event_name": self.partner_name(event),
                **_money(event),
                "items": [_item(item) for item in event.items],
                "integrations": partners,  # their pages read one or the other, by partner
                "partners": partners,
                "test_code": self._test_code(event),
            }
        )
        root |= {"user": _user(event), "context": _context(event)}
        rest = {key: value for key, value in event.properties.items() if key != "context" or not _is_object(value)}
        rest |= {name: click for name, click in event.clicks.items() if click not in (event.page.url or "")}
        body = _beside(root, rest, _RESERVED)
        return mapped(_copied(body), event, self.map) if self.map else body

    def outcome(self, response: Response) -> Outcome:
        batched = len(response.request.events) > 1
        if 200 <= response.status < 300:
            return Delivered(unverified=True)
        if response.status == 400:
            reason = "Commanders Act finds the request too large or its JSON not valid"
            return Split(reason) if batched else Rejected(f"{reason}: preview the event, and send less with it")
        return super().outcome(response)

    def hints(self, event: Event) -> Iterable[str]:
        if not event.consent.known:
            yield (
                "no consent: Commanders Act shares nothing with a partner that needs it; send the categories granted, "
                "as user.consent_categories or in the consent of your sender's own format"
            )
        if event.user.anonymous_id is None:
            yield "no anonymous id: another identifier stands in for consistent_anonymous_id; send it to join visits"
        if event.user.id is None and event.user.digests.email is None:
            yield "no user id and no e-mail: many destinations there need one; send either"
        if (event.money.value or event.money.revenue) and event.money.currency is None:
            yield "no currency: it is required there beside value or revenue; send it as ISO 4217"

    def _test_code(self, event: Event) -> str | None:
        own = None if event.test == _NO_CODE else event.test
        return own or self.test_event_code or event.test

    def _request(self, part: Sequence[tuple[Event, bytes]]) -> Request:
        alone = len(part) == 1
        return Request(
            url=self.endpoint("/events" if alone else "/events/batch"),
            body=part[0][1] if alone else _ENVELOPE % b",".join(body for _, body in part),
            events=tuple(event for event, _ in part),
            headers={"Content-Type": "application/json"},
            query={"tc_s": self.site, "token": self.token},
        )


def faults(body: Mapping[str, Any]) -> Iterator[str]:
    """What their OpenAPI file requires and this event lacks. Their 200 would not tell."""
    user, context = body.get("user"), body.get("context")
    if not _is_text(body.get("event_name")):
        yield "event_name: it is a text; correct map"
    if not _is_object(user) or not _is_object(context):
        yield "user and context: they are objects; correct map"
        return
    if "consistent_anonymous_id" not in user:
        yield (
            "user.consistent_anonymous_id: Commanders Act cannot tell whose event it is; "
            "send an anonymous id, a user id, an e-mail or a phone number with it"
        )
    elif not _is_text(user["consistent_anonymous_id"]):
        yield "user.consistent_anonymous_id: it is a text; correct map"
    if not all(_is_sound(name, value) for name, value in user.items()):
        yield "user: what ends in _sha256 or _md5 is written in lower-case hex digits, 64 or 32; correct map"
    if not _is_text(context.get("event_id")):
        yield "context.event_id: without it a resend is another event; send an id with the event"
    time = context.get("event_timestamp")
    if not isinstance(time, int) or isinstance(time, bool) or time < _EARLIEST:
        yield "context.event_timestamp: it is a whole number of milliseconds since 1970; correct map"


def _too_large(encoded: bytes) -> Iterator[str]:
    if len(encoded) > MAX_EVENT:
        yield f"the event is larger than {MAX_EVENT} bytes, which is all they take; send less with it"


def _user(event: Event) -> dict[str, Any]:
    user, consent = event.user, event.consent
    known = _present(
        {
            "id": user.id,
            "consistent_anonymous_id": _consistent_id(event),
            **_hashes(user.digests),
            "country": event.clear.country,
            "group_id": user.group_id,
            "previous_id": user.previous_id,
        }
    )
    if consent.known:  # an empty list says that nothing was granted
        known["consent_categories"] = [name for name in consent.granted if name not in consent.denied]
    traits = {name: value for name, value in user.traits.items() if _is_sound(name, value)}
    return _beside(known, traits, _RESERVED_OF_USER)


def _consistent_id(event: Event) -> str | None:
    """Their key for a person, which every event needs; where none was sent, the nearest that is always the same."""
    user = event.user
    return user.anonymous_id or user.id or user.digests.email or user.digests.phone_plus


def _hashes(digests: Digests) -> dict[str, str | None]:
    """Digests under the names ``X_sha256``, where ours is of the text that theirs is of.

    Their page prints the digests of john.doe@example.com and of +33612345678. Names have no rule there, so one is sent
    where all readings agree: trimmed, in lower case, and with nothing in it that some partner leaves out. Left out are
    the birth date (theirs is of 1970-01-01, ours of 19700101), city, state, street and zip code (ours lost their spaces
    or became a code), and the country, which is sent readable.
    """
    return {
        "email_sha256": digests.email,
        "phone_sha256": digests.phone_plus,
        "firstname_sha256": _agreed(digests.first_name, digests.first_name_plain),
        "lastname_sha256": _agreed(digests.last_name, digests.last_name_plain),
        "gender_sha256": digests.gender,
    }


def _agreed(bare: str | None, plain: str | None) -> str | None:
    """The digest, if both forms are the same or it came as a digest, of which there is one form only."""
    return bare if plain is None or plain == bare else None


def _context(event: Event) -> dict[str, Any]:
    page, app = event.page, event.app
    known = _present(
        {
            "event_id": event.id,
            "event_timestamp": event.time,
            "page": _present({"title": page.title, "url": page.url, "lang": page.language, "referrer": page.referrer}),
            "device": _device(event),
            "app": _present({"name": app.name, "version": app.version, "build": app.build, "namespace": app.namespace}),
        }
    )
    left = event.properties.get("context")
    return _beside(known, left) if _is_object(left) else known


def _device(event: Event) -> dict[str, Any]:
    device, clear = event.device, event.clear
    screen = {"width": device.screen_width, "height": device.screen_height, "density": device.screen_density}
    return _present(
        {
            "user_agent": clear.user_agent,
            "ip": clear.ip,
            "lang": device.locale,
            "timezone": device.timezone,
            "cookie": _cookie_header(event.cookies),
            "type": device.type,
            "manufacturer": device.manufacturer,
            "model": device.model,
            "os": _present({"name": device.os_name, "version": device.os_version}),
            "screen": _present(screen),
            "network": _present({"carrier": device.carrier}),
            "lifecycle": _present({"session_id": event.user.session_id}),
            "advertising_id": clear.advertising_id,
            "idfv": clear.idfv,
            "ad_tracking_enabled": device.tracking_enabled,
        }
    )


def _cookie_header(cookies: Mapping[str, str]) -> str | None:
    """Partners' first-party cookies as the header that their destinations read _fbp, _fbc, _ga and _scid from."""
    sound = (f"{name}={value}" for name, value in cookies.items() if _COOKIE.fullmatch(name + value))
    return "; ".join(sound) or None


def _partners(event: Event) -> dict[str, Any]:
    """What the sender addressed to partners, and Snap's click id where they look for it."""
    click = event.clicks.get("ScCid")
    if click is None:
        return event.partners
    there = event.partners.get("snapchat", {})
    return {**event.partners, "snapchat": {"click_id": click, **there} if _is_object(there) else there}


def _money(event: Event) -> dict[str, Any]:
    money = event.money
    return {
        "id": money.order_id,
        "value": _number(money.value),
        "revenue": _number(money.revenue),
        "tax_amount": _number(money.tax),
        "shipping_amount": _number(money.shipping),
        "discount": _number(money.discount),
        "currency": money.currency,
        "coupon": money.coupon,
    }


def _item(item: Item) -> dict[str, Any]:
    """An item with its product. The price is the product's, and the item's own where the sender gave both."""
    inner = item.extra.get("product")
    product = inner if _is_object(inner) else {}
    both = product.get("price") is not None
    price = _number(item.price)
    known = _present(
        {
            "id": item.id,
            "quantity": item.quantity,
            "variant": item.variant,
            "price": price if both else None,
            "product": _beside(
                _present(
                    {
                        "id": item.id if product.get("id") is None else None,  # "do not have to be different"
                        "name": item.name,
                        "price": None if both else price,
                        "category_1": item.category,
                        "brand": item.brand,
                    }
                ),
                product,
            ),
        }
    )
    return _beside(known, {key: value for key, value in item.extra.items() if value is not inner or not product})


# Values


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def _beside(known: dict[str, Any], rest: Mapping[str, Any], reserved: frozenset[str] = frozenset()) -> dict[str, Any]:
    """``known`` and beside it the ``rest``: objects are joined, and what clashes gets another name and is not lost."""
    joined = dict(known)
    for name, value in rest.items():
        there = joined.get(name)
        if there is None and name not in reserved:
            joined[name] = value
        elif _is_object(there) and _is_object(value) and name not in reserved:
            joined[name] = _beside(there, value)
        elif there is None or not _same(there, value):
            joined[_free(name, {**rest, **joined})] = value
    return joined


def _copied(value: Any) -> Any:
    """A copy that ``map`` may write into: objects in a body are also the event's own."""
    if isinstance(value, dict):
        return {name: _copied(inside) for name, inside in value.items()}
    return [_copied(inside) for inside in value] if isinstance(value, list) else value


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while (name := _MOVED + name) in taken:
        pass
    return name


def _same(ours: Any, theirs: Any) -> bool:
    """Is it the same, however a number or a code in capitals was written?"""
    if isinstance(ours, msgspec.Raw):
        text = repr(theirs) if isinstance(theirs, float) else str(theirs)
        return bool(_DECIMAL.fullmatch(text)) and float(text) == float(bytes(ours))
    return bool(ours == theirs) or (isinstance(ours, str) and ours in (str(theirs), str(theirs).strip().upper()))


def _number(text: str | None) -> msgspec.Raw | None:
    """Canonical decimal text as a JSON number, digit for digit: a float would round it."""
    return msgspec.Raw(text.encode()) if text is not None and _DECIMAL.fullmatch(text) else None


def _is_sound(name: str, value: Any) -> bool:
    """Is a field of ``user`` what its name says? "We only support hex", so anything else in a hash is of no use."""
    form = next((form for suffix, form in _HASHES.items() if name.endswith(suffix)), None)
    return form is None or (isinstance(value, str) and form.fullmatch(value) is not None)


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
