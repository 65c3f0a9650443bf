"""Trees of properties: any JSON value, with its strings, its keys and what stands under a telling key."""

from __future__ import annotations

import re
from functools import lru_cache
from operator import is_
from typing import Any, Final, Literal

import msgspec

from router.scrub import persons
from router.scrub.keys import FORBIDDEN, VISITOR, folded
from router.scrub.numbers import CARD, is_bar_code, is_card, is_shops_number
from router.scrub.texts import LEAST, REMEMBERED, SHORT, contains_personal, scrubbed
from router.scrub.urls import looks_like_url, url

Kind = Literal["forbidden", "personal", "person", "long", "free"]

LONGEST_KEY: Final = 256
LONG_KEY: Final = object()
DEPTH: Final = 40  # an item is at most 32 deep; what lies deeper was not let in by the door and goes
_OF_A_TEXT: Final = 13  # of the depth: JSON in a text is read, and JSON in a text of that, and no further
_GONE: Final = object()


def tree(value: Any) -> tuple[Any, bool]:
    """Any JSON value without personal data in its strings, its keys or under forbidden keys; and did it change?

    The value is not copied where nothing changed, and never changed in place. ``LONG_KEY`` stands for one in which some
    key has more than ``LONGEST_KEY`` characters.
    """
    cleaned = _walk(value, DEPTH)
    if cleaned is _GONE:
        return None, True
    return cleaned, cleaned is not value


def forget() -> None:
    """Empty the memory."""
    persons.forget()
    for memory in (_remembered_string, _kind, _remembered_telling):
        memory.cache_clear()


def _walk(value: Any, depth: int) -> Any:
    """The cleaned value; the same object where nothing changed; ``_GONE`` where nothing may stay."""
    if isinstance(value, str):
        if len(value) < LEAST and value.isalnum():
            return value
        return _string(value, depth)
    if isinstance(value, dict):
        return _dict(value, depth - 1) if depth else _GONE
    if isinstance(value, list):
        return _list(value, depth - 1) if depth else _GONE
    if type(value) is int and 10**12 <= value < 10**19 and is_card(str(value)):
        return CARD
    return value


def _dict(value: dict[Any, Any], depth: int) -> Any:
    changes: dict[Any, Any] = {}
    for key, kind in _remembered_telling(tuple(value)) if len(value) <= _FEW else _telling(tuple(value)):
        if kind == "long":
            return LONG_KEY
        if _goes(kind, member := value[key]):
            changes[key] = _GONE
        elif kind != "short" and _holds_person(key) and (nameless := _nameless(member)) is not member:
            value = {**value, key: nameless}
    for key, member in value.items():
        sort = type(member)
        if sort in _INERT or key in changes or (sort is str and len(member) < LEAST and member.isalnum()):
            continue
        cleaned = _walk(member, depth)
        if cleaned is LONG_KEY:
            return LONG_KEY
        if cleaned is not member and not _are_ids(key, member):
            changes[key] = cleaned
    if not changes:
        return value
    merged = ((key, changes.get(key, member)) for key, member in value.items())
    return {key: member for key, member in merged if member is not _GONE}


_INERT: Final = frozenset({bool, float, type(None)})


def _are_ids(key: Any, member: Any) -> bool:
    """Products' and orders' numbers, one or a list, under a key that says so."""
    if not isinstance(key, str):
        return False
    name = folded(key).rstrip("s0123456789")
    product = name.endswith(_OF_A_PRODUCT)
    if not (product or name.endswith("id")):
        return False
    written = map(str, member if isinstance(member, list) else (member,))
    return all(is_shops_number(each) or (product and is_bar_code(each)) for each in written)


_OF_A_PRODUCT: Final = ("gtin", "ean", "upc", "barcode", "sku", "productid", "itemid", "contentid")


def _goes(kind: str, member: Any) -> bool:
    if kind == "personal":
        return not (isinstance(member, (bool, dict)) or member is None)
    return kind == "forbidden" or (kind == "short" and _is_clear(member))


def _is_clear(member: Any) -> bool:
    """Not a digest, nor what no short name of a person's has under it: a number, a yes or no, an object."""
    if isinstance(member, list):
        return any(map(_is_clear, member))
    return isinstance(member, str) and member != CARD and _DIGEST.fullmatch(member) is None


_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")


def _nameless(member: Any) -> Any:
    """A person's object, or a list of such, without what is ordinary elsewhere and a person's here: a name, a city."""
    if isinstance(member, list):
        members = [_nameless(each) for each in member]
        return member if all(map(is_, members, member)) else members
    if not isinstance(member, dict):
        return member
    kept = {key: each for key, each in member.items() if isinstance(each, bool) or each is None or not _is_theirs(key)}
    return kept if len(kept) < len(member) else member


def _holds_person(key: str) -> bool:
    """Not an e-mail's or a phone's own object, nor a browser's, whose names are its own."""
    word = persons.word(key)
    return word is not None and word.field not in ("email", "phone", persons.NOTHING)


def _is_theirs(key: Any) -> bool:
    word = persons.word(key) if isinstance(key, str) else None
    return word is not None and not word.hashed and word.field not in (persons.PERSON, "country", "state")


def _list(value: list[Any], depth: int) -> Any:
    cleaned = [member if type(member) in _INERT else _walk(member, depth) for member in value]
    if all(map(is_, cleaned, value)):
        return value
    if any(each is LONG_KEY for each in cleaned):
        return LONG_KEY
    return [member for member in cleaned if member is not _GONE]


def _string(value: str, depth: int) -> Any:
    cleaned = _cleaned(value, depth) if len(value) > SHORT else _remembered_string(value)
    return value if cleaned is None else cleaned


def _cleaned(value: str, depth: int = DEPTH) -> Any:
    """What stands for a string in a tree; None where it stays as it is."""
    if value[:1] in ("{", "[") and depth > _OF_A_TEXT and (inside := _without_its_own(value, depth)) is not None:
        return inside
    if not looks_like_url(value):
        return scrubbed(value)
    cleaned = url(value)
    return _GONE if cleaned is None else None if cleaned == value else cleaned


def _without_its_own(value: str, depth: int) -> str | None:
    """JSON in a text, whose keys tell as much as those around it; None where it is none, or nothing in it has to go."""
    try:
        inside = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    cleaned = _walk(inside, depth - _OF_A_TEXT)
    return None if cleaned is inside or cleaned is LONG_KEY else msgspec.json.encode(cleaned).decode()


_remembered_string: Final = lru_cache(maxsize=REMEMBERED)(_cleaned)

_FEW: Final = 32  # keys; a sender's objects of one kind have the same ones, and seldom more


def _telling(keys: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """Those of an object's keys that are not free, and their kind."""
    texts = tuple(key for key in keys if isinstance(key, str))
    short = {key for key, word in persons.said(texts) if word.short}
    kinds = ((key, "short" if key in short else _kind_of(key)) for key in texts)
    return tuple((key, kind) for key, kind in kinds if kind != "free")


_remembered_telling: Final = lru_cache(maxsize=1024)(_telling)


def _kind_of(key: str) -> Kind:
    return _kind(key) if len(key) <= 64 else _kind.__wrapped__(key)


@lru_cache(maxsize=4096)
def _kind(key: str) -> Kind:
    if len(key) > LONGEST_KEY:
        return "long"
    name = folded(key)
    if name in FORBIDDEN or contains_personal(key):
        return "forbidden"
    word = persons.word(key)
    if name in VISITOR or (word is not None and word.tells and word.field != persons.PERSON):
        return "personal"
    return "free" if word is None or word.field != persons.PERSON else "person"
