"""Who an event is about, as marks that can be compared: for erasure, and for keeping erased people out afterwards.

A mark is a kind and a value that the outbox may know ("email:<digest>", "user:<id>"); the raw e-mail address or phone of a
request for erasure becomes its digests here and is forgotten. Pure.

An id that is an address or a phone number is kept as the digest of that, so what carries the digest as its id is that
person's as well ("id:<digest>").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from router import identifiers, scrub
from router.event import Event, Money, User
from router.identifiers import Raw

_DIGEST = 64  # characters of a SHA-256 in hex
_KINDS = ("email", "email_gmail", "phone", "phone_plus", "external", "user", "anonymous")
_IDS_TOO = frozenset({"email", "phone", "phone_plus"})  # of whom an id may be the digest


class Part(msgspec.Struct):
    """What of an event says who it is about."""

    id: str = ""
    user: User = User()
    money: Money = Money()


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody, by any identifiers. ``country`` (ISO 3166-1 alpha-2) is for a phone number without its code."""

    email: str | None = None
    phone: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    country: str | None = None

    def __repr__(self) -> str:
        return "Person(***)"


def marks(person: Person) -> frozenset[str]:
    """Everything by which an event may turn out to be this person's. Empty where no identifier is usable.

    ``email_bare`` is left out: without dots and +tags the addresses of several people can be one.
    """
    found, _ = identifiers.digests(Raw(email=person.email, phone=person.phone, user_id=person.user_id), person.country)
    known = {
        "email": found.email,
        "email_gmail": found.email_gmail,
        "phone": found.phone,
        "phone_plus": found.phone_plus,
        "external": found.external_id,
        "user": scrub.safe_id(person.user_id.strip()) if person.user_id and person.user_id.strip() else None,
        "anonymous": scrub.safe_id(person.anonymous_id.strip()) if person.anonymous_id else None,
    }
    return frozenset(_marked(known.items()))


def marks_of(event: Event | Part) -> Iterator[str]:
    """The marks that an event carries."""
    user, digests = event.user, event.user.digests
    yield from _marked(
        (
            ("email", digests.email),
            ("email_gmail", digests.email_gmail),
            ("phone", digests.phone),
            ("phone_plus", digests.phone_plus),
            ("external", digests.external_id),
            ("user", user.id),
            ("user", user.previous_id),
            ("anonymous", user.anonymous_id),
            ("anonymous", user.previous_id),
        )
    )
    for value in (event.id, event.money.order_id, user.id, user.previous_id, user.anonymous_id):
        if value is not None and len(value) == _DIGEST:
            yield f"id:{value}"


def possible(values: Iterable[str]) -> Iterator[str]:
    """Every mark that one of these values, of which nothing more is known, may be."""
    return (f"{kind}:{value}" for value in values for kind in _KINDS)


def _marked(known: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    for kind, value in known:
        if value:
            yield f"{kind}:{value}"
            if kind in _IDS_TOO:
                yield f"id:{value}"
