"""Scrub: personal data and secrets are taken out of what is not an identifier.

Free text, URLs, keys and trees of properties pass here before the first write. What a person's identifiers become is
``router.identifiers``'s; which field is which is a dialect's.

Found are e-mail addresses (percent-encoded ones too), phone numbers, IBANs, payment cards and credentials. A rule takes
only what is shaped so that it is hardly anything else: order numbers, timestamps, UUIDs, prices, dates, IP addresses and
bar codes stay. Every function gives back the very object it was given when nothing had to go, and scrubbing twice changes
nothing more.

Page addresses, titles and the words of a shop repeat from event to event, so the last answers on short texts and on sets
of keys are remembered. That memory is bounded, the process's alone and written nowhere; ``forget`` empties it.

Sources: RFC 5322 and 6531 (e-mail characters), ITU-T E.164, SWIFT IBAN Registry and ISO 13616 (mod 97), ISO/IEC 7812
(Luhn), GS1 General Specifications (check digit), RFC 6750 (Bearer), RFC 7519 (JWT), WHATWG URL.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate, count
from operator import is_
from typing import Any, Final, Literal
from urllib.parse import quote, unquote, unquote_plus

from router.identifiers import email, sha256

EMAIL: Final = "[email]"
PHONE: Final = "[phone]"
IBAN: Final = "[iban]"
CARD: Final = "[card]"
SECRET: Final = "[secret]"  # noqa: S105 - the mark that stands where a secret was

URL_LENGTH: Final = 4096
LONGEST_KEY: Final = 256
LONG_KEY: Final = object()
DEPTH: Final = 40  # an item is at most 32 deep; what lies deeper was not let in by the door and goes


LEAST: Final = 9  # letters and digits; fewer are most of a shop's words, and nobody's address or number
_REMEMBERED: Final = 8192  # texts, and as many addresses
_SHORT: Final = 256  # characters; longer text is seldom the same again
_ROUNDS: Final = 4


def text(value: str) -> str:
    """``value`` with marks in place of personal data and secrets, and U+FFFD in place of NUL, at which SQLite stops.

    Takes linear time. Where numbers are chained so that each hides the next, all of it becomes one mark.
    """
    cleaned = _text(value) if len(value) > _SHORT else _remembered_text(value)
    return value if cleaned is None else cleaned


def _text(value: str) -> str | None:
    """The cleaned text; None where nothing has to go."""
    if not (rules := _rules(value)) or (cleaned := _applied(rules, value)) == value:
        return None
    # What a mark replaces may have hidden its neighbour from a rule that looks at word ends. A chain of thousands
    # ("+12345678+12345678") would take as many rounds, and no sentence takes four.
    for _ in range(_ROUNDS):
        value, cleaned = cleaned, _applied(rules, cleaned)
        if cleaned == value:
            return cleaned
    return SECRET


_remembered_text: Final = lru_cache(maxsize=_REMEMBERED)(_text)


def forget() -> None:
    """Empty the memory of texts, keys and addresses, as an erasure asks."""
    for memory in (_remembered_text, _remembered_url, _remembered_string, _kind, _parameter_kind, _remembered_telling):
        memory.cache_clear()


def contains_personal(value: str) -> bool:
    """Would ``text`` change it?"""
    return text(value) != value


def safe_id(value: str, *, seldom: bool = False) -> str:
    """An id as it is; one that holds an e-mail address, phone, card or secret as a SHA-256, the same every time.

    The digest of an id that is an e-mail address is the one the address itself gets, so partners and erasure find it.
    ``seldom``: it hardly comes again, and is not remembered.
    """
    if seldom:  # else what is remembered is asked first: it is quicker than the pattern
        kept = _UUID.fullmatch(value) is not None or _text(value) is None
    else:
        kept = text(value) == value or _UUID.fullmatch(value) is not None
    if kept:
        return value
    return sha256(email(value) or value.strip().lower())


def tree(value: Any) -> tuple[Any, bool]:
    """Any JSON value without personal data in its strings, its keys or under forbidden keys; and did it change?

    The value is not copied where nothing changed, and never changed in place. ``LONG_KEY`` stands for one in which some
    key has more than ``LONGEST_KEY`` characters.
    """
    cleaned = _walk(value, DEPTH)
    if cleaned is _GONE:
        return None, True
    return cleaned, cleaned is not value


def url(value: str) -> str | None:
    """A URL without user name, password and personal parameters; None where its scheme is not a page's or an app's.

    Paths and queries without a scheme are URLs too. Click ids stay byte for byte. Cut at ``URL_LENGTH``.
    """
    cleaned = _url(value, 2) if len(value) > 2 * _SHORT else _remembered_url(value)
    if cleaned is None or cleaned == value:
        cleaned = cleaned and value
    return cleaned if cleaned is None or len(cleaned) <= URL_LENGTH else cleaned[:URL_LENGTH]


# Text

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
    if "@" in value or "%40" in value or "%2540" in value or "\uff20" in value:
        rules.append(_without_emails)
    if length > 8 and not value.isalpha() and _has_nine_digits(value):
        rules += _NUMERIC
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
    r"\b(?:[Bb]earer|BEARER)\s+[\w.~+/=-]{8,}"
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
_WORD: Final = r"\w.+!#$*^`{|}~-"
_LOCAL: Final = rf"(?:[{_WORD}]|%(?!(?:25)*40))"
# RFC 5322 also allows / = ? & in a local part; in text they stand in front of addresses, not in them. A local part is
# tried from its start only and has a bounded length, so that long text takes linear time.
_EMAIL: Final = re.compile(
    rf"(?<![{_WORD}]){_LOCAL}(?:{_LOCAL}|'){{0,96}}+{_AT}"
    r"(?!\d+x\.(?:png|jpe?g|gif|webp|svg|avif)\b)"  # logo@2x.png
    r"(?:[\w-]++\.)+[^\W\d_][\w-]*"
)


def _without_emails(value: str) -> str:
    return _EMAIL.sub(EMAIL, value)


# IBANs: the length of each country's, from the SWIFT IBAN Registry

_IBAN_LENGTHS: Final = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD FK",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DJ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}
_IBAN_START: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])", re.ASCII)


def _without_ibans(value: str) -> str:
    kept: list[str] = []
    done = 0
    for start in _IBAN_START.finditer(value):
        if start.start() >= done and (end := _iban_end(value, start.start())) is not None:
            kept += (value[done : start.start()], IBAN)
            done = end
    return "".join((*kept, value[done:])) if kept else value


_IBAN_OF: Final = {
    length: re.compile(rf"[A-Za-z0-9](?:[ -]*[A-Za-z0-9]){{{length - 1}}}") for length in set(_IBAN_LENGTHS.values())
}


def _iban_end(value: str, start: int) -> int | None:
    """Where the IBAN at ``start`` ends; None where the country, the length or the check digits are not an IBAN's."""
    length = _IBAN_LENGTHS.get(value[start : start + 2].upper())
    if length is None or (found := _IBAN_OF[length].match(value, start, start + 2 * length)) is None:
        return None
    end = found.end()
    ends = end == len(value) or not value[end].isalnum()
    return end if ends and _mod97(found[0].replace(" ", "").replace("-", "")) == 1 else None


_IN_BASE_36: Final = str.maketrans({char: str(int(char, 36)) for char in string.ascii_letters})


def _mod97(iban: str) -> int:
    return int((iban[4:] + iban[:4]).translate(_IN_BASE_36)) % 97


# Payment cards: 13 to 19 digits, a known network, a right check digit

_NETWORK: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[68]\d|9\d)\d{11,16}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d)\d{12,15}"  # Discover, UnionPay
    r"|(?:50|5[6-9]|6\d)\d{11,17}",  # Maestro
    re.ASCII,
)

# How many digits, by the first one: what follows from ``_NETWORK``, and is asked first because it is quick.
_CARD_SIZES: Final = {"2": (16,), "3": range(14, 20), "4": (13, 16, 19), "5": range(13, 20), "6": range(13, 20)}


def _is_card(digits: str) -> bool:
    if _NETWORK.fullmatch(digits) is None or _luhn(digits) % 10:
        return False
    # GTIN-13 and GTIN-14 are in every shop's events: a right GS1 check digit makes it a bar code.
    return len(digits) > 14 or _gs1(digits) % 10 != 0


_ONCE: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))  # less 9 above 9


def _luhn(digits: str) -> int:
    sent = digits.encode()
    return sum(sent[-1::-2].translate(_ONCE)) + sum(sent[-2::-2].translate(_DOUBLED))


def _gs1(digits: str) -> int:
    sent = digits.encode().translate(_ONCE)
    return sum(sent[-1::-2]) + 3 * sum(sent[-2::-2])


# International phone numbers: after + or 00

_GAP: Final = r"[ ().\-/\u00a0\u202f\u2011]"
_INTERNATIONAL: Final = re.compile(
    rf"(?:(?<![\w+])(?:\+|%2[Bb]){_GAP}{{0,2}}|(?<![\w.+-])00{_GAP}?)(?!0)\d++(?:{_GAP}{{1,3}}+\d++)*+"
)
_GROUP: Final = re.compile(r"\d+")


def _without_international(value: str) -> str:
    return _INTERNATIONAL.sub(_international, value)


def _international(found: re.Match[str]) -> str:
    """A mark for as many groups as a number can have; what follows them is left."""
    written = found[0]
    zeros = written.startswith("00")
    start = 3 if written[0] == "%" else 2 if zeros else 1
    total = end = 0
    for group in _GROUP.finditer(written, start):
        if total + len(group[0]) > 15:
            break
        total += len(group[0])
        end = group.end()
    # Order numbers are padded with zeros, but seldom with exactly two: after 00 the number has to be a long one.
    return PHONE + written[end:] if total >= (9 if zeros else 8) else written


# Cards and national phone numbers: runs of groups of digits, as people write them

_RUN: Final = re.compile(
    r"(?=[\d() .\-/\u00a0\u202f\u2011]{9})\(?\d++\)?(?:(?:[ .\-/\u00a0\u202f\u2011]|(?<=\)))\(?\d++\)?)*+"
)
_JOINED_BEFORE: Final = re.compile(r"[\w.,:+/%\-]")
_JOINED_AFTER: Final = re.compile(r"[\w-]|[.,:/]\d")
_DATE: Final = re.compile(r"(?:19|20)\d\d[-/. ][01]?\d[-/. ]|[0-3]?\d[-/. ][0-3]?\d[-/. ](?:19|20)\d\d\b")
# How numbers without a leading zero are written: North America, Spain, Poland, Italy, China and Korea, Brazil, Mexico;
# France and London with a country code that lost its plus.
_SHAPES: Final = frozenset(
    {
        (3, 3, 4),
        (1, 3, 3, 4),
        (3, 2, 2, 2),
        (3, 3, 3),
        (3, 4, 4),
        (2, 5, 4),
        (2, 4, 4),
        (2, 1, 2, 2, 2, 2),
        (2, 2, 4, 4),
    }
)


_MOST_WINDOWS: Final = 2048  # that are looked at in one text; a page of prose or a list of a hundred numbers has fewer


def _without_runs(value: str) -> str:
    windows = count()
    return _RUN.sub(lambda found: _run(found, windows), value)


def _run(found: re.Match[str], windows: Iterator[int]) -> str:
    """The run with marks for the windows of whole groups that are a card or a phone.

    A window begins and ends at the run's own ends or at a space: what a dash or dot joins to more is a longer number.
    After ``_MOST_WINDOWS`` of them nothing more is told apart, and the rest of a run is one mark.
    """
    written = found[0]
    if written.isdecimal() and not (12 < len(written) < 20 and written[0] in "23456"):
        return written
    spans = [group.span() for group in _BRACKETED.finditer(written)]
    groups = _GROUP.findall(written)
    sizes = tuple(map(len, groups))
    opened = not (found.start() and _JOINED_BEFORE.match(found.string, found.start() - 1))
    closed = not _JOINED_AFTER.match(found.string, found.end())
    kept: list[str] = []
    done = 0
    for first, (begin, _) in enumerate(spans):
        if begin < done or not (written[begin - 1] in _SPACES if begin else opened):
            continue
        for last in _candidates(sizes, first, written[begin]):
            end = spans[last][1]
            if not (written[end] in _SPACES if end < len(written) else closed):
                continue
            if next(windows) >= _MOST_WINDOWS:
                return "".join((*kept, written[done:begin], PHONE))
            if (mark := _mark(groups[first : last + 1], written[begin:end])) is not None:
                kept += (written[done:begin], mark)
                done = end
                break
    return "".join((*kept, written[done:])) if kept else written


def _candidates(sizes: tuple[int, ...], first: int, start: str) -> list[int]:
    """Where a window from group ``first`` may end, as far as its digits' number and its first character tell.

    Text can be nothing but groups of digits, so most windows must fall here and not be looked at.
    """
    any_shape, cards = start not in "123456789", _CARD_SIZES.get(start, ())
    return [
        last
        for last, total in enumerate(accumulate(sizes[first : first + 8]), first)
        if 8 < total < 20 and (any_shape or total in cards or sizes[first : last + 1] in _SHAPES)
    ]


_BRACKETED: Final = re.compile(r"\(?\d+\)?")
_SPACES: Final = " \u00a0\u202f"


def _mark(groups: list[str], written: str) -> str | None:
    if written[0] in _CARD_SIZES and _is_card("".join(groups)) and _IN_CARDS.issuperset(written):
        return CARD
    return PHONE if _is_phone(groups, written) else None


_IN_CARDS: Final = frozenset("0123456789 -\u00a0")


def _is_phone(groups: list[str], written: str) -> bool:
    shape = tuple(map(len, groups))
    if len(shape) < 2 or not 9 <= sum(shape) <= 15:
        return False
    if int(groups[0][0]) == 0:
        looks = sum(shape) < 13 and shape[0] > 1 and (len(shape) > 2 or shape[0] > 2)
    else:
        # 612 345 678 may be a number, 612.345.678 an amount; 612-345-678 is neither.
        looks = written[0] == "(" or (shape in _SHAPES and (shape != (3, 3, 3) or "-" in written))
    return looks and not _DATE.match(written)


_NUMERIC: Final[tuple[Rule, ...]] = (_without_ibans, _without_international, _without_runs)

# Trees

_GONE: Final = object()
_CREDENTIALS: Final = """
password passwd pwd passphrase passcode userpassword newpassword oldpassword currentpassword passwordconfirmation
confirmpassword secret clientsecret sharedsecret appsecret apisecret apikey secretkey privatekey accesskey writekey
token accesstoken refreshtoken idtoken authtoken apitoken sessiontoken bearertoken csrftoken jwt bearer credential
credentials authorization proxyauthorization xapikey cookie setcookie otp onetimepassword mfacode
"""
_PAYMENT: Final = """
card cardnumber cardno cardnum creditcard creditcardnumber debitcard debitcardnumber ccnumber ccnum ccno pan cvv cvv2
cvc cvc2 csc cardcvv cardcvc securitycode cardsecuritycode iban bankaccount bankaccountnumber accountnumber
routingnumber sortcode
"""
_OFFICIAL: Final = """
ssn socialsecurity socialsecuritynumber nationalid nationalidnumber passport passportnumber driverslicense
driverlicense driverslicensenumber taxid nationalinsurancenumber
"""
_FORBIDDEN: Final = frozenset((_CREDENTIALS + _PAYMENT + _OFFICIAL).split())
# Identifiers that a dialect did not take. Bare digits and names have no shape by which to find them, so their key must do;
# a yes or no under it ("email": true) is no identifier.
_PEOPLE: Final = """
email emailaddress mail useremail customeremail emailid phone phonenumber telephone telephonenumber tel mobile
mobilephone mobilenumber cellphone msisdn whatsapp firstname lastname surname familyname givenname fullname middlename
birthdate birthday dateofbirth dob street streetaddress addressline1 addressline2 address1 address2
"""
# An event's own address and agent are lifted out before (``router.door``); whatever stands deeper is nobody's to keep.
_VISITOR: Final = """
ip ipaddress userip visitorip clientip clientipaddress remoteip remoteaddr remoteaddress ipoverride
useragent clientuseragent
"""
_PERSONAL: Final = frozenset((_PEOPLE + _VISITOR).split())
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:")


def _walk(value: Any, depth: int) -> Any:
    """The cleaned value; the same object where nothing changed; ``_GONE`` where nothing may stay."""
    if isinstance(value, str):
        if len(value) < LEAST and value.isalnum():
            return value
        return _string(value)
    if isinstance(value, dict):
        return _dict(value, depth - 1) if depth else _GONE
    if isinstance(value, list):
        return _list(value, depth - 1) if depth else _GONE
    if type(value) is int and 10**12 <= value < 10**19 and _is_card(str(value)):
        return CARD
    return value


def _dict(value: dict[Any, Any], depth: int) -> Any:
    changes: dict[Any, Any] = {}
    for key, kind in _remembered_telling(tuple(value)) if len(value) <= _FEW else _telling(tuple(value)):
        if kind == "long":
            return LONG_KEY
        if kind == "forbidden" or not (isinstance(value[key], (bool, dict)) or value[key] is None):
            changes[key] = _GONE
    for key, member in value.items():
        sort = type(member)
        if sort in _INERT or key in changes or (sort is str and len(member) < LEAST and member.isalnum()):
            continue
        cleaned = _walk(member, depth)
        if cleaned is LONG_KEY:
            return LONG_KEY
        if cleaned is not member:
            changes[key] = cleaned
    if not changes:
        return value
    merged = ((key, changes.get(key, member)) for key, member in value.items())
    return {key: member for key, member in merged if member is not _GONE}


_INERT: Final = frozenset({bool, float, type(None)})


def _list(value: list[Any], depth: int) -> Any:
    cleaned = [member if type(member) in _INERT else _walk(member, depth) for member in value]
    if all(map(is_, cleaned, value)):
        return value
    if any(each is LONG_KEY for each in cleaned):
        return LONG_KEY
    return [member for member in cleaned if member is not _GONE]


def _string(value: str) -> Any:
    cleaned = _cleaned(value) if len(value) > _SHORT else _remembered_string(value)
    return value if cleaned is None else cleaned


def _cleaned(value: str) -> Any:
    """What stands for a string in a tree; None where it stays as it is."""
    if not _looks_like_url(value):
        return _text(value)
    cleaned = url(value)
    return _GONE if cleaned is None else None if cleaned == value else cleaned


_remembered_string: Final = lru_cache(maxsize=_REMEMBERED)(_cleaned)


def _looks_like_url(value: str) -> bool:
    if value.startswith(("/", "?", "#")):
        return "=" in value and " " not in value
    return "://" in value and " " not in value and _SCHEME.match(value) is not None


_FEW: Final = 32  # keys; a sender's objects of one kind have the same ones, and seldom more


def _telling(keys: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """Those of an object's keys that are not free, and their kind."""
    kinds = ((key, _kind(key) if len(key) <= 64 else _kind.__wrapped__(key)) for key in keys if isinstance(key, str))
    return tuple((key, kind) for key, kind in kinds if kind != "free")


_remembered_telling: Final = lru_cache(maxsize=1024)(_telling)


@lru_cache(maxsize=4096)
def _kind(key: str) -> Literal["forbidden", "personal", "long", "free"]:
    if len(key) > LONGEST_KEY:
        return "long"
    folded = _folded(key)
    if folded in _FORBIDDEN or contains_personal(key):
        return "forbidden"
    return "personal" if folded in _PERSONAL else "free"


def _folded(name: str) -> str:
    """Without case and separators: ``card-number``, ``Card_Number`` and ``cardNumber`` are one."""
    return "".join(filter(str.isalnum, name)).lower()


# URLs, remembered up to twice the length of other texts

_NO_SCHEMES: Final = frozenset({"javascript", "data", "file", "vbscript", "blob", "about", "filesystem", "view-source"})
# The advertisers' click ids, in lower case. Their values are opaque and may look like anything.
_CLICK_IDS: Final = frozenset(
    {"sccid", "sc_click_id", "fbclid", "gclid", "gclsrc", "gbraid", "wbraid", "dclid", "ttclid", "msclkid", "twclid"}
    | {"li_fat_id", "epik", "rdt_cid", "irclickid", "yclid", "awc", "cjevent"}
)
_PARAMETERS: Final = (
    _FORBIDDEN
    | _PERSONAL
    | {"key", "auth", "sig", "signature", "login", "username", "sid", "session", "sessionid"}
    | {"resettoken", "verificationtoken", "invitetoken", "nonce", "pin"}
)

_HOST_END: Final = re.compile(r"[/?#\\]")


def _url(value: str, depth: int) -> str | None:
    whole = value.strip() if value[:1] <= " " or value[-1:] <= " " else value
    if not whole.isprintable():  # browsers drop tabs and line ends inside a URL, and so hide "java\nscript:"
        whole = "".join(filter(str.isprintable, whole)).strip()
    rest = whole
    prefix = ""
    if (scheme := _SCHEME.match(whole)) is not None:
        name = scheme[0][:-1].lower()
        rest = whole[scheme.end() :]
        prefix = scheme[0]
        port = rest[:1].isdecimal()  # localhost:8080/cart
        if name in _NO_SCHEMES or not (rest.startswith("//") or port):
            return None
    if not whole:
        return None
    if rest.startswith("//"):
        end = len(rest) if (found := _HOST_END.search(rest, 2)) is None else found.start()
        prefix += "//"
        host, rest = rest[2:end].rpartition("@")[2], rest[end:]
        prefix += host
    path, hash_, fragment = rest.partition("#")
    path, mark, query = path.partition("?")
    cleaned = prefix + text(path)
    if mark and (kept := _parameters(query, depth)) is not None:
        cleaned += mark + kept
    if hash_ and (kept := _fragment(fragment, depth)) is not None:
        cleaned += hash_ + kept
    return cleaned.rstrip()  # what stood behind may be gone


_remembered_url: Final = lru_cache(maxsize=_REMEMBERED)(lambda value: _url(value, 2))


def _fragment(fragment: str, depth: int) -> str | None:
    route, mark, query = fragment.partition("?")
    if mark:
        kept = _parameters(query, depth)
        return text(route) + (mark + kept if kept is not None else "")
    return _parameters(fragment, depth) if "=" in fragment else text(fragment)


def _parameters(query: str, depth: int) -> str | None:
    """The parameters that may stay, byte for byte where nothing was found in them; None where none of them may."""
    parameters = query.split("&")
    kept = [cleaned for one in parameters if (cleaned := _parameter(one, depth)) is not None]
    return "&".join(kept) if kept else None


def _parameter(parameter: str, depth: int) -> str | None:
    name, equals, value = parameter.partition("=")
    match _parameter_kind(name) if len(name) <= 64 else _parameter_kind.__wrapped__(name):
        case "click":
            return parameter
        case "personal":
            return None
        case "campaign":  # ids and names of campaigns have many digits; only an address is certain not to be one
            cleaned = _without_emails(value) if equals else value
        case _:
            cleaned = _value(value, depth)
    return parameter if cleaned == value else f"{name}={cleaned}"


@lru_cache(maxsize=4096)
def _parameter_kind(name: str) -> Literal["click", "campaign", "personal", "free"]:
    plain = unquote_plus(name)
    if plain.lower() in _CLICK_IDS:
        return "click"
    if plain.lower().startswith("utm_"):
        return "campaign"
    inner = plain.rpartition("[")[2]  # user[email]
    personal = _folded(plain) in _PARAMETERS or _folded(inner) in _PARAMETERS
    return "personal" if personal or contains_personal(plain) else "free"


def _value(value: str, depth: int) -> str:
    """A parameter's value, scrubbed as written and as decoded, and as a URL where it is one."""
    cleaned = text(value)
    if "%" not in cleaned and "+" not in cleaned:
        return _nested(cleaned, depth) if "://" in cleaned else cleaned
    for decoded in (unquote(cleaned), unquote_plus(cleaned)):
        inner = _nested(decoded, depth) if "://" in decoded else text(decoded)
        if inner != decoded:
            return quote(inner, safe="[]/:")
    return cleaned


def _nested(value: str, depth: int) -> str:
    if not depth or not _looks_like_url(value):
        return text(value)
    return _url(value, depth - 1) or ""
