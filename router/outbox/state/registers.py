"""What the state lists beside deliveries: segments of the log, configurations, refused items, operators' acts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from router.outbox.log.entries import Segment
from router.outbox.state import bounds


def segments(connection: sqlite3.Connection) -> list[Segment]:
    found = connection.execute("SELECT number, first, opened, key, sealed, passed FROM segment ORDER BY number")
    return [
        Segment(number=number, first=first, opened=opened, key=secret, sealed=sealed, passed=passed)
        for number, first, opened, secret, sealed, passed in found
    ]


def add_segment(connection: sqlite3.Connection, segment: Segment) -> None:
    connection.execute(
        "INSERT INTO segment(number, first, key, opened) VALUES(?,?,?,?)",
        (segment.number, segment.first, segment.key, segment.opened),
    )


def seal_segment(connection: sqlite3.Connection, segment: Segment) -> None:
    connection.execute("UPDATE segment SET sealed = ? WHERE number = ?", (segment.sealed, segment.number))


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A parseable event that could not be accepted: its reason, and what may be kept of it, scrubbed, as JSON."""

    at: int
    source: str
    code: str
    message: str
    event_id: str | None = None
    field: str | None = None
    item: str | None = None


def quarantine(connection: sqlite3.Connection, rows: Sequence[Quarantined]) -> bool:
    """Count what was turned away, and keep it where there is room. Returns whether there was."""
    room = not bounds.quarantine_full(connection)
    connection.executemany(
        "INSERT INTO quarantine(at, source, event_id, code, field, message, item) VALUES(?,?,?,?,?,?,?)",
        [(row.at, row.source, row.event_id, row.code, row.field, row.message, row.item) for row in rows if room],
    )
    connection.execute(
        "INSERT INTO counter VALUES('rejected', ?) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
        (len(rows),),
    )
    return room


def audit(connection: sqlite3.Connection, at: int, who: str, what: str, selection: str, count: int) -> None:
    connection.execute(
        "INSERT INTO audit(at, who, what, selection, count) VALUES(?,?,?,?,?)", (at, who, what, selection, count)
    )


def config(connection: sqlite3.Connection, at: int, digest: str, text: str) -> int:
    """The version number of a configuration: the newest one's where nothing changed, else a new one."""
    newest = connection.execute("SELECT version, digest FROM config ORDER BY version DESC LIMIT 1").fetchone()
    if newest is not None and newest[1] == digest:
        return int(newest[0])
    connection.execute("INSERT INTO config(at, digest, text) VALUES(?,?,?)", (at, digest, text))
    return int(connection.execute("SELECT max(version) FROM config").fetchone()[0])
