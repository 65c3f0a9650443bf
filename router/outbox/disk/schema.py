"""The tables of the outbox, and how a file of an older schema becomes one of this.

Two kinds of file: a segment of the log (``log/NNNNNNNN.db``) and the state (``state.db``). A migration is one
transaction that also sets ``user_version``: a kill in the middle leaves the old file. A newer file is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.failpoint import failpoint
from router.outbox.disk.sql import transaction
from router.outbox.errors import OutboxError

Migration = Sequence[str]

# ``total`` holds one row: what this segment saw that left no row in it. ``seen`` holds one from the sealing on: the marks
# of its ids, which ``dedup`` reads at a start.
LOG: Sequence[Migration] = (
    (
        """CREATE TABLE event(
            seq INTEGER PRIMARY KEY,
            received INTEGER NOT NULL,
            time INTEGER NOT NULL,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            name TEXT NOT NULL,
            payload BLOB NOT NULL,
            clear BLOB,
            crc INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE total(one INTEGER PRIMARY KEY CHECK(one = 1), duplicate INTEGER NOT NULL) STRICT",
        "INSERT INTO total VALUES(1, 0)",
        "CREATE TABLE seen(one INTEGER PRIMARY KEY CHECK(one = 1), marks BLOB NOT NULL) STRICT",
    ),
)

# Built when a segment is sealed: an index kept during ingest would dirty a page per (random) id.
# The second holds late uploads only: all others leave a partner's window in the order of the log, or nearly so.
LATE = "time < received - 3600000"
SEALED_INDEXES: Migration = (
    "CREATE INDEX IF NOT EXISTS event_id ON event(id, source)",
    f"CREATE INDEX IF NOT EXISTS event_late ON event(time) WHERE {LATE}",
)


def _weighed(table: str, column: str) -> Migration:
    """Triggers that keep the bytes of a column, and the row's share of everything else, in ``weight``."""

    def size(row: str) -> str:
        return f"{ROW_BYTES} + coalesce(length(CAST({row}.{column} AS BLOB)), 0)"

    def trigger(act: str, change: str) -> str:
        update = f"UPDATE weight SET bytes = bytes + {change} WHERE name = '{table}'"  # noqa: S608 - two names of ours
        return f"CREATE TRIGGER {table}_{act.partition(' ')[0].lower()} AFTER {act} ON {table} BEGIN {update}; END"

    return (
        trigger("INSERT", size("new")),
        trigger("DELETE", f"-({size('old')})"),
        trigger(f"UPDATE OF {column}", f"{size('new')} - ({size('old')})"),
    )


ROW_BYTES = 200  # of a quarantined item or an attempt, beside the text that others made

STATE: Sequence[Migration] = (
    (
        "CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
        """CREATE TABLE segment(
            number INTEGER PRIMARY KEY,
            first INTEGER NOT NULL,
            key BLOB,
            opened INTEGER NOT NULL,
            sealed INTEGER,
            passed INTEGER
        ) STRICT""",
        """CREATE TABLE lane(
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            type TEXT NOT NULL,
            start INTEGER NOT NULL,
            cursor INTEGER NOT NULL,
            delivered INTEGER NOT NULL DEFAULT 0,
            duplicate INTEGER NOT NULL DEFAULT 0,
            unverified INTEGER NOT NULL DEFAULT 0,
            filtered INTEGER NOT NULL DEFAULT 0,
            dead INTEGER NOT NULL DEFAULT 0,
            erased INTEGER NOT NULL DEFAULT 0,
            parked INTEGER NOT NULL DEFAULT 0,
            hold_reason TEXT,
            hold_until INTEGER,
            hold_by TEXT,
            held_at INTEGER,
            quota INTEGER,
            stop INTEGER,
            stopped_at INTEGER
        ) STRICT""",
        """CREATE TABLE delivery(
            lane INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            state TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            due INTEGER,
            since INTEGER NOT NULL,
            at INTEGER NOT NULL,
            status INTEGER,
            reason TEXT,
            config INTEGER NOT NULL,
            subject TEXT,
            PRIMARY KEY(lane, seq)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX delivery_due ON delivery(lane, due) WHERE state = 'waiting'",
        "CREATE INDEX delivery_subject ON delivery(lane, subject, seq) WHERE state = 'waiting' AND subject IS NOT NULL",
        "CREATE INDEX delivery_state ON delivery(lane, state, seq)",
        """CREATE TABLE run(
            lane INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            state TEXT NOT NULL,
            at INTEGER NOT NULL,
            began INTEGER,
            status INTEGER,
            reason TEXT,
            config INTEGER NOT NULL,
            PRIMARY KEY(lane, first)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE attempt(
            id INTEGER PRIMARY KEY,
            lane INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            seqs TEXT NOT NULL,
            began INTEGER NOT NULL,
            at INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            status INTEGER,
            reason TEXT,
            answer TEXT,
            config INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX attempt_lane ON attempt(lane, first)",
        """CREATE TABLE quarantine(
            id INTEGER PRIMARY KEY,
            at INTEGER NOT NULL,
            source TEXT NOT NULL,
            event_id TEXT,
            code TEXT NOT NULL,
            field TEXT,
            message TEXT NOT NULL,
            item TEXT
        ) STRICT""",
        # What ``bounds`` bounds, in bytes, kept by the triggers below.
        "CREATE TABLE weight(name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO weight VALUES('quarantine', 0), ('attempt', 0)",
        *_weighed("quarantine", "item"),
        *_weighed("attempt", "answer"),
        """CREATE TABLE closed(
            lane INTEGER NOT NULL,
            subject TEXT NOT NULL,
            reason TEXT NOT NULL,
            until INTEGER NOT NULL,
            final INTEGER NOT NULL,
            PRIMARY KEY(lane, subject)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX closed_until ON closed(until)",
        """CREATE TABLE used(
            lane INTEGER NOT NULL,
            month TEXT NOT NULL,
            events INTEGER NOT NULL,
            PRIMARY KEY(lane, month)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE visitor(
            source TEXT NOT NULL,
            person TEXT NOT NULL,
            clicks TEXT NOT NULL,
            seen INTEGER NOT NULL,
            PRIMARY KEY(source, person)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX visitor_seen ON visitor(seen)",
        """CREATE TABLE note(
            source TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY(source, key)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX note_until ON note(until)",
        """CREATE TABLE replay(
            id INTEGER PRIMARY KEY,
            lane INTEGER NOT NULL,
            at INTEGER NOT NULL,
            who TEXT NOT NULL,
            chosen TEXT NOT NULL,
            cursor INTEGER NOT NULL,
            last INTEGER NOT NULL,
            state TEXT NOT NULL,
            counts TEXT NOT NULL
        ) STRICT""",
        "CREATE TABLE suppressed(digest BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE config(version INTEGER PRIMARY KEY, at INTEGER NOT NULL, digest TEXT NOT NULL, text TEXT NOT NULL) STRICT",
        """CREATE TABLE audit(
            id INTEGER PRIMARY KEY,
            at INTEGER NOT NULL,
            who TEXT NOT NULL,
            what TEXT NOT NULL,
            selection TEXT NOT NULL,
            count INTEGER NOT NULL
        ) STRICT""",
    ),
)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], name: str) -> None:
    """Bring a file to the newest schema in one transaction; refuse one that is newer than this program.

    ``executescript`` would commit in between; each statement is executed by itself inside BEGIN IMMEDIATE.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise OutboxError(
            f"{name} has schema {version}, this program knows {len(migrations)}: start the newer version of Turnout"
        )
    if version == len(migrations):
        return
    with transaction(connection):
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
                failpoint("migrate_after_statement")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        failpoint("migrate_before_commit")
