"""Personal data and secrets in free text: what each of them looks like, and the mark that takes its place.

Found are e-mail addresses (percent-encoded ones too), credentials, and the numbers of ``numbers``.

Sources: RFC 5322 and 6531 (e-mail characters), RFC 6750 (Bearer), RFC 7519 (JWT).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from router.identifiers import email, sha256
from router.identifiers.characters import FULL_WIDTH
from router.scrub.numbers import NUMERIC, is_shops_number

EMAIL: Final = "[email]"
SECRET: Final = "[secret]"  # noqa: S105 - the mark that stands where a secret was

LEAST: Final = 9  # letters and digits; fewer are most of a shop's words, and nobody's address or number
REMEMBERED: Final = 8192  # texts, and as many addresses
SHORT: Final = 256  # characters; longer text is seldom the same again
_ROUNDS: Final = 4


def text(value: str) -> str:
    """``value`` with marks in place of personal data and secrets, and U+FFFD in place of NUL, at which SQLite stops.

    Takes linear time. Where numbers are chained so that each hides the next, all of it becomes one mark.
    """
    found = scrubbed(value) if len(value) > SHORT else _remembered_text(value)
    return value if found is None else found


def scrubbed(value: str) -> str | None:
    """The cleaned text; None where nothing has to go."""
    value = value if value.isascii() else _plain(value)
    if not (rules := _rules(value)) or (found := _applied(rules, value)) == value:
        return None
    # What a mark replaces may have hidden its neighbour from a rule that looks at word ends. A chain of thousands
    # ("+12345678+12345678") would take as many rounds, and no sentence takes four.
    for _ in range(_ROUNDS):
        value, found = found, _applied(rules, found)
        if found == value:
            return found
    return SECRET


_remembered_text: Final = lru_cache(maxsize=REMEMBERED)(scrubbed)


def forget() -> None:
    """Empty the memory."""
    _remembered_text.cache_clear()


def is_ordinary(value: str) -> bool:
    """Is there nothing in it, nor in any part of it, that a rule could find? Quicker than looking."""
    return not _rules(value if value.isascii() else _plain(value))


def contains_personal(value: str) -> bool:
    """Would ``text`` change it?"""
    return text(value) != value


def safe_id(value: str, *, seldom: bool = False) -> str:
    """An id as it is; one that holds an e-mail address, phone, card or secret as a SHA-256, the same every time.

    A number of less than 15 digits is no card's here. The digest of an id that is an e-mail address is the one the
    address itself gets, so partners and erasure find it.
    ``seldom``: it hardly comes again, and is not remembered.
    """
    if seldom:  # else what is remembered is asked first: it is quicker than the pattern
        kept = _UUID.fullmatch(value) is not None or scrubbed(value) is None
    else:
        kept = text(value) == value or _UUID.fullmatch(value) is not None
    if kept or is_shops_number(value):
        return value
    return sha256(email(value) or value.strip().lower())


# What input methods, phones and word processors write for an ASCII character, or for nothing that can be seen.
_WRITTEN: Final = (
    {chr(code): chr(ascii_code) for code, ascii_code in FULL_WIDTH.items()}
    | dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-")
    | dict.fromkeys("\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")
    | dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", "")
    | {"\u3002": ".", "\ufe52": ".", "\ufe62": "+", "\ufe6b": "@"}
)
_ODD: Final = re.compile(f"[{''.join(_WRITTEN)}]")


def _plain(value: str) -> str:
    """The same text as a reader takes it."""
    return _ODD.sub(lambda found: _WRITTEN[found[0]], value)


Rule = Callable[[str], str]

_NINE_DIGITS: Final = re.compile(r"\d(?:\D*\d){8}")
_NOT_DIGITS: Final = bytes(code for code in range(128) if not chr(code).isdecimal())


def _rules(value: str) -> list[Rule]:
    """The rules that could find something. Ordinary short text has none, and costs no more than this look."""
    length = len(value)
    rules: list[Rule] = []
    if "\x00" in value:
        rules.append(_without_nul)
    if length > 15 and _may_hold_secret(value):
        rules.append(_without_secrets)
    if _may_hold_email(value):
        rules.append(without_emails)
    if length > 8 and not value.isalpha() and _has_nine_digits(value):
        rules += NUMERIC
    return rules


def _has_nine_digits(value: str) -> bool:
    if value.isascii():
        return len(value.encode().translate(None, _NOT_DIGITS)) > 8 and not _UUID.fullmatch(value)
    return _NINE_DIGITS.search(value) is not None


# Ids of events and visitors are mostly these, and no rule finds anything in one.
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def _applied(rules: list[Rule], value: str) -> str:
    for rule in rules:
        value = rule(value)
    return value


def _without_nul(value: str) -> str:
    return value.replace("\x00", "\ufffd")


# Secrets

_SECRET: Final = re.compile(
    # Of words a shop has its own: "Ring Bearer Proposal Box". A token has a digit, or is longer than they are.
    r"\b(?:[Bb]earer|BEARER)\s+(?=[\w.~+/=-]*\d|[\w.~+/=-]{24})[\w.~+/=-]{8,}"
    r"|\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"  # a JWT's header is a JSON object: base64 of {" is eyJ
    r"|\b(?:sk|rk|pk)_(?:live|test)_\w{8,}"  # Stripe
    r"|\bghp_\w{20,}"  # GitHub
    r"|\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bAIza[\w-]{30,}"  # Google
    r"|\bxox[abprs]-[\w-]{10,}",  # Slack
)


def _may_hold_secret(value: str) -> bool:
    return (
        "eyJ" in value
        or "earer" in value
        or "EARER" in value
        or "_live_" in value
        or "_test_" in value
        or "ghp_" in value
        or "AKIA" in value
        or "AIza" in value
        or "xox" in value
    )


def _without_secrets(value: str) -> str:
    return _SECRET.sub(SECRET, value)


# E-mail addresses

_AT: Final = r"(?:@|\uff20|%(?:25)*40)"
_LOCAL: Final = r"(?:[\w.+!#$*^`{|}~'-]|%(?!(?:25)*40))"
_BYTE: Final = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# RFC 5322 also allows / = ? & in a local part; in text they stand in front of addresses, not in them. A local part is
# tried from the start of its run only, or after an encoded @ that was none, so that long text takes linear time.
_EMAIL: Final = re.compile(
    rf"(?:(?:(?<![\w.+!#$*^`{{|}}~'%-])|(?<=%40)|(?<=%2540)|(?<=%252540))(?P<quotes>'*+){_LOCAL}++|\"[^\"\s]{{1,64}}+\"){_AT}"
    r"(?!\d+x\.(?:png|jpe?g|gif|webp|svg|avif)\b)"  # logo@2x.png
    rf"(?:(?:[\w-]++(?:\.|%(?:25)*2[Ee]))+[^\W\d_][\w-]*|\[?(?:{_BYTE}\.){{3}}{_BYTE}\b(?!\.\d)\]?)"
)
_ENCODED_AT: Final = re.compile(r"%(?:25)*40")


def _may_hold_email(value: str) -> bool:
    return "@" in value or "\uff20" in value or ("%" in value and _ENCODED_AT.search(value) is not None)


def without_emails(value: str) -> str:
    return _EMAIL.sub(rf"\g<quotes>{EMAIL}", value) if _may_hold_email(value) else value
