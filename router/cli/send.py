"""``turnout send``: post events to a running server, and follow what becomes of them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click
import msgspec

from router import door, samples
from router.cli import DONE, FAILED, UNREACHABLE
from router.cli.console_client import json_object, reached
from router.cli.options import config_option, configured, json_option
from router.cli.output import line
from router.terminal import escaped
from router.wording import counted

if TYPE_CHECKING:
    import aiohttp

    from router.settings import Settings

TRIES = 10  # times that a server which is busy is asked again
LOOK_EVERY = 0.2  # seconds


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to post and to ask. Tokens are headers already."""

    collect: str
    headers: dict[str, str]
    console: str | None
    console_headers: dict[str, str]


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was said to one event. The keys are those of ``--json``; ``destinations`` with ``--wait``."""

    index: int
    result: str  # accepted, duplicate, rejected or refused
    id: str | None = None
    code: str | None = None
    field: str | None = None
    message: str | None = None
    destinations: dict[str, dict[str, Any]] = {}

    def good(self) -> bool:
        ends = [each["state"] for each in self.destinations.values()]
        return self.result in {"accepted", "duplicate"} and not {"dead", "waiting"} & set(ends)


class Progress(msgspec.Struct):
    """How many events had an answer, and whether all is well with them."""

    answered: int = 0
    good: bool = True


class Unreachable(Exception):
    """Nobody answers there."""


@click.command("send")
@config_option
@click.argument("given", metavar="[FILE|-|JSON]", required=False)
@click.option("--sample", type=click.Choice(samples.NAMES), help="Send this sample event instead.")
@click.option("--dialect", type=click.Choice(list(samples.DIALECTS)), default="plain", help="How a sample is written.")
@click.option("--count", type=click.IntRange(1), default=1, help="So many of the sample, by different visitors.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second, at most.")
@click.option("--to", "to", metavar="URL", help="The collect endpoint; else that of the configuration.")
@click.option("--token", help="The key of the source; else from the configuration.")
@click.option("--source", metavar="NAME", help="Send as this source of the configuration; else as the first.")
@click.option("--wait", is_flag=True, help="Follow each event until every destination has it or has given up.")
@click.option("--console", metavar="URL", help="Where --wait asks; else the console of the configuration.")
@click.option("--timeout", type=click.FloatRange(0), default=60.0, help="Seconds that --wait waits for one event.")
@json_option
def command(
    path: Path,
    given: str | None,
    sample: str | None,
    dialect: str,
    count: int,
    rate: float | None,
    to: str | None,
    token: str | None,
    source: str | None,
    wait: bool,
    console: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Post events to a running server, or a realistic sample.

    Events are an object, an array, or one object a line: in FILE, on standard input, or as JSON right here.

    Exits 0 when all were accepted (with --wait: settled), 1 when one was not, 3 when nobody answers.
    """
    import asyncio

    if (given is None) == (sample is None):
        raise click.UsageError("give either events (a file, - or JSON) or --sample NAME")
    if given is not None and count > 1:
        raise click.UsageError("--count goes with --sample: the same event twice is a duplicate")
    items = _read(given) if given is not None else list(_made(str(sample), dialect, count))
    if not items:
        raise click.UsageError("there is no event in it: give an object, an array of them, or one a line")
    target = _target(path, to, token, source, console if wait else "")
    if wait and target.console is None:
        raise click.UsageError("--wait needs the console: name it with --console URL, or give a configuration")
    progress = Progress()
    code = UNREACHABLE
    try:
        asyncio.run(_send(items, target, rate, timeout if wait else None, progress, as_json=as_json))
        sys.exit(DONE if progress.good else FAILED)
    except Unreachable as error:
        click.echo(f"{error}: start it with turnout serve, or correct the address.", err=True)
    except KeyboardInterrupt:
        code = FAILED
    if progress.answered or code == FAILED:
        done = f"{progress.answered} of {counted(len(items), 'event')} had an answer"
        again = ": send the same again, what is stored already counts as duplicate" if given is not None else ""
        click.echo(f"{done}{again}.", err=True)
    sys.exit(code)


# What is sent


def _made(name: str, dialect: str, count: int) -> Iterator[samples.Object]:
    dice = random.Random()  # noqa: S311 - made-up people
    for number in range(count):
        yield samples.sample(name, dialect, number * 2, dice, time.time_ns() // 1_000_000)


def _read(given: str) -> list[Any]:
    """The events of a file, of standard input, or of the argument itself."""
    if given.lstrip().startswith(("{", "[")):
        return events(given.encode())
    if given == "-":
        return events(sys.stdin.buffer.read())
    try:
        return events(Path(given).read_bytes())
    except OSError as error:
        raise click.UsageError(f"the file cannot be read: {(error.strerror or '').lower()}") from None


def events(content: bytes) -> list[Any]:
    """An array's members, one object, or one object a line. UsageError with the line for anything else."""
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [_of_line(number, each) for number, each in enumerate(content.splitlines(), 1) if each.strip()]
    return whole if isinstance(whole, list) else [whole]


def _of_line(number: int, content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = f"line {number} is not JSON: write an object, an array, or one whole object a line"
        raise click.UsageError(words) from None


# Where to


def _target(path: Path, to: str | None, token: str | None, source: str | None, console: str | None) -> Target:
    """From the options; what they leave open comes from the configuration. ``console`` "": it is not needed."""
    settings = configured(path) if to is None or token is None or (console is None and path.exists()) else None
    key = token or _token(settings, source)
    collect = _with_path(_url("--to", to)) if to is not None else f"{_listening(settings, 'collect')}/collect"
    asked = _url("--console", console) if console else None if settings is None else _listening(settings, "console")
    secret = None if settings is None else settings.console.token
    return Target(
        collect=collect,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        console=asked,
        console_headers={} if secret is None else {"Authorization": f"Bearer {secret.reveal()}"},
    )


def _url(option: str, given: str) -> str:
    try:
        parts = urlsplit(given)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError(f"{option} is not an address: write http://127.0.0.1:8080")
    return given.rstrip("/")


def _with_path(url: str) -> str:
    return url if urlsplit(url).path else f"{url}/collect"


def _listening(settings: Settings | None, name: str) -> str:
    if settings is None:
        return ""
    host, port = reached(getattr(settings, name).listen)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _token(settings: Settings | None, name: str | None) -> str:
    from router.settings import Source

    given = {} if settings is None else settings.sources
    sources = {each: source for each, source in given.items() if isinstance(source, Source)}
    if not sources:
        raise click.UsageError("the configuration has no source: add one, or give --to and --token")
    if name is not None and name not in sources:
        raise click.UsageError(f"--source is one of {', '.join(sources)}")
    found = sources[name or next(iter(sources))].tokens[0].reveal()
    if found.startswith("sha256:"):
        raise click.UsageError("the configuration knows this token by its digest only: give it with --token")
    return found


# Sending and following


async def _send(
    items: list[Any],
    target: Target,
    rate: float | None,
    patience: float | None,
    progress: Progress,
    *,
    as_json: bool,
) -> None:
    """Post one after the other, say what became of each."""
    import asyncio

    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        for index, item in enumerate(items):
            began = time.monotonic()
            result = await _post(session, target, index, item)
            progress.answered += 1
            if patience is not None and result.id is not None and result.result in {"accepted", "duplicate"}:
                result.destinations = await _followed(session, target, result.id, patience)
            _say(result, as_json=as_json)
            progress.good &= result.good()
            if rate is not None:
                await asyncio.sleep(max(0.0, 1 / rate - (time.monotonic() - began)))


async def _post(session: aiohttp.ClientSession, target: Target, index: int, item: Any) -> Result:
    import asyncio

    body = msgspec.json.encode(item)
    for _ in range(TRIES):
        status, said, headers = await _asked(session, "POST", target.collect, target.headers, body)
        if status not in {429, 503}:
            break
        await asyncio.sleep(_pause(headers.get("Retry-After")))
    if status == 200 and "accepted" in said:
        return _result(index, said, item)
    code, message = str(said.get("code") or f"http_{status}"), said.get("message")
    message = message or "this is no collect endpoint"
    return Result(index=index, result="refused", id=door.given_id(item), code=code, message=message)


def _pause(value: str | None) -> float:
    return float(value) if value is not None and value.isascii() and value.isdigit() else 1.0


def _result(index: int, said: dict[str, Any], item: Any) -> Result:
    """The event's own part of the answer; of several in one object, the worst."""
    problems = said.get("problems") or [{}]
    word = "rejected" if said.get("rejected") else "accepted" if said.get("accepted") else "duplicate"
    first = problems[0]
    return Result(
        index=index,
        result=word,
        id=said.get("id") or first.get("id") or door.given_id(item),
        code=first.get("code"),
        field=first.get("field"),
        message=first.get("message"),
    )


async def _followed(
    session: aiohttp.ClientSession, target: Target, event_id: str, patience: float
) -> dict[str, dict[str, Any]]:
    """What became of an event at every destination, when nothing moves any more or patience is at its end."""
    import asyncio

    url, until = f"{target.console}/api/v1/events/{quote(event_id, safe='')}", time.monotonic() + patience
    while True:
        status, story, _ = await _asked(session, "GET", url, target.console_headers, None)
        if status != 200:
            return {"console": {"state": "waiting", "reason": story.get("message") or f"it answered HTTP {status}"}}
        moving = [each for each in story["destinations"] if each["state"] == "waiting" and not each.get("hold_reason")]
        if not moving or time.monotonic() > until:
            return {each["to"]: _end(each) for each in story["destinations"]}
        await asyncio.sleep(LOOK_EVERY)


def _end(chapter: dict[str, Any]) -> dict[str, Any]:
    reason = chapter.get("hold_reason") or chapter.get("reason")
    return {"state": chapter["state"], "attempts": chapter.get("attempts", 0), "reason": reason}


async def _asked(
    session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, the answer's object (empty where it is none) and headers."""
    import aiohttp
    from yarl import URL

    try:
        async with session.request(
            method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
        ) as answer:
            content = await answer.read()
            return answer.status, json_object(content), dict(answer.headers)
    except (aiohttp.ClientError, TimeoutError):  # nobody, no HTTP, or an answer that broke off
        parts = urlsplit(url)
        raise Unreachable(f"Nobody answers at {parts.scheme}://{parts.netloc}") from None


def _say(result: Result, *, as_json: bool) -> None:
    if as_json:
        line(result)
        sys.stdout.flush()
        return
    why = ": ".join(part for part in (result.field, result.message) if part)
    click.echo("  ".join(escaped(part) for part in (f"{result.result:9}", result.id or "-", why) if part))
    for name, end in result.destinations.items():
        reason = f"  {end['reason']}" if end["reason"] else ""
        click.echo(escaped(f"  {name:16} {end['state']}{reason}"))
