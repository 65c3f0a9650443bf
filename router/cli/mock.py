"""``turnout mock``: a fake partner on a port, for whoever builds or tries something against the real one."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from router.cli import DONE, FAILED
from router.cli.options import json_option
from router.cli.output import line

if TYPE_CHECKING:
    from router.mocks.partner import Control, Partner, Trouble

# What a type of partner insists on, and what to write in config.toml to send there instead.
RULES = {
    "snap": (
        "POST /v3/ASSET/events and /validate: Snap's fields, SHA-256 digests, seven days back, 2000 events a request",
        'base_url = "{url}"',
    ),
    "linktrace": (
        "POST /api/v1/events: short code, snake_case name, 5000 a month, repeats known; attributions and links as well",
        'base_url = "{url}"',
    ),
    "ipsnare": ("POST /v1/track: all fourteen fields, ISO codes, ISO 8601 times", 'base_url = "{url}"'),
    "commandersact": (
        "POST /events, /events/batch: 200 to all but too large or no JSON; what it would not process is in /received",
        'base_url = "{url}"',
    ),
    "snitcher": (
        "GET /v1/workspaces and below: a bearer token, 60 requests a minute, pages of 100; POST /sessions adds to it",
        'base_url = "{url}/v1"',
    ),
    "webhook": (
        "POST to any path: Standard Webhooks headers (signature checked with --secret), the same id with the same body",
        'url = "{url}/"',
    ),
}


class _Mock(click.Command):
    """Its help ends with the paths by which a running mock is driven."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        from router.mocks import SOURCES
        from router.mocks.partner import CONTROLS, trouble_fields

        with formatter.section("A running mock is driven by"):
            formatter.write_dl([(f"{each.method} {each.path}", _explained(each)) for each in CONTROLS])
        for name, kind in SOURCES.items():
            with formatter.section(f"{name} by these too"):
                formatter.write_dl([(f"{each.method} {each.path}", _explained(each)) for each in kind.own_controls])
        with formatter.section("The fields of a trouble"):
            formatter.write_dl(list(trouble_fields().items()))


def _explained(control: Control) -> str:
    return control.what if control.example is None else f"{control.what}, as {_text(control.example)}"


def _text(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


@click.command("mock", cls=_Mock)
@click.argument("kind", metavar="TYPE", type=click.Choice(list(RULES)))
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@click.option("--host", default="127.0.0.1", help="Where to listen.")
@click.option("--seed", type=int, default=0, help="Of the dice of --share.")
@click.option("--secret", metavar="whsec_...", help="webhook: verify signatures with this secret.")
@click.option("--links", metavar="CODE,...", help="linktrace: the short codes of the account; else every one is known.")
@click.option("--quota", type=click.IntRange(0), help="linktrace: events a month; else 5000.")
@click.option("--plan", metavar="NAME", help="linktrace: the account's plan; events need scale, which it has else.")
@click.option("--status", type=click.IntRange(200, 599), help="Answer this status.")
@click.option("--retry-after", metavar="SECONDS", help="Retry-After of that answer.")
@click.option("--delay", type=click.FloatRange(0, 600), default=0.0, help="Seconds before every answer.")
@click.option("--reset", is_flag=True, help="Reset the connection instead of an answer.")
@click.option("--hang", is_flag=True, help="Never answer.")
@click.option("--taken", is_flag=True, help="Take the events first: only the answer is lost.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the calls to trouble.")
@click.option("--times", type=click.IntRange(1), help="So many calls, then no more trouble.")
@json_option
def command(
    kind: str,
    port: int,
    host: str,
    seed: int,
    secret: str | None,
    links: str | None,
    quota: int | None,
    plan: str | None,
    as_json: bool,
    **trouble: Any,
) -> None:
    """Run a fake partner of TYPE (snap, linktrace, ipsnare, commandersact, snitcher, webhook) until Ctrl-C.

    It keeps the rules that the partner documents, and misbehaves as the options say or as POST /trouble tells it.
    """
    import asyncio

    if secret is not None and kind != "webhook":
        raise click.UsageError("--secret is for webhook: the other partners sign nothing")
    if secret is not None and not _is_base64(secret.removeprefix("whsec_")):
        raise click.UsageError("--secret is no base64: give the one of [destinations], as whsec_...")
    account = {"links": None if links is None else _codes(links), "quota": quota, "plan": plan}
    account = {name: said for name, said in account.items() if said is not None}
    if account and kind != "linktrace":
        raise click.UsageError(f"--{next(iter(account))} is for linktrace: the other partners have no such thing")
    partner = _partner(kind, seed, account if secret is None else {"secret": secret})
    partner.trouble = _troubles(**trouble)
    sys.exit(asyncio.run(_run(partner, host, port, as_json=as_json)))


def _is_base64(text: str) -> bool:
    import base64

    try:
        return bool(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))  # some come without it
    except ValueError:
        return False


def _codes(text: str) -> frozenset[str]:
    return frozenset(code.strip() for code in text.split(",") if code.strip())


def _partner(kind: str, seed: int, own: Mapping[str, Any]) -> Partner:
    """The fake partner; ``own`` are the settings that only this one has."""
    from router.clock import SystemClock
    from router.mocks import PARTNERS, SOURCES

    return (SOURCES if kind in SOURCES else PARTNERS)[kind](now=SystemClock().now, seed=seed, **own)


def _troubles(**given: Any) -> list[Trouble]:
    """The trouble that the options describe: none where they describe none."""
    from router.mocks.partner import Trouble

    trouble = Trouble(**given)
    if trouble.retry_after is not None and trouble.status is None:
        raise click.UsageError("--retry-after is of an answer: add --status")
    if trouble.delay or trouble.replaces_answer():
        return [trouble]
    if trouble != Trouble():
        raise click.UsageError("say what happens to those calls: --status, --delay, --reset or --hang")
    return []


async def _run(partner: Partner, host: str, port: int, *, as_json: bool) -> int:
    import asyncio

    from router.mocks.partner import running

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with running(partner, host, port) as url:
            _say(partner, url, as_json=as_json)
            await stop.wait()
    except OSError as error:
        why = "is in use: name another with --port, or 0 for a free one"
        reason = why if error.errno == errno.EADDRINUSE else f"cannot be opened: {(error.strerror or '').lower()}"
        click.echo(f"Port {port} of {host} {reason}.", err=True)
        return FAILED
    return DONE


def _say(partner: Partner, url: str, *, as_json: bool) -> None:
    from router.mocks.partner import EXAMPLE, trouble_fields

    rules, setting = (text.format(url=url) for text in RULES[partner.name])
    if as_json:
        told = {"received": f"{url}/received", "counts": f"{url}/counts", "trouble": f"{url}/trouble"}
        told |= {"controls": f"{url}/"}
        line({"type": partner.name, "url": url, "enforces": rules, "setting": setting, **told})
        sys.stdout.flush()
        return
    click.echo(f"A fake {partner.name} listens on {url}")
    click.echo(f"It enforces  {rules}")
    click.echo(f"To use it    {setting}  and  allow_private = true")
    click.echo(f"What it got  curl {url}/received, and in totals {url}/counts")
    click.echo(
        f"Trouble      curl {url}/trouble -d '{_text(EXAMPLE)}'   (curl -X DELETE ends it, without -d it is listed)"
    )
    click.echo(f"             with {', '.join(trouble_fields())}")
    click.echo(f"Forget all   curl -X POST {url}/reset")
    for control in partner.own_controls:
        click.echo(f"Put in       curl {url}{control.path} -d '{_text(control.example)}'")
    click.echo(f"All of this  curl {url}/")
    click.echo("Ctrl-C ends it.")
