"""An event that kills the process is found and set aside, or left out of a replay, and everybody else's events arrive."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from router.clock import SystemClock
from router.mocks.partner import running
from router.mocks.webhook import Webhook
from router.outbox.log.entries import Row
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state import crashes
from router.outbox.state.crashes import Suspect, suspected
from router.outbox.state.deliveries import Mark
from router.outbox.state.inhand import InHand, Marked
from tests.builders import NOW, an_event, rows
from tests.running import ROOT
from tests.stepped import SteppedClock

RESTARTS = crashes.TIMES


def sixty() -> list[Row]:
    now = SystemClock().now()
    return rows(*(an_event(f"e-{n}", time=now, received=now, name="poison" if n == 33 else "sale") for n in range(60)))


async def ends_until_it_lives(partner: Webhook, directory: Path, *more: str) -> list[int]:
    """How each process ended, one after the other, until one ends as it should."""
    ends: list[int] = []
    async with running(partner) as url:
        while not ends or ends[-1] != 0:
            assert len(ends) <= RESTARTS
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.proof.poison", str(directory), url, *more, cwd=ROOT
            )
            async with asyncio.timeout(60):
                ends.append(await process.wait())
    return ends


async def test_a_replay_leaves_the_killer_out(tmp_path: Path):
    """
    One event of sixty kills the process whenever a replay maps it: after two restarts it is left out and counted, and the
    other fifty-nine are sent.
    """
    partner = Webhook(now=SystemClock().now)
    store = await Outbox.open(tmp_path / "outbox", SystemClock())
    await store.append(sixty())
    await store.close()
    ends = await ends_until_it_lives(partner, tmp_path / "outbox", "replay")
    store = await Outbox.open(tmp_path / "outbox", SystemClock())
    [replay] = await store.replays()
    await store.close()

    assert [-signal.SIGKILL] * 2 + [0] == ends
    assert {f"e-{n}" for n in range(60)} - {"e-33"} == set(partner.taken)
    assert ("done", 59, 1) == (replay.state, replay.counts.sent, replay.counts.refused)


async def test_the_killer_is_isolated(tmp_path: Path):
    """
    One event of sixty kills the process whenever it is mapped: after three restarts it is dead with the reason, the other
    fifty-nine are delivered, and the ledger adds up.
    """
    partner = Webhook(now=SystemClock().now)
    store = await Outbox.open(tmp_path / "outbox", SystemClock())
    await store.lane("a", "webhook")
    await store.append(sixty())
    await store.close()
    ends = await ends_until_it_lives(partner, tmp_path / "outbox")
    lane = (await Reader(tmp_path / "outbox").ledger()).destinations["a"]

    assert [-signal.SIGKILL] * RESTARTS + [0] == ends
    assert (59, 1, 0) == (lane.delivered, lane.dead, lane.waiting)
    assert {f"e-{n}" for n in range(60)} - {"e-33"} == set(partner.taken)
    [delivery] = (await Reader(tmp_path / "outbox").deliveries(state="dead")).items
    assert ("e-33", crashes.SET_ASIDE) == (delivery.id, delivery.reason)


async def crashed(store: Outbox) -> None:
    """As a kill leaves it: the lock is free, and no end is written down."""
    await store._state.read(lambda connection: connection.execute("UPDATE meta SET value = value"))
    store._state.write = lambda unit: asyncio.sleep(0)  # type: ignore[method-assign]  # as if the process were dead
    await store.close()


class TestWhoIsSuspected:
    async def test_only_three_ends_in_a_row_at_the_same_event(self, tmp_path, clock: SteppedClock):
        """
        An event that happened to be in hand when somebody killed the process is set aside at the third time, not before;
        an end in good order begins the count anew.
        """
        for end in range(1, 4):
            store = await Outbox.open(tmp_path / "outbox", clock)
            lane = await store.lane("a", "webhook")
            if end == 1:
                await store.append(rows(an_event()))
            assert lane.open(1)
            store.in_hand.take(lane.id, 1, 1)
            await crashed(store)
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("a", "webhook")

        assert not lane.open(1)
        assert 3 == store.past.ends
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        assert crashes.Past(0, ()) == store.past
        await store.close()

    async def test_what_was_done_meanwhile_stays_done(self, tmp_path, clock: SteppedClock):
        """
        An event that has its end, also one beyond the cursor, is not made dead by having been in hand.
        """
        for _ in range(4):
            store = await Outbox.open(tmp_path / "outbox", clock)
            lane = await store.lane("a", "webhook")
            if store.last == 0:
                await store.append(rows(an_event("e-1"), an_event("e-2")))
                await store.settle(lane, [Mark(seqs=(2,), state="delivered", at=NOW, attempts=1)])
            store.in_hand.take(lane.id, 2, 2)
            await crashed(store)
        ledger = await Reader(tmp_path / "outbox").ledger()

        assert (1, 0, 0) == (ledger.destinations["a"].delivered, ledger.destinations["a"].dead, ledger.difference)

    def test_a_batch_is_narrowed_and_nobody_else_is_to_blame(self):
        """
        Whoever is in hand again is the more suspect, alone of its batch; an end at other events blames others.
        """
        batch = suspected([], Marked(1, 1, 100))
        alone = suspected(batch, Marked(1, 33, 33))
        both = suspected(alone, Marked(2, 7, 7))

        assert [Suspect(1, 33, 33, 2)] == alone
        assert [Suspect(1, 33, 33, 2), Suspect(2, 7, 7, 1)] == both
        assert Suspect(1, 33, 33, 3) in suspected(both, Marked(1, 33, 33))

    def test_an_end_elsewhere_blames_nobody(self, tmp_path):
        """
        A mark stands only while the partner's code runs: of a process that is killed in between nothing is found.
        """
        hand = InHand(tmp_path / "in-hand")
        hand.take(1, 5, 9)
        found = InHand(tmp_path / "in-hand").found()
        hand.release()

        assert Marked(1, 5, 9) == found
        assert InHand(tmp_path / "in-hand").found() is None
