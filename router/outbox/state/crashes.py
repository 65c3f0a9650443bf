"""Ends that were none: how often in a row the process died, and which events were in hand at that moment.

An event that kills the process (a fault in a library, memory) would kill each next one as well. What was in hand at such
an end is suspect: from then on the partner's code is given those events one by one. An event that was in hand at three
ends, at the last of them alone, is set aside as dead, visibly. So with batches the first end names the batch, the second
the event, and the third confirms it. A replay has nothing to set aside: it leaves out what the second one names.

A process that somebody else kills is nearly always killed elsewhere: a mark stands for the microseconds in which the
partner's code runs (``inhand``), and to be set aside an innocent event would have to be met there three times.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from router.outbox.state import deliveries, registers
from router.outbox.state.deliveries import Mark
from router.outbox.state.inhand import Marked

TIMES = 3  # that the same event was in hand
MOST = 100  # suspects remembered, the latest ones
SET_ASIDE = "set aside: the process ended three times while it was in hand; report it, then try it again"

_RUNNING, _SUSPECTS = "running", "suspects"


class Suspect(msgspec.Struct, frozen=True):
    """Events of a lane one of which was in hand at so many ends."""

    lane: int
    first: int
    last: int
    times: int = 1


class Past(msgspec.Struct, frozen=True):
    """``ends``: how many processes before this one did not end as they should, in a row."""

    ends: int
    suspects: tuple[Suspect, ...]


def begin(connection: sqlite3.Connection, now: int, found: Marked | None) -> Past:
    """A process begins, and found this in hand; what killed those before it is set aside."""
    before = _get(connection, _RUNNING)
    ends = 0 if before is None else int(before) + 1
    _set(connection, _RUNNING, str(ends))
    known: Sequence[Suspect] = _suspects(connection)
    if ends and found is not None:
        known = suspected(known, found)
    guilty = [each for each in known if each.times >= TIMES and each.first == each.last]
    for each in guilty:
        _set_aside(connection, each, now)
    left = tuple(each for each in known if each not in guilty)
    _set(connection, _SUSPECTS, msgspec.json.encode(left).decode())
    return Past(ends, left)


def suspected(known: Sequence[Suspect], found: Marked) -> list[Suspect]:
    """The suspects after one more end. Who was suspected and is in hand again is so the more; a batch that was in hand
    is narrowed to those of it that are in hand now.
    """
    for place, each in enumerate(known):
        first, last = max(each.first, found.first), min(each.last, found.last)
        if each.lane == found.lane and first <= last:
            return [*known[:place], *known[place + 1 :], Suspect(found.lane, first, last, each.times + 1)]
    return [*known[1 - MOST :], Suspect(found.lane, found.first, found.last)]


def unfinished(connection: sqlite3.Connection) -> bool:
    """Did the process before this one not end as it should?"""
    return _get(connection, _RUNNING) is not None


def end(connection: sqlite3.Connection) -> None:
    """The process ends as it should."""
    for key in (_RUNNING, _SUSPECTS):
        connection.execute("DELETE FROM meta WHERE key = ?", (key,))


def _set_aside(connection: sqlite3.Connection, suspect: Suspect, now: int) -> None:
    lane, seq = suspect.lane, suspect.first
    row = connection.execute("SELECT state FROM delivery WHERE lane = ? AND seq = ?", (lane, seq)).fetchone()
    cursor = connection.execute("SELECT cursor FROM lane WHERE id = ?", (lane,)).fetchone()
    if cursor is None or (row is not None and row[0] != "waiting") or (row is None and _ended(connection, lane, seq)):
        return  # it has an end already
    mark = Mark(seqs=(seq,), state="dead", at=now, parked=row is not None, attempts=TIMES, reason=SET_ASIDE)
    settlement = deliveries.Settlement(lane=lane, cursor=cursor[0], marks=[mark])
    config = connection.execute("SELECT coalesce(max(version), 0) FROM config").fetchone()[0]
    deliveries.settle(connection, [settlement], config)
    registers.audit(connection, now, "turnout", "set aside", f"lane {lane} event {seq}", 1)


def _ended(connection: sqlite3.Connection, lane: int, seq: int) -> bool:
    """Is it up to the cursor, or part of a run beyond it?"""
    found = connection.execute(
        "SELECT 1 FROM lane WHERE id = ?1 AND cursor >= ?2"
        " UNION ALL SELECT 1 FROM run WHERE lane = ?1 AND first <= ?2 AND last >= ?2",
        (lane, seq),
    )
    return found.fetchone() is not None


def _suspects(connection: sqlite3.Connection) -> tuple[Suspect, ...]:
    found = _get(connection, _SUSPECTS)
    return () if found is None else msgspec.json.decode(found, type=tuple[Suspect, ...])


def _get(connection: sqlite3.Connection, key: str) -> str | None:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if found is None else str(found[0])


def _set(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
    )
