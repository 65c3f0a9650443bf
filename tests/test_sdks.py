"""The vendors' own SDKs, unchanged, as clients: what they send is stored once and right, and they never have to retry.

Python: segment-analytics-python and rudder-sdk-python. Node, with the marker ``node``: @segment/analytics-node and
@rudderstack/rudder-sdk-node, installed from the npm registry.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rudderstack.analytics.request
import segment.analytics.request
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from router.app import App
from router.event import Event
from router.outbox.reads.reader import Reader
from tests.running import KEY, Seen, Wire, collect_url, running_app, settings, stored

EMAIL = "jane@example.com"
EMAIL_DIGEST = hashlib.sha256(EMAIL.encode()).hexdigest()
CLIENTS = {"segment": SegmentClient, "rudderstack": RudderClient}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running_app(settings(tmp_path)) as app:
        yield app


@pytest.fixture(autouse=True)
def _no_connection_left() -> Iterator[None]:
    yield
    segment.analytics.request._session.close()
    rudderstack.analytics.request._session.close()


def say_everything(client: Any) -> None:
    client.identify("u-1", {"email": EMAIL, "plan": "gold"}, message_id="m-1")
    client.track("u-1", "Order Completed", {"order_id": "O-1", "total": 27.5, "currency": "USD"}, message_id="m-2")
    client.page("u-1", "Docs", "Start", {"url": "https://shop.example/start"}, message_id="m-3")
    client.group("u-1", "g-1", {"industry": "Tea"}, message_id="m-4")
    client.alias("anonymous-1", "u-1", message_id="m-5")


async def used(client: Any, use: Callable[[Any], None] = say_everything) -> None:
    """Use the client in a thread of its own, as a program without an event loop does, to its end."""

    def work() -> None:
        use(client)
        if not client.sync_mode:
            client.shutdown()

    await asyncio.to_thread(work)


def carried(seen: Seen) -> list[str]:
    """The message ids in a batch as it was sent, packed or not."""
    body = gzip.decompress(seen.body) if seen.body[:2] == b"\x1f\x8b" else seen.body
    return [message["messageId"] for message in json.loads(body)["batch"]]


def told(event: Event) -> tuple[Any, ...]:
    return event.id, event.kind, event.name, event.user.id, event.user.digests.email


class TestPython:
    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
    @pytest.mark.parametrize("sync", [True, False], ids=["one call at a time", "in the background"])
    @pytest.mark.parametrize("name", CLIENTS)
    async def test_every_call_is_stored_once(self, app: App, name: str, packed: bool, sync: bool):
        """
        All five calls arrive with their ids, names and people, identifiers as digests only; and no request is repeated.
        """
        async with Wire(collect_url(app)).running() as wire:
            await used(CLIENTS[name](KEY, host=wire.url, gzip=packed, sync_mode=sync))

        identified = EMAIL_DIGEST
        assert [
            ("m-1", "identify", "identify", "u-1", identified),
            ("m-2", "track", "purchase", "u-1", None),
            ("m-3", "page", "page_view", "u-1", None),
            ("m-4", "group", "group", "u-1", None),
            ("m-5", "alias", "alias", "u-1", None),
        ] == [told(event) for event in await stored(app)]
        assert (5 if sync else 1) == len(wire.seen)
        assert {200} == {seen.status for seen in wire.seen}
        assert packed == all(seen.body[:2] == b"\x1f\x8b" for seen in wire.seen)

    @pytest.mark.parametrize("name", CLIENTS)
    async def test_the_fields_of_each_call(self, app: App, name: str):
        """
        Money, page, group and previous id are where destinations look for them, and traits without identifiers remain.
        """
        await used(CLIENTS[name](KEY, host=collect_url(app)))

        identify, order, page, group, alias = await stored(app)
        assert {"plan": "gold"} == identify.user.traits
        assert ("27.5", "USD", "O-1") == (order.money.value, order.money.currency, order.money.order_id)
        assert "Order Completed" == order.sent_name
        assert "https://shop.example/start" == page.page.url
        assert "g-1" == group.user.group_id
        assert "anonymous-1" == alias.user.previous_id

    @pytest.mark.parametrize("name", CLIENTS)
    async def test_a_wrong_key_is_told_in_words(self, app: App, name: str):
        """
        Both SDKs show the code and the message of the answer, and nothing is stored.
        """
        client = CLIENTS[name]("another-key", host=collect_url(app), sync_mode=True)

        with pytest.raises(Exception, match="unauthorized: no source has this key; check token, site and how"):
            await used(client)
        assert [] == await stored(app)

    @pytest.mark.parametrize("name", CLIENTS)
    async def test_a_lost_answer_is_no_second_event(self, app: App, name: str):
        """
        The connection dies after the commit: the SDK sends the same batch again, and each event is there once.
        """
        async with Wire(collect_url(app), losing=1).running() as wire:
            await used(CLIENTS[name](KEY, host=wire.url))

        assert [200, 200] == [seen.status for seen in wire.seen]
        assert ["m-1", "m-2", "m-3", "m-4", "m-5"] == [event.id for event in await stored(app)]
        assert 5 == (await Reader(app.store.directory).ledger()).duplicate


NODE = {
    "@segment/analytics-node": """
import { Analytics } from '@segment/analytics-node'
const client = new Analytics({ writeKey: process.env.KEY, host: process.env.HOST, flushInterval: 200 })
const failed = []
client.on('error', (error) => failed.push(String(error.code)))
client.identify({ userId: 'u-1', traits: { email: 'jane@example.com', plan: 'gold' }, messageId: 'm-1' })
client.track({ userId: 'u-1', event: 'Order Completed', properties: { order_id: 'O-1', total: 27.5, currency: 'USD' }, messageId: 'm-2' })
client.page({ userId: 'u-1', category: 'Docs', name: 'Start', properties: { url: 'https://shop.example/start' }, messageId: 'm-3' })
client.group({ userId: 'u-1', groupId: 'g-1', traits: { industry: 'Tea' }, messageId: 'm-4' })
client.alias({ previousId: 'anonymous-1', userId: 'u-1', messageId: 'm-5' })
await client.closeAndFlush()
console.log(JSON.stringify({ failed }))
""",
    "@rudderstack/rudder-sdk-node": """
import Analytics from '@rudderstack/rudder-sdk-node'
const client = new (Analytics.default ?? Analytics)(process.env.KEY, { dataPlaneUrl: process.env.HOST, flushInterval: 200 })
const failed = []
const done = (error) => { if (error) failed.push(String(error)) }
client.identify({ userId: 'u-1', traits: { email: 'jane@example.com', plan: 'gold' }, messageId: 'm-1' }, done)
client.track({ userId: 'u-1', event: 'Order Completed', properties: { order_id: 'O-1', total: 27.5, currency: 'USD' }, messageId: 'm-2' }, done)
client.page({ userId: 'u-1', category: 'Docs', name: 'Start', properties: { url: 'https://shop.example/start' }, messageId: 'm-3' }, done)
client.group({ userId: 'u-1', groupId: 'g-1', traits: { industry: 'Tea' }, messageId: 'm-4' }, done)
client.alias({ previousId: 'anonymous-1', userId: 'u-1', messageId: 'm-5' }, done)
await client.flush()
await new Promise((resolve) => setTimeout(resolve, 500))
console.log(JSON.stringify({ failed }))
process.exit(0)
""",
}


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
@pytest.mark.parametrize("package", NODE)
async def test_node(app: App, package: str, tmp_path: Path):
    """
    The Node SDKs' five calls are stored once each, without an error and without a retry.
    """
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    (tmp_path / "script.js").write_text(NODE[package])
    npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", package]
    await asyncio.to_thread(subprocess.run, npm, cwd=tmp_path, check=True, timeout=240)
    async with Wire(collect_url(app)).running() as wire:
        node = await asyncio.create_subprocess_exec(
            *("node", "script.js"),
            cwd=tmp_path,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:" + str(Path(str(shutil.which("node"))).parent)}
            | {"KEY": KEY, "HOST": wire.url, "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(node.communicate(), 60)

    assert {"failed": []} == json.loads(out)
    assert [
        ("m-1", "identify", "identify", "u-1", EMAIL_DIGEST),
        ("m-2", "track", "purchase", "u-1", None),
        ("m-3", "page", "page_view", "u-1", None),
        ("m-4", "group", "group", "u-1", None),
        ("m-5", "alias", "alias", "u-1", None),
    ] == sorted(told(event) for event in await stored(app))
    assert {200} == {seen.status for seen in wire.seen}
    assert ["m-1", "m-2", "m-3", "m-4", "m-5"] == sorted(each for seen in wire.seen for each in carried(seen))
