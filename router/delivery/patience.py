"""Asking the outbox for as long as it is busy or full, which passes: it tells nobody when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from router.clock import Clock
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox

T = TypeVar("T")

PAUSE = 1.0  # seconds until it is asked again


async def patiently(
    asked: Callable[[], Awaitable[T]], store: Outbox, clock: Clock, stopping: Callable[[], bool] = lambda: False
) -> T:
    """What the outbox says. NotDurable where it failed for good, or whoever asks is to stop."""
    while True:
        try:
            return await asked()
        except NotDurable:
            if stopping() or store.failed is not None:
                raise
            await clock.sleep(PAUSE)
