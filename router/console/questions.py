"""What is asked of the outbox, by programs and on pages; and who asks. A ``Fault`` is the answer where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
from aiohttp import web

from router.console.acts import Acts
from router.console.answers import Fault
from router.delivery.engine import Delivery
from router.lifecycle import State
from router.outbox.outbox import Outbox
from router.outbox.reads import pages
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Deliveries, QuarantineView, Story

STATES = get_args(State)
_WHO = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)  # fits SQLite's integers; str.isdigit takes "²", which int() does not


class Questions:
    def __init__(
        self, reader: Reader, store: Outbox, delivery: Delivery, closed: Callable[[], str | None], acts: Acts
    ) -> None:
        self._reader, self._store, self._delivery = reader, store, delivery
        self._closed, self._acts = closed, acts

    def unready(self) -> str | None:
        """Why no events can be taken; None where they can."""
        if self._store.failed is not None:
            return self._store.failed.code
        return self._closed() or ("disk_full" if self._store.space.full else None)

    async def story(self, text: str) -> Story:
        found = await self._reader.find(text)
        rules = {name: runner.rule for name, runner in self._delivery.lanes.items()}
        story = await self._reader.story(found[0].seq, rules) if found else None
        if story is None:
            raise Fault(404, "not_found", "no event of this id is stored: it may be in /api/v1/quarantine, or expired")
        return msgspec.structs.replace(story, others=found[1:])

    async def deliveries(self, to: str | None, state: Any, limit: int, after: str | None) -> Deliveries:
        if state is not None and state not in STATES:
            raise invalid("state", f"write one of {', '.join(STATES)}")
        if after is not None and pages.place(after) is None:
            raise invalid("after", 'give the "next" of the page before')
        if to is not None:
            await self._acts.known(to)
        return await self._reader.deliveries(to, state, limit, after)

    async def quarantined(self, text: str) -> QuarantineView:
        number = digits(text)
        found = None if number is None else await self._reader.quarantine_item(number)
        if found is None:
            raise Fault(404, "not_found", "there is nothing of this number: GET /api/v1/quarantine lists what there is")
        return found


def who(request: web.Request, kind: str = "api") -> str:
    """Who acts, for the audit: what the program calls itself, or else its kind, and where it is."""
    name = request.headers.get("X-Turnout-Who", "")
    return f"{name if _WHO.fullmatch(name) else kind} from {request.remote or 'unknown'}"


def digits(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def invalid(field: str, message: str) -> Fault:
    return Fault(400, "invalid", f"{field}: {message}", [{"field": field, "message": message}])
