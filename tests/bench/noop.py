"""The yardstick: an aiohttp server on uvloop that reads the body and answers 200. ``python -m tests.bench.noop``."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web

ANSWER = b'{"success":true}'


async def handle(request: web.BaseRequest) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


async def main() -> None:
    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
