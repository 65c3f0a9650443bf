"""What became of one event, told: each thing that happened, in its order, for a terminal and for a page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from router.outbox.reads.views import AttemptView, Chapter, Story
from router.quality import NOTES
from router.wording import counted, when

ANSWER = 120  # characters of a partner's words on one line; as JSON they are whole


class Line(NamedTuple):
    """One thing that happened: when, where ("received", or a destination and the number of the try), and in words."""

    at: dt.datetime | None
    what: str
    words: str


def lines(story: Story) -> Iterator[Line]:
    """One line for each thing that happened."""
    dialect = story.dialect or "unknown dialect"
    yield Line(story.received, "received", f"{dialect}, source {story.source}")
    yield Line(story.received, "normalised", _normalised(story))
    yield Line(story.received, "stored", f"number {story.seq}, log segment {story.segment}; answered after the commit")
    for chapter in story.destinations:
        tries = [
            Line(attempt.began, f"{chapter.to} {number}", _attempt(attempt))
            for number, attempt in enumerate(chapter.tries, 1)
        ]
        before = _before_the_end(story, chapter)
        yield from tries[:before]
        yield Line(chapter.at, chapter.to, _end(story, chapter))
        if (doubt := _doubt(chapter)) is not None:
            yield Line(None, "", doubt)
        yield from tries[before:]


def _before_the_end(story: Story, chapter: Chapter) -> int:
    """How many of the tries led to what became of it. Those of a replay came later, and change nothing of that; what waits
    is told last, whatever was tried since.
    """
    if chapter.state == "waiting":
        return len(chapter.tries)
    at = story.received if chapter.state == "earlier" else chapter.at
    return sum(at is None or attempt.began <= at for attempt in chapter.tries)


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
        answered += f" {attempt.answer[:ANSWER]}"
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
