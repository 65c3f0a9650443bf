"""How commands read the outbox: on its files, whether a server runs or not.

Only the two tables that say where things are must be right for that: somebody who looks into a failure may have none
of the secrets in the environment, and no server that would start.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli import FAILED, USAGE
from router.terminal import escaped

if TYPE_CHECKING:
    import datetime as dt

    from router.outbox.reads.reader import Reader
    from router.route import Rule

T = TypeVar("T")

NO_DESTINATION = "There is no such destination: turnout ledger lists them"


def directory(path: Path) -> Path:
    """Where the outbox of this configuration is."""
    from router.settings import Outbox

    return path.parent / (text(path, "outbox", "path") or Outbox().path)


def document(path: Path) -> dict[str, Any] | None:
    """The file as TOML, right or not; None where it is not there, or no TOML."""
    import tomllib

    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def tables(path: Path, name: str) -> dict[str, Any]:
    """What the file has under a name; nothing where that is no table. Without a file or TOML the process ends."""
    if (read := document(path)) is None:
        click.echo(f"{escaped(str(path))} cannot be read: run turnout check, or name another with --config.", err=True)
        sys.exit(USAGE)
    found = read.get(name)
    return found if isinstance(found, dict) else {}


def text(path: Path, table: str, key: str) -> str | None:
    """One text of the file, by itself; None where it is not there. Without a file or TOML the process ends."""
    value = tables(path, table).get(key)
    return value if isinstance(value, str) else None


def ask(path: Path, question: Callable[[Reader], Awaitable[T]]) -> T:
    """The answer of the outbox; where it cannot be read the process ends with what to do."""
    import asyncio

    from router.outbox.errors import OutboxError
    from router.outbox.reads.reader import Reader

    async def asked() -> T:
        return await question(Reader(directory(path)))

    try:
        return asyncio.run(asked())
    except OutboxError as error:
        click.echo(f"{escaped(str(error))}.", err=True)
        sys.exit(FAILED)


def rules(path: Path) -> dict[str, Rule]:
    """The routing of every destination as configured now; none where the file is not right."""
    from router import route
    from router.cli.options import settings_of

    settings, _ = settings_of(path)
    if settings is None:
        return {}
    return {name: route.compile(name, each) for name, each in settings.destinations.items()}


def left(until: dt.datetime) -> str:
    """How long it is until then, for people: "9 d 20 h", "4 min"; "now" once it has come."""
    import datetime as dt

    minutes = int((until - dt.datetime.now(dt.UTC)).total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if minutes < 1:
        return "now"
    if minutes < 60:
        return f"in {minutes} min"
    return f"in {days} d {hours} h" if days else f"in {hours} h {minutes % 60} min"
