"""What the state remembers beside deliveries, for a while each: a visitor's click ids, a source's notes, the subjects
that a partner has closed, and how much of a month's quota is used. SQL only; every instant is UTC ms.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from router.outbox.disk.sql import array

AT_ONCE = 1_000  # expired rows taken away by one transaction


class Visitor(msgspec.Struct, frozen=True):
    """The click ids of one visitor's session. ``seen`` is when the visitor last did something."""

    source: str
    person: str
    clicks: dict[str, str]
    seen: int


def visitors(connection: sqlite3.Connection, since: int, most: int) -> list[Visitor]:
    """The visitors seen since then, the latest ones where there are too many, longest gone first."""
    found = connection.execute(
        "SELECT source, person, clicks, seen FROM visitor WHERE seen >= ? ORDER BY seen DESC LIMIT ?", (since, most)
    ).fetchall()
    return [Visitor(source, person, msgspec.json.decode(clicks), seen) for source, person, clicks, seen in found[::-1]]


def remember_visitors(connection: sqlite3.Connection, rows: Iterable[Visitor], gone: int) -> None:
    """Write these down; those not seen since ``gone`` are taken away."""
    connection.executemany(
        "INSERT INTO visitor VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET clicks = excluded.clicks, seen = excluded.seen",
        [(row.source, row.person, msgspec.json.encode(row.clicks).decode(), row.seen) for row in rows],
    )
    connection.execute(
        "DELETE FROM visitor WHERE (source, person) IN (SELECT source, person FROM visitor WHERE seen < ? LIMIT ?)",
        (gone, AT_ONCE),
    )


def notes(connection: sqlite3.Connection, source: str, now: int) -> dict[str, str]:
    """What a source has written down and what has not expired."""
    return dict(connection.execute("SELECT key, value FROM note WHERE source = ? AND until > ?", (source, now)))


def remember(
    connection: sqlite3.Connection, source: str, kept: Mapping[str, tuple[str, int]], forget: Sequence[str], now: int
) -> None:
    """Key -> (value, until). What has expired is taken away."""
    connection.executemany("DELETE FROM note WHERE source = ? AND key = ?", [(source, key) for key in forget])
    connection.executemany(
        "INSERT INTO note VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET value = excluded.value, until = excluded.until",
        [(source, key, value, until) for key, (value, until) in kept.items()],
    )
    connection.execute(
        "DELETE FROM note WHERE (source, key) IN (SELECT source, key FROM note WHERE until <= ? LIMIT ?)",
        (now, AT_ONCE),
    )


def closed(connection: sqlite3.Connection, lane: int, subjects: Iterable[str], now: int) -> dict[str, str]:
    """Subject -> reason, of those that are closed."""
    return dict(
        connection.execute(
            "SELECT subject, reason FROM closed WHERE lane = ? AND until > ?"
            " AND subject IN (SELECT value FROM json_each(?))",
            (lane, now, array(subjects)),
        )
    )


def close(connection: sqlite3.Connection, lane: int, rows: Iterable[tuple[str, str, int, bool]], now: int) -> None:
    """(subject, reason, until, final): the later end counts. What has expired is taken away."""
    connection.executemany(
        "INSERT INTO closed VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET reason = excluded.reason, until = excluded.until,"
        " final = max(final, excluded.final)"
        " WHERE excluded.until > until",
        [(lane, *row) for row in rows],
    )
    connection.execute(
        "DELETE FROM closed WHERE (lane, subject) IN (SELECT lane, subject FROM closed WHERE until <= ? LIMIT ?)",
        (now, AT_ONCE),
    )


def behind(connection: sqlite3.Connection, lane: int, subjects: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Subject -> (sequence number, due) of the first delivery about it that waits for another try."""
    found = connection.execute(
        "SELECT subject, min(seq), due FROM delivery WHERE lane = ? AND state = 'waiting'"
        " AND subject IN (SELECT value FROM json_each(?)) GROUP BY subject",
        (lane, array(subjects)),
    )
    return {subject: (seq, due) for subject, seq, due in found}


def month(at: int) -> str:
    """The calendar month (UTC) of an instant: "2026-11"."""
    return f"{dt.datetime.fromtimestamp(at / 1000, dt.UTC):%Y-%m}"


def use(connection: sqlite3.Connection, lane: int, at: int, events: int) -> None:
    """So many more events count against this month's quota."""
    connection.execute(
        "INSERT INTO used VALUES(?,?,?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
        (lane, month(at), events),
    )


def used(connection: sqlite3.Connection, lane: int, at: int) -> int:
    """Events that counted against the quota of the month of ``at``."""
    found = connection.execute("SELECT events FROM used WHERE lane = ? AND month = ?", (lane, month(at))).fetchone()
    return 0 if found is None else int(found[0])
