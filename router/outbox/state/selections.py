"""Deliveries that an operator means, sent again or given up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from router.lifecycle import State, may_move
from router.outbox.disk.sql import array

DROPPED = "dropped by the operator"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows an operator means: all of a state or ``seqs``, without ``besides``, which are under way."""

    state: State
    seqs: Sequence[int] | None = None
    besides: Sequence[int] = ()

    @property
    def where(self) -> str:
        """One of two conditions: with an OR between them SQLite would read all rows of the state for a single one."""
        some = "" if self.seqs is None else " AND seq IN (SELECT value FROM json_each(?))"
        return f"state = ? AND seq NOT IN (SELECT value FROM json_each(?)){some}"  # noqa: S608 - constants

    def values(self) -> tuple[object, ...]:
        """To bind in ``where``."""
        some = () if self.seqs is None else (array(self.seqs),)
        return self.state, array(self.besides), *some


def revive(connection: sqlite3.Connection, number: int, chosen: Selection, now: int) -> int:
    """An operator tries dead deliveries again, or waiting ones at once. Returns how many."""
    if not may_move(chosen.state, "waiting"):
        return 0
    about = f"SELECT subject FROM delivery WHERE lane = ? AND {chosen.where}"  # noqa: S608 - a constant
    found = connection.execute(about, (number, *chosen.values())).fetchall()
    subjects = [(number, subject) for (subject,) in found if subject is not None]
    connection.executemany("DELETE FROM closed WHERE lane = ? AND subject = ? AND final = 0", subjects)
    moved = connection.execute(
        f"UPDATE delivery SET state = 'waiting', due = ?, at = ?, since = ? WHERE lane = ? AND {chosen.where}",  # noqa: S608 - a constant
        (now, now, now, number, *chosen.values()),
    ).rowcount
    if chosen.state == "dead":
        connection.execute("UPDATE lane SET dead = dead - ?, parked = parked + ? WHERE id = ?", (moved, moved, number))
    return moved


def drop(connection: sqlite3.Connection, number: int, chosen: Selection, now: int) -> int:
    """An operator gives waiting deliveries up. Returns how many; dead ones stay as they are."""
    if not may_move(chosen.state, "dead"):
        return 0
    moved = connection.execute(
        f"UPDATE delivery SET state = 'dead', due = NULL, at = ?, reason = ? WHERE lane = ? AND {chosen.where}",  # noqa: S608 - a constant
        (now, DROPPED, number, *chosen.values()),
    ).rowcount
    connection.execute("UPDATE lane SET dead = dead + ?, parked = parked - ? WHERE id = ?", (moved, moved, number))
    return moved
