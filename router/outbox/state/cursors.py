"""Where each destination is in the log, whether it waits there, and where it was away."""

from __future__ import annotations

import sqlite3

import msgspec

from router.outbox.state.deliveries import stretches

AWAY = "its destination was not in the configuration when the event came"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Why a lane waits. ``by`` is "partner" or "operator"; only the first is probed."""

    reason: str
    by: str
    at: int
    until: int | None = None


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    name: str
    type: str
    start: int
    cursor: int
    held: Held | None
    quota: int | None = None
    stop: int | None = None
    stopped_at: int | None = None


def lane(connection: sqlite3.Connection, name: str, kind: str, last: int, quota: int | None) -> LaneRow:
    """The lane of a destination; a new one begins behind the events that are already there."""
    connection.execute(
        "INSERT INTO lane(name, type, start, cursor, quota) VALUES(?, ?, ?, ?, ?)"
        " ON CONFLICT(name) DO UPDATE SET type = excluded.type, quota = excluded.quota",
        (name, kind, last, last, quota),
    )
    return next(row for row in lanes(connection) if row.name == name)


def lanes(connection: sqlite3.Connection) -> list[LaneRow]:
    found = connection.execute(
        "SELECT id, name, type, start, cursor, hold_reason, hold_until, hold_by, held_at, quota, stop, stopped_at FROM lane ORDER BY id"
    )
    return [
        LaneRow(
            id=number,
            name=name,
            type=kind,
            start=start,
            cursor=cursor,
            held=Held(reason=reason, by=by, at=at, until=until) if reason is not None else None,
            quota=quota,
            stop=stop,
            stopped_at=stopped_at,
        )
        for number, name, kind, start, cursor, reason, until, by, at, quota, stop, stopped_at in found
    ]


def ended_beyond(connection: sqlite3.Connection, number: int, cursor: int) -> list[range]:
    """Stretches above the cursor that already have an end or a row: requests finish out of order."""
    rows = connection.execute("SELECT seq FROM delivery WHERE lane = ? AND seq > ?", (number, cursor))
    runs = connection.execute("SELECT first, last FROM run WHERE lane = ? AND first > ?", (number, cursor))
    single = [range(first, last + 1) for first, last in stretches([seq for (seq,) in rows])]
    return single + [range(first, last + 1) for first, last in runs]


def stop(connection: sqlite3.Connection, number: int, last: int, now: int) -> None:
    """The lane's destination is gone: what comes after ``last`` is not for it."""
    connection.execute("UPDATE lane SET stop = ?, stopped_at = ? WHERE id = ?", (last, now, number))


def go_on(connection: sqlite3.Connection, number: int, first: int, last: int, now: int, config: int) -> None:
    """The lane's destination is back: what came from ``first`` to ``last``, while it was away, is not for it."""
    connection.execute("UPDATE lane SET stop = NULL, stopped_at = NULL WHERE id = ?", (number,))
    filter_all(connection, number, first, last, now, AWAY, config)


def filter_all(
    connection: sqlite3.Connection, number: int, first: int, last: int, now: int, reason: str, config: int
) -> None:
    """These events, of which nothing was written down yet, are not for the lane: one run, however many they are."""
    if last < first:
        return
    connection.execute(
        "INSERT INTO run VALUES(?,?,?,'filtered',?,NULL,NULL,?,?)", (number, first, last, now, reason, config)
    )
    connection.execute("UPDATE lane SET filtered = filtered + ? WHERE id = ?", (last - first + 1, number))


def reached(connection: sqlite3.Connection) -> int:
    """The highest sequence number that anything was written about."""
    found = connection.execute(
        "SELECT max(max(cursor, coalesce((SELECT max(seq) FROM delivery WHERE delivery.lane = lane.id), 0),"
        " coalesce((SELECT last FROM run WHERE run.lane = lane.id ORDER BY first DESC LIMIT 1), 0))) FROM lane"
    )
    return int(found.fetchone()[0] or 0)


def hold(connection: sqlite3.Connection, number: int, held: Held | None) -> None:
    connection.execute(
        "UPDATE lane SET hold_reason = ?, hold_until = ?, hold_by = ?, held_at = ? WHERE id = ?",
        (held.reason, held.until, held.by, held.at, number) if held else (None, None, None, None, number),
    )
