"""How much a dead and a slow destination cost a healthy one: time to delivery side by side, A B A B, medians.

    python -m tests.bench.isolation

A is a healthy destination alone; B is the same beside one that never answers, one that takes two seconds for each
answer and one that refuses connections. Prints one JSON line: milliseconds from receipt to the partner, and B ÷ A.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from destinations.webhook import Webhook
from router.clock import SystemClock
from router.mocks.partner import Trouble, running
from router.mocks.webhook import Webhook as Partner
from router.secret import Secret
from tests.running import KEY, collect_url, running_app, settings

ROUNDS, EVENTS, RATE = 4, 1000, 250
SIGNING = Secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


def webhook(url: str) -> Webhook:
    return Webhook(url=f"{url}/hook", secrets=(SIGNING,), allow_private=True)


async def measured(*, troubled: bool) -> list[float]:
    """Milliseconds from receipt to the healthy partner, for every event."""
    partners = {name: Partner(now=SystemClock().now) for name in ("well", "hangs", "slow")}
    partners["hangs"].trouble = [Trouble(hang=True)]
    partners["slow"].trouble = [Trouble(delay=2.0)]
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {name: await stack.enter_async_context(running(each)) for name, each in partners.items()}
        destinations = {"well": webhook(urls["well"])}
        if troubled:
            destinations |= {name: webhook(urls[name]) for name in ("hangs", "slow")}
            destinations["refuses"] = webhook("http://127.0.0.1:9")
        app = await stack.enter_async_context(running_app(settings(directory, destinations=destinations)))
        async with aiohttp.ClientSession(collect_url(app), headers={"x-api-key": KEY}) as http:
            for number in range(EVENTS):
                async with http.post("/collect", json={"event": "e", "id": f"e-{number}"}) as answer:
                    assert answer.status == 200
                await asyncio.sleep(1 / RATE)
            await asyncio.wait_for(partners["well"].wait_for_events(EVENTS), 30)
        return [each.at - int(each.body["data"]["received"]) for each in partners["well"].received]


def p(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def main() -> None:
    rounds: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for troubled in (False, True):
            rounds[troubled].append(await measured(troubled=troubled))
    figures: dict[str, Any] = {}
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        alone, beside = (statistics.median(p(each, share) for each in rounds[key]) for key in (False, True))
        figures[name] = {"alone_ms": alone, "beside_ms": beside, "ratio": round(beside / max(alone, 1.0), 2)}
    print(json.dumps({"bench": "isolation", "events": EVENTS, "rounds": ROUNDS, **figures}))


if __name__ == "__main__":
    asyncio.run(main())
