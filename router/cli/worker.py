"""``turnout worker``: a collecting process, as ``serve`` starts it; nobody else does, and no help lists it."""

from __future__ import annotations

import asyncio
import socket

import click

from router.cli.serve import loop_factory


@click.command("worker", hidden=True)
@click.argument("descriptor", type=int)
def command(descriptor: int) -> None:
    """Collect for the process at the other end of DESCRIPTOR, a connected socket."""
    from router.worker import Worker

    async def run() -> None:
        link = socket.socket(fileno=descriptor)
        link.setblocking(False)
        await Worker(link).run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())
