"""Proof: SIGKILL at any instant loses no acknowledged event.

An oracle that is never killed posts with 16 senders and holds every 200 as an obligation, and resends what got no
answer under the same id. The server is killed every half second or so. Then it runs in peace until nothing waits, takes
a fresh probe, and is compared with what the partner got. One JSON line says the verdict.

    python -m tests.proof.kill --kills 1000

The control must fail: with ``--sabotage`` the server answers before it commits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from router.clock import SystemClock
from router.mocks.partner import running
from router.mocks.webhook import Webhook
from router.outbox.reader import Reader
from tests.running import ROOT

SENDERS = 16
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``turnout serve`` on fixed ports, started and killed. ``code`` runs before it; ``more`` are lines for [outbox]."""

    def __init__(
        self,
        directory: Path,
        partner: str,
        *,
        code: str = "",
        outbox: Path | None = None,
        more: str = "",
        batch: int = 100,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.outbox = directory, outbox or directory / "outbox"
        self.port, self.console, self._code, self._environ = free_port(), free_port(), code, environ or {}
        self.arguments = ("--config", str(directory / "config.toml"))
        (directory / "config.toml").write_text(
            f'[collect]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[console]\nlisten = "127.0.0.1:{self.console}"\n[outbox]\npath = "{self.outbox}"\n{more}'
            '[sources.shop]\ntokens = ["env:KILL_TOKEN"]\n'
            f'[destinations.hook]\ntype = "webhook"\nurl = "{partner}/hook"\nsecrets = ["env:KILL_SECRET"]\n'
            f"allow_private = true\nbatch = {batch}\n"
        )

    async def run(self, *arguments: str) -> asyncio.subprocess.Process:
        """A command of its own on this outbox."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"{self._code}\nfrom router.__main__ import main\nmain()",
            *(*arguments, *self.arguments),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": "", "KILL_TOKEN": KEY, "KILL_SECRET": SIGNING, **self._environ},
        )

    async def start(self) -> None:
        self.process = await self.run("serve", "--json", "--log-level", "error")
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()

    async def stop(self) -> int:
        self.process.terminate()
        await asyncio.wait_for(self.process.communicate(), 15)
        return int(self.process.returncode or 0)


class Oracle:
    """Posts and remembers. ``acked`` are obligations; ``unanswered`` may or may not be stored."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self._url = f"http://127.0.0.1:{port}/collect"
        self._dice = dice
        self._numbers = itertools.count()
        self.acked: set[str] = set()
        self.resent = 0
        self.stop = asyncio.Event()

    async def send_for_ever(self, sender: int) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            unanswered: list[str] = []
            while not self.stop.is_set():
                ids = unanswered or [f"{sender}-{next(self._numbers)}" for _ in range(self._dice.randint(1, 5))]
                self.resent += len(unanswered)
                unanswered = [] if await self._post(session, ids) else ids

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


async def prove(*, kills: int, seed: int, sabotage: bool) -> dict[str, object]:
    """Run it; the verdict is "ok" or names what is wrong."""
    dice = random.Random(seed)
    partner = Webhook(now=SystemClock().now, secret=SIGNING)
    with tempfile.TemporaryDirectory() as name:
        async with running(partner) as url:
            server = Server(Path(name), url, code=SABOTAGE if sabotage else "")
            await server.start()
            oracle = Oracle(server.port, dice)
            senders = [asyncio.create_task(oracle.send_for_ever(number)) for number in range(SENDERS)]
            for _ in range(kills):
                await asyncio.sleep(dice.uniform(0.3, 0.8))
                await server.kill()
                await server.start()
            oracle.stop.set()
            await asyncio.gather(*senders)
            probe = [f"probe-{number}" for number in range(10)]
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
                assert await oracle._post(session, probe)
            ledger = await _drained(Path(name) / "outbox")
            code = await server.stop()
        lost = oracle.acked - set(partner.taken)
        repeated = sum(partner.taken.values()) - len(partner.taken)
        damaged = [path.name for path in (Path(name) / "outbox").rglob("*.db") if not _intact(path)]
    verdict = "ok"
    if lost:
        verdict = "lost"
    elif damaged or ledger["difference"] or code:
        verdict = f"damaged {damaged}, difference {ledger['difference']}, exit {code}"
    return {
        "proof": "kill",
        "seed": seed,
        "kills": kills,
        "acknowledged": len(oracle.acked),
        "resent": oracle.resent,
        "lost": len(lost),
        "delivered twice": repeated,
        "difference": ledger["difference"],
        "control": sabotage,
        "verdict": verdict,
    }


async def _drained(outbox: Path) -> dict[str, int]:
    """The ledger once nothing waits."""
    async with asyncio.timeout(60):
        while True:
            ledger = json.loads(await _ledger(outbox))
            if ledger["destinations"]["hook"]["waiting"] == 0:
                return {"difference": ledger["difference"]}
            await asyncio.sleep(0.1)


async def _ledger(outbox: Path) -> bytes:
    import msgspec

    return msgspec.json.encode(await Reader(outbox).ledger())


def _intact(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", action="store_true")
    chosen = options.parse_args()
    result = asyncio.run(prove(kills=chosen.kills, seed=chosen.seed, sabotage=chosen.sabotage))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
