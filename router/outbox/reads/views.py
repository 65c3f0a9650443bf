"""What people are shown of the outbox: the shapes of every read, which are also those of the console's API.

Instants are aware datetimes in UTC, so that they are text with a zone wherever they leave the process.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from router.event import Event
from router.lifecycle import State
from router.quality import Match, Quality, of_event

_FIRST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last that a datetime can be


def instant(at: int) -> dt.datetime:
    """UTC of UTC milliseconds, within the years a datetime knows."""
    return _FIRST + dt.timedelta(milliseconds=max(0, min(at, _LAST)))


def maybe(at: int | None) -> dt.datetime | None:
    return None if at is None else instant(at)


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a partner's quota of events a calendar month (UTC, "2026-11") is used, by our own count."""

    month: str
    used: int
    limit: int


class LaneSum(msgspec.Struct, frozen=True, kw_only=True):
    """``quota`` is there once something counted against one; ``failing`` while a partner's last answer is a passing fault."""

    delivered: int
    waiting: int
    filtered: int
    dead: int
    erased: int
    held: bool
    hold_reason: str | None
    hold_until: dt.datetime | None
    quota: QuotaView | msgspec.UnsetType = msgspec.UNSET
    failing: str | msgspec.UnsetType = msgspec.UNSET


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The sum that must come out.

    ``accepted`` is the sum of a destination's states, for every destination that was there when the event came;
    ``difference`` is the largest deviation from that, and 0.
    """

    received: int
    duplicate: int
    rejected: int
    accepted: int
    destinations: dict[str, LaneSum]
    difference: int


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """A destination's lane as it stands. ``oldest`` is when the longest waiting event was received."""

    name: str
    type: str
    delivered: int
    waiting: int
    filtered: int
    dead: int
    erased: int
    duplicate: int
    unverified: int
    retrying: int
    held: bool
    hold_reason: str | None
    hold_until: dt.datetime | None
    hold_by: str | None
    held_at: dt.datetime | None
    oldest: dt.datetime | None
    next_due: dt.datetime | None
    quota: QuotaView | msgspec.UnsetType = msgspec.UNSET


class Discrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """Two ways to the same number that do not meet."""

    where: str
    what: str
    counted: int
    kept: int


class FileCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What SQLite's own check says of one file; ``missing`` where it is not there or empty, ``unfinished`` where the time
    ran out.
    """

    file: str
    verdict: Literal["whole", "damaged", "missing", "unfinished"]


class Found(msgspec.Struct, frozen=True):
    seq: int
    source: str


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    id: str
    source: str
    name: str
    time: dt.datetime
    received: dt.datetime


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one destination. What is None of the event is no longer stored."""

    seq: int
    to: str
    state: State
    attempts: int
    id: str | None = None
    source: str | None = None
    name: str | None = None
    received: dt.datetime | None = None
    at: dt.datetime | None = None
    due: dt.datetime | None = None
    status: int | None = None
    reason: str | None = None


class Exported(DeliveryView, frozen=True, kw_only=True):
    """A delivery with its event, as it is stored; None where that was erased, is damaged or is no longer stored."""

    event: msgspec.Raw | None = None


class Deliveries(msgspec.Struct, frozen=True, kw_only=True):
    """A page, newest events first. ``next`` goes on below it; it may be given though the page is not full."""

    items: list[DeliveryView]
    next: str | None = None


class Events(msgspec.Struct, frozen=True, kw_only=True):
    items: list[EventView]
    next: str | None = None


class QuarantineView(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be accepted. ``item`` is what may be kept of it, scrubbed, as JSON text."""

    id: int
    at: dt.datetime
    source: str
    code: str
    message: str
    event_id: str | None = None
    field: str | None = None
    item: str | None = None


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    items: list[QuarantineView]
    next: str | None = None


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    at: dt.datetime
    who: str
    what: str
    selection: str
    count: int


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    items: list[AuditView]
    next: str | None = None


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    at: dt.datetime
    digest: str


class Configs(msgspec.Struct, frozen=True, kw_only=True):
    items: list[ConfigView]


class Destinations(msgspec.Struct, frozen=True, kw_only=True):
    items: list[LaneView]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``answer`` is the partner's own text, cut and redacted; ``events`` went with this request."""

    began: dt.datetime
    duration_ms: int
    outcome: str
    events: int
    status: int | None = None
    reason: str | None = None
    answer: str | None = None
    config: int | None = None


class CheckView(msgspec.Struct, frozen=True):
    name: str
    ok: bool
    words: str


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an event at one destination.

    ``earlier``: it came before this destination was there. ``unknown``: no record is kept any more. ``checks`` are made
    with the configuration of now, and not where it has a condition on what is held apart; ``config`` is the version under
    which it was decided. ``hold_reason`` is why it waits where its lane is held.
    """

    to: str
    state: State | Literal["earlier", "unknown"]
    attempts: int = 0
    at: dt.datetime | None = None
    due: dt.datetime | None = None
    status: int | None = None
    reason: str | None = None
    config: int | None = None
    hold_reason: str | None = None
    checks: list[CheckView] = []
    tries: list[AttemptView] = []


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to say about one event.

    ``fields`` is the normalised event without its digests; ``digests`` are those that could be made, by name;
    ``apart``: further values are held apart, encrypted; ``damaged``: the stored bytes do not add up;
    ``erased``: its person asked for that; ``others`` are events of the same id, from other sources or other times.
    """

    seq: int
    segment: int
    id: str
    source: str
    name: str
    dialect: str | None
    time: dt.datetime
    received: dt.datetime
    notes: tuple[str, ...]
    digests: tuple[str, ...]
    fields: dict[str, Any]
    apart: bool
    damaged: bool
    destinations: list[Chapter]
    erased: bool = False
    others: list[Found] = []


# The live view: each message says in ``event`` what it is.


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="accepted"):
    """An event that was just stored, with its quality and how well each destination that is to get it could match it.

    Who it was about is not in it. ``damaged``: the stored bytes do not add up; ``erased``: its person asked for that; of
    both only the number is known.
    """

    seq: int
    id: str | None = None
    name: str | None = None
    source: str | None = None
    dialect: str | None = None
    kind: str | None = None
    received: dt.datetime | None = None
    time: dt.datetime | None = None
    quality: Quality | None = None
    matches: dict[str, Match] = {}
    notes: tuple[str, ...] = ()
    test: bool = False
    damaged: bool = False
    erased: bool = False


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="delivery"):
    """What became of an event at one destination; ``due`` is when a waiting one is tried next.

    ``earlier``: it did not become so just now, but is how it stands; it may have been told before.
    """

    seq: int
    to: str
    state: State
    attempts: int
    id: str | None = None
    at: dt.datetime | None = None
    due: dt.datetime | None = None
    status: int | None = None
    reason: str | None = None
    duplicate: bool = False
    unverified: bool = False
    earlier: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="gap"):
    """So many were left out: deliveries, because they were settled faster than they were read, or events that are no
    longer stored.
    """

    left_out: int
    of: Literal["deliveries", "events"] = "deliveries"


Message = Accepted | Settled | Gap


def accepted(
    seq: int, event: Event | None, matches: dict[str, Match] | None = None, *, erased: bool = False
) -> Accepted:
    """The message of a stored event; None stands for an erased one or for damaged bytes."""
    if event is None:
        return Accepted(seq=seq, damaged=not erased, erased=erased)
    return Accepted(
        seq=seq,
        id=event.id,
        name=event.name,
        source=event.source,
        dialect=event.dialect,
        kind=event.kind,
        received=instant(event.received),
        time=instant(event.time),
        quality=of_event(event),
        matches=matches or {},
        notes=event.notes,
        test=event.test is not None,
    )
