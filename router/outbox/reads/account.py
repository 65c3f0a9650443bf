"""The account of a lane: what it was given, what became of it, and whether the two meet."""

from __future__ import annotations

from typing import NamedTuple

import aiosqlite
import msgspec

from router.outbox.reads.views import Discrepancy, EventView, LaneSum, LaneView, QuotaView, maybe


class Account(NamedTuple):
    """A row of the lane table; ``beyond`` counts rows and run members above the cursor."""

    id: int
    name: str
    type: str
    start: int
    cursor: int
    delivered: int
    duplicate: int
    unverified: int
    filtered: int
    dead: int
    erased: int
    parked: int
    hold_reason: str | None
    hold_until: int | None
    hold_by: str | None
    held_at: int | None
    limit: int | None
    month: str | None
    used: int | None
    stop: int | None
    beyond: int

    def end(self, last: int) -> int:
        """The last event that is for this lane."""
        return last if self.stop is None else self.stop

    def waiting(self, last: int) -> int:
        """Never less than what has a row: where the log lost its end, nothing is left that could wait there."""
        return self.parked + max(0, self.end(last) - self.cursor - self.beyond)

    def quota(self) -> QuotaView | None:
        """What is used of the latest month in which anything was; None where the partner has no quota."""
        if self.limit is None or self.month is None:
            return None
        return QuotaView(month=self.month, used=self.used or 0, limit=self.limit)

    def difference(self, last: int) -> int:
        """How far its states are from what it was given."""
        ends = self.delivered + self.filtered + self.dead + self.erased
        return (self.end(last) - self.start) - (ends + self.waiting(last))


_LANES = """SELECT id, name, type, start, cursor, delivered, duplicate, unverified, filtered, dead, erased, parked,
    hold_reason, hold_until, hold_by, held_at, quota,
    (SELECT max(month) FROM used WHERE used.lane = lane.id),
    (SELECT events FROM used WHERE used.lane = lane.id ORDER BY month DESC LIMIT 1),
    stop,
    (SELECT count(*) FROM delivery WHERE delivery.lane = lane.id AND delivery.seq > lane.cursor)
    + (SELECT coalesce(sum(last - first + 1), 0) FROM run WHERE run.lane = lane.id AND run.first > lane.cursor)
    FROM lane ORDER BY id"""


async def accounts(state: aiosqlite.Connection) -> list[Account]:
    return [Account(*row) for row in await state.execute_fetchall(_LANES)]


async def trouble(state: aiosqlite.Connection, lane: int) -> str | None:
    """Why a lane that nobody holds does not get on: its partner's last answer, where that was a fault.

    Attempts are looked at from the last one on, whose lane soon comes: the index would have all of its own sorted.
    """
    for outcome, at, reason in await state.execute_fetchall(
        "SELECT outcome, at, reason FROM attempt NOT INDEXED WHERE lane = ? ORDER BY id DESC LIMIT 1", (lane,)
    ):
        delivered = await state.execute_fetchall(
            "SELECT at FROM run WHERE lane = ? AND state = 'delivered' ORDER BY first DESC LIMIT 1", (lane,)
        )
        if outcome == "retry" and all(at >= last for (last,) in delivered):
            return str(reason)
    return None


def total(lane: Account, last: int, failing: str | None) -> LaneSum:
    return LaneSum(
        delivered=lane.delivered,
        waiting=lane.waiting(last),
        filtered=lane.filtered,
        dead=lane.dead,
        erased=lane.erased,
        held=lane.hold_reason is not None,
        hold_reason=lane.hold_reason,
        hold_until=maybe(lane.hold_until),
        quota=lane.quota() or msgspec.UNSET,
        failing=failing or msgspec.UNSET,
    )


def view(lane: Account, last: int, oldest: EventView | None, due: int | None) -> LaneView:
    return LaneView(
        name=lane.name,
        type=lane.type,
        delivered=lane.delivered,
        waiting=lane.waiting(last),
        filtered=lane.filtered,
        dead=lane.dead,
        erased=lane.erased,
        duplicate=lane.duplicate,
        unverified=lane.unverified,
        retrying=lane.parked,
        held=lane.hold_reason is not None,
        hold_reason=lane.hold_reason,
        hold_until=maybe(lane.hold_until),
        hold_by=lane.hold_by,
        held_at=maybe(lane.held_at),
        oldest=oldest.received if oldest else None,
        next_due=maybe(due),
        quota=lane.quota() or msgspec.UNSET,
    )


async def first_parked(state: aiosqlite.Connection, lane: int) -> tuple[int | None, int | None]:
    """The oldest delivery that waits for another try, and when the next one is due."""
    ((seq, due),) = await state.execute_fetchall(
        "SELECT (SELECT min(seq) FROM delivery WHERE lane = ?1 AND state = 'waiting'),"
        " (SELECT min(due) FROM delivery WHERE lane = ?1 AND state = 'waiting')",
        (lane,),
    )
    return seq, due


def first_fresh(lane: Account, last: int) -> int | None:
    """The oldest event that was not tried yet: the one behind the cursor, which moves over everything that ended."""
    return lane.cursor + 1 if lane.end(last) > lane.cursor else None


async def recount(state: aiosqlite.Connection, lane: Account, gone: int) -> list[Discrepancy]:
    """A lane's counters against its rows. Where retention took the rows up to ``gone``, only too many are wrong."""
    rows = await state.execute_fetchall(
        "SELECT state, sum(number) FROM ("
        " SELECT state, count(*) AS number FROM delivery WHERE lane = ?1 GROUP BY state"
        " UNION ALL SELECT state, sum(last - first + 1) FROM run WHERE lane = ?1 GROUP BY state) GROUP BY state",
        (lane.id,),
    )
    counted = {name: int(number) for name, number in rows}
    kept = {
        "waiting for another try": (counted.get("waiting", 0), lane.parked),
        **{name: (counted.get(name, 0), getattr(lane, name)) for name in ("delivered", "filtered", "dead", "erased")},
    }
    whole = gone <= lane.start
    found = [
        each
        for what, (here, there) in kept.items()
        if whole or here > there or what.startswith("waiting")
        for each in differ(lane.name, what, here, there)
    ]
    base = max(lane.start, gone)
    ((covered,),) = await state.execute_fetchall(
        "SELECT (SELECT count(*) FROM delivery WHERE lane = ?1 AND seq > ?2 AND seq <= ?3)"
        " + (SELECT coalesce(sum(min(last, ?3) - max(first, ?2 + 1) + 1), 0) FROM run"
        " WHERE lane = ?1 AND last > ?2 AND first <= ?3)",
        (lane.id, base, lane.cursor),
    )
    return found + differ(lane.name, "events behind the cursor", int(covered), max(0, lane.cursor - base))


def differ(where: str, what: str, counted: int, kept: int) -> list[Discrepancy]:
    return [] if counted == kept else [Discrepancy(where=where, what=what, counted=counted, kept=kept)]
