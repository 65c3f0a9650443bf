"""``turnout linktrace``: referral links, for the person who sets LinkTrace up. Asks LinkTrace itself, and stores nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from router.cli import FAILED, UNREACHABLE
from router.cli.options import config_option, configured, json_option
from router.cli.output import line
from router.terminal import escaped

if TYPE_CHECKING:
    from destinations.linktrace import LinkTrace
    from router.destination import Request, Response

to_option = click.option(
    "--to", metavar="NAME", help="Which destination of type linktrace; needed where there are several."
)


@click.group("linktrace")
def command() -> None:
    """Referral links of LinkTrace: what an event's short code stands for."""


@command.group("links")
def links() -> None:
    """Make a referral link, or look one up."""


@links.command("create")
@config_option
@to_option
@click.option("--referrer", required=True, metavar="ID", help="Who gets the credit: an id of yours, nobody's address.")
@click.option("--source", metavar="TEXT", help='Where the link is shared, as "home_tab".')
@click.option("--campaign", metavar="TEXT", help='The campaign, as "summer_referral".')
@click.option("--medium", metavar="TEXT", help='The medium, as "social".')
@click.option(
    "--environment",
    type=click.Choice(["production", "stage"]),
    default="production",
    help="stage is for trying: its events use up no quota.",
)
@click.option(
    "--payload", "pairs", metavar="KEY=VALUE", multiple=True, help="Comes back on attribution; three at most."
)
@json_option
def create(path: Path, to: str | None, pairs: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Make a referral link and say its short code. Each call makes another one.

    Exits 0 when it was made, 1 when LinkTrace refuses, 2 where an option or the configuration is not right, 3 when
    nobody answers.
    """
    from destinations import linktrace

    payload = _payload(pairs)
    _no_person([*(str(value) for value in given.values() if value is not None), *payload, *payload.values()])
    if not given["referrer"].strip():
        raise click.UsageError("--referrer is empty: give an id of yours")
    given["referrer_identifier"] = given.pop("referrer")
    destination = _destination(path, to)
    response = _asked(destination, destination.link_creation(linktrace.NewLink(**given, custom_payload=payload)))
    link = linktrace.link_data(response)
    code = linktrace.short_code(link.get("shortCode")) if link is not None else None
    if link is None or code is None:
        _refused(linktrace.link_refusal(response))
    if as_json:
        line(link)
        return
    _say({"short code": code, "link": link.get("referralLink"), "environment": given["environment"]})
    click.echo(f'Send it with events as properties.link_short_code = "{code}".')


@links.command("show")
@config_option
@to_option
@click.argument("code", metavar="CODE")
@json_option
def show(path: Path, to: str | None, code: str, as_json: bool) -> None:
    """What LinkTrace knows of a link, under its own names. CODE is the short code, or the whole link.

    The name of the query parameter is not in LinkTrace's public pages; shortCode is asked with, as its answers call it.

    Exits 0 when LinkTrace knows it, 1 when not, 2 where an option or the configuration is not right, 3 when nobody
    answers.
    """
    from destinations import linktrace

    asked = linktrace.short_code(code.strip())
    if asked is None:
        raise click.UsageError("CODE is 4 to 32 letters and digits, or the link that ends in them")
    destination = _destination(path, to)
    response = _asked(destination, destination.link_lookup(asked))
    link = linktrace.link_data(response)
    if link is None:
        _refused(linktrace.link_refusal(response))
    if as_json:
        line(link)
    else:
        _say(link)


# What is asked


def _payload(pairs: tuple[str, ...]) -> dict[str, str]:
    from destinations.linktrace import MOST_PAYLOAD

    split = [pair.partition("=") for pair in pairs]
    payload = {key: value for key, _, value in split}
    if not all(key and sign for key, sign, _ in split):
        raise click.UsageError("--payload is KEY=VALUE")
    if len(payload) < len(pairs) or len(payload) > MOST_PAYLOAD:
        raise click.UsageError(f"--payload takes {MOST_PAYLOAD} different keys at most: LinkTrace keeps no more")
    return payload


def _no_person(values: Iterable[str]) -> None:
    """A link is public, and what it carries comes back to whoever installs by it."""
    from router import identifiers, scrub

    if any(scrub.contains_personal(value) or identifiers.email(value) is not None for value in values):
        raise click.UsageError(
            "an option holds an e-mail address, a phone number or the like: give an id of yours for the person instead"
        )


def _destination(path: Path, name: str | None) -> LinkTrace:
    from destinations.linktrace import LinkTrace

    found = {label: each for label, each in configured(path).destinations.items() if isinstance(each, LinkTrace)}
    if not found:
        raise click.UsageError('the configuration has no destination of type "linktrace": add one')
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise click.UsageError(f"--to is one of {', '.join(found)}")
    return found[name]


def _asked(destination: LinkTrace, request: Request) -> Response:
    """LinkTrace's answer; where none comes the process ends with what to do."""
    import asyncio

    from router.clock import SystemClock
    from router.transport import Failure, Transport

    async def sent() -> Response | Failure:
        transport = Transport.to(destination, "linktrace", SystemClock(), 1)
        try:
            return await transport.send(request)
        finally:
            await transport.close()

    answer = asyncio.run(sent())
    if not isinstance(answer, Failure):
        return answer
    remedy = "look at LinkTrace's dashboard before trying again" if request.method == "POST" else "try again later"
    click.echo(f"LinkTrace was not asked, or did not answer: {answer.reason}; {remedy}.", err=True)
    sys.exit(UNREACHABLE)


# What is said


def _refused(why: str) -> NoReturn:
    click.echo(f"{why[:1].upper()}{why[1:]}.", err=True)
    sys.exit(FAILED)


def _say(facts: dict[str, Any]) -> None:
    import msgspec

    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        click.echo(f"{escaped(name):{width}}  {escaped(shown)}")
