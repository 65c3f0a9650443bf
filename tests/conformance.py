"""The conformance suite of the outbox contract: a model in plain dictionaries, and a machine that does anything in any
order to both and compares them after every step.

``suite(Engine())`` is the machine for one engine; another engine passes the same suite with an ``Engine`` of its own.
What is to be true, and nothing of how it is done, is in ``Model``; the few things that only the engine can tell (its
secrets, its files, how far the log has been forgotten) are asked of ``Engine``.

Work that the product does on threads is done in place, by ``OneThread``, so that a run repeats exactly and a kill can
fall between any two units of work on the disk.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import datetime as dt
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.event import Clear, Event, User
from router.outbox.log import entries
from router.outbox.log.entries import KEPT, Row, Stored
from router.outbox.outbox import LONGEST_WAIT, Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Settled
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Closing, Due, Mark
from router.outbox.state.lane import Lane
from router.outbox.state.memory import Visitor
from router.outbox.state.registers import Quarantined
from router.outbox.state.replays import Chosen, Counts, Replay
from router.outbox.state.selections import Selection
from router.outbox.upkeep.retention import KEEP_QUARANTINE, LONGEST_CLEAR, Policy
from router.person import Part, Person
from tests.builders import NOW, an_event
from tests.stepped import SteppedClock
from tests.unpacked import unpacked

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SEGMENT_EVENTS = 4
POLICIES = (
    Policy(delivered=7 * DAY, dead=30 * DAY, dedup=DAY),
    Policy(delivered=HOUR, dead=2 * DAY, dedup=5 * DAY),
    Policy(delivered=1000, dead=1000, dedup=1000),
)
NAMES = ("a", "b", "c")
SOURCES = ("shop", "blog")
SUBJECTS = ("s-0", "s-1", "s-2")
STEPS = (1, 1000, MINUTE, HOUR, DAY, 3 * DAY, 8 * DAY, 31 * DAY)


class OneThread(asyncio.SelectorEventLoop):
    """Work for a thread is done at once, in order. ``fuse`` counts down with each; at its end ``blow`` is called."""

    fuse: int | None = None
    blow: Callable[[], None]

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return self._done(self.create_future(), func, *args)

    def submit(self, func: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        """As an executor's, for work that is waited for in place."""
        return self._done(concurrent.futures.Future(), func, *args)

    def _done(self, future: Any, func: Callable[..., Any], *args: Any) -> Any:
        if self.fuse is not None:
            if self.fuse == 0:
                self.blow()
            self.fuse = None if self.fuse == 0 else self.fuse - 1
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is whose who waits
            future.set_exception(error)
        return future


class Hands(SteppedClock):
    """A clock whose hands are moved without waking anybody: retention looks when the machine says so."""

    def turn(self, by: int) -> None:
        self._now += by


class Engine:
    """How to open an outbox, and what only its engine can tell. This is the one on SQLite files."""

    opens: type[Outbox] = Outbox
    loop: Callable[[], OneThread] = OneThread

    async def open(self, directory: Path, clock: Hands, policy: Policy) -> Outbox:
        store = await self.opens.open(directory, clock, policy=policy, segment_events=SEGMENT_EVENTS)
        store.journal._writer._pool.submit = asyncio.get_running_loop().submit  # appends are begun there, too
        return store

    def reader(self, store: Outbox) -> Reader:
        return Reader(store.directory)

    async def idle(self, store: Outbox) -> None:
        """Until what goes on in the background is done."""
        await store.journal.settled()

    def gone(self, store: Outbox) -> int:
        """Of the events up to this one only those are kept that some lane still needs."""
        return next(each for each in store.segments.all if each.number != KEPT).first - 1

    def keys(self, store: Outbox) -> list[bytes]:
        """The secrets under which clear values are kept now, without that of the newest events."""
        return [each.key for each in store.segments.all[:-1] if each.key is not None]

    def on_disk(self, store: Outbox, *needles: bytes) -> list[str]:
        """Which of these bytes are in which file."""
        found = []
        for path in sorted(store.directory.rglob("*")):
            if path.is_file():
                whole = unpacked(path)
                found += [f"{needle!r} in {path.name}" for needle in needles if needle in whole]
        return found


# The model


@dataclass
class Delivery:
    """What became of an event at a lane. ``row``: it waited or ended otherwise than simply, and is found one by one."""

    state: str
    row: bool
    at: int
    attempts: int = 0
    due: int | None = None
    since: int = 0
    subject: str | None = None
    forgotten: bool = False


@dataclass
class Destination:
    """A lane. ``ends`` has every delivery that is not simply waiting, by sequence number."""

    kind: str
    start: int
    quota: int | None
    held: Held | None = None
    stop: int | None = None
    stopped_at: int | None = None
    ends: dict[int, Delivery] = field(default_factory=dict)
    duplicate: int = 0
    unverified: int = 0
    used: Counter[str] = field(default_factory=Counter)
    closed: dict[str, Closing] = field(default_factory=dict)

    def last(self, last: int) -> int:
        return last if self.stop is None else self.stop

    def fresh(self, last: int) -> list[int]:
        return [seq for seq in range(self.start + 1, self.last(last) + 1) if seq not in self.ends]

    def rows(self, state: str) -> dict[int, Delivery]:
        return {seq: each for seq, each in self.ends.items() if each.row and not each.forgotten and each.state == state}

    def cursor(self) -> int:
        cursor = self.start
        while cursor + 1 in self.ends:
            cursor += 1
        return cursor

    def sums(self, last: int) -> dict[str, int]:
        counted = Counter(each.state for each in self.ends.values())
        counted["waiting"] += len(self.fresh(last))
        return {state: counted[state] for state in ("delivered", "waiting", "filtered", "dead", "erased")}

    def past(self, seq: int) -> bool:
        """Is there nothing at or before this event that this lane has not come to yet?"""
        cursor = self.cursor()
        return cursor >= seq or (self.stop is not None and cursor >= self.stop)


@dataclass
class Kept:
    """An accepted event. ``low`` is the earliest that a clock said since; ``passed`` the same since all lanes were past
    it. ``dark``: its clear values cannot be read any more.
    """

    event: Event
    person: str
    low: int
    passed: int | None = None
    erased: bool = False
    dark: bool = False


@dataclass
class Model:
    """What the contract promises, in dictionaries. Every method is one act; its result is the answer that is due."""

    policy: Policy
    events: dict[int, Kept] = field(default_factory=dict)
    lanes: dict[str, Destination] = field(default_factory=dict)
    gone: int = 0
    home: set[int] = field(default_factory=set)  # of those up to ``gone``, what may still be stored
    duplicates: int = 0
    rejected: int = 0
    quarantine: list[Quarantined] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    notes: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    visitors: dict[tuple[str, str], Visitor] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    purged: dict[str, int] = field(default_factory=dict)  # up to when what has expired may have been taken away
    replays: list[Replay] = field(default_factory=list)  # none is changed in place

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        new = replace(
            self,
            events={seq: replace(each) for seq, each in self.events.items()},
            lanes={
                name: replace(
                    each,
                    ends={seq: replace(end) for seq, end in each.ends.items()},
                    used=Counter(each.used),
                    closed=dict(each.closed),
                )
                for name, each in self.lanes.items()
            },
        )
        for name in ("home", "quarantine", "configs", "notes", "visitors", "erased", "purged", "replays"):
            setattr(new, name, copy.copy(getattr(self, name)))
        return new

    @property
    def last(self) -> int:
        return len(self.events)

    def tick(self, now: int) -> None:
        """Something happened at this time."""
        for seq, each in self.events.items():
            each.low = min(each.low, now)
            if each.passed is not None or all(lane.past(seq) for lane in self.lanes.values()):
                each.passed = min(now if each.passed is None else each.passed, now)

    def known(self, source: str, event_id: str, now: int) -> bool | None:
        """Is this id a duplicate now? None where the contract leaves it open: its event was forgotten or erased, or
        the clock went back meanwhile.
        """
        answers = set()
        for seq, each in self.events.items():
            if (each.event.source, each.event.id) == (source, event_id):
                inside = each.event.received >= now - self.policy.dedup
                settled = inside == (each.low >= now - self.policy.dedup)
                answers.add(inside if settled and not (inside and (each.erased or seq <= self.gone)) else None)
        return True if True in answers else None if None in answers else False

    def needed(self, seq: int) -> bool:
        return any(
            lane.ends[seq].row and not lane.ends[seq].forgotten and lane.ends[seq].state in {"waiting", "dead"}
            for lane in self.lanes.values()
            if seq in lane.ends
        )

    def waits(self, seq: int) -> bool:
        return any(
            lane.ends[seq].state == "waiting" if seq in lane.ends else lane.start < seq <= lane.last(self.last)
            for lane in self.lanes.values()
        )

    # Acts

    def append(self, rows: Sequence[tuple[Row, str]], now: int) -> list[bool]:
        answers = []
        for row, person in rows:
            duplicate = bool(self.known(row.source, row.id, now))
            if duplicate:
                self.duplicates += 1
            else:
                self.events[self.last + 1] = Kept(row.read(), person, now)
            answers.append(duplicate)
        return answers

    def lane(self, name: str, quota: int | None) -> None:
        if name in self.lanes:
            self.lanes[name].quota = quota
        else:
            self.lanes[name] = Destination("webhook", self.last, quota)

    def stop(self, name: str, now: int) -> None:
        self.lanes[name].stop, self.lanes[name].stopped_at = self.last, now

    def go_on(self, name: str, now: int) -> None:
        lane = self.lanes[name]
        if lane.stop is not None:
            for seq in range(lane.stop + 1, self.last + 1):
                lane.ends[seq] = Delivery("filtered", row=False, at=now)
            lane.stop = lane.stopped_at = None

    def settle(self, name: str, marks: Sequence[Mark], closing: Sequence[Closing]) -> None:
        lane = self.lanes[name]
        for mark in marks:
            if mark.parked:
                moved = [seq for seq in mark.seqs if seq in lane.rows("waiting")]
                for seq in moved:
                    end = lane.ends[seq]
                    subject = mark.subjects.get(seq, end.subject)
                    lane.ends[seq] = replace(
                        end, state=mark.state, attempts=mark.attempts, due=mark.due, at=mark.at, subject=subject
                    )
            else:
                moved = [seq for seq in mark.seqs if seq not in lane.ends]
                for seq in moved:
                    lane.ends[seq] = Delivery(
                        mark.state,
                        row=not mark.simple(),
                        at=mark.at,
                        attempts=mark.attempts,
                        due=mark.due,
                        since=mark.at,
                        subject=mark.subjects.get(seq),
                    )
            ended = len(moved) if mark.state != "waiting" else 0
            lane.duplicate += ended if mark.duplicate else 0
            lane.unverified += ended if mark.unverified else 0
            if lane.quota is not None and mark.state == "delivered" and not mark.duplicate and not mark.free:
                # The partner took it, also where an operator gave it up while it was under way.
                lane.used[month(mark.at)] += len(mark.seqs) if mark.parked else len(moved)
        if closing:
            now = max((mark.at for mark in marks), default=0)
            self.purged["closed"] = max(self.purged.get("closed", 0), now)
            for each in closing:
                if each.subject not in lane.closed or each.until > lane.closed[each.subject].until:
                    lane.closed[each.subject] = each

    def due(self, name: str, now: int, limit: int, besides: Sequence[int]) -> list[Due]:
        rows = self.lanes[name].rows("waiting").items()
        found = sorted((each.due, seq, each) for seq, each in rows if each.due <= now and seq not in besides)
        return [Due(seq, each.attempts, each.since) for _, seq, each in found[:limit]]

    def behind(self, name: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for seq, each in sorted(self.lanes[name].rows("waiting").items()):
            if each.subject is not None:
                found.setdefault(each.subject, (seq, each.due))
        return found

    def set_back(self, name: str, by: int) -> None:
        for each in self.lanes[name].rows("waiting").values():
            each.due, each.since, each.at = each.due - by, each.since - by, each.at - by

    def chosen(self, name: str, chosen: Selection) -> dict[int, Delivery]:
        return {
            seq: each
            for seq, each in self.lanes[name].rows(chosen.state).items()
            if seq not in chosen.besides and (chosen.seqs is None or seq in chosen.seqs)
        }

    def revive(self, name: str, chosen: Selection, now: int) -> int:
        found = self.chosen(name, chosen) if chosen.state in {"waiting", "dead"} else {}
        for each in found.values():
            each.state, each.due, each.at, each.since = "waiting", now, now, now
            if each.subject in (closed := self.lanes[name].closed) and not closed[each.subject].final:
                del closed[each.subject]  # the partner is asked anew about what it refused
        return len(found)

    def drop(self, name: str, chosen: Selection, fresh: Sequence[int], now: int) -> int:
        found = self.chosen(name, chosen) if chosen.state == "waiting" else {}
        for each in found.values():
            each.state, each.due, each.at = "dead", None, now
        for seq in fresh:
            self.lanes[name].ends[seq] = Delivery("dead", row=True, at=now, since=now)
        return len(found) + len(fresh)

    def opened(self, now: int) -> None:
        for lane in self.lanes.values():
            for each in lane.rows("waiting").values():
                if each.at > now:  # it waits as long as it was to
                    each.due, each.since, each.at = now + each.due - each.at, min(each.since, now), now
                each.due = min(each.due, now + LONGEST_WAIT)

    def look(self, now: int, gone: int) -> list[str]:
        """What retention does, the log being forgotten up to ``gone``. Returns what may not be gone."""
        for lane in self.lanes.values():
            if lane.stopped_at is not None and now - lane.stopped_at >= self.policy.dead:
                for each in lane.rows("waiting").values():
                    each.state, each.due, each.at = "dead", None, now
                for seq in lane.fresh(self.last):
                    lane.ends[seq] = Delivery("filtered", row=False, at=now)
        longest = max(self.policy.delivered, self.policy.dedup)
        wrong = [
            f"event {seq} was forgotten too early"
            for seq in range(self.gone + 1, gone + 1)
            if now - self.events[seq].low < longest or not all(lane.past(seq) for lane in self.lanes.values())
        ]
        if gone < self.gone:
            wrong.append("what was forgotten is back")
        self.home |= {seq for seq in range(self.gone + 1, gone + 1) if self.needed(seq)}
        self.gone = gone
        for lane in self.lanes.values():
            for seq, each in lane.rows("dead").items():
                each.forgotten = seq <= gone and each.at <= now - self.policy.dead
        self.quarantine = [each for each in self.quarantine if each.at > now - KEEP_QUARANTINE]
        return wrong

    def erase(self, people: Sequence[str], now: int) -> dict[str, Any]:
        """The sums of the receipt."""
        found = [
            seq
            for seq, each in self.events.items()
            if each.person in people and not each.erased and (seq > self.gone or self.needed(seq))
        ]
        delivered, ended = Counter[str](), Counter[str]()
        for name, lane in self.lanes.items():
            for seq in found:
                end = lane.ends.get(seq)
                if end is None:
                    continue
                delivered[name] += end.state == "delivered"
                if end.row and not end.forgotten and end.state in {"waiting", "dead"}:
                    ended[name] += 1
                    lane.ends[seq] = replace(end, state="erased", due=None, at=now, subject=None)
        for each in self.events.values():
            each.erased = each.erased or each.person in people
        sessions = [key for key in self.visitors if key[1] in {f"a-{person}" for person in people}]
        for key in sessions:
            del self.visitors[key]
        left = [each for each in self.quarantine if not any(f'"u-{person}"' in (each.item or "") for person in people)]
        quarantined, self.quarantine = len(self.quarantine) - len(left), left
        self.erased |= set(people)
        return {
            "events": len(found),
            "ended": +ended,
            "delivered": +delivered,
            "quarantined": quarantined,
            "sessions": len(sessions),
        }

    def begin_replay(self, lane: int, chosen: Chosen, first: int, now: int) -> Replay | None:
        if any(each.lane == lane and each.state == "running" for each in self.replays):
            return None
        made = Replay(
            id=len(self.replays) + 1,
            lane=lane,
            at=now,
            who="test",
            chosen=chosen,
            cursor=first - 1,
            last=self.last,
            counts=Counts(),
        )
        self.replays.append(made)
        return made

    def note_replay(self, noted: Replay) -> None:
        """A cancelled one stays cancelled."""
        kept = self.replays[noted.id - 1]
        state = noted.state if kept.state == "running" else kept.state
        self.replays[noted.id - 1] = msgspec.structs.replace(noted, state=state)

    def configure(self, digest: str) -> int:
        if not self.configs or self.configs[-1] != digest:
            self.configs.append(digest)
        return len(self.configs)


def month(at: int) -> str:
    return f"{dt.datetime.fromtimestamp(at / 1000, dt.UTC):%Y-%m}"


# The machine


class Conformance(RuleBasedStateMachine):
    """``engine`` is what is tried; ``suite`` makes the class for one."""

    engine: Engine
    counted: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=type(self).engine.loop)
        self.loop: OneThread = self.runner.get_loop()  # type: ignore[assignment]  # its factory made it
        self.root = Path(tempfile.mkdtemp(prefix="turnout-conformance-"))
        self.clock = Hands(NOW)
        self.highest = NOW
        self.places = 0
        self.fuse: int | None = None
        self.snapshot: Path | None = None
        self.people = [f"person-{number:04d}" for number in range(4)]
        self.ids = 0
        self.store: Outbox | None = None
        self.cursors: dict[str, int] = {}

    def run(self, work: Awaitable[Any]) -> Any:
        async def whole() -> Any:
            return await work

        return self.runner.run(whole())

    @initialize(policy=st.sampled_from(POLICIES), lanes=st.integers(1, 2))
    def first_start(self, policy: Policy, lanes: int) -> None:
        self.model = Model(policy)
        self.open_at(self.root / "0")
        for name in NAMES[:lanes]:
            self.add(name, None)

    def teardown(self) -> None:
        try:
            if self.store is not None:
                self.loop.fuse = None
                with contextlib.suppress(Exception):
                    self.run(self.store.close())
        finally:
            self.runner.close()
            shutil.rmtree(self.root)

    # Starting, stopping, and being killed

    def open_at(self, directory: Path) -> None:
        async def opening() -> Outbox:
            store = await self.engine.open(directory, self.clock, self.model.policy)
            await self.engine.idle(store)
            await store.other_lanes(())
            return store

        self.store = self.run(opening())
        self.model.opened(self.clock.now())

    def copy(self) -> None:
        """What a kill at this instant leaves."""
        self.places += 1
        self.snapshot = self.root / str(self.places)
        shutil.copytree(self.store.directory, self.snapshot)

    def start_again(self) -> None:
        """The process is dead; the next one finds what was on disk at that instant."""
        place, self.snapshot = self.snapshot, None
        before = self.store
        self.store = None
        with contextlib.suppress(Exception):  # nobody hears of what it still did
            self.run(before.close())
        self.open_at(place)
        shutil.rmtree(before.directory)

    def does(
        self,
        works: Sequence[Callable[[Outbox], Awaitable[Any]]],
        changes: Sequence[Callable[[Model], Any]],
        *,
        one: bool = True,
    ) -> list[Any] | None:
        """Do these at the same moment, to the outbox and to the model, in this order. Returns the answers of both, or
        None where a kill took them away. ``one``: each is whole or not at all; else it may be asked for again.
        """

        async def together() -> list[Any]:
            done = await asyncio.gather(*(work(self.store) for work in works))
            await self.engine.idle(self.store)
            return done

        self.counted["operations"] += len(works)
        killed = self.fuse is not None
        if killed:
            self.loop.fuse, self.loop.blow, self.fuse = self.fuse, self.copy, None
        answers = self.run(together())
        if killed:
            self.counted["kills"] += 1
            self.loop.fuse = None
            if self.snapshot is None:
                self.copy()
            self.start_again()
            if not one:
                self.run(together())
        stages = [self.model]
        expected = []
        for change in changes:
            stages.append(copy.deepcopy(stages[-1]))
            expected.append(change(stages[-1]))
        if killed and one:
            for stage in stages:
                stage.opened(self.clock.now())
            found = [self.run(self.differences(stage)) for stage in stages]
            assert [] in found, f"after a kill it is neither as before nor as after: {found}"
            self.model = stages[found.index([])]
            self.model.tick(self.clock.now())
            return None
        self.model = stages[-1]
        self.model.tick(self.clock.now())
        return None if killed else list(zip(answers, expected, strict=True))

    def agreed(self, answers: list[Any] | None) -> None:
        for answer, expected in answers or []:
            assert expected == answer, f"said {answer}, expected {expected}"

    def found(self, name: str) -> Lane:
        return self.store.lanes[name]

    @rule(units=st.integers(0, 14))
    def killed_in_the_next(self, units: int) -> None:
        """The next act is cut short by a kill, after so many units of work on the disk."""
        self.fuse = units

    @rule(how=st.sampled_from(("killed", "closed", "killed at the start")), units=st.integers(0, 14))
    def restarted(self, how: str, units: int) -> None:
        self.fuse = None
        if how == "killed":
            self.counted["kills"] += 1
            self.copy()
            self.start_again()
            return
        directory = self.store.directory
        self.run(self.store.close())
        if how == "closed":
            self.open_at(directory)
            return
        self.counted["kills"] += 1
        self.loop.fuse, self.loop.blow = units, self.copy
        self.open_at(directory)
        self.loop.fuse = None
        if self.snapshot is not None:
            self.start_again()

    @rule(
        data=st.data(),
        what=st.sampled_from(("configured", "quarantined", "noted", "visited")),
    )
    def beside(self, data: st.DataObject, what: str) -> None:
        """One of the acts that no delivery depends on."""
        drawn = {
            "configured": (st.integers(0, 2),),
            "quarantined": (st.integers(0, 3), st.integers(1, 3)),
            "noted": (
                st.sampled_from(SOURCES),
                st.lists(st.integers(0, 4), unique=True, max_size=3),
                st.lists(st.integers(0, 4), unique=True, max_size=2),
                st.sampled_from((0, HOUR, 10 * DAY)),
            ),
            "visited": (st.integers(0, 3), st.sampled_from((HOUR, 8 * DAY))),
        }[what]
        getattr(self, what)(*data.draw(st.tuples(*drawn), label=what))

    @rule(data=st.data(), what=st.sampled_from(("explained", "paged", "summed_up", "latest_visitors")))
    def read_by_people(self, data: st.DataObject, what: str) -> None:
        getattr(self, what)(data)

    def configured(self, version: int) -> None:
        digest = f"digest-{version}"
        self.agreed(
            self.does([lambda store: store.configure(digest, "text")], [lambda model: model.configure(digest) and None])
        )
        if self.store.config:
            assert len(self.model.configs) == self.store.config

    # The clock

    @rule(by=st.sampled_from(STEPS))
    def time_passes(self, by: int) -> None:
        self.clock.turn(by)
        self.highest = max(self.highest, self.clock.now())

    @rule(by=st.sampled_from((1, MINUTE, HOUR, DAY, 8 * DAY)), tell=st.booleans())
    def clock_goes_back(self, by: int, tell: bool) -> None:
        self.clock.turn(-by)
        for name in self.model.lanes if tell else ():
            self.does(
                [lambda store, name=name: store.set_back(store.lanes[name], by)],
                [lambda model, name=name: model.set_back(name, by)],
            )

    # Accepting

    events = st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 60), st.booleans(), st.integers(0, 3)), min_size=1, max_size=6
    )

    @rule(calls=st.lists(events, min_size=1, max_size=3))
    def appended(self, calls: list[list[tuple[int, int, bool, int]]]) -> None:
        rows = [[self.row(*each) for each in call] for call in calls]
        now = self.clock.now()
        self.agreed(
            self.does(
                [lambda store, call=call: store.append([row for row, _ in call]) for call in rows],
                [lambda model, call=call: model.append(call, now) for call in rows],
            )
        )

    def row(self, kind: int, which: int, elsewhere: bool, person: int) -> tuple[Row, str]:
        """A new event in seven of ten cases, else one of an earlier id, maybe from another source."""
        now, known = self.clock.now(), list(self.model.events.values())
        if kind >= 7 and known:
            old = known[-1 - which % len(known)]
            source = SOURCES[elsewhere] if kind == 9 else old.event.source
            if not old.erased and self.model.known(source, old.event.id, now) is not None:
                return self.event(old.event.id, source, old.person, now), old.person
        self.ids += 1
        whose = self.people[person]
        return self.event(f"e-{self.ids}-{whose}", SOURCES[elsewhere], whose, now), whose

    def event(self, event_id: str, source: str, person: str, now: int) -> Row:
        return entries.row(
            an_event(
                event_id,
                source=source,
                time=now,
                received=now,
                user=User(id=f"u-{person}", anonymous_id=f"a-{person}"),
                properties={"note": f"trace-of-{person}"},
                clear=Clear(ip=f"198.51.100.{person[-1]}"),
            )
        )

    def quarantined(self, person: int, many: int) -> None:
        rows = [
            Quarantined(
                at=self.clock.now(),
                source="shop",
                code="missing",
                message="add event_name",
                item=f'{{"user":{{"id":"u-{self.people[person]}"}}}}',
            )
        ] * many

        def change(model: Model) -> None:
            model.rejected += len(rows)
            model.quarantine += rows

        self.does([lambda store: store.quarantine(rows)], [change])

    # Lanes

    @rule(name=st.sampled_from(NAMES), quota=st.sampled_from((None, 1000)))
    def add(self, name: str, quota: int | None) -> None:
        self.does(
            [lambda store: store.lane(name, "webhook", quota)],
            [lambda model: model.lane(name, quota)],
        )
        if name in self.model.lanes:
            self.cursors.setdefault(name, self.model.lanes[name].start)

    @precondition(lambda self: self.model.lanes)
    @rule(data=st.data())
    def removed(self, data: st.DataObject) -> None:
        name, now = self.a_lane(data), self.clock.now()
        if self.model.lanes[name].stop is None:
            self.does([lambda store: store.stop(store.lanes[name])], [lambda model: model.stop(name, now)])

    @precondition(lambda self: any(lane.stop is not None for lane in self.model.lanes.values()))
    @rule(data=st.data())
    def brought_back(self, data: st.DataObject) -> None:
        name, now = self.a_lane(data), self.clock.now()
        self.does([lambda store: store.go_on(store.lanes[name])], [lambda model: model.go_on(name, now)])

    @precondition(lambda self: self.model.lanes)
    @rule(data=st.data(), let_go=st.booleans())
    def held(self, data: st.DataObject, let_go: bool) -> None:
        name = self.a_lane(data)
        why = None if let_go else Held(reason="plan", by="partner", at=self.clock.now(), until=self.clock.now() + DAY)

        def change(model: Model) -> None:
            model.lanes[name].held = why

        self.does([lambda store: store.hold(store.lanes[name], why)], [change])

    def a_lane(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.lanes)), label="lane")

    # Settling

    @precondition(lambda self: self.model.lanes and self.model.events)
    @rule(data=st.data())
    def settled(self, data: st.DataObject) -> None:
        calls = []
        for _ in range(data.draw(st.integers(1, 3), label="calls")):
            name = self.a_lane(data)
            marks = [self.mark(data, name) for _ in range(data.draw(st.integers(1, 3), label="marks"))]
            calls.append((name, marks, self.attempts(marks), self.closings(data)))
        self.settle(calls)

    def settle(self, calls: Sequence[tuple[str, list[Mark], list[Attempt], list[Closing]]]) -> None:
        self.does(
            [lambda store, call=call: store.settle(store.lanes[call[0]], *call[1:]) for call in calls],
            [lambda model, call=call: model.settle(call[0], call[1], call[3]) for call in calls],
        )

    def mark(self, data: st.DataObject, name: str) -> Mark:
        """For what is fresh or for what waits, mostly; sometimes for what has an end already."""
        lane, now = self.model.lanes[name], self.clock.now()
        every = range(lane.start + 1, lane.last(self.model.last) + 1)
        fresh, waiting = lane.fresh(self.model.last), sorted(lane.rows("waiting"))
        pools = [(pool, parked) for pool, parked in ((fresh, False), (waiting, True)) if pool]
        if pools and data.draw(st.integers(0, 7), label="usual"):
            pool, parked = data.draw(st.sampled_from(pools), label="pool")
        else:
            pool, parked = list(every), data.draw(st.booleans(), label="parked")
        seqs = data.draw(
            st.lists(st.sampled_from(pool), unique=True, max_size=8) if pool else st.just([]), label="seqs"
        )
        state = data.draw(st.sampled_from(("delivered", "waiting", "dead", "filtered", "erased")), label="state")
        due = now + data.draw(st.sampled_from((-HOUR, 0, 1000, HOUR, DAY, 4 * DAY)), label="due")
        delivered = state == "delivered"
        return Mark(
            seqs=seqs,
            state=state,
            at=now,
            parked=parked,
            attempts=data.draw(st.integers(0, 2), label="attempts"),
            began=now if data.draw(st.booleans(), label="began") else None,
            due=due if state == "waiting" else None,
            status=data.draw(st.sampled_from((None, 200, 500)), label="status"),
            reason="refused" if state in {"dead", "filtered"} else None,
            duplicate=delivered and data.draw(st.booleans(), label="duplicate"),
            unverified=delivered and data.draw(st.booleans(), label="unverified"),
            free=delivered and data.draw(st.booleans(), label="free"),
            subjects={seq: SUBJECTS[seq % len(SUBJECTS)] for seq in seqs},
        )

    def attempts(self, marks: Iterable[Mark]) -> list[Attempt]:
        """What a partner says may be of a person too."""
        found = []
        for mark in marks:
            # What is gone is in nobody's hand, so nobody can be told about it any more.
            there = [seq for seq in mark.seqs if seq > self.model.gone or self.model.needed(seq)]
            about = [self.model.events[seq] for seq in there]
            if about and mark.state in {"waiting", "dead"}:
                words = " ".join(f"what of {each.person}" for each in about if not each.erased)
                found.append(Attempt(seqs=mark.seqs, began=mark.at, at=mark.at, outcome="retry", answer=words))
        return found

    def closings(self, data: st.DataObject) -> list[Closing]:
        now = self.clock.now()
        drawn = st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(("bot", "sold")), st.sampled_from((HOUR, DAY)))
        return [
            Closing(subject, reason, now + seconds, final=subject == SUBJECTS[-1])
            for subject, reason, seconds in data.draw(st.lists(drawn, max_size=2), label="closing")
        ]

    @precondition(lambda self: self.model.lanes)
    @rule(state=st.sampled_from(("delivered", "waiting", "dead")))
    def all_is_settled(self, state: str) -> None:
        """Whatever was not tried yet, of every lane."""
        now = self.clock.now()
        due = now if state == "waiting" else None
        for name, lane in self.model.lanes.items():
            if fresh := lane.fresh(self.model.last):
                self.settle([(name, [Mark(seqs=fresh, state=state, at=now, attempts=1, due=due)], [], [])])

    # What lanes ask

    @precondition(lambda self: self.model.lanes)
    @rule(data=st.data(), limit=st.integers(1, 5), ahead=st.sampled_from((0, HOUR, 5 * DAY)))
    def lane_asks(self, data: st.DataObject, limit: int, ahead: int) -> None:
        name, now = self.a_lane(data), self.clock.now() + ahead
        lane, known = self.model.lanes[name], self.found(name)
        waiting = lane.rows("waiting")
        besides = data.draw(
            st.lists(st.sampled_from(sorted(waiting)), unique=True) if waiting else st.just([]), label="besides"
        )
        assert self.model.due(name, now, limit, besides) == self.run(self.store.due(known, now, limit, besides))
        others = [each.due for seq, each in waiting.items() if seq not in besides]
        assert min(others, default=None) == known.next_due
        self.run(self.store.due(known, now, limit, ()))

    # The operator

    @precondition(lambda self: self.model.lanes)
    @rule(
        data=st.data(),
        state=st.sampled_from(("dead", "dead", "dead", "waiting", "delivered", "filtered", "erased")),
        revive=st.booleans(),
    )
    def operator(self, data: st.DataObject, state: str, revive: bool) -> None:
        name, now = self.a_lane(data), self.clock.now()
        every = sorted(self.model.lanes[name].ends)
        some = st.lists(st.sampled_from(every), unique=True, max_size=6) if every else st.just([])
        seqs = data.draw(st.none() | some, label="seqs")
        chosen = Selection(state=state, seqs=seqs, besides=data.draw(some, label="besides"))
        if revive:
            self.agreed(
                self.does(
                    [lambda store: store.revive(store.lanes[name], chosen, "test")],
                    [lambda model: model.revive(name, chosen, now)],
                )
            )
            return
        fresh = self.model.lanes[name].fresh(self.model.last)
        given_up = fresh[: data.draw(st.integers(0, 3), label="fresh")]
        self.agreed(
            self.does(
                [lambda store: store.drop(store.lanes[name], chosen, given_up, "test")],
                [lambda model: model.drop(name, chosen, given_up, now)],
                one=False,
            )
        )

    # Memory beside the deliveries

    def noted(self, source: str, keys: list[int], forget: list[int], longest: int) -> None:
        self.ids += 1
        now, value = self.clock.now(), f"value-{self.ids}"
        wanted = {f"key-{key}": (value, now + longest) for key in keys}
        gone = [f"key-{key}" for key in forget]

        def change(model: Model) -> None:
            for key in gone:
                model.notes.pop((source, key), None)
            model.notes.update({(source, key): each for key, each in wanted.items()})
            model.purged["notes"] = max(model.purged.get("notes", 0), now)

        self.does([lambda store: store.remember(source, wanted, gone)], [change])

    def visited(self, person: int, gone: int) -> None:
        self.ids += 1
        whose, now = self.people[person], self.clock.now()
        row = Visitor("shop", f"a-{whose}", {"gclid": f"click-{self.ids}-{whose}"}, now)

        def change(model: Model) -> None:
            model.visitors[row.source, row.person] = row
            for key in [key for key, each in model.visitors.items() if each.seen < now - gone]:
                del model.visitors[key]

        self.does([lambda store: store.remember_visitors([row], now - gone)], [change])

    def latest_visitors(self, data: st.DataObject) -> None:
        since = self.clock.now() - data.draw(st.sampled_from((HOUR, 40 * DAY)), label="since")
        most = data.draw(st.integers(1, 5), label="most")
        known = sorted((each.seen for each in self.model.visitors.values() if each.seen >= since), reverse=True)
        assert known[:most][::-1] == [each.seen for each in self.run(self.store.visitors(since, most))]

    # Replays

    @precondition(lambda self: self.model.lanes and self.model.last > self.model.gone)
    @rule(data=st.data())
    def replayed(self, data: st.DataObject) -> None:
        """A replay begins, or one goes on, ends or is cancelled; to deliveries and their sums nothing happens."""
        running = [each for each in self.model.replays if each.state == "running"]
        if running and data.draw(st.integers(0, 2), label="go on"):
            self.replay_goes_on(data, data.draw(st.sampled_from(running), label="replay"))
            return
        there, now = self.found(self.a_lane(data)), self.clock.now()
        first = data.draw(st.integers(self.model.gone + 1, self.model.last), label="first")
        chosen = Chosen(name="page_view", states=("delivered",))
        self.agreed(
            self.does(
                [lambda store: store.begin_replay(store.lanes[there.name], chosen, first, "test")],
                [lambda model: model.begin_replay(there.id, chosen, first, now)],
            )
        )

    def replay_goes_on(self, data: st.DataObject, replay: Replay) -> None:
        cursor = data.draw(st.integers(replay.cursor, replay.last), label="cursor")
        sent = range(max(replay.cursor, self.model.gone) + 1, cursor + 1)
        noted = msgspec.structs.replace(
            replay,
            cursor=cursor,
            counts=Counts(sent=replay.counts.sent + len(sent)),
            state=data.draw(st.sampled_from(("running", "done", "cancelled")), label="state"),
        )
        now = self.clock.now()
        tries = [Attempt(seqs=sent, began=now, at=now, outcome="delivered", status=200)] if sent else []
        self.does([lambda store: store.note_replay(noted, tries)], [lambda model: model.note_replay(noted)])

    # Forgetting

    @rule()
    def looked(self) -> None:
        self.look()

    def look(self) -> None:
        now = self.clock.now()
        answers = self.does(
            [lambda store: store.retention.look()],
            [lambda model: model.look(now, self.engine.gone(self.store))],
            one=False,
        )
        for _, wrong in answers or []:
            assert [] == wrong

    @rule(which=st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True))
    def erased(self, which: list[int]) -> None:
        people, now = [self.people[number] for number in which], self.clock.now()
        told: list[Sequence[Person]] = []
        self.store.on_erase = told.append
        for person in people:
            on_disk = [each for each in self.model.events.values() if each.person == person and not each.erased]
            if any(self.model.events[seq] in on_disk for seq in range(self.model.gone + 1, self.model.last + 1)):
                assert self.engine.on_disk(self.store, person.encode())  # control of the search
        maybe = {
            seq
            for seq in self.model.home
            if self.model.events[seq].person in people
            and not self.model.events[seq].erased
            and not self.model.needed(seq)
        }
        asked = [Person(user_id=f"u-{person}", anonymous_id=f"a-{person}") for person in people]
        old = self.model
        answers = self.does(
            [lambda store: store.erase(asked, "test")], [lambda model: model.erase(people, now)], one=False
        )
        assert told
        for receipt, expected in answers or []:
            assert expected["events"] <= receipt.events <= expected["events"] + len(maybe)
            assert (expected["ended"], expected["quarantined"], expected["sessions"], len(people)) == (
                receipt.ended,
                receipt.quarantined,
                receipt.sessions,
                receipt.people,
            )
            if not any(old.events[seq].person in people for seq in range(1, old.gone + 1)):
                assert expected["delivered"] == receipt.delivered
        for number in which:
            self.ids += 1
            self.people[number] = f"person-{1000 + self.ids:04d}"

    @rule(state=st.sampled_from(("waiting", "dead")), every=st.integers(1, 4))
    def weeks_pass(self, state: str, every: int) -> None:
        """All is delivered but a few, which outlive their segments."""
        now = self.clock.now()
        due = now if state == "waiting" else None
        for name, lane in self.model.lanes.items():
            fresh = lane.fresh(self.model.last)
            few = [seq for seq in fresh if seq % every == 0]
            marks = [
                Mark(seqs=few, state=state, at=now, attempts=1, due=due, subjects=dict.fromkeys(few, SUBJECTS[0])),
                Mark(seqs=[seq for seq in fresh if seq % every], state="delivered", at=now, attempts=1),
            ]
            self.settle([(name, marks, [], [])])
        for by in (DAY, 8 * DAY):
            self.later(by)

    @rule()
    def everything_ends(self) -> None:
        """All is delivered and a long time passes: nothing of it is left, and no secret."""
        self.fuse = None
        now = self.clock.now()
        for name, lane in self.model.lanes.items():
            marks = [
                Mark(seqs=lane.fresh(self.model.last), state="delivered", at=now, attempts=1),
                Mark(seqs=sorted(lane.rows("waiting")), state="delivered", at=now, attempts=2, parked=True),
            ]
            self.settle([(name, marks, [], [])])
        self.later(DAY)
        old = self.engine.keys(self.store)
        assert all(self.engine.on_disk(self.store, key) for key in old)  # control of the search
        self.later(LONGEST_CLEAR)
        assert set(old).isdisjoint(self.engine.keys(self.store))
        assert [] == self.engine.on_disk(self.store, *old)
        self.later(max(self.model.policy.delivered, self.model.policy.dedup, self.model.policy.dead) + DAY)
        assert self.model.last == self.model.gone
        kept = [each.seq for each in self.run(self.store.pick(range(1, self.model.last + 1)))]
        assert [] == kept, kept
        left = self.engine.on_disk(self.store, b"trace-of-")
        assert [] == left, left
        self.model.home.clear()

    def later(self, by: int) -> None:
        """So much later than any clock ever said."""
        self.clock.turn(self.highest - self.clock.now() + by)
        self.highest = self.clock.now()
        for _ in range(2):  # the first one may still have to begin a new segment
            self.look()

    # Rules are drawn alike; these do most of what can go wrong.
    appended_2, settled_2, settled_3, weeks_pass_2, all_is_settled_2 = (
        appended,
        settled,
        settled,
        weeks_pass,
        all_is_settled,
    )

    # What is true after every step

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if self.store is None:
            return
        self.counted["steps"] += 1
        found = self.run(self.differences(self.model))
        assert [] == found, found
        self.model.tick(self.clock.now())
        for name, lane in self.model.lanes.items():
            assert self.cursors.get(name, 0) <= self.found(name).cursor
            self.cursors[name] = self.found(name).cursor
            waiting = lane.rows("waiting").values()
            assert not waiting or self.found(name).next_due <= min(each.due for each in waiting)
        for person in self.people:
            assert not self.store.suppression.blocks(Part(user=User(id=f"u-{person}")))
        for person in self.model.erased:
            assert self.store.suppression.blocks(Part(user=User(anonymous_id=f"a-{person}")))
        left = self.engine.on_disk(self.store, *(person.encode() for person in sorted(self.model.erased)))
        assert [] == left, left

    async def differences(self, model: Model) -> list[str]:
        """Where the outbox is not as the model says."""
        reader, store = self.engine.reader(self.store), self.store
        ledger = await reader.ledger()
        found = unequal(
            "the ledger",
            (model.last + model.duplicates + model.rejected, model.duplicates, model.rejected, model.last, 0),
            (ledger.received, ledger.duplicate, ledger.rejected, ledger.accepted, ledger.difference),
        )
        found += unequal("the last event", model.last, store.last)
        found += unequal("the recount", [], await reader.recount())
        found += unequal("the lanes", set(model.lanes), set(store.lanes))
        told = await reader.settled(1, model.last)
        for name, lane in model.lanes.items():
            if name not in store.lanes:
                continue
            sums, there = ledger.destinations[name], store.lanes[name]
            found += unequal(
                f"the sums of {name}",
                lane.sums(model.last),
                {state: getattr(sums, state) for state in ("delivered", "waiting", "filtered", "dead", "erased")},
            )
            found += unequal(
                f"the place of {name}",
                (lane.start, lane.cursor(), lane.stop, lane.stopped_at, lane.held, lane.quota, lane.held is not None),
                (there.start, there.cursor, there.stop, there.stopped_at, there.held, there.quota, sums.held),
            )
            found += unequal(
                f"what is open at {name}",
                lane.fresh(model.last),
                [seq for seq in range(1, there.last(store.last) + 1) if there.open(seq)],
            )
            found += self.ends(model, name, [each for each in told if each.to == name])
            found += await self.lane_memory(model, name)
        found += await self.stored(model)
        found += await self.remembered(model)
        found += unequal("the replays", model.replays[::-1], await store.replays())
        return found + unequal(
            "the configurations", list(reversed(model.configs)), [each.digest for each in await reader.configs()]
        )

    def ends(self, model: Model, name: str, told: Sequence[Settled]) -> list[str]:
        """Every delivery that has an end or waits for another try is found, one by one, until it is forgotten."""
        lane = model.lanes[name]
        due = {each.seq: None if each.due is None else round(each.due.timestamp() * 1000) for each in told}
        got = {
            each.seq: (each.state, *((each.attempts, due[each.seq]) if lane.ends[each.seq].row else ()))
            for each in told
            if each.seq in lane.ends
        }
        wanted = {
            seq: (each.state, *((each.attempts, each.due) if each.row else ()))
            for seq, each in lane.ends.items()
            if seq > model.gone or (each.row and not each.forgotten and each.state in {"waiting", "dead"})
        }
        known = {seq for seq, each in lane.ends.items() if not each.forgotten}
        return [
            *unequal(f"the deliveries of {name}", wanted, {seq: each for seq, each in got.items() if seq in wanted}),
            *unequal(f"deliveries of {name} that are none", set(), {each.seq for each in told} - known),
            *unequal(f"the number of deliveries of {name}", len(told), len({each.seq for each in told})),
        ]

    async def lane_memory(self, model: Model, name: str) -> list[str]:
        """What a lane would be told if it asked now."""
        lane, there, now = model.lanes[name], self.found(name), self.clock.now()
        next_due = there.next_due
        rows = await self.store.due(there, now + 100 * DAY, 10_000, ())
        there.next_due = next_due  # asking would hide that it was wrong
        found = unequal(f"what waits at {name}", model.due(name, now + 100 * DAY, 10_000, ()), rows)
        found += unequal(f"who is behind at {name}", model.behind(name), await self.store.behind(there, SUBJECTS))
        for at in {month(each): each for each in (now, *(end.at for end in lane.ends.values()))}.values():
            found += unequal(f"what is used at {name}", lane.used[month(at)], await self.store.used(there, at))
        wanted = {subject: (each.reason, each.until) for subject, each in lane.closed.items()}
        told = await self.store.closed(there, SUBJECTS, now)
        became = await self.store.states(there, model.gone + 1, model.last)  # as a replay chooses
        found += unequal(
            f"what became of events at {name}", {s: e.state for s, e in lane.ends.items() if s > model.gone}, became
        )
        return found + open_ended(f"what is closed at {name}", wanted, told, now, model.purged.get("closed", 0))

    async def remembered(self, model: Model) -> list[str]:
        visitors = {(each.source, each.person): each for each in await self.store.visitors(0, 10_000)}
        found = unequal("the visitors", model.visitors, visitors)
        for source in SOURCES:
            wanted = {key: each for (whose, key), each in model.notes.items() if whose == source}
            told, now = await self.store.recall(source), self.clock.now()
            found += open_ended(f"the notes of {source}", wanted, told, now, model.purged.get("notes", 0))
        return found

    async def stored(self, model: Model) -> list[str]:
        """Every event that was accepted is there once, in order and whole, unless it was erased or is past its time."""
        read: list[Stored] = []
        while more := await self.store.read(max(model.gone, read[-1].seq if read else 0), 7):
            read += more
        found = unequal("what is read", list(range(model.gone + 1, model.last + 1)), [each.seq for each in read])
        picked = await self.store.pick(range(1, model.last + 1))
        found += unequal("what is picked", sorted({each.seq for each in picked}), [each.seq for each in picked])
        may = set(range(model.gone + 1, model.last + 1)) | model.home
        must = {seq for seq in may if seq > model.gone or model.needed(seq)}
        got = {each.seq for each in picked}
        found += unequal("events that are missing", set(), must - got)
        found += unequal("events that ought to be gone", set(), got - may)
        now = self.clock.now()
        for each, on_disk in [*((each, False) for each in read), *((each, True) for each in picked)]:
            kept = model.events.get(each.seq)
            if kept is None:
                continue
            found += unequal(f"event {each.seq}'s erasure", kept.erased, each.erased)
            if not kept.erased:
                found += unequal(f"event {each.seq}", without_clear(kept.event), without_clear(each.event))
            if on_disk and each.event is not None and not kept.erased:
                found += self.in_the_clear(model, each.seq, kept, each.event.clear, now)
        return found

    def in_the_clear(self, model: Model, seq: int, kept: Kept, clear: Clear, now: int) -> list[str]:
        """Clear values are there as long as somebody may need them, and do not come back."""
        if clear == kept.event.clear:
            return [f"the clear values of event {seq} are back"] if kept.dark else []
        needless = (seq <= model.gone and not model.waits(seq)) or kept.dark
        kept.dark = True
        if needless or (kept.passed is not None and now - kept.passed >= LONGEST_CLEAR):
            return [] if clear == Clear() else [f"event {seq} has another's clear values"]
        return [f"the clear values of event {seq} are gone too early"]

    # Reads for people

    def explained(self, data: st.DataObject) -> None:
        """Any event at any destination can be explained exactly."""
        model = self.model
        if model.last == model.gone:
            return
        seq = data.draw(st.integers(model.gone + 1, model.last), label="seq")
        kept, reader = model.events[seq], self.engine.reader(self.store)
        if not kept.erased:
            same = [
                number
                for number, each in model.events.items()
                if each.event.id == kept.event.id and number > model.gone and not each.erased
            ]
            found = [each.seq for each in self.run(reader.find(kept.event.id))]
            assert same[::-1] == [number for number in found if number > model.gone]
        story = self.run(reader.story(seq))
        assert (seq, kept.erased, False) == (story.seq, story.erased, story.damaged)
        told = {each.to: each for each in story.destinations}
        for name, lane in model.lanes.items():
            if seq > lane.last(model.last):
                continue
            end = lane.ends.get(seq)
            expected = "earlier" if seq <= lane.start else end.state if end else "waiting"
            assert expected == told[name].state, (name, expected, told[name])
            if end is not None and end.row:
                assert end.attempts == told[name].attempts

    def paged(self, data: st.DataObject) -> None:
        """Pages show every delivery once, newest first."""
        model, reader = self.model, self.engine.reader(self.store)
        to = data.draw(st.sampled_from((None, *sorted(model.lanes))), label="to")
        state = data.draw(st.sampled_from((None, "waiting", "delivered", "filtered", "dead", "erased")), label="state")
        limit = data.draw(st.integers(1, 6), label="limit")
        items, after = [], None
        for _ in range(10 * (model.last + 1) * (len(model.lanes) + 1)):
            page = self.run(reader.deliveries(to, state, limit, after))
            items += page.items
            after = page.next
            if after is None:
                break
        assert after is None, "the pages never end"
        keys = [(each.seq, each.to) for each in items]
        assert len(keys) == len(set(keys))
        assert sorted((seq for seq, _ in keys), reverse=True) == [seq for seq, _ in keys]
        wanted = {
            (seq, name): lane.ends[seq].state if seq in lane.ends else "waiting"
            for name, lane in model.lanes.items()
            for seq in range(max(lane.start, model.gone) + 1, lane.last(model.last) + 1)
            if to in {None, name}
        }
        wanted |= {  # those that came while a lane was away are told as filtered once it is back
            (seq, name): each.state
            for name, lane in model.lanes.items()
            for seq, each in lane.ends.items()
            if to in {None, name}
            and seq <= model.gone
            and each.row
            and not each.forgotten
            and each.state in {"waiting", "dead"}
        }
        wanted = {key: kept for key, kept in wanted.items() if state in {None, kept}}
        got = {(each.seq, each.to): each.state for each in items}
        assert wanted == {key: kept for key, kept in got.items() if key in wanted or key[0] > model.gone}

    def summed_up(self, _: st.DataObject) -> None:
        reader = self.engine.reader(self.store)
        listed = self.run(reader.quarantined(limit=500)).items
        assert [each.at for each in reversed(self.model.quarantine)] == [
            round(each.at.timestamp() * 1000) for each in listed
        ]
        views = {each.name: each for each in self.run(reader.lanes())}
        for name, lane in self.model.lanes.items():
            assert (lane.duplicate, lane.unverified, len(lane.rows("waiting"))) == (
                views[name].duplicate,
                views[name].unverified,
                views[name].retrying,
            )


def without_clear(event: Event | None) -> Event | None:
    return None if event is None else msgspec.structs.replace(event, clear=Clear())


def open_ended(what: str, wanted: dict[str, tuple[str, int]], told: dict[str, str], now: int, purged: int) -> list[str]:
    """What is kept until a time, as (value, until). What had expired by ``purged`` may have been taken away."""
    may = {key: value for key, (value, until) in wanted.items() if until > now}
    must = {key: value for key, value in may.items() if wanted[key][1] > purged}
    return unequal(what, may | told, may) + unequal(what, must, {key: told.get(key) for key in must})


def unequal(what: str, expected: Any, got: Any) -> list[str]:
    return [] if expected == got else [f"{what}: expected {expected}, got {got}"]


def suite(engine: Engine) -> type[Conformance]:
    """The machine that tries this engine."""
    return type(f"Conformance{type(engine).__name__}", (Conformance,), {"engine": engine, "counted": Counter()})
