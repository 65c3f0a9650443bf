"""Reads for people: the ledger, pages of deliveries, the story of one event. Beside a running owner, or on the files alone.

Every read takes its own ``snapshots`` and is cut off after two seconds. Pages go by key, never by offset, and count
nothing by scanning. What is kept encrypted is never opened here, and a digest is shown by its name only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

from router import route, scrub
from router.event import Event
from router.lifecycle import State
from router.outbox.disk.sql import array
from router.outbox.log.entries import KEPT, intact, whole
from router.outbox.reads import account, pages, story
from router.outbox.reads.snapshots import SegmentFile, Snapshots, by_segment, segment_files, segment_of
from router.outbox.reads.views import (
    Accepted,
    Audit,
    AuditView,
    Chapter,
    ConfigView,
    Deliveries,
    Discrepancy,
    Events,
    EventView,
    Exported,
    Found,
    LaneView,
    Ledger,
    Quarantine,
    QuarantineView,
    Settled,
    Story,
    accepted,
    instant,
    maybe,
)

LONGEST_RECOUNT = 60.0  # for one file; the state and each segment are read by themselves
MOST = 500  # entries of one page
_SEQ = re.compile(r"#([0-9]{1,18})", re.ASCII)


class Reader:
    """Reads of one outbox directory. Nothing is held open between two calls.

    OutboxError where there is no outbox or it is newer than this program; ReadTooLong where a read was cut off.
    """

    def __init__(self, directory: Path) -> None:
        self._snapshots = Snapshots(directory)
        self._duplicates: dict[int, int] = {}  # of sealed segments, which never change

    # Sums

    async def ledger(self) -> Ledger:
        """Every event and where it is.

        The state is read before the log: whatever it speaks of is then in the log, and an event that is appended in
        between is simply waiting.
        """
        async with self._snapshots.state() as state:
            lanes, segments, counters = (
                await account.accounts(state),
                await segment_files(state),
                await _counters(state),
            )
            failing = {
                lane.id: await account.trouble(state, lane.id) if lane.parked and not lane.hold_reason else None
                for lane in lanes
            }
        last, duplicate = await self._last(segments), counters.get("duplicate", 0)
        for segment in segments:
            duplicate += await self._duplicate(segment)
        rejected = counters.get("rejected", 0)
        return Ledger(
            received=duplicate + rejected + last,
            duplicate=duplicate,
            rejected=rejected,
            accepted=last,
            destinations={lane.name: account.total(lane, last, failing[lane.id]) for lane in lanes},
            difference=max((lane.difference(last) for lane in lanes), key=abs, default=0),
        )

    async def lanes(self) -> list[LaneView]:
        async with self._snapshots.state() as state:
            lanes, segments = await account.accounts(state), await segment_files(state)
            parked = {lane.id: await account.first_parked(state, lane.id) for lane in lanes}
        last = await self._last(segments)
        oldest = {
            lane.id: min(
                (seq for seq in (parked[lane.id][0], account.first_fresh(lane, last)) if seq is not None), default=0
            )
            for lane in lanes
        }
        events = await self._events(segments, set(oldest.values()))
        return [account.view(lane, last, events.get(oldest[lane.id]), parked[lane.id][1]) for lane in lanes]

    async def notes(self, source: str) -> dict[str, str]:
        """What a source that is polled has written down, expired or not."""
        async with self._snapshots.state() as state:
            return dict(await state.execute_fetchall("SELECT key, value FROM note WHERE source = ?", (source,)))  # type: ignore[arg-type]  # rows are no pairs to the type checker

    async def recount(self) -> list[Discrepancy]:
        """Count everything again, from the rows, and compare with the counters. Seconds to minutes."""
        async with self._snapshots.state(LONGEST_RECOUNT) as state:
            lanes = await account.accounts(state)
            segments = [each for each in await segment_files(state) if each.number != KEPT]
            found = [each for lane in lanes for each in await account.recount(state, lane, segments[0].first - 1)]
        for index, segment in enumerate(segments):
            end = segments[index + 1].first - 1 if index + 1 < len(segments) else None
            wrong = await self._recount_log(segment, end)
            if wrong and segment.number in [each.number for each in await self._all_segments()]:  # else it is retired
                found += wrong
        return found

    async def _recount_log(self, segment: SegmentFile, end: int | None) -> list[Discrepancy]:
        async with self._snapshots.log(segment, LONGEST_RECOUNT) as log:
            if log is None:
                counted, last = 0, segment.first - 1
            else:
                ((counted, last),) = await log.execute_fetchall(
                    "SELECT count(*), coalesce(max(seq), ?) FROM event", (segment.first - 1,)
                )
        kept = (last if end is None else end) - segment.first + 1
        return account.differ(f"log segment {segment.number}", "events", int(counted), kept)

    async def _last(self, segments: Sequence[SegmentFile]) -> int:
        """The last sequence number on disk. A segment whose file is not made yet is empty."""
        if not segments:
            return 0
        newest = segments[-1]
        async with self._snapshots.log(newest) as log:
            if log is None:
                return newest.first - 1
            ((last,),) = await log.execute_fetchall("SELECT coalesce(max(seq), ?) FROM event", (newest.first - 1,))
        return int(last)

    async def _duplicate(self, segment: SegmentFile) -> int:
        if segment.number in self._duplicates:
            return self._duplicates[segment.number]
        async with self._snapshots.log(segment) as log:
            if log is None:
                return 0
            ((number,),) = await log.execute_fetchall("SELECT duplicate FROM total")
        if segment.sealed is not None:
            self._duplicates[segment.number] = int(number)
        return int(number)

    # Events

    async def find(self, text: str) -> list[Found]:
        """The events with this id, as it was sent or as it is kept, newest first; or the one with this sequence number,
        written ``#123``.
        """
        return (await self.find_all([text]))[text]

    async def find_all(self, texts: Sequence[str]) -> dict[str, list[Found]]:
        """As ``find``, for several at once: an open segment has no index by id and is read through once."""
        segments = await self._all_segments()
        found: dict[str, list[Found]] = {text: [] for text in texts}
        numbers = {int(number[1]): text for text in texts if (number := _SEQ.fullmatch(text)) is not None}
        for seq, event in (await self._events(segments, numbers)).items():
            found[numbers[seq]].append(Found(seq, event.source))
        kept: dict[str, list[str]] = {}
        for text in found:
            if text not in numbers.values():
                kept.setdefault(_as_kept(text), []).append(text)
        for segment in reversed(segments if kept else []):
            async with self._snapshots.log(segment) as log:
                if log is not None:
                    rows = await log.execute_fetchall(
                        "SELECT id, seq, source FROM event WHERE id IN (SELECT value FROM json_each(?))"
                        " ORDER BY seq DESC LIMIT ?",
                        (array(kept), MOST + 10 * len(texts)),
                    )
                    for event_id, seq, source in rows:
                        for text in kept[event_id]:
                            found[text].append(Found(seq, source))
        return found

    async def events(self, seqs: Sequence[int]) -> Events:
        """These events, newest first; what is not stored is left out."""
        found = await self._events(await self._all_segments(), seqs)
        return Events(items=[found[seq] for seq in sorted(found, reverse=True)])

    async def recent(self, limit: int, after: str | None = None) -> Events:
        """The newest events; ``after`` is the sequence number at which the page before ended."""
        limit, below = min(limit, MOST), _number(after)
        items: list[EventView] = []
        for segment in reversed(await self._all_segments()):
            if segment.first >= below:
                continue
            async with self._snapshots.log(segment) as log:
                if log is not None:
                    rows = await log.execute_fetchall(
                        f"{_EVENT} WHERE seq < ? ORDER BY seq DESC LIMIT ?", (below, limit - len(items))
                    )
                    items += [_event_view(row) for row in rows]
            if len(items) >= limit:
                return Events(items=items, next=str(items[-1].seq))
        return Events(items=items)

    async def last(self) -> int:
        """The number of the newest event; 0 where there is none yet."""
        return await self._last(await self._all_segments())

    async def first(self) -> int:
        """The number of the oldest event that the log still has, kept ones aside."""
        return next((each.first for each in await self._all_segments() if each.number != KEPT), 1)

    async def following(self, seq: int, limit: int = MOST) -> list[Accepted]:
        """The events after this one, in the order in which they came, with their quality and without matches."""
        limit, items = min(limit, MOST), list[Accepted]()
        segments = await self._all_segments()
        for segment, following in itertools.zip_longest(segments, segments[1:]):
            if len(items) == limit or (following is not None and following.first <= seq + 1):
                continue
            async with self._snapshots.log(segment) as log:
                if log is not None:
                    rows = list(
                        await log.execute_fetchall(
                            "SELECT seq, payload, crc FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
                            (seq, limit - len(items)),
                        )
                    )
                    found = intact([(payload, crc) for _, payload, crc in rows])
                    items += [
                        accepted(number, event, erased=not payload)
                        for (number, payload, _), event in zip(rows, found, strict=True)
                    ]
        return items

    async def story(self, seq: int, rules: Mapping[str, route.Rule] | None = None) -> Story | None:
        """Everything about one event; None where it is not stored (any more). ``rules`` by the lane's name."""
        segments = await self._all_segments()
        segment = segment_of(segments, seq)
        if segment is None:
            return None
        async with self._snapshots.log(segment) as log:
            found = (
                []
                if log is None
                else await log.execute_fetchall(
                    "SELECT seq, id, source, name, time, received, payload, crc, clear IS NOT NULL FROM event"
                    " WHERE seq = ?",
                    (seq,),
                )
            )
        for number, event_id, source, name, at, received, payload, crc, apart in found:
            (event,) = intact([(payload, crc)])
            return Story(
                seq=number,
                segment=segment.number,
                id=event_id,
                source=source,
                name=name,
                dialect=event.dialect if event else None,
                time=instant(at),
                received=instant(received),
                notes=event.notes if event else (),
                digests=story.digests(event),
                fields=story.fields(event),
                apart=bool(apart) and segment.key,
                damaged=event is None and bool(payload),
                erased=not payload,
                destinations=await self._chapters(seq, event, rules or {}),
            )
        return None

    async def _chapters(self, seq: int, event: Event | None, rules: Mapping[str, route.Rule]) -> list[Chapter]:
        async with self._snapshots.state() as state:
            chapters = [await story.chapter(state, lane, seq) for lane in await account.accounts(state)]
        if event is None:
            return chapters
        return [
            msgspec.structs.replace(chapter, checks=story.checks(rules[chapter.to], event))
            if chapter.to in rules and not rules[chapter.to].apart and chapter.state != "earlier"
            else chapter
            for chapter in chapters
        ]

    async def _events(self, segments: Sequence[SegmentFile], seqs: Iterable[int]) -> dict[int, EventView]:
        found: dict[int, EventView] = {}
        for segment, wanted in by_segment(segments, seqs).items():
            async with self._snapshots.log(segment) as log:
                if log is not None:
                    rows = await log.execute_fetchall(
                        f"{_EVENT} WHERE seq IN (SELECT value FROM json_each(?))",  # noqa: S608 - a constant
                        (array(wanted),),
                    )
                    found.update((row[0], _event_view(row)) for row in rows)
        return found

    async def _all_segments(self) -> list[SegmentFile]:
        async with self._snapshots.state() as state:
            return await segment_files(state)

    # Deliveries

    async def deliveries(
        self, to: str | None = None, state: State | None = None, limit: int = 100, after: str | None = None
    ) -> Deliveries:
        """Deliveries, newest events first, of one destination or all, in one state or any.

        ``after`` is the ``next`` of the page before; what is not one is taken for the beginning.
        """
        limit = max(1, min(limit, MOST))
        async with self._snapshots.state() as connection:
            segments = await segment_files(connection)
            last = await self._last(segments)
            lanes = [lane for lane in await account.accounts(connection) if to in {None, lane.name}]
            parts = [
                await pages.ends(connection, lane, state, limit, pages.below(after, lane.id, last), last)
                for lane in lanes
            ]
        order = {lane.name: lane.id for lane in lanes}
        floor = max((part.floor for part in parts), default=0)
        known = [each for part in parts for each in part.items if each.seq >= floor]
        known.sort(key=lambda each: (-each.seq, order[each.to]))
        items = known[:limit]
        following: str | None
        if len(known) > limit:
            following = f"{items[-1].seq}.{order[items[-1].to]}"
        else:
            following = f"{floor}.{max(order.values())}" if floor else None
        events = await self._events(segments, {each.seq for each in items})
        return Deliveries(items=[pages.named(each, events.get(each.seq)) for each in items], next=following)

    async def exported(self, page: Deliveries) -> list[Exported]:
        """A page with its events, without what is kept apart and encrypted."""
        found: dict[int, msgspec.Raw] = {}
        wanted = {each.seq for each in page.items}
        for segment, seqs in by_segment(await self._all_segments(), wanted).items():
            async with self._snapshots.log(segment) as log:
                if log is None:
                    continue
                rows = await log.execute_fetchall(
                    "SELECT seq, payload, crc FROM event WHERE seq IN (SELECT value FROM json_each(?))", (array(seqs),)
                )
                texts = whole([(payload, crc) for _, payload, crc in rows])
                found |= {row[0]: msgspec.Raw(text) for row, text in zip(rows, texts, strict=True) if text}
        return [Exported(**msgspec.structs.asdict(each), event=found.get(each.seq)) for each in page.items]

    async def settled(self, first: int, last: int, to: str | None = None) -> list[Settled]:
        """What has become of the events from ``first`` to ``last``, in their order; nothing of those not tried yet."""
        found: list[Settled] = []
        async with self._snapshots.state() as state:
            for lane, name in await state.execute_fetchall("SELECT id, name FROM lane ORDER BY id"):
                if to in {None, name}:
                    found += await _settled(state, lane, name, first, last)
        return sorted(found, key=lambda each: each.seq)

    async def lane_type(self, name: str) -> str | None:
        """What kind of destination has the lane of this name; None where there is no such lane."""
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall("SELECT type FROM lane WHERE name = ?", (name,))
        return next((str(kind) for (kind,) in rows), None)

    async def count(self, to: str, state: State, seqs: Sequence[int] | None = None) -> int:
        """How many deliveries of a lane are in this state, all or of these events."""
        async with self._snapshots.state() as connection:
            lanes, segments = await account.accounts(connection), await segment_files(connection)
            lane = next((each for each in lanes if each.name == to), None)
            if lane is None:
                return 0
            if seqs is not None:
                last = await self._last(segments)
                chapters = [await story.chapter(connection, lane, seq) for seq in seqs if seq <= last]
                return sum(chapter.state == state for chapter in chapters)
        return lane.waiting(await self._last(segments)) if state == "waiting" else int(getattr(lane, state))

    # Quarantine, audit, configurations

    async def quarantined(self, limit: int = 100, after: str | None = None) -> Quarantine:
        """What could not be accepted, newest first, without the item itself."""
        limit = max(1, min(limit, MOST))
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall(
                "SELECT id, at, source, code, message, event_id, field, NULL FROM quarantine WHERE id < ?"
                " ORDER BY id DESC LIMIT ?",
                (_number(after), limit),
            )
        items = [_quarantine_view(row) for row in rows]
        return Quarantine(items=items, next=str(items[-1].id) if len(items) == limit else None)

    async def quarantine_item(self, number: int) -> QuarantineView | None:
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall(
                "SELECT id, at, source, code, message, event_id, field, item FROM quarantine WHERE id = ?", (number,)
            )
        return next((_quarantine_view(row) for row in rows), None)

    async def quarantined_as(self, event_id: str) -> list[QuarantineView]:
        """What was refused under this event id, newest first."""
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall(
                "SELECT id, at, source, code, message, event_id, field, NULL FROM quarantine WHERE event_id = ?"
                " ORDER BY id DESC LIMIT ?",
                (_as_kept(event_id), MOST),
            )
        return [_quarantine_view(row) for row in rows]

    async def audit(self, limit: int = 100, after: str | None = None) -> Audit:
        """What operators did, newest first."""
        limit = max(1, min(limit, MOST))
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall(
                "SELECT id, at, who, what, selection, count FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
                (_number(after), limit),
            )
        items = [
            AuditView(id=number, at=instant(at), who=who, what=what, selection=selection, count=count)
            for number, at, who, what, selection, count in rows
        ]
        return Audit(items=items, next=str(items[-1].id) if len(items) == limit else None)

    async def configs(self) -> list[ConfigView]:
        """The configurations under which decisions were made, newest first."""
        async with self._snapshots.state() as state:
            rows = await state.execute_fetchall(
                "SELECT version, at, digest FROM config ORDER BY version DESC LIMIT ?", (MOST,)
            )
        return [ConfigView(version=version, at=instant(at), digest=digest) for version, at, digest in rows]


# Values


async def _counters(state: aiosqlite.Connection) -> dict[str, int]:
    return {name: value for name, value in await state.execute_fetchall("SELECT name, value FROM counter")}  # noqa: C416 - rows are not pairs to the type checker


_EVENT = "SELECT seq, id, source, name, time, received FROM event"


def _event_view(row: Sequence[Any]) -> EventView:
    seq, event_id, source, name, at, received = row
    return EventView(seq=seq, id=event_id, source=source, name=name, time=instant(at), received=instant(received))


async def _settled(state: aiosqlite.Connection, lane: int, to: str, first: int, last: int) -> list[Settled]:
    rows = await state.execute_fetchall(
        "SELECT seq, seq, state, attempts, at, due, status, reason FROM delivery WHERE lane = ?1 AND seq BETWEEN ?2 AND ?3"
        " UNION ALL SELECT max(first, ?2), min(last, ?3), state, state = 'delivered', at, NULL, status, reason FROM run"
        " WHERE lane = ?1 AND last >= ?2 AND first BETWEEN"
        " coalesce((SELECT max(first) FROM run WHERE lane = ?1 AND first <= ?2), 0) AND ?3",
        (lane, first, last),
    )
    return [
        Settled(
            seq=seq,
            to=to,
            state=kept,
            attempts=attempts,
            at=instant(at),
            due=maybe(due),
            status=status,
            reason=None if reason in {"duplicate", "unverified"} else reason,
            duplicate=reason == "duplicate",
            unverified=reason == "unverified",
            earlier=True,
        )
        for begin, end, kept, attempts, at, due, status, reason in rows
        for seq in range(begin, end + 1)
    ]


def _quarantine_view(row: Sequence[Any]) -> QuarantineView:
    number, at, source, code, message, event_id, field, item = row
    return QuarantineView(
        id=number,
        at=instant(at),
        source=source,
        code=code,
        message=message,
        event_id=event_id,
        field=field,
        item=item,
    )


def _number(after: str | None) -> int:
    """Entries below this number are meant; what is not one stands for the beginning."""
    return int(after) if after and re.fullmatch(r"[0-9]{1,18}", after, re.ASCII) else 1 << 62


def _as_kept(event_id: str) -> str:
    """An id that is an e-mail address or a phone number is kept as its digest."""
    return scrub.safe_id(event_id.strip(), seldom=True)
