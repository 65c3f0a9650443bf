"""``turnout serve``: collect and deliver, until a signal."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli import FAILED
from router.cli.options import config_option, exit_code, json_option, settings_of
from router.cli.output import coloured, line
from router.wording import counted

if TYPE_CHECKING:
    import asyncio

    from router.app import App
    from router.settings import Settings


@click.command("serve")
@config_option
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@json_option
def command(path: Path, log_level: str, as_json: bool) -> None:
    """Collect events and deliver them, until SIGTERM or Ctrl-C; a second one ends it at once. SIGHUP reads the file again.

    Exits 0 after a stop in good order, 1 where it cannot run, 2 without a configuration, 75 where another process owns the outbox.
    """
    settings = _settings(path)
    if settings is None:
        click.echo("Nothing was started.", err=True)
        sys.exit(exit_code(path))

    from router import logs
    from router.app import EX_TEMPFAIL
    from router.outbox.errors import Locked, OutboxError

    logs.configure(log_level, logs.Detached(sys.stderr))

    def ready(app: App) -> None:
        _say(app, path, as_json=as_json)
        gc.collect()
        gc.set_threshold(10_000, 2, 1_000)  # short looks at what is young: looking at what is in hand stalls everybody
        gc.freeze()  # what start has made stays: the collector need not look at it again

    try:
        code = _run(settings, path, ready)
    except Locked as error:
        click.echo(f"{error}.", err=True)
        code = EX_TEMPFAIL
    except OutboxError as error:
        click.echo(f"{error}. Run turnout doctor to see more.", err=True)
        code = FAILED
    except OSError as error:
        click.echo(_in_words(error, settings), err=True)
        code = FAILED
    sys.exit(code)


def _settings(path: Path) -> Settings | None:
    """The settings, with warnings said; None where there are errors, all of which are said."""
    from router.cli.check import text

    settings, findings = settings_of(path)
    if findings:
        click.echo(text(findings), err=True, color=coloured(sys.stderr))
    return settings


def _run(settings: Settings, path: Path, ready: Callable[[App], None]) -> int:
    import asyncio

    from router.app import serve

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(settings, ready=ready, reread=lambda: _settings(path)))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, which answers a third more requests; the standard one where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _say(app: App, path: Path, *, as_json: bool) -> None:
    collect = _address(app.settings.collect.listen, app.collect_port)
    console = _address(app.settings.console.listen, app.console_port)
    promise = guarantee(app.settings)
    if as_json:
        line({"collect": collect, "console": console, "guarantee": promise, "config": str(path), "pid": os.getpid()})
        sys.stdout.flush()
        return
    click.echo(f"Collecting  {collect}/collect")
    click.echo(f"Console     {console}/")
    click.echo(promise)


def _address(listen: str, port: int) -> str:
    return f"http://{listen.rpartition(':')[0]}:{port}"


def guarantee(settings: Settings) -> str:
    """What is promised under this configuration, in one line."""
    lanes = sum(1 for each in settings.destinations.values() if each.enabled)
    directory = Path(settings.outbox.path).resolve()
    return (
        f"An answer of 200 means that the event is on disk, in {directory}; it is delivered at least once to "
        f"{counted(lanes, 'destination')}, or kept with the reason; "
        f"an id that comes again within {settings.outbox.dedup} is recognised."
    )


def _in_words(error: OSError, settings: Settings) -> str:
    """Why it could not start, and what to do. No trace: the machine is set up otherwise than we need."""
    if error.errno == errno.EADDRINUSE:
        listens = f"{settings.collect.listen} (collect) or {settings.console.listen} (console)"
        return f"Another program listens on {listens}: stop it, or change listen in the configuration."
    if error.errno == errno.EADDRNOTAVAIL:
        return "This machine does not have the address to listen on: correct listen in the configuration."
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "Not permitted: use ports above 1023, and an outbox directory that this user may write."
    return f"It cannot start ({(error.strerror or type(error).__name__).lower()}): run turnout doctor to see more."
