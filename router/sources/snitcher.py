"""Snitcher's REST API, read only: pages of workspaces, companies and sessions, each request within the token's budget.

Addresses are made here from the configured one: a ``next_page_url`` is believed as far as there is a next page, and never
followed, so no answer leads the token to another host.

Source: Snitcher, "REST API": authentication, rate limits, errors, pagination.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from router import retry
from router.clock import Clock
from router.destination import Request, Response
from router.dialects import snitcher
from router.dialects.reading import Object
from router.secret import Secret
from router.settings import Snitcher
from router.sources.budget import Budget
from router.transport import Failure, Transport

TIMEOUT: Final = 60.0  # seconds
LONGEST: Final = 64 * 1024 * 1024  # bytes of one answer: a page of 1000 sessions with all their events
TRIES: Final = 6  # of one page in one round, where the fault passes; half a minute
MOST_PAGES: Final = 10_000  # of one list: a partner whose list has no end is not followed for ever

Scope = Literal["query", "credentials", "missing", "passing"]

_FIELD: Final = re.compile(r"[A-Za-z0-9_.]{1,64}", re.ASCII)


class Refused(Exception):
    """A list that cannot be read. ``scope`` tells whom that stops, ``reason`` is ours and safe to show.

    query, credentials: whatever is asked; missing: this workspace or company; passing: this round.
    """

    def __init__(self, scope: Scope, reason: str) -> None:
        super().__init__(reason)
        self.scope, self.reason = scope, reason


class Page(msgspec.Struct, frozen=True):
    """One answer of a list: its objects, and whether companies were left out of the whole list."""

    rows: list[Object]
    truncated: bool
    more: bool


class Api:
    """What one source may ask. ``troubled`` is told of every fault that is tried again."""

    def __init__(
        self,
        settings: Snitcher,
        transport: Transport,
        budget: Budget,
        clock: Clock,
        *,
        troubled: Callable[[str], None] = lambda _: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._transport, self._budget, self._clock = settings, transport, budget, clock
        self._troubled, self._chance = troubled, chance

    def workspaces(self) -> AsyncIterator[Page]:
        return self._pages("/workspaces", {})

    def organisations(self, workspace: str) -> AsyncIterator[Page]:
        return self._pages(f"/workspaces/{_part(workspace)}/organisations", {})

    def sessions(self, workspace: str, since: str, until: str) -> AsyncIterator[Page]:
        """Of all companies, from one day to another, both included, as far as the source's filters let them through."""
        filters = {
            "segmentUuid": self._settings.segment,
            "url": self._settings.url,
            "referrer": self._settings.referrer,
        }
        query = {"date_from": since, "date_to": until, **{key: said for key, said in filters.items() if said}}
        return self._pages(f"/workspaces/{_part(workspace)}/sessions", query)

    def sessions_of(self, workspace: str, organisation: str, since: str, until: str) -> AsyncIterator[Page]:
        """Of one company; there are no filters here."""
        path = f"/workspaces/{_part(workspace)}/organisations/{_part(organisation)}/sessions"
        return self._pages(path, {"date_from": since, "date_to": until})

    async def _pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
        for number in range(1, MOST_PAGES + 1):
            paging: dict[str, str] = {"page": str(number)}
            paging[self._settings.page_size_parameter] = str(self._settings.page_size)
            page = self._page(await self._answer(path, {**query, **paging}), number)
            yield page
            if not page.more:
                return
        raise Refused("passing", f"the list goes on after {MOST_PAGES} pages: raise page_size")

    async def _answer(self, path: str, query: Mapping[str, str]) -> Object:
        """The decoded answer, however often it has to be asked for. Refused where asking on is in vain for now."""
        failures = 0
        while True:
            await self._budget.turn()
            answer = await self._transport.send(self._request(path, query))
            if isinstance(answer, Response) and answer.status == 429:
                wait = self._budget.refused(retry.retry_after(answer.headers.get("retry-after"), answer.at))
                self._troubled(f"HTTP 429: too many requests with this token, asked again after {wait:.0f} s")
                continue
            self._budget.answered()
            read = _read(answer)
            if not isinstance(read, str):
                return read
            failures += 1
            self._troubled(read)
            if failures == TRIES:
                raise Refused("passing", read)
            await self._clock.sleep(retry.delay(failures, self._chance()))

    def _request(self, path: str, query: Mapping[str, str]) -> Request:
        token = self._settings.token
        bearer = "" if token is None else Secret(f"Bearer {token.reveal()}")
        headers = {"Authorization": bearer, "Accept": "application/json"}
        url = self._settings.base_url.rstrip("/") + path
        return Request(method="GET", url=url, body=b"", events=(), headers=headers, query=query)

    def _page(self, answer: Object, number: int) -> Page:
        rows = answer["data"]
        last, following = answer.get("last_page"), answer.get("next_page_url", ...)
        if isinstance(last, int) and not isinstance(last, bool):
            more = number < last
        elif following is not ...:
            more = bool(following)
        else:
            more = len(rows) >= self._settings.page_size
        objects = [row for row in rows if isinstance(row, dict)]
        return Page(rows=objects, truncated=answer.get("truncated") is True, more=more and bool(rows))


def _part(name: str) -> str:
    return quote(name, safe="")


def _read(answer: Response | Failure) -> Object | str:
    """The list that came, or what is wrong for now. Refused where it will not get right by itself."""
    if isinstance(answer, Failure):
        if answer.kind in {"blocked", "address", "request"}:
            raise Refused("query", answer.reason)
        return answer.reason
    match answer.status:
        case 200:
            body = snitcher.decoded(answer.body)
            if isinstance(body, dict) and isinstance(body.get("data"), list):
                return body
            cut = len(answer.body) >= LONGEST
            return "the answer is too long: lower page_size" if cut else "the answer is not the documented list"
        case 400 | 422:
            raise Refused("query", f"HTTP {answer.status}: the query is refused{_fields(answer)}: correct the source")
        case 401 | 403:
            raise Refused("credentials", f"HTTP {answer.status}: the token is refused: renew it, then reload")
        case 404:
            raise Refused("missing", "HTTP 404: it does not exist, or this token cannot see it")
        case status if 300 <= status < 500 and status not in {408, 425}:
            raise Refused("query", f"HTTP {status}: not what this address should answer: check base_url")
        case status:
            return f"HTTP {status}"


def _fields(answer: Response) -> str:
    """The names of the fields they complain of; their sentences may repeat what was asked."""
    errors = answer.object().get("errors")
    names = [name for name in errors if _FIELD.fullmatch(name)] if isinstance(errors, dict) else []
    return f" ({', '.join(names[:10])})" if names else ""
