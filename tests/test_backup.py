"""Backups: a copy made at any moment fits together, is verified, and can be taken back."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router import cli
from router.cli.backup import faults
from router.event import Clear, User
from router.outbox.disk import writer
from router.outbox.disk.lock import Lock
from router.outbox.errors import Busy, Locked, OutboxError
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Mark
from router.outbox.state.registers import Quarantined
from router.outbox.upkeep import backup
from router.person import Part, Person
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock

IP = "198.51.100.77"


async def filled(tmp_path: Path, clock: SteppedClock) -> Outbox:
    store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
    lane = await store.lane("a", "ipsnare")
    await store.append(rows(an_event("with-ip", clear=Clear(ip=IP))))
    for start in range(3):
        await store.append(many(10, start=10 * start + 1))
    await store.journal.sealing
    await store.settle(lane, [Mark(seqs=range(1, 20), state="delivered", at=NOW, attempts=1)])
    await store.settle(lane, [Mark(seqs=(25,), state="dead", at=NOW, attempts=1, reason="no")])
    return store


class TestCopy:
    async def test_what_is_copied_can_be_run_on(self, tmp_path, clock: SteppedClock):
        """
        The copy opens as an outbox of its own, with every event, every end and every clear value.
        """
        store = await filled(tmp_path, clock)
        copied = await asyncio.to_thread(backup.copy, store.directory, tmp_path / "copy")
        await store.close()

        assert (31, 3) == (copied.last, copied.segments)
        assert [] == await faults(tmp_path / "copy")
        again = await Outbox.open(tmp_path / "copy", clock, segment_events=10)
        [first] = await again.pick([1])
        assert IP == first.event.clear.ip
        assert [True] == await again.append(many(1))
        assert [False] == await again.append(many(1, start=900))
        lane = await again.lane("a", "ipsnare")
        assert 19 == lane.cursor
        await again.close()

    async def test_under_load_every_copy_adds_up(self, tmp_path, clock: SteppedClock):
        """
        While events come, are settled, and segments roll and are retired, each of several copies fits together.
        """
        store = await filled(tmp_path, clock)
        lane = store.lanes["a"]
        going = True

        async def load() -> None:
            number = 1000
            while going:
                await store.append(many(7, start=number))
                number += 7
                await store.settle(lane, [Mark(seqs=range(lane.cursor + 1, store.last + 1), state="delivered", at=NOW)])
                clock.step(8 * 86_400)
                await store.retention.look()

        task = asyncio.create_task(load())
        for number in range(6):
            await asyncio.to_thread(backup.copy, store.directory, tmp_path / f"copy-{number}")
            assert [] == await faults(tmp_path / f"copy-{number}")
        going = False
        await task
        await store.close()

    async def test_without_keys_nothing_opens_the_clear_values(self, tmp_path, clock: SteppedClock):
        """
        The keys are in no byte of such a copy; events and ends are.
        """
        store = await filled(tmp_path, clock)
        keys = [each.key for each in store.segments.all]
        await asyncio.to_thread(backup.copy, store.directory, tmp_path / "copy", keys=False)
        await asyncio.to_thread(backup.copy, store.directory, tmp_path / "control")
        await store.close()

        def holding(directory: Path) -> int:
            return sum(key in path.read_bytes() for path in directory.rglob("*") if path.is_file() for key in keys)

        assert (0, 3) == (holding(tmp_path / "copy"), holding(tmp_path / "control"))
        assert [] == await faults(tmp_path / "copy")

    def test_nothing_is_overwritten(self, tmp_path):
        """
        A target that is there, or a source that is not, is refused.
        """
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "mine").touch()
        (tmp_path / "outbox").mkdir()
        with pytest.raises(OutboxError, match="no outbox"):
            backup.copy(tmp_path / "outbox", tmp_path / "other")
        (tmp_path / "outbox" / "state.db").touch()
        with pytest.raises(OutboxError, match="there already"):
            backup.copy(tmp_path / "outbox", tmp_path / "copy")

    @pytest.mark.parametrize(
        ("name", "content"),
        [("state.db", b""), ("state.db", b"no database" * 1000), ("log/00000001.db", b"no database" * 1000)],
        ids=["an empty state", "a state that is none", "a segment that is none"],
    )
    async def test_what_cannot_be_copied_is_said(self, tmp_path, clock: SteppedClock, name: str, content: bytes):
        """
        Of files that are no database any more there is no copy, and the words say what to run.
        """
        store = await filled(tmp_path, clock)
        await store.close()
        (store.directory / name).write_bytes(content)
        with pytest.raises(OutboxError, match="run turnout doctor"):
            backup.copy(store.directory, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()

    async def test_where_there_is_no_room_nothing_is_left(self, tmp_path, clock: SteppedClock):
        """
        A full disk is called what it is, and a copy that did not come to its end takes none of it.
        """
        store = await filled(tmp_path, clock)
        await store.close()
        handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(OutboxError, match="copy cannot be written: free some space there"):
                backup.copy(store.directory, tmp_path / "copy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handled)

        assert ["outbox"] == [each.name for each in tmp_path.iterdir()]

    async def test_damage_is_found(self, tmp_path, clock: SteppedClock):
        """
        A copy with a lost event or a broken page is not called right: control of the verification.
        """
        store = await filled(tmp_path, clock)
        await asyncio.to_thread(backup.copy, store.directory, tmp_path / "copy")
        await store.close()
        connection = sqlite3.connect(tmp_path / "copy" / "log" / "00000001.db")
        connection.execute("DELETE FROM event WHERE seq = 3")
        connection.commit()
        connection.close()

        assert await faults(tmp_path / "copy")


class TestForgotten:
    """Whoever was forgotten after the backup was made stays forgotten when it is taken back."""

    async def lose(self, tmp_path: Path, clock: SteppedClock) -> Path:
        """An outbox that was copied, and then asked to forget one visitor of three. The copy."""
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        await store.lane("a", "ipsnare")
        for name in ("v-1", "v-2", "v-3"):
            await store.append(rows(*(an_event(f"{name}-{n}", user=User(anonymous_id=name)) for n in range(2))))
        await store.journal.sealing
        await store.quarantine(
            [Quarantined(at=NOW, source="shop", code="x", message="y", item=f'{{"v":"v-{n}"}}') for n in (2, 3)]
        )
        await asyncio.to_thread(backup.copy, store.directory, tmp_path / "copy")
        await store.erase([Person(anonymous_id="v-2")], "test")
        await store.close()
        return tmp_path / "copy"

    async def test_a_restored_log_is_erased_again(self, tmp_path, clock: SteppedClock):
        """
        The next start empties what the backup holds of them, in the log and the quarantine, ends its deliveries, and keeps
        them out; others are whole.
        """
        copy = await self.lose(tmp_path, clock)
        restored = backup.restore(copy, tmp_path / "outbox")
        store = await Outbox.open(tmp_path / "outbox", clock)
        found = [None if each.event is None else each.event.id for each in await store.pick(range(1, 7))]
        blocked = store.suppression.blocks(Part(user=User(anonymous_id="v-2")))
        await store.close()
        quarantined = (await Reader(tmp_path / "outbox").quarantined()).items

        assert 1 == restored.forgotten
        assert ["v-1-0", "v-1-1", None, None, "v-3-0", "v-3-1"] == found
        assert blocked
        assert 1 == len(quarantined)
        assert [] == await faults(tmp_path / "outbox")

    async def test_where_it_cannot_be_done_nothing_is_left_open(
        self, tmp_path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A reader that stays keeps the outbox from opening; once it has gone, the same process opens it.
        """
        backup.restore(await self.lose(tmp_path, clock), tmp_path / "outbox")
        monkeypatch.setattr(writer, "READERS", 0.0)
        reading = sqlite3.connect(tmp_path / "outbox" / "state.db", isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM meta").fetchone()
        with pytest.raises(Busy):
            await Outbox.open(tmp_path / "outbox", clock)
        reading.close()

        await (await Outbox.open(tmp_path / "outbox", clock)).close()

    async def test_it_is_done_once(self, tmp_path, clock: SteppedClock):
        """
        The start after that has nothing left to do.
        """
        backup.restore(await self.lose(tmp_path, clock), tmp_path / "outbox")
        for _ in range(2):
            await (await Outbox.open(tmp_path / "outbox", clock)).close()

        assert ["forget"] == [
            each.what for each in (await Reader(tmp_path / "outbox").audit()).items if each.who == "turnout"
        ]

    async def test_what_cannot_be_told_is_said(self, tmp_path, clock: SteppedClock):
        """
        Where there is no outbox, or it cannot be read, nobody can be carried over.
        """
        copy = await self.lose(tmp_path, clock)
        (tmp_path / "outbox" / "state.db").write_bytes(b"no database")

        assert None is backup.restore(copy, tmp_path / "elsewhere").forgotten
        assert None is backup.restore(copy, tmp_path / "outbox").forgotten

    async def test_keys_of_two_outboxes_do_not_mix(self, tmp_path, clock: SteppedClock):
        """
        A backup of another outbox takes their key where it keeps nobody out itself; else that cannot be told.
        """
        copy = await self.lose(tmp_path, clock)
        other = await Outbox.open(tmp_path / "other", clock)
        await other.close()
        await asyncio.to_thread(backup.copy, tmp_path / "other", tmp_path / "empty")
        other = await Outbox.open(tmp_path / "other", clock)
        await other.erase([Person(anonymous_id="v-9")], "test")
        await other.close()

        assert 1 == backup.restore(tmp_path / "empty", tmp_path / "outbox").forgotten
        assert 1 == backup.restore(copy, tmp_path / "outbox").forgotten  # all of them, by the key that came with them
        assert None is backup.restore(tmp_path / "other", tmp_path / "outbox").forgotten


class TestOnDisk:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What is synced, and what gets another name, in order."""
        descriptors = Path("/proc/self/fd")
        if not descriptors.exists():
            pytest.skip("needs /proc")
        found: list[str] = []
        sync, rename = os.fsync, Path.rename

        def synced(descriptor: int) -> None:
            found.append(str((descriptors / str(descriptor)).readlink()))
            sync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            found.append(f"{path.name} becomes {target.name}")
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "rename", renamed)
        return found

    async def test_a_copy_has_its_name_once_all_of_it_is_there(self, tmp_path, clock: SteppedClock, done: list[str]):
        """
        Every file and directory is synced, then it is renamed, then its name is synced: after a power loss it is whole, or
        none. So is what is taken back.
        """
        store = await filled(tmp_path, clock)
        await store.close()
        for make, place in (
            (lambda: backup.copy(tmp_path / "outbox", tmp_path / "copy"), tmp_path / "copy"),
            (lambda: backup.restore(tmp_path / "copy", tmp_path / "outbox"), tmp_path / "outbox"),
        ):
            done.clear()
            await asyncio.to_thread(make)
            at, part = done.index(f"{place.name}.part becomes {place.name}"), f"{place}.part"
            there = {str(path).replace(str(place), part, 1) for path in (place, *place.rglob("*"))}

            assert set() == there - set(done[:at])
            assert str(tmp_path) in done[at:]


class TestCommands:
    @pytest.fixture
    async def restored_from(self, tmp_path, clock: SteppedClock) -> Path:
        """A copy beside the outbox, which nobody runs on."""
        await (await filled(tmp_path, clock)).close()
        await asyncio.to_thread(backup.copy, tmp_path / "outbox", tmp_path / "copy")
        return tmp_path / "copy"

    async def test_there_and_back(self, tmp_path, clock: SteppedClock):
        """
        Backup beside the running owner, then restore: the outbox is as it was, and what came after is kept beside it.
        """
        store = await filled(tmp_path, clock)
        config = tmp_path / "config.toml"
        config.write_text(f'[outbox]\npath = "{store.directory}"\n')

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, cli.turnout, [*arguments, "--config", str(config)])

        made = await run("backup", str(tmp_path / "copy"))
        await store.append(many(5, start=700))
        refused = await run("restore", str(tmp_path / "copy"), "--yes")
        await store.close()
        back = await run("restore", str(tmp_path / "copy"), "--yes")

        assert (0, 1, 0) == (made.exit_code, refused.exit_code, back.exit_code)
        assert "31 events in 3 segments" in made.stdout
        assert "already owns the outbox" in refused.stderr
        assert 31 == (await Reader(tmp_path / "outbox").ledger()).accepted
        assert 36 == (await Reader(tmp_path / "outbox.before").ledger()).accepted
        assert 0o700 == (tmp_path / "outbox").stat().st_mode & 0o777
        assert {0o600} == {path.stat().st_mode & 0o777 for path in (tmp_path / "outbox").rglob("*") if path.is_file()}

    def test_what_is_no_backup_is_refused(self, tmp_path):
        """
        A directory that is none, or lacks a segment, takes nobody's place.
        """
        (tmp_path / "empty").mkdir()
        with pytest.raises(OutboxError, match="not a backup"):
            backup.restore(tmp_path / "empty", tmp_path / "outbox")
        assert not (tmp_path / "outbox").exists()

    def test_one_that_lacks_a_segment_leaves_nothing(self, tmp_path, restored_from: Path):
        """
        It is found out in the copy of it, which goes; the outbox that is there stays.
        """
        (restored_from / "log" / "00000001.db").unlink()
        with pytest.raises(OutboxError, match="is missing"):
            backup.restore(restored_from, tmp_path / "outbox")

        assert ["copy", "outbox"] == sorted(each.name for each in tmp_path.iterdir())

    def test_nobody_starts_on_what_is_being_replaced(self, tmp_path, restored_from: Path, monkeypatch):
        """
        A supervisor's start in the middle is refused: it would acknowledge events into what was set aside.
        """
        copytree = shutil.copytree

        def copied(*arguments):
            with pytest.raises(Locked):
                Lock(tmp_path / "outbox")
            return copytree(*arguments)

        monkeypatch.setattr(backup.shutil, "copytree", copied)
        backup.restore(restored_from, tmp_path / "outbox")
        Lock(tmp_path / "outbox").release()

    def test_a_link_stays_one(self, tmp_path, restored_from: Path):
        """
        An outbox on another disk is replaced on that disk.
        """
        (tmp_path / "disk").mkdir()
        (tmp_path / "outbox").rename(tmp_path / "disk" / "outbox")
        (tmp_path / "outbox").symlink_to(tmp_path / "disk" / "outbox")
        restored = backup.restore(restored_from, tmp_path / "outbox")

        assert tmp_path / "disk" / "outbox.before" == restored.kept
        assert (tmp_path / "outbox").is_symlink()
        assert (tmp_path / "disk" / "outbox" / "state.db").exists()

    def test_a_mount_is_refused_before_anything_is_copied(self, tmp_path, restored_from: Path, monkeypatch):
        """
        A volume's own directory cannot get another name.
        """
        monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "outbox")
        with pytest.raises(OutboxError, match="path to a directory in it"):
            backup.restore(restored_from, tmp_path / "outbox")

        assert ["copy", "outbox"] == sorted(each.name for each in tmp_path.iterdir())

    def test_what_a_killed_restore_left_is_not_eaten(self, tmp_path, restored_from: Path):
        """
        It stands where the next one is put together.
        """
        left = restored_from.rename(tmp_path / "outbox.part")
        with pytest.raises(OutboxError, match="cut short"):
            backup.restore(left, tmp_path / "outbox")

        assert (left / "state.db").exists()
