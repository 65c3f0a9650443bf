"""The sources of a configuration that are fetched from, running: one task each, one budget for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.clock import Clock
from router.collect.intake import Intake
from router.collect.keys import Sender, sender
from router.outbox.outbox import Outbox
from router.pull.memory import Memory
from router.pull.puller import Puller
from router.settings import Snitcher, Source
from router.sources.budget import Budget
from router.sources.snitcher import LONGEST, TIMEOUT
from router.transport import Transport


class _Running:
    """A source at work, with what it was made from."""

    def __init__(self, puller: Puller, transport: Transport) -> None:
        self.puller, self._transport = puller, transport
        self._task = asyncio.create_task(puller.run(), name=f"pull-{puller.sender.name}")

    def is_of(self, settings: Snitcher, sender: Sender) -> bool:
        return (self.puller.settings, self.puller.sender) == (settings, sender)

    async def stop(self) -> None:
        """At once: what is not written down yet is fetched again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._transport.close()


class Pull:
    """Start and stop sources. What they fetch goes through ``intake``, as if it had been sent."""

    def __init__(self, store: Outbox, intake: Intake, clock: Clock) -> None:
        self._store, self._intake, self._clock = store, intake, clock
        self._running: dict[str, _Running] = {}
        self._budgets: dict[bytes, Budget] = {}

    async def apply(self, sources: Mapping[str, Source | Snitcher], clear: frozenset[str]) -> None:
        """Fetch from these, at the start or after a reload; ``clear`` names what destinations need readable.

        One whose settings did not change goes on; where it was paused it tries again.
        """
        wanted = {
            name: (source, sender(name, source, clear))
            for name, source in sources.items()
            if isinstance(source, Snitcher) and source.enabled and source.token is not None
        }
        for name in [*self._running]:
            if name not in wanted or not self._running[name].is_of(*wanted[name]):
                await self._running.pop(name).stop()
        for name, (source, who) in wanted.items():
            if name in self._running:
                self._running[name].puller.resume()
            else:
                self._running[name] = self._start(source, who)

    async def stop(self) -> None:
        await asyncio.gather(*(running.stop() for running in self._running.values()))
        self._running.clear()

    def _start(self, source: Snitcher, who: Sender) -> _Running:
        transport = Transport(
            f"source-{who.name}",
            self._clock,
            timeout=TIMEOUT,
            concurrency=1,
            allow_private=source.allow_private,
            longest=LONGEST,
        )
        puller = Puller(
            source,
            who,
            intake=self._intake,
            memory=Memory(self._store, who.name),
            transport=transport,
            budget=self.budget(source),
            clock=self._clock,
        )
        return _Running(puller, transport)

    def budget(self, source: Snitcher) -> Budget:
        """That of its token; it outlives a reload."""
        key = b"" if source.token is None else source.token.digest()
        return self._budgets.setdefault(key, Budget(self._clock))
