"""``turnout tail``: events as they are accepted and deliveries as they are settled, every one of them.

The server's live stream is followed, and taken up again where it broke off. While no server answers, the outbox is read
on its files; that shows the same but how well destinations could match an event, which the server alone can tell.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from router.cli import FAILED
from router.cli.files import NO_DESTINATION, ask, tables
from router.cli.options import config_option, json_option
from router.cli.output import coloured, line
from router.terminal import escaped
from router.wording import counted, when

if TYPE_CHECKING:
    import datetime as dt

    from router.cli.console_client import Console
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.views import Accepted, Message, Settled
    from router.quality import Level

SILENCE = 45.0  # seconds without even a heartbeat, of which the server sends one every 15: the connection is dead
POLL = 0.5  # seconds between two looks at the files
ASK_AGAIN = 5.0  # seconds of reading files before the server is tried again
SETTLING = 1_000  # newest events whose deliveries are looked at on the files
REMEMBERED = 20_000  # events and deliveries that were shown
NEWEST = 20  # events that --no-follow shows

_SIGNS = {"good": "+ good", "fair": "~ fair", "poor": "! poor"}
_COLOURS = {
    "good": "green",
    "fair": "yellow",
    "poor": "red",
    "delivered": "green",
    "waiting": "yellow",
    "dead": "red",
}


def _since(_: click.Context, __: click.Parameter, given: str) -> int | None:
    """The number of an event; None for now."""
    if given == "now":
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise click.BadParameter('write "now", or the number of an event, 0 for the oldest')
    return int(given)


@click.command("tail")
@config_option
@click.option("--source", metavar="NAME", help="Only events of this source.")
@click.option("--to", metavar="NAME", help="Only deliveries to this destination.")
@click.option("--name", metavar="EVENT", help="Only events of this name.")
@click.option(
    "--quality", "worst", type=click.Choice(["good", "fair", "poor"]), default="good", help="Only so good, or worse."
)
@click.option("--since", callback=_since, default="now", metavar="N|now", help="Begin behind event N; 0: the oldest.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--no-follow", is_flag=True, help=f"Show the newest events ({NEWEST}, or --limit) and end.")
@json_option
def command(
    path: Path,
    source: str | None,
    to: str | None,
    name: str | None,
    worst: Level,
    since: int | None,
    limit: int | None,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Watch events and deliveries as they happen, each event with the mark of its quality. Ctrl-C ends it."""
    from router.cli.console_client import Console

    tail = Tail(path, Console(path), Choice(source, to, name, worst))
    for words in _strange(path, source, name):
        click.echo(words, err=True)
    found = tail.newest(limit or NEWEST, since or 0) if no_follow else tail.following(since, limit)
    try:
        for message in found:
            show(message, as_json=as_json)
    except KeyboardInterrupt:
        return


def _strange(path: Path, source: str | None, name: str | None) -> Iterator[str]:
    """What is asked for and may never come, because of a slip of the hand."""
    from router.dialects.names import standard_of_any

    if source is not None and source not in tables(path, "sources"):
        yield "The configuration has no source of this name: only its older events can be shown."
    if name is not None and (standard := standard_of_any(name)) not in {None, name}:
        yield f'Events of this name arrive as "{standard}": write --name {standard}.'


class Choice:
    """Which events and deliveries are shown. Remembers the events that were, so that theirs can be told."""

    def __init__(self, source: str | None, to: str | None, name: str | None, worst: Level) -> None:
        from router.quality import LEVELS

        self.source, self.to, self.name = source, to, name
        self._levels = LEVELS[LEVELS.index(worst) :]
        self._events: dict[int, str | None] = {}
        self._deliveries: dict[tuple[int, str], tuple[str, int]] = {}

    def query(self) -> dict[str, str]:
        asked = {"source": self.source, "to": self.to, "name": self.name}
        return {key: value for key, value in asked.items() if value is not None}

    def event(self, event: Accepted) -> bool:
        """Is it shown? A damaged event may be any."""
        shown = event.quality is None or (
            event.quality.level in self._levels
            and self.source in {None, event.source}
            and self.name in {None, event.name}
        )
        if shown:
            _remember(self._events, event.seq, event.id)
        return shown

    def delivery(self, delivery: Settled) -> bool:
        """Is it shown? How an older one stands is shown where its event was, and it was not told so before."""
        key, end = (delivery.seq, delivery.to), (delivery.state, delivery.attempts)
        if delivery.earlier and self._deliveries.get(key) == end:
            return False
        every = len(self._levels) == 3 and not delivery.earlier
        if shown := (every or delivery.seq in self._events) and self.to in {None, delivery.to}:
            _remember(self._deliveries, key, end)
        return shown

    def shows(self, message: Message) -> bool:
        from router.outbox.reads.views import Accepted, Settled

        if isinstance(message, Accepted):
            return self.event(message)
        return self.delivery(message) if isinstance(message, Settled) else True

    def id(self, seq: int) -> str | None:
        return self._events.get(seq)


def _remember(memory: dict[Any, Any], key: object, value: object) -> None:
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]


class Tail:
    """The messages, from wherever they are to be had. ``after`` is the last event that was read."""

    def __init__(self, path: Path, console: Console, choice: Choice) -> None:
        self._path, self._console, self._choice = path, console, choice
        self._after: int | None = None

    def following(self, since: int | None, limit: int | None) -> Iterator[Message]:
        """For ever, or until so many events were shown."""
        from router.outbox.reads.views import Accepted

        self._after = since
        for message in self._all():
            if self._choice.shows(message):
                yield message
                if limit is not None and isinstance(message, Accepted):
                    limit -= 1
                    if limit == 0:
                        return

    def _all(self) -> Iterator[Message]:
        """From the server while it answers, else from the files; on stderr is said which."""
        from http.client import HTTPException

        state: Literal["new", "lost", "answers", "silent"] = "new"
        while True:
            try:
                with self._console.lines(self._address(), SILENCE, **self._place(resumed=state != "new")) as lines:
                    if state in {"lost", "silent"}:
                        click.echo("The server answers again.", err=True)
                    state = "answers"
                    yield from self._messages(lines)
            except (OSError, HTTPException, ValueError):
                pass
            if state == "answers":
                click.echo(f"The connection was lost: trying again{self._behind()}.", err=True)
                state = "lost"
                time.sleep(POLL)
                continue
            if state != "silent":
                click.echo(f"No server answers at {escaped(self._console.listen)}: the files are read.", err=True)
                state = "silent"
            yield from self._files(ASK_AGAIN)

    def _address(self) -> str:
        from urllib.parse import urlencode

        asked = self._choice.query()
        if self._after is not None:
            asked["after"] = str(self._after)
        return f"/api/v1/stream?{urlencode(asked)}"

    def _place(self, *, resumed: bool) -> dict[str, str]:
        return {"Last-Event-ID": str(self._after)} if resumed and self._after is not None else {}

    def _behind(self) -> str:
        return "" if self._after is None else f", behind event {self._after}"

    def _messages(self, lines: Iterator[bytes]) -> Iterator[Message]:
        """Server-sent events: an empty line ends a message, and every field is on one line of ours."""
        import msgspec

        from router.outbox.reads.views import Message

        decode = msgspec.json.Decoder(Message).decode
        number, data = b"", b""
        for each in lines:
            key, _, value = each.rstrip(b"\r\n").partition(b": ")
            if key == b"id":
                number = value
            elif key == b"data":
                data = value
            elif not key and each.endswith(b"\n"):
                if data:
                    yield decode(data)
                self._after = int(number) if number else self._after
                data = b""

    # On the files

    def _files(self, seconds: float) -> Iterator[Message]:
        """What is new, and what became of the newest, looking again and again for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = ask(self._path, self._look)
            for each in found:
                yield self._named(each)
            if len(found) < SETTLING:
                time.sleep(POLL)

    async def _known(self, reader: Reader) -> None:
        """Ends the process where the destination is none, as the server does."""
        to = self._choice.to
        if to is not None and await reader.lane_type(to) is None:
            click.echo(f"{NO_DESTINATION}.", err=True)
            sys.exit(FAILED)

    async def _look(self, reader: Reader) -> list[Message]:
        from router.outbox.reads.views import Gap

        await self._known(reader)
        if self._after is None:
            self._after = await reader.last()
        found: list[Message] = []
        events = await reader.following(self._after)
        if events:
            if gone := events[-1].seq - self._after - len(events):
                found.append(Gap(left_out=gone, of="events"))
            self._after = events[-1].seq
        ends = await reader.settled(max(1, self._after - SETTLING + 1), self._after, self._choice.to)
        return [*found, *events, *ends]

    def _named(self, message: Message) -> Message:
        """A delivery with the id of its event, which was shown before it."""
        import msgspec

        from router.outbox.reads.views import Settled

        if not isinstance(message, Settled):
            return message
        return msgspec.structs.replace(message, id=self._choice.id(message.seq))

    def newest(self, count: int, floor: int) -> Iterator[Message]:
        """The newest events that are to be shown, in their order, each with what has become of it."""

        async def found(reader: Reader) -> list[Message]:
            await self._known(reader)
            chosen: list[Accepted] = []
            top = await reader.last()
            while top > floor and len(chosen) < count:
                bottom = max(floor, top - WINDOW)
                page = [each for each in await reader.following(bottom, top - bottom) if self._choice.event(each)]
                chosen, top = page + chosen, bottom
            messages: list[Message] = []
            for event in chosen[-count:]:
                ends = await reader.settled(event.seq, event.seq, self._choice.to)
                messages += [event, *ends]
            return messages

        for each in ask(self._path, found):
            yield self._named(each)


WINDOW = 500  # events looked at in one go


# Lines


def show(message: Message, *, as_json: bool) -> None:
    """One line on stdout; what is missing is said on stderr where people read."""
    from router.outbox.reads.views import Accepted, Settled

    if as_json:
        line(message)
    elif isinstance(message, Accepted):
        click.echo(event_line(message), color=coloured(sys.stdout))
    elif isinstance(message, Settled):
        click.echo(delivery_line(message), color=coloured(sys.stdout))
    elif message.of == "events":
        click.echo(f"{counted(message.left_out, 'event is', 'events are')} no longer stored.", err=True)
    else:
        words = counted(message.left_out, "delivery is", "deliveries are")
        click.echo(f"{words} not shown, they came too fast: turnout outbox list has them.", err=True)


def event_line(event: Accepted) -> str:
    """Time, quality, number, name, source, dialect and id; why the quality is not better; how well partners could match."""
    if event.quality is None:
        why = (
            "erased: its person asked for that" if event.erased else "the stored bytes are damaged: run turnout doctor"
        )
        return f"{'':12}  ? none  #{event.seq}  {why}"
    mark = click.style(_SIGNS[event.quality.level], fg=_COLOURS[event.quality.level])
    words = [f"#{event.seq}", event.name, event.source, event.dialect, event.id, "test" if event.test else None]
    if event.quality.reasons:
        words.append(f"{'; '.join(each.words for each in event.quality.reasons)}. {_better(event)}")
    if event.matches:
        words.append(f"[{', '.join(_match(to, event) for to in event.matches)}]")
    return f"{_time(event.received)}  {mark}  {escaped('  '.join(each for each in words if each))}"


def _better(event: Accepted) -> str:
    """What to send instead, for the worst."""
    instead = event.quality.reasons[0].instead if event.quality else ""
    return f"{instead[:1].upper()}{instead[1:]}."


def _match(to: str, event: Accepted) -> str:
    match = event.matches[to]
    hint = f": {match.addition}" if match.addition and match.level != "good" else ""
    return f"{to} {match.level}{hint}"


def delivery_line(delivery: Settled) -> str:
    """Time, number, destination, state; the status, what it means, and when it is tried again."""
    state = click.style(delivery.state, fg=_COLOURS.get(delivery.state))
    words = [
        str(delivery.status) if delivery.status else None,
        delivery.reason,
        "known there already" if delivery.duplicate else None,
        "the answer proves nothing" if delivery.unverified else None,
        counted(delivery.attempts, "try", "tries") if delivery.attempts > 1 else None,
        f"next try {when(delivery.due)}" if delivery.due else None,
    ]
    rest = escaped(", ".join(each for each in words if each))
    return f"{_time(delivery.at)}  ->      #{delivery.seq}  {escaped(delivery.to)}  {state}  {rest}".rstrip()


def _time(at: dt.datetime | None) -> str:
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}" if at else f"{'':12}"
