"""``turnout preview``: what each destination would be sent for an event, field by field. Nothing leaves the machine."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
import msgspec

from router import samples
from router.cli import DONE, FAILED
from router.cli.options import config_option, configured, json_option
from router.cli.output import line, table
from router.problem import Problem
from router.terminal import escaped

if TYPE_CHECKING:
    from router.config.positions import Places
    from router.destination import Destination
    from router.event import Event
    from router.preview import Preview
    from router.settings import Settings, Source
    from router.visit import Door

F = TypeVar("F", bound=Callable[..., Any])

DOOR_SHUT = "turned_away"
APART = (
    "values that this event has in clear (address, user agent, ...) are not opened here; what is sent has them, "
    "and what needs them may be refused here only"
)
BROWSER = "a browser's own IP address and user agent come with its request; a preview has only what is in the event"


class Given(NamedTuple):
    """One event to look at, or why it was turned away at the door. ``remarks`` say what a preview cannot know of it."""

    entered: Event | Problem
    remarks: tuple[str, ...] = ()


def event_options(command: F) -> F:
    """What event it is about, for every command that looks at one."""
    for option in reversed(
        (
            click.argument("given", metavar="[EVENT|FILE|-]", required=False),
            click.option("--sample", type=click.Choice(samples.NAMES), help="Take this sample event instead."),
            click.option("--id", "event_id", metavar="ID", help="Take this event of the outbox instead."),
            click.option(
                "--dialect", type=click.Choice(list(samples.DIALECTS)), default="plain", help="How a sample is written."
            ),
            click.option("--source", metavar="NAME", help="As if this source had sent it; else the first."),
        )
    ):
        command = option(command)
    return command


@click.command("preview")
@config_option
@event_options
@click.option("--to", "to", metavar="NAME", multiple=True, help="Only this destination; may be repeated.")
@click.option("--format", "form", type=click.Choice(["table", "json", "curl"]), default="table", help="How to show it.")
@json_option
def command(
    path: Path,
    given: str | None,
    sample: str | None,
    event_id: str | None,
    dialect: str,
    source: str | None,
    to: tuple[str, ...],
    form: str,
    as_json: bool,
) -> None:
    """Show what each destination would be sent for an event, where every value comes from, and what stands against it.

    The event is JSON right here, a file (or @file), or standard input (-). The body is the one that goes on the wire
    when the event goes alone; the table masks IP address and user agent, json and curl show the body to the letter.

    Exits 0 when all would be sent, 1 when one would not.
    """
    from router.clock import SystemClock
    from router.preview import preview

    settings, now = configured(path), SystemClock().now()
    lanes, events = chosen(settings, to), looked_at(path, settings, now, given, sample, event_id, dialect, source, to)
    where, good = Lines(path), True
    for index, each in enumerate(events):
        event = each.entered
        shown = [] if isinstance(event, Problem) else [preview(name, lane, event, now) for name, lane in lanes.items()]
        good = good and bool(shown) and all(one.result == "sent" and one.destination.enabled for one in shown)
        if as_json or form == "json":
            for found in as_objects(index, each, shown, where):
                line(found)
        elif form == "curl":
            _curls(each, shown)
        else:
            _tables(each, shown, where, first=index == 0)
    sys.exit(DONE if good else FAILED)


# What is looked at


def chosen(settings: Settings, to: Sequence[str]) -> dict[str, Destination]:
    """The destinations of these names, or every enabled one. UsageError where there is none."""
    from router.config import suggestion

    for name in to:
        if name not in settings.destinations:
            hint = suggestion(name, settings.destinations) if settings.destinations else "the configuration has none"
            raise click.UsageError(f"--to: there is no such destination, {hint}")
    lanes = {name: lane for name, lane in settings.destinations.items() if name in to or (not to and lane.enabled)}
    if not lanes:
        raise click.UsageError("the configuration has no destination that is enabled: add one, or name one with --to")
    return lanes


def looked_at(
    path: Path,
    settings: Settings,
    now: int,
    given: str | None,
    sample: str | None,
    event_id: str | None,
    dialect: str,
    source: str | None,
    to: Sequence[str],
) -> list[Given]:
    """The events that the options name, as they are behind the door. UsageError where they name none, or two."""
    if [given, sample, event_id].count(None) != 2:
        raise click.UsageError("give one of: an event (JSON, a file or -), --sample NAME, --id ID")
    if event_id is not None:
        return [_stored(path, event_id)]
    if given is not None:
        content = _content(given)
    else:
        dice = random.Random()  # noqa: S311 - made-up people
        content = msgspec.json.encode(samples.sample(str(sample), dialect, 0, dice, now))
    name, sender = _source(settings, source)
    remarks = (BROWSER,) if sender.origins else ()
    found = list(_admitted(content, _door(settings, name, sender, to), now, remarks))
    if not found:
        raise click.UsageError("there is no event in it: give an object, or an array of them")
    return found


def _content(given: str) -> bytes:
    """The bytes of the argument itself, of standard input, or of a file."""
    if given.lstrip().startswith(("{", "[")):
        return given.encode("utf-8", "surrogateescape")
    if given == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(given.removeprefix("@")).read_bytes()
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "this is no file's name").lower()
        raise click.UsageError(f"the file cannot be read: {why}; JSON begins with {{ or [") from None


def _source(settings: Settings, name: str | None) -> tuple[str, Source]:
    """The source of this name that events are posted to, or the first."""
    from router.settings import Source

    known = {each: source for each, source in settings.sources.items() if isinstance(source, Source)}
    if not known:
        raise click.UsageError("the configuration has no source that is posted to: add [sources.NAME] with tokens")
    if name is not None and name not in known:
        raise click.UsageError(f"--source is one of {', '.join(known)}")
    return (found := name or next(iter(known))), known[found]


def _door(settings: Settings, name: str, source: Source, to: Sequence[str]) -> Door:
    """The door of a source, as a server has it whose enabled destinations are those of now and the ones asked for."""
    from router.collect.keys import sender

    lanes = [lane for lane_name, lane in settings.destinations.items() if lane.enabled or lane_name in to]
    needed = frozenset[str]().union(*(lane.clear for lane in lanes))
    return sender(name, source, needed).door


def _admitted(content: bytes, door: Door, now: int, remarks: tuple[str, ...]) -> Iterator[Given]:
    """Each item of a body, as ``POST /collect`` would take it. UsageError where it would take none."""
    from router import body
    from router.collect.preparing import new_id
    from router.door import admit
    from router.problem import Malformed
    from router.visit import TurnedAway, Visit

    read = body.read(content)
    if isinstance(read, Malformed):
        raise click.UsageError(read.message)
    visit = Visit(received=now, wrapper=read.wrapper)
    for item in read.items:
        if item.problem is not None:
            yield Given(item.problem)
            continue
        entered = admit(item.value, door, visit, new_id, item.notes)
        if isinstance(entered, TurnedAway):
            yield Given(entered.problem)
        else:
            yield Given(entered, remarks if entered.clear.ip is None else ())


def _stored(path: Path, event_id: str) -> Given:
    """The newest event of this id in the outbox. What is kept apart of it, encrypted, stays closed."""
    from router.cli.files import ask, directory
    from router.outbox.log.entries import Segment
    from router.outbox.log.segments import Segments
    from router.outbox.reads.reader import Reader

    async def told(reader: Reader) -> tuple[Event | None, bool]:
        for each in await reader.find(event_id):
            if (story := await reader.story(each.seq)) is not None and not story.damaged:
                segments = Segments(directory(path), [Segment(number=story.segment, first=1, opened=0, key=None)])
                try:
                    return next((found.event for found in await segments.pick([each.seq])), None), story.apart
                finally:
                    await segments.close()
        return None, False

    event, apart = ask(path, told)
    if event is None:
        click.echo("No event of this id is stored: check the id, turnout explain says what is known of it.", err=True)
        sys.exit(FAILED)
    return Given(event, (APART,) if apart else ())


# Where the configuration says so


class Lines:
    """Places in the configuration file, found when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: Places | None = None

    def of(self, preview: Preview, check: str, words: str) -> str | None:
        """The line of the setting that a check of routing follows, as "config.toml:12"; None where a default does."""
        if (key := _key(preview.destination, check, words)) is None:
            return None
        place = self._read().keys.get(("destinations", preview.to, *key))
        return None if place is None else f"{self._path}:{place.line}"

    def _read(self) -> Places:
        from router.config.positions import locate

        if self._places is None:
            text = self._path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
            self._places = locate(text)
        return self._places


def _key(destination: Destination, check: str, words: str) -> tuple[str, ...] | None:
    if check == "match":
        found = (each for each in destination.match if f" {each} " in f" {words} ")
        return ("match", max(found, key=len, default=""))
    keys = {"source": "sources", "test": "test_event_code", "event": "events", "consent": "consent"}
    return (keys[check],) if check in keys else None


# How it is said


def as_objects(index: int, given: Given, previews: Sequence[Preview], where: Lines) -> Iterator[dict[str, Any]]:
    """The stable keys of ``--json``: one object for an event at a destination, or for one that was turned away."""
    if isinstance(given.entered, Problem):
        yield {"index": index, "result": DOOR_SHUT, "problem": given.entered}
    for each in previews:
        yield {
            "index": index,
            "id": each.event.id,
            "name": each.event.name,
            "source": each.event.source,
            "dialect": each.event.dialect,
            "to": each.to,
            "type": str(type(each.destination).__struct_config__.tag),
            "enabled": each.destination.enabled,
            "result": each.result,
            "reason": each.reason,
            "checks": [{**check._asdict(), "line": where.of(each, check.name, check.words)} for check in each.checks],
            "request": _request(each) if each.result == "sent" else None,
            "fields": each.leaves() if each.result == "sent" else [],
            "untraced": each.untraced() if each.result == "sent" else [],
            "hints": each.hints,
            "identifiers": {"carried": each.match.carried, "missing": each.match.missing},
            "age_seconds": round(each.age, 3),
            "window": each.window,
            "notes": [{"code": code, "words": words} for code, words in _notes(each.event)],
            "remarks": list(_remarks(given, each)),
        }


def _request(preview: Preview) -> dict[str, Any] | None:
    from router.preview.shown import address, body_text, headers

    if (request := preview.request) is None:
        return None
    lane = preview.destination
    return {
        "method": request.method,
        "url": address(request, lane),
        "headers": headers(request, lane),
        "body": body_text(request, lane),
    }


def _notes(event: Event) -> Iterator[tuple[str, str]]:
    """What was repaired, guessed or dropped at the door, in words with what to send instead."""
    from router.quality import NOTES

    for note in event.notes:
        meaning = NOTES.get(note)
        yield note, note if meaning is None else f"{meaning.words}: {meaning.instead}"


def _remarks(given: Given, preview: Preview) -> Iterator[str]:
    """What a preview cannot know, and a lane that is switched off."""
    from router.destination import Destination

    yield from given.remarks
    if not preview.destination.enabled:
        yield "enabled = false: it waits until the destination is enabled"
    if type(preview.destination).subject is not Destination.subject:
        yield "whether an earlier answer closed what this event is about, only the running server knows"


def turned_away(problem: Problem) -> str:
    """Why the door is shut, without the event."""
    place = f", field {problem.field}" if problem.field else ""
    return f"turned away at the door: {problem.code}{place}: {problem.message}"


def _curls(given: Given, previews: Sequence[Preview]) -> None:
    from router.preview.shown import curl

    if isinstance(given.entered, Problem):
        click.echo(escaped(turned_away(given.entered)), err=True)
    for each in previews:
        if each.result == "sent" and each.request is not None:
            click.echo(curl(each.request, each.destination))
        else:
            click.echo(escaped(f"{each.to}: not sent: {each.reason}"), err=True)


def _tables(given: Given, previews: Sequence[Preview], where: Lines, *, first: bool) -> None:
    if not first:
        click.echo()
    event = given.entered
    if isinstance(event, Problem):
        click.echo(escaped(turned_away(event)))
        return
    click.echo(escaped(f"{event.id}  {event.name}, {event.dialect}, source {event.source}"))
    for _, words in _notes(event):
        _said("note", words)
    for each in previews:
        click.echo()
        _headline(each)
        _checks(each, where)
        for words in (*each.hints, *_remarks(given, each)):
            _said("hint" if words in each.hints else "remark", words)


def _said(word: str, words: str) -> None:
    click.echo(escaped(f"{word:9} {words}"))


def _headline(preview: Preview) -> None:
    from router.preview.shown import address, headers

    request, lane = preview.request, preview.destination
    if preview.result != "sent" or request is None:
        click.echo(escaped(f"WOULD NOT SEND  to {preview.to}: {preview.reason}"))
        return
    click.echo(escaped(f"WOULD SEND  to {preview.to}: {request.method} {address(request, lane)}"))
    for name, value in headers(request, lane).items():
        _said("header", f"{name}: {value}")
    rows = [(leaf.path, leaf.value, leaf.origin) for leaf in preview.leaves()]
    table(("FIELD", "VALUE", "FROM"), rows, prose=("VALUE", "FROM"))
    if untraced := preview.untraced():
        _said("untraced", ", ".join(untraced))


def _checks(preview: Preview, where: Lines) -> None:
    for check in preview.checks:
        place = where.of(preview, check.name, check.words)
        _said("ok" if check.ok else "against", f"{check.name}: {check.words}{f' ({place})' if place else ''}")
    if preview.match.carried or preview.match.missing:
        _said(
            "ok" if preview.match.carried else "against", f"known by: {', '.join(preview.match.carried) or 'nothing'}"
        )
    old = f"{_length(preview.age)} old, {f'accepted for {preview.window}' if preview.window else 'any age is accepted'}"
    _said("against" if preview.result == "too_old" else "ok", f"age: {old}")
    largest = preview.destination.largest_batch()
    if preview.result == "sent" and largest > 1:
        _said("ok", f"batch: goes with up to {largest - 1} others")


def _length(age: float) -> str:
    """A length of time, for people."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age >= 2 * size:
            return f"{age / size:.0f} {unit}"
    return f"{max(0.0, age):.0f} s"
