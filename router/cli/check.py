"""``turnout check``: everything that is wrong with the configuration, in one run. Nothing is started or reached."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import config_option, exit_code, json_option, settings_of
from router.cli.output import coloured, line
from router.terminal import escaped
from router.wording import counted

if TYPE_CHECKING:
    from router.config import Finding

_COLOURS = {"error": "red", "warning": "yellow"}


@click.command("check")
@config_option
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", help="How to say it.")
@json_option
def command(path: Path, form: str, as_json: bool) -> None:
    """Say everything that is wrong with config.toml: where it is, what it is, and what to write.

    Exits 0 where it can be started (warnings do not hinder), 1 where it cannot, 2 where there is no such file.
    """
    settings, findings = settings_of(path)
    if as_json or form == "json":
        for finding in findings:
            line(as_object(finding))
    elif form == "github":
        for finding in findings:
            click.echo(github(finding))
    else:
        click.echo(text(findings), nl=bool(findings), color=coloured(sys.stdout))
        click.echo(summary(findings))
        if settings is not None:
            holds = counted(len(settings.sources), "source"), counted(len(settings.destinations), "destination")
            click.echo(f"{path}: {', '.join(holds)}.")
    if settings is None:
        sys.exit(exit_code(path))


def text(findings: Sequence[Finding]) -> str:
    """Findings as compilers print them: place and message, the line, a caret under it, and help."""
    return "\n".join(_as_text(finding) for finding in findings)


def _as_text(finding: Finding) -> str:
    word = click.style(finding.severity, fg=_COLOURS[finding.severity], bold=True)
    place = f"{finding.file}:{finding.line}:{finding.column}"
    lines = [f"{escaped(place)}: {word}: {escaped(finding.message)}"]
    if finding.excerpt is not None:
        column, length = finding.caret
        lines.append(f"{finding.line:5} | {escaped(finding.excerpt.replace(chr(9), ' '))}")
        lines.append(f"      | {' ' * (column - 1)}{'^' * length}")
    if finding.help is not None:
        lines.append(f"      help: {escaped(finding.help)}")
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    said = [counted(counts[severity], severity) for severity in ("error", "warning") if counts[severity]]
    return f"{', '.join(said) or 'No problems'}."


def as_object(finding: Finding) -> dict[str, object]:
    """The stable keys of ``--json``."""
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity,
        "key": finding.key,
        "message": finding.message,
        "help": finding.help,
    }


def github(finding: Finding) -> str:
    """A workflow command, which GitHub shows beside the line.

    Source: GitHub Actions, "Workflow commands", setting an error message; escapes as its toolkit's command.ts has them.
    """
    place = f"file={_property(finding.file)},line={finding.line},col={finding.column}"
    message = finding.message if finding.help is None else f"{finding.message} ({finding.help})"
    return f"::{finding.severity} {place}::{_data(message)}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")
