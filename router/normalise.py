"""Values: what a sender wrote becomes its one canonical spelling, or nothing.

Times, amounts, whole numbers, addresses of the network, click ids and cookies. Nothing here raises for bad input: the
value is dropped and a note says so. Where each value stands in a sender's shape is ``router.dialects``' subject,
digests are ``router.identifiers``', free text is ``router.scrub``'s.

The closed set of notes that this file and ``router.door`` add (``router.identifiers`` and ``router.body`` have their own):

======================  ================================================================================
``own_id``              the event came without a usable id and got ours: a resend of it is not recognised
``unit_guessed``        a time in seconds, micro- or nanoseconds; milliseconds are expected
``naive_ts``            a time without zone, taken as UTC
``bad_ts``              a time that is none or is impossible: the moment of receipt stands in
``future_ts``           more than ten minutes ahead: the moment of receipt stands in, ``sent_time`` has the claim
``clock_skew``          the sender's clock was off by a second or more and the time was corrected
``bad_value``           an amount or quantity that is no decimal number, dropped
``bad_currency``        no ISO 4217 code, dropped
``bad_url``             a page address that is none, dropped
``bad_ip``              an IP address that is none or is not public, dropped
``bad_consent``         consent in a shape nobody knows: taken as not given
``click_kept``          click ids of an earlier event of the visitor's session were added (``router.collect.visitors``)
``pii_scrubbed``        personal data stood where none belongs and was replaced
======================  ================================================================================
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from router import identifiers

MAX_TEXT: Final = 512
MAX_AHEAD: Final = 10 * 60 * 1000  # ms
_SKEW_WORTH_TELLING: Final = 1000  # ms; less is the way through the network
_MAX_WHOLE: Final = 2**53
_REMEMBERED: Final = 8192  # addresses of visitors, in memory only


class Findings:
    """What was noticed on the way: notes, each once, and what turns an event away after all."""

    __slots__ = ("long_key", "notes", "out_of_range")

    def __init__(self, notes: tuple[str, ...] = ()) -> None:
        self.notes = list(notes)
        self.out_of_range: str | None = None
        self.long_key = False

    def note(self, *notes: str) -> None:
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)

    def take(self, other: Findings) -> None:
        """Add what was noticed elsewhere; what was out of range first counts."""
        if other.notes:
            self.note(*other.notes)
        if other.long_key:
            self.long_key = True
        if other.out_of_range is not None and self.out_of_range is None:
            self.out_of_range = other.out_of_range


def forget() -> None:
    """Empty the memory of addresses, as an erasure asks."""
    _public_ip.cache_clear()


# -- time ------------------------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_LATEST: Final = 253_402_300_799_999  # the last millisecond of the year 9999
_EARLIEST: Final = 100_000_000_000  # 1973: whatever is smaller was in another unit
_NUMBER: Final = re.compile(r"\d{1,20}(?:\.\d{0,20})?", re.ASCII)
# Segment's own batch sample has a month without its zero ("2015-2-02T00:30:12.984Z").
_LOOSE_ISO: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2}))?(?:[.,](\d{1,9}))?)?"
    r" ?(Z|UTC|GMT|[+-]\d{2}:?(?:\d{2})?)?",
    re.ASCII,
)


def instant(value: Any, findings: Findings) -> int | None:
    """UTC milliseconds of a number in any unit, or of an ISO 8601 text; None where it is no possible time.

    Units are told apart by magnitude, which is unambiguous from 1973 to the year 5138.
    """
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return _iso(value, findings)
        value = int(value) if value.isdigit() else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return _magnitude(value, findings)


def _magnitude(number: float, findings: Findings) -> int | None:
    if _EARLIEST <= number < 1e14:
        return int(number)
    for above, below, numerator, denominator in ((1e8, 1e11, 1000, 1), (1e14, 1e17, 1, 1000), (1e17, 1e20, 1, 10**6)):
        if above <= number < below:
            findings.note("unit_guessed")
            return int(number * numerator) if denominator == 1 else int(number) // denominator
    return None


def _iso(text: str, findings: Findings) -> int | None:
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        padded = _padded(text.upper())
        if padded is None:
            return None
        moment = padded
    if moment.tzinfo is None:
        findings.note("naive_ts")
        moment = moment.replace(tzinfo=UTC)
    milliseconds = (moment - _EPOCH) // _MS
    return milliseconds if _EARLIEST <= milliseconds <= _LATEST else None


def _padded(text: str) -> datetime | None:
    if (found := _LOOSE_ISO.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    canonical = (
        f"{year}-{month:0>2}-{day:0>2}T{hour or '0':0>2}:{minute or '00'}:{second or '00'}.{(fraction or '0')[:6]:0<6}"
    )
    try:
        return datetime.fromisoformat(canonical + ("+00:00" if zone in {"Z", "UTC", "GMT"} else zone or ""))
    except ValueError:
        return None


def event_time(claim: Any, sent_at: Any, received: int, findings: Findings) -> tuple[int, int | None]:
    """When it happened, and what the sender claimed where that had to be corrected; UTC milliseconds.

    ``sent_at`` tells how far the sender's clock is off: the true time is received − (sent − claimed).
    Source: Segment, "Spec: Common Fields", Timestamps.
    """
    if claim is None:
        return received, None
    claimed = instant(claim, findings)
    if claimed is None:
        findings.note("bad_ts")
        return received, None
    time = claimed
    sent = None if sent_at is None else instant(sent_at, Findings())
    if sent is not None and sent >= claimed:
        time = received - (sent - claimed)
    if time > received + MAX_AHEAD:
        findings.note("future_ts")
        return received, claimed
    if time < _EARLIEST:
        findings.note("bad_ts")
        return received, claimed
    if abs(time - claimed) >= _SKEW_WORTH_TELLING:
        findings.note("clock_skew")
        return time, claimed
    return time, None


# -- numbers ---------------------------------------------------------------------------------------------------------

# No amount begins with a plus; a phone number in the wrong field does.
_PLAIN_DECIMAL: Final = re.compile(r"-?(?:0|[1-9]\d{0,15})(?:\.\d{1,18})?", re.ASCII)
_DECIMAL: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)
_GROUPED: Final = re.compile(r"-?\d{1,3}(?:([ .,'’\u00a0\u202f])\d{3})+(?:([.,])\d+)?", re.ASCII)
_COMMA: Final = re.compile(r"-?\d+,(?:\d{1,2}|\d{4,})", re.ASCII)
_LARGEST: Final = Decimal(10) ** 15


def amount(value: Any, findings: Findings) -> str | None:
    """Canonical decimal text: no exponent, no trailing zeros, a point; None where absent, or with a note where bad.

    A comma is a decimal sign only where it can be nothing else: "142,52" and "1.000,50", but not "1,000".
    """
    if value is None or value == "":
        return None
    kind, canonical = type(value), None
    if kind is int:
        canonical = str(value) if -(10**15) < value < 10**15 else None
    elif kind is float:
        canonical = _float(value)
    elif kind is str and len(value) <= 64:
        canonical = _canonical(value.strip())
    if canonical is None:
        findings.note("bad_value")
    return canonical


def _float(value: float) -> str | None:
    """Python's shortest text that reads back as the same number, which is what the sender wrote."""
    text = repr(value)
    if "e" in text or "n" in text or not -1e15 < value < 1e15:
        return _canonical(text)
    return text if not text.endswith(".0") else (text[:-2] if value else "0")


def _canonical(text: str) -> str | None:
    if not _PLAIN_DECIMAL.fullmatch(text):
        plain = _ungrouped(text)
        if plain is None:
            return None
        text = format(Decimal(plain), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if len(text) > 15 and (len(text) > 40 or abs(Decimal(text)) >= _LARGEST):
        return None
    return "0" if text in {"-0", ""} else text


def _ungrouped(text: str) -> str | None:
    if _DECIMAL.fullmatch(text):
        return text
    if _COMMA.fullmatch(text):
        return text.replace(",", ".")
    if (found := _GROUPED.fullmatch(text)) is None:
        return None
    group, point = found.groups()
    if point == group or (point is None and group in {".", ","} and text.count(group) == 1):
        return None
    whole, _, cents = text.rpartition(point) if point else (text, "", "")
    digits = whole.replace(group, "")
    return f"{digits}.{cents}" if digits.lstrip("-").isdigit() else None


def whole(value: Any, field: str, findings: Findings) -> int | None:
    """A whole number, also from text or from 2.0; a typed number beyond 2^53 is a finding that turns the event away."""
    if value is None or value == "":
        return None
    number: int | None = None
    if isinstance(value, str) and len(value) <= 32 and value.strip().isascii() and value.strip().isdigit():
        number = int(value)
    elif type(value) is int:
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None:
        findings.note("bad_value")
    elif abs(number) > _MAX_WHOLE:
        findings.out_of_range = findings.out_of_range or field
        return None
    return number


def currency(value: Any, findings: Findings) -> str | None:
    """ISO 4217, upper case."""
    if value is None or value == "":
        return None
    code = identifiers.currency(value)
    if code is None:
        findings.note("bad_currency")
    return code


def ratio(value: Any) -> float | None:
    """A small positive number, as of a screen's density."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < 1000 else None


def truth(value: Any) -> bool | None:
    """A yes or no in the ways senders write it; None where it is neither."""
    if isinstance(value, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower()
        )
    return bool(value) if isinstance(value, (int, float)) and value in {0, 1} else None


_ATT: Final = {
    **dict.fromkeys(("authorized", "authorised", "3"), True),
    **dict.fromkeys(("denied", "restricted", "notdetermined", "0", "1", "2"), False),
}


def att_status(value: Any) -> bool | None:
    """May the device's owner be tracked, by Apple's word for it or its number; who was not asked has not agreed.

    Source: Apple, ATTrackingManager.AuthorizationStatus: notDetermined 0, restricted 1, denied 2, authorized 3.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return truth(value)
    said = "".join(filter(str.isalnum, str(value))).lower()
    return _ATT.get(said, truth(value))


# -- network ---------------------------------------------------------------------------------------------------------

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_IPV6_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d{1,5})?", re.ASCII)
_DEVICE_ID: Final = re.compile(r"[0-9A-Fa-f-]{16,64}", re.ASCII)
_OCTET: Final = "(?:0|[1-9][0-9]{0,2})"  # a leading zero means octal to some readers and not to others
_IPV4: Final = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}})(?::\d{{1,5}})?", re.ASCII)
_PUBLIC_IPV6: Final = ipaddress.IPv6Network("2000::/3")  # global unicast, RFC 4291


def public_ip(value: Any) -> str | None:
    """The canonical text of a public IPv4 or IPv6 address, of which a port, brackets and a zone are cut; else None."""
    return _public_ip(value) if isinstance(value, str) and 2 <= len(value) <= 64 else None


@lru_cache(maxsize=_REMEMBERED)
def _public_ip(value: str) -> str | None:
    text = value.strip()
    if (found := _IPV4.fullmatch(text)) is not None:
        return _public_ipv4(found[1])
    if (bracketed := _IPV6_PORT.fullmatch(text)) is not None:
        text = bracketed[1]
    try:
        address = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return None
    if address.ipv4_mapped is not None:
        return _public_ipv4(str(address.ipv4_mapped))
    return str(address) if address in _PUBLIC_IPV6 else None


def _public_ipv4(text: str) -> str | None:
    """The ranges of RFC 6890 that no visitor on the internet has.

    The documentation ranges stay, though Python calls them private: every example is written with them.
    """
    octets = [int(octet) for octet in text.split(".")]
    a, b = octets[:2]
    if max(octets) > 255 or a in {0, 10, 127} or a >= 224 or (a == 100 and 64 <= b < 128):
        return None
    private = (a == 172 and 16 <= b < 32) or (a == 192 and b == 168) or (a == 169 and b == 254)
    return None if private else text


def user_agent(value: Any) -> str | None:
    """Without control characters, at most 512 characters."""
    if not isinstance(value, str):
        return None
    if not value.isprintable():
        value = _CONTROL.sub(" ", value)
    return value.strip()[:MAX_TEXT] or None


def device_id(value: Any) -> str | None:
    """An advertising id or idfv in lower case; None for all zeros, which a device gives where the person refused."""
    if not isinstance(value, str) or not _DEVICE_ID.fullmatch(value.strip()):
        return None
    text = value.strip().lower()
    return text if text.strip("0-") else None


# -- click ids, cookies, opt-outs ------------------------------------------------------------------------------------

# Parameters as the advertisers append them, and the names under which senders pass them on.
CLICK_IDS: Final = {
    "ScCid": "ScCid",
    "sccid": "ScCid",
    "sc_click_id": "ScCid",
    "fbclid": "fbclid",
    "ttclid": "ttclid",
    "gclid": "gclid",
    "wbraid": "wbraid",
    "gbraid": "gbraid",
    "dclid": "dclid",
    "epik": "epik",
    "rdt_cid": "rdt_cid",
    "li_fat_id": "li_fat_id",
    "msclkid": "msclkid",
    "twclid": "twclid",
}
COOKIES: Final = {
    **{
        name: name
        for name in (
            "_scid",
            "_fbp",
            "_fbc",
            "_ga",
            "_ttp",
            "_epik",
            "_rdt_uuid",
            "_uetmsclkid",
            "_twclid",
            "li_fat_id",
        )
    },
    "fbp": "_fbp",
    "fbc": "_fbc",
    "ttp": "_ttp",
    "sc_cookie1": "_scid",
    "scid": "_scid",
}
_PARTNERS_CLICK_IDS: Final = {"snap": "ScCid", "tiktok": "ttclid", "pinterest": "epik", "reddit": "rdt_cid"}
_GA4_COOKIE: Final = re.compile(r"_ga_[A-Z0-9]{4,16}", re.ASCII)  # a session, per measurement id
_OPAQUE: Final = re.compile(r'(?!\+?\d{8,15}\Z)[\w.\-~=|:*{}",/!$&+]{1,500}', re.ASCII)


def opaque(value: Any) -> str | None:
    """A click id or cookie as it is; None where it cannot be one, or where it may be a person's address or phone."""
    if not isinstance(value, str):
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        value = str(value) if abs(value) < 10**64 else ""
    clear = unquote(value).strip() if "%" in value else value
    return value if _OPAQUE.fullmatch(clear) else None


def clicks_of(url: str) -> dict[str, str]:
    """The click ids in an address's query."""
    _, _, query = url.partition("?")
    clicks: dict[str, str] = {}
    if not query:
        return clicks
    for pair in query.partition("#")[0].split("&"):
        name, _, value = pair.partition("=")
        parameter = CLICK_IDS.get(name) or CLICK_IDS.get(name.lower())
        if parameter is not None and (click := opaque(unquote_plus(value))) is not None:
            clicks[parameter] = click
    return clicks


def same_site(url: Any, other: Any) -> bool:
    """Are both addresses of one host, with www or without?"""
    host = _host(url)
    return host is not None and host == _host(other)


# Not urlsplit, which remembers the addresses it was given and would have to be told to forget them.
_HOST: Final = re.compile(r"https?://(?:[^/?#@\\]*@)?(?:www\.)?([^/?#:@\\\s]+)", re.IGNORECASE)


def _host(url: Any) -> str | None:
    found = _HOST.match(url.strip()) if isinstance(url, str) else None
    return found[1].lower() if found else None


def partners_click_id(partner: str) -> str | None:
    """The parameter of what a sender gives as that partner's ``click_id``."""
    name = partner.lower()
    return next((parameter for start, parameter in _PARTNERS_CLICK_IDS.items() if name.startswith(start)), None)


def cookies_of(header: str) -> dict[str, str]:
    """Partners' first-party cookies of a Cookie header; the rest, session keys among them, is forgotten."""
    cookies: dict[str, Any] = {}
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        cookies[name] = value
    return named_cookies(cookies)


def named_cookies(cookies: dict[str, Any]) -> dict[str, str]:
    kept = {}
    for name, value in cookies.items():
        cookie = COOKIES.get(name) or (name if _GA4_COOKIE.fullmatch(name) else None)
        if cookie is not None and (text := opaque(value)) is not None:
            kept[cookie] = text
    return kept


OPT_OUTS: Final = frozenset(("data_processing_options", "data_use", "limited_data_use", "opt_out", "us_privacy"))


def opted_out(flags: dict[str, Any]) -> bool:
    """Limited use asked for, in any spelling: Snap's and Meta's options, or the IAB's CCPA text ("1YYN")."""
    for key in ("data_processing_options", "data_use"):
        said = flags.get(key)
        if isinstance(said, (str, list)) and any(word in str(said).upper() for word in ("LMU", "LDU")):
            return True
    privacy = flags.get("us_privacy")
    if isinstance(privacy, str) and privacy[2:3] in {"Y", "y"}:
        return True
    return truth(flags.get("limited_data_use")) is True or truth(flags.get("opt_out")) is True
