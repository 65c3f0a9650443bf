"""``turnout validate``: our own word on an event beside the partner's, and the partner's reports on what it got.

The partner is asked by its own check, which processes nothing. What is not to be sent there (consent, conditions,
names), and what cannot be written for it, is not shown to it for a check either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from router.cli import DONE, FAILED, UNREACHABLE
from router.cli.options import config_option, configured, json_option
from router.cli.output import line, table
from router.cli.preview import Given, chosen, event_options, looked_at, turned_away
from router.problem import Problem
from router.terminal import escaped

if TYPE_CHECKING:
    from router.destination import Destination, Request, Response
    from router.event import Event
    from router.preview import Preview
    from router.transport import Transport

_SILENT = frozenset({"name", "connect", "timeout", "closed", "tls"})  # failures after which nobody has answered


class Theirs(msgspec.Struct, frozen=True, kw_only=True):
    """The partner's word. ``valid`` None: its answer does not tell."""

    valid: bool | None
    status: int
    summary: str
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One event at one destination. The keys are those of ``--json``.

    ``ours`` is "ok" or the reason against it. Where ``theirs`` is None, ``unasked`` or ``failure`` says why.
    """

    index: int
    id: str | None
    name: str | None
    to: str | None
    result: Literal["valid", "invalid", "unclear", "unreachable"]
    ours: str
    theirs: Theirs | None = None
    unasked: str | None = None
    failure: str | None = None
    differs: str | None = None


@click.command("validate")
@config_option
@event_options
@click.option("--to", "to", metavar="NAME", multiple=True, required=True, help="The destination; may be repeated.")
@click.option("--logs", "report", flag_value="logs", help="Show the partner's log of what it checked; needs no event.")
@click.option("--stats", "report", flag_value="stats", help="Show the partner's counts; needs no event.")
@json_option
def command(
    path: Path,
    given: str | None,
    sample: str | None,
    event_id: str | None,
    dialect: str,
    source: str | None,
    to: tuple[str, ...],
    report: str | None,
    as_json: bool,
) -> None:
    """Ask a partner's own check about an event, and show its verdict beside ours. The partner processes nothing.

    The event is JSON right here, a file (or @file), or standard input (-). A partner without a check is not asked, and
    our own rules decide.

    Exits 0 when all are valid, 1 when one is not, 3 when nobody answers.
    """
    from router.clock import SystemClock

    settings = configured(path)
    lanes = chosen(settings, to)
    if report is not None:
        if [given, sample, event_id] != [None, None, None]:
            raise click.UsageError(f"--{report} is about what the partner has got already: leave the event out")
        sys.exit(asyncio.run(_reported(lanes, report, as_json=as_json)))
    now = SystemClock().now()
    events = looked_at(path, settings, now, given, sample, event_id, dialect, source, to)
    sys.exit(asyncio.run(_validated(events, lanes, now, as_json=as_json)))


# Asking


async def _validated(events: Sequence[Given], lanes: Mapping[str, Destination], now: int, *, as_json: bool) -> int:
    """Ask one after the other and say what came; the exit code."""
    results: set[str] = set()
    transports = {name: _transport(name, lane) for name, lane in lanes.items()}
    try:
        for index, each in enumerate(events):
            async for found in _each(index, each, lanes, transports, now):
                results.add(found.result)
                if as_json:
                    line(found)
                else:
                    _say(found, each)
    finally:
        for transport in transports.values():
            await transport.close()
    if "unreachable" in results:
        return UNREACHABLE
    return DONE if results <= {"valid"} else FAILED


async def _each(
    index: int, given: Given, lanes: Mapping[str, Destination], transports: Mapping[str, Transport], now: int
) -> AsyncIterator[Compared]:
    from router.preview import preview

    event = given.entered
    if isinstance(event, Problem):
        yield Compared(index=index, id=event.id, name=None, to=None, result="invalid", ours=turned_away(event))
        return
    for name, lane in lanes.items():
        yield await _compared(index, preview(name, lane, event, now), transports[name])


async def _compared(index: int, seen: Preview, transport: Transport) -> Compared:
    from router.transport import Failure

    ours = seen.reason or "ok"
    mine = Compared(
        index=index,
        id=seen.event.id,
        name=seen.event.name,
        to=seen.to,
        result="valid" if seen.result == "sent" else "invalid",
        ours=ours,
    )
    if seen.request is None:
        return msgspec.structs.replace(mine, unasked="refused here, not asked")
    question = seen.destination.validation(seen.request)
    if question is None:
        words = f"{seen.destination.title} has no check of its own: our rules alone decide"
        return msgspec.structs.replace(mine, unasked=words)
    answer = await transport.send(question)
    if isinstance(answer, Failure):
        return msgspec.structs.replace(
            mine, result="unreachable" if answer.kind in _SILENT else "unclear", failure=answer.reason
        )
    theirs = _theirs(seen.destination, seen.event, answer)
    return msgspec.structs.replace(
        mine,
        theirs=theirs,
        result="unclear" if theirs.valid is None else "valid" if theirs.valid and ours == "ok" else "invalid",
        differs=_difference(seen.destination.title, ours == "ok", theirs.valid),
    )


def _transport(name: str, destination: Destination) -> Transport:
    from router.clock import SystemClock
    from router.transport import Transport

    return Transport.to(destination, name, SystemClock(), 1)


def _theirs(destination: Destination, event: Event, answer: Response) -> Theirs:
    """The partner's word, once more without secrets and without what the partner was told of the person."""
    try:
        verdict = destination.verdict(answer)
    except Exception as error:  # noqa: BLE001 - whatever a partner's file raises says nothing of the event
        return Theirs(
            valid=None,
            status=answer.status,
            summary=f"the answer could not be read ({type(error).__name__}): report it",
        )
    private = [*_private(destination), *_told(destination, event)]
    found = [(severity, _fit(words, private)) for _, severity, words in verdict.findings]
    return Theirs(
        valid=verdict.valid,
        status=answer.status,
        summary=_fit(verdict.summary, private),
        errors=tuple(words for severity, words in found if severity == "error"),
        warnings=tuple(words for severity, words in found if severity == "warning"),
    )


def _difference(title: str, ours: bool, theirs: bool | None) -> str | None:
    if ours and theirs is False:
        return f"{title} refuses what we would have sent: this is a gap in our rules; report it"
    if theirs and not ours:
        return f"we refuse what {title} takes"
    return None


def _private(destination: Destination) -> list[str]:
    return [secret.reveal() for secret in destination.all_secrets()]


def _told(destination: Destination, event: Event) -> Iterable[str]:
    """Clear values and digests that the partner was given and may repeat."""
    from router.event import telling

    yield from telling(event.clear, destination.clear)
    digests = event.user.digests
    yield from (value for name in digests.__struct_fields__ if (value := getattr(digests, name)))


def _fit(words: str, private: Sequence[str]) -> str:
    from router.delivery.redact import redacted

    return redacted(words.encode("utf-8", "replace"), private)


# Saying


def _say(found: Compared, given: Given) -> None:
    about = [part for part in (found.id, found.name) if part]
    click.echo(escaped(f"{'  '.join(about) or f'event {found.index}'}{f' to {found.to}' if found.to else ''}"))
    _line("ours", found.ours)
    for words in given.remarks:
        _line("remark", words)
    if found.theirs is not None:
        word = _WORDS[found.theirs.valid]
        said = found.theirs.summary.removeprefix(word).lstrip(": ")
        _line("theirs", f"{word} (HTTP {found.theirs.status}){f': {said}' if said else ''}")
        for words in found.theirs.errors:
            _line("error", words)
        for words in found.theirs.warnings:
            _line("warning", words)
    if (instead := found.failure or found.unasked) is not None:
        _line("theirs", instead)
    if found.differs is not None:
        _line("differs", found.differs)


_WORDS = {True: "VALID", False: "INVALID", None: "UNCLEAR"}


def _line(word: str, words: str) -> None:
    click.echo(escaped(f"  {word:8} {words}"))


# The partner's reports


async def _reported(lanes: Mapping[str, Destination], kind: str, *, as_json: bool) -> int:
    """Fetch a kind of the partner's own reports from each ("logs", "app logs") and show them; the exit code."""
    codes = []
    for name, lane in lanes.items():
        asked = {each: request for each, request in lane.reports().items() if each.split()[-1] == kind}
        if not asked:
            click.echo(escaped(f"{name}: {lane.title} has no report of this kind."), err=True)
            codes.append(FAILED)
        for each, request in asked.items():
            codes.append(await _one_report(name, lane, each, request, as_json=as_json))
    return max(codes)


async def _one_report(name: str, lane: Destination, report: str, request: Request, *, as_json: bool) -> int:
    from router.transport import Failure

    transport = _transport(name, lane)
    try:
        answer = await transport.send(request)
    finally:
        await transport.close()
    if isinstance(answer, Failure):
        click.echo(escaped(f"{name}: {answer.reason}."), err=True)
        return UNREACHABLE if answer.kind in _SILENT else FAILED
    if not 200 <= answer.status < 300:
        why = getattr(lane.outcome(answer), "reason", "it gave no report")
        click.echo(escaped(f"{name}: HTTP {answer.status}: {why}."), err=True)
        return FAILED
    _show(name, report, [_redacted(row, _private(lane)) for row in lane.report_rows(answer)], as_json=as_json)
    return DONE


def _show(name: str, report: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            line({"to": name, "report": report, "row": row})
        return
    click.echo(escaped(f"{name}: {report}{'' if rows else ': nothing yet'}"))
    if rows:
        headings = list(dict.fromkeys(column for row in rows for column in row))
        table([each.upper() for each in headings], [[_cell(row.get(each)) for each in headings] for row in rows])


def _redacted(value: Any, private: Sequence[str]) -> Any:
    """The value with every text in it, and every key, made fit to be shown."""
    if isinstance(value, dict):
        return {_fit(name, private): _redacted(inside, private) for name, inside in value.items()}
    if isinstance(value, list):
        return [_redacted(inside, private) for inside in value]
    return _fit(value, private) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    if value in (None, [], {}):
        return ""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "; ".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
