"""Pages of deliveries, by key: rows, runs taken apart again, and what was not tried yet, merged newest first."""

from __future__ import annotations

import re
from typing import NamedTuple

import aiosqlite
import msgspec

from router.lifecycle import State
from router.outbox.reads.account import Account
from router.outbox.reads.views import DeliveryView, EventView, instant, maybe

_SCANNED = 20_000  # rows looked at for one page; the page then ends early and says where to go on
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})", re.ASCII)


class Part(NamedTuple):
    """A part of one lane's deliveries, newest first; complete down to ``floor``, below which more may be."""

    items: list[DeliveryView]
    floor: int


def place(after: str) -> tuple[int, int] | None:
    """The event and the lane at which a page ended, or None for a text that is not one."""
    found = _PLACE.fullmatch(after)
    return (int(found[1]), int(found[2])) if found else None


def below(after: str | None, lane: int, last: int) -> int:
    """The page holds events of this lane with a number below this one."""
    at = place(after) if after else None
    if at is None:
        return last + 1
    return at[0] if lane <= at[1] else at[0] + 1


async def ends(
    connection: aiosqlite.Connection, lane: Account, state: State | None, limit: int, below: int, last: int
) -> Part:
    """One more than ``limit`` of a lane's deliveries below a number, from its rows, its runs and what is fresh."""
    kinds = [_rows(connection, lane, state, limit + 1, below)]
    if state in {None, "delivered", "filtered"}:
        kinds.append(_runs(connection, lane, state, limit + 1, below))
    if state in {None, "waiting"}:
        kinds.append(_fresh(connection, lane, limit + 1, min(below, lane.end(last) + 1)))
    parts = [await each for each in kinds]
    floor = max(part.floor for part in parts)
    items = sorted((each for part in parts for each in part.items if each.seq >= floor), key=lambda each: -each.seq)
    return Part(items, floor)


async def _rows(connection: aiosqlite.Connection, lane: Account, state: State | None, limit: int, below: int) -> Part:
    which = "" if state is None else "AND state = ?4"
    rows = list(
        await connection.execute_fetchall(
            "SELECT seq, state, attempts, due, at, status, reason FROM delivery"  # noqa: S608 - one of two fixed texts
            f" WHERE lane = ?1 AND seq < ?2 {which} ORDER BY seq DESC LIMIT ?3",
            (lane.id, below, limit, *(() if state is None else (state,))),
        )
    )
    items = [
        DeliveryView(
            seq=seq,
            to=lane.name,
            state=kept,
            attempts=attempts,
            at=instant(at),
            due=maybe(due),
            status=status,
            reason=reason,
        )
        for seq, kept, attempts, due, at, status, reason in rows
    ]
    return Part(items, items[-1].seq if len(items) == limit else 0)


async def _runs(connection: aiosqlite.Connection, lane: Account, state: State | None, limit: int, below: int) -> Part:
    """Runs taken apart again. There is no index by state, so only so many are looked at for one page."""
    items: list[DeliveryView] = []
    rows = list(
        await connection.execute_fetchall(
            "SELECT first, last, state, at, status, reason FROM run WHERE lane = ? AND first < ?"
            " ORDER BY first DESC LIMIT ?",
            (lane.id, below, limit if state is None else _SCANNED),
        )
    )
    for first, last, kept, at, status, reason in rows:
        if state not in {None, kept}:
            continue
        for seq in range(min(last, below - 1), first - 1, -1):
            items.append(
                DeliveryView(
                    seq=seq,
                    to=lane.name,
                    state=kept,
                    attempts=1 if kept == "delivered" else 0,
                    at=instant(at),
                    status=status,
                    reason=reason,
                )
            )
            if len(items) == limit:
                return Part(items, seq)
    return Part(items, rows[-1][0] if state is not None and len(rows) == _SCANNED else 0)


async def _fresh(connection: aiosqlite.Connection, lane: Account, limit: int, below: int) -> Part:
    """Events beyond the cursor that nothing was written down about yet."""
    rows = list(
        await connection.execute_fetchall(
            "SELECT seq, seq FROM delivery WHERE lane = ?1 AND seq > ?2 AND seq < ?3"
            " UNION ALL SELECT first, last FROM run WHERE lane = ?1 AND first > ?2 AND first < ?3"
            " ORDER BY 1 DESC LIMIT ?4",
            (lane.id, lane.cursor, below, _SCANNED),
        )
    )
    bottom = rows[-1][0] if len(rows) == _SCANNED else lane.cursor + 1
    items: list[DeliveryView] = []
    above = below
    for first, last in [*rows, (bottom - 1, bottom - 1)]:
        for seq in range(above - 1, last, -1):
            items.append(DeliveryView(seq=seq, to=lane.name, state="waiting", attempts=0))
            if len(items) == limit:
                return Part(items, seq)
        above = min(above, first)
    return Part(items, bottom if len(rows) == _SCANNED else 0)


def named(each: DeliveryView, event: EventView | None) -> DeliveryView:
    if event is None:
        return each
    return msgspec.structs.replace(each, id=event.id, source=event.source, name=event.name, received=event.received)
