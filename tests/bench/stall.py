"""The longest stall of the event loop, and any 5xx, while every bad input of the corpus comes in.

    python -m tests.bench.stall

Each row goes in alone, gzipped, and among 400 good events, from a client in a process of its own, while a heartbeat in
the server's loop measures how late it is. Prints one JSON line; rounds are compared with rounds of one good event,
because a shared machine stalls by itself.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from tests.corpus import CORPUS, among
from tests.running import KEY, collect_url, running_app, settings

ROUNDS = 3


def requests() -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies and headers: every body and door row alone, packed, and among good ones."""
    for case in CORPUS.body.values():
        headers = {} if case.encoding is None else {"Content-Encoding": case.encoding}
        yield case.raw(), headers
        if case.encoding is None:
            yield gzip.compress(case.raw()), {"Content-Encoding": "gzip"}
    for row in CORPUS.door.values():
        yield row.raw(), {}
        yield gzip.compress(row.raw()), {"Content-Encoding": "gzip"}
        yield among(row.raw()), {}


async def post_all(url: str, *, good: bool) -> dict[str, int]:
    """The client: statuses by number of answers."""
    seen: dict[str, int] = {}
    async with aiohttp.ClientSession(url, headers={"x-api-key": KEY}, skip_auto_headers=["Content-Type"]) as http:
        for number, (body, headers) in enumerate(requests()):
            sent = (json.dumps({"event": "e", "id": f"{number}"}).encode(), {}) if good else (body, headers)
            async with http.post("/collect", data=sent[0], headers=sent[1]) as answer:
                seen[str(answer.status)] = seen.get(str(answer.status), 0) + 1
    return seen


async def heartbeat(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(1000 * (time.perf_counter() - began - 0.001))


async def measured(*, good: bool) -> tuple[float, dict[str, int]]:
    """The worst lateness in ms, and the statuses."""
    late: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        async with running_app(settings(Path(name))) as app:
            gc.collect()
            gc.freeze()  # as turnout serve does
            beating = asyncio.create_task(heartbeat(late))
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.stall", collect_url(app), "good" if good else "bad"),
                stdout=subprocess.PIPE,
            )
            out, _ = await client.communicate()
            beating.cancel()
    return max(late), json.loads(out)


async def main() -> None:
    worst: dict[bool, list[float]] = {True: [], False: []}
    statuses: dict[str, int] = {}
    for _, good in itertools.product(range(ROUNDS), (True, False)):
        stall, seen = await measured(good=good)
        worst[good].append(round(stall, 1))
        statuses = seen if not good else statuses
    failed = sum(count for status, count in statuses.items() if status.startswith("5"))
    print(
        json.dumps(
            {"bench": "stall", "good_ms": worst[True], "bad_ms": worst[False], "5xx": failed, "statuses": statuses}
        )
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(post_all(sys.argv[1], good=sys.argv[2] == "good"))))
    else:
        asyncio.run(main())
