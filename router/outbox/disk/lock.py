"""One process owns an outbox directory: a kernel lock, so a killed process leaves nothing stale."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from router.outbox.errors import Locked

NAMING = 0.5  # seconds in which whoever has just got the lock writes its name; until then there is the last one's


class Lock:
    """Held from construction to ``release`` or the end of the process. Locked, naming the holder, if it is taken."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _named(self._file)
            os.close(self._file)
            raise Locked(
                f"process {holder} already owns the outbox in {directory.absolute()}: stop it, or use another path"
            ) from None
        name = f"{os.getpid()}\n".encode()
        os.pwrite(self._file, name, 0)  # before it is cut: on a full disk the old bytes are all the room there is
        os.ftruncate(self._file, len(name))

    def release(self) -> None:
        os.close(self._file)


def _named(file: int) -> str:
    """Who has the lock, as soon as that is a process that lives."""
    until = time.monotonic() + NAMING
    while True:
        name = _name_in(file)
        if (name.isdigit() and _lives(int(name))) or time.monotonic() >= until:
            return name or "unknown"
        time.sleep(0.01)


def _name_in(file: int) -> str:
    """A shorter name may stand before the rest of the one that it is written over."""
    return os.pread(file, 32, 0).decode("ascii", "replace").partition("\n")[0]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def holder(directory: Path) -> int | None:
    """The process that owns the directory now, or None. Reading does not disturb it."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = _name_in(descriptor)
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None
