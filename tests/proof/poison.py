"""A process whose destination is killed by one event: run by ``test_poison``, again and again, until it lives.

``python -m tests.proof.poison DIRECTORY URL [replay]``: opens the outbox, delivers to the webhook at URL, and ends when
nothing waits any more and, where it was to replay everything, when that is done. The event named poison kills the process when it is mapped, as a fault in a library would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from destinations.webhook import Webhook
from router.clock import SystemClock
from router.delivery.engine import Delivery
from router.event import Event
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.replays import Chosen
from router.secret import Secret

SIGNING = Secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


class Poisoned(Webhook, tag="poisoned", frozen=True, kw_only=True):
    def requests(self, events: Sequence[Event], now: int):
        if any(event.name == "poison" for event in events):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().requests(events, now)


async def main(directory: Path, url: str, *, replay: bool) -> None:
    store = await Outbox.open(directory, SystemClock())
    delivery = Delivery(store, store.clock)
    await delivery.apply({"a": Poisoned(url=url, secrets=(SIGNING,), allow_private=True, batch=5, concurrency=2)})
    reader = Reader(directory)
    if replay and not await store.replays():
        await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
    while delivery.replays or (await reader.ledger()).destinations["a"].waiting:
        await store.clock.sleep(0.02)
    await delivery.stop(2.0)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], replay="replay" in sys.argv[3:]))
