"""The log: every accepted event once, in order, cut into segment files of which only the newest is written.

One append is one multi-row statement. A full segment is sealed off the hot path: its indexes are built, its WAL is
folded in, and it never changes again but by erasure. Sequence numbers begin at 1 and have no gaps, so the number of
accepted events is the last of them.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from router.event import Clear, Event
from router.outbox.dedup import key
from router.outbox.schema import SEALED_INDEXES
from router.outbox.vault import Vault
from router.outbox.writer import fold

COLUMNS = 9
ROWS_PER_STATEMENT = 32_766 // COLUMNS  # SQLite's limit of bound values (limits.html, SQLITE_MAX_VARIABLE_NUMBER)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode
_NOTHING = Clear()


KEPT = 0  # number of the segment that keeps what others left behind when they went


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
        return directory / "log" / f"{self.number:08d}.db"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it. ``event`` is None where it was erased, or where the stored bytes are damaged."""

    seq: int
    event: Event | None
    erased: bool = False


class Row(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the log: encoded once, by the caller that also counts its bytes."""

    event: Event
    payload: bytes


def row(event: Event) -> Row:
    """Encode for the log. The clear values never enter the payload."""
    return Row(event, _encode(msgspec.structs.replace(event, clear=_NOTHING)))


def append(connection: sqlite3.Connection, first: int, rows: Sequence[Row], vault: Vault, duplicate: int) -> None:
    """Write rows as ``first``, ``first`` + 1 ... and count the duplicates met on the way.

    The ordinary call is one statement in autocommit: one crossing into SQLite, atomic by itself.
    """
    several = duplicate > 0 or len(rows) > ROWS_PER_STATEMENT
    if several:
        connection.execute("BEGIN IMMEDIATE")
    try:
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            chunk = rows[start : start + ROWS_PER_STATEMENT]
            values = ",".join(["(?,?,?,?,?,?,?,?,?)"] * len(chunk))
            connection.execute(f"INSERT INTO event VALUES {values}", _bound(first + start, chunk, vault))  # noqa: S608 - placeholders only
        if duplicate:
            connection.execute("UPDATE total SET duplicate = duplicate + ?", (duplicate,))
        if several:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _bound(first: int, rows: Sequence[Row], vault: Vault) -> list[object]:
    values: list[object] = []
    for seq, each in enumerate(rows, first):
        event = each.event
        values += (
            seq,
            event.received,
            event.time,
            event.source,
            event.id,
            event.name,
            each.payload,
            vault.seal(event.clear),
            zlib.crc32(each.payload),
        )
    return values


_AFTER = "SELECT seq, payload, clear, crc FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
_THESE = "SELECT seq, payload, clear, crc FROM event WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"


def read(connection: sqlite3.Connection, vault: Vault, after: int, limit: int) -> list[Stored]:
    """Up to ``limit`` events with a sequence number above ``after``, in order."""
    found = connection.execute(_AFTER, (after, limit))
    return [_stored(each, vault) for each in found]


def pick(connection: sqlite3.Connection, vault: Vault, seqs: Sequence[int]) -> list[Stored]:
    """The events with these sequence numbers, in order; missing ones are left out."""
    found = connection.execute(_THESE, (msgspec.json.encode(seqs).decode(),))
    return [_stored(each, vault) for each in found]


def happened(connection: sqlite3.Connection, after: int, since: int, until: int, limit: int) -> list[tuple[int, int]]:
    """(time, sequence number) of events of a sealed segment that happened between two instants, the earliest first."""
    found = connection.execute(
        "SELECT time, seq FROM event WHERE time BETWEEN ? AND ? AND +seq > ? ORDER BY time, seq LIMIT ?",  # + : by time
        (since, until, after, limit),
    )
    return [(time, seq) for time, seq in found]


def _stored(each: tuple[int, bytes, bytes | None, int], vault: Vault) -> Stored:
    seq, payload, clear, crc = each
    if not payload:
        return Stored(seq, None, erased=True)
    if zlib.crc32(payload) != crc:
        return Stored(seq, None)
    try:
        event = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Stored(seq, None)
    return Stored(seq, msgspec.structs.replace(event, clear=vault.open(clear)) if clear else event)


def keys(connection: sqlite3.Connection) -> Iterable[tuple[str, int]]:
    """Every dedup key of a segment and when it was received (UTC ms)."""
    for received, source, event_id in connection.execute("SELECT received, source, id FROM event"):
        yield key(source, event_id), received


def known(connection: sqlite3.Connection, pairs: Sequence[tuple[str, str]], since: int) -> list[tuple[str, str]]:
    """Those of ``pairs`` (source, event id) that a sealed segment holds, received at ``since`` (UTC ms) or later."""
    found = connection.execute(
        "SELECT event.source, event.id FROM json_each(?) AS wanted JOIN event"
        " ON event.id = wanted.value ->> 1 AND event.source = wanted.value ->> 0 WHERE event.received >= ?",
        (msgspec.json.encode(pairs).decode(), since),
    )
    return [(source, event_id) for source, event_id in found]


def last(connection: sqlite3.Connection, segment: Segment) -> int:
    """The last sequence number of a segment, or the one before its first where it is empty."""
    return int(connection.execute("SELECT coalesce(max(seq), ?) FROM event", (segment.first - 1,)).fetchone()[0])


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
    return connection.execute(_ROWS, (msgspec.json.encode(seqs).decode(),)).fetchall()


def keep(connection: sqlite3.Connection, found: Iterable[tuple[object, ...]]) -> None:
    """Put rows of another segment here; those that are here already stay."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT OR IGNORE INTO event VALUES(?,?,?,?,?,?,?,?,?)", found)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def seqs(connection: sqlite3.Connection) -> list[int]:
    """Every sequence number of a segment."""
    return [seq for (seq,) in connection.execute("SELECT seq FROM event ORDER BY seq")]


def discard(connection: sqlite3.Connection, gone: Sequence[int]) -> None:
    connection.execute(
        "DELETE FROM event WHERE seq IN (SELECT value FROM json_each(?))", (msgspec.json.encode(gone).decode(),)
    )
    fold(connection)  # what was there is overwritten in the file, too


def duplicates(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT duplicate FROM total").fetchone()[0])


def index(connection: sqlite3.Connection) -> None:
    """The indexes of a segment that is written no more."""
    for statement in SEALED_INDEXES:
        connection.execute(statement)


def seal(connection: sqlite3.Connection) -> None:
    """Build the indexes, fold the WAL in and close. Run again after a kill, it does what is left."""
    try:
        index(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
