"""Where senders put what identifies a person; ``router.scrub.persons`` knows under which words.

``identify`` takes those keys out of an object and into ``Raw``, so that nothing of them can reach the stored event.
What is done with the values is ``router.identifiers``' subject.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from router.dialects.reading import Object
from router.identifiers import Raw
from router.scrub.persons import ADDRESS, NAME, NOTHING, PERSON, Word, said

# Readable on purpose, and stored apart from the event; what is turned away is not stored apart.
_READABLE = frozenset(
    {
        "user_ip",
        "client_ip",
        "ip",
        "ip_address",
        "ip_override",
        "client_ip_address",
        "user_agent",
        "userAgent",
        "client_user_agent",
    }
    | {"cookie", "cookies", "advertising_id", "advertisingId", "idfv", "madid", "em", "ph", "fn", "ln", "db"}
)
_ADDRESSES = frozenset({"address", "addresses", "Address"})
_TRAITS = Word(PERSON)
_FEW = 32  # keys; a sender's objects of one kind have the same ones, and seldom more


def identify(person: Object, raw: Raw) -> None:
    """Take every identifier out of ``person``; a value already in ``raw`` stays. Changes both.

    A clear value wins over its own SHA-256, and that over MD5 or SHA-1, which can only be dropped with a note.
    """
    keys = tuple(person)
    for key, word in _remembered_own(keys) if len(keys) <= _FEW else _own(keys):
        _take(person, key, word, raw)


def glean(properties: Object, raw: Raw) -> None:
    """Take what can only mean a person out of an event's own properties. Changes both, but no object inside."""
    keys = tuple(properties)
    for key, word in _remembered_telling(keys) if len(keys) <= _FEW else _telling(keys):
        value = properties[key]
        if isinstance(value, dict):
            person = dict(properties.pop(key))
            identify(person, Raw() if word.another else raw)
            if person:
                properties[key] = person
        elif word.field != PERSON and not isinstance(value, (bool, int, float) if word.short else bool):
            _take(properties, key, word, raw)


def _own(keys: tuple[str, ...]) -> tuple[tuple[str, Word], ...]:
    """What is a person's in a person's own object."""
    return tuple((key, word) for key, word in said(keys, alone=True) if word.field != PERSON)


def _telling(keys: tuple[str, ...]) -> tuple[tuple[str, Word], ...]:
    """What is a person's wherever it stands, an address, and the objects that hold a person."""
    short = not {"em", "ph"}.isdisjoint(keys) or {"fn", "ln"}.issubset(keys)  # a function's fn is no first name
    found = [(key, word) for key, word in said(keys) if word.sure or (word.short and short) or key in _ADDRESSES]
    return (*found, ("traits", _TRAITS)) if "traits" in keys else tuple(found)


_remembered_own = lru_cache(maxsize=1024)(_own)
_remembered_telling = lru_cache(maxsize=1024)(_telling)


def forget() -> None:
    """Empty the memory."""
    _remembered_own.cache_clear()
    _remembered_telling.cache_clear()


def strip(value: Any, depth: int = 40) -> Any:
    """A copy of any JSON value without the identifiers that have a key of their own; for items that are turned away."""
    if depth == 0:
        return None
    if isinstance(value, list):
        return [strip(member, depth - 1) for member in value]
    if not isinstance(value, dict):
        return value
    rest = {key: member for key, member in value.items() if key not in _READABLE}
    glean(rest, Raw())
    return {key: strip(member, depth - 1) for key, member in rest.items()}


def _take(holder: Object, key: str, word: Word, raw: Raw) -> None:
    raw = Raw() if word.another else raw
    if word.field == ADDRESS:
        _address(holder, key, raw)
        return
    value = holder.pop(key)
    if word.field == NAME:
        _whole_name(value, raw)
    elif word.field != NOTHING and _give(raw, word.field, value) and word.hashed and word.field == "phone":
        raw.phone_hash_has_plus = True  # Commanders Act and Google both write E.164


def _give(raw: Raw, field: str, value: Any) -> bool:
    """Whether the value was taken. Meta and Snap allow a list, which ``router.identifiers`` reads."""
    if value is None or value in ("", []) or isinstance(value, dict) or getattr(raw, field) is not None:
        return False
    setattr(raw, field, value)
    return True


def _address(person: Object, key: str, raw: Raw) -> None:
    value = person.pop(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        inner = dict(value)
        identify(inner, raw)
        if inner:
            person[key] = inner
    elif key == "location":
        person[key] = value  # of a profile: "somewhere over the rainbow"
    elif isinstance(value, str):
        _give(raw, "street", value)


def _whole_name(value: Any, raw: Raw) -> None:
    """Segment's own rule for ``traits.name``: up to the first space, and the rest (segmentio/facade, lib/identify.ts)."""
    if not isinstance(value, str) or raw.first_name is not None or raw.last_name is not None:
        return
    given, _, family = value.strip().partition(" ")
    if given and family:
        raw.first_name, raw.last_name = given, family.strip()
