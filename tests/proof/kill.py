"""Proof: SIGKILL at any instant loses no acknowledged event.

An oracle that is never killed posts with 16 senders and holds every 200 as an obligation, and resends what got no
answer under the same id. The server is killed 0.5 to 1.2 s after each start, and goes on until it was killed so often and
has acknowledged so many. Then it runs in peace until nothing waits, takes a fresh probe, and is compared with what the
partner got: everything acknowledged, nothing else, and of each kill at most so much twice as a lane may have in flight.
One JSON line says the verdict.

    python -m tests.proof.kill --kills 1000 --events 1000000

With ``--workers 2`` two processes collect beside the one that stores, and every other kill is of one of these: the server
goes on, and starts another. These kills come 1.5 to 3 s apart, because a process that collects takes a second to start.

The next process has its imports behind it when the one before is killed: what is tried is the outbox, not the importing.
The control must fail: with ``--sabotage`` the server answers before it commits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from router.clock import SystemClock
from router.mocks.partner import running
from router.mocks.webhook import Webhook
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Ledger
from tests.running import ROOT, free_port

SENDERS = 16
AT_ONCE = 4  # events in a request, at most
CONCURRENCY, BATCH = 4, 50  # of the lane
# Requests that are under way, and those that are answered and wait to be written down: four times as many, as lanes are.
IN_FLIGHT = (1 + 4) * CONCURRENCY * BATCH
KEY = "kill-proof-key"
SIGNING = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

# Answers at once and stores a tenth of a second later: what this proof must notice.
SABOTAGE = """
import asyncio
from router.outbox.outbox import Outbox
honest = Outbox.append
async def early(self, rows):
    async def later():
        await asyncio.sleep(0.1)
        await honest(self, rows)
    self.kept = getattr(self, "kept", set())
    task = asyncio.create_task(later())
    self.kept.add(task)
    return [False] * len(rows)
Outbox.append = early
"""


class Server:
    """``turnout serve`` on fixed ports, started and killed. ``code`` runs before it; ``more`` are lines for [outbox].

    ``ahead``: the next process imports everything while this one runs, so that a start takes little of the time between
    two kills.
    """

    def __init__(
        self,
        directory: Path,
        partner: str,
        *,
        code: str = "",
        outbox: Path | None = None,
        more: str = "",
        batch: int = 100,
        concurrency: int = 8,
        ahead: bool = False,
        workers: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.outbox = directory, outbox or directory / "outbox"
        self.port, self.console, self._code, self._environ = free_port(), free_port(), code, environ or {}
        self.arguments = ("--config", str(directory / "config.toml"))
        (directory / "config.toml").write_text(
            f'[collect]\nlisten = "127.0.0.1:{self.port}"\nworkers = {workers}\n'
            f'[console]\nlisten = "127.0.0.1:{self.console}"\n[outbox]\npath = "{self.outbox}"\n{more}'
            '[sources.shop]\ntokens = ["env:KILL_TOKEN"]\n'
            f'[destinations.hook]\ntype = "webhook"\nurl = "{partner}/hook"\nsecrets = ["env:KILL_SECRET"]\n'
            f"allow_private = true\nbatch = {batch}\nconcurrency = {concurrency}\n"
        )
        self._ahead = ahead
        self._next: asyncio.subprocess.Process | None = None

    async def run(self, *arguments: str, first: str = "") -> asyncio.subprocess.Process:
        """A command of its own on this outbox; ``first`` is code that runs when everything is imported."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"{self._code}\nfrom router.__main__ import main\n{first}\nmain()",
            *(*arguments, *self.arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": "", "KILL_TOKEN": KEY, "KILL_SECRET": SIGNING, **self._environ},
        )

    async def _serve(self) -> asyncio.subprocess.Process:
        waits = "import router.app, uvloop\ninput()" if self._ahead else ""
        return await self.run("serve", "--json", "--log-level", "error", first=waits)

    async def start(self, *, last: bool = False) -> None:
        self.process = self._next or await self._serve()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"begin\n")
        if not await self.process.stdout.readline():
            raise RuntimeError("the server did not start")
        self._next = await self._serve() if self._ahead and not last else None

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()

    def kill_a_worker(self, dice: random.Random) -> None:
        """One of those that collect, if any of them runs."""
        pid = self.process.pid
        if running := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(dice.choice(running)), signal.SIGKILL)

    async def stop(self) -> int:
        if self._next is not None:
            self._next.kill()
            await self._next.communicate()
        self.process.terminate()
        await asyncio.wait_for(self.process.communicate(), 15)
        return int(self.process.returncode or 0)


class Oracle:
    """Posts and remembers, each sender with a ``pause`` in seconds. ``acked`` are obligations; ``unanswered`` may or may
    not be stored.
    """

    def __init__(self, port: int, dice: random.Random, pause: float = 0.0) -> None:
        self._url = f"http://127.0.0.1:{port}/collect"
        self._dice, self._pause = dice, pause
        self._numbers = itertools.count()
        self.acked: set[str] = set()
        self.resent = 0
        self.stop = asyncio.Event()

    async def send_for_ever(self, sender: int) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            unanswered: list[str] = []
            while not self.stop.is_set():
                ids = unanswered or [f"{sender}-{next(self._numbers)}" for _ in range(self._dice.randint(1, AT_ONCE))]
                answered = await self._post(session, ids)
                self.resent += len(ids) if unanswered and answered else 0
                unanswered = [] if answered else ids
                await asyncio.sleep(self._pause)

    def event(self, name: str) -> dict[str, object]:
        return {"event": "purchase", "id": name, "value": 12.5, "currency": "EUR"}

    def taken(self, told: dict[str, int]) -> int:
        return told["accepted"] + told["duplicate"]

    async def _post(self, session: aiohttp.ClientSession, ids: list[str]) -> bool:
        body = json.dumps([self.event(each) for each in ids])
        try:
            async with session.post(self._url, data=body) as answer:
                if answer.status == 200:
                    told = await answer.json()
                    assert self.taken(told) == len(ids)
                    self.acked.update(ids)
                    return True
        except (aiohttp.ClientError, OSError, ValueError):
            pass
        await asyncio.sleep(0.02)
        return False


async def prove(
    *, kills: int, seed: int, sabotage: bool, events: int = 0, workers: int = 0, pause: float = 0.0
) -> dict[str, object]:
    """So many kills at least, and so many events acknowledged; the verdict is "ok" or names what is wrong."""
    dice, began = random.Random(seed), time.monotonic()
    partner = Webhook(now=SystemClock().now, secret=SIGNING)
    killed, worst, wrong = 0, 0, list[str]()
    with tempfile.TemporaryDirectory() as name:
        async with running(partner) as url:
            server = Server(
                Path(name),
                url,
                code=SABOTAGE if sabotage else "",
                batch=BATCH,
                concurrency=CONCURRENCY,
                ahead=True,
                workers=workers,
            )
            await server.start()
            oracle = Oracle(server.port, dice, pause)
            senders = [asyncio.create_task(oracle.send_for_ever(number)) for number in range(SENDERS)]
            before = 0
            while killed < kills or len(oracle.acked) < events:
                await asyncio.sleep(dice.uniform(1.5, 3.0) if workers else dice.uniform(0.5, 1.2))
                killed += 1
                before, worst = twice(partner), max(worst, twice(partner) - before)  # what the kill before had left
                if workers and killed % 2:
                    server.kill_a_worker(dice)
                    continue
                await server.kill()
                await server.start(last=killed >= kills and not events)
            oracle.stop.set()
            await asyncio.gather(*senders)
            probe = [f"probe-{number}" for number in range(10)]
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
                async with asyncio.timeout(30):  # the last kill may have been of the only one that collects
                    while not await oracle._post(session, probe):
                        pass
            ledger = await _drained(Path(name) / "outbox")
            code = await server.stop()
        worst = max(worst, twice(partner) - before)
        lost = oracle.acked - set(partner.taken)
        wrong += [f"{path.name} is damaged" for path in (Path(name) / "outbox").rglob("*.db") if not _intact(path)]
    wrong += [f"{worst} events twice after one kill"] * (worst > IN_FLIGHT)
    wrong += ["the ledger does not add up"] * (ledger.difference != 0)
    wrong += [f"{ledger.accepted} accepted, {len(partner.taken)} delivered"] * (ledger.accepted != len(partner.taken))
    wrong += [f"exit {code}"] * (code != 0)
    return {
        "proof": "kill",
        "seed": seed,
        "kills": killed,
        "workers": workers,
        "acknowledged": len(oracle.acked),
        "resent": oracle.resent,
        "lost": len(lost),
        "delivered twice": twice(partner),
        "most of one kill": worst,
        "may be in flight": IN_FLIGHT,
        "difference": ledger.difference,
        "seconds": round(time.monotonic() - began),
        "control": sabotage,
        "verdict": "lost" if lost else "; ".join(wrong) or "ok",
    }


def twice(partner: Webhook) -> int:
    """How many events the partner took that it had."""
    return partner.counts.events - partner.counts.distinct


async def _drained(outbox: Path) -> Ledger:
    """The ledger once nothing waits."""
    async with asyncio.timeout(600):
        while True:
            ledger = await Reader(outbox).ledger()
            if ledger.destinations["hook"].waiting == 0:
                return ledger
            await asyncio.sleep(0.1)


def _intact(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--events", type=int, default=0, help="to acknowledge, at least")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=0)
    options.add_argument("--pause", type=float, default=0.0, help="seconds between a sender's posts")
    options.add_argument("--sabotage", action="store_true")
    result = asyncio.run(prove(**vars(options.parse_args())))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
