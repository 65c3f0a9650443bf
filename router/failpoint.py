"""Named places where a proof may break the process: kill it, raise, stall it, or fail as a disk does, at the n-th pass.

Only the environment arms them (``TURNOUT_FAILPOINT=append_after_commit=kill@3``, several with commas between), once, when
the process starts; else a call is one look at an empty dict. They stand where the order of two effects is a promise, in
edges and engines alone: a rule has no effects. ``tests/proof/failpoints.py`` holds the table of them all.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

VARIABLE = "TURNOUT_FAILPOINT"
EVERY = "*"  # every point, with ``trace``: each is named on stderr at its first pass
STALL = 0.7  # seconds


class Injected(Exception):
    """A fault of ours, as any line of code may have one."""


class _Armed:
    __slots__ = ("action", "at", "passes")

    def __init__(self, action: str, at: int) -> None:
        self.action, self.at, self.passes = action, at, 0


def armed(text: str) -> dict[str, _Armed]:
    """Point -> what it does, of ``name=action@n``. ValueError for anything else: a misspelt proof proves nothing."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, what = part.partition("=")
        action, _, at = what.partition("@")
        if action not in {"kill", "raise", "eio", "sleep", "trace"}:
            raise ValueError(f"{VARIABLE}: write point=kill@1, or raise, eio, sleep, trace instead of kill")
        found[name] = _Armed(action, int(at or 1))
    return found


_armed = armed(os.environ.get(VARIABLE, ""))
_traced: set[str] = set()
_counting = threading.Lock()  # points are passed on several threads


def failpoint(name: str) -> None:
    """A place of this name is passed; where it is armed, its fault happens."""
    if _armed:
        _pass(name)


def _pass(name: str) -> None:
    if EVERY in _armed and name not in _traced:
        _traced.add(name)
        _say(name, "trace")
    if (point := _armed.get(name)) is None:
        return
    with _counting:
        point.passes += 1
        due = point.passes == point.at
    if due:
        _say(name, point.action)
        _act(name, point.action)


def _say(name: str, action: str) -> None:
    os.write(2, f"failpoint {name} {action}\n".encode())


def _act(name: str, action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise Injected(name)
        case "eio":
            raise OSError(errno.EIO, "injected")
        case "sleep":
            time.sleep(STALL)
