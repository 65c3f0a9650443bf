"""``turnout backup``: a copy of the outbox that fits together, verified; the server may run meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from router.cli import FAILED
from router.cli.files import directory as outbox_of
from router.cli.options import config_option, json_option
from router.cli.output import line
from router.terminal import escaped
from router.wording import counted


@click.command("backup")
@config_option
@click.argument("target", type=click.Path(path_type=Path), metavar="DIRECTORY")
@click.option(
    "--without-keys", is_flag=True, help="Leave out the keys of IP addresses and other clear values, for good."
)
@json_option
def command(path: Path, target: Path, without_keys: bool, as_json: bool) -> None:
    """Copy the outbox to DIRECTORY, which must not be there yet, and read the copy through.

    Events that arrive meanwhile may or may not be in it; everything in it fits together. turnout restore takes it back.
    """
    import asyncio

    from router.outbox.errors import OutboxError
    from router.outbox.upkeep import backup

    try:
        copied = backup.copy(outbox_of(path), target, keys=not without_keys)
        wrong = asyncio.run(faults(target))
    except (OutboxError, OSError) as error:
        click.echo(f"{escaped(str(error))}.", err=True)
        sys.exit(FAILED)
    if wrong:
        click.echo(f"The copy is not right: {'; '.join(wrong)}. Run turnout doctor, then try again.", err=True)
        sys.exit(FAILED)
    if as_json:
        line(copied)
        return
    size = f"{copied.bytes / 1_000_000:.1f} MB"
    click.echo(f"{counted(copied.last, 'event')} in {counted(copied.segments, 'segment')}, {size}, verified: {target}")
    if copied.keys:
        click.echo(
            "It holds the keys of clear values: keep it as safe as the outbox, and no longer than needed.", err=True
        )


async def faults(target: Path) -> list[str]:
    """What is wrong with an outbox that nobody runs on: every file read, the ledger counted again. Empty where nothing."""
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.snapshots import Snapshots

    checks = await Snapshots(target).check(3600.0)
    if damaged := [f"{each.file} is {each.verdict}" for each in checks if each.verdict != "whole"]:
        return damaged
    reader = Reader(target)
    wrong = [f"{each.where} has {each.counted} of {each.what}, not {each.kept}" for each in await reader.recount()]
    difference = (await reader.ledger()).difference
    return wrong + ([f"the ledger's difference is {difference}"] if difference else [])
