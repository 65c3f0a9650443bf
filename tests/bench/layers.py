"""Where the time of one event goes, layer by layer, and what each layer cannot go below.

``python -m tests.bench.layers [--rounds 40]``: prints one JSON line a layer: µs of processor time an event, the best of
many short rounds, and the ``limit`` beside it, the least that any design of this layer would pay, measured in the same way.
The event is that of ``tests.bench.accept``. The first and the last two lines are whole servers under load; what the layers
do not explain of these is what lies between them: tasks, futures, threads, system calls.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from router import body, dialects, identifiers
from router.door import admit
from router.event import Event
from router.outbox.disk import schema
from router.outbox.disk.writer import connect
from router.outbox.log import compression, entries
from router.outbox.log.vault import Vault, new_key
from router.visit import Door, Visit
from tests.bench.accept import EVENT, Noop, Turnout, load
from tests.bench.load import MARK

EVENTS, GROUP = 128, 64
LESS = 4000  # requests a second, of which every server here takes more
DOOR = Door(source="shop", keep_clear=frozenset({"ip", "user_agent", "country"}))
VISIT = Visit(received=1_795_000_000_000)
TEXT = json.dumps(EVENT)


def sent() -> list[bytes]:
    """Bodies as they come, each with an id of its own."""
    return [TEXT.replace(MARK, str(uuid.uuid4())).encode() for _ in range(EVENTS)]


def best(rounds: int, work: Callable[[Any], object], made: Callable[[], Sequence[Any]]) -> float:
    """µs of this thread for one, in the best round."""
    times = []
    for _ in range(rounds):
        load = made()
        began = time.thread_time_ns()
        for each in load:
            work(each)
        times.append((time.thread_time_ns() - began) / 1000 / len(load))
    return min(times)


def items() -> list[Any]:
    return [msgspec.json.decode(each) for each in sent()]


def let_in(item: Any) -> Event:
    event = admit(item, DOOR, VISIT, lambda: "own")
    assert isinstance(event, Event)
    return event


def events() -> list[Event]:
    return [let_in(item) for item in items()]


def groups() -> list[list[entries.Row]]:
    rows = [entries.row(event) for event in events()]
    return [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]


class Store:
    """A log on disk, and beside it a table of the same bytes and no more."""

    def __init__(self, directory: str) -> None:
        self._log = connect(Path(directory) / "log.db", schema.LOG)
        self._bare = sqlite3.connect(f"{directory}/bare.db", isolation_level=None)
        for pragma in ("page_size = 8192", "journal_mode = WAL", "synchronous = FULL"):
            self._bare.execute(f"PRAGMA {pragma}")
        self._bare.execute("CREATE TABLE event(seq INTEGER PRIMARY KEY, payload BLOB)")
        self._vault, self._last = Vault(new_key()), 0

    def append(self, rows: list[entries.Row]) -> None:
        entries.append(self._log, self._last + 1, rows, self._vault, 0)
        self._last += len(rows)

    def bare(self, payloads: list[bytes]) -> None:
        values = [value for pair in enumerate(payloads, self._last + 1) for value in pair]
        self._bare.execute("INSERT INTO event VALUES " + ",".join(["(?,?)"] * len(payloads)), values)
        self._last += len(payloads)


def processor(pid: int) -> float:
    """Seconds that a process and its children have used."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100 + sum(processor(int(child)) for child in children)


def served(server: Turnout | Noop, seconds: float, rate: float | None = None) -> float:
    """µs of its processes for one request, under full load or at so many a second."""
    try:
        load(server.url, body=TEXT, seconds=1.0, connections=64, rate=rate, first=1)
        before = processor(server.process.pid)
        told = load(server.url, body=TEXT, seconds=seconds, connections=64, rate=rate, first=10**9)
        return 1e6 * (processor(server.process.pid) - before) / told["answered"]
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    identifiers.load()

    def say(layer: str, us: float, limit: float | None, what: str) -> None:
        print(json.dumps({"layer": layer, "us": us, "limit": limit, "what": what}), flush=True)

    def layer(work: Callable[[Any], object], made: Callable[[], Sequence[Any]]) -> float:
        return round(best(asked.rounds, work, made), 2)

    noop = served(Noop(), asked.seconds)
    say("http", round(noop, 1), None, "aiohttp and uvloop: a server that reads the body and answers 200")
    say("body", layer(body.read, sent), layer(msgspec.json.decode, sent), "limit: msgspec decodes it")
    reading = layer(lambda item: dialects.read(item, None, {}), items)
    say("dialect", reading, None, "which key means what")
    whole = layer(let_in, items)
    say("door", round(whole - reading, 2), None, "identifiers, scrub, normalise")
    encoded = layer(entries.row, events)
    plain = layer(msgspec.json.encode, events)
    say("row", encoded, plain, "the payload; limit: msgspec encodes the event")
    packed = layer(compression.pack, lambda: [[row.payload for row in each] for each in groups()]) / GROUP
    say("pack", round(packed, 2), None, f"zstd, {GROUP} at a time, without Python's lock")
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        append = layer(store.append, groups) / GROUP
        bare = layer(store.bare, lambda: [compression.pack([row.payload for row in each]) for each in groups()])
    say("append", round(append - packed, 2), round(bare / GROUP, 2), f"{GROUP} a commit; limit: the same bytes, bare")
    say("server", round(served(Turnout(), asked.seconds), 1), round(noop, 1), "all of it; limit: http")
    noop, ours = (served(server(), asked.seconds, LESS) for server in (Noop, Turnout))
    say("server, less", round(ours, 1), round(noop, 1), f"at {LESS} a second, when the core sleeps in between")


if __name__ == "__main__":
    main()
