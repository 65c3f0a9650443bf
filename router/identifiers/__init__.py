"""Identifiers: one person's raw values become the closed set of digests that partners match on.

Here are the normal forms of e-mail, phone, names, address, birth date, gender and ids, and the tables for countries,
subdivisions and currencies. Where a value stands in a payload is a dialect's business; which form a partner wants is
its destination's; free text is ``router.scrub``'s.

Hashing is SHA-256 over UTF-8, written as 64 lower-case hex digits. Text is NFC and fully lower-cased, accents stay. What
arrives as a SHA-256 already is lower-cased and never hashed again; MD5, SHA-1 and the hash of nothing are dropped. A value
that is not certain yields no digest and a note from ``NOTES``: a wrong digest matches nobody, or somebody else.

Visitors repeat, so each kind remembers its last 8 192 answers by raw text, and the person as a whole by its JSON. That memory is
the process's alone and is written nowhere; ``forget`` empties it.

Sources: Snap Conversions API v3, Parameters; Meta "Customer Information Parameters"; TikTok Events API 2.0, Parameters;
Google "Send user-provided data with Measurement Protocol"; Pinterest API v5, events/create; Reddit Conversions API;
Microsoft UET Conversions API; Unicode 15 categories; ISO 3166 and ISO 4217 from pycountry; numbering plans from
libphonenumber.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from router import recall
from router.event import Digests, User
from router.identifiers import countries, forms
from router.identifiers.characters import visible
from router.identifiers.forms import Forms, email
from router.recall import recalled

__all__ = ["NOTES", "Raw", "alpha2", "currency", "digests", "email", "forget", "load", "sha256"]

NOTES: Final = frozenset(
    {
        "bad_advertising_id",  # not an id, or the all-zero one that stands for a person who opted out
        "bad_birth_date",  # impossible, or day and month cannot be told apart
        "bad_city",
        "bad_country",
        "bad_email",
        "bad_first_name",
        "bad_gender",
        "bad_last_name",
        "bad_phone",  # not 8 to 15 digits, or national and no default country is configured
        "bad_state",
        "bad_street",
        "bad_user_id",
        "bad_zip",
        "hash_of_nothing",  # the SHA-256 of an empty text, of "null" or of "undefined"
        "hash_not_sha256",  # 32 or 40 hex digits: MD5 or SHA-1
        "prehashed_phone_plus",  # fits partners that hash +digits; Snap, Meta and Pinterest cannot match it
    }
)

_REMEMBERED: Final = 8192
_LONGEST: Final = 512  # characters; no identifier is longer, and what is remembered stays bounded

Reading = tuple[Forms, str | None]


class Raw(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The raw values of one person as JSON gave them. Held in memory until ``digests`` has run, stored nowhere."""

    email: Any | None = None
    phone: Any | None = None
    first_name: Any | None = None
    last_name: Any | None = None
    gender: Any | None = None
    birth_date: Any | None = None
    street: Any | None = None
    city: Any | None = None
    state: Any | None = None
    zip: Any | None = None
    country: Any | None = None
    user_id: Any | None = None
    advertising_id: Any | None = None
    # Commanders Act's phone_sha256 is made of +digits: sha256("+33612345678") is the value its documentation prints.
    phone_hash_has_plus: bool = False

    def __repr__(self) -> str:
        return "Raw(***)"


def digests(raw: Raw, default_country: str | None = None) -> tuple[Digests, tuple[str, ...]]:
    """Every form that can be made, and notes on what was dropped. Never raises, whatever JSON value a field holds.

    Numbers are read as text; of a list the first usable member counts. ``default_country`` (ISO 3166-1 alpha-2) reads
    phone numbers that carry no country code; without it they are dropped.
    """
    return _person((raw, default_country))


@recalled
def _person(said: Any) -> tuple[Digests, tuple[str, ...]]:
    raw, default_country = said
    return _digests_of(raw if isinstance(raw, Raw) else Raw(**raw), default_country)


def _digests_of(raw: Raw, default_country: str | None) -> tuple[Digests, tuple[str, ...]]:
    found: dict[str, str] = {}
    notes: dict[str, None] = {}
    for name, read in _PLAIN:
        if (value := getattr(raw, name)) is not None:
            _take(value, read, None, found, notes)
    if raw.phone is not None:
        read = _phone_plus if raw.phone_hash_has_plus else _phone
        _take(raw.phone, read, default_country, found, notes)
        if raw.phone_hash_has_plus and "phone_plus" in found and "phone" not in found:
            notes["prehashed_phone_plus"] = None
    if raw.zip is not None or raw.state is not None:
        country = alpha2(raw.country)
        if raw.zip is not None:
            _take(raw.zip, _zip, country, found, notes)
        if raw.state is not None:
            _take(raw.state, _state, country, found, notes)
    return (Digests(**found) if found else _NONE), tuple(notes)


def sha256(text: str) -> str:
    """64 lower-case hex digits. A lone surrogate, which UTF-8 cannot carry, counts as a question mark."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def alpha2(value: object) -> str | None:
    """ISO 3166-1 alpha-2 in upper case, from a code, an alpha-3 code, a name or a usual alias; else None."""
    text = _first_text(value)
    return None if text is None else countries.country_code(text)


def currency(value: object) -> str | None:
    """An ISO 4217 code in upper case, or None. Names and signs are not guessed: a dollar has many countries."""
    return countries.currency_code(value) if isinstance(value, str) and len(value) <= _LONGEST else None


def load() -> None:
    """Read the tables of countries, currencies and numbering plans now, so that no request waits for them."""
    countries.load()
    _phone("+33612345678", None)


def forget() -> None:
    """Empty the memory of raw values, as an erasure asks."""
    for memory in _MEMORIES:
        memory.cache_clear()
    countries.forget()
    recall.forget()


# Reading a field

_BROKEN: Final = re.compile("[\ufffd\ud800-\udfff]")  # what decoding bad bytes leaves
_NOT_A_VALUE: Final = frozenset({"null", "undefined", "none", "(null)", "[object object]"})
_HEX: Final = frozenset("0123456789abcdef")


def _text(value: object) -> str | None:
    """A JSON scalar as text; None for what cannot be an identifier."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else None
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else None
    if isinstance(value, int):
        return str(value) if 0 <= value < 10**20 else None
    return None


def _first_text(value: object) -> str | None:
    members = value[:16] if isinstance(value, (list, tuple)) else (value,)
    return next((text for member in members if (text := _text(member)) is not None and text.strip()), None)


Reader = Callable[[str, str | None], Reading]


def _take(value: object, read: Reader, context: str | None, found: dict[str, str], notes: dict[str, None]) -> None:
    """Add the forms of ``value``, or of the first usable member of a list, to ``found``; what was wrong to ``notes``."""
    if isinstance(value, str) and len(value) <= _LONGEST:
        forms, note = read(value, context)
        found.update(forms)
        if note is not None:
            notes[note] = None
        return
    note = None
    for member in value[:16] if isinstance(value, (list, tuple)) else (value,):
        if member is None:
            continue
        # An empty reader's answer to an unreadable type is the same as to unreadable text.
        text = _text(member)
        forms, bad = read("\ufffd" if text is None else text, context)
        if forms:
            found.update(forms)
            return
        note = note or bad
    if note is not None:
        notes[note] = None


def _prehashed(text: str) -> str | None:
    """The value in lower case where it is written like an MD5, SHA-1 or SHA-256 digest, else None."""
    if len(text) not in (32, 40, 64):
        return None
    lowered = text.lower()
    return lowered if _HEX.issuperset(lowered) else None


_NONE: Final = User().digests  # the default object itself, which is left out of what is stored
_OF_NOTHING: Final = frozenset(sha256(text) for text in ("", " ", "null", "undefined", "none"))
_MEMORIES: list[Any] = []


def _reader(
    normal: Callable[[str, str | None], Forms],
    primary: str,
    *,
    bad: str,
    other_hashes: bool = False,
) -> Reader:
    """A remembering reader from raw text to digests, around ``normal``, which gives the text of each form.

    A digest goes into ``primary`` as it is. ``other_hashes``: 32 and 40 hex digits are ordinary text in this field.
    """

    @lru_cache(maxsize=_REMEMBERED)
    def read(raw: str, context: str | None) -> Reading:
        text = visible(raw)
        if not text:
            return {}, None
        if (digest := _prehashed(text)) is not None and (len(digest) == 64 or not other_hashes):
            if digest in _OF_NOTHING:
                return {}, "hash_of_nothing"
            return ({primary: digest}, None) if len(digest) == 64 else ({}, "hash_not_sha256")
        if (not text.isascii() and _BROKEN.search(text)) or text.lower() in _NOT_A_VALUE:
            return {}, bad
        made: dict[str, str] = {}
        forms = {}
        for form, value in normal(text, context).items():
            if value:
                forms[form] = made.get(value) or made.setdefault(value, sha256(value))
        return forms, None if forms else bad

    _MEMORIES.append(read)
    return read


_phone: Final = _reader(forms.phone_forms, "phone", bad="bad_phone")
_phone_plus: Final = _reader(forms.phone_forms, "phone_plus", bad="bad_phone")
_zip: Final = _reader(forms.zip_forms, "zip", bad="bad_zip")
_state: Final = _reader(forms.state_forms, "state", bad="bad_state")
_PLAIN: Final[tuple[tuple[str, Reader], ...]] = (
    ("email", _reader(forms.email_forms, "email", bad="bad_email")),
    ("first_name", _reader(forms.name_forms("first_name"), "first_name", bad="bad_first_name")),
    ("last_name", _reader(forms.name_forms("last_name"), "last_name", bad="bad_last_name")),
    ("gender", _reader(forms.gender_forms, "gender", bad="bad_gender")),
    ("birth_date", _reader(forms.birth_date_forms, "birth_date", bad="bad_birth_date")),
    ("street", _reader(forms.street_forms, "street", bad="bad_street")),
    ("city", _reader(forms.city_forms, "city", bad="bad_city")),
    ("country", _reader(forms.country_forms, "country", bad="bad_country")),
    # A user id may be any text: 32 hex digits are an undashed UUID as often as an MD5.
    ("user_id", _reader(forms.user_id_forms, "external_id", bad="bad_user_id", other_hashes=True)),
    ("advertising_id", _reader(forms.advertising_id_forms, "advertising_id", bad="bad_advertising_id")),
)
