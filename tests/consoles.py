"""A console beside two lanes that send nothing, for tests of its addresses and of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from destinations.linktrace import LinkTrace
from router import console
from router.delivery.engine import Delivery
from router.metrics import Metrics
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.cursors import Held
from router.secret import Secret
from router.settings import Console, Settings
from tests.builders import NOW
from tests.stepped import SteppedClock

OpenConsole = Callable[..., Awaitable[TestClient[web.Request, web.Application]]]


@pytest.fixture
async def delivery(store: Outbox, clock: SteppedClock) -> AsyncIterator[Delivery]:
    """Lanes "links", running but held, so that nothing is sent, and "gone", which does not run and gets events yet."""
    links = await store.lane("links", "linktrace")
    await store.lane("gone", "webhook")
    await store.hold(links, Held(reason="key refused", by="operator", at=NOW))
    delivery = Delivery(store, clock)
    await delivery.apply({"links": LinkTrace(api_key=Secret("k"), base_url="http://127.0.0.1:1", allow_private=True)})
    await store.go_on(store.lanes["gone"])  # as if it left the configuration only after what the tests store
    yield delivery
    await delivery.stop(0.0)


@pytest.fixture
async def open_console(store: Outbox, delivery: Delivery) -> AsyncIterator[OpenConsole]:
    clients = []

    async def begin(token: str | None = None, **kwargs: Any) -> TestClient[web.Request, web.Application]:
        settings = Settings(console=Console(token=Secret(token) if token else None))
        app = console.application(
            reader=Reader(store.directory),
            store=store,
            delivery=delivery,
            settings=settings,
            metrics=Metrics(),
            **kwargs,
        )
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return clients[-1]

    yield begin
    for client in clients:
        await client.close()
