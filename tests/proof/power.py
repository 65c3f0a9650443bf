"""Proof: a power loss at any instant loses no acknowledged event and damages no file.

A process works with the real outbox under a recorder (``power.c``, preloaded): every write, truncation, creation,
unlink and sync of its files in one order, and between them what the outbox acknowledged. Then the plug is pulled, on
paper: at a random place of the record, one in four right behind an acknowledgement. What was synced is kept, and of the
rest each file loses, keeps, tears (at 512 bytes), reorders or garbles what it likes; a new name, and the end of one, is
certain only when its directory was synced. The files that remain are searched for whoever was erased, opened, by SQLite
alone or by the real recovery, and held against every promise made up to that instant. One JSON line says the verdict.

    python -m tests.proof.power --states 100000 --seed 7

Four controls must fail: ``--sabotage normal`` and ``off`` (``PRAGMA synchronous``), ``early`` (acknowledged before the
commit), and ``unsynced`` (a WAL that is emptied after an erasure stays so only if the disk pleases). The states of one
record are drawn from the seed; the record itself differs from run to run, because threads do. ``--keep DIRECTORY`` leaves
the records of failures there.

Not covered: a disk that says it has flushed and has not, and blocks that rot after they were synced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import itertools
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from router import logs
from router.event import Clear, User
from router.outbox.disk import writer
from router.outbox.errors import OutboxError
from router.outbox.log.entries import KEPT
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.registers import Quarantined
from router.outbox.state.selections import Selection
from router.outbox.upkeep.retention import Policy
from router.person import Person
from tests.builders import an_event, rows
from tests.stepped import SteppedClock
from tests.unpacked import unpacked

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
POLICY = Policy(delivered=HOUR, dead=2 * HOUR, dedup=HOUR)
SEGMENT_EVENTS = 40
LANES = ("first", "second")
DONE = {"delivered", "filtered", "erased"}  # ends of which retention keeps nothing
MARKS = "marks"  # the file of acknowledgements, beside those of the outbox
SECTOR = 512  # bytes that a disk writes whole or not at all
STATES_OF_A_RECORD = 2_000
AT_A_MOMENT = 4
WHOLE_EVERY = 8  # of so many states one is opened by the real recovery
LONGEST = 30.0  # seconds for one state: whoever hangs has failed
JUDGES, STATES_OF_A_JUDGE = 2, 100  # at most so many at once, and none is started for fewer states

SABOTAGES = ("normal", "off", "early", "unsynced")


def compiled(directory: Path, name: str = "power") -> Path | None:
    """The recorder, or another C file of this directory, as a library; None without a C compiler or LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = directory / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    # Headers that give pwrite another name, as these two ask for, would take the recorder's own names away.
    flags = ("-std=gnu11", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-U_FILE_OFFSET_BITS")
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


# The work that is recorded


class Work:
    """Writers, two lanes, an operator and retention at one outbox, in rounds; every promise is marked when it is made.

    A mark with a number says what is about to be asked for, ``done`` with that number that it was acknowledged.
    """

    def __init__(self, directory: Path, seed: str) -> None:
        self.directory, self.dice, self.clock = directory, random.Random(seed), SteppedClock()
        self._marks = os.open(directory / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._numbers = itertools.count(1)
        self._people = [f"p{number}" for number in range(12)]
        self._reached = dict.fromkeys(LANES, 0)
        self._states: dict[str, dict[int, str]] = {name: {} for name in LANES}

    def mark(self, **what: object) -> None:
        os.write(self._marks, json.dumps(what).encode() + b"\n")

    async def promised(self, asked: Awaitable[object], **what: object) -> None:
        number = next(self._numbers)
        self.mark(number=number, **what)
        await asked
        self.mark(done=number)

    async def run(self, spells: int = 2, rounds: int = 8) -> None:
        """``spells`` is how often the outbox is opened and closed."""
        for _ in range(spells):
            self.mark(now=self.clock.now())
            self.store = await Outbox.open(self.directory, self.clock, policy=POLICY, segment_events=SEGMENT_EVENTS)
            await self.store.retention.stop()  # it looks when it is told to
            for name in LANES:  # a lane begins with what comes after it
                await self.store.lane(name, "webhook")
            for number in range(rounds):
                await self._round(number)
            await self.store.close()

    async def _round(self, number: int) -> None:
        writers = [self._write(sender) for sender in range(4)]
        lanes = [self._deliver(name) for name in LANES]
        operator = [self._look()] if number % 2 else [self._erase(), self._hold()]
        await asyncio.gather(*writers, *lanes, *operator, self._quarantine())
        if number % 3 == 2:
            await self._revive()
            await Reader(self.directory).ledger()
        self.clock.step(80 * 3600 if number == 4 else self.dice.choice((30, 600, 4000)))
        self.mark(now=self.clock.now())

    async def _write(self, sender: int) -> None:
        for _ in range(self.dice.randint(2, 5)):
            batch = [self._an_event(sender) for _ in range(self.dice.randint(1, 6))]
            await self.store.append(rows(*batch))
            self.mark(acked=[each.id for each in batch])
            if self.dice.random() < 0.1 and all(person_of(each.id) in self._people for each in batch):
                await self.store.append(rows(*batch))

    def _an_event(self, sender: int) -> Any:
        person, now = self.dice.choice(self._people), self.clock.now()
        return an_event(
            f"{sender}-{next(self._numbers)}.{person}",
            received=now,
            time=now,
            user=User(id=token(person)),
            properties={"filler": "x" * self.dice.choice((10, 200, 3000))},
            clear=Clear(user_agent="a browser"),
        )

    async def _deliver(self, name: str) -> None:
        lane = await self.store.lane(name, "webhook")
        for _ in range(3):
            found = await self.store.read(self._reached[name], self.dice.randint(3, 20))
            if not found:
                break
            self._reached[name] = found[-1].seq
            await self._settle(name, lane, found, parked=False)
        due = [each.seq for each in await self.store.due(lane, self.clock.now(), 20, ())]
        await self._settle(name, lane, await self.store.pick(due), parked=True)

    async def _settle(self, name: str, lane: Any, found: Sequence[Any], *, parked: bool) -> None:
        ends: dict[str, list[Any]] = {}
        for each in found:
            weights = (6, 1, 3, 2) if not parked else (6, 0, 2, 2)
            (end,) = self.dice.choices(("delivered", "filtered", "waiting", "dead"), weights)
            ends.setdefault("erased" if each.erased else end, []).append(each)
        settlements = [self._end(name, lane, end, those, parked=parked) for end, those in ends.items()]
        self.dice.shuffle(settlements)
        await asyncio.gather(*settlements)

    async def _end(self, name: str, lane: Any, end: str, those: Sequence[Any], *, parked: bool) -> None:
        seqs, now = [each.seq for each in those], self.clock.now()
        due = now + 1000 * self.dice.randint(1, 5000) if end == "waiting" else None
        made = Mark(seqs=seqs, state=end, at=now, began=now, attempts=1 + parked, due=due, parked=parked)
        tried = [Attempt(seqs=seqs, began=now, at=now, outcome="retry", status=503)] if end == "waiting" else []
        self._states[name].update(dict.fromkeys(seqs, end))
        ids = {each.seq: each.event.id for each in those if each.event}
        settled = self.store.settle(lane, [made], tried)
        await self.promised(settled, lane=name, state=end, at=now, seqs=seqs, ids=ids, parked=parked)

    async def _revive(self) -> None:
        for name in LANES:
            lane = await self.store.lane(name, "webhook")
            seqs = [seq for seq, state in self._states[name].items() if state == "dead"][-5:]
            self._states[name].update(dict.fromkeys(seqs, "waiting"))
            revived = self.store.revive(lane, Selection(state="dead", seqs=seqs), "proof")
            # Those that were erased, or forgotten, stay so.
            await self.promised(revived, lane=name, state="waiting", at=self.clock.now(), seqs=seqs, ids={}, also=True)

    async def _erase(self) -> None:
        """As at the door: nothing new of this person comes any more. What is under way is stored before."""
        person = self._people.pop()
        await self.store.append([])
        await self.promised(self.store.erase([Person(user_id=token(person))], "proof"), erase=person)

    async def _hold(self) -> None:
        name, now = self.dice.choice(LANES), self.clock.now()
        held = None if self.dice.random() < 0.3 else Held(reason=f"held {next(self._numbers)}", by="operator", at=now)
        lane = await self.store.lane(name, "webhook")
        await self.promised(self.store.hold(lane, held), hold=name, reason=held.reason if held else None)

    async def _quarantine(self) -> None:
        refused = f"refused-{next(self._numbers)}"
        row = Quarantined(at=self.clock.now(), source="shop", code="bad_value", message="no", event_id=refused)
        await self.store.quarantine([row])
        self.mark(refused=refused)

    async def _look(self) -> None:
        """Retention; the mark says up to which event it may unlink segments, and before when forget the dead."""
        now, upto = self.clock.now(), 0
        for segment, following in itertools.pairwise(each for each in self.store.segments.all if each.number != KEPT):
            if segment.sealed is not None and now - segment.sealed >= max(POLICY.delivered, POLICY.dedup):
                upto = following.first - 1
        await self.promised(self.store.retention.look(), look=upto, dead=now - POLICY.dead)


def token(person: str) -> str:
    """What is in every event of this person and nowhere else."""
    return f"user-{person}-of-the-proof"


def work(directory: Path, seed: str, sabotage: str | None) -> None:
    """Run in a process of its own, under the recorder. WALs are folded in after a few pages, not after a thousand:
    a second of this has as many checkpoints as an hour in earnest.
    """
    pages = random.Random(seed).choice((4, 16, 64))
    migrate = writer.migrate

    def migrated(connection: sqlite3.Connection, *arguments: Any) -> None:
        migrate(connection, *arguments)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        if sabotage in {"normal", "off"}:
            connection.execute(f"PRAGMA synchronous = {sabotage}")

    writer.migrate = migrated
    if sabotage == "early":
        Outbox.append = acknowledged_early(Outbox.append)
    if sabotage == "unsynced":
        os.fsync = lambda _: None  # what SQLite does by itself stays
    asyncio.run(Work(directory, seed).run())


def acknowledged_early(append: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Answers at once and stores a little later: what this proof must notice."""
    under_way: set[asyncio.Task[None]] = set()

    async def early(self: Outbox, batch: Sequence[Any]) -> list[bool]:
        async def later() -> None:
            await asyncio.sleep(0.005)
            with contextlib.suppress(OutboxError):
                await append(self, batch)

        task = asyncio.create_task(later())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return [False] * len(batch)

    return early


# The record


OPEN, CLOSE, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, MKDIR = range(1, 9)
_HEAD = struct.Struct("=iiqq")


class Operation(NamedTuple):
    kind: int
    descriptor: int
    offset: int  # of an open, its flags
    data: bytes  # or paths


def recorded(trace: Path) -> list[Operation]:
    found, text, at = [], trace.read_bytes(), 0
    while at < len(text):
        kind, descriptor, offset, size = _HEAD.unpack_from(text, at)
        at += _HEAD.size
        found.append(Operation(kind, descriptor, offset, text[at : at + size]))
        at += size
    return found


Change = tuple[int, bytes | None]  # (offset, data), or (length, None) for a truncation


_versions = itertools.count(1)


class File:
    """What of a file is certain, and what was done to it since it was synced."""

    def __init__(self) -> None:
        self.certain = bytearray()
        self.since: list[Change] = []
        self.version = next(_versions)

    def sync(self) -> None:
        if self.since:
            apply(self.certain, self.since)
            self.since.clear()
            self.version = next(_versions)

    def survivor(self, dice: random.Random) -> bytes:
        """What is found after the power is back."""
        if not self.since:
            return bytes(self.certain)
        fate, found, since = dice.choice(FATES), bytearray(self.certain), list(self.since)
        chance = dice.choice((0.1, 0.5, 0.9))
        if fate == "lost":
            since = []
        elif fate == "cut":
            since = since[: dice.randint(0, len(since))]
        elif fate in {"some", "shuffled"}:
            since = [change for change in since if dice.random() < chance]
        elif fate in {"torn", "garbled"}:
            since = [piece for change in since for piece in sectors(change) if dice.random() < chance]
        if fate == "shuffled":
            dice.shuffle(since)
        if fate == "garbled":  # the file has grown, and some of its new blocks hold what was on the disk before
            size = max((offset + len(data) for offset, data in since if data is not None), default=0)
            found += dice.randbytes(max(0, size - len(found)))
        apply(found, since)
        return bytes(found)


FATES = ("lost", "kept", "cut", "some", "shuffled", "torn", "torn", "garbled")


def apply(content: bytearray, changes: Iterable[Change]) -> None:
    for offset, data in changes:
        if len(content) < offset:
            content += bytes(offset - len(content))
        if data is None:
            del content[offset:]
        else:
            content[offset : offset + len(data)] = data


def sectors(change: Change) -> Iterator[Change]:
    offset, data = change
    if data is None:
        yield change
        return
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        yield offset + start, data[start:end]
        start = end


class Entry(NamedTuple):
    """A change of a directory that is not certain yet: the name is of this file (None: a directory), or of none."""

    at: int  # number of the operation
    name: str
    file: File | None
    gone: bool


class Disk:
    """Follows a record. ``operations`` are told one after the other; ``survivors`` may be asked at any place.

    Names are relative to the root, which is certain. SQLite's and the product's own names are all there is.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self.names: dict[str, File | None] = {"": None}
        self._certain: dict[str, File | None] = {}
        self._entries: list[Entry] = []
        self._open: dict[int, tuple[str, File | None]] = {}
        self._at = self._synced = 0

    def do(self, operation: Operation) -> bytes | None:
        """Returns what was written where that is a mark."""
        self._at += 1
        kind, descriptor, offset, data = operation
        if kind == OPEN:
            self._opened(descriptor, self._name(data), offset)
        elif kind == CLOSE:
            del self._open[descriptor]
        elif kind in {WRITE, TRUNCATE}:
            name, file = self._open[descriptor]
            assert file is not None
            file.since.append((offset, data if kind == WRITE else None))
            return data if name == MARKS else None
        elif kind == SYNC:
            self._sync(*self._open[descriptor])
        elif kind == MKDIR:
            self._enter(self._name(data), None)
        elif kind == UNLINK:
            self._leave(self._name(data))
        else:
            before, after = (self._name(part) for part in data.split(b"\0"))
            self._enter(after, self.names[before])
            self._leave(before)
        return None

    def _name(self, path: bytes) -> str:
        return os.fsdecode(path)[len(self._root) + 1 :]

    def _opened(self, descriptor: int, name: str, flags: int) -> None:
        if name not in self.names:
            self._enter(name, File())
        file = self.names[name]
        if flags & os.O_TRUNC and file is not None:
            file.since.append((0, None))
        self._open[descriptor] = name, file

    def _enter(self, name: str, file: File | None) -> None:
        self.names[name] = file
        self._entries.append(Entry(self._at, name, file, gone=False))

    def _leave(self, name: str) -> None:
        self._entries.append(Entry(self._at, name, self.names.pop(name), gone=True))

    def _sync(self, name: str, file: File | None) -> None:
        self._synced = self._at
        if file is not None:
            file.sync()
            return
        self._certain = entered(self._certain, (each for each in self._entries if parent(each.name) == name))
        self._entries = [each for each in self._entries if parent(each.name) != name]

    def survivors(self, dice: random.Random) -> dict[str, tuple[bytes | None, int | None]]:
        """Name -> content (None: a directory), and the version of it where all of it was certain."""
        names = entered(self._certain, self._surviving(dice))
        found: dict[str, tuple[bytes | None, int | None]] = {}
        for name, file in sorted(names.items()):
            if parent(name) and parent(name) not in found:
                continue
            version = file.version if file is not None and not file.since else None
            found[name] = (None if file is None else file.survivor(dice), version)
        return found

    def _surviving(self, dice: random.Random) -> list[Entry]:
        """Of the directories' changes: as a journal has it, everything before the latest sync of anything and some of
        what followed; or by the letter of POSIX, where each name is for itself; or that with unlinks that came early.
        """
        rule, entries = dice.choice(("journal", "letter", "unlinks")), self._entries
        if rule == "journal":
            certain = sum(each.at < self._synced for each in entries)
            return entries[: dice.randint(certain, len(entries))]
        reached = {name: dice.choice((0, dice.randrange(self._at + 1), self._at)) for name in self._touched()}
        kept = [each for each in entries if each.at <= reached[each.name]]
        if rule == "unlinks":
            kept += [each for each in entries if each.gone and each.at < self._synced and each not in kept]
            kept.sort(key=lambda each: each.at)
        return kept

    def _touched(self) -> list[str]:
        return sorted({each.name for each in self._entries})


def entered(names: dict[str, File | None], entries: Iterable[Entry]) -> dict[str, File | None]:
    found = dict(names)
    for each in entries:
        if not each.gone:
            found[each.name] = each.file
        elif found.get(each.name, each) is each.file:  # a name that was given anew is not taken away by an older end
            found.pop(each.name, None)
    return found


def parent(name: str) -> str:
    return name.rpartition("/")[0]


def differences(root: Path, operations: Iterable[Operation]) -> list[str]:
    """Files that the record, played to its end, does not give byte for byte: then it has missed something."""
    disk = Disk(root)
    for operation in operations:
        disk.do(operation)
    played = {}
    for name, file in disk.names.items():
        if file is not None:
            file.sync()
            played[name] = bytes(file.certain)
    real = {
        os.fspath(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith("-shm") and path.name != "in-hand"
    }
    return sorted(name for name in played.keys() | real.keys() if played.get(name) != real.get(name))


# What was promised, and what is found


class Promises:
    """What is owed at a place of the record. ``possible``: lane -> sequence number -> states that its delivery may have
    now, with the instant of each; a single one where that was acknowledged and nothing was asked for since.
    """

    def __init__(self) -> None:
        self.now = SteppedClock().now()
        self.acked: set[str] = set()
        self.refused: set[str] = set()
        self.erasing: set[str] = set()
        self.erased: set[str] = set()  # people
        self.seqs: dict[str, int] = {}
        self.possible: dict[str, dict[int, list[tuple[str, int]]]] = {name: {} for name in LANES}
        self.sure: dict[str, set[int]] = {name: set() for name in LANES}
        self.held: dict[str, list[str | None]] = {name: [None] for name in LANES}
        self.looking = False  # is retention at work?
        self.unlinked = 0  # events up to here may be gone where nobody needs them
        self.dead_before = 0  # dead deliveries from before may be gone
        self._asked: dict[int, dict[str, Any]] = {}
        self._people: dict[int, str] = {}

    def take(self, line: bytes) -> None:
        mark = json.loads(line)
        if "number" in mark:
            self._asked[mark["number"]] = mark
            self._ask(mark)
        elif "done" in mark:
            self._keep(self._asked.pop(mark["done"]))
        elif "acked" in mark:
            self.acked.update(mark["acked"])
        elif "refused" in mark:
            self.refused.add(mark["refused"])
        else:
            self.now = mark["now"]

    def _ask(self, mark: dict[str, Any]) -> None:
        if "erase" in mark:
            self.erasing.add(mark["erase"])
        elif "hold" in mark:
            self.held[mark["hold"]].append(mark["reason"])
        elif "look" in mark:
            self.looking, self.unlinked, self.dead_before = True, max(self.unlinked, mark["look"]), mark["dead"]
        else:
            for seq, event_id in mark["ids"].items():
                self.seqs[event_id] = int(seq)
                self._people[int(seq)] = person_of(event_id)
            for seq in mark["seqs"]:
                self.possible[mark["lane"]].setdefault(seq, []).append((mark["state"], mark["at"]))

    def _keep(self, mark: dict[str, Any]) -> None:
        if "erase" in mark:
            self.erased.add(mark["erase"])
        elif "hold" in mark:
            self.held[mark["hold"]] = [mark["reason"]]
        elif "look" in mark:
            self.looking = False
        elif "also" not in mark:
            for seq in mark["seqs"]:
                # An erasure that comes first stands: what then becomes of a request under way is not written down.
                erased = [("erased", mark["at"])] if mark["parked"] and self._people.get(seq) in self.erasing else []
                self.possible[mark["lane"]][seq] = [(mark["state"], mark["at"]), *erased]
            self.sure[mark["lane"]].update(mark["seqs"])

    def broken(self, found: Found) -> str | None:
        """The first promise that was not kept."""
        for event_id in self.acked - found.ids:
            if person_of(event_id) not in self.erasing and not self._may_be_gone(self.seqs.get(event_id, 1 << 62)):
                return f"event {event_id} was acknowledged and is not there"
        if back := sorted({person_of(each) for each in found.ids & self.acked} & self.erased):
            return f"events of {back} were erased and are there"
        if self.refused - found.quarantined:
            return "a quarantined item was acknowledged and is not there"
        if found.suppressed < len(self.erased):
            return "somebody who was erased is not kept out"
        for name in LANES:
            if found.held.get(name) not in self.held[name]:
                return f"lane {name} is held as {found.held.get(name)}, not as {self.held[name]}"
            if settlement := self._settlement_broken(name, found):
                return settlement
        return None

    def _settlement_broken(self, name: str, found: Found) -> str | None:
        there = found.states.get(name, {})
        for seq in self.sure[name]:
            possible, state = self._possible(name, seq), there.get(seq)
            if state is None:
                if seq > self.unlinked or not self._ended(possible):
                    return f"what became of {seq} at {name} was acknowledged and is not there"
            elif not any(state == each for each, _ in possible):
                return f"delivery of {seq} at {name} is {state}, not {possible}"
        return None

    def _possible(self, name: str, seq: int) -> list[tuple[str, int]]:
        """With what an erasure makes of it."""
        possible = self.possible[name].get(seq, [])
        if self._people.get(seq) in self.erasing and any(state in {"waiting", "dead"} for state, _ in possible):
            return [*possible, ("erased", self.now)]
        return possible

    def _may_be_gone(self, seq: int) -> bool:
        return seq <= self.unlinked and all(self._ended(self._possible(name, seq)) for name in LANES)

    def _ended(self, possible: Sequence[tuple[str, int]]) -> bool:
        return any(state in DONE or (state == "dead" and at <= self.dead_before) for state, at in possible)


def person_of(event_id: str) -> str:
    return event_id.rpartition(".")[2]


class Found:
    """What the files say. ``damage`` is what SQLite says about them, or that one is missing."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.states: dict[str, dict[int, str]] = {}
        self.held: dict[str, str | None] = {}
        self.quarantined: set[str] = set()
        self.suppressed = 0
        self.segments: list[int] = []
        self.damage: str | None = None


Known = dict[int, set[str]]  # of files without a WAL: version -> ids


def look(directory: Path, same: dict[str, int], known: Known, mode: str = "rw") -> Found:
    """Read everything, with SQLite alone. ``mode`` rw recovers what a crash left, as the product does."""
    found = Found()
    if not (directory / "state.db").exists():
        return found
    try:
        with opened(directory / "state.db", mode) as state:
            read_state(state, found)
        for number in found.segments:
            name = f"log/{number:08d}.db"
            ids = known.get(same[name]) if name in same else None
            if ids is None:
                with opened(directory / name, mode) as segment:
                    ids = read_segment(segment, name)
            if name in same:
                known[same[name]] = ids
            found.ids |= ids
    except (sqlite3.Error, Damaged) as error:
        found.damage = str(error)
    return found


class Damaged(Exception):
    pass


@contextlib.contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None)
    try:
        if (verdict := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            raise Damaged(f"{path.name}: {verdict[0][0]}")
        yield connection
    finally:
        connection.close()


def read_state(state: sqlite3.Connection, found: Found) -> None:
    if state.execute("PRAGMA user_version").fetchone() == (0,):
        return  # its making was cut short
    names = {}
    for number, name, reason in state.execute("SELECT id, name, hold_reason FROM lane"):
        names[number], found.held[name], found.states[name] = name, reason, {}
    for lane, first, last, end in state.execute("SELECT lane, first, last, state FROM run"):
        found.states[names[lane]].update(dict.fromkeys(range(first, last + 1), end))
    for lane, seq, end in state.execute("SELECT lane, seq, state FROM delivery"):
        found.states[names[lane]][seq] = end
    found.quarantined = {each for (each,) in state.execute("SELECT event_id FROM quarantine")}
    (found.suppressed,) = state.execute("SELECT count(*) FROM suppressed").fetchone()
    found.segments = [number for (number,) in state.execute("SELECT number FROM segment ORDER BY number")]


def read_segment(segment: sqlite3.Connection, name: str) -> set[str]:
    """The ids of its events, all of them whole."""
    found = segment.execute("SELECT id, payload, crc FROM event").fetchall()
    if any(zlib.crc32(payload) != crc for _, payload, crc in found):
        raise Damaged(f"{name}: an event is damaged")
    return {event_id for event_id, _, _ in found}


async def recover(directory: Path, promises: Promises) -> tuple[str, str] | None:
    """The real start, and work after it: (what kind of failure, its words).

    A retirement that was cut short has taken rows whose segment is still there, and the audit misses them; the next
    look ends it. So where retention was at work, the sums are held to account after that look and not before.
    """
    clock = SteppedClock(promises.now)
    try:
        store = await Outbox.open(directory, clock, policy=POLICY, segment_events=SEGMENT_EVENTS)
    except (OutboxError, sqlite3.Error) as error:
        return "corrupt", f"it does not start: {error}"
    try:
        await store.retention.stop()
        await store.journal.settled()
        fresh = an_event("fresh.nobody", received=promises.now)
        if await store.append(rows(fresh)) != [False]:
            return "lost", "a new event was taken for a known one"
        promises.acked.add("fresh.nobody")
        try:
            found = look(directory, {}, {}, "ro")
            if failure := judged(found, promises):
                return failure
            if left := leftovers(directory / "log", found.segments):
                return "left", f"of segments that are gone there is still {left}"
        finally:
            promises.acked.remove("fresh.nobody")
        reader = Reader(directory)
        for looked in (False, True):
            wrong = [] if promises.looking and not looked else await reader.recount()
            if wrong or (await reader.ledger()).difference:
                return "differs", f"the ledger does not add up: {wrong}"
            await store.retention.look()
    except (OutboxError, sqlite3.Error) as error:
        return "corrupt", f"it does not work after the start: {error!r}"
    finally:
        await store.close()
    return None


def leftovers(log: Path, segments: Sequence[int]) -> list[str]:
    """Files with events of segments that the log has no more. A newer one was about to be made."""
    return [
        path.name
        for path in sorted([*log.glob("*.db"), *log.glob("*.db-wal")])
        if int(path.name[:8]) < max(segments) and int(path.name[:8]) not in segments and path.stat().st_size
    ]


def judged(found: Found, promises: Promises) -> tuple[str, str] | None:
    if found.damage is not None:
        return "corrupt", found.damage
    broken = promises.broken(found)
    return None if broken is None else ("lost", broken)


# Judging the states of one record


class Job(NamedTuple):
    """Which states of a record one judge takes, and where it says how far it is."""

    root: str
    trace: str
    seed: str
    states: int
    share: int
    shares: int
    after: int
    progress: str
    place: str  # for the files of a state


def judge(job: Job) -> None:
    """Prints a line for every state that is not as it must be. A state that hangs ends the process."""
    logs.configure("error", sys.stderr)
    operations = recorded(Path(job.trace))
    numbers = range(job.share, job.states, job.shares)
    places = moments(operations)
    cuts = sorted(
        (place_of(random.Random(f"{job.seed} cut {each}"), each, operations, places), each) for each in numbers
    )
    disk, promises, done, known = Disk(Path(job.root)), Promises(), 0, Known()
    progress = os.open(job.progress, os.O_WRONLY | os.O_CREAT)
    for position, (cut, number) in enumerate(cuts):
        while done < cut:
            if line := disk.do(operations[done]):
                promises.take(line)
            done += 1
        if position < job.after:
            continue
        os.pwrite(progress, f"{position:10d}".encode(), 0)
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        dice = random.Random(f"{job.seed} state {number}")
        failure = one(Path(job.place), disk, promises, known, dice, whole=number % WHOLE_EVERY == 0)
        faulthandler.cancel_dump_traceback_later()
        if failure is not None:
            print(json.dumps([failure[0], f"state {number}, cut at {cut}: {failure[1]}"]), flush=True)
    os.pwrite(progress, f"{len(cuts):10d}".encode(), 0)


def moments(operations: Sequence[Operation]) -> list[list[int]]:
    """The places right behind an acknowledgement, by what was promised."""
    marks = next(each.descriptor for each in operations if each.kind == OPEN and each.data.endswith(b"/marks"))
    asked: dict[int, str] = {}
    found: dict[str, list[int]] = {}
    for at, (kind, descriptor, _, data) in enumerate(operations, 1):
        if kind == WRITE and descriptor == marks:
            mark = json.loads(data)
            if "number" in mark:
                asked[mark["number"]] = list(mark)[1]
            elif "now" not in mark:
                found.setdefault(asked.get(mark.get("done"), next(iter(mark))), []).append(at)
    return [*found.values()]


def place_of(dice: random.Random, number: int, operations: Sequence[Operation], places: Sequence[Sequence[int]]) -> int:
    """Anywhere; of so many states one is cut at such a moment, and the rarest promise has as many as the others."""
    return dice.choice(dice.choice(places)) if number % AT_A_MOMENT == 1 else dice.randrange(len(operations) + 1)


def memory() -> str | None:
    """Where the states of files are written: they need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def one(
    directory: Path, disk: Disk, promises: Promises, known: Known, dice: random.Random, *, whole: bool
) -> tuple[str, str] | None:
    survivors = disk.survivors(dice)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, (content, _) in survivors.items():
        if content is None:
            (directory / name).mkdir()
        elif name != MARKS:
            (directory / name).write_bytes(content)
    left = traces(directory, promises.erased)
    kept = None if left is None else ("kept", left)
    if whole:
        return asyncio.run(recover(directory, promises)) or kept
    with_wal = {
        name.removesuffix("-wal") for name, (content, _) in survivors.items() if name.endswith("-wal") and content
    }
    same = {name: kept for name, (_, kept) in survivors.items() if kept is not None and name not in with_wal}
    return judged(look(directory, same, known), promises) or kept


def traces(directory: Path, people: Iterable[str]) -> str | None:
    """Where bytes are that an acknowledged erasure had overwritten; before anybody opens the files, and folds WALs in."""
    needles = {person: token(person).encode() for person in people}
    for path in directory.rglob("*") if needles else ():
        content = unpacked(path) if path.is_file() else b""
        if back := sorted(person for person, needle in needles.items() if needle in content):
            return f"of {back}, who were erased, there is still something in {path.name}"
    return None


# The proof


async def prove(
    *, states: int, seed: int, sabotage: str | None = None, keep: Path | None = None
) -> dict[str, Any] | None:
    """Record and judge until so many states were seen. None where nothing can be recorded.

    ``verdict`` is "ok", or the gravest of what was found: "unrecorded", "corrupt", "lost", "kept" (bytes of who was
    erased), "wedged", "differs" (the ledger) or "left" (files of what was forgotten).
    """
    counts: dict[str, int] = dict.fromkeys(("unrecorded", "corrupt", "lost", "kept", "wedged", "differs", "left"), 0)
    first: dict[str, str] = {}
    operations = 0
    with tempfile.TemporaryDirectory() as name:
        library = compiled(Path(name))
        if library is None:
            return None
        for number, start in enumerate(range(0, states, STATES_OF_A_RECORD)):
            place = Path(name) / f"record-{number}"
            made, failures = await _record(place, library, f"{seed}-{number}", sabotage)
            operations += made
            if not failures:
                failures = await _judged(place, f"{seed}-{number}", min(states - start, STATES_OF_A_RECORD))
            for kind, words in failures:
                counts[kind] += 1
                first.setdefault(kind, f"record {number}, {words}")
            if failures and keep is not None:
                shutil.copytree(place, keep / f"{seed}-{number}")
            shutil.rmtree(place)
    return {
        "name": "power-loss",
        "seed": seed,
        "states": states,
        **{kind: count for kind, count in counts.items() if kind != "unrecorded"},
        "operations": operations,
        "control": sabotage,
        "verdict": next((kind for kind, count in counts.items() if count), "ok"),
        "first": first,
    }


async def _record(place: Path, library: Path, seed: str, sabotage: str | None) -> tuple[int, list[tuple[str, str]]]:
    """How many operations were recorded; a record that is not whole is a failure."""
    root, trace = place / "outbox", place / "trace"
    root.mkdir(parents=True)
    environment = {"LD_PRELOAD": str(library), "POWER_ROOT": str(root), "POWER_TRACE": str(trace), "PATH": ""}
    code = f"from tests.proof.power import *; work(Path({str(root)!r}), {seed!r}, {sabotage!r})"
    code_of_end, _, told = await ran(code, environment)
    if code_of_end:
        raise RuntimeError(f"the recorded work ended with {code_of_end}: {told.decode()[-2000:]}")
    operations = await asyncio.to_thread(recorded, trace)
    missed = await asyncio.to_thread(differences, root, operations)
    return len(operations), [("unrecorded", f"these files differ from the record: {missed}")] if missed else []


async def _judged(place: Path, seed: str, states: int) -> list[tuple[str, str]]:
    judges = max(1, min(JUDGES, states // STATES_OF_A_JUDGE))
    with tempfile.TemporaryDirectory(dir=memory()) as each:
        jobs = [
            Job(
                root=str(place / "outbox"),
                trace=str(place / "trace"),
                seed=seed,
                states=states,
                share=share,
                shares=judges,
                after=0,
                progress=f"{each}/progress-{share}",
                place=f"{each}/{share}",
            )
            for share in range(judges)
        ]
        parts = await asyncio.gather(*(_share(job) for job in jobs))
    return [failure for part in parts for failure in part]


async def _share(job: Job) -> list[tuple[str, str]]:
    """One judge's states; where one hangs, another judge goes on behind it."""
    found: list[tuple[str, str]] = []
    mine = len(range(job.share, job.states, job.shares))
    while job.after < mine:
        code = f"from tests.proof.power import *; judge(Job(*{tuple(job)!r}))"
        code_of_end, lines, told = await ran(code)
        found += [(kind, words) for kind, words in map(json.loads, lines.splitlines())]
        reached = int(Path(job.progress).read_text()) if Path(job.progress).exists() else -1
        if code_of_end and b"Timeout" not in told:
            raise RuntimeError(f"a judge ended with {code_of_end}: {told.decode()[-2000:]}")
        if code_of_end:
            found.append(("wedged", f"place {reached} of share {job.share}: no end after {LONGEST} s"))
        job = job._replace(after=reached + 1)
    return found


async def ran(code: str, environment: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    """Python code in a process of its own: how it ended, and what it printed on both outputs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, told = await asyncio.wait_for(process.communicate(), 600)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, out, told


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--states", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", choices=SABOTAGES)
    options.add_argument("--keep", type=Path)
    chosen = options.parse_args()
    result = asyncio.run(prove(states=chosen.states, seed=chosen.seed, sabotage=chosen.sabotage, keep=chosen.keep))
    if result is None:
        sys.exit("nothing can be recorded here: install a C compiler (cc or gcc) on Linux")
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
