"""The demo: a shop that sends, the router that delivers, and fake partners that misbehave a little; in one process.

Nothing here is a special way through: the router runs as ``serve`` runs it, from a ``config.toml`` that is written into
the demo's directory, and the shop posts over HTTP to the paths that its senders would use. At the end ``faults``
compares three accounts that were kept apart: what the shop was told, the ledger, and what the partners took.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

import destinations
from router import config, samples
from router.app import App
from router.clock import Clock, SystemClock
from router.config import Finding
from router.mocks import PARTNERS
from router.mocks.partner import Counts, Partner, Trouble, running
from router.mocks.webhook import Webhook
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Ledger
from router.settings import Settings

SHOP_TOKEN = "demo-shop"  # noqa: S105 - of the demo's own source, for the curl line that people copy
SITE = "3311"
OUTDATED = 9 * 86_400_000  # ms; Snap takes seven days back
SENT_AGAIN, NAMELESS, LATE = 7, 9, 11  # which event, counted from 1, gets this beside it or is it
CONFIG = "config.toml"

# Every passing fault that a partner may have, seldom enough that the breaker stays closed; waits of a second.
TROUBLE: Mapping[str, Sequence[Trouble]] = {
    "snap": (
        Trouble(status=429, retry_after="1", times=1, share=0.2, body={"status": "INVALID", "reason": "too many"}),
        Trouble(status=500, share=0.05),
    ),
    "linktrace": (
        Trouble(reset=True, taken=True, times=1),  # it takes the event, and its answer is lost
        Trouble(status=500, share=0.05),
    ),
    "ipsnare": (Trouble(status=500, share=0.05, body={"success": False}),),
    "commandersact": (Trouble(status=503, retry_after="1", times=1, share=0.02),),
    "webhook": (Trouble(status=503, retry_after="1", times=1, share=0.02), Trouble(delay=0.1, share=0.3)),
}

_CONFIG = """\
# Written by turnout demo. It is a configuration like any other: turnout check, send and explain take it with --config.
[collect]
listen = "127.0.0.1:{collect}"

[console]
listen = "127.0.0.1:{console}"

[outbox]
path = {outbox}

[sources.shop]
site = "{site}"
tokens = ["file:shop.token"]

[destinations.snap]
type = "snap"
pixel_id = "11111111-2222-3333-4444-555555555555"
access_token = "file:partner.key"
consent = ["{consent}"]             # who has not agreed is filtered
max_age = "37d"                     # too far back for web events: Snap refuses the one that is older than a week
batch = 20
base_url = "{snap}"
allow_private = true

[destinations.linktrace]
type = "linktrace"
api_key = "file:partner.key"
events = ["sign_up", "purchase"]
match = {{ "properties.link_short_code" = {{ exists = true }} }}
base_url = "{linktrace}"
allow_private = true

[destinations.ipsnare]
type = "ipsnare"
api_key = "file:partner.key"
base_url = "{ipsnare}"
allow_private = true

[destinations.commandersact]
type = "commandersact"
site = "29"
token = "file:partner.key"
batch = 20
base_url = "{commandersact}"
allow_private = true

[destinations.webhook]
type = "webhook"
url = "{webhook}"
secrets = ["file:webhook.secret"]
allow_private = true
"""


class Answers(msgspec.Struct):
    """What the collect endpoint has answered to the shop so far, added up."""

    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0


class Demo:
    """The demo at work. ``partners`` are the fake ones by name, ``urls`` where they listen."""

    def __init__(self, app: App, partners: Mapping[str, Partner], urls: Mapping[str, str], directory: Path) -> None:
        self.app, self.partners, self.urls, self.directory = app, partners, urls, directory
        self.told = Answers()
        self.reader = Reader(app.store.directory)

    @property
    def collect(self) -> str:
        return f"http://127.0.0.1:{self.app.collect_port}"

    @property
    def console(self) -> str:
        return f"http://127.0.0.1:{self.app.console_port}"

    async def first_delivery(self) -> None:
        """Return once some partner has taken an event."""
        waits = [asyncio.ensure_future(partner.wait_for_events(1)) for partner in self.partners.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def send(self, events: int | None, *, rate: float, dice: random.Random) -> None:
        """Send so many events, or without end, at about ``rate`` a second."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(self.collect, timeout=timeout) as session:
            for dialect, items in _requests(events, dice, self.app.clock):
                await self._post(session, dialect, items)
                await asyncio.sleep(len(items) / rate)

    async def _post(self, session: aiohttp.ClientSession, dialect: str, items: list[samples.Object]) -> None:
        """Post as a sender of this dialect does, and again later where it is asked to."""
        path, headers, body = _written(dialect, items)
        while True:
            async with session.post(path, data=body, headers=headers) as answer:
                said = await answer.json()
                if answer.status == 200:
                    self.told.accepted += said["accepted"]
                    self.told.duplicate += said["duplicate"]
                    self.told.rejected += said["rejected"]
                    return
                if answer.status not in {429, 503}:
                    raise RuntimeError(f"the collect endpoint answered {answer.status} {said['code']}")
                await asyncio.sleep(int(answer.headers["Retry-After"]))

    async def settled(self, patience: float) -> bool:
        """Wait until nothing is waiting any more; False where nothing has moved for ``patience`` seconds."""
        still, before = 0.0, -1
        while waiting := sum(lane.waiting for lane in (await self.reader.ledger()).destinations.values()):
            still = still + 0.2 if waiting == before else 0.0
            if still > patience:
                return False
            before = waiting
            await asyncio.sleep(0.2)
        return True

    async def reasons(self) -> dict[str, Counter[str]]:
        """Why deliveries are dead, by destination; "" where none is given, which is a fault."""
        found: dict[str, Counter[str]] = {}
        after: str | None = None
        while True:
            page = await self.reader.deliveries(state="dead", limit=500, after=after)
            for each in page.items:
                found.setdefault(each.to, Counter())[each.reason or ""] += 1
            if (after := page.next) is None:
                return found


@contextlib.asynccontextmanager
async def demo(directory: Path, *, seed: int = 0) -> AsyncIterator[Demo]:
    """Everything running, on free ports of 127.0.0.1, with its files in ``directory``."""
    clock = SystemClock()
    secret = _secrets(directory, seed)
    async with contextlib.AsyncExitStack() as stack:
        partners = {name: _partner(name, clock, seed, secret) for name in TROUBLE}
        urls = {name: await stack.enter_async_context(running(each)) for name, each in partners.items()}
        app = App(_settings(directory, urls), clock=clock)
        await app.start()
        stack.push_async_callback(app.stop)
        _write_config(directory, urls, app.collect_port, app.console_port)
        yield Demo(app, partners, urls, directory)


def _secrets(directory: Path, seed: int) -> str:
    """Write the files that the configuration names; gives the webhook's secret."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = "whsec_" + base64.b64encode(random.Random(seed).randbytes(24)).decode()  # noqa: S311 - of a fake partner
    for name, text in (("shop.token", SHOP_TOKEN), ("partner.key", "demo-partner-key"), ("webhook.secret", secret)):
        with open(directory / name, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
    return secret


def _partner(name: str, clock: Clock, seed: int, secret: str) -> Partner:
    partner = Webhook(now=clock.now, secret=secret) if name == "webhook" else PARTNERS[name](now=clock.now, seed=seed)
    partner.trouble = list(TROUBLE[name])
    return partner


def _settings(directory: Path, urls: Mapping[str, str]) -> Settings:
    path = _write_config(directory, urls, 0, 0)
    loaded = config.load(path, {}, destinations=destinations.registry())
    if isinstance(loaded, list):
        raise ConfigRefused(loaded)
    return loaded


class ConfigRefused(Exception):
    """The demo's own configuration is not accepted: a directory whose name cannot stand in TOML, or a fault of ours."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{each.key}: {each.message}" for each in findings))


def _write_config(directory: Path, urls: Mapping[str, str], collect: int, console: int) -> Path:
    outbox = msgspec.json.encode(str(directory.resolve() / "outbox")).decode()  # a JSON text is a TOML text
    path = directory / CONFIG
    text = _CONFIG.format(outbox=outbox, collect=collect, console=console, site=SITE, consent=samples.MARKETING, **urls)
    path.write_text(text, encoding="utf-8")
    return path


# What the shop sends


def _requests(events: int | None, dice: random.Random, clock: Clock) -> Iterator[tuple[str, list[samples.Object]]]:
    """Requests as (dialect, items): the first event alone, then visit by visit. ``events`` counts different good ones."""
    sent = 0
    moments = samples.stream(dice)
    for (dialect, visitor), visit in itertools.groupby(moments, key=lambda moment: moment[1:]):
        items = []
        for name, _, _ in visit:
            if events is not None and sent >= events:
                break
            sent += 1
            items.append(samples.sample(name, dialect, visitor, dice, clock.now()))
            yield from _beside(sent, dialect, visitor, items[-1])
            if sent == LATE:
                items[-1] = samples.sample("purchase", dialect, 0, dice, clock.now() - OUTDATED)
            if sent == 1:
                yield dialect, [items.pop()]
        if items:
            yield dialect, items
        if events is not None and sent >= events:
            return


def _beside(sent: int, dialect: str, visitor: int, item: samples.Object) -> Iterator[tuple[str, list[samples.Object]]]:
    """What senders do as well: send an event once more, and one that has no name."""
    if sent == SENT_AGAIN:
        yield dialect, [item]
    if sent == NAMELESS:
        yield "plain", [{"event": "", "user": {"anonymous_id": samples.visitor(visitor).anonymous_id}}]


def _written(dialect: str, items: list[samples.Object]) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body as the senders of a dialect have them."""
    match dialect:
        case "segment":
            key = base64.b64encode(f"{SHOP_TOKEN}:".encode()).decode()
            return "/v1/batch", {"Authorization": f"Basic {key}"}, msgspec.json.encode({"batch": items})
        case "commandersact":
            return f"/events?tc_s={SITE}&token={SHOP_TOKEN}", {}, msgspec.json.encode(_one_or_batch(items))
        case _:
            return "/collect", {"Authorization": f"Bearer {SHOP_TOKEN}"}, msgspec.json.encode(items)


def _one_or_batch(items: list[samples.Object]) -> Any:
    return items[0] if len(items) == 1 else {"batch": items}


# Does it add up?


def faults(
    ledger: Ledger, told: Answers, taken: Mapping[str, Counts], reasons: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Where the three accounts do not agree, in sentences; empty where everything adds up."""
    return [
        *_shop_faults(ledger, told),
        *(fault for name, lane in ledger.destinations.items() for fault in _lane_faults(name, lane, ledger.accepted)),
        *_partner_faults(ledger, taken),
        *(f"{name}: {each['']} dead without a reason" for name, each in reasons.items() if each.get("")),
    ]


def _shop_faults(ledger: Ledger, told: Answers) -> Iterable[str]:
    if ledger.difference:
        yield f"the ledger has a difference of {ledger.difference}"
    for word in ("accepted", "duplicate", "rejected"):
        said, kept = getattr(told, word), getattr(ledger, word)
        if said != kept:
            yield f"the shop was told of {said} {word}, the ledger has {kept}"


def _lane_faults(name: str, lane: Any, accepted: int) -> Iterable[str]:
    if lane.waiting:
        yield f"{name}: {lane.waiting} still waiting ({lane.hold_reason or 'and nothing says why'})"
    ended = lane.delivered + lane.filtered + lane.dead
    if ended + lane.waiting != accepted:
        yield f"{name}: {accepted} accepted, {ended} delivered, filtered or dead"


def _partner_faults(ledger: Ledger, taken: Mapping[str, Counts]) -> Iterable[str]:
    for name, counts in taken.items():
        lane = ledger.destinations.get(name)
        delivered = 0 if lane is None else lane.delivered
        if counts.distinct != delivered:
            yield f"{name}: {delivered} delivered, the partner took {counts.distinct}"
