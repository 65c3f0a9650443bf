"""``turnout forget``: erase people from every file of the outbox, through the running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli import USAGE
from router.cli.options import config_option, json_option
from router.cli.output import line
from router.terminal import escaped
from router.wording import counted

if TYPE_CHECKING:
    from router.person import Person

ADDRESS = "/api/v1/people:forget"
AT_ONCE = 1000  # people in one request
KINDS = {
    "email_gmail": "e-mail address",
    "email": "e-mail address",
    "phone": "phone number",
    "phone_plus": "phone number",
    "external": "user id",
    "user": "user id",
    "anonymous": "anonymous id",
}


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
@click.option("--linked", is_flag=True, help="By all identifiers that their events lead to as well.")
@click.option("--dry-run", is_flag=True, help="Say what there is, erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(path: Path, file: Any, linked: bool, dry_run: bool, yes: bool, as_json: bool, **person: str | None) -> None:
    """Erase every event of a person, end what was not delivered, and turn later events of theirs away.

    Events that carry any identifier that is given go; --linked adds those to which their events lead (the user id beside an
    e-mail address). What a partner has already is counted, because only the partner can erase that. It cannot be undone.
    """
    from router.cli.console_client import Console

    given = {name: value for name, value in person.items() if value}
    if file is not None and given:
        raise click.UsageError("give one person by options, or many by --file")
    people = _read(file) if file is not None else [given]
    if not people or not all(set(each) - {"country"} for each in people):
        raise click.UsageError("say who: --email, --phone, --user-id, --anonymous-id, or --file")
    console = Console(path)
    parts = [people[start : start + AT_ONCE] for start in range(0, len(people), AT_ONCE)]
    if dry_run or not yes:
        for part in parts:
            found = console.post(ADDRESS, {"people": part, "dry_run": True})["traces"]
            line(found) if as_json and dry_run else _found(found, linked=linked)
    if dry_run:
        return
    if not yes:
        click.confirm(f"Erase {counted(len(people), 'person', 'people')} for good?", abort=True, err=True)
    for part in parts:
        receipt = console.post(ADDRESS, {"people": part, "linked": linked})["receipt"]
        line(receipt) if as_json else _print(receipt)
    click.echo("Backups that were made before still hold them: delete those.", err=True)


def _found(traces: dict[str, Any], *, linked: bool) -> None:
    click.echo(f"{counted(traces['events'], 'event')} of theirs found.", err=True)
    if traces["linked"]:
        kinds: dict[str, int] = {}  # an identifier has several forms, and is named once
        for kind, number in traces["linked"].items():
            name = KINDS.get(kind, kind)
            kinds[name] = max(number, kinds.get(name, 0))
        named = ", ".join(f"{name} ({number})" for name, number in kinds.items())
        words = f"These also carry other identifiers: {named}; {counted(traces['beyond'], 'more event')} carry those."
        click.echo(f"{words} {'They go too.' if linked else 'With --linked they go too.'}", err=True)


def _read(file: Any) -> list[dict[str, str]]:
    """The people of a file. Ends the process, naming the line, where one is not readable or cannot be identified."""
    import msgspec

    from router.person import Person, marks

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
        if not marks(person):
            words = "give email, phone (with its country), user_id or anonymous_id"
            click.echo(f"line {number}: {words}. Nothing was erased.", err=True)
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
