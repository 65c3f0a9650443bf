"""Numbers and instants in words: the same on a terminal and on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt


def counted(count: int, one: str, many: str = "") -> str:
    """As "1 delivery", "2 deliveries"; ``many`` where an s does not make the plural."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def when(at: dt.datetime | None) -> str:
    """An instant, UTC, or nothing."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"
