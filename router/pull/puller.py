"""One Snitcher account, round after round: its workspaces, their sessions, and the companies behind them.

A round asks for yesterday and today and for a day more on both sides, because days are all that can be asked for and
nobody says in which zone; after a time without a round it asks from the last one on. What was stored already is left out
by the notes, so that asking again neither repeats nor loses anything. A fault that passes ends the round of a workspace,
which the next one begins again; one that does not pauses the workspace, or all of the source: a reload tries again at
once, and one request an hour looks whether it was mended.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from router import retry
from router.clock import Clock, woken
from router.collect.intake import Intake
from router.collect.keys import Sender
from router.collect.packing import packed
from router.dialects import snitcher
from router.dialects.reading import Object
from router.outbox.errors import NotDurable
from router.pull.memory import (
    DAY,
    Company,
    Memory,
    SessionNote,
    Trouble,
    Workspace,
    alive,
    changed,
    company_key,
    final,
    mark,
    moment,
    session_key,
)
from router.settings import Snitcher, seconds
from router.sources.budget import Budget
from router.sources.snitcher import Api, Page, Refused
from router.transport import Transport
from router.visit import Visit

log: Any = structlog.get_logger()

T = TypeVar("T")

LIST_EVERY: Final = 3_600_000  # ms; workspaces are seldom added
LOOK_EVERY: Final = 3_600_000  # ms between two looks at what is paused
OVERLAP: Final = 2  # days before the last round: yesterday, and one more
CATCH_UP: Final = 90 * DAY  # ms; after a longer time without a round, what is older is not asked for
SLICE: Final = 10  # sessions between two looks at what else there is to do
UNLISTED: Final = "it is not among the token's workspaces any more"


class Puller:
    """``intake`` takes the events as ``sender``'s; ``budget`` is shared by all with the same token."""

    def __init__(
        self,
        settings: Snitcher,
        sender: Sender,
        *,
        intake: Intake,
        memory: Memory,
        transport: Transport,
        budget: Budget,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings, self.sender = settings, sender
        self._intake, self._memory, self._budget, self._clock, self._chance = intake, memory, budget, clock, chance
        self._api = Api(settings, transport, budget, clock, troubled=self._troubled, chance=chance)
        self._listed: int | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """For ever; cancel it to end it."""
        await self.recall()
        while True:
            began = self._clock.now()
            try:
                await self.round()
            except Exception:  # a fault of ours must not end the source: the next round looks again
                log.exception("pull_failed", source=self.sender.name)
                self._troubled("this could not be handled: the log says where")
            every = LOOK_EVERY if self._memory.state.paused else int(seconds(self.settings.interval) * 1000)
            due = self._memory.state.next = min(began, self._clock.now()) + every  # the clock may have been set back
            await self._remember({})
            await self._rest(due)

    async def recall(self) -> None:
        """Take up where the last process ended. A pause ends with it: what was wrong may be mended."""
        await self._durably(self._memory.recall)
        self._budget.recall(self._memory.state.requests)
        self._unpause()

    def resume(self) -> None:
        """Try again at once what was paused, as an operator who has mended it asks with a reload."""
        self._unpause()
        self._wake.set()

    def _unpause(self) -> None:
        state = self._memory.state
        state.paused = None
        for workspace in state.workspaces.values():
            workspace.paused = workspace.next = None

    async def _rest(self, due: int) -> None:
        """Until ``due``, or until somebody wakes us."""
        left = max(0.0, (due - self._clock.now()) / 1000)
        await woken(self._clock, self._wake, left)
        self._wake.clear()

    # A round

    async def round(self) -> None:
        """Every workspace once. What stops the source or a workspace is written down, not raised."""
        try:
            for workspace in await self._workspaces():
                if self._is_due(self._memory.state.workspaces[workspace]):
                    await self._workspace(workspace)
            self._memory.state.paused = None
        except Refused as fault:
            if fault.scope != "passing":
                self._pause(fault.reason)
            self._troubled(fault.reason)
        await self._remember({})

    def _is_due(self, workspace: Workspace) -> bool:
        """Is it to be asked for: because nothing is wrong with it, or to see whether that is so again?"""
        left = None if workspace.next is None else workspace.next - self._clock.now()
        return workspace.paused is None or (left is not None and not 0 < left <= LOOK_EVERY)

    def _pause(self, reason: str, workspace: str | None = None) -> None:
        """Until a reload, or a look that finds it mended: the source, or one workspace of it."""
        state = self._memory.state
        if workspace is not None:
            state.workspaces[workspace].next = self._clock.now() + LOOK_EVERY
        stopped = state if workspace is None else state.workspaces[workspace]
        if stopped.paused != reason:
            log.error("source_paused", source=self.sender.name, workspace=workspace, reason=reason)
        stopped.paused = reason

    async def _workspaces(self) -> list[str]:
        """Those of the configuration, else all that the token sees, looked up once an hour."""
        known, now = self._memory.state.workspaces, self._clock.now()
        if chosen := self.settings.workspaces:
            self._memory.state.workspaces = {each: known.get(each) or Workspace() for each in chosen}
            return list(chosen)
        if self._listed is None or not 0 <= now - self._listed < LIST_EVERY:
            names = {uuid: row.get("name") async for row in _rows(self._api.workspaces()) if (uuid := _uuid(row))}
            for uuid, name in names.items():
                workspace = known.setdefault(uuid, Workspace())
                workspace.name = name if isinstance(name, str) else None
                workspace.paused = None if workspace.paused == UNLISTED else workspace.paused
            for uuid in known.keys() - names.keys():
                known[uuid].paused, known[uuid].next = UNLISTED, None
            self._listed = now
        return list(known)

    async def _workspace(self, workspace: str) -> None:
        """Its sessions and its companies. Refused where that stops the whole source."""
        state = self._memory.state.workspaces[workspace]
        began = self._clock.now()
        since, until = window(began, state.polled)
        try:
            heard, truncated = await self._sessions(workspace, since, until)
            if truncated or self.settings.companies:
                for company in await self._companies(workspace, since, heard if truncated else None):
                    await self._fill(workspace, company, since, until)
        except Refused as fault:
            if fault.scope == "missing":
                self._pause(fault.reason, workspace)
            elif fault.scope != "passing":
                raise
            self._troubled(fault.reason)
            return
        first_today = state.polled is None or _day(state.polled) != _day(began)
        state.polled, state.paused, state.next = began, None, None
        gone = self._memory.past(workspace, _start(since) - OVERLAP * DAY) if first_today else []
        await self._remember({}, gone)

    async def _sessions(self, workspace: str, since: dt.date, until: dt.date) -> tuple[set[str], bool]:
        """Store what is new. Which companies were heard of, and whether others were left out."""
        heard: set[str] = set()
        truncated = False
        async for page in self._api.sessions(workspace, f"{since}", f"{until}"):
            truncated = truncated or page.truncated
            heard |= {uuid for row in page.rows if isinstance(uuid := row.get("organisation_uuid"), str)}
            await self._store_sessions(workspace, page.rows)
        return heard, truncated

    async def _store_sessions(self, workspace: str, sessions: list[Object]) -> None:
        """Store the events of these sessions that are new, then write down that they are stored."""
        now = self._clock.now()
        items: list[Object] = []
        notes: dict[str, SessionNote] = {}
        for index, session in enumerate(sessions):
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            given = session.get("uuid")
            uuid = "" if given is None else str(given)  # those without one, which is not documented, share a note
            key = session_key(workspace, uuid)
            known = notes.get(key) or self._memory.session(workspace, uuid)
            made = snitcher.session_items(
                session, self.settings.form_fields, unknown=self.settings.unknown_events == "track"
            )
            if uuid and known is not None and known.events == len(made) and final(session, now):
                continue
            marks = {} if known is None else dict.fromkeys(known.marks.split(" "))
            new = [item for item in made if mark(item) not in marks]
            if new:
                items += new
                marks |= dict.fromkeys(map(mark, new))
                notes[key] = SessionNote(alive(session, now), len(made), " ".join(marks))
        await self._store(items)
        if notes:
            await self._remember(notes)

    # Companies

    async def _companies(self, workspace: str, since: dt.date, heard: set[str] | None) -> list[Object]:
        """Store the traits that changed. Returns the companies whose sessions are missing among those of ``heard``."""
        missing: list[Object] = []
        async for page in self._api.organisations(workspace):
            visitors = [row for row in page.rows if _uuid(row) and self._is_meant(row, since)]
            if self.settings.companies:
                await self._store_traits(workspace, visitors)
            if heard is not None:
                missing += [row for row in visitors if row["uuid"] not in heard and not self._filled(workspace, row)]
        return missing

    def _is_meant(self, company: Object, since: dt.date) -> bool:
        """Was it there in the time that is asked for, and is it in the segment, as far as the answer says?"""
        seen, segments = moment(company.get("last_seen")), company.get("segments")
        if seen is not None and seen < _start(since):
            return False
        if self.settings.segment is None or not isinstance(segments, list):
            return True
        return self.settings.segment in [each.get("uuid") if isinstance(each, dict) else each for each in segments]

    async def _store_traits(self, workspace: str, companies: list[Object]) -> None:
        items: list[Object] = []
        notes: dict[str, SessionNote | Company] = {}
        for company in companies:
            known = self._memory.company(workspace, company["uuid"])
            if known.digest and company.get("last_seen") is not None and known.seen == str(company["last_seen"]):
                continue
            now_known = changed(company, known)
            if now_known.changes != known.changes:
                items.append(snitcher.company_item(company, now_known.changes))
            notes[company_key(workspace, company["uuid"])] = now_known
        await self._store(items)
        if notes:
            await self._remember(notes)

    def _filled(self, workspace: str, company: Object) -> bool:
        """Were its sessions fetched by themselves since its last visit?"""
        last = company.get("last_seen")
        return last is not None and self._memory.company(workspace, company["uuid"]).filled == str(last)

    async def _fill(self, workspace: str, company: Object, since: dt.date, until: dt.date) -> None:
        """The sessions of one company, which the workspace's list left out. One that is gone is skipped."""
        uuid, ended, now = company["uuid"], True, self._clock.now()
        try:
            async for page in self._api.sessions_of(workspace, uuid, f"{since}", f"{until}"):
                sessions = [{"organisation_uuid": uuid, **row} for row in page.rows if self._passes(row)]
                ended = ended and all(final(session, now) for session in page.rows)
                await self._store_sessions(workspace, sessions)
        except Refused as fault:
            if fault.scope != "missing":
                raise
        if ended:
            known = self._memory.company(workspace, uuid)
            filled = Company(known.seen, known.digest, known.changes, str(company.get("last_seen")))
            await self._remember({company_key(workspace, uuid): filled})

    def _passes(self, session: Object) -> bool:
        """The filters of the workspace's list, which that of a company does not have."""
        events = session.get("events") or session.get("views")
        addresses = (
            [event.get("url") for event in events if isinstance(event, dict)] if isinstance(events, list) else []
        )
        url, referrer = self.settings.url, self.settings.referrer
        if url is not None and not any(isinstance(each, str) and url in each for each in addresses):
            return False
        return referrer is None or referrer in str(session.get("referrer"))

    # The outbox

    async def _store(self, items: list[Object]) -> None:
        for body in packed(items):
            visit = Visit(received=self._clock.now(), dialect=snitcher.NAME)
            await self._durably(partial(self._intake.take, body, self.sender, visit))

    async def _remember(self, notes: Mapping[str, SessionNote | Company], forget: list[str] | None = None) -> None:
        now = self._clock.now()
        self._memory.state.requests = self._budget.made(now)
        await self._durably(lambda: self._memory.remember(now, notes, forget or []))

    async def _durably(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it, however long the disk is full: nothing more is fetched meanwhile."""
        failures = 0
        while True:
            try:
                return await act()
            except NotDurable as fault:
                failures += 1
                self._troubled(str(fault))
            await self._clock.sleep(retry.delay(failures, self._chance()))

    def _troubled(self, reason: str) -> None:
        """Written down with the next note."""
        self._memory.state.trouble = Trouble(self._clock.now(), reason)
        log.warning("pull_troubled", source=self.sender.name, reason=reason)


def window(now: int, polled: int | None) -> tuple[dt.date, dt.date]:
    """From which day to which to ask, both included, in UTC: from the last round's, or today's, with the overlap."""
    last = now if polled is None else max(min(polled, now), now - CATCH_UP)
    return _day(last) - dt.timedelta(days=OVERLAP), _day(now) + dt.timedelta(days=1)


def _day(at: int) -> dt.date:
    return dt.datetime.fromtimestamp(at / 1000, dt.UTC).date()


def _start(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp() * 1000)


async def _rows(pages: AsyncIterator[Page]) -> AsyncIterator[Object]:
    async for page in pages:
        for row in page.rows:
            yield row


def _uuid(row: Object) -> str | None:
    uuid = row.get("uuid")
    return uuid if isinstance(uuid, str) and uuid else None
