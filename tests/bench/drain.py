"""How fast a waiting lane drains: the real server against a partner that costs nothing.

``python -m tests.bench.drain [--rounds 3] [--events 20000] [--many 60000]`` prints two JSON lines, each A B A B in one
run, medians; the server on one core, the partner on the other.

``single``  one event a request (webhook, 32 at once) ÷ a bare aiohttp client with 32 loops that posts the same bodies
            and headers to the same partner
``batch``   1 000 events a request (Snap) ÷ the rate at which the same build accepts events in batches of 100, and ÷ the
            rate at which a bare client posts the same bodies

What waits is read from disk, decoded, routed, written as the partner reads it, sent, and settled; the rate is that of
the partner, from its first request to its last. ``cpu_us`` is processor time for an event, which neighbours on a shared
machine change less than the clock: ``of_bare_client_cpu`` is the same ratio by it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import uvloop

from destinations.snap import Snap
from destinations.webhook import Webhook
from router import identifiers
from router.clock import SystemClock
from router.destination import Destination, Header, Request
from router.door import admit
from router.event import Event
from router.outbox.log import entries
from router.outbox.outbox import Outbox
from router.secret import Secret
from router.visit import Door, Visit
from tests.bench.accept import CLIENT, EVENT, HEAD, SERVER, Turnout, load, on_core
from tests.bench.load import MARK

AT_ONCE = 32
SIGNING = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
HOOK = """
[destinations.lane]
type = "webhook"
url = "{url}/hook"
secrets = ["file:{key}"]
allow_private = true
concurrency = 32
"""
SNAP = """
[destinations.lane]
type = "snap"
pixel_id = "snap"
access_token = "file:{key}"
base_url = "{url}"
allow_private = true
batch = 1000
rate = "100000/s"
"""


def settings(kind: str, url: str) -> Destination:
    """The destination as the configuration has it, for the yardstick's own requests."""
    if kind == "single":
        return Webhook(url=f"{url}/hook", secrets=(Secret(SIGNING),), allow_private=True)
    return Snap(pixel_id="snap", access_token=Secret(SIGNING), base_url=url, allow_private=True, batch=1000)


def events(count: int) -> list[Event]:
    """Different purchases as the door lets them in, received now."""
    identifiers.load()
    now = SystemClock().now()
    door = Door(source="shop", default_country="FR", keep_clear=frozenset({"ip", "user_agent"}))
    text, made = json.dumps(EVENT), []
    for number in range(count):
        item = msgspec.json.decode(text.replace(MARK, str(uuid.UUID(int=number))))
        event = admit(item, door, Visit(received=now), lambda: "own")
        assert isinstance(event, Event)
        made.append(event)
    return made


async def fill(directory: Path, kind: str, found: list[Event]) -> None:
    """An outbox in which these wait for the lane, as a held one leaves them."""
    store = await Outbox.open(directory, SystemClock())
    await store.lane("lane", "webhook" if kind == "single" else "snap")
    rows = [entries.row(event) for event in found]
    for start in range(0, len(rows), 2000):
        await store.append(rows[start : start + 2000])
    await store.close()


class Sink:
    def __init__(self) -> None:
        self.process = on_core(CLIENT, "-m", "tests.bench.sink")
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def told(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/told") as answer:
            return json.load(answer)

    def heard(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/heard") as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Rate(NamedTuple):
    """Events a second, and µs of processor time for one."""

    events: float
    cpu: float


def rate(told: dict[str, Any], count: int, cpu: float) -> Rate:
    return Rate(count / (told["last"] - told["first"]), cpu * 1e6 / count)


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drained(kind: str, url: str, sink: Sink, found: list[Event], profile: str | None) -> Rate:
    """The real server, from the first request to the last; its processor time since it was ready."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory, key = Path(name), Path(name) / "key"
        key.write_text(SIGNING)
        key.chmod(0o600)
        uvloop.run(fill(directory / "outbox", kind, found))
        words = HEAD.format(path=directory / "outbox", workers=0) + (HOOK if kind == "single" else SNAP).format(
            url=url, key=key
        )
        (directory / "config.toml").write_text(words)
        sink.told()
        process = on_core(SERVER, "-m", "router", "serve", "--json", "--config", str(directory / "config.toml"))
        assert process.stdout is not None
        try:
            started, before = json.loads(process.stdout.readline()), cpu_of(process.pid)
            if profile:
                subprocess.Popen(
                    [
                        "py-spy",
                        "record",
                        "-p",
                        str(process.pid),
                        "-o",
                        profile,
                        "-f",
                        "raw",
                        "-d",
                        "4",
                        "--gil",
                        "-r",
                        "250",
                    ]
                )
            _until_delivered(started["console"].rstrip("/"), len(found))
            told = sink.told()
            cpu = cpu_of(process.pid) - before
        finally:
            process.terminate()
            process.wait(20)
    return rate(told, len(found), cpu)


def _until_delivered(console: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{console}/api/v1/ledger") as answer:
            lane = json.load(answer)["destinations"]["lane"]
        if lane["delivered"] == count:
            return
        time.sleep(0.25)
    raise AssertionError(f"not drained: {lane}")


# The yardstick, in a process of its own: python -m tests.bench.drain --bare FILE


class Posted(msgspec.Struct):
    url: str
    headers: dict[str, str]
    body: bytes


def write_bodies(path: Path, kind: str, url: str, found: list[Event]) -> int:
    size = 1 if kind == "single" else 1000
    destination, posted = settings(kind, url), []
    for start in range(0, len(found), size):
        for request in destination.requests(found[start : start + size], SystemClock().now()):
            assert isinstance(request, Request)
            posted.append(
                Posted(request.url, {name: _text(value) for name, value in request.headers.items()}, request.body)
            )
    path.write_bytes(msgspec.msgpack.encode(posted))
    return len(posted)


def _text(value: Header) -> str:
    return value.reveal() if isinstance(value, Secret) else value


async def bare(path: Path) -> None:
    """Post them all; prints the seconds of processor time that it took."""
    waiting = msgspec.msgpack.decode(path.read_bytes(), type=list[Posted])[::-1]
    before = time.process_time()

    async def post(session: aiohttp.ClientSession) -> None:
        while waiting:
            each = waiting.pop()
            async with session.post(each.url, data=each.body, headers=each.headers) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await asyncio.gather(*(post(session) for _ in range(AT_ONCE)))
    print(time.process_time() - before)


def posted(kind: str, sink: Sink, found: list[Event]) -> Rate:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        path = Path(name) / "bodies"
        write_bodies(path, kind, sink.url, found)
        sink.told()
        process = on_core(SERVER, "-m", "tests.bench.drain", "--bare", str(path))
        assert process.stdout is not None
        cpu = float(process.stdout.readline())
        assert process.wait(120) == 0
    return rate(sink.told(), len(found), cpu)


def accepted(seconds: float) -> float:
    """Events a second that this build accepts in batches of 100: what ``accept --batch 100`` measures."""
    turnout = Turnout()
    try:
        body = '{"batch":[' + ",".join([json.dumps(EVENT)] * 100) + "]}"
        told = load(turnout.url, body=body, seconds=seconds, connections=8)
    finally:
        turnout.stop()
    return 100 * told["answered"] / told["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--many", type=int, default=60_000)
    parser.add_argument("--only", choices=("single", "batch"))
    parser.add_argument("--profile", help="py-spy's raw record of the drain goes to this file")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bare is not None:
        uvloop.run(bare(asked.bare))
        return
    sink = Sink()
    try:
        for kind, count in (("single", asked.events), ("batch", asked.many)):
            if asked.only in (None, kind):
                found = events(count)
                print(json.dumps(compared(kind, sink, found, asked.rounds, asked.profile)), flush=True)
    finally:
        sink.stop()


def compared(kind: str, sink: Sink, found: list[Event], rounds: int, profile: str | None) -> dict[str, Any]:
    client: list[Rate] = []
    ours: list[Rate] = []
    door: list[float] = []
    for _ in range(rounds):
        client.append(posted(kind, sink, found))
        ours.append(drained(kind, sink.url, sink, found, profile))
        if kind == "batch":
            door.append(accepted(3.0))
    told = {"name": "drain", "kind": kind, "events": len(found), "rounds": rounds, **_ratios(client, ours)}
    if door:
        accept = statistics.median(door)
        told |= {"accepted_s": round(accept), "of_accepted": round(told["events_s"] / accept, 3)}
    return told


def _ratios(client: list[Rate], ours: list[Rate]) -> dict[str, Any]:
    median = statistics.median
    theirs, own = median(each.events for each in client), median(each.events for each in ours)
    theirs_cpu, own_cpu = median(each.cpu for each in client), median(each.cpu for each in ours)
    return {
        "events_s": round(own),
        "bare_client_s": round(theirs),
        "of_bare_client": round(own / theirs, 3),
        "cpu_us": round(own_cpu, 1),
        "bare_client_cpu_us": round(theirs_cpu, 1),
        "of_bare_client_cpu": round(theirs_cpu / own_cpu, 3),
    }


if __name__ == "__main__":
    main()
