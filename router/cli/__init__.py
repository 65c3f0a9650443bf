"""The command line: which commands there are, and their options in common. A command is imported when it is called.

Exit codes: 0 done, 1 found or failed, 2 usage or configuration, 3 nobody answers. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

BEGAN = "turnout.began"  # in a context's meta: when the program began, in seconds of time.monotonic

COMMANDS = {
    "demo": "See it work, with partners of its own; needs no configuration.",
    "serve": "Collect events and deliver them.",
    "check": "Say everything that is wrong with config.toml.",
    "destinations": "The partners, and every setting of one.",
    "preview": "Show what each destination would be sent for an event.",
    "validate": "Ask a partner's own check about an event.",
    "send": "Send an event to a running server.",
    "explain": "What became of one event, and why.",
    "tail": "Watch events and deliveries as they happen.",
    "sources": "Who sends and what is fetched: how far it is, what it waits for.",
    "outbox": "List, retry, drop, hold and resume deliveries.",
    "forget": "Erase people everywhere, and keep them out.",
    "ledger": "What came in, what became of it, and the difference.",
    "linktrace": "Make LinkTrace's referral links, and look them up.",
    "backup": "Copy the outbox, verified, while the server runs.",
    "restore": "Put a backup where the outbox is to be.",
    "mock": "A fake partner that keeps the partner's rules.",
    "doctor": "Look for what may go wrong on this machine.",
}

HIDDEN = frozenset({"worker"})  # which other commands start

EXAMPLES = """\
turnout demo                           see it work; needs nothing
turnout check                          find what is wrong with config.toml
turnout serve                          collect and deliver
turnout send '{"event_name": "test"}'  send an event
turnout preview --sample purchase      see what a partner would be sent
turnout explain ID                     see what became of it, and why

turnout --help lists all commands."""


class Commands(click.Group):
    """Commands by name, each the ``command`` of its module."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bytes that are no text come as halves of surrogate pairs, which no id, address or message can hold. A path might,
        and is refused with the others.
        """
        if any("\ud800" <= character <= "\udfff" for character in "".join(args)):
            ctx.fail("an argument is not text in this terminal's encoding: type it again, in UTF-8")
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            close = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f'did you mean "{close[0]}"?' if close else "turnout --help lists them."
            ctx.fail(f"there is no such command, {hint}")
        command: click.Command = importlib.import_module(f"router.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, asked: Any) -> None:
    if asked:
        from importlib.metadata import version

        click.echo(f"turnout {version('turnout')}")
        ctx.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="PATH", help="The configuration; else $TURNOUT_CONFIG, else ./config.toml.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which this is."
)
@click.pass_context
def turnout(ctx: click.Context, config: str | None) -> None:
    """One event stream in, every destination out, nothing lost on the way."""
    ctx.meta[BEGAN], ctx.obj = ctx.obj, config
    if ctx.invoked_subcommand is None:
        click.echo(EXAMPLES)
