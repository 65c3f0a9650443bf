"""What tests of the engines share: a stepped clock, an outbox on disk, a way to make events."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import hypothesis
import pytest
import structlog

from router.outbox.outbox import Outbox
from tests.consoles import delivery, open_console  # noqa: F401 - fixtures
from tests.stepped import SteppedClock

# Each process here would compile everything again, its assertions too, which takes longer than most of what it tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shared machine is slow at times; that a law holds does not depend on it.
hypothesis.settings.register_profile(
    "turnout", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=60
)
hypothesis.settings.load_profile("turnout")

# Where rich is installed structlog's default draws every trace with all local variables, which takes seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as cores: half of the time tests wait for sockets, disks and processes."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: the garbage collector need not look at it, then or test after test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused bodies are drained for less long than in the product; nothing tested depends on how long."""
    monkeypatch.setattr("router.collect.server.LINGER", 0.2)


@pytest.fixture(autouse=True)
def _as_long_as_it_takes(request: pytest.FixtureRequest) -> None:
    """The long form of a proof goes on for minutes; it has not hung where others would have."""
    if request.node.get_closest_marker("proof"):
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def store(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Outbox]:
    """An open outbox in ``tmp_path / "outbox"``."""
    outbox = await Outbox.open(tmp_path / "outbox", clock)
    yield outbox
    await outbox.close()
