"""How much is kept of what others make us keep: refused items and partners' answers, in bytes.

Retention forgets them by age and by number, once a minute; a flood is quicker. Triggers keep the sums (``schema``), so
whoever deletes, for whatever reason, makes room. Beyond a bound the new is not kept and what is there stays: it may be
what shows how it began.
"""

from __future__ import annotations

import sqlite3

QUARANTINE_BYTES = 1 << 30  # of refused items
ANSWER_BYTES = 1 << 30  # of partners' answers
MOST_TRIES = 20  # of the same events at the same destination, the newest


def quarantine_full(connection: sqlite3.Connection) -> bool:
    return _weight(connection, "quarantine") >= QUARANTINE_BYTES


def answers_full(connection: sqlite3.Connection) -> bool:
    return _weight(connection, "attempt") >= ANSWER_BYTES


def _weight(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute("SELECT bytes FROM weight WHERE name = ?", (table,)).fetchone()[0])


def forget_old_tries(connection: sqlite3.Connection, lane: int, first: int, last: int) -> None:
    """Of the requests with just these events only the newest are kept: 72 hours of retries are some 300."""
    connection.execute(
        "DELETE FROM attempt WHERE id IN (SELECT id FROM attempt WHERE lane = ? AND first = ? AND last = ?"
        " ORDER BY id DESC LIMIT -1 OFFSET ?)",
        (lane, first, last, MOST_TRIES),
    )
