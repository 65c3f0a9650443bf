"""``turnout forget``: erase people from every file of the outbox, through the running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli import USAGE
from router.cli.options import config_option, json_option
from router.cli.output import counted, line
from router.terminal import escaped

if TYPE_CHECKING:
    from router.person import Person

AT_ONCE = 1000  # people in one request


@click.command("forget")
@config_option
@click.option("--email", help="E-mail address; a SHA-256 of it does as well.")
@click.option("--phone", help="Phone number, with + and the country code or with --country.")
@click.option("--country", metavar="FR", help="Of a phone number without the country code.")
@click.option("--user-id", help="The id your events give the person.")
@click.option("--anonymous-id", help="The id of a browser or app.")
@click.option(
    "--file",
    "file",
    type=click.File("rb"),
    help='Many people, one JSON object a line with these names: {"email": ..., "user_id": ...}; - reads stdin.',
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(path: Path, file: Any, yes: bool, as_json: bool, **person: str | None) -> None:
    """Erase every event of a person, end what was not delivered, and turn later events of theirs away.

    Any one identifier is enough; with several, events that carry any of them go. What a partner has already is counted,
    because only the partner can erase that. It cannot be undone.
    """
    from router.cli.console_client import Console

    given = {name: value for name, value in person.items() if value}
    people = _read(file) if file is not None else [given]
    if file is not None and given:
        raise click.UsageError("give one person by options, or many by --file")
    if not people or not all(set(each) - {"country"} for each in people):
        raise click.UsageError("say who: --email, --phone, --user-id, --anonymous-id, or --file")
    console = Console(path)
    if not yes:
        click.confirm(f"Erase {counted(len(people), 'person', 'people')} for good?", abort=True, err=True)
    for start in range(0, len(people), AT_ONCE):
        answer = console.post("/api/v1/people:forget", {"people": people[start : start + AT_ONCE]})
        if as_json:
            line(answer["receipt"])
        else:
            _print(answer["receipt"])


def _read(file: Any) -> list[dict[str, str]]:
    """The people of a file. Ends the process, naming the line, where one is not readable."""
    import msgspec

    from router.person import Person

    people: list[dict[str, str]] = []
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            person: Person = msgspec.json.decode(text, type=Person)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            names = ", ".join(Person.__struct_fields__)
            click.echo(f"line {number}: write one JSON object with {names}, each a text. Nothing was erased.", err=True)
            sys.exit(USAGE)
        people.append({name: value for name in person.__struct_fields__ if (value := getattr(person, name))})
    return people


def _print(receipt: dict[str, Any]) -> None:
    people, events = counted(receipt["people"], "person", "people"), counted(receipt["events"], "event")
    click.echo(f"{people} forgotten: {events} emptied, {receipt['quarantined']} quarantined items deleted.")
    for name, count in receipt["ended"].items():
        click.echo(f"{escaped(name)}: {counted(count, 'delivery', 'deliveries')} ended as erased.")
    for name, count in receipt["delivered"].items():
        words = counted(count, "event")
        click.echo(f"{escaped(name)} was given {words} of theirs before: ask it to erase them.")
