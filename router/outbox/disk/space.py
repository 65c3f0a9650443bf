"""Room on the disk: how much is left, and what to do when there is none.

On a full disk even UPDATE, DELETE and a checkpoint fail (measured on tmpfs), so that what a partner took could not be
written down. A ballast, a file that only takes up room, goes then, and in its place lanes settle, retention deletes and
checkpoints empty the WALs. Events are refused from before that point on, so they cannot eat it up, until there is room
for all of it anew. A quota, a file size limit and a read-only remount are the same: they pass, and nothing was damaged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from router.clock import Clock, woken

log: Any = structlog.get_logger()

EVERY = 0.5  # seconds between two looks
LITTLE = 5  # times the least room: whoever has less is told
ENOUGH = 1.1  # times the least room, before events are taken again: it shall not flap
TRIAL = 1 << 20  # bytes that are tried where no ballast is wanted
FILE = "ballast"


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. Below ``least`` free ones no event is taken; ``ballast`` are kept in reserve."""

    least: int = 0
    ballast: int = 0


class Space:
    """Watches the disk of a directory. ``full`` is whether events must be refused; ``relieve`` empties the WALs.

    Until ``start`` nothing is ever full: whoever opens an outbox for a moment is told by SQLite itself.
    """

    def __init__(self, directory: Path, clock: Clock, room: Room, relieve: Callable[[], Awaitable[None]]) -> None:
        self.full = False
        self._directory, self._clock, self._room, self._relieve = directory, clock, room, relieve
        self._ballast = directory / FILE
        self._refused = False  # the disk itself took nothing, whatever it says is free
        self._low = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The first look is done when this returns."""
        await self._look()
        self._task = asyncio.create_task(self._run(), name="outbox-space")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def refused(self) -> None:
        """The disk took nothing."""
        if self._task is None:
            return
        self._refused = True
        self._fill()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await woken(self._clock, self._wake, EVERY)
            asked = self._wake.is_set()
            self._wake.clear()
            try:
                await self._look()
                if asked and self.full:
                    await self._clock.sleep(EVERY)  # what is refused meanwhile is refused by word alone
            except Exception:
                log.exception("space_failed")

    async def _look(self) -> None:
        if self._refused:
            with contextlib.suppress(OSError):  # read-only: nothing goes, and nothing comes
                await asyncio.to_thread(drop, self._ballast)
            await self._relieve()
        free = await asyncio.to_thread(_free, self._directory)
        if not self.full and free >= self._room.least:
            self._tell_low(free)
            await self._keep_ballast(free)
        elif not self.full:
            self._fill()
        elif free >= self._needed() and await asyncio.to_thread(self._has_room):
            self.full = self._refused = False
            log.warning("space_returned", bytes=free)

    def _fill(self) -> None:
        if not self.full:
            self.full = True
            log.error("disk_full", reason="events are refused until there is space: free some; it resumes by itself")

    def _tell_low(self, free: int) -> None:
        low = free < LITTLE * self._room.least
        if low and not self._low:
            log.warning("disk_low", bytes=free, reason="free some space before events must be refused")
        self._low = low

    async def _keep_ballast(self, free: int) -> None:
        if not whole(self._ballast, self._room.ballast) and free >= self._needed():
            await asyncio.to_thread(make, self._ballast, self._room.ballast)

    def _needed(self) -> int:
        """Bytes that must be free before events are taken again."""
        missing = 0 if whole(self._ballast, self._room.ballast) else self._room.ballast
        return int(self._room.least * ENOUGH) + missing

    def _has_room(self) -> bool:
        """Does the disk take as much as it says? The ballast is the trial, or a file that goes at once."""
        if whole(self._ballast, self._room.ballast) and not self._refused and self._room.ballast:
            return True
        made = make(self._ballast, self._room.ballast or TRIAL)
        if not self._room.ballast:
            drop(self._ballast)
        return made


def make_way(directory: Path, room: Room) -> None:
    """Before the files are opened: where less is free than the ballast is worth, it goes."""
    if _free(directory) < room.ballast:
        drop(directory / FILE)


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def whole(ballast: Path, size: int) -> bool:
    """Is it there, and does it really take up as much?"""
    if size == 0:
        return True
    try:
        found = ballast.stat()
    except OSError:
        return False
    return found.st_size == size and found.st_blocks * 512 >= size


def make(ballast: Path, size: int) -> bool:
    """Take up ``size`` bytes; False where the disk has them not, and then nothing is left of the try."""
    try:
        drop(ballast)
        descriptor = os.open(ballast, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            drop(ballast)
        return False
    return True


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, TRIAL):  # not zeros: a file system may keep those as nothing
        os.write(descriptor, os.urandom(min(TRIAL, size - start)))


def drop(ballast: Path) -> None:
    """OSError where the disk does not let go of it, as when it is mounted read-only."""
    ballast.unlink(missing_ok=True)
