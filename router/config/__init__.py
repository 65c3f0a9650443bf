"""Reads ``config.toml``: finds it, decodes it, resolves its secrets and says everything that is wrong with it at once.

A problem is a ``Finding`` with its place in the file; the value of a secret is never part of one, nor is any text of
the file that might be one. What the tables hold is ``router.settings``; what a condition means is ``router.route``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from router.config.findings import Finding, Report
from router.config.references import resolve
from router.config.rules import Rules, address
from router.config.tables import SOURCES, Tables, bare_pattern, description, suggestion, takes_secret
from router.destination import Complaint, Destination
from router.settings import Settings

__all__ = [
    "SOURCES",
    "Examined",
    "Finding",
    "address",
    "bare_pattern",
    "description",
    "examine",
    "find",
    "load",
    "resolve",
    "suggestion",
    "takes_secret",
]

_SYNTAX = re.compile(r"(?P<words>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)
_TWICE = ("Cannot ", "Duplicate ")  # how tomllib begins where a table or a key is there already
_SAFE_START = re.compile(r"[ \t]*(?:[A-Za-z0-9_.-]+[ \t]*=(?!=)|\[\[?[A-Za-z0-9_.-]+\]{0,2})", re.ASCII)


class Examined(NamedTuple):
    """The settings, or None where an error stands in their way; and every finding in the order of the file."""

    settings: Settings | None
    findings: list[Finding]


def find(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Which file to read: ``--config``, else ``$TURNOUT_CONFIG``, else ``./config.toml``."""
    return Path(explicit or environ.get("TURNOUT_CONFIG") or "config.toml")


def load(
    path: Path, environ: Mapping[str, str], *, destinations: Mapping[str, type[Destination]]
) -> Settings | list[Finding]:
    """The settings, ready for the engines, or every finding of a file that must not be started with."""
    settings, findings = examine(path, environ, destinations=destinations)
    return findings if settings is None else settings


def examine(
    path: Path,
    environ: Mapping[str, str],
    *,
    destinations: Mapping[str, type[Destination]],
    unusable: Mapping[str, Complaint] = MappingProxyType({}),
) -> Examined:
    """Everything there is to say about the file, warnings too, and about packages that are ``unusable``. ``file:`` secrets
    and the outbox are relative to its directory.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        document = tomllib.loads(text)
    except OSError as error:
        remedy = "name the file with --config PATH or $TURNOUT_CONFIG"
        return _unreadable(path, (error.strerror or "cannot be read").lower(), remedy)
    except UnicodeDecodeError as error:
        *before, last = error.object[: error.start].split(b"\n")
        place = len(before) + 1, len(last.decode()) + 1
        return _unreadable(path, "is not UTF-8 text", "save the file in the encoding UTF-8", place)
    except (ValueError, RecursionError) as error:  # tomllib lets the limits of int() and of the stack through
        return Examined(None, [_syntax(path, text, str(error))])
    report = Report(str(path), text)
    tables = Tables(report, environ, path.parent, destinations, unusable)
    settings = tables.settings(document)
    Rules(report, settings, document, tables.drafts).check()
    return Examined(None if report.failed else settings, report.findings)


def _unreadable(path: Path, why: str, remedy: str, place: tuple[int, int] = (1, 1)) -> Examined:
    line, column = place
    return Examined(
        None, [Finding(file=str(path), line=line, column=column, severity="error", key="", message=why, help=remedy)]
    )


def _syntax(path: Path, text: str, error: str) -> Finding:
    """The complaint of ``tomllib`` at its place.

    The excerpt stops at the equals sign: an unquoted or unfinished text after it may be a secret.
    """
    found = _SYNTAX.fullmatch(error)
    lines = text.split("\n")
    line = int(found["line"]) if found and found["line"] else len(lines)
    column = int(found["column"]) if found and found["column"] else len(lines[-1]) + 1
    shown = _SAFE_START.match(lines[line - 1])
    excerpt = f"{shown[0]} ..." if shown else "..."
    twice = "it stands above already: write both into one, or give one of them another name"
    quotes = 'text stands in quotes, and names are those of the README: key = "value"'
    return Finding(
        file=str(path),
        line=line,
        column=column,
        severity="error",
        key="",
        message=f"not TOML: {found['words'] if found else error}",
        help=twice if error.startswith(_TWICE) else quotes,
        excerpt=excerpt,
        caret=(min(column, len(excerpt) + 1), 1),
    )
