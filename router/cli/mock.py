"""``turnout mock``: a fake partner on a port, for whoever builds or tries something against the real one."""

from __future__ import annotations

import errno
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from router.cli import DONE, FAILED
from router.cli.options import json_option
from router.cli.output import line

if TYPE_CHECKING:
    from router.mocks.partner import Partner, Trouble

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
EXAMPLE = '{"status": 503, "retry_after": "2", "times": 3}'


@click.command("mock")
@click.argument("kind", metavar="TYPE", type=click.Choice(list(RULES)))
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@click.option("--host", default="127.0.0.1", help="Where to listen.")
@click.option("--seed", type=int, default=0, help="Of the dice of --share.")
@click.option("--secret", metavar="whsec_...", help="webhook: verify signatures with this secret.")
@click.option("--status", type=click.IntRange(200, 599), help="Answer this status.")
@click.option("--retry-after", metavar="SECONDS", help="Retry-After of that answer.")
@click.option("--delay", type=click.FloatRange(0, 600), default=0.0, help="Seconds before every answer.")
@click.option("--reset", is_flag=True, help="Reset the connection instead of an answer.")
@click.option("--hang", is_flag=True, help="Never answer.")
@click.option("--taken", is_flag=True, help="Take the events first: only the answer is lost.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the calls to trouble.")
@click.option("--times", type=click.IntRange(1), help="So many calls, then no more trouble.")
@json_option
def command(kind: str, port: int, host: str, seed: int, secret: str | None, as_json: bool, **trouble: Any) -> None:
    """Run a fake partner of TYPE (snap, linktrace, ipsnare, commandersact, snitcher, webhook) until Ctrl-C.

    It keeps the rules that the partner documents, and misbehaves as the options say or as POST /trouble tells it.
    """
    import asyncio

    if secret is not None and kind != "webhook":
        raise click.UsageError("--secret is for webhook: the other partners sign nothing")
    partner = _partner(kind, seed, secret)
    partner.trouble = _troubles(**trouble)
    sys.exit(asyncio.run(_run(partner, host, port, as_json=as_json)))


def _partner(kind: str, seed: int, secret: str | None) -> Partner:
    from router.clock import SystemClock
    from router.mocks import PARTNERS, SOURCES
    from router.mocks.webhook import Webhook

    now = SystemClock().now
    if kind == "webhook":
        return Webhook(now=now, seed=seed, secret=secret)
    return (SOURCES if kind in SOURCES else PARTNERS)[kind](now=now, seed=seed)


def _troubles(**given: Any) -> list[Trouble]:
    """The trouble that the options describe: none where they describe none."""
    from router.mocks.partner import Trouble

    trouble = Trouble(**given)
    return [trouble] if trouble.delay or trouble.replaces_answer() else []


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
    rules, setting = (text.format(url=url) for text in RULES[partner.name])
    if as_json:
        told = {"received": f"{url}/received", "counts": f"{url}/counts", "trouble": f"{url}/trouble"}
        line({"type": partner.name, "url": url, "enforces": rules, "setting": setting, **told})
        sys.stdout.flush()
        return
    click.echo(f"A fake {partner.name} listens on {url}")
    click.echo(f"It enforces  {rules}")
    click.echo(f"To use it    {setting}  and  allow_private = true")
    click.echo(f"What it got  curl {url}/received")
    click.echo(f"Trouble      curl {url}/trouble -d '{EXAMPLE}'   (curl -X DELETE ends it)")
    click.echo("Ctrl-C ends it.")
