"""``turnout explain``: the whole way of one event, from its arrival to every partner's word."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli import FAILED
from router.cli.files import ask, rules, when
from router.cli.options import config_option, json_option
from router.cli.output import counted, line
from router.terminal import escaped

if TYPE_CHECKING:
    import datetime as dt

    from router.outbox.reads.reader import Reader
    from router.outbox.reads.views import AttemptView, Chapter, QuarantineView, Story

_UNKNOWN = "No event of this id is kept: check the id. One whose person was forgotten has none any more."
_ANSWER = 120  # characters of a partner's words on one line; --json has them whole


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
        paragraphs = ["\n".join(lines(story)) for story in stories]
        paragraphs += [_refused(each) for each in refused]
        click.echo("\n\n".join(paragraphs), nl=bool(paragraphs))
    if not stories:
        if not refused:
            click.echo(_UNKNOWN, err=True)
        sys.exit(FAILED)


def lines(story: Story) -> Iterator[str]:
    """One line for each thing that happened, in UTC, times in the first column."""
    yield f"{escaped(story.id)}  {escaped(story.name)}, {story.received:%Y-%m-%d} UTC"
    dialect = story.dialect or "unknown dialect"
    yield _line(story.received, "received", f"{dialect}, source {story.source}")
    yield _line(story.received, "normalised", _normalised(story))
    yield _line(story.received, "stored", f"number {story.seq}, log segment {story.segment}; answered after the commit")
    for chapter in story.destinations:
        tries = [
            _line(attempt.began, f"{chapter.to} {number}", _attempt(attempt))
            for number, attempt in enumerate(chapter.tries, 1)
        ]
        before = _before_the_end(story, chapter)
        yield from tries[:before]
        yield _line(chapter.at, chapter.to, _end(story, chapter))
        if (doubt := _doubt(chapter)) is not None:
            yield _line(None, "", doubt)
        yield from tries[before:]


def _before_the_end(story: Story, chapter: Chapter) -> int:
    """How many of the tries led to what became of it. Those of a replay came later, and change nothing of that; what waits
    is told last, whatever was tried since.
    """
    if chapter.state == "waiting":
        return len(chapter.tries)
    at = story.received if chapter.state == "earlier" else chapter.at
    return sum(at is None or attempt.began <= at for attempt in chapter.tries)


def _line(at: dt.datetime | None, what: str, words: str) -> str:
    time = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}" if at else ""
    return f"{time:12}  {escaped(what):12}  {escaped(words)}"


def _normalised(story: Story) -> str:
    if story.erased:
        return "erased: its person asked to be forgotten"
    if story.damaged:
        return "the stored bytes are damaged: run turnout doctor"
    words = [counted(_count(story.fields), "field")]
    if story.digests:
        words.append(f"digests of {', '.join(_subjects(story.digests))}")
    if story.apart:
        words.append("some held apart, encrypted")
    if story.notes:
        words.append(f"notes: {', '.join(map(_note, story.notes))}")
    return "; ".join(words)


def _note(code: str) -> str:
    from router.quality import NOTES

    return f"{code} ({NOTES[code].words})" if code in NOTES else code


def _subjects(digests: Sequence[str]) -> list[str]:
    """What was digested, without the forms that partners want it in ("email_gmail" beside "email"); --json has them."""
    return [each for each in digests if not any(each.startswith(f"{other}_") for other in digests)]


def _count(fields: object) -> int:
    if isinstance(fields, dict):
        return sum(_count(each) for each in fields.values())
    return 1


def _attempt(attempt: AttemptView) -> str:
    answered = "no answer" if attempt.status is None else str(attempt.status)
    if attempt.answer:
        answered += f" {attempt.answer[:_ANSWER]}"
    reason = f": {attempt.reason}" if attempt.reason else ""
    company = f", with {counted(attempt.events - 1, 'other')}" if attempt.events > 1 else ""
    return f"{answered} in {attempt.duration_ms} ms{company}: {attempt.outcome}{reason}"


def _end(story: Story, chapter: Chapter) -> str:
    because = f": {chapter.reason}" if chapter.reason else ""
    version = f" (configuration {chapter.config})" if chapter.config else ""
    match chapter.state:
        case "delivered":
            age = f" {(chapter.at - story.received).total_seconds():.1f} s after receipt" if chapter.at else ""
            return f"delivered{age}{because}{version}"
        case "filtered":
            return f"not sent{because}{version}"
        case "dead":
            return f"given up {_tries(chapter)}{because}{version}"
        case "waiting":
            return f"waiting{_until(chapter)}{because}"
        case "erased":
            return "erased"
        case _:
            return f"not sent{because}"


def _tries(chapter: Chapter) -> str:
    return f"after {counted(chapter.attempts, 'try', 'tries')}" if chapter.attempts else "without a try"


def _until(chapter: Chapter) -> str:
    next_try = f", next try not before {when(chapter.due)}" if chapter.due else ""
    return f", the destination is held ({chapter.hold_reason})" if chapter.hold_reason else next_try


def _doubt(chapter: Chapter) -> str | None:
    """What the configuration of now would say, where that is not what was done."""
    against = next((check.words for check in chapter.checks if not check.ok), None)
    if against is not None and chapter.state in {"delivered", "waiting", "dead"}:
        return f"by the configuration of now it is not sent: {against}"
    if chapter.checks and against is None and chapter.state == "filtered":
        return "by the configuration of now it is sent"
    return None


def _refused(each: QuarantineView) -> str:
    place = f", field {each.field}" if each.field else ""
    words = f"{when(each.at)}  refused from source {each.source}: {each.code}{place}: {each.message}"
    return escaped(f"{words} (quarantine {each.id})")
