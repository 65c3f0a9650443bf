"""What a source that is fetched from remembers, as notes in the outbox: how far it is, and what it has stored already.

The outbox recognises a repeated event for a day or a week only; what was fetched is asked for again for days, and for as
long as a server was down. So every session keeps the marks of its events until it cannot be listed any more, and every
company those of its traits. Notes are written after the events are on disk: a crash in between repeats ids only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from router.dialects import snitcher
from router.dialects.reading import Object
from router.normalise import Findings, instant
from router.outbox.outbox import Outbox

DAY: Final = 86_400_000  # ms
KEPT: Final = 400 * DAY  # for how long a note outlives its last writing, where nobody takes it away
STATE: Final = "state"
_SESSION, _COMPANY = "session", "company"


class Trouble(msgspec.Struct, frozen=True):
    """What went wrong last. ``at`` is UTC ms; ``reason`` is safe to show."""

    at: int
    reason: str


class Workspace(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``polled`` is when the last round that came to its end began; ``next`` when a paused one is looked at again, where
    that is known. UTC ms.
    """

    name: str | None = None
    polled: int | None = None
    paused: str | None = None
    next: int | None = None


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a source stands, for itself after a restart and for whoever looks. Instants are UTC ms.

    ``requests`` are those of the last minute with its token, whoever made them.
    """

    workspaces: dict[str, Workspace] = {}
    requests: list[int] = []
    paused: str | None = None
    trouble: Trouble | None = None
    next: int | None = None


class SessionNote(msgspec.Struct, frozen=True, array_like=True):
    """Of one session: when it was last alive (UTC ms), how many events it had, and the marks of those that were stored."""

    alive: int
    events: int
    marks: str


class Company(msgspec.Struct, frozen=True, array_like=True):
    """``seen`` and ``filled``: its last visit when its traits, and its sessions by themselves, were looked at."""

    seen: str = ""
    digest: str = ""
    changes: int = 0
    filled: str = ""


def mark(item: Object) -> str:
    """Sixteen characters of an item's id: enough to tell the events of one session apart."""
    return str(item["id"]).replace("-", "")[:16]


class Memory:
    """The notes of one source, read once and then kept in step with the disk."""

    def __init__(self, store: Outbox, source: str) -> None:
        self._store, self._source = store, source
        self._notes: dict[str, str] = {}
        self.state = State()

    async def recall(self) -> None:
        self._notes = await self._store.recall(self._source)
        self.state = state_of(self._notes)

    def session(self, workspace: str, session: str) -> SessionNote | None:
        note: SessionNote | None = _read(self._notes.get(_key(_SESSION, workspace, session)), SessionNote)
        return note

    def company(self, workspace: str, company: str) -> Company:
        return _read(self._notes.get(_key(_COMPANY, workspace, company)), Company) or Company()

    async def remember(self, now: int, notes: Mapping[str, SessionNote | Company], forget: Iterable[str] = ()) -> None:
        """Write these, and how the source stands, in one transaction."""
        texts = {key: _written(value) for key, value in notes.items()} | {STATE: _written(self.state)}
        gone = list(forget)
        await self._store.remember(self._source, {key: (text, now + KEPT) for key, text in texts.items()}, gone)
        for key in gone:
            self._notes.pop(key, None)
        self._notes.update(texts)

    def past(self, workspace: str, before: int) -> list[str]:
        """Notes of sessions that ended before this instant and so are not listed any more."""
        start = _key(_SESSION, workspace, "")
        return [
            key
            for key, text in self._notes.items()
            if key.startswith(start) and ((note := _read(text, SessionNote)) is None or note.alive < before)
        ]


def session_key(workspace: str, session: str) -> str:
    return _key(_SESSION, workspace, session)


def company_key(workspace: str, company: str) -> str:
    return _key(_COMPANY, workspace, company)


def _key(*parts: str) -> str:
    return " ".join(parts)


def state_of(notes: Mapping[str, str]) -> State:
    """How the source stands, by its notes."""
    return _read(notes.get(STATE), State) or State()


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str | None, kind: type[Any]) -> Any:
    """None also where a note is not what this version writes."""
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError:
        return None


def moment(value: object) -> int | None:
    """UTC ms of a time as the partner writes it, if it is one."""
    return None if value is None else instant(value, Findings())


def alive(session: Object, now: int) -> int:
    """When a session last showed life, UTC ms."""
    events = session.get("events")
    times = [session.get("started_at"), session.get("ended_at")]
    times += (
        [event.get("triggered_at") for event in events if isinstance(event, dict)] if isinstance(events, list) else []
    )
    return max((at for each in times if (at := moment(each)) is not None), default=now)


def final(session: Object, now: int) -> bool:
    """Will no event be added any more? Source: Snitcher ends a session after 30 minutes without one."""
    ended = moment(session.get("ended_at"))
    return ended is not None and ended < now - 30 * 60 * 1000


def changed(company: Object, known: Company) -> Company:
    """What is known of the company after this look at it."""
    digest = snitcher.company_digest(company)
    return Company(
        seen=str(company.get("last_seen")),
        digest=digest,
        changes=known.changes + (digest != known.digest),
        filled=known.filled,
    )
