"""What became of deliveries: runs for what is simply done, rows for the rest, attempts for what went wrong.

A delivery that ends at its first try, or is filtered, is part of a *run*: consecutive events with the same end. Every
other delivery has a row of its own. All events up to a lane's cursor are in one of the two; beyond the cursor some may
be, because requests finish out of order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from router.lifecycle import State
from router.outbox.disk.sql import array
from router.outbox.state import bounds, memory


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
