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

import datetime as dt
import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from router import recall
from router.event import Digests, User
from router.recall import recalled

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

Forms = Mapping[str, str]
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


_FIELDS: Final = Raw.__struct_fields__[:-1]


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


def email(value: str) -> str | None:
    """The address as partners hash it, or None where it is not certain to be one. Not RFC 5322: their rule is simpler.

    An internationalised domain stays as written; dots and +tags stay; the full-width letters of an input method are
    the ASCII ones.
    """
    text = value.translate(_FULL_WIDTH) if not value.isascii() else value
    text = _visible(text).lower()
    if text.startswith("mailto:"):
        text = text[7:].partition("?")[0]
    if text.endswith(">"):
        display, _, text = text[:-1].rpartition("<")
        if "@" in display:
            return None
    local, _, domain = text.partition("@")
    if not local or "@" in domain or not all(domain.split(".")) or len(text) > 254:
        return None
    if not text.isprintable() or any(map(text.__contains__, _NEVER_IN_EMAIL)):
        return None
    return text


def alpha2(value: object) -> str | None:
    """ISO 3166-1 alpha-2 in upper case, from a code, an alpha-3 code, a name or a usual alias; else None."""
    text = _first_text(value)
    return None if text is None else _alpha2(text)


def currency(value: object) -> str | None:
    """An ISO 4217 code in upper case, or None. Names and signs are not guessed: a dollar has many countries."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    if value in _currencies():
        return value
    code = _visible(value).upper()
    return code if code in _currencies() else None


def load() -> None:
    """Read the tables of countries, currencies and numbering plans now, so that no request waits for them."""
    _countries()
    _subdivisions()
    _currencies()
    _phone("+33612345678", None)


def forget() -> None:
    """Empty the memory of raw values, as an erasure asks."""
    for memory in (*_MEMORIES, _alpha2, _subdivision):
        memory.cache_clear()
    recall.forget()


# Characters

_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NEVER_IN_EMAIL: Final = ' <>,;:"()[]\\\ufffd'
_BROKEN: Final = re.compile("[\ufffd\ud800-\udfff]")  # what decoding bad bytes leaves
_NOT_A_VALUE: Final = frozenset({"null", "undefined", "none", "(null)", "[object object]"})
_HEX: Final = frozenset("0123456789abcdef")
_INVISIBLE: Final = frozenset({"Cf", "Zl", "Zp"})  # bidi marks, zero-width characters, separators


def _ascii_without(unwanted: Callable[[str], bool]) -> dict[int, None]:
    return {code: None for code in range(128) if unwanted(chr(code))}


_NO_MARKS: Final = _ascii_without(lambda char: not char.isalnum() and char != " ")
_NO_MARKS_OR_SPACES: Final = _ascii_without(lambda char: not char.isalnum())
_LETTERS: Final = _ascii_without(lambda char: not char.isalpha())
_DIGITS: Final = _ascii_without(lambda char: not char.isdigit())


def _visible(text: str) -> str:
    """NFC, without bidi and zero-width characters, and without white space or controls at either end."""
    if not text.isascii():
        kept = (char for char in text if unicodedata.category(char) not in _INVISIBLE)
        text = unicodedata.normalize("NFC", "".join(kept))
    if not text.isprintable():
        text = text.strip(_CONTROLS)
    return text.strip()


_CONTROLS: Final = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1)]))


def _keep(text: str, table: dict[int, None], kinds: str) -> str:
    """What ``table`` leaves of ASCII; of other characters those whose Unicode category starts with one of ``kinds``."""
    if text.isascii():
        return text.translate(table)
    return "".join(
        char for char in text if (ord(char) not in table if char.isascii() else unicodedata.category(char)[0] in kinds)
    )


def _bare(text: str) -> str:
    return " ".join(_keep(text, _NO_MARKS, "LMNZ").split())


def _joined(text: str) -> str:
    return _keep(text, _NO_MARKS_OR_SPACES, "LMN")


def _letters(text: str) -> str:
    return _keep(text, _LETTERS, "LM")


def _digits(text: str) -> str:
    """Decimal digits of any script, as ASCII."""
    if text.isascii():
        return text.translate(_DIGITS)
    return "".join(str(unicodedata.decimal(char)) for char in text if char.isdecimal())


# Reading a field


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
        text = _visible(raw)
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


# The normal form of each kind


def _email_forms(text: str, _: str | None) -> Forms:
    if (address := email(text)) is None:
        return {}
    local, _, domain = address.partition("@")
    undotted = local.replace(".", "")
    bare = undotted.partition("+")[0]
    return {
        "email": address,
        # Google names exactly these two domains.
        "email_gmail": f"{undotted}@{domain}" if undotted and domain in ("gmail.com", "googlemail.com") else address,
        "email_bare": f"{bare}@{domain}" if bare else "",
    }


_EXTENSIONS: Final = ("ext", "x", "#", ";", ",", "poste", "доб")
_PHONE_CHARACTERS: Final = frozenset(
    "0123456789+() .-/\u00a0\u2007\u202f\u2010\u2011\u2012\u2013\u2014\uff08\uff09\uff0d"
)


def _phone_forms(text: str, region: str | None) -> Forms:
    number = _e164(text, region)
    return {} if number is None else {"phone": number, "phone_plus": f"+{number}"}


def _e164(text: str, region: str | None) -> str | None:
    """Country code and national number in ASCII digits, or None.

    libphonenumber knows each country's trunk prefix: the zero of +44 (0)844 goes, the one of +39 06 is part of the number.
    """
    import phonenumbers  # noqa: PLC0415 - 40 ms that only the first phone number pays

    number = text.lower().removeprefix("tel:").replace("\uff0b", "+")
    if not _PHONE_CHARACTERS.issuperset(number):
        for mark in _EXTENSIONS:
            number = number.partition(mark)[0]
        if not all(char.isdecimal() or char in _PHONE_CHARACTERS for char in number):
            return None
    head, plus, tail = number.partition("+")
    if "+" in tail or (plus and _digits(head)):
        return None
    digits = _digits(number)
    if not plus and digits.startswith("00"):
        plus, digits = "+", digits[2:]
    if not 6 <= len(digits) <= 17:  # room for a trunk zero and for a number without its country code
        return None
    try:
        parsed = phonenumbers.parse(plus + digits, None if plus or region is None else region.upper())
    except phonenumbers.NumberParseException:
        return None
    if not plus and phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    zeros = "0" * (parsed.number_of_leading_zeros or 1) if parsed.italian_leading_zero else ""
    whole = f"{parsed.country_code}{zeros}{parsed.national_number}"
    return whole if 8 <= len(whole) <= 15 else None


def _name_forms(field: str) -> Callable[[str, str | None], Forms]:
    def forms(text: str, _: str | None) -> Forms:
        plain = text.lower()
        if not plain.isprintable():
            return {}
        bare = _bare(plain)
        return {
            field: bare,
            f"{field}_tight": "".join(plain.split()) if bare else "",
            f"{field}_letters": _letters(plain),
            f"{field}_plain": plain if bare else "",
        }

    return forms


def _street_forms(text: str, _: str | None) -> Forms:
    return {"street": _bare(text.lower())}


def _city_forms(text: str, _: str | None) -> Forms:
    lowered = text.lower()
    return {"city": _joined(lowered), "city_letters": _letters(lowered)}


def _state_forms(text: str, country: str | None) -> Forms:
    """Codes for the United States and Canada, as Meta and Snap ask; elsewhere the name. Their names do not collide."""
    for candidate in ("US", "CA") if country is None else (country,):
        if candidate in ("US", "CA") and (code := _subdivision(text, candidate)) is not None:
            return {"state": code.lower()}
    return {"state": _joined(text.lower())}


_ZIP_IN_FIVE: Final = frozenset({"US", "PR", "GU", "VI", "AS", "MP"})


def _zip_forms(text: str, country: str | None) -> Forms:
    code = "".join(text.lower().split())
    digits = _digits(code)
    dashless = _joined(code)
    plus_four = len(code) == 10 and code[5] == "-" and len(digits) == 9
    if country in _ZIP_IN_FIVE:
        # Four digits are a New England code that was a number once and lost its zero: 02134.
        whole = digits.zfill(5) if len(digits) == 4 else digits
        code = whole[:5] if len(whole) in (5, 9) and digits == dashless else ""
    elif country is None and plus_four:
        code = digits[:5]
    if not code or not digits or len(code) > 16:  # every postal code has a digit
        return {}
    return {"zip": code, "zip_dashless": _joined(code), "zip_digits": _digits(code)}


def _country_forms(text: str, _: str | None) -> Forms:
    code = _alpha2(text)
    return {} if code is None else {"country": code.lower()}


_GENDERS: Final = {
    **dict.fromkeys(("m", "male", "man"), ("gender", "m")),
    **dict.fromkeys(("f", "female", "woman"), ("gender", "f")),
    **dict.fromkeys(("n", "nonbinary", "non-binary", "non binary", "non_binary"), ("gender_neutral", "n")),
}


def _gender_forms(text: str, _: str | None) -> Forms:
    form = _GENDERS.get(text.lower())
    return {} if form is None else dict([form])


def _birth_date_forms(text: str, _: str | None) -> Forms:
    date = _birth_date(text)
    return {} if date is None else {"birth_date": date.strftime("%Y%m%d")}


def _birth_date(text: str) -> dt.date | None:
    """ISO, YYYYMMDD, or slashed, dotted and dashed forms in which only one reading is a date."""
    day, _, time = text.replace("T", " ").partition(" ")
    # Midnight in Paris, written in UTC, is 23:00 of the day before: any other time of day makes the date uncertain.
    if time.strip("0:.Z+"):
        return None
    if len(day) == 8 and day.isdecimal():
        return _date(day[:4], day[4:6], day[6:])
    parts = day.replace("/", "-").replace(".", "-").split("-")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    first, second, third = parts
    if len(first) == 4:
        return _date(first, second, third)
    readings = {_date(third, second, first), _date(third, first, second)} - {None}
    return readings.pop() if len(readings) == 1 else None


def _date(year: str, month: str, day: str) -> dt.date | None:
    if len(year) != 4 or len(month) > 2 or len(day) > 2 or not 1890 <= int(year) <= 2100:
        return None
    try:
        return dt.date(int(year), int(month), int(day))
    except ValueError:
        return None


def _user_id_forms(text: str, _: str | None) -> Forms:
    return {"external_id": text}


def _advertising_id_forms(text: str, _: str | None) -> Forms:
    # iOS and Android give zeros in place of the id of a person who refused tracking: one id for millions of people.
    return {"advertising_id": text.lower()} if text.strip("0-") and " " not in text else {}


_phone: Final = _reader(_phone_forms, "phone", bad="bad_phone")
_phone_plus: Final = _reader(_phone_forms, "phone_plus", bad="bad_phone")
_zip: Final = _reader(_zip_forms, "zip", bad="bad_zip")
_state: Final = _reader(_state_forms, "state", bad="bad_state")
_PLAIN: Final[tuple[tuple[str, Reader], ...]] = (
    ("email", _reader(_email_forms, "email", bad="bad_email")),
    ("first_name", _reader(_name_forms("first_name"), "first_name", bad="bad_first_name")),
    ("last_name", _reader(_name_forms("last_name"), "last_name", bad="bad_last_name")),
    ("gender", _reader(_gender_forms, "gender", bad="bad_gender")),
    ("birth_date", _reader(_birth_date_forms, "birth_date", bad="bad_birth_date")),
    ("street", _reader(_street_forms, "street", bad="bad_street")),
    ("city", _reader(_city_forms, "city", bad="bad_city")),
    ("country", _reader(_country_forms, "country", bad="bad_country")),
    # A user id may be any text: 32 hex digits are an undashed UUID as often as an MD5.
    ("user_id", _reader(_user_id_forms, "external_id", bad="bad_user_id", other_hashes=True)),
    ("advertising_id", _reader(_advertising_id_forms, "advertising_id", bad="bad_advertising_id")),
)


# Countries, subdivisions, currencies

# What people write and ISO 3166 does not print: former and short names, the countries of the United Kingdom, the
# European Union's code for Greece, and the largest countries' own names.
_ALIASES: Final = {
    "GB": ("UK", "Great Britain", "Britain", "England", "Scotland", "Wales", "Northern Ireland"),
    "US": ("America", "The United States", "Estados Unidos", "États-Unis"),
    "GR": ("EL",),
    "AE": ("UAE",),
    "AT": ("Österreich",),
    "BE": ("Belgique", "België"),
    "BN": ("Brunei",),
    "BR": ("Brasil",),
    "CD": ("DR Congo", "DRC", "Congo-Kinshasa"),
    "CG": ("Congo-Brazzaville",),
    "CH": ("Schweiz", "Suisse", "Svizzera"),
    "CI": ("Ivory Coast",),
    "CV": ("Cape Verde",),
    "DE": ("Deutschland", "Allemagne"),
    "ES": ("España", "Espagne"),
    "FM": ("Micronesia",),
    "IT": ("Italia", "Italie"),
    "KR": ("Korea",),
    "MK": ("Macedonia",),
    "MM": ("Burma",),
    "MO": ("Macau",),
    "NL": ("Holland", "The Netherlands", "Nederland"),
    "PL": ("Polska",),
    "PS": ("Palestine",),
    "RU": ("Russia",),
    "SZ": ("Swaziland",),
    "TL": ("East Timor",),
    "TR": ("Turkey",),
    "VA": ("Vatican", "Vatican City"),
}


def _key(name: str) -> str:
    """A name without accents, marks, spaces and case, so that "Cote d'Ivoire" is Côte d’Ivoire."""
    if not name.isascii():
        name = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    return _joined(name.casefold())


def _spellings(name: str) -> tuple[str, ...]:
    """Of "Korea, Republic of" also "Republic of Korea"; of "Holy See (Vatican City State)" also "Holy See"."""
    short = name.partition(" (")[0]
    head, comma, tail = short.partition(", ")
    return (name, short, f"{tail} {head}") if comma else (name, short)


@lru_cache(maxsize=1)
def _countries() -> Mapping[str, str]:
    import pycountry  # noqa: PLC0415 - 90 ms that only the first country pays

    table: dict[str, str] = {}
    for country in pycountry.countries:
        code = country.alpha_2
        names = (getattr(country, field, None) for field in ("name", "common_name", "official_name"))
        for name in names:
            for spelling in _spellings(name) if name else ():
                table.setdefault(_key(spelling), code)
    for code, aliases in _ALIASES.items():
        table.update((_key(alias), code) for alias in aliases)
    for country in pycountry.countries:
        table[country.alpha_2.lower()] = table[country.alpha_3.lower()] = country.alpha_2
    return table


@lru_cache(maxsize=1)
def _subdivisions() -> Mapping[str, Mapping[str, str]]:
    import pycountry  # noqa: PLC0415 - see _countries

    # Read from its file: as pycountry's own objects they are 6 MB that stay.
    with open(f"{pycountry.DATABASE_DIR}/iso3166-2.json", "rb") as file:  # noqa: PTH123 - no path beside this one
        parts = msgspec.json.decode(file.read(), type=dict[str, list[_Subdivision]])["3166-2"]
    table: dict[str, dict[str, str]] = {"US": {"washingtondc": "DC"}}
    for part in parts:
        country, _, code = part.code.partition("-")
        names = table.setdefault(country, {})
        names.setdefault(_key(part.name), code)
    for part in parts:  # codes last: no name may hide one
        country, _, code = part.code.partition("-")
        table[country][_key(code)] = table[country][_key(part.code)] = code
    return table


class _Subdivision(msgspec.Struct):
    code: str
    name: str


@lru_cache(maxsize=1)
def _currencies() -> frozenset[str]:
    import pycountry  # noqa: PLC0415 - see _countries

    return frozenset(money.alpha_3 for money in pycountry.currencies) - {"XXX", "XTS"}  # no currency, and a test's


@lru_cache(maxsize=_REMEMBERED)
def _alpha2(text: str) -> str | None:
    return _countries().get(_key(_visible(text)))


@lru_cache(maxsize=_REMEMBERED)
def _subdivision(text: str, country: str) -> str | None:
    return _subdivisions().get(country.upper(), {}).get(_key(_visible(text)))
