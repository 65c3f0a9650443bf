"""How long the door takes for one event: a program, not a test, since a shared machine keeps no time.

One JSON line for each dialect, event and kind of visitor:

``us``            µs of processor time for one event, the best round of many; the collector of garbage runs as ever
``yardstick_us``  the same for decoding and encoding that event's own JSON with msgspec, in the same process
``ratio``         the first over the second, which carries over from machine to machine
``slowest_100``   ms of the slowest hundred events in a row
``instructions``  of one event, counted by valgrind where ``--instructions`` asks for it; this hardly varies

A visitor is ``known`` when the identifiers were seen before, and ``new`` when they were not. Every event has its own id,
order number, click id and time, as events have.

    python tests/bench/admit.py [--instructions]
"""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from router import identifiers, samples
from router.door import admit
from router.event import Event
from router.visit import Door, Visit

NOW = 1_795_000_000_000
DOOR = Door(source="shop", default_country="FR", keep_clear=frozenset({"ip", "user_agent"}))
VISIT = Visit(received=NOW)
ROUNDS, EVENTS, KNOWN = 20, 500, 50
COUNTED = 500  # events under valgrind


def items(dialect: str, name: str, visitors: Iterator[int]) -> list[dict[str, Any]]:
    """Events of shop visitors who gave their e-mail address, phone number, names and country."""
    dice = random.Random(1)
    return [samples.sample(name, dialect, 2 * next(visitors), dice, NOW - place) for place in range(EVENTS)]


def microseconds(work: Callable[[Any], object], load: list[Any]) -> float:
    started = time.thread_time_ns()
    for each in load:
        work(each)
    return (time.thread_time_ns() - started) / 1000 / len(load)


def let_in(item: dict[str, Any]) -> Event:
    event = admit(item, DOOR, VISIT, lambda: "own-id")
    assert isinstance(event, Event)
    return event


def known(dialect: str, name: str) -> Iterator[list[dict[str, Any]]]:
    while True:
        yield items(dialect, name, itertools.cycle(range(KNOWN)))


def new(dialect: str, name: str) -> Iterator[list[dict[str, Any]]]:
    visitors = itertools.count(10_000)
    while True:
        yield items(dialect, name, visitors)


KINDS = {"known": known, "new": new}


def measured(dialect: str, name: str, kind: str) -> dict[str, Any]:
    source = KINDS[kind](dialect, name)
    times: list[float] = []
    hundreds: list[float] = []
    for _ in range(ROUNDS):
        parts = [microseconds(let_in, hundred) for hundred in in_hundreds(next(source), kind)]
        times.append(sum(parts) / len(parts))
        hundreds += parts
    texts = [msgspec.json.encode(item) for item in next(source)]
    yardstick = min(
        microseconds(lambda text: msgspec.json.encode(msgspec.json.decode(text)), texts) for _ in range(ROUNDS)
    )
    return {
        "dialect": dialect,
        "event": name,
        "visitor": kind,
        "bytes": sum(map(len, texts)) // len(texts),
        "us": round(min(times), 1),
        "yardstick_us": round(yardstick, 2),
        "ratio": round(min(times) / yardstick, 1),
        "slowest_100": round(max(hundreds) / 10, 1),
    }


def in_hundreds(batch: list[dict[str, Any]], kind: str) -> Iterator[list[dict[str, Any]]]:
    """For new visitors all is forgotten before each, since the samples' phone numbers repeat after a hundred."""
    for start in range(0, len(batch), 100):
        if kind == "new":
            identifiers.forget()
        yield batch[start : start + 100]


def instructions(dialect: str, name: str, kind: str) -> int:
    """Of one event: the difference between two runs, one of which admits the same events once more."""
    once, twice = (_instructions(dialect, name, kind, times) for times in (1, 2))
    return (twice - once) // COUNTED


def _instructions(dialect: str, name: str, kind: str, times: int) -> int:
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    command += [__file__, "--run", dialect, name, kind, str(times)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "0"})
    found = re.search(r"I\s+refs:\s+([\d,]+)", answer.stderr)
    assert found is not None, answer.stderr
    return int(found[1].replace(",", ""))


def run(dialect: str, name: str, kind: str, times: str) -> None:
    """What valgrind counts: the events are made before, as often whatever ``times`` is."""
    source = KINDS[kind](dialect, name)
    rounds = [next(source) for _ in range(1 + COUNTED // EVENTS)]
    for item in rounds[0]:
        let_in(item)
    for _ in range(int(times)):
        for hundred in itertools.chain.from_iterable(in_hundreds(batch, kind) for batch in rounds[1:]):
            for item in hundred:
                let_in(item)


def main() -> None:
    identifiers.load()
    for dialect, name, kind in itertools.product(samples.DIALECTS, ("purchase", "page_view"), KINDS):
        line = measured(dialect, name, kind)
        if "--instructions" in sys.argv:
            line["instructions"] = instructions(dialect, name, kind)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    run(*sys.argv[2:]) if sys.argv[1:2] == ["--run"] else main()
