"""What tests of the engines share: a stepped clock, an outbox on disk, a way to make events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.outbox.outbox import Outbox
from tests.stepped import SteppedClock


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def store(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Outbox]:
    """An open outbox in ``tmp_path / "outbox"``."""
    outbox = await Outbox.open(tmp_path / "outbox", clock)
    yield outbox
    await outbox.close()
