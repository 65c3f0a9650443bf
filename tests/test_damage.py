"""Files that were damaged, lost or swapped behind the program's back: what it still delivers, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import structlog

from destinations.webhook import Webhook as Destination
from router.clock import SystemClock
from router.mocks.partner import running
from router.mocks.webhook import Webhook
from router.outbox.errors import Broken, OutboxError
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Mark
from router.secret import Secret
from tests.builders import NOW, many
from tests.running import running_app, settings
from tests.stepped import SteppedClock

EVENTS = 40


async def ended_by_a_kill(directory: Path, clock: SteppedClock) -> Path:
    """The files of a process that was killed: 40 events, 20 of them delivered, all of it in the WALs alone."""
    store = await Outbox.open(directory / "alive", clock)
    lane = await store.lane("hook", "webhook")
    await store.append(many(EVENTS))
    await store.settle(lane, [Mark(seqs=range(1, 21), state="delivered", at=NOW, attempts=1)])
    shutil.copytree(directory / "alive", directory / "outbox")
    await store.close()
    return directory / "outbox"


def garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * path.stat().st_size)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


class TestBesideTheFiles:
    @pytest.mark.parametrize("name", ["state.db-shm", "log/00000001.db-shm"])
    @pytest.mark.parametrize("damage", [Path.unlink, garbage, half, emptied])
    async def test_the_index_of_a_wal_is_made_anew(
        self, tmp_path: Path, clock: SteppedClock, name: str, damage: Callable[[Path], None]
    ):
        """
        Whatever became of -shm, nothing is lost by it.
        """
        outbox = await ended_by_a_kill(tmp_path, clock)
        damage(outbox / name)
        store = await Outbox.open(outbox, clock)
        lane = await store.lane("hook", "webhook")
        found = store.last, lane.cursor
        await store.close()

        assert (EVENTS, 20) == found

    @pytest.mark.parametrize("damage", [Path.unlink, garbage, emptied])
    async def test_a_log_without_its_wal_is_refused(
        self, tmp_path: Path, clock: SteppedClock, damage: Callable[[Path], None]
    ):
        """
        The state knows of more than the log has left: nothing is written over the gap.
        """
        outbox = await ended_by_a_kill(tmp_path, clock)
        damage(outbox / "log/00000001.db-wal")
        with pytest.raises(OutboxError, match="event 20 was settled: restore both"):
            await Outbox.open(outbox, clock)

    @pytest.mark.parametrize("damage", [Path.unlink, garbage, emptied])
    async def test_a_state_without_its_wal_is_refused(
        self, tmp_path: Path, clock: SteppedClock, damage: Callable[[Path], None]
    ):
        """
        It is older than the log then, or has no tables yet.
        """
        outbox = await ended_by_a_kill(tmp_path, clock)
        damage(outbox / "state.db-wal")
        with pytest.raises(OutboxError, match=r"newer than state\.db: restore both"):
            await Outbox.open(outbox, clock)

    async def test_a_lost_wal_is_told_where_nothing_else_shows_it(self, tmp_path: Path, clock: SteppedClock):
        """
        Events that were acknowledged and not settled yet went with it: nobody may find out by himself.
        """
        store = await Outbox.open(tmp_path / "alive", clock)
        await store.append(many(3))
        shutil.copytree(tmp_path / "alive", tmp_path / "outbox")
        await store.close()
        (tmp_path / "outbox/log/00000001.db-wal").unlink()
        with structlog.testing.capture_logs() as said:
            await (await Outbox.open(tmp_path / "outbox", clock)).close()

        assert "wal_missing" in {each["event"] for each in said}

    @pytest.mark.parametrize("name", ["state.db", "log/00000001.db"])
    @pytest.mark.parametrize("damage", [emptied, garbage])
    async def test_no_file_is_made_anew_over_one_that_was(
        self, tmp_path: Path, clock: SteppedClock, name: str, damage: Callable[[Path], None]
    ):
        """
        Empty, or no database any more: it is refused, and stays as it is.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.append(many(EVENTS))
        await store.close()
        damage(tmp_path / "outbox" / name)
        left = (tmp_path / "outbox" / name).read_bytes()
        with pytest.raises(OutboxError, match="restore it from a backup"):
            await Outbox.open(tmp_path / "outbox", clock)

        assert left == (tmp_path / "outbox" / name).read_bytes()


class TestInTheFiles:
    async def test_a_flipped_bit_costs_one_event_visibly(self, tmp_path: Path):
        """
        One payload is not what was written: that delivery is dead with the reason, the log says it, the others arrive.
        """
        partner = Webhook(now=SystemClock().now, secret=None)
        async with running(partner) as url:
            hook = Destination(url=f"{url}/hook", secrets=(Secret("whsec_" + "MDEy" * 8),), allow_private=True)
            async with running_app(settings(tmp_path)) as app:
                await app.store.lane("hook", "webhook")  # from before the events, which wait for it
                await _post(app.collect_port, 30)
            flip_a_bit(tmp_path / "outbox/log/00000001.db", 18)
            with structlog.testing.capture_logs() as said:
                async with running_app(settings(tmp_path, destinations={"hook": hook})):
                    await partner.wait_for_events(29)
                    reader = Reader(tmp_path / "outbox")
                    while (lane := (await reader.ledger()).destinations["hook"]).waiting:
                        await partner.wait_for_events(29)
                    dead = (await reader.deliveries("hook", "dead")).items

        assert (29, 1) == (lane.delivered, lane.dead)
        assert ["the stored event is damaged: run turnout doctor"] == [each.reason for each in dead]
        assert "event_damaged" in {each["event"] for each in said}

    async def test_a_damaged_page_of_the_open_segment_is_refused(self, tmp_path: Path, clock: SteppedClock):
        """
        SQLite cannot follow its own tree any more; the words say what to do.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.append(many(500))
        await store.close()
        damage_pages(tmp_path / "outbox/log/00000001.db")
        with pytest.raises(OutboxError, match=r"damaged.*restore it from a backup"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_a_damaged_page_of_an_older_segment_ends_the_process(self, tmp_path: Path):
        """
        Whoever meets it first, be it while it starts: serve does not go on.
        """
        clock = SystemClock()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=100)
        for start in range(1, 500, 100):
            await store.append(many(100, start=start))
        await store.close()
        damage_pages(tmp_path / "outbox/log/00000001.db")
        with pytest.raises(Broken, match="damaged"):
            await served_until_broken(tmp_path)


async def served_until_broken(directory: Path) -> None:
    async with asyncio.timeout(30), running_app(settings(directory)) as app:
        raise await app.broken


def flip_a_bit(file: Path, seq: int) -> None:
    connection = sqlite3.connect(file)
    payload = bytearray(connection.execute("SELECT payload FROM event WHERE seq = ?", (seq,)).fetchone()[0])
    payload[len(payload) // 2] ^= 1
    connection.execute("UPDATE event SET payload = ? WHERE seq = ?", (bytes(payload), seq))
    connection.commit()
    connection.close()


def damage_pages(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    for page in range(1, len(raw) // 8192):
        raw[page * 8192 : page * 8192 + 64] = b"\xff" * 64
    file.write_bytes(raw)


async def _post(port: int, count: int) -> None:
    body = [{"event": "purchase", "id": str(number), "note": f"number-{number}"} for number in range(count)]
    headers = {"Authorization": "Bearer a-write-key"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/collect", json=body) as answer,
    ):
        assert 200 == answer.status
