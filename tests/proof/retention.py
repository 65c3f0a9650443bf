"""Proof: with retention running the outbox stays as large as it is, and costs hardly any of what it takes in.

Two outboxes on disk take the same load in turns, A B A B: one keeps everything, one forgets what its lane has delivered.
Their clocks go by events, so that on a slow machine, too, as many are young enough to be kept: two segments' worth. Of the
one that forgets: the files do not grow from turn to turn, no WAL is above 64 MB, it takes at most a tenth less than the
other; and a copy made in the midst of it restores to an outbox that has everything acknowledged before, and whose ledger
adds up. One JSON line says the verdict.

    python -m tests.proof.retention --turns 12 --segment 20000

The control must fail: with ``--sabotage`` retention never takes a segment away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from router.event import Event
from router.outbox.log import entries
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Mark
from router.outbox.state.lane import Lane
from router.outbox.upkeep import backup
from router.outbox.upkeep.retention import EVERY, Policy
from tests.bench.fill import events
from tests.stepped import SteppedClock

SENDERS, AT_ONCE = 8, 100
TURN = 3  # segments that are filled in a turn
LOOKS = 4  # of retention while a segment is filled
SEGMENT_MS = int(LOOKS * EVERY * 1000)  # by the outbox's clock
GROWTH = 1.15  # from the middle of the run to its end; segments come and go
SLOWER = 0.90
WAL = 64 * 1024 * 1024
DEDUP = SEGMENT_MS // 2
FORGETS = Policy(delivered=2 * SEGMENT_MS, dead=6 * SEGMENT_MS, dedup=DEDUP)
KEEPS = Policy(delivered=10**12, dead=10**12, dedup=DEDUP)


class Loaded:
    """An outbox under load in its turns. ``sizes`` are the bytes of the files, without WALs, at the end of each turn."""

    def __init__(self, store: Outbox, lane: Lane, clock: SteppedClock, segment_events: int) -> None:
        self.store, self.lane, self.clock = store, lane, clock
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self.wal = self.acked = 0
        self._turn, self._step = TURN * segment_events, SEGMENT_MS / 1000 / segment_events
        self._made: Iterator[Event] = events(10**9, clock.now())
        self._taken = self._until = 0

    async def turn(self) -> None:
        self._until += self._turn
        before, began = self.acked, time.monotonic()
        await asyncio.gather(self._deliver(), self._watch(), *(self._send() for _ in range(SENDERS)))
        self.rates.append((self.acked - before) / (time.monotonic() - began))
        await self.store.retention.look()  # on a machine that is slow at this moment it may be a look behind
        self.sizes.append(sum(each.stat().st_size for each in self.store.directory.rglob("*.db")))

    async def _send(self) -> None:
        while self.acked < self._until:
            rows = [entries.row(event) for _, event in zip(range(AT_ONCE), self._made, strict=False)]
            await self.store.append(rows)
            self.acked += len(rows)
            self.clock.step(len(rows) * self._step)

    async def _deliver(self) -> None:
        """As a lane does: most are delivered, some are refused, some wait for another try and have it."""
        while self._taken < self._until:
            found = await self.store.read(self._taken, 500)
            if not found:
                await asyncio.sleep(0.005)
                continue
            now, seqs = self.clock.now(), [each.seq for each in found]
            self._taken = seqs[-1]
            ends = {"dead": seqs[:1], "waiting": seqs[1:3], "delivered": seqs[3:]}
            marks = [
                Mark(seqs=some, state=state, at=now, attempts=1, due=now if state == "waiting" else None, reason="some")
                for state, some in ends.items()
                if some
            ]
            await self.store.settle(self.lane, marks)
            again = [each.seq for each in await self.store.due(self.lane, now, 500, ())]
            await self.store.settle(self.lane, [Mark(seqs=again, state="delivered", at=now, parked=True, attempts=2)])

    async def _watch(self) -> None:
        while self.acked < self._until:
            with contextlib.suppress(FileNotFoundError):  # one went away between two looks
                self.wal = max([self.wal, *(each.stat().st_size for each in self.store.directory.rglob("*-wal"))])
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def opened(directory: Path, policy: Policy, segment_events: int):
    clock = SteppedClock()
    store = await Outbox.open(directory, clock, policy=policy, segment_events=segment_events)
    try:
        yield Loaded(store, await store.lane("hook", "webhook"), clock, segment_events)
    finally:
        await store.close()


async def restored(copy: Path, directory: Path) -> tuple[int, list[str]]:
    """How many events a copy has once it is an outbox again, and what is wrong with its sums."""
    backup.restore(copy, directory)
    store = await Outbox.open(directory, SteppedClock(), policy=KEEPS)
    await store.close()
    reader = Reader(directory)
    ledger, wrong = await reader.ledger(), [str(each) for each in await reader.recount()]
    return ledger.accepted, wrong + ["the ledger does not add up"] * (ledger.difference != 0)


async def prove(*, turns: int, segment_events: int, sabotage: bool, slower: float = SLOWER) -> dict[str, object]:
    """Run it; the verdict is "ok" or names what is wrong. ``slower`` is the least share of the rate that will do."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        async with (
            opened(root / "keeps", KEEPS, segment_events) as keeps,
            opened(root / "forgets", KEEPS if sabotage else FORGETS, segment_events) as forgets,
        ):
            for _ in range(turns):
                await keeps.turn()
                await forgets.turn()
            acked = forgets.acked
            copying = asyncio.create_task(asyncio.to_thread(backup.copy, forgets.store.directory, root / "copy"))
            await asyncio.gather(copying, forgets.turn())
        had, wrong = await restored(root / "copy", root / "restored")
    middle, end = forgets.sizes[turns // 2], forgets.sizes[turns - 1]
    share = statistics.median(forgets.rates[1:turns]) / statistics.median(keeps.rates[1:turns])
    wrong += [f"it grows: {middle} bytes, then {end}"] * (end > GROWTH * middle)
    wrong += [f"a WAL of {forgets.wal} bytes"] * (forgets.wal > WAL)
    wrong += [f"it takes {share:.2f} of what it takes without"] * (share < slower)
    wrong += [f"{had} in the copy, {acked} were acknowledged before"] * (had < acked)
    return {
        "proof": "retention",
        "turns": turns,
        "events": forgets.acked,
        "MB": [round(each / 1e6, 1) for each in forgets.sizes],
        "MB without": [round(each / 1e6, 1) for each in keeps.sizes],
        "WAL MB": round(forgets.wal / 1e6, 1),
        "share of the rate without": round(share, 3),
        "in the copy": had,
        "control": sabotage,
        "verdict": "; ".join(wrong) or "ok",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--turns", type=int, default=12)
    options.add_argument("--segment", type=int, default=20_000, help="events of one")
    options.add_argument("--sabotage", action="store_true")
    chosen = options.parse_args()
    result = asyncio.run(prove(turns=chosen.turns, segment_events=chosen.segment, sabotage=chosen.sabotage))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
