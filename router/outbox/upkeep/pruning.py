"""How the state forgets, a bounded number of rows at a time. SQL only; which and when is ``retention``'s."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.outbox.disk.sql import array
from router.outbox.log.entries import Segment

_OF_LANES = "lane IN (SELECT id FROM lane) AND seq > ? AND seq <= ?"  # so that the primary key is of use


def pass_segment(connection: sqlite3.Connection, number: int, now: int) -> None:
    connection.execute("UPDATE segment SET passed = ? WHERE number = ?", (now, number))


def not_ahead(connection: sqlite3.Connection, now: int) -> None:
    """No segment's instants are later than now."""
    connection.execute(
        "UPDATE segment SET opened = min(opened, ?1), sealed = min(sealed, ?1), passed = min(passed, ?1)", (now,)
    )


def destroy_keys(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Overwritten in the file (secure_delete); the WAL forgets with the next checkpoint."""
    connection.execute(
        "UPDATE segment SET key = NULL WHERE number IN (SELECT value FROM json_each(?))", (array(numbers),)
    )


def add_kept(connection: sqlite3.Connection, segment: Segment) -> None:
    """The segment of kept events, which nobody writes to as to a log."""
    connection.execute(
        "INSERT INTO segment(number, first, key, opened, sealed, passed) VALUES(?,?,NULL,?,?,?)",
        (segment.number, segment.first, segment.opened, segment.sealed, segment.passed),
    )


def has_waiting(connection: sqlite3.Connection, after: int, last: int) -> bool:
    """Does any delivery of the events from ``after`` to ``last`` wait for another try?"""
    found = connection.execute(
        f"SELECT 1 FROM delivery WHERE {_OF_LANES} AND state = 'waiting' LIMIT 1",  # noqa: S608 - a constant
        (after, last),
    )
    return found.fetchone() is not None


def kept(connection: sqlite3.Connection, after: int, last: int, limit: int) -> list[int]:
    """The first of the events above ``after`` that some lane still needs: it waits there, or is kept as dead."""
    found = connection.execute(
        f"SELECT DISTINCT seq FROM delivery WHERE {_OF_LANES} AND state IN ('waiting', 'dead') ORDER BY seq LIMIT ?",  # noqa: S608 - a constant
        (after, last, limit),
    )
    return [seq for (seq,) in found]


def unneeded(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[int]:
    """Those of ``seqs`` that no lane has a row about any more."""
    found = connection.execute(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS"
        " (SELECT 1 FROM delivery WHERE lane IN (SELECT id FROM lane) AND seq = value)",
        (array(seqs),),
    )
    return [seq for (seq,) in found]


_ENDED = f"""DELETE FROM delivery WHERE (lane, seq) IN
    (SELECT lane, seq FROM delivery WHERE {_OF_LANES} AND state NOT IN ('waiting', 'dead') LIMIT ?)"""  # noqa: S608 - a constant


def forget_ended(connection: sqlite3.Connection, last: int, limit: int) -> int:
    """Rows and runs of events up to ``last`` that need nothing more. Returns how many; the counters stay."""
    rows = connection.execute(_ENDED, (0, last, limit)).rowcount
    runs = connection.execute(
        "DELETE FROM run WHERE (lane, first) IN"
        " (SELECT lane, first FROM run WHERE lane IN (SELECT id FROM lane) AND first <= ?1 AND last <= ?1 LIMIT ?2)",
        (last, limit),
    ).rowcount
    return rows + runs


def forget_answers(connection: sqlite3.Connection, last: int, limit: int) -> int:
    """A partner's words where some of the events up to ``last`` that they are about is needed no more: they may repeat what
    it was sent, and an erasure would not find whose they are.

    CROSS and + keep SQLite from reading every dead row of the lane for each of them (sqlite.org/optoverview.html).
    """
    return connection.execute(
        "UPDATE attempt SET answer = NULL WHERE id IN (SELECT id FROM attempt WHERE first <= ?1 AND answer IS NOT NULL"
        " AND (SELECT sum(min(value ->> 1, ?1) - (value ->> 0) + 1) FROM json_each(seqs) WHERE value ->> 0 <= ?1)"
        " > (SELECT count(*) FROM json_each(seqs) CROSS JOIN delivery ON delivery.lane = attempt.lane"
        " AND delivery.seq BETWEEN value ->> 0 AND min(value ->> 1, ?1) AND +delivery.state IN ('waiting', 'dead'))"
        " LIMIT ?2)",
        (last, limit),
    ).rowcount


def retire_segment(connection: sqlite3.Connection, number: int, duplicates: int) -> None:
    """The log has no such segment any more; the duplicates that it counted are counted here."""
    connection.execute("DELETE FROM segment WHERE number = ?", (number,))
    connection.execute(
        "INSERT INTO counter VALUES('duplicate', ?) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
        (duplicates,),
    )


_DEAD = f"""DELETE FROM delivery WHERE (lane, seq) IN
    (SELECT lane, seq FROM delivery WHERE {_OF_LANES} AND state = 'dead' AND at <= ? LIMIT ?)"""  # noqa: S608 - a constant


def forget_dead(connection: sqlite3.Connection, gone: int, before: int, limit: int) -> int:
    """Dead deliveries of events up to ``gone``, which are in no segment of the log, that ended by then."""
    return connection.execute(_DEAD, (0, gone, before, limit)).rowcount


def forget_quarantine(connection: sqlite3.Connection, before: int, most: int, limit: int) -> int:
    """What is older than ``before`` (UTC ms), or beyond the newest ``most``. The counter stays."""
    return _forget_oldest(connection, "quarantine", before, most, limit)


def forget_attempts(connection: sqlite3.Connection, before: int, most: int, limit: int) -> int:
    """What is older than ``before`` (UTC ms), or beyond the newest ``most``."""
    return _forget_oldest(connection, "attempt", before, most, limit)


def _forget_oldest(connection: sqlite3.Connection, table: str, before: int, most: int, limit: int) -> int:
    """Ids grow with time, so the oldest are the first; whoever stops at the first young one looks at few rows."""
    return connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, at FROM {table} ORDER BY id LIMIT ?1)"  # noqa: S608 - two names
        f" WHERE at <= ?2 OR id <= (SELECT max(id) FROM {table}) - ?3)",
        (limit, before, most),
    ).rowcount


def give_up(connection: sqlite3.Connection, lane: int, now: int, reason: str, limit: int) -> int:
    """Waiting rows of a lane become dead. Returns how many."""
    moved = connection.execute(
        "UPDATE delivery SET state = 'dead', due = NULL, at = ?, reason = ? WHERE lane = ? AND seq IN"
        " (SELECT seq FROM delivery WHERE lane = ? AND state = 'waiting' LIMIT ?)",
        (now, reason, lane, lane, limit),
    ).rowcount
    connection.execute("UPDATE lane SET dead = dead + ?, parked = parked - ? WHERE id = ?", (moved, moved, lane))
    return moved
