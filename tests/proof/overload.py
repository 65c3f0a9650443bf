"""Proof: ten times what it can take is refused at once, and what is acknowledged is stored exactly.

The real server runs on one core. First it is asked what it can take; then ten times that comes by the clock, beside
10 000 silent connections, heads and bodies that drip, and gzip bombs, all from the other core. Meanwhile its memory,
descriptors, WAL and health are looked at ten times a second, and a heartbeat in its event loop says how late it is. At the
end everything it acknowledged must be in the log, nothing it refused, and it must take events again by itself.

    python -m tests.proof.overload --seconds 30

The controls must fail: ``--sabotage acknowledge`` answers 200 to what it refuses, ``--sabotage unlimited`` refuses nothing.

Other programs on the machine are told apart: a late heartbeat counts without the time in which the machine ran them (the
kernel tells it, in schedstat). ``others_had`` is the share of the server's time that went so; where it is more than a tenth,
refusals count by their own time, too, as the server sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.bench.accept import EVENT
from tests.bench.load import MARK as UUID
from tests.proof.flood import MARK, REFUSALS, Result, Settings, percentiles
from tests.running import ROOT

KEY = "overload-proof-key"
TIMES = 10  # what it can take
BATCH = 20  # events a request
FIRST = 10**15  # number of the flood's first request; the others are smaller
SERVER, LOAD = 0, 1  # cores

MOST_MEMORY = 350  # MB
MOST_REFUSAL = 20.0  # ms, p99
MOST_STALL = 50.0  # ms
MOST_HEALTH = 250.0  # ms
MOST_OTHERS = 0.1  # of the server's time
MOST_HEAD = 17.0  # seconds that a head may drip; the server gives it 15
RECOVERED = 5.0  # seconds until twenty requests in a row are taken

# Inside the server. Writes how late the loop's timer was (ms), and how much of that is its own: without the time in which
# the machine ran other programs. At the end it writes how long refusals took, so counted: from two beats before their
# bytes were read, which is before they can have come, to their answer.
HEARTBEAT = """
import asyncio, collections, json, os, threading, time
from router import app
from router.collect import connections, http
schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
def own():  # seconds that were this thread's, or nobody's
    return time.perf_counter() - int(os.pread(schedstat, 100, 0).split()[1]) / 1e9
beats, came, refused = collections.deque([own()] * 2, 2), {}, []
start, stop = app.App.start, app.App.stop
received, refusal, answer = connections.Connection.data_received, http.Collector.refusal, http.Collector.__call__
async def started(self):
    await start(self)
    self.beating = asyncio.create_task(beat())
async def beat():
    with open(os.environ["SEEN"] + "/stalls", "w", buffering=1) as out:
        while True:
            began, mine = time.perf_counter(), own()
            beats.append(mine)
            await asyncio.sleep(0.002)
            late = time.perf_counter() - began - 0.002
            if late > 0.01:
                print(json.dumps([round(late * 1000, 1), round((own() - mine - 0.002) * 1000, 1)]), file=out)
async def stopped(self):
    await stop(self)
    with open(os.environ["SEEN"] + "/refused", "w") as out:
        json.dump(refused, out)
def data_received(self, data):
    if data.startswith(b"POST"):  # and not the rest of what was refused already
        came[0] = came[id(self)] = beats[0]
    received(self, data)
def unseen(self, message):
    told = refusal(self, message)
    if told is not None:
        refused.append(own() - came[0])
    return told
async def answered(self, request):
    told = await answer(self, request)
    began = came.pop(id(request.protocol), None)
    if told.status in (429, 503) and began is not None:
        refused.append(own() - began)
    return told
app.App.start, app.App.stop = started, stopped
connections.Connection.data_received, http.Collector.refusal, http.Collector.__call__ = data_received, unseen, answered
"""
SABOTAGE = {
    "": "",
    "acknowledge": """
from router.collect import answers, http
told = answers.Reply(200, b'{"success":true,"accepted":1,"duplicate":0,"rejected":0,"problems":[]}')
http._REFUSALS = [told.wire()] * http.LATEST
http.Collector._busy = lambda self: told
""",
    "unlimited": """
from router.collect import admission
from router.outbox.log import journal
admission.Admission.full = property(lambda self: False)
journal.WAITING_BYTES = 1 << 40
""",
}


class Server:
    """``turnout serve`` on one core, with a heartbeat; ``destination`` is held, so that nothing is delivered."""

    def __init__(self, directory: Path, sabotage: str) -> None:
        self.directory, self._sabotage = directory, sabotage
        self.outbox = directory / "outbox"
        self.process: asyncio.subprocess.Process | None = None
        (directory / "config.toml").write_text(
            '[collect]\nlisten = "127.0.0.1:0"\n[console]\nlisten = "127.0.0.1:0"\n'
            f'[outbox]\npath = "{self.outbox}"\n'
            '[sources.shop]\ntokens = ["env:OVERLOAD_TOKEN"]\ndefault_country = "FR"\n'
            '[destinations.hook]\ntype = "webhook"\nurl = "http://127.0.0.1:9/"\nsecrets = ["env:OVERLOAD_SECRET"]\n'
            "allow_private = true\n"
        )

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *("taskset", "-c", str(SERVER), sys.executable, "-c"),
            f"{HEARTBEAT}{SABOTAGE[self._sabotage]}\nfrom router.__main__ import main\nmain()",
            *("serve", "--config", str(self.directory / "config.toml"), "--json", "--log-level", "error"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "OVERLOAD_TOKEN": KEY,
                "OVERLOAD_SECRET": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "SEEN": str(self.directory),
            },
        )
        assert self.process.stdout is not None
        told = json.loads(await self.process.stdout.readline())
        self.port, self.console = int(told["collect"].rpartition(":")[2]), told["console"].rstrip("/")
        async with aiohttp.ClientSession() as http, http.post(f"{self.console}/api/v1/destinations/hook:hold", json={}):
            pass

    async def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        await asyncio.wait_for(self.process.communicate(), 30)
        return int(self.process.returncode or 0)

    async def kill(self) -> None:
        """Whatever happened, it is gone."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()

    def refusals(self) -> list[float]:
        """Seconds of its own that each took; once it has stopped."""
        return list(json.loads((self.directory / "refused").read_text()))

    def ran(self) -> tuple[int, int]:
        """ns that its main thread ran, and that it could have run and others did."""
        assert self.process is not None
        ran, waited, _ = Path(f"/proc/{self.process.pid}/schedstat").read_text().split()
        return int(ran), int(waited)

    def stalls(self) -> list[tuple[float, float]]:
        """ms late, and ms of these that are its own."""
        return [tuple(json.loads(line)) for line in (self.directory / "stalls").read_text().splitlines()]


class Watch:
    """What is seen of the server from outside, ten times a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.memory = self.descriptors = self.wal = 0.0
        self.health: list[float] = []
        self.failed = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._ask())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sample(self) -> None:
        assert self._server.process is not None
        proc = Path("/proc") / str(self._server.process.pid)
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            self.memory = max(self.memory, int((proc / "statm").read_text().split()[1]) * page / 1e6)
            self.descriptors = max(self.descriptors, sum(1 for _ in (proc / "fd").iterdir()))
            self.wal = max(self.wal, sum(_size(each) for each in self._server.outbox.rglob("*-wal")) / 1e6)
            await asyncio.sleep(0.1)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(self._server.console, timeout=aiohttp.ClientTimeout(10)) as http:
            while True:
                began = time.perf_counter()
                try:
                    async with http.get("/healthz") as answer:
                        self.failed += answer.status != 200
                except (aiohttp.ClientError, TimeoutError):
                    self.failed += 1
                self.health.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.1)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def request_body(batch: int) -> str:
    """``batch`` events of 1 KB whose ids are the request's number and their place."""
    one = json.dumps(EVENT).replace(UUID, MARK.decode())
    assert one.count(MARK.decode()) == 1
    return "[" + ",".join(one.replace(MARK.decode(), f"{MARK.decode()}.{place:03}") for place in range(batch)) + "]"


async def client(module: str, settings: dict[str, Any], *arguments: str) -> bytes:
    """A load generator on the other core: its line."""
    with tempfile.TemporaryFile() as said:  # through a pipe it came cut off twice, of a generator that had ended well
        process = await asyncio.create_subprocess_exec(
            *("taskset", "-c", str(LOAD), sys.executable, "-m", module, *arguments),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=said,
        )
        await process.communicate(json.dumps(settings).encode())
        said.seek(0)
        out = said.read()
    if process.returncode or not out.endswith(b"\n"):
        raise RuntimeError(f"{module} ended with {process.returncode}: what it said is above")
    return out


async def capacity(server: Server, body: str, seconds: float) -> float:
    """Requests a second that it takes from 16 connections, each of which waits for its answers."""
    url = f"http://127.0.0.1:{server.port}/collect?token={KEY}"
    told = json.loads(
        await client("tests.bench.load", {"body": body, "seconds": seconds, "connections": 16, "first": 1}, url)
    )
    assert set(told["statuses"]) == {"200"}, told["statuses"]
    return float(told["answered"]) / float(told["seconds"])


async def recovery(server: Server, body: str) -> float:
    """Seconds until twenty requests in a row are taken; infinite where that never comes."""
    began, taken = time.perf_counter(), 0
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
        for number in range(10**13, 10**13 + 500):
            async with http.post(f"/collect?token={KEY}", data=body.replace(MARK.decode(), f"{number:016}")) as answer:
                taken = taken + 1 if answer.status == 200 else 0
            if taken == 20:
                return time.perf_counter() - began
            await asyncio.sleep(0.02)
    return float("inf")


def stored(outbox: Path) -> Counter[int]:
    """How many events of each of the flood's requests the log holds."""
    found: Counter[int] = Counter()
    for path in (outbox / "log").glob("*.db"):
        connection = sqlite3.connect(path)
        try:
            found.update(
                int(event.partition(".")[0])
                for (event,) in connection.execute("SELECT id FROM event")
                if event.startswith(str(FIRST)[:4]) and len(event) == 20
            )
        finally:
            connection.close()
    return found


async def prove(
    *, seconds: float, idle: int, dripping: int, bombs: float, batch: int = BATCH, sabotage: str = "", seed: int = 1
) -> dict[str, Any]:
    """Run it; the verdict is "ok" or names what does not hold."""
    body = request_body(batch)
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        server = Server(Path(name), sabotage)
        try:
            await server.start()
            takes = await capacity(server, body, min(5.0, seconds / 2))
            settings = Settings(
                port=server.port,
                path=f"/collect?token={KEY}",
                body=body,
                rate=TIMES * takes,
                seconds=seconds,
                first=FIRST + seed * 10**9,
                idle=idle,
                dripping=dripping,
                bombs=bombs,
            )
            figures = await flooded(server, settings, takes, batch)
        finally:
            await server.kill()
    broken = [name for name, holds in rules(idle, bombs).items() if not holds(figures)]
    return {
        "proof": "overload",
        "seed": seed,
        "seconds": seconds,
        "batch": batch,
        **figures,
        "control": sabotage,
        "verdict": "ok" if not broken else ", ".join(broken),
    }


async def flooded(server: Server, settings: Settings, takes: float, batch: int) -> dict[str, Any]:
    """What is seen while the flood comes, and of what it left."""
    quiet, watch, before = len(server.stalls()), Watch(server), server.ran()
    async with watch.running():
        flood = msgspec.json.decode(await client("tests.proof.flood", msgspec.to_builtins(settings)), type=Result)
        recovered = await recovery(server, settings.body)
    stalls, ran, waited = server.stalls()[quiet:], *(now - then for now, then in zip(server.ran(), before, strict=True))
    code = await server.stop()
    found = stored(server.outbox)
    whole = {number for number, count in found.items() if count == batch}
    acknowledged = set(flood.acknowledged)
    return {
        "takes_s": round(takes * batch),
        "sent_s": round(flood.sent / settings.seconds * batch),
        "times": round(flood.sent / settings.seconds / takes, 1),
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - whole),
        "stored_unasked": len(set(found) - acknowledged - set(flood.unanswered)),
        "refused": flood.refused,
        "unanswered": len(flood.unanswered),
        "statuses": flood.statuses,
        "refused_ms": flood.refused_ms,
        "refused_own_ms": percentiles(server.refusals()),
        "accepted_ms": flood.accepted_ms,
        "retry_after": flood.retry_after,
        "bombs": flood.bombs,
        "bomb_ms": flood.bomb_ms,
        "idle": flood.idle,
        "dripping_heads_s": flood.dripping_heads_s,
        "dripping_bodies": flood.dripping_bodies,
        "memory_mb": round(watch.memory),
        "descriptors": int(watch.descriptors),
        "wal_mb": round(watch.wal),
        "stall_ms": max((own for _, own in stalls), default=0.0),
        "stall_with_others_ms": max((late for late, _ in stalls), default=0.0),
        "health_ms": round(max(watch.health), 1),
        "health_failed": watch.failed,
        "recovered_s": round(recovered, 1),
        "exit": code,
        "generator_late_ms": flood.late_ms,
        "others_had": round(waited / (ran + waited), 2),
    }


TIMED = frozenset({"ten times", "refusals within 20 ms", "stall", "health"})  # what a busy machine may spoil


def rules(idle: int, bombs: float) -> dict[str, Callable[[dict[str, Any]], bool]]:
    """What must hold, by name."""
    return {
        "ten times": lambda it: it["times"] >= 0.9 * TIMES,
        "acknowledged is stored": lambda it: it["acknowledged"] > 0 and it["lost"] == 0,
        "stored is acknowledged": lambda it: it["stored_unasked"] == 0,
        "the rest is refused": lambda it: (
            it["refused"] > 0 and it["unanswered"] == 0 and set(it["statuses"]) <= {"200", *map(str, REFUSALS)}
        ),
        "integer Retry-After": lambda it: all(each.isdigit() for each in it["retry_after"]),
        "refusals within 20 ms": lambda it: (
            it["refused_ms" if it["others_had"] <= MOST_OTHERS else "refused_own_ms"]["p99"] <= MOST_REFUSAL
        ),
        "memory": lambda it: it["memory_mb"] <= MOST_MEMORY,
        "stall": lambda it: it["stall_ms"] <= MOST_STALL,
        "health": lambda it: it["health_ms"] <= MOST_HEALTH and it["health_failed"] == 0,
        "idle connections": lambda it: it["idle"] >= 0.95 * idle,
        "dripping heads": lambda it: it["dripping_heads_s"] <= MOST_HEAD,
        "bombs": lambda it: (it["bombs"] or not bombs) and set(it["bombs"]) <= {"400", *map(str, REFUSALS)},
        "recovery": lambda it: it["recovered_s"] <= RECOVERED and it["exit"] == 0,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--idle", type=int, default=10_000)
    options.add_argument("--dripping", type=int, default=100)
    options.add_argument("--bombs", type=float, default=20, help="a second")
    options.add_argument("--batch", type=int, default=BATCH)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", choices=list(SABOTAGE), default="")
    result = asyncio.run(prove(**vars(options.parse_args())))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
