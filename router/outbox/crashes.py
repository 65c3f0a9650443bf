"""Ends that were none: how often in a row the process died, and which event was in hand at that moment.

An event that kills the process (a fault in a library, memory) would kill each next one as well. So after such an end
lanes go carefully for a while: which event they are about to map is written down before. One that is found there at three
ends in a row is set aside as dead, visibly. A process that somebody else kills is nearly always killed elsewhere, and not
three times at the same event: with twice, one kill in some ten thousand would set an innocent event aside.
"""

from __future__ import annotations

import sqlite3

import msgspec

from router.outbox import state
from router.outbox.state import Mark

CAREFUL_AFTER = 1  # ends in a row
TIMES = 3  # that the same event was in hand
SET_ASIDE = "set aside: the process ended three times while it was in hand; report it, then try it again"

_RUNNING, _IN_HAND, _SUSPECT = "running", "in hand", "suspect"


class Suspect(msgspec.Struct):
    """An event of a lane that was in hand at so many ends in a row."""

    lane: int
    seq: int
    times: int = 0


def begin(connection: sqlite3.Connection, now: int) -> int:
    """A process begins. Returns how many before it did not end; sets aside what killed them."""
    before = _get(connection, _RUNNING)
    count = 0 if before is None else int(before) + 1
    _set(connection, _RUNNING, str(count))
    in_hand, known = _suspect(connection, _IN_HAND), _suspect(connection, _SUSPECT)
    if in_hand is None:
        _forget(connection, _SUSPECT)
        return count
    same = known is not None and (known.lane, known.seq) == (in_hand.lane, in_hand.seq)
    in_hand.times = 1 + (known.times if same and known is not None else 0)
    if in_hand.times >= TIMES:
        _set_aside(connection, in_hand, now)
        _forget(connection, _SUSPECT)
    else:
        _set(connection, _SUSPECT, msgspec.json.encode(in_hand).decode())
    _forget(connection, _IN_HAND)
    return count


def unfinished(connection: sqlite3.Connection) -> bool:
    """Did the process before this one not end as it should?"""
    return _get(connection, _RUNNING) is not None


def take(connection: sqlite3.Connection, lane: int, seq: int) -> None:
    """This event is in hand now."""
    _set(connection, _IN_HAND, msgspec.json.encode(Suspect(lane, seq)).decode())


def release(connection: sqlite3.Connection) -> None:
    """Nothing is in hand."""
    _forget(connection, _IN_HAND)


def end(connection: sqlite3.Connection) -> None:
    """The process ends as it should."""
    for key in (_RUNNING, _IN_HAND, _SUSPECT):
        _forget(connection, key)


def _set_aside(connection: sqlite3.Connection, suspect: Suspect, now: int) -> None:
    row = connection.execute(
        "SELECT state FROM delivery WHERE lane = ? AND seq = ?", (suspect.lane, suspect.seq)
    ).fetchone()
    cursor = connection.execute("SELECT cursor FROM lane WHERE id = ?", (suspect.lane,)).fetchone()
    if cursor is None or (row is None and suspect.seq <= cursor[0]) or (row is not None and row[0] != "waiting"):
        return  # it has an end already
    mark = Mark(seqs=(suspect.seq,), state="dead", at=now, parked=row is not None, attempts=TIMES, reason=SET_ASIDE)
    settlement = state.Settlement(lane=suspect.lane, cursor=cursor[0], marks=[mark])
    config = connection.execute("SELECT coalesce(max(version), 0) FROM config").fetchone()[0]
    state.settle(connection, [settlement], config)
    state.audit(connection, now, "turnout", "set aside", f"lane {suspect.lane} event {suspect.seq}", 1)


def _get(connection: sqlite3.Connection, key: str) -> str | None:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if found is None else str(found[0])


def _set(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
    )


def _forget(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM meta WHERE key = ?", (key,))


def _suspect(connection: sqlite3.Connection, key: str) -> Suspect | None:
    found = _get(connection, key)
    return None if found is None else msgspec.json.decode(found, type=Suspect)
