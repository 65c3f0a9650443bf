"""Quality: how far an event can be trusted, and how well a partner can match it, as levels that people read. Pure.

An event's level is that of the worst thing found about it:

- *poor*: nothing says who it was; a purchase has no amount or no currency; or a note of the door that is poor
- *fair*: the sender said nothing of consent; or a note of the door that is fair
- *good*: nothing was found, or a note that is no fault

``NOTES`` has the level of every note. An event that names its click, or carries both address and browser in clear, is
somebody's, for partners match by these; an address alone is nobody's. A group event is about a company and needs no
person. Snitcher tells of companies and never of consent, and its sender can be advised of neither. With a level
goes why, and what to send instead.

A destination's match is counted in the partner's own identifiers, of which an event carries one when it lacks no value
for it: none is *poor*, one is *fair*, two or more are *good*, and so are all that there are. A destination
without identifiers matches nobody, and everything is *good* for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import msgspec

from router.destination import Destination
from router.event import Event

Level = Literal["good", "fair", "poor"]
LEVELS: Final[tuple[Level, ...]] = ("good", "fair", "poor")  # from the best to the worst


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong with an event: its code, how bad it is, what it means, and what to send instead."""

    code: str
    level: Level
    words: str
    instead: str


class Quality(msgspec.Struct, frozen=True):
    level: Level
    reasons: tuple[Finding, ...] = ()


class Match(msgspec.Struct, frozen=True):
    """Which of a partner's identifiers an event carries, by the partner's names, and the one addition that would help
    most.
    """

    level: Level
    carried: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    addition: str | None = None


class _Meaning(NamedTuple):
    level: Level
    words: str
    instead: str


_ADDRESS: Final = "send it in its own field of the person, and leave it out where it is not known"
_TIME: Final = "send whole milliseconds since 1970, or ISO 8601 with its zone"

# Poor is what makes an event count wrongly, or what a sender's code does wrong for everybody alike.
NOTES: Final = MappingProxyType(
    {
        # router.door and router.normalise
        "own_id": _Meaning(
            "fair",
            "no usable event id: if the sender sends it again, it counts twice",
            "send an id of your own with every event, the same one when it is sent again",
        ),
        "unit_guessed": _Meaning("fair", "a time was not in milliseconds: its unit was guessed", _TIME),
        "naive_ts": _Meaning("fair", "a time had no zone and was taken as UTC", _TIME),
        "bad_ts": _Meaning("poor", "the time was unreadable: the moment of receipt stands in", _TIME),
        "future_ts": _Meaning(
            "fair", "the time was in the future: the moment of receipt stands in", "set the sender's clock right"
        ),
        "clock_skew": _Meaning(
            "fair", "the sender's clock was wrong and the time was corrected", "set the sender's clock right"
        ),
        "bad_value": _Meaning(
            "fair",
            "an amount or a quantity was no number and was dropped",
            'send a decimal number, as 142.52 or "142.52"',
        ),
        "bad_currency": _Meaning("fair", "the currency was none and was dropped", "send its ISO 4217 code, as EUR"),
        "bad_url": _Meaning(
            "fair", "the page's address was none and was dropped", "send the whole address, with https"
        ),
        "bad_ip": _Meaning(
            "fair", "the IP address was none, or not public, and was dropped", "send the visitor's own public address"
        ),
        "bad_consent": _Meaning(
            "fair",
            "consent came in a form that nobody knows and counts as not given",
            "send the list of granted categories, or a table of category = true or false",
        ),
        "pii_scrubbed": _Meaning(
            "fair",
            "personal data stood in free text or an address and was taken out",
            "send e-mail and phone in the fields of the person only",
        ),
        # router.collect.visitors
        "click_kept": _Meaning(
            "good",
            "click ids of an earlier event of the same visit were added",
            "send the click id with every event of the visit, or leave it at that",
        ),
        # router.body
        "repaired": _Meaning("fair", "its text was not UTF-8 and was repaired", "send UTF-8"),
        # router.identifiers
        "bad_advertising_id": _Meaning(
            "fair",
            "the advertising id was none, or the zeros of a person who refused, and was dropped",
            "send it where the person has agreed only",
        ),
        "bad_birth_date": _Meaning(
            "fair", "the date of birth was impossible or ambiguous and was dropped", "send it as YYYY-MM-DD"
        ),
        "bad_city": _Meaning("fair", "the city was none and was dropped", _ADDRESS),
        "bad_country": _Meaning("fair", "the country was none and was dropped", "send its ISO 3166 code, as FR"),
        "bad_email": _Meaning("fair", "the e-mail address was none and was dropped", _ADDRESS),
        "bad_first_name": _Meaning("fair", "the first name was none and was dropped", _ADDRESS),
        "bad_gender": _Meaning("fair", "the gender was not understood and was dropped", "send m, f or n"),
        "bad_last_name": _Meaning("fair", "the last name was none and was dropped", _ADDRESS),
        "bad_phone": _Meaning(
            "fair",
            "the phone number was none, or had no country code, and was dropped",
            "send it with + and its country code, or set default_country of the source",
        ),
        "bad_state": _Meaning("fair", "the state or region was none and was dropped", _ADDRESS),
        "bad_street": _Meaning("fair", "the street was none and was dropped", _ADDRESS),
        "bad_user_id": _Meaning("fair", "the user id was none and was dropped", "send your own id of the person"),
        "bad_zip": _Meaning("fair", "the postal code was none and was dropped", "send it with the country"),
        "hash_of_nothing": _Meaning(
            "poor", "a digest was that of an empty value and was dropped", "send no digest where the value is not known"
        ),
        "hash_not_sha256": _Meaning(
            "poor",
            "a digest was no SHA-256 and was dropped: nobody can match it",
            "send the value itself, or its SHA-256",
        ),
        "prehashed_phone_plus": _Meaning(
            "fair",
            "the phone's digest was made with the +, which Snap, Meta and Pinterest cannot match",
            "send the phone number itself: it is hashed for each partner",
        ),
    }
)

_NOBODY: Final = Finding(
    "no_identifier",
    "poor",
    "nothing says who it was",
    "send a user or visitor id, an e-mail address, a phone number, a click id or a partner's cookie",
)
_NO_CONSENT: Final = Finding(
    "consent_unknown",
    "fair",
    "consent is unknown: destinations that need it are not sent this",
    "send the categories of consent with every event",
)
_NO_VALUE: Final = Finding("no_value", "poor", "a purchase without an amount", "send value with every purchase")
_NO_CURRENCY: Final = Finding(
    "no_currency", "poor", "a purchase without a currency", "send the ISO 4217 code with every purchase, as EUR"
)


def of_event(event: Event) -> Quality:
    """The level of an event by itself, with its reasons, the worst first."""
    if not (found := _findings(event)):
        return _GOOD
    found.sort(key=lambda each: -LEVELS.index(each.level))
    return Quality(found[0].level, tuple(found))


_GOOD: Final = Quality("good")
_FINDINGS: Final = {note: Finding(note, *meaning) for note, meaning in NOTES.items()}


def _findings(event: Event) -> list[Finding]:
    found = [_FINDINGS[note] for note in event.notes if note in _FINDINGS]
    if not _says_who(event):
        found.append(_NOBODY)
    if event.name == "purchase":
        if event.money.value is None and event.money.revenue is None:
            found.append(_NO_VALUE)
        if event.money.currency is None:
            found.append(_NO_CURRENCY)
    if not event.consent.known and "bad_consent" not in event.notes and event.dialect != _SNITCHER:
        found.append(_NO_CONSENT)
    return found


_SNITCHER: Final = "snitcher"
_CLICK_IDS: Final = ("source_click_id", "click_id")  # of job adverts, as IP Snare has them


def _says_who(event: Event) -> bool:
    user, digests = event.user, event.user.digests
    return bool(
        event.kind == "group"
        or (event.dialect == _SNITCHER and user.group_id)
        or any(event.properties.get(name) for name in _CLICK_IDS)
        or (event.clear.ip and event.clear.user_agent)
        or user.id
        or user.anonymous_id
        or digests.email
        or digests.phone
        or digests.phone_plus
        or digests.external_id
        or digests.advertising_id
        or event.clicks
        or event.cookies
    )


def for_destination(destination: Destination, event: Event) -> Match:
    """How well the partner can match an event, by the identifiers that the destination declares, in its order."""
    lacking = destination.lacking(event)
    carried = tuple(name for name, paths in lacking.items() if not paths)
    missing = tuple(name for name, paths in lacking.items() if paths)
    return Match(
        _match_level(len(carried), len(missing)), carried, missing, _addition([lacking[name] for name in missing])
    )


def _match_level(carried: int, missing: int) -> Level:
    if carried >= 2 or not missing:
        return "good"
    return "fair" if carried else "poor"


def _addition(lacking: Sequence[Sequence[str]]) -> str | None:
    """What completes an identifier with the fewest values; of several, the one that the partner names first."""
    if not lacking:
        return None
    return f"send {' and '.join(_named(path) for path in min(lacking, key=len))}"


# What a value is called by those who send it, by its path in our event; digests without the ending of their form.
_VALUES: Final = MappingProxyType(
    {
        "user.digests.email": "the e-mail address",
        "user.digests.phone": "the phone number",
        "user.digests.first_name": "the first name",
        "user.digests.last_name": "the last name",
        "user.digests.street": "the street",
        "user.digests.city": "the city",
        "user.digests.state": "the state or region",
        "user.digests.zip": "the postal code",
        "user.digests.country": "the country",
        "user.digests.gender": "the gender",
        "user.digests.birth_date": "the date of birth",
        "user.digests.external_id": "the user id",
        "user.digests.advertising_id": "the advertising id of the device",
        "user.id": "the user id",
        "user.anonymous_id": "the visitor id",
        "user.session_id": "the session id",
        "clear.ip": "the visitor's IP address",
        "clear.user_agent": "the visitor's user agent",
        "clear.country": "the country",
        "clear.advertising_id": "the advertising id of the device",
        "clear.idfv": "the vendor's device id (idfv)",
        "money.order_id": "the order id",
        "page.url": "the page's address",
    }
)


def _named(path: str) -> str:
    holder, _, name = path.rpartition(".")
    if holder in {"clicks", "cookies"}:
        return f"the {'click id' if holder == 'clicks' else 'cookie'} {name}"
    if holder == "user.digests":
        path = next((known for known in (path, path.rpartition("_")[0]) if known in _VALUES), path)
    return _VALUES.get(path, path)
