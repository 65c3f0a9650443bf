"""What age and size cost: the same server on an empty outbox and on a very full one, side by side, A B A B, medians.

``python -m tests.bench.age FIGURE [--full PATH] [--events 5000000]`` prints one JSON line. The full outbox is filled first
where PATH is not there yet, and stays (``tests.bench.fill``: 1 KB events as they are sent, every visitor sends ten).

    accept    rate with 8 destinations ÷ with 1; with so many events in the outbox ÷ empty; all lanes are held
    dead      rate with so many events waiting behind a destination that refuses connections ÷ none waiting
    memory    resident memory idle, and with so many waiting for three lanes; bytes on disk for an event
    search    time to the first page of events, of one id, of deliveries in a state, with so many in the outbox
    restart   time from the start of the process until it says that it is ready, so many waiting
    forget    time to erase 1 000 people, each of ten events, from so many events; PATH is copied before
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import fill
from tests.bench.accept import EVENT, HEAD, SERVER, load, on_core

LANE = """
[destinations.{name}]
type = "webhook"
url = "http://127.0.0.1:9/"
secrets = ["file:{directory}/key"]
allow_private = true
"""
LANES = ("snap", "links", "hook")  # as ``fill`` makes them
PEOPLE = 1000
BESIDE = 8.0  # seconds for what a start leaves to be done beside: with so many events a table of their ids is made


class Server:
    """``turnout serve`` on the core of servers, on an outbox that is there or is made."""

    def __init__(self, outbox: Path | None = None, lanes: tuple[str, ...] = LANES, *, held: bool = True) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        (self.directory / "key").write_text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
        (self.directory / "key").chmod(0o600)
        text = HEAD.format(path=outbox or self.directory / "outbox", workers=0)
        text += "".join(LANE.format(name=name, directory=self.directory) for name in lanes)
        (self.directory / "config.toml").write_text(text)
        began = time.perf_counter()
        self.process = on_core(
            SERVER, "-m", "router", "serve", "--json", "--config", str(self.directory / "config.toml")
        )
        assert self.process.stdout is not None
        started = json.loads(self.process.stdout.readline())
        self.ready_s = time.perf_counter() - began
        self.url, self.console = f"{started['collect']}/collect?token=foo", started["console"].rstrip("/")
        for name in lanes if held else ():
            self.post(f"/api/v1/destinations/{name}:hold", {})

    def post(self, path: str, body: object) -> dict[str, object]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.console + path, json.dumps(body).encode(), headers)
        return json.loads(urllib.request.urlopen(request).read())

    def get(self, path: str) -> dict[str, object]:
        return json.loads(urllib.request.urlopen(self.console + path).read())

    def resident(self) -> float:
        """MB, as the kernel counts them."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def spent(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def served(*arguments: object, **settings: bool) -> Iterator[Server]:
    server = Server(*arguments, **settings)  # type: ignore[arg-type]  # as Server takes them
    try:
        yield server
    finally:
        server.stop()


def filled(path: Path, count: int) -> Path:
    if not path.exists():
        asyncio.run(fill.fill(path, count, LANES))
    return path


def side_by_side(one: Server, other: Server, rounds: int, seconds: float) -> dict[str, float]:
    """The rates of single events at both, and the second ÷ the first; ``by_cpu`` is the same ratio by the processor's time
    for an event, which others at work on the machine disturb less.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * rounds):
        server, first = (one, other)[number % 2], (number + os.getpid()) * 10**8
        before = server.spent()
        told = load(server.url, body=json.dumps(EVENT), seconds=seconds, connections=64, first=first)
        assert set(told["statuses"]) == {"200"}, told  # type: ignore[arg-type]  # decoded JSON
        rates[number % 2].append(told["answered"] / told["seconds"])
        spent[number % 2].append((server.spent() - before) / told["answered"])
    was, now = (statistics.median(each) for each in rates)
    cost_was, cost_now = (statistics.median(each) for each in spent)
    return {
        "ratio": round(now / was, 3),
        "by_cpu": round(cost_was / cost_now, 3),
        "events_s": round(now),
        "yardstick_s": round(was),
    }


def accept(asked: argparse.Namespace) -> dict[str, object]:
    with served(None, ("one",)) as one, served(None, tuple(f"d{number}" for number in range(8))) as eight:
        lanes = side_by_side(one, eight, asked.rounds, asked.seconds)
    with served() as empty, served(filled(asked.full, asked.events)) as full:
        time.sleep(BESIDE)
        age = side_by_side(empty, full, asked.rounds, asked.seconds)
    return {"destinations_8_to_1": lanes, "full_to_empty": age}


def dead(asked: argparse.Namespace) -> dict[str, object]:
    with served(None, ("hook",)) as none, served(filled(asked.full, asked.events), ("hook",), held=False) as behind:
        time.sleep(BESIDE)
        return {"dead_lane_to_none": side_by_side(none, behind, asked.rounds, asked.seconds)}


def memory(asked: argparse.Namespace) -> dict[str, object]:
    path = filled(asked.full, asked.events)
    with served() as idle, served(path, held=False) as full:
        time.sleep(BESIDE)
        return {
            "idle_mb": round(idle.resident()),
            "waiting_mb": round(full.resident()),
            "bytes_per_event": round(fill.on_disk(path) / asked.events),
        }


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def search(asked: argparse.Namespace) -> dict[str, object]:
    with served(filled(asked.full, asked.events)) as server:
        page = server.get("/api/v1/events?limit=100&after=1000")
        some = urllib.parse.quote(page["items"][0]["id"])  # type: ignore[index]  # decoded JSON
        pages = {
            "newest": "/api/v1/events?limit=100",
            "one id": f"/api/v1/events?id={some}",
            "an id that is not there": "/api/v1/events?id=nothing",
            "waiting": "/api/v1/deliveries?state=waiting&limit=100",
            "dead at one": "/api/v1/deliveries?to=hook&state=dead&limit=100",
        }
        found = {
            name: [timed(lambda path=path: server.get(path)) for _ in range(2 * asked.rounds + 1)]
            for name, path in pages.items()
        }
        return {"ms": {name: round(statistics.median(each), 1) for name, each in found.items()}}


def restart(asked: argparse.Namespace) -> dict[str, object]:
    path = filled(asked.full, asked.events)
    ready: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(asked.rounds):
        for name, where in (("empty", None), ("full", path)):
            with served(where, held=False) as server:
                ready[name].append(server.ready_s)
    return {"ready_s": {name: round(statistics.median(each), 2) for name, each in ready.items()}}


def forget(asked: argparse.Namespace) -> dict[str, object]:
    copy = asked.full.with_name(f"{asked.full.name}.copy")
    shutil.copytree(filled(asked.full, asked.events), copy)
    try:
        with served(copy) as server:
            step = asked.events // fill.EACH // PEOPLE
            people = [{"email": fill.email(number * step)} for number in range(PEOPLE)]
            began = time.perf_counter()
            told = server.post("/api/v1/people:forget", {"people": people})
            took = time.perf_counter() - began
            return {"seconds": round(took, 1), "emptied": told["receipt"]["events"]}  # type: ignore[index]  # decoded JSON
    finally:
        subprocess.run(["rm", "-rf", str(copy)], check=False)


FIGURES = {each.__name__: each for each in (accept, dead, memory, search, restart, forget)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--full", type=Path, default=Path(tempfile.gettempdir()) / "bench-full")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    print(json.dumps({"name": f"age {asked.figure}", "events": asked.events, **FIGURES[asked.figure](asked)}))


if __name__ == "__main__":
    main()
