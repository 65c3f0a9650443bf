"""``turnout outbox``: look at deliveries on the files and export them; retry, drop, hold and resume, through the server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args
from urllib.parse import quote

import click

from router.cli import FAILED
from router.cli.files import NO_DESTINATION, ask
from router.cli.options import config_option, json_option
from router.cli.output import line, table
from router.lifecycle import State
from router.terminal import escaped
from router.wording import counted, when

if TYPE_CHECKING:
    from router.cli.console_client import Console
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.views import Deliveries, DeliveryView, Ledger, Story

_AGAIN = ("Send {} of {} again?", "{} would be sent again.", "{} will be sent again.")
_UP = ("Give {} of {} up?", "{} would be given up.", "{} given up.")

_to = click.option("--to", required=True, metavar="NAME", help="Which destination.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say how many, change nothing.")
AT_ONCE = 500  # deliveries of one page of an export
_ids = click.argument("ids", nargs=-1, metavar="[ID]...")


@click.group("outbox")
def command() -> None:
    """What waits, what is done, what was given up; and what to do about it."""


@command.command("list")
@config_option
@click.option("--to", metavar="NAME", help="Only of this destination.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--after", metavar="PLACE", help="Where the list before ended.")
@json_option
def list_(path: Path, to: str | None, state: Any, limit: int, after: str | None, as_json: bool) -> None:
    """List deliveries, newest events first."""
    from router.outbox.reads import pages

    if after is not None and pages.place(after) is None:
        raise click.UsageError("--after is what the list before ended with, as 33010.1")

    async def found(reader: Reader) -> tuple[Deliveries, Ledger] | None:
        known = to is None or await reader.lane_type(to) is not None
        return (await reader.deliveries(to, state, limit, after), await reader.ledger()) if known else None

    if (answer := ask(path, found)) is None:
        click.echo(f"{NO_DESTINATION}.", err=True)
        raise SystemExit(FAILED)
    page, ledger = answer
    if as_json:
        for each in page.items:
            line(each)
    else:
        table(
            ("NUMBER", "EVENT", "NAME", "TO", "STATE", "TRIES", "SINCE", "NEXT TRY", "REASON"),
            [
                (
                    each.seq,
                    each.id,
                    each.name,
                    each.to,
                    each.state,
                    each.attempts,
                    when(each.at or each.received),
                    when(each.due),
                    _hold(each, ledger) or each.reason,
                )
                for each in page.items
            ],
        )
    if page.next is not None:
        click.echo(f"more: --after {page.next}", err=True)


@command.command()
@config_option
@click.option("--to", metavar="NAME", help="Only to this destination.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only in this state.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Into a new file that only its owner may read; else to stdout.",
)
def export(path: Path, to: str | None, state: Any, out: Path | None) -> None:
    """Write deliveries with their events, newest events first.

    One JSON object a line. An event is as it is stored, hashed and scrubbed; what is kept encrypted, as IP addresses, is
    left out.
    """
    with _new(out) as file:

        async def written(reader: Reader) -> int | None:
            if to is not None and await reader.lane_type(to) is None:
                return None
            count, page = 0, await reader.deliveries(to, state, AT_ONCE)
            while True:
                for each in await reader.exported(page):
                    line(each, file)
                count += len(page.items)
                if page.next is None:
                    return count
                page = await reader.deliveries(to, state, AT_ONCE, page.next)

        if (count := ask(path, written)) is None:
            click.echo(f"{NO_DESTINATION}.", err=True)
            raise SystemExit(FAILED)
    if out is not None:
        click.echo(f"{counted(count, 'delivery', 'deliveries')} in {escaped(str(out))}.")


@contextlib.contextmanager
def _new(out: Path | None) -> Iterator[BinaryIO | None]:
    """The file to write, which was not there before; None for stdout. Nothing is left of what fails."""
    if out is None:
        yield None
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise click.UsageError("--out is there already: name a file that is not") from None
    except OSError:
        raise click.UsageError("--out cannot be written: name a file in a directory of yours") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException as error:
        out.unlink()
        if isinstance(error, OSError):
            click.echo("--out could not be written to its end: free some space, or name a file elsewhere.", err=True)
            raise SystemExit(FAILED) from None
        raise


def _hold(each: DeliveryView, ledger: Ledger) -> str | None:
    """Why the destination is held, where that is what a delivery waits for."""
    lane = ledger.destinations.get(each.to)
    return lane.hold_reason if each.state == "waiting" and lane is not None and lane.held else None


@command.command()
@config_option
@click.argument("event", metavar="ID")
@json_option
def show(path: Path, event: str, as_json: bool) -> None:
    """Show one event's deliveries. ID is its event id, or "#" and its number."""

    async def told(reader: Reader) -> list[Story | None]:
        return [await reader.story(each.seq) for each in await reader.find(event)]

    stories = [each for each in ask(path, told) if each is not None]
    if not stories:
        click.echo("No event of this id is stored: turnout explain looks in the quarantine too.", err=True)
        raise SystemExit(FAILED)
    if as_json:
        for story in stories:
            line(story)
        return
    table(
        ("NUMBER", "SOURCE", "TO", "STATE", "TRIES", "SINCE", "NEXT TRY", "REASON"),
        [
            (
                story.seq,
                story.source,
                chapter.to,
                chapter.state,
                chapter.attempts,
                when(chapter.at),
                when(chapter.due),
                chapter.hold_reason or chapter.reason,
            )
            for story in stories
            for chapter in story.destinations
        ],
    )


@command.command()
@config_option
@_to
@click.option("--state", type=click.Choice(["dead", "waiting"]), default="dead", show_default=True)
@_ids
@_yes
@_dry_run
@json_option
def retry(path: Path, to: str, state: str, ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Send dead deliveries again, of some events or all.

    With --state waiting, what waits for its next try is tried now.
    """
    _act(path, "retry", _choice(to, state, ids), _AGAIN, yes, dry_run, as_json)


@command.command()
@config_option
@_to
@click.option("--state", type=click.Choice(["waiting"]), default="waiting", show_default=True)
@_ids
@_yes
@_dry_run
@json_option
def drop(path: Path, to: str, state: str, ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Give waiting deliveries up, of some events or all.

    They stay visible as dead, and can be sent again.
    """
    _act(path, "drop", _choice(to, state, ids), _UP, yes, dry_run, as_json)


@command.command()
@config_option
@_to
@click.option(
    "--reason",
    default="held by the operator",
    help="Why, for whoever looks next; no personal data: it is kept as it is written.",
)
@json_option
def hold(path: Path, to: str, reason: str, as_json: bool) -> None:
    """Let a destination wait. Nothing is lost, and no try is spent."""
    _say(_console(path).post(_lane(to, "hold"), {"reason": reason}), "{} is held.", as_json)


@command.command()
@config_option
@_to
@json_option
def resume(path: Path, to: str, as_json: bool) -> None:
    """Let a destination go on, at once."""
    _say(_console(path).post(_lane(to, "resume"), {}), "{} goes on.", as_json)


def _console(path: Path) -> Console:
    from router.cli.console_client import Console

    return Console(path)


def _lane(to: str, act: str) -> str:
    return f"/api/v1/destinations/{quote(to, safe='')}:{act}"


def _say(answer: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        line(answer)
    else:
        click.echo(words.format(escaped(str(answer["to"]))))


@command.command()
@config_option
@_to
@click.option("--since", metavar="TIME", help='Received from then on: ISO 8601, or as "24h" ago.')
@click.option("--until", metavar="TIME", help="Received before then.")
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option("--name", metavar="EVENT", help="Only events of this name.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["delivered", "filtered", "earlier"]),
    help='What became of them there; "earlier": they came before the destination was there. All, without it.',
)
@click.option("--rate", default="20/s", show_default=True, help="Requests at most.")
@click.option("--cancel", "number", type=int, metavar="NUMBER", help="Let this replay go no further.")
@_dry_run
@_yes
@json_option
def replay(path: Path, to: str, number: int | None, dry_run: bool, yes: bool, as_json: bool, **chosen: Any) -> None:
    """Send events again that a destination was done with.

    After a mistake in map, or to a new destination what came before it. Says first what would be sent, what the partner has had before, and what is too old for it. Fresh events go first; the
    same ids travel, so that a partner recognises what it has. It goes on after a restart.
    """
    console = _console(path)
    if number is not None:
        _tell(console.post(f"/api/v1/replays/{number}:cancel", {}), as_json=as_json)
        return
    body = {name: value for name, value in chosen.items() if value not in (None, ())}
    body |= {name: _instant(body[name]) for name in ("since", "until") if name in body}
    answer = console.post("/api/v1/replays", {"to": to, **body, "dry_run": True})
    if answer["counts"]["sent"] and not dry_run:
        if not yes:
            _tell(answer, as_json=False, err=True)
            click.confirm("Send them?", abort=True, err=True)
        answer = console.post("/api/v1/replays", {"to": to, **body, "dry_run": False})
    _tell(answer, as_json=as_json)


def _instant(text: str) -> str:
    """ISO 8601 of an instant, UTC where it has no zone, or of so long ago."""
    import datetime as dt

    from router.settings import seconds

    with contextlib.suppress(ValueError):
        return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds(text))).isoformat()
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            'write a time as "2026-11-20", "2026-11-20T12:00:00Z" or "24h" for so long ago'
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).isoformat()


def _tell(answer: dict[str, Any], *, as_json: bool, err: bool = False) -> None:
    if as_json:
        line(answer)
        return
    counts = answer["counts"]
    parts = [
        f"{counts['again']} of them it has had before" if counts["again"] else "",
        f"{counts['expired']} too old for it" if counts["expired"] else "",
        f"{counts['filtered']} not meant for it" if counts["filtered"] else "",
        f"{counts['refused']} refused" if counts["refused"] else "",
        f"{counts['other']} not chosen or no longer stored" if counts["other"] else "",
    ]
    events, rest = counted(counts["sent"], "event"), "".join(f"; {part}" for part in parts if part)
    if answer["id"] is None:
        click.echo(f"{events} would be sent to {escaped(answer['to'])}{rest}.", err=err)
    elif answer["state"] == "running":
        left = counted(answer["left"], "event")
        to = escaped(answer["to"])
        click.echo(f"Replay {answer['id']} to {to} is under way, {left} to look at.")
        ends = f"turnout outbox replay --to {to} --cancel {answer['id']} ends it"
        click.echo(f"{ends}; GET /api/v1/replays of the console says how far it is.", err=True)
    else:
        click.echo(f"Replay {answer['id']} to {escaped(answer['to'])} is {answer['state']}: {events} sent{rest}.")


def _choice(to: str, state: str, ids: tuple[str, ...]) -> dict[str, Any]:
    return {"to": to, "state": state, **({"ids": list(ids)} if ids else {"all": True})}


Words = tuple[str, str, str]  # the question, what --dry-run says, what is said at the end


def _act(path: Path, act: str, choice: dict[str, Any], words: Words, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Count, ask, act. The count that is told at the end is what was done, be it another one meanwhile."""
    console, address = _console(path), f"/api/v1/deliveries:{act}"
    answer = console.post(address, {**choice, "dry_run": True})
    in_vain = bool(choice.get("ids")) and not answer["count"]
    _say_of_ids(choice, answer)
    if answer["count"] and not dry_run:
        chosen = counted(answer["count"], f"{choice['state']} delivery", f"{choice['state']} deliveries")
        asked = words[0].format(chosen, escaped(choice["to"]))
        if not yes:
            click.confirm(asked, abort=True, err=True)
        answer = console.post(address, {**choice, "dry_run": False})
    if as_json:
        line({**answer, "dry_run": dry_run})
    else:
        click.echo(words[1 if dry_run else 2].format(counted(answer["count"], "delivery", "deliveries")))
    if in_vain:
        raise SystemExit(FAILED)


def _say_of_ids(choice: dict[str, Any], answer: dict[str, Any]) -> None:
    """Which of the ids nothing can be done for, and why."""
    if missing := answer["unknown"]:
        click.echo(f"{counted(missing, 'id is', 'ids are')} not stored.", err=True)
    others = len(set(choice.get("ids", ()))) - missing - answer["count"]
    if others > 0:
        words = f"{counted(others, 'id has', 'ids have')} nothing {choice['state']} at {escaped(choice['to'])}"
        click.echo(f"{words}: turnout outbox show ID says how it stands.", err=True)
