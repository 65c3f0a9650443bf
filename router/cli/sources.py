"""``turnout sources``: who sends, what is fetched and how far that is; and every setting of a source that has a type."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router.cli import USAGE
from router.cli.files import ask, directory, tables
from router.cli.options import config_option, json_option
from router.cli.output import line, table
from router.terminal import escaped
from router.wording import counted, when

if TYPE_CHECKING:
    from router.outbox.reads.reader import Reader
    from router.pull.memory import State

SENDER = "sender"  # a source without a type: it sends to us


class WorkspaceView(msgspec.Struct, frozen=True):
    """One workspace of a source that is fetched from. ``next_poll``: when it is asked for again while it is paused."""

    uuid: str
    name: str | None
    polled: dt.datetime | None
    paused: str | None
    next_poll: dt.datetime | None = None


class Fault(msgspec.Struct, frozen=True):
    at: dt.datetime
    reason: str


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """One source. The keys are those of ``--json``; what is only fetched sources' is null or empty for a sender.

    ``polled`` is how far it surely is: the last round of the workspace that is furthest behind.
    """

    name: str
    type: str
    enabled: bool
    webhook: str | None
    polled: dt.datetime | None = None
    requests_last_minute: int | None = None
    next_poll: dt.datetime | None = None
    paused: str | None = None
    last_error: Fault | None = None
    workspaces: tuple[WorkspaceView, ...] = ()


@click.group("sources")
def command() -> None:
    """Who sends, and what is fetched from whom."""


@command.command("list")
@config_option
@json_option
def listing(path: Path, as_json: bool) -> None:
    """Every source, and of those that are fetched from: how far they are, what they wait for, what went wrong last.

    Reads the files, whether the server runs or not.
    """
    given = _tables(path)
    notes = _notes(path, given)
    views = [_view(name, raw, notes.get(name, {})) for name, raw in given.items()]
    if as_json:
        for view in views:
            line(view)
        return
    table(("SOURCE", "TYPE", "POLLED", "REQUESTS", "NEXT", "STATE"), map(_row, views))
    for view in views:
        _more(view)


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of ``[sources.*]``, whether or not everything in the file is right."""
    return {name: raw for name, raw in tables(path, "sources").items() if isinstance(raw, dict)}


def _notes(path: Path, given: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What the sources with a type have written down; nothing before the server has run."""
    fetched = [name for name, raw in given.items() if "type" in raw]
    if not fetched or not (directory(path) / "state.db").exists():
        return {}

    async def read(reader: Reader) -> dict[str, dict[str, str]]:
        return {name: await reader.notes(name) for name in fetched}

    return ask(path, read)


def _view(name: str, raw: Mapping[str, Any], notes: Mapping[str, str]) -> SourceView:
    from router.pull.memory import state_of

    kind, enabled = raw.get("type"), raw.get("enabled") is not False
    if not isinstance(kind, str):
        return SourceView(name=name, type=SENDER, enabled=enabled, webhook=None)
    state = state_of(notes)
    now = time.time_ns() // 1_000_000
    return SourceView(
        name=name,
        type=kind,
        enabled=enabled,
        webhook=f"/webhooks/{name}" if "webhook_secret" in raw else None,
        polled=_behind(state),
        requests_last_minute=sum(now - 60_000 < at <= now for at in state.requests),
        next_poll=_instant(state.next) if enabled else None,
        paused=state.paused,
        last_error=None if state.trouble is None else Fault(_at(state.trouble.at), state.trouble.reason),
        workspaces=tuple(
            WorkspaceView(uuid, each.name, _instant(each.polled), each.paused, _instant(each.next))
            for uuid, each in state.workspaces.items()
        ),
    )


def _behind(state: State) -> dt.datetime | None:
    running = [each.polled for each in state.workspaces.values() if each.paused is None]
    known = [polled for polled in running if polled is not None]
    return _at(min(known)) if known and len(known) == len(running) else None


def _at(instant: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(instant / 1000, dt.UTC)


def _instant(instant: int | None) -> dt.datetime | None:
    return None if instant is None else _at(instant)


def _row(view: SourceView) -> tuple[object, ...]:
    requests = "" if view.requests_last_minute is None else f"{view.requests_last_minute} in the last minute"
    return view.name, view.type, when(view.polled), requests, when(view.next_poll), _state(view)


def _state(view: SourceView) -> str:
    if not view.enabled:
        return "switched off"
    if view.paused is not None:
        return f"paused: {view.paused}{_look(view.next_poll)}"
    paused = sum(each.paused is not None for each in view.workspaces)
    if paused:
        return f"{paused} of {counted(len(view.workspaces), 'workspace')} paused"
    return ""


def _look(at: dt.datetime | None) -> str:
    return f"; next look {when(at)}" if at else ""


def _more(view: SourceView) -> None:
    """What a row has no room for."""
    for each in view.workspaces:
        if each.paused is not None:
            look = _look(each.next_poll)
            click.echo(escaped(f"{view.name}: workspace {each.uuid} is paused: {each.paused}{look}"))
    if view.last_error is not None:
        click.echo(escaped(f"{view.name}: last error {when(view.last_error.at)}: {view.last_error.reason}"))


@command.command("settings")
@click.argument("kind", metavar="[TYPE]", default=SENDER)
@json_option
def settings(kind: str, as_json: bool) -> None:
    """Every setting of a source: of one that sends, or of TYPE (snitcher)."""
    from router.cli.destinations import setting_of, setting_row
    from router.config import SOURCES, suggestion
    from router.settings import Source

    known: Mapping[str, Any] = {SENDER: Source, **SOURCES}
    if kind not in known:
        click.echo(f"There is no such source type, {suggestion(kind, known)}", err=True)
        sys.exit(USAGE)
    rows = [setting_of(field, {}) for field in msgspec.structs.fields(known[kind])]
    if as_json:
        for row in rows:
            line(row)
    else:
        table(("SETTING", "FORM", "DEFAULT", "LIMITS", "DESCRIPTION"), map(setting_row, rows))
