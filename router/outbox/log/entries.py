"""The events of one segment: appended, read, indexed and sealed.

One append is one multi-row statement. A full segment is sealed off the hot path: its indexes are built, its WAL is
folded in, and it never changes again but by erasure. Sequence numbers begin at 1 and have no gaps, so the number of
accepted events is the last of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from router.event import NOTHING, Clear, Event, opened, payload, written
from router.failpoint import failpoint
from router.outbox.disk import sql
from router.outbox.disk.schema import LATE, SEALED_INDEXES
from router.outbox.disk.writer import fold
from router.outbox.log import dedup
from router.outbox.log.compression import pack, unpack
from router.outbox.log.dedup import Marks, key
from router.outbox.log.vault import Vault

COLUMNS = 9
ROWS_PER_STATEMENT = 32_766 // COLUMNS  # SQLite's limit of bound values (limits.html, SQLITE_MAX_VARIABLE_NUMBER)

KEPT = 0  # number of the segment that keeps what others left behind when they went


def path(directory: Path, number: int) -> Path:
    """The file of a segment in an outbox directory."""
    return directory / "log" / f"{number:08d}.db"


class Segment(msgspec.Struct, kw_only=True):
    """One file of the log. ``first`` is its first sequence number; ``key`` opens its clear values.

    ``passed`` is when every lane was seen to be done with it. Instants are UTC ms.
    """

    number: int
    first: int
    opened: int
    key: bytes | None
    sealed: int | None = None
    passed: int | None = None

    def path(self, directory: Path) -> Path:
        return path(directory, self.number)


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it. ``event`` is None where it was erased, or where the stored bytes are damaged."""

    seq: int
    event: Event | None
    erased: bool = False


class Row(msgspec.Struct, gc=False, array_like=True):
    """An event on its way into the log: its payload, encoded once, and what the outbox asks of it without reading that.

    ``event`` is the memory of whoever keeps it decoded, for a while.
    """

    source: str
    id: str
    name: str
    dialect: str
    received: int
    time: int
    payload: bytes
    clear: Clear = NOTHING
    anonymous_id: str | None = None
    clicks: dict[str, str] = {}
    event: Event | None = None

    def read(self) -> Event:
        return opened(self.payload, self.clear)


def row(event: Event, *, remember: bool = False) -> Row:
    """Encode for the log. The clear values never enter the payload. To ``remember`` the event saves decoding it for
    whoever reads it at once.
    """
    return Row(
        event.source,
        event.id,
        event.name,
        event.dialect,
        event.received,
        event.time,
        written(event) if remember else payload(event),
        event.clear,
        event.user.anonymous_id,
        event.clicks,
        event if remember else None,
    )


def append(connection: sqlite3.Connection, first: int, rows: Sequence[Row], vault: Vault, duplicate: int) -> None:
    """Write rows as ``first``, ``first`` + 1 ... and count the duplicates met on the way.

    The ordinary call is one statement in autocommit: one crossing into SQLite, atomic by itself.
    """
    failpoint("append_before_begin")
    several = duplicate > 0 or len(rows) > ROWS_PER_STATEMENT
    with sql.transaction(connection) if several else contextlib.nullcontext():
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            chunk = rows[start : start + ROWS_PER_STATEMENT]
            values = ",".join(["(?,?,?,?,?,?,?,?,?)"] * len(chunk))
            connection.execute(f"INSERT INTO event VALUES {values}", _bound(first + start, chunk, vault))  # noqa: S608 - placeholders only
        if duplicate:
            connection.execute("UPDATE total SET duplicate = duplicate + ?", (duplicate,))
        if several:
            failpoint("append_before_commit")
    failpoint("append_after_commit")


def _bound(first: int, rows: Sequence[Row], vault: Vault) -> list[object]:
    values: list[object] = []
    stored, sealed = pack([each.payload for each in rows]), vault.seal([each.clear for each in rows])
    for seq, (each, packed, clear) in enumerate(zip(rows, stored, sealed, strict=True), first):
        values += (
            seq,
            each.received,
            each.time,
            each.source,
            each.id,
            each.name,
            packed,
            clear,
            zlib.crc32(packed),
        )
    return values


_AFTER = "SELECT seq, payload, clear, crc FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
_THESE = "SELECT seq, payload, clear, crc FROM event WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"


def read(connection: sqlite3.Connection, vault: Vault, after: int, limit: int) -> list[Stored]:
    """Up to ``limit`` events with a sequence number above ``after``, in order."""
    return _all_stored(connection.execute(_AFTER, (after, limit)).fetchall(), vault)


def pick(connection: sqlite3.Connection, vault: Vault, seqs: Sequence[int]) -> list[Stored]:
    """The events with these sequence numbers, in order; missing ones are left out."""
    return _all_stored(connection.execute(_THESE, (sql.array(seqs),)).fetchall(), vault)


_LATE = f"SELECT time, seq FROM event WHERE {LATE} AND time BETWEEN ? AND ? AND seq > ? ORDER BY time, seq LIMIT ?"  # noqa: S608 - a constant


def late(connection: sqlite3.Connection, after: int, since: int, until: int, limit: int) -> list[tuple[int, int]]:
    """(time, sequence number) of a sealed segment's late uploads that happened between two instants, the earliest first."""
    return connection.execute(_LATE, (since, until, after, limit)).fetchall()


def _all_stored(found: Sequence[tuple[int, bytes, bytes | None, int]], vault: Vault) -> list[Stored]:
    payloads = whole([(stored, crc) for _, stored, _, crc in found])
    return [
        Stored(seq, _event(text, vault.open(clear) if clear else NOTHING), erased=not stored)
        for (seq, stored, clear, _), text in zip(found, payloads, strict=True)
    ]


def intact(stored: Sequence[tuple[bytes, int]]) -> list[Event | None]:
    """The events in these bytes with their checksums, in order; None for what is empty or damaged."""
    return [_event(text) for text in whole(stored)]


def whole(stored: Sequence[tuple[bytes, int]]) -> list[bytes | None]:
    """The payloads in these bytes with their checksums, in order; None for what is empty or damaged."""
    return unpack([packed if zlib.crc32(packed) == crc else b"" for packed, crc in stored])


def _event(text: bytes | None, clear: Clear = NOTHING) -> Event | None:
    try:
        return None if text is None else opened(text, clear)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def keys(connection: sqlite3.Connection) -> Iterable[tuple[str, int]]:
    """Every dedup key of a segment and when it was received (UTC ms)."""
    for received, source, event_id in connection.execute("SELECT received, source, id FROM event"):
        yield key(source, event_id), received


def known(connection: sqlite3.Connection, pairs: Sequence[tuple[str, str]], since: int) -> list[tuple[str, str]]:
    """Those of ``pairs`` (source, event id) that a sealed segment holds, received at ``since`` (UTC ms) or later."""
    found = connection.execute(
        "SELECT event.source, event.id FROM json_each(?) AS wanted JOIN event"
        " ON event.id = wanted.value ->> 1 AND event.source = wanted.value ->> 0 WHERE event.received >= ?",
        (sql.array(pairs), since),
    )
    return [(source, event_id) for source, event_id in found]


def last(connection: sqlite3.Connection, segment: Segment) -> int:
    """The last sequence number of a segment, or the one before its first where it is empty."""
    return int(connection.execute("SELECT coalesce(max(seq), ?) FROM event", (segment.first - 1,)).fetchone()[0])


def filled(path: Path) -> bool:
    """Is the file there, with anything in it? Retention may take it while it is asked for."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def has_events(path: Path) -> bool:
    """Does this file, which nobody writes, hold any event?"""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT 1 FROM event LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError:
        return False  # its creation was cut short
    finally:
        connection.close()


_ROWS = "SELECT seq, received, time, source, id, name, payload, NULL, crc FROM event WHERE seq IN (SELECT value FROM json_each(?))"


def rows(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[tuple[object, ...]]:
    """The rows as they are stored, without their clear values, for ``keep``."""
    return connection.execute(_ROWS, (sql.array(seqs),)).fetchall()


def keep(connection: sqlite3.Connection, found: Iterable[tuple[object, ...]]) -> None:
    """Put rows of another segment here; those that are here already stay."""
    with sql.transaction(connection):
        connection.executemany("INSERT OR IGNORE INTO event VALUES(?,?,?,?,?,?,?,?,?)", found)


def seqs(connection: sqlite3.Connection) -> list[int]:
    """Every sequence number of a segment."""
    return [seq for (seq,) in connection.execute("SELECT seq FROM event ORDER BY seq")]


def discard(connection: sqlite3.Connection, gone: Sequence[int]) -> None:
    connection.execute("DELETE FROM event WHERE seq IN (SELECT value FROM json_each(?))", (sql.array(gone),))
    fold(connection)  # what was there is overwritten in the file, too


def duplicates(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT duplicate FROM total").fetchone()[0])


def index(connection: sqlite3.Connection) -> None:
    """The indexes of a segment that is written no more."""
    for statement in SEALED_INDEXES:
        connection.execute(statement)


def marks(connection: sqlite3.Connection) -> Marks:
    """Of a sealed segment; made anew where a disk that forgets has lost them."""
    row = connection.execute("SELECT marks FROM seen").fetchone()
    if row is None:
        return dedup.marks([name for name, _ in keys(connection)])
    found = array("I")
    found.frombytes(row[0])
    return found


def seal(connection: sqlite3.Connection, found: Marks) -> None:
    """Build the indexes, keep the marks, fold the WAL in and close. Run again after a kill, it does what is left."""
    try:
        failpoint("seal_before_index")
        index(connection)
        connection.execute("INSERT OR REPLACE INTO seen VALUES(1, ?)", (found.tobytes(),))
        failpoint("seal_before_checkpoint")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
