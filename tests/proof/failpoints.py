"""Proof: whatever happens at any of the named points, no acknowledged event is lost and nothing is wedged.

For every point of the code and every fault (killed, an error of ours, a stall, an error of the disk) a real server lives
through everything there is: events and duplicates and what it cannot accept, new segments, retries, a hold, an erasure,
a replay, a reload, retention, destroyed keys, a backup, a stop; then the backup is restored. At the n-th pass of the point
the fault strikes. A process that ends is started again, as a service manager would. Then, in peace: nothing may wait, a
fresh probe arrives, every acknowledged event was delivered, is one that the partner refuses, or is of somebody who was
forgotten, of whom nothing is left; the ledger adds up and every file is intact. One JSON line says the verdict.

    python -m tests.proof.failpoints --seed 1
    python -m tests.proof.failpoints --points append_after_commit,roll_before_register --faults kill

The control must fail: with ``--sabotage`` the server answers before it commits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from router.clock import SystemClock
from router.failpoint import EVERY, VARIABLE
from router.mocks.partner import Trouble, running
from router.mocks.webhook import Webhook
from router.outbox.reads.reader import Reader
from tests.proof.kill import KEY, SABOTAGE, SIGNING, Oracle, _intact
from tests.running import ROOT, free_port

SENDERS, PAUSE = 4, 0.03  # seconds between a sender's posts: a life is about what happens, not about how much
SPOILED = 40  # every so-manieth event is one that the partner refuses
GONE = "somebody@example.org"
LONGEST = 40.0  # seconds for any one thing to happen
WITHIN = 25.0  # seconds in which a life comes by every point
FAULTS = ("kill", "raise", "sleep", "eio")

# Small segments, and retention that looks all the time: a life takes seconds instead of weeks.
HASTE = """
from router.outbox.upkeep import retention
from router.outbox.outbox import Outbox
retention.EVERY, retention.LONGEST_CLEAR = 0.2, 200
Outbox.open.__func__.__kwdefaults__["segment_events"] = 60
"""

# point -> at which pass the fault strikes. What passes at every start is met there and, later, in full run.
SERVE: dict[str, tuple[int, ...]] = {
    "open_before_begin": (1,),
    "file_after_create": (1, 2, 3),
    "migrate_after_statement": (1, 7, 28),
    "migrate_before_commit": (1, 2, 3),
    "collect_after_read": (5,),
    "collect_before_append": (5,),
    "collect_before_quarantine": (1,),
    "collect_before_answer": (5,),
    "append_before_begin": (1, 20),
    "append_before_commit": (1, 3),
    "append_after_commit": (1, 20),
    "append_before_answer": (1, 20),
    "roll_before_begin": (1, 2),
    "roll_before_register": (1, 2),
    "roll_after_register": (1, 2),
    "seal_before_index": (1, 2),
    "seal_before_checkpoint": (1, 2),
    "seal_before_note": (1, 2),
    "state_after_begin": (2, 30),
    "state_before_commit": (2, 30),
    "state_after_commit": (2, 30),
    "settle_before_write": (1, 25),
    "settle_after_write": (1, 25),
    "lane_after_take": (1, 25),
    "lane_before_send": (1, 25),
    "lane_after_answer": (1, 25),
    "lane_before_settle": (1, 25),
    "lane_after_settle": (1, 25),
    "retry_before_take": (1,),
    "hold_before_write": (1, 2),
    "hold_after_write": (1, 2),
    "erase_after_suppress": (1,),
    "erase_before_empty": (1,),
    "erase_after_empty": (1,),
    "erase_before_checkpoint": (1,),
    "keys_before_destroy": (1, 2),
    "keys_before_checkpoint": (1, 2),
    "checkpoint_before": (1, 2),
    "checkpoint_before_sync": (1, 2),
    "retention_before_keep": (1, 2),
    "retention_after_keep": (1, 2),
    "retention_before_unlink": (1, 2),
    "retention_after_unlink": (1, 2, 3),
    "replay_before_send": (1, 3),
    "replay_before_note": (1, 2),
    "replay_after_note": (1, 2),
    "reload_before_write": (1,),
    "reload_after_write": (1,),
    "reload_after_lanes": (1,),
    "close_before_files": (1,),
}
BACKUP = {"backup_after_state": (1,), "backup_before_rename": (1,)}
RESTORE = {"restore_before_swap": (1,), "restore_between_swaps": (1,)}
POINTS: dict[str, tuple[int, ...]] = {**SERVE, **BACKUP, **RESTORE}


def in_the_code() -> list[str]:
    """Every point that the program has, as often as it is written there."""
    pattern = re.compile(r"failpoint\(\s*[\"'](\w+)[\"']\s*\)")
    return [name for path in sorted((ROOT / "router").rglob("*.py")) for name in pattern.findall(path.read_text())]


class Fault(NamedTuple):
    point: str
    action: str
    at: int

    def armed(self) -> str:
        return f"{self.point}={self.action}@{self.at}"


class Teller(Oracle):
    """The oracle, whose events are now and then spoiled, or somebody's who will be forgotten."""

    def event(self, name: str) -> dict[str, object]:
        number = int(name.rpartition("-")[2])
        told = super().event(name)
        if number % SPOILED == 3:
            told["name_of_it"] = "spoiled"
        if number % 9 == 1:
            told["user"] = {"email": GONE}
        return told

    def taken(self, told: dict[str, int]) -> int:
        return super().taken(told) + told["rejected"]  # those of somebody who is forgotten by now


class Broken(AssertionError):
    """A promise that did not hold, in a few words."""


class Life:
    """One server's life, with one fault in it."""

    def __init__(self, directory: Path, partner: Webhook, url: str, armed: str, *, seed: int, sabotage: bool) -> None:
        self._directory, self._partner, self._armed = directory, partner, armed
        self._code = HASTE + (SABOTAGE if sabotage else "")
        self._collect, self._console, self._url = free_port(), free_port(), url
        self._stderr = directory / "stderr"
        self._peace = asyncio.Event()  # the process is to end, and is not started again
        self.ends: list[int] = []  # exit codes that nobody asked for
        self.outbox = directory / "outbox"
        # The control loses what comes in a tenth of a second, which must be something on a busy machine, too.
        self.oracle = Teller(self._collect, random.Random(seed), PAUSE / 3 if sabotage else PAUSE)
        self._configure(batch=20)

    def _configure(self, batch: int) -> None:
        (self._directory / "config.toml").write_text(
            f'[collect]\nlisten = "127.0.0.1:{self._collect}"\n[console]\nlisten = "127.0.0.1:{self._console}"\n'
            f'[outbox]\npath = "{self.outbox}"\nkeep_delivered = "500ms"\nkeep_dead = "1h"\ndedup = "1s"\n'
            '[sources.shop]\ntokens = ["env:KILL_TOKEN"]\n'
            f'[destinations.hook]\ntype = "webhook"\nurl = "{self._url}/hook"\nsecrets = ["env:KILL_SECRET"]\n'
            f"allow_private = true\nbatch = {batch}\n"
        )

    # Processes

    async def _run(self, *arguments: str, armed: bool) -> asyncio.subprocess.Process:
        environment = {"PATH": "", "KILL_TOKEN": KEY, "KILL_SECRET": SIGNING}
        if armed:
            environment[VARIABLE] = self._armed
        with self._stderr.open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", f"{self._code}\nfrom router.__main__ import main\nmain()", *arguments),
                *("--config", str(self._directory / "config.toml")),
                cwd=ROOT,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
            )

    async def _serve_for_ever(self) -> None:
        """As a service manager: whatever ends it, it is started again."""
        armed = True
        while not self._peace.is_set():
            self.process = await self._run("serve", "--log-level", "error", armed=armed)
            armed = False
            code = await self.process.wait()
            if not self._peace.is_set():
                self.ends.append(code)
            if 0 in self.ends:
                raise Broken("it ended as if somebody had asked for it")
            if len(self.ends) > 5:
                raise Broken(f"it does not start: {self.ends}")

    def fired(self) -> set[str]:
        """The points at which something happened, or, traced, that were passed."""
        return set(re.findall(r"^failpoint (\w+) ", self._stderr.read_text(errors="replace"), re.MULTILINE))

    def _strikes(self, points: Collection[str]) -> bool:
        return self._armed.partition("=")[0] in {*points, EVERY}

    # An operator, who asks until it is done

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        async with asyncio.timeout(LONGEST):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    url = f"http://127.0.0.1:{self._console}/api/v1{path}"
                    async with self._session.request(method, url, json=body) as answer:
                        if answer.status == 200:
                            return await answer.json()
                await asyncio.sleep(0.05)

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(LONGEST):
                while not await holds():  # noqa: ASYNC110 - it is asked of another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Broken(f"not within {LONGEST:.0f} s: {what}") from None

    async def _lane(self) -> Any:
        return (await self._ask("GET", "/ledger"))["destinations"].get("hook", {"waiting": -1, "held": False})

    # A life

    async def lived(self) -> None:
        async with aiohttp.ClientSession() as self._session:
            service = asyncio.create_task(self._serve_for_ever())
            life = asyncio.create_task(self._live())
            try:
                await asyncio.wait({service, life}, return_when=asyncio.FIRST_COMPLETED)
                if not life.done():
                    await service  # it gave up: say why
                await life
                await service
            finally:
                self.oracle.stop.set()
                for task in (service, life):
                    task.cancel()
                await asyncio.gather(service, life, return_exceptions=True)
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()

    async def _live(self) -> None:
        senders = [asyncio.create_task(self.oracle.send_for_ever(number)) for number in range(SENDERS)]
        senders.append(asyncio.create_task(self._repeat_for_ever()))
        try:
            await self._acts()
        finally:
            self.oracle.stop.set()
            await asyncio.gather(*senders)
        await self._peaceful()

    async def _repeat_for_ever(self) -> None:
        """What was acknowledged a moment ago, again, and what cannot be accepted."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            while not self.oracle.stop.is_set():
                if some := list(self.oracle.acked)[-3:]:
                    await self.oracle._post(session, some)
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    url = f"http://127.0.0.1:{self._collect}/collect"
                    async with session.post(url, json={"event": ["no name"]}):
                        pass
                await asyncio.sleep(0.05)

    async def _acts(self) -> None:
        began = time.monotonic()
        await self._until("10 events acknowledged", self._acknowledged(10))
        await self._reloaded()
        await self._until("30 events acknowledged", self._acknowledged(30))
        self._partner.trouble += [Trouble(status=503, times=1), Trouble(status=401, times=1)]
        await self._until("the partner's troubles", self._behaving)
        await self._ask("POST", "/destinations/hook:resume", {})
        await self._until("a delivery after the hold", self._delivered(60))
        await self._ask("POST", "/people:forget", {"people": [{"email": GONE}]})
        await self._replay()
        await self._backup()
        await self._until("200 events acknowledged", self._acknowledged(200))
        goal = {point for point in SERVE if self._strikes([point])} - {"close_before_files"}
        while goal - self.fired() and time.monotonic() - began < WITHIN:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)

    def _acknowledged(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            return len(self.oracle.acked) >= count

        return holds

    def _delivered(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            await self._ask("POST", "/destinations/hook:resume", {})
            return self._partner.counts.distinct >= count

        return holds

    async def _behaving(self) -> bool:
        return len(self._partner.trouble) <= 1

    async def _reloaded(self) -> None:
        """Early: lanes that begin anew look again at everything, and what was let fall would be picked up."""
        self._configure(batch=21)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGHUP)

    async def _replay(self) -> None:
        await self._ask("POST", "/replays", {"to": "hook", "dry_run": False, "rate": "500/s"})

    async def _backup(self) -> None:
        """A backup that is cut short is made again; what it left behind is no backup."""
        copy = self._directory / "copy"
        for armed in (True, False):
            process = await self._run("backup", str(copy), armed=armed and self._strikes(BACKUP))
            if await process.wait() == 0:
                return
            if copy.exists():
                raise Broken("a backup that failed left something under its name")
        raise Broken("the backup cannot be made")

    # Peace

    async def _peaceful(self) -> None:
        probe = [f"probe-{number}" for number in range(10_000_020, 10_000_030)]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            await self._until("a probe is acknowledged", lambda: self.oracle._post(session, probe))
        await self._until("nothing waits", self._nothing_waits)
        told = await self._ask("POST", "/people:forget", {"people": [{"email": GONE}], "dry_run": True})
        if told["traces"]["events"]:
            raise Broken(f"{told['traces']['events']} events of somebody who was forgotten")
        await self._stopped()
        await self._judged(self.outbox)
        await self._restored()

    async def _nothing_waits(self) -> bool:
        lane = await self._lane()
        if lane["held"]:
            await self._ask("POST", "/destinations/hook:resume", {})
        if lane["waiting"]:  # after a fault of ours it waits a minute, visibly: the operator need not
            await self._ask("POST", "/deliveries:retry", {"to": "hook", "state": "waiting", "all": True})
            await asyncio.sleep(0.2)
        return lane["waiting"] == 0

    async def _stopped(self) -> None:
        """It ends as asked; where the fault struck only then, the next one does."""
        for _ in range(2):
            count = len(self.ends)
            self._peace.set()
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            code = await asyncio.wait_for(self.process.wait(), 15)
            if code == 0:
                return
            self.ends.append(code)
            self.process = await self._run("serve", "--log-level", "error", armed=False)
            self._peace.clear()
            await self._ask("GET", "/ledger")
        raise Broken(f"it does not stop: {self.ends[count:]}")

    async def _judged(self, outbox: Path) -> None:
        reader = Reader(outbox)
        ledger, wrong = await reader.ledger(), await reader.recount()
        if ledger.difference or wrong:
            raise Broken(f"the ledger does not come out: {ledger.difference}, {[each.where for each in wrong]}")
        if damaged := [path.name for path in outbox.rglob("*.db") if not _intact(path)]:
            raise Broken(f"damaged: {damaged}")

    async def _restored(self) -> None:
        process = await self._run("restore", str(self._directory / "copy"), "--yes", armed=self._strikes(RESTORE))
        if await process.wait():
            process = await self._run("restore", str(self._directory / "copy"), "--yes", armed=False)
            if await process.wait():
                raise Broken("the backup cannot be restored")
        await self._judged(self.outbox)

    async def lost(self) -> set[str]:
        """Acknowledged, and neither delivered, nor refused by the partner, nor of somebody who is forgotten."""
        kept = {name for name in self.oracle.acked if not self._excused(name)}
        return kept - set(self._partner.taken)

    def _excused(self, name: str) -> bool:
        told = self.oracle.event(name)
        return "user" in told or "name_of_it" in told


async def live(armed: str, *, seed: int, sabotage: bool = False) -> dict[str, Any]:
    """One life. ``verdict`` is "ok" or what is wrong."""
    partner = Webhook(now=SystemClock().now, secret=SIGNING)
    partner.trouble = [Trouble(status=400, match="spoiled")]
    with tempfile.TemporaryDirectory(prefix="failpoints-") as name:
        async with running(partner) as url:
            life = Life(Path(name), partner, url, armed, seed=seed, sabotage=sabotage)
            try:
                await life.lived()
                verdict = "ok"
            except (Broken, TimeoutError) as error:
                verdict = str(error) or "time is up"
            lost, passed = await life.lost(), life.fired()
            told = life._stderr.read_text(errors="replace")
    if lost and verdict == "ok":
        verdict = "lost"
    return {
        "verdict": verdict,
        "lost": len(lost),
        "acknowledged": len(life.oracle.acked),
        "ends": life.ends,
        "passed": passed,
        "stderr": told,
    }


def faults(points: Sequence[str], actions: Sequence[str]) -> list[Fault]:
    return [Fault(point, action, at) for point in points for action in actions for at in POINTS[point]]


async def prove(chosen: Sequence[Fault], *, seed: int, sabotage: bool = False, loud: bool = False) -> dict[str, Any]:
    """Live through every one of these faults; the verdict is "ok" or the first thing that went wrong."""
    bad: dict[str, str] = {}
    acknowledged = lost = restarts = 0
    for number, fault in enumerate(chosen):
        result = await live(fault.armed(), seed=seed + number, sabotage=sabotage)
        verdict = result["verdict"]
        if verdict == "ok" and fault.point not in result["passed"]:
            verdict = "it was not reached"
        if verdict == "ok" and fault.action == "sleep" and result["ends"]:
            verdict = f"a stall ended it: {result['ends']}"
        if verdict != "ok":
            bad[fault.armed()] = verdict
        acknowledged += result["acknowledged"]
        lost += result["lost"]
        restarts += len(result["ends"])
        if loud:
            print(fault.armed(), verdict, result["ends"], file=sys.stderr)
            if verdict != "ok":
                print(result["stderr"][-4000:], file=sys.stderr)
    return {
        "proof": "failpoints",
        "seed": seed,
        "points": len({fault.point for fault in chosen}),
        "lives": len(chosen),
        "acknowledged": acknowledged,
        "restarts": restarts,
        "lost": lost,
        "bad": bad,
        "control": sabotage,
        "verdict": next(iter(bad.values()), "ok"),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--points", default=",".join(POINTS))
    options.add_argument("--faults", default=",".join(FAULTS))
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", action="store_true")
    options.add_argument("--loud", action="store_true", help="say every life on stderr")
    given = options.parse_args()
    chosen = faults(given.points.split(","), given.faults.split(","))
    result = asyncio.run(prove(chosen, seed=given.seed, sabotage=given.sabotage, loud=given.loud))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
