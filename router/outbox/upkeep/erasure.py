"""Erasing people: every event that carries one of their marks loses its content, in every file, and stays a number.

The place in the log remains, empty, so that sequence numbers have no gaps and the ledger adds up. What was not delivered
yet ends as ``erased``; what a partner already has is counted in the receipt, because only the partner can erase that.
SQL and files; the owner of the outbox says in which order.
"""

from __future__ import annotations

import bisect
import sqlite3
from collections.abc import Callable, Collection, Sequence

import msgspec

from router.outbox.disk.sql import ROWS_AT_ONCE, array, parts
from router.outbox.log.compression import unpack
from router.person import Part, marks_of


class Receipt(msgspec.Struct, kw_only=True):
    """What an erasure did: by how many ``identifiers`` it looked, events emptied, by destination how many deliveries of them
    it ended and how many the partner has already, quarantined items deleted, and visitors' sessions forgotten.
    """

    people: int
    identifiers: int = 0
    events: int = 0
    ended: dict[str, int] = {}
    delivered: dict[str, int] = {}
    quarantined: int = 0
    sessions: int = 0


Theirs = Callable[[Collection[str]], bool]  # are any of these marks, or values, those of the people who are meant?

_decode = msgspec.json.Decoder(Part).decode
_stretches = msgspec.json.Decoder(list[tuple[int, int]]).decode
_ROWS = "SELECT seq, payload FROM event WHERE seq > ? ORDER BY seq LIMIT ?"


def find(connection: sqlite3.Connection, theirs: Theirs, after: int) -> tuple[list[int], set[str], int | None]:
    """Numbers of the next events above ``after`` whose marks are theirs, all the marks that these carry, and where to go
    on; None at the end. Looks at ``ROWS_AT_ONCE`` events, some 4 us each.
    """
    rows = connection.execute(_ROWS, (after, ROWS_AT_ONCE)).fetchall()
    found: list[int] = []
    others: set[str] = set()
    for (seq, _), payload in zip(rows, unpack([payload for _, payload in rows]), strict=True):
        carried = marks_in(payload) if payload else frozenset()
        if carried and theirs(carried):
            found.append(seq)
            others |= carried
    return found, others, rows[-1][0] if len(rows) == ROWS_AT_ONCE else None


def empty(connection: sqlite3.Connection, seqs: Sequence[int]) -> int:
    """These events have no content any more: what was there is overwritten in the file, once its WAL is folded in."""
    for part in parts(seqs):
        connection.execute(
            "UPDATE event SET payload = x'', crc = 0, clear = NULL, id = 'erased-' || seq"
            " WHERE seq IN (SELECT value FROM json_each(?))",
            (array(part),),
        )
    return len(seqs)


def marks_in(payload: bytes) -> frozenset[str]:
    try:
        return frozenset(marks_of(_decode(payload)))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return frozenset()


def end(connection: sqlite3.Connection, seqs: Sequence[int], now: int) -> dict[str, int]:
    """Waiting and dead deliveries of these events are erased. Returns how many by destination."""
    ended: dict[str, int] = {}
    for lane, name in connection.execute("SELECT id, name FROM lane").fetchall():
        for state, counters in (("waiting", "parked = parked - ?1"), ("dead", "dead = dead - ?1")):
            moved = connection.execute(
                "UPDATE delivery SET state = 'erased', due = NULL, reason = NULL, at = ?, subject = NULL"
                " WHERE lane = ? AND state = ? AND seq IN (SELECT value FROM json_each(?))",
                (now, lane, state, array(seqs)),
            ).rowcount
            connection.execute(f"UPDATE lane SET erased = erased + ?1, {counters} WHERE id = ?2", (moved, lane))  # noqa: S608 - a constant
            if moved:
                ended[name] = ended.get(name, 0) + moved
        about = _about(connection, lane, sorted(seqs))
        connection.execute("UPDATE attempt SET answer = NULL WHERE id IN (SELECT value FROM json_each(?))", (about,))
    return ended


def _about(connection: sqlite3.Connection, lane: int, seqs: Sequence[int]) -> str:
    """The tries with a partner's words that carried any of these events, as a JSON array. One pass over the tries."""
    found = connection.execute(
        "SELECT id, seqs FROM attempt WHERE lane = ? AND first <= ? AND last >= ? AND answer IS NOT NULL",
        (lane, seqs[-1], seqs[0]),
    )
    return array([number for number, carried in found if any(_meets(seqs, *each) for each in _stretches(carried))])


def _meets(seqs: Sequence[int], first: int, last: int) -> bool:
    """Is any of the sorted numbers in the stretch?"""
    place = bisect.bisect_left(seqs, first)
    return place < len(seqs) and seqs[place] <= last


def delivered(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[str, int]:
    """How many of these events each destination already has."""
    found = {}
    for lane, name in connection.execute("SELECT id, name FROM lane").fetchall():
        (count,) = connection.execute(
            "SELECT count(*) FROM json_each(?1) AS wanted WHERE"
            " (SELECT last >= wanted.value AND state = 'delivered' FROM run WHERE lane = ?2 AND first <= wanted.value"
            "  ORDER BY first DESC LIMIT 1)"
            " OR (SELECT state FROM delivery WHERE lane = ?2 AND seq = wanted.value) = 'delivered'",
            (array(seqs), lane),
        ).fetchone()
        if count:
            found[name] = count
    return found


def forget_sessions(connection: sqlite3.Connection, people: Collection[str]) -> int:
    """Visitors with these anonymous ids, and what a source noted of a session of that id, which ends the note's key.
    Returns how many visitors.
    """
    connection.executemany(
        "DELETE FROM note WHERE substr(key, -length(?1) - 1) = ' ' || ?1", [(each,) for each in people]
    )
    return connection.execute(
        "DELETE FROM visitor WHERE person IN (SELECT value FROM json_each(?))", (array(people),)
    ).rowcount


def forget_quarantined(connection: sqlite3.Connection, theirs: Theirs, after: int) -> tuple[int, int | None]:
    """Delete the next items that hold values of theirs, whole. Returns how many, and where to go on."""
    rows = connection.execute(
        "SELECT id, item, event_id FROM quarantine WHERE id > ? ORDER BY id LIMIT ?", (after, ROWS_AT_ONCE)
    ).fetchall()
    found = [number for number, item, event_id in rows if theirs({event_id or ""} | values_in(item or ""))]
    connection.execute("DELETE FROM quarantine WHERE id IN (SELECT value FROM json_each(?))", (array(found),))
    return len(found), rows[-1][0] if len(rows) == ROWS_AT_ONCE else None


def values_in(item: str) -> set[str]:
    """Every text anywhere in a JSON value."""
    found: set[str] = set()
    stack = [msgspec.json.decode(item)] if item else []
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, int):
            found.add(str(value))
    return found
