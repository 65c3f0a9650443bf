"""Proof: a wall clock that jumps neither freezes a lane, nor lets it burst, nor expires what waits.

A real server, whose wall clock is moved under it by years (``disk.c``, preloaded; the monotonic clock goes on), while a
partner is down and its events wait in back-off: a year ahead, a year behind, to the epoch, by hours, and also between two
processes. After each jump the partner is asked no more often than before; then it comes back, everything arrives within
seconds, and ids stay in order. One JSON line says the verdict.

    python -m tests.proof.clock

The control must fail: with ``--sabotage`` waits are counted by the wall clock alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from router.clock import SystemClock
from router.mocks.partner import Trouble
from router.outbox.reads.reader import Reader
from tests.proof.disk import ROOM, Broken, Case, Disk, Unavailable, case

YEAR = 365 * 86_400
# Where the clock goes, in seconds from the right time, one after the other.
JUMPS = {
    "a year ahead": YEAR,
    "a year behind": -YEAR,
    "right again": 0,
    "an hour behind": -3600,
    "near the epoch": -55 * YEAR,
}
OUTAGE = 1.5  # seconds of back-off before a jump and after it
MOST = 12  # requests in the time after a jump: the breaker lets probes by, one a second or fewer
THAW = 25.0  # seconds until everything has arrived, once the partner is back

# Every sleep ends when the wall clock says so, and nothing looks at where that went.
SABOTAGE = """
import asyncio, time
from router import clock
from router.delivery.lane import LaneRunner
async def by_the_wall(self, seconds):
    until = time.time() + seconds
    while time.time() < until:
        await asyncio.sleep(0.01)
async def unlooked(self):
    return self._clock.now()
clock.SystemClock.sleep = by_the_wall
LaneRunner._time = unlooked
"""


async def prove(
    *, jumps: Collection[str] = tuple(JUMPS), restarts: bool = True, sabotage: bool = False
) -> dict[str, Any]:
    """These jumps, in one process and, with ``restarts``, between two; the verdict is "ok" or what is wrong."""
    told: dict[str, Any] = {"proof": "clock", "jumps": 0, "control": sabotage, "most requests": 0}
    with tempfile.TemporaryDirectory(prefix="clock-") as place:
        directory = Path(place)
        (directory / "disk").mkdir()
        try:
            disk = Disk(directory, directory / "disk")
            async with case(directory, disk, more=ROOM, code=SABOTAGE if sabotage else "", batch=5) as made:
                # The partner refuses signatures of another time, rightly: that is not what is asked here.
                made.partner.now = lambda: SystemClock().now() + disk.get("clock")
                for between in (False, True) if restarts else (False,):
                    for name in jumps:
                        told["most requests"] = max(told["most requests"], await _jump(made, disk, name, between))
                        told["jumps"] += 1
                await made.judged()
                await _in_order(made)
                told["acknowledged"] = len(made.oracle.acked)
        except Unavailable as error:
            return told | {"verdict": f"unavailable: {error}"}
        except (Broken, TimeoutError, RuntimeError) as error:
            return told | {"verdict": str(error) or type(error).__name__}
    return told | {"verdict": "ok"}


async def _jump(made: Case, disk: Disk, name: str, between: bool) -> int:
    """The most requests that the partner got in the time after it."""
    made.partner.trouble = [Trouble(status=503)]
    number = len(made.oracle.acked)
    status, _, _ = await made.post(*(f"{number + more}" for more in range(20)))
    if status != 200:
        raise Broken(f"{name}: an event was answered {status}")
    await asyncio.sleep(OUTAGE)
    if between:
        await made.server.kill()
    disk.set(clock=JUMPS[name] * 1000)
    if between:
        await made.server.start()
    before = made.partner.counts.received
    await asyncio.sleep(OUTAGE)
    asked = made.partner.counts.received - before
    if asked > MOST:
        raise Broken(f"{name}: {asked} requests in {OUTAGE:.0f} s")
    made.partner.trouble = []
    try:
        await made.drained(THAW)
    except Broken:
        raise Broken(f"{name}: frozen") from None
    if lost := made.lost():
        raise Broken(f"{name}: {len(lost)} expired")
    return asked


async def _in_order(made: Case) -> None:
    """Later events have higher numbers and were received no earlier than they were sent, whatever the clock said."""
    seqs = {each.id: each.seq for each in (await Reader(made.server.outbox).recent(500)).items}
    if [name for name, _ in sorted(seqs.items(), key=lambda pair: pair[1])] != sorted(seqs, key=int):
        raise Broken("not in order")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--sabotage", action="store_true")
    result = asyncio.run(prove(sabotage=options.parse_args().sabotage))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok" and not result["verdict"].startswith("unavailable"))


if __name__ == "__main__":
    main()
