"""An outbox with very many events in it, made by the product's own door, encoding and append, but without a request each.

``python -m tests.bench.fill --events 5000000 PATH [--destinations 3] [--dead 1]`` makes the directory, with so many lanes
that have taken nothing yet, and prints one JSON line. The event is that of ``tests.bench.accept``, 1 KB as it is sent, with
four identifiers hashed; every visitor sends ten, of a hundred visitors at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from router import door, identifiers
from router.clock import SystemClock
from router.event import Clear, Event, User
from router.identifiers import Raw
from router.outbox.log import entries
from router.outbox.log.entries import Row
from router.outbox.outbox import Outbox
from router.visit import Door, Visit
from tests.bench.accept import EVENT

AT_ONCE = 1000  # events in one append
VISITORS, EACH = 100, 10  # at the same time, and how many events each sends
SOURCE = Door(source="shop", keep_clear=frozenset({"ip", "user_agent"}))


def email(person: int) -> str:
    return f"person-{person}@example.com"


def admitted(now: int) -> Event:
    """What the door makes of the benches' event."""
    made = door.admit(json.loads(json.dumps(EVENT)), SOURCE, Visit(received=now), lambda: "")
    assert isinstance(made, Event)
    return made


@lru_cache(maxsize=2 * VISITORS)
def visitor(person: int) -> tuple[User, Clear]:
    """Somebody with an e-mail address, a phone number, a name and a user id of their own."""
    first, last = f"First{chr(97 + person % 26)}{chr(97 + person // 26 % 26)}", f"Last{chr(97 + person // 676 % 26)}"
    raw = Raw(email=email(person), phone=f"+336{person:08}", first_name=first, last_name=last, user_id=f"u-{person}")
    user = User(id=f"u-{person}", anonymous_id=f"{person:032x}", digests=identifiers.digests(raw)[0])
    return user, Clear(
        ip=f"203.0.{person // 256 % 256}.{person % 256}", user_agent=EVENT["context"]["device"]["user_agent"]
    )  # type: ignore[index]  # a literal


def events(count: int, now: int) -> Iterator[Event]:
    pattern = admitted(now)
    for number in range(count):
        person = number // (VISITORS * EACH) * VISITORS + number % VISITORS
        user, clear = visitor(person)
        yield msgspec.structs.replace(
            pattern, id=str(uuid.uuid4()), time=now + number // 1000, received=now, user=user, clear=clear
        )


def batches(made: Iterator[Event]) -> Iterator[Sequence[Row]]:
    part: list[Row] = []
    for event in made:
        part.append(entries.row(event))
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


async def fill(path: Path, count: int, lanes: Sequence[str]) -> float:
    """Append so many events behind which these lanes wait. Returns the seconds it took."""
    clock = SystemClock()
    store = await Outbox.open(path, clock)
    try:
        for lane in lanes:
            await store.lane(lane, "webhook")
        began = time.perf_counter()
        for rows in batches(events(count, clock.now())):
            await store.append(rows)
        await store.journal.settled()
        return time.perf_counter() - began
    finally:
        await store.close()


def on_disk(path: Path) -> int:
    """Bytes of all files of an outbox."""
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--lanes", nargs="*", default=["snap", "links", "hook"])
    asked = parser.parse_args()
    took = asyncio.run(fill(asked.path, asked.events, asked.lanes))
    told = {
        "name": "fill",
        "events": asked.events,
        "seconds": round(took, 1),
        "bytes_per_event": on_disk(asked.path) / asked.events,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
