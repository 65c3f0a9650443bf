"""Numbers that lead to a person, in free text: IBANs, payment cards and phone numbers, as people write them.

A rule takes only what is shaped so that it is hardly anything else: order numbers, timestamps, UUIDs, prices, dates, IP
addresses and bar codes stay.

Sources: ITU-T E.164, SWIFT IBAN Registry and ISO 13616 (mod 97), ISO/IEC 7812 (Luhn), GS1 General Specifications (check
digit).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from itertools import accumulate, count
from typing import Final

PHONE: Final = "[phone]"
IBAN: Final = "[iban]"
CARD: Final = "[card]"

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


def is_card(digits: str) -> bool:
    if _NETWORK.fullmatch(digits) is None or _luhn(digits) % 10:
        return False
    # GTIN-13 and GTIN-14 are in every shop's events: a right GS1 check digit makes it a bar code.
    return len(digits) > 14 or _gs1(digits) % 10 != 0


def is_shops_number(written: str) -> bool:
    """Nothing but digits, too few for a card: what stands as an id is then a shop's own number.

    Shopify's products and customers have 13 digits and its variants 14, and of those that begin like a card's one in
    eleven passes Luhn's test. No card of 13 digits is issued any more, and of 14 only Diners Club's that begin with 36;
    in text, and in ids with spaces, these are still found. Sources: Oracle, "List of Standard U.S. Credit Card
    Preambles" (Visa 16); Stripe, "CardBrand.DinersClub" (36: 14 digits; 30, 38, 39: 16).
    """
    return len(written) < 15 and written.isdecimal() and written.isascii() and not written.startswith("00")


def is_bar_code(written: str) -> bool:
    """Twelve to fourteen digits with GS1's check digit: a GTIN, whose zeros in front may look like an exit code's."""
    return 11 < len(written) < 15 and written.isdecimal() and written.isascii() and _gs1(written) % 10 == 0


_ONCE: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))  # less 9 above 9


def _luhn(digits: str) -> int:
    sent = digits.encode()
    return sum(sent[-1::-2].translate(_ONCE)) + sum(sent[-2::-2].translate(_DOUBLED))


def _gs1(digits: str) -> int:
    sent = digits.encode().translate(_ONCE)
    return sum(sent[-1::-2]) + 3 * sum(sent[-2::-2])


# International phone numbers: after + or 00

_GAP: Final = r"[ ().\-/]"
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

_RUN: Final = re.compile(r"(?=[\d() .\-/]{9})\(?\d++\)?(?:(?:[ .\-/]|(?<=\)))\(?\d++\)?)*+")
_JOINED_BEFORE: Final = re.compile(r"[\w+/%\-]|(?<=\d)[.,:]")  # Tel:06 12 34 56 78 is one, 12:06 12 34 56 78 is none
_JOINED_AFTER: Final = re.compile(r"[\w-]|[.,:/]\d")
_DATE: Final = re.compile(r"(?:19|20)\d\d[-/. ][01]?\d[-/. ]|[0-3]?\d[-/. ][0-3]?\d[-/. ](?:19|20)\d\d\b")
# How numbers without a leading zero are written: North America, Spain, Poland, Italy (twice), China and Korea, Brazil,
# Mexico, Russia; France and London with a country code that lost its plus.
_SHAPES: Final = frozenset(
    {
        (3, 3, 4),
        (1, 3, 3, 4),
        (3, 2, 2, 2),
        (3, 3, 3),
        (3, 7),
        (3, 4, 4),
        (2, 5, 4),
        (2, 4, 4),
        (1, 3, 3, 2, 2),
        (2, 1, 2, 2, 2, 2),
        (2, 2, 4, 4),
    }
)
# Italy's mobile numbers, and Russia's: of other digits it is a list of sizes.
_BEGINNINGS: Final = {(3, 7): "3", (1, 3, 3, 2, 2): "78"}

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
        if begin < done or not (written[begin - 1] == " " if begin else opened):
            continue
        for last in _candidates(sizes, first, written[begin]):
            end = spans[last][1]
            if not (written[end] == " " if end < len(written) else closed):
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


def _mark(groups: list[str], written: str) -> str | None:
    if written[0] in _CARD_SIZES and is_card("".join(groups)) and _IN_CARDS.issuperset(written):
        return CARD
    return PHONE if _is_phone(groups, written) else None


_IN_CARDS: Final = frozenset("0123456789 -")


def _is_phone(groups: list[str], written: str) -> bool:
    shape = tuple(map(len, groups))
    if len(shape) < 2 or not 9 <= sum(shape) <= 15:
        return False
    bracketed = written[0] == "("
    if int(groups[0][0]) == 0:
        in_two = shape == (2, 8) and (bracketed or int(groups[0]) == 6)  # the Netherlands' 06 12345678
        looks = sum(shape) < 13 and shape[0] > 1 and (len(shape) > 2 or shape[0] > 2 or in_two)
        looks = looks and int(groups[0]) > 0  # 5 000 000 000 is an amount
    elif shape in _BEGINNINGS:
        looks = bracketed or written[0] in _BEGINNINGS[shape]
    else:
        # 612 345 678 may be a number, 612.345.678 an amount; 612-345-678 is neither.
        looks = bracketed or (shape in _SHAPES and (shape != (3, 3, 3) or "-" in written))
    return looks and not _DATE.match(written)


NUMERIC: Final[tuple[Callable[[str], str], ...]] = (_without_ibans, _without_international, _without_runs)
