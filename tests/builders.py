"""Events and rows for tests: a test states only what matters to it."""

from __future__ import annotations

from typing import Any

from router.event import Event
from router.outbox.log import entries

NOW = 1_795_000_000_000


def an_event(event_id: str = "e-1", **fields: Any) -> Event:
    return Event(
        **{
            "id": event_id,
            "name": "page_view",
            "time": NOW,
            "received": NOW,
            "source": "shop",
            "dialect": "plain",
            **fields,
        }
    )


def rows(*events: Event) -> list[entries.Row]:
    return [entries.row(event) for event in events]


def many(count: int, start: int = 1, **fields: Any) -> list[entries.Row]:
    return rows(*(an_event(f"e-{number}", **fields) for number in range(start, start + count)))
