"""``turnout explain``: the whole way of one event, from its arrival to every partner's word."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli import FAILED
from router.cli.files import ask, rules
from router.cli.options import config_option, json_option
from router.cli.output import line
from router.terminal import escaped
from router.wording import when

if TYPE_CHECKING:
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.views import QuarantineView, Story

_UNKNOWN = "No event of this id is kept: check the id. One whose person was forgotten has none any more."


@click.command("explain")
@config_option
@click.argument("event", metavar="ID")
@json_option
def command(path: Path, event: str, as_json: bool) -> None:
    """Say what became of one event, and why. ID is its event id, or "#" and its number.

    Exits 1 where no event of this id was accepted; what was refused under it is said.
    """

    async def told(reader: Reader) -> tuple[list[Story], list[QuarantineView]]:
        now = rules(path)
        stories = [await reader.story(each.seq, now) for each in await reader.find(event)]
        return [each for each in stories if each is not None], await reader.quarantined_as(event)

    stories, refused = ask(path, told)
    if as_json:
        for each in (*stories, *refused):
            line(each)
    else:
        paragraphs = ["\n".join(_told(story)) for story in stories]
        paragraphs += [_refused(each) for each in refused]
        click.echo("\n\n".join(paragraphs), nl=bool(paragraphs))
    if not stories:
        if not refused:
            click.echo(_UNKNOWN, err=True)
        sys.exit(FAILED)


def _told(story: Story) -> Iterator[str]:
    """Times in UTC, in the first column."""
    from router.outbox.reads import telling

    yield f"{escaped(story.id)}  {escaped(story.name)}, {story.received:%Y-%m-%d} UTC"
    for at, what, words in telling.lines(story):
        time = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}" if at else ""
        yield f"{time:12}  {escaped(what):12}  {escaped(words)}"


def _refused(each: QuarantineView) -> str:
    place = f", field {each.field}" if each.field else ""
    words = f"{when(each.at)}  refused from source {each.source}: {each.code}{place}: {each.message}"
    return escaped(f"{words} (quarantine {each.id})")
