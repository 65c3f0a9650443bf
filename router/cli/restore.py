"""``turnout restore``: put a backup where the outbox is to be."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from router.cli import FAILED
from router.cli.files import directory as outbox_of
from router.cli.options import config_option
from router.terminal import escaped


@click.command("restore")
@config_option
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIRECTORY")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(path: Path, source: Path, yes: bool) -> None:
    """Take the backup in DIRECTORY for the outbox of the configuration. Stop the server first.

    An outbox that is there is kept beside it under another name. What was delivered after the backup was made is sent
    again with the same ids, which partners recognise as far as they promise to. Whoever was forgotten after the backup was
    made stays forgotten, where the outbox that is there can be read.
    """
    import asyncio

    from router.cli.backup import faults
    from router.outbox.errors import OutboxError
    from router.outbox.upkeep import backup

    target = outbox_of(path)
    try:
        if wrong := asyncio.run(faults(source)):
            click.echo(f"{escaped(str(source))} is not right: {'; '.join(wrong)}. Use another backup.", err=True)
            sys.exit(FAILED)
        if not yes:
            click.confirm(f"Put {source} in the place of {target}?", abort=True, err=True)
        restored = backup.restore(source, target)
    except (OutboxError, OSError) as error:
        click.echo(f"{escaped(str(error))}.", err=True)
        sys.exit(FAILED)
    click.echo(f"{target} is the backup now: start turnout serve.")
    if restored.kept is not None:
        click.echo(f"What was there is in {restored.kept}.")
    if restored.forgotten is None:
        click.echo("Who was forgotten after the backup was made is not known here: forget them again.", err=True)
    elif restored.forgotten:
        click.echo("It was made before some people were forgotten: the next start erases what it holds of them.")
