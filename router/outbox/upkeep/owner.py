"""What retention and forgetting need of the owner of the outbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from router.outbox.disk.writer import Unit
from router.outbox.state.lane import Lane


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    transact: Callable[[Unit[Any]], Awaitable[Any]]  # one transaction on the state
    settle: Callable[[Lane], Awaitable[None]]  # write a lane's cursor down, behind everything of it that waits
    lanes: Callable[[], Awaitable[list[Lane]]]  # every lane there is
    roll: Callable[[], Awaitable[Any]]  # begin a new segment where the open one is old
    checkpoint: Callable[[], Awaitable[None]]  # fold the WAL of the state in
    config: Callable[[], int]
