"""Replays: sending again, by an operator's choice, what a destination was done with. SQL and the shapes of it.

A replay changes no delivery's state and no counter of a lane: what happened, happened. It has counts of its own, and its
requests are tries that an event's story shows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from router.outbox.state.deliveries import Attempt, add_attempt

KEPT = 100  # replays that are remembered


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which events: by when they were received (UTC ms, ``until`` excluded), source and name, and by what became of them
    there; "earlier" are those that came before the destination was there, or while it was not.
    """

    since: int | None = None
    until: int | None = None
    source: str | None = None
    name: str | None = None
    states: tuple[Literal["delivered", "filtered", "earlier"], ...] = ("delivered", "filtered", "earlier")
    rate: str = "20/s"  # requests


class Counts(msgspec.Struct, kw_only=True):
    """What became of the events that were looked at. ``sent`` were taken by the partner, or would be asked of it;
    ``again`` of these it has had before. ``filtered`` are not meant for it by today's configuration, ``expired`` too old for
    it, ``refused`` what it or its rules refuse, ``other`` neither chosen nor there any more.
    """

    sent: int = 0
    again: int = 0
    filtered: int = 0
    expired: int = 0
    refused: int = 0
    other: int = 0


class Replay(msgspec.Struct, kw_only=True):
    """``cursor`` is the last event that was dealt with; it ends at ``last``."""

    id: int
    lane: int
    at: int
    who: str
    chosen: Chosen
    cursor: int
    last: int
    state: Literal["running", "done", "cancelled"] = "running"
    counts: Counts


def begin(
    connection: sqlite3.Connection, lane: int, chosen: Chosen, cursor: int, last: int, now: int, who: str
) -> Replay | None:
    """None where another one of the lane is running."""
    if connection.execute("SELECT 1 FROM replay WHERE lane = ? AND state = 'running'", (lane,)).fetchone():
        return None
    made = Replay(id=0, lane=lane, at=now, who=who, chosen=chosen, cursor=cursor, last=last, counts=Counts())
    found = connection.execute(
        "INSERT INTO replay(lane, at, who, chosen, cursor, last, state, counts) VALUES(?,?,?,?,?,?,?,?) RETURNING id",
        (lane, now, who, _text(chosen), cursor, last, made.state, _text(made.counts)),
    )
    made.id = int(found.fetchone()[0])
    connection.execute("DELETE FROM replay WHERE id <= ? AND state <> 'running'", (made.id - KEPT,))
    return made


def all_of(connection: sqlite3.Connection) -> list[Replay]:
    found = connection.execute(
        "SELECT id, lane, at, who, chosen, cursor, last, state, counts FROM replay ORDER BY id DESC"
    )
    return [
        Replay(
            id=number,
            lane=lane,
            at=at,
            who=who,
            chosen=msgspec.json.decode(chosen, type=Chosen),
            cursor=cursor,
            last=last,
            state=state,
            counts=msgspec.json.decode(counts, type=Counts),
        )
        for number, lane, at, who, chosen, cursor, last, state, counts in found
    ]


def note(connection: sqlite3.Connection, replay: Replay, attempts: Sequence[Attempt], config: int) -> None:
    """One transaction: where it is, and the tries that led there. A cancelled one stays cancelled."""
    connection.execute(
        "UPDATE replay SET cursor = ?, counts = ?, state = CASE state WHEN 'running' THEN ? ELSE state END WHERE id = ?",
        (replay.cursor, _text(replay.counts), replay.state, replay.id),
    )
    for attempt in attempts:
        add_attempt(connection, replay.lane, attempt, config)


def states(connection: sqlite3.Connection, lane: int, first: int, last: int) -> dict[int, str]:
    """What became of the events from ``first`` to ``last`` at a lane, of those of which something is written down."""
    found = dict(
        connection.execute(
            "SELECT seq, state FROM delivery WHERE lane = ? AND seq BETWEEN ? AND ?", (lane, first, last)
        )
    )
    begins = connection.execute("SELECT max(first) FROM run WHERE lane = ? AND first <= ?", (lane, first)).fetchone()[0]
    for begin_, end, state in connection.execute(
        "SELECT first, last, state FROM run WHERE lane = ? AND first BETWEEN ? AND ? AND last >= ?",
        (lane, first if begins is None else begins, last, first),
    ):
        found.update(dict.fromkeys(range(max(first, begin_), min(last, end) + 1), state))
    return found


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
