"""What became of the accepted events: lanes with their cursors, runs for what is simply done, rows for the rest.

Everything of this module runs on the state file's own thread, as one transaction a call. Counters change in the
transaction of the rows they count.

A delivery that ends at its first try, or is filtered, is part of a *run*: consecutive events with the same end. Every
other delivery has a row of its own. All events up to a lane's cursor are in one of the two; beyond the cursor some may
be, because requests finish out of order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from router.lifecycle import State, may_move
from router.outbox import bounds, memory
from router.outbox.log import Segment
from router.outbox.sql import array

DROPPED = "dropped by the operator"
AWAY = "its destination was not in the configuration when the event came"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One end, or one more waiting, shared by some events of a lane.

    ``parked``: they already have a row. ``attempts`` counts requests so far; ``began`` and ``at`` are UTC ms of the
    request and of its answer; ``due`` is when a waiting delivery may go again.
    """

    seqs: Sequence[int]
    state: State
    at: int
    parked: bool = False
    attempts: int = 0
    began: int | None = None
    due: int | None = None
    status: int | None = None
    reason: str | None = None
    duplicate: bool = False
    unverified: bool = False
    free: bool = False  # of the partner's quota
    subjects: Mapping[int, str] = {}  # by sequence number, where later events about the same must not overtake

    def simple(self) -> bool:
        """May it be part of a run?"""
        return not self.parked and self.attempts <= 1 and self.state in {"delivered", "filtered"}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request that did not simply deliver. ``answer`` is the partner's own text, cut and redacted."""

    seqs: Sequence[int]
    began: int
    at: int
    outcome: str
    status: int | None = None
    reason: str | None = None
    answer: str | None = None


class Closing(msgspec.Struct, frozen=True):
    """No event about this subject is to be sent until then (UTC ms), for this reason.

    ``final``: because one of them was delivered; else because one was refused, and an operator's retry asks anew.
    """

    subject: str
    reason: str
    until: int
    final: bool = False


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """``metered``: what is delivered counts against a monthly quota."""

    lane: int
    cursor: int
    marks: Sequence[Mark] = ()
    attempts: Sequence[Attempt] = ()
    closing: Sequence[Closing] = ()
    metered: bool = False


class Due(msgspec.Struct, frozen=True):
    """``since`` is when its waiting began (UTC ms): its first fault, or the operator's retry."""

    seq: int
    attempts: int
    since: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Why a lane waits. ``by`` is "partner" or "operator"; only the first is probed."""

    reason: str
    by: str
    at: int
    until: int | None = None


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    name: str
    type: str
    start: int
    cursor: int
    held: Held | None
    quota: int | None = None
    stop: int | None = None
    stopped_at: int | None = None


def settle(connection: sqlite3.Connection, settlements: Sequence[Settlement], config: int) -> None:
    """Write down what became of some deliveries. Simple ends of one lane that came together share their runs."""
    runs: dict[tuple[object, ...], list[Mark]] = {}
    for each in settlements:
        for mark in each.marks:
            if mark.simple():
                runs.setdefault((each.lane, mark.state, mark.status, _note(mark)), []).append(mark)
            elif mark.parked:
                _move(connection, each.lane, mark, config)
            else:
                _park(connection, each.lane, mark, config)
        for attempt in each.attempts:
            add_attempt(connection, each.lane, attempt, config)
        _remember(connection, each)
    for (lane_id, *_), marks in runs.items():
        _run(connection, lane_id, marks, config)
    cursors = {each.lane: each.cursor for each in settlements}  # in order, and a cursor never goes back
    connection.executemany(
        "UPDATE lane SET cursor = ? WHERE id = ?", [(to, lane_id) for lane_id, to in cursors.items()]
    )


def _remember(connection: sqlite3.Connection, settlement: Settlement) -> None:
    if settlement.closing:
        rows = [(each.subject, each.reason, each.until, each.final) for each in settlement.closing]
        now = max((mark.at for mark in settlement.marks), default=0)
        memory.close(connection, settlement.lane, rows, now)
    if settlement.metered:
        for mark in settlement.marks:
            if mark.state == "delivered" and not mark.duplicate and not mark.free:
                memory.use(connection, settlement.lane, mark.at, len(mark.seqs))


def stretches(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of every stretch of consecutive numbers."""
    ordered = sorted(seqs)
    if not ordered:
        return
    first = previous = ordered[0]
    for seq in ordered[1:]:
        if seq != previous + 1:
            yield first, previous
            first = seq
        previous = seq
    yield first, previous


def _run(connection: sqlite3.Connection, lane: object, marks: Sequence[Mark], config: int) -> None:
    first_mark = marks[0]
    began = min((mark.began for mark in marks if mark.began is not None), default=None)
    at = max(mark.at for mark in marks)
    rows = [
        (lane, first, last, first_mark.state, at, began, first_mark.status, _note(first_mark), config)
        for first, last in stretches([seq for mark in marks for seq in mark.seqs])
    ]
    connection.executemany("INSERT INTO run VALUES(?,?,?,?,?,?,?,?,?)", rows)
    for mark in marks:
        _count(connection, lane, mark, len(mark.seqs))


def _park(connection: sqlite3.Connection, lane: int, mark: Mark, config: int) -> None:
    connection.executemany(
        "INSERT INTO delivery VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                lane,
                seq,
                mark.state,
                mark.attempts,
                mark.due,
                mark.at,
                mark.at,
                mark.status,
                _note(mark),
                config,
                mark.subjects.get(seq),
            )
            for seq in mark.seqs
        ],
    )
    _count(connection, lane, mark, len(mark.seqs))
    if mark.state == "waiting":
        connection.execute("UPDATE lane SET parked = parked + ? WHERE id = ?", (len(mark.seqs), lane))


def _move(connection: sqlite3.Connection, lane: int, mark: Mark, config: int) -> None:
    """Only a waiting row moves: an operator may have dropped it while its request was under way."""
    moved = connection.execute(
        "UPDATE delivery SET state = ?, attempts = ?, due = ?, at = ?, status = ?, reason = ?, config = ?,"
        " subject = coalesce(json_extract(?, '$.' || seq), subject)"
        " WHERE lane = ? AND state = 'waiting' AND seq IN (SELECT value FROM json_each(?))",
        (
            mark.state,
            mark.attempts,
            mark.due,
            mark.at,
            mark.status,
            _note(mark),
            config,
            msgspec.json.encode(mark.subjects).decode(),
            lane,
            array(mark.seqs),
        ),
    ).rowcount
    _count(connection, lane, mark, moved)
    if mark.state != "waiting":
        connection.execute("UPDATE lane SET parked = parked - ? WHERE id = ?", (moved, lane))


def _note(mark: Mark) -> str | None:
    if mark.reason is None and mark.duplicate:
        return "duplicate"
    return "unverified" if mark.reason is None and mark.unverified else mark.reason


def _count(connection: sqlite3.Connection, lane: object, mark: Mark, number: int) -> None:
    if mark.state == "waiting":
        return
    column = mark.state  # one of the lifecycle's words, each a column
    connection.execute(f"UPDATE lane SET {column} = {column} + ? WHERE id = ?", (number, lane))  # noqa: S608 - a closed set
    if mark.duplicate or mark.unverified:
        connection.execute(
            "UPDATE lane SET duplicate = duplicate + ?, unverified = unverified + ? WHERE id = ?",
            (number if mark.duplicate else 0, number if mark.unverified else 0, lane),
        )


def add_attempt(connection: sqlite3.Connection, lane: int, attempt: Attempt, config: int) -> None:
    seqs = list(stretches(attempt.seqs))
    connection.execute(
        "INSERT INTO attempt(lane, first, last, seqs, began, at, outcome, status, reason, answer, config)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        (
            lane,
            seqs[0][0],
            seqs[-1][1],
            msgspec.json.encode(seqs).decode(),
            attempt.began,
            attempt.at,
            attempt.outcome,
            attempt.status,
            attempt.reason,
            None if bounds.answers_full(connection) else attempt.answer,
            config,
        ),
    )
    bounds.forget_old_tries(connection, lane, seqs[0][0], seqs[-1][1])


def lane(connection: sqlite3.Connection, name: str, kind: str, last: int, quota: int | None) -> LaneRow:
    """The lane of a destination; a new one begins behind the events that are already there."""
    connection.execute(
        "INSERT INTO lane(name, type, start, cursor, quota) VALUES(?, ?, ?, ?, ?)"
        " ON CONFLICT(name) DO UPDATE SET type = excluded.type, quota = excluded.quota",
        (name, kind, last, last, quota),
    )
    return next(row for row in lanes(connection) if row.name == name)


def lanes(connection: sqlite3.Connection) -> list[LaneRow]:
    found = connection.execute(
        "SELECT id, name, type, start, cursor, hold_reason, hold_until, hold_by, held_at, quota, stop, stopped_at FROM lane ORDER BY id"
    )
    return [
        LaneRow(
            id=number,
            name=name,
            type=kind,
            start=start,
            cursor=cursor,
            held=Held(reason=reason, by=by, at=at, until=until) if reason is not None else None,
            quota=quota,
            stop=stop,
            stopped_at=stopped_at,
        )
        for number, name, kind, start, cursor, reason, until, by, at, quota, stop, stopped_at in found
    ]


def ended_beyond(connection: sqlite3.Connection, number: int, cursor: int) -> list[range]:
    """Stretches above the cursor that already have an end or a row: requests finish out of order."""
    rows = connection.execute("SELECT seq FROM delivery WHERE lane = ? AND seq > ?", (number, cursor))
    runs = connection.execute("SELECT first, last FROM run WHERE lane = ? AND first > ?", (number, cursor))
    single = [range(first, last + 1) for first, last in stretches([seq for (seq,) in rows])]
    return single + [range(first, last + 1) for first, last in runs]


def stop(connection: sqlite3.Connection, number: int, last: int, now: int) -> None:
    """The lane's destination is gone: what comes after ``last`` is not for it."""
    connection.execute("UPDATE lane SET stop = ?, stopped_at = ? WHERE id = ?", (last, now, number))


def go_on(connection: sqlite3.Connection, number: int, first: int, last: int, now: int, config: int) -> None:
    """The lane's destination is back: what came from ``first`` to ``last``, while it was away, is not for it."""
    connection.execute("UPDATE lane SET stop = NULL, stopped_at = NULL WHERE id = ?", (number,))
    filter_all(connection, number, first, last, now, AWAY, config)


def filter_all(
    connection: sqlite3.Connection, number: int, first: int, last: int, now: int, reason: str, config: int
) -> None:
    """These events, of which nothing was written down yet, are not for the lane: one run, however many they are."""
    if last < first:
        return
    connection.execute(
        "INSERT INTO run VALUES(?,?,?,'filtered',?,NULL,NULL,?,?)", (number, first, last, now, reason, config)
    )
    connection.execute("UPDATE lane SET filtered = filtered + ? WHERE id = ?", (last - first + 1, number))


def due(connection: sqlite3.Connection, number: int, now: int, limit: int, besides: Sequence[int] = ()) -> list[Due]:
    """Waiting rows whose time has come, the longest overdue first, without those that are in hand."""
    found = connection.execute(
        "SELECT seq, attempts, since FROM delivery WHERE lane = ? AND state = 'waiting' AND due <= ?"
        " AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY due, seq LIMIT ?",
        (number, now, array(besides), limit),
    )
    return [Due(*row) for row in found]


def next_due(connection: sqlite3.Connection, number: int, besides: Sequence[int] = ()) -> int | None:
    found = connection.execute(
        "SELECT due FROM delivery WHERE lane = ? AND state = 'waiting'"
        " AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY due LIMIT 1",
        (number, array(besides)),
    ).fetchone()
    return None if found is None else int(found[0])


def clamp_due(connection: sqlite3.Connection, now: int, latest: int) -> None:
    """What was written later than now was so under another clock: it waits as long as it was to, from now on. Nothing
    is due beyond ``latest``.
    """
    connection.execute(
        "UPDATE delivery SET due = ?1 + due - at, since = min(since, ?1), at = ?1 WHERE state = 'waiting' AND at > ?1",
        (now,),
    )
    connection.execute("UPDATE delivery SET due = ? WHERE state = 'waiting' AND due > ?", (latest, latest))


def last_attempt(connection: sqlite3.Connection) -> int | None:
    """When the newest remembered request was answered (UTC ms)."""
    found = connection.execute("SELECT at FROM attempt ORDER BY id DESC LIMIT 1").fetchone()
    return None if found is None else int(found[0])


def set_back(connection: sqlite3.Connection, number: int, by: int) -> None:
    connection.execute(
        "UPDATE delivery SET due = due - ?1, since = since - ?1, at = at - ?1 WHERE lane = ?2 AND state = 'waiting'",
        (by, number),
    )


def reached(connection: sqlite3.Connection) -> int:
    """The highest sequence number that anything was written about."""
    found = connection.execute(
        "SELECT max(max(cursor, coalesce((SELECT max(seq) FROM delivery WHERE delivery.lane = lane.id), 0),"
        " coalesce((SELECT last FROM run WHERE run.lane = lane.id ORDER BY first DESC LIMIT 1), 0))) FROM lane"
    )
    return int(found.fetchone()[0] or 0)


def segments(connection: sqlite3.Connection) -> list[Segment]:
    found = connection.execute("SELECT number, first, opened, key, sealed, passed FROM segment ORDER BY number")
    return [
        Segment(number=number, first=first, opened=opened, key=secret, sealed=sealed, passed=passed)
        for number, first, opened, secret, sealed, passed in found
    ]


def add_segment(connection: sqlite3.Connection, segment: Segment) -> None:
    connection.execute(
        "INSERT INTO segment(number, first, key, opened) VALUES(?,?,?,?)",
        (segment.number, segment.first, segment.key, segment.opened),
    )


def seal_segment(connection: sqlite3.Connection, segment: Segment) -> None:
    connection.execute("UPDATE segment SET sealed = ? WHERE number = ?", (segment.sealed, segment.number))


def hold(connection: sqlite3.Connection, number: int, held: Held | None) -> None:
    connection.execute(
        "UPDATE lane SET hold_reason = ?, hold_until = ?, hold_by = ?, held_at = ? WHERE id = ?",
        (held.reason, held.until, held.by, held.at, number) if held else (None, None, None, None, number),
    )


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


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A parseable event that could not be accepted: its reason, and what may be kept of it, scrubbed, as JSON."""

    at: int
    source: str
    code: str
    message: str
    event_id: str | None = None
    field: str | None = None
    item: str | None = None


def quarantine(connection: sqlite3.Connection, rows: Sequence[Quarantined]) -> bool:
    """Count what was turned away, and keep it where there is room. Returns whether there was."""
    room = not bounds.quarantine_full(connection)
    connection.executemany(
        "INSERT INTO quarantine(at, source, event_id, code, field, message, item) VALUES(?,?,?,?,?,?,?)",
        [(row.at, row.source, row.event_id, row.code, row.field, row.message, row.item) for row in rows if room],
    )
    connection.execute(
        "INSERT INTO counter VALUES('rejected', ?) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
        (len(rows),),
    )
    return room


def audit(connection: sqlite3.Connection, at: int, who: str, what: str, selection: str, count: int) -> None:
    connection.execute(
        "INSERT INTO audit(at, who, what, selection, count) VALUES(?,?,?,?,?)", (at, who, what, selection, count)
    )


def config(connection: sqlite3.Connection, at: int, digest: str, text: str) -> int:
    """The version number of a configuration: the newest one's where nothing changed, else a new one."""
    newest = connection.execute("SELECT version, digest FROM config ORDER BY version DESC LIMIT 1").fetchone()
    if newest is not None and newest[1] == digest:
        return int(newest[0])
    connection.execute("INSERT INTO config(at, digest, text) VALUES(?,?,?)", (at, digest, text))
    return int(connection.execute("SELECT max(version) FROM config").fetchone()[0])
