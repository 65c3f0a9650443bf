"""Dialects: in which shape a sender writes its events, one file each.

This file tells which one an item is in, from the item alone; the path and the request around it are hints. It never
goes by ``type``: a Commanders Act purchase has ``type: "online"``, an old page view ``type: "product_list"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.dialects import commandersact, people, plain, segment, snitcher
from router.dialects.reading import Object, Reading

_SEGMENT_WORDS: Final = segment.MARKS | {"event", "properties", "context", "integrations", "timestamp"} | {
    "version", "channel", "type", "traits", "name", "category", "receivedAt", "_metadata",
}  # fmt: skip
_OLDER_WORDS: Final = frozenset(("event", "properties", "event_id", "event_timestamp", "page", "device", "app"))
_OLDER_PROPERTIES: Final = frozenset(("page_type", "shipping_amount", "tax_amount"))
_FOREIGN: Final = ("specversion", "batch", "events")


def read(item: Object, call: str | None, wrapper: Object, dialect: str | None = None) -> Reading | None:
    """The item, sorted; None where it is in no dialect we know. ``dialect`` is known beforehand where we made the item."""
    if dialect == snitcher.NAME:
        return snitcher.read(item)
    if "event_name" in item:
        return _event_name(item)(item)
    if _is_segment(item, call, wrapper):
        return segment.read(item, call, wrapper)
    if "event" in item and _is_older(item):
        return commandersact.version_1(item)
    if any(key in item for key in plain.NAME_KEYS) and "specversion" not in item:
        return plain.read(item)
    if any(key in item for key in _FOREIGN):
        return None
    return commandersact.current(item)  # nameless, which the door answers in the words of the seed's dialect


def forget() -> None:
    """Empty the memory of senders' keys, as an erasure asks."""
    people.forget()


def _event_name(item: Object) -> Callable[[Object], Reading]:
    """Commanders Act, but for Google's flat event data and for the event of Meta's and Snap's conversion APIs."""
    if isinstance(item.get("context"), dict):
        return commandersact.current
    if "client_id" in item or "user_data" in item or "event_time" in item:
        return plain.read
    return commandersact.version_1 if isinstance(item.get("properties"), dict) else commandersact.current


def _is_segment(item: Object, call: str | None, wrapper: Object) -> bool:
    if call in segment.KINDS:
        return True
    said = item.get("type")
    if isinstance(said, str) and said in segment.KINDS:
        return True
    if not segment.MARKS.isdisjoint(item) or {"writeKey", "sentAt"} <= wrapper.keys():
        return True
    return (
        isinstance(item.get("event"), str)
        and isinstance(item.get("properties"), dict)
        and not _is_older(item)
        and _SEGMENT_WORDS.issuperset(item)
    )


def _is_older(item: Object) -> bool:
    """Commanders Act before version 1.0: ``event`` and ``properties``, and among these what nobody else writes."""
    properties = item.get("properties")
    if not isinstance(properties, dict):
        return False
    if isinstance(properties.get("user"), dict):
        return True
    items = properties.get("items")
    with_products = isinstance(items, list) and any(isinstance(each, dict) and "product" in each for each in items)
    return _OLDER_WORDS.issuperset(item) and (with_products or not _OLDER_PROPERTIES.isdisjoint(properties))
