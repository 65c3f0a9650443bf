"""The normal form of each kind of identifier: the texts whose digests partners match on, by the name of the digest.

No form where a value is not certain. ``text`` is visible already; the second argument is the country that a phone number,
a state or a postal code is read for, as ISO 3166-1 alpha-2.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Final

from router.identifiers.characters import FULL_WIDTH, joined, only_digits, only_letters, visible, words
from router.identifiers.countries import country_code, subdivision

Forms = Mapping[str, str]

_QUOTES: Final = frozenset(("''", '""', "\u2018\u2019", "\u201c\u201d"))
_NEVER_IN_EMAIL: Final = ' <>,;:"()[]\\\ufffd'


def email(value: str) -> str | None:
    """The address as partners hash it, or None where it is not certain to be one. Not RFC 5322: their rule is simpler.

    An internationalised domain stays as written; dots and +tags stay; the full-width letters of an input method are
    the ASCII ones.
    """
    text = value.translate(FULL_WIDTH) if not value.isascii() else value
    text = visible(text).lower()
    if text.startswith("mailto:"):
        text = text[7:].partition("?")[0]
    if text.endswith(">"):
        display, _, text = text[:-1].rpartition("<")
        if "@" in display:
            return None
    if text[:1] + text[-1:] in _QUOTES:  # as a spreadsheet writes it
        text = text[1:-1].strip()
    local, _, domain = text.partition("@")
    if not local or "@" in domain or not all(domain.split(".")) or len(text) > 254:
        return None
    if not text.isprintable() or any(map(text.__contains__, _NEVER_IN_EMAIL)):
        return None
    return text


def email_forms(text: str, _: str | None) -> Forms:
    """As it is; without dots where Gmail ignores them; without dots and +tag."""
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


def phone_forms(text: str, region: str | None) -> Forms:
    """E.164, without and with its plus."""
    number = _e164(text, region)
    return {} if number is None else {"phone": number, "phone_plus": f"+{number}"}


def reads_national_numbers(country: str) -> bool:
    """Are phone numbers without a country code understood for this one (ISO 3166-1 alpha-2, upper case)?"""
    import phonenumbers  # noqa: PLC0415 - see _e164

    return country in phonenumbers.SUPPORTED_REGIONS


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
    if "+" in tail or (plus and only_digits(head)):
        return None
    digits = only_digits(number)
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


def name_forms(field: str) -> Callable[[str, str | None], Forms]:
    """Of a first or last name: words, without spaces, letters alone, and as it is, in lower case."""

    def forms(text: str, _: str | None) -> Forms:
        plain = text.lower()
        if not plain.isprintable():
            return {}
        bare = words(plain)
        return {
            field: bare,
            f"{field}_tight": "".join(plain.split()) if bare else "",
            f"{field}_letters": only_letters(plain),
            f"{field}_plain": plain if bare else "",
        }

    return forms


def street_forms(text: str, _: str | None) -> Forms:
    """Letters, digits and spaces."""
    return {"street": words(text.lower())}


def city_forms(text: str, _: str | None) -> Forms:
    """With digits, and letters alone."""
    lowered = text.lower()
    return {"city": joined(lowered), "city_letters": only_letters(lowered)}


def state_forms(text: str, country: str | None) -> Forms:
    """Codes for the United States and Canada, as Meta and Snap ask; elsewhere the name. Their names do not collide."""
    for candidate in ("US", "CA") if country is None else (country,):
        if candidate in ("US", "CA") and (code := subdivision(text, candidate)) is not None:
            return {"state": code.lower()}
    return {"state": joined(text.lower())}


_PLUS_FOUR: Final = re.compile(r"\d{5}(?:\s*-\s*|\s+)\d{4}")
_ZIP_IN_FIVE: Final = frozenset({"US", "PR", "GU", "VI", "AS", "MP"})


def zip_forms(text: str, country: str | None) -> Forms:
    """As it is written, in lower case; without dashes; its digits."""
    code = "".join(text.lower().split())
    digits = only_digits(code)
    dashless = joined(code)
    if country in _ZIP_IN_FIVE:
        # Four digits are a New England code that was a number once and lost its zero: 02134.
        whole = digits.zfill(5) if len(digits) == 4 else digits
        code = whole[:5] if len(whole) in (5, 9) and digits == dashless else ""
    elif country is None and _PLUS_FOUR.fullmatch(text):
        code = digits[:5]
    if not code or not digits or len(code) > 16:  # every postal code has a digit
        return {}
    return {"zip": code, "zip_dashless": joined(code), "zip_digits": only_digits(code)}


def country_forms(text: str, _: str | None) -> Forms:
    """ISO 3166-1 alpha-2."""
    code = country_code(text)
    return {} if code is None else {"country": code.lower()}


_GENDERS: Final = {
    **dict.fromkeys(("m", "male", "man"), ("gender", "m")),
    **dict.fromkeys(("f", "female", "woman"), ("gender", "f")),
    **dict.fromkeys(("n", "nonbinary", "non-binary", "non binary", "non_binary"), ("gender_neutral", "n")),
}


def gender_forms(text: str, _: str | None) -> Forms:
    """M or f; n is a form of its own."""
    form = _GENDERS.get(text.lower())
    return {} if form is None else dict([form])


def birth_date_forms(text: str, _: str | None) -> Forms:
    """YYYYMMDD."""
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


def user_id_forms(text: str, _: str | None) -> Forms:
    """As it is."""
    return {"external_id": text}


def advertising_id_forms(text: str, _: str | None) -> Forms:
    """In lower case; not the one that stands for nobody."""
    # iOS and Android give zeros in place of the id of a person who refused tracking: one id for millions of people.
    return {"advertising_id": text.lower()} if text.strip("0-") and " " not in text else {}
