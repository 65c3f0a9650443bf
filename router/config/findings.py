"""What there is to say about a file, each at its place, with no text shown that may be a secret."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from router.config import positions
from router.config.positions import Key
from router.config.references import REFERENCE

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

Severity = Literal["error", "warning"]
At = Literal["key", "value", "hidden"]  # hidden: at the value, which is not shown


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to say about the file.

    ``excerpt`` is its line with every value hidden that might be a secret, ``caret`` the column and length in it.
    """

    file: str
    line: int
    column: int
    severity: Severity
    key: str
    message: str
    help: str | None = None
    excerpt: str | None = None
    caret: tuple[int, int] = (1, 1)


class Report:
    """Collects findings and puts each at its place in the text."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = text.split("\n")
        self.places = positions.locate(text)
        self._findings: list[Finding] = []
        self.open: set[Key] = set()  # settings whose values can be no secrets, so that a line may show them
        self.failed = False

    @property
    def findings(self) -> list[Finding]:
        return sorted(self._findings, key=lambda finding: (finding.line, finding.column))

    def error(self, key: Key, message: str, remedy: str | None = None, *, at: At = "key") -> None:
        self.failed = True
        self._add("error", key, message, remedy, at)

    def warning(self, key: Key, message: str, remedy: str | None = None, *, at: At = "key") -> None:
        self._add("warning", key, message, remedy, at)

    def _add(self, severity: Severity, key: Key, message: str, remedy: str | None, at: At) -> None:
        place = self.places.nearest(key, value=at != "key")
        excerpt, caret = self._excerpt(place, shown=at == "value")
        self._findings.append(
            Finding(
                file=self.file,
                line=place.line,
                column=place.column,
                severity=severity,
                key=dotted(key),
                message=message,
                help=remedy,
                excerpt=excerpt if key else None,  # else it is about the whole file
                caret=caret,
            )
        )

    def _excerpt(self, place: positions.Place, *, shown: bool) -> tuple[str, tuple[int, int]]:
        """The line without its texts, references and what is harmless apart: any may be a secret under a misspelt key."""
        line, start, length = self.lines[place.line - 1], place.column - 1, place.length
        on_line = {
            value: any(path[:depth] in self.open for depth in range(1, len(path) + 1))
            for path, value in self.places.values.items()
            if value.line == place.line
        }
        for value, harmless in sorted(on_line.items(), reverse=True):
            text = line[value.column - 1 : value.column - 1 + value.length]
            if harmless or text[0] not in "\"'" or REFERENCE.fullmatch(text.strip("\"'")):
                continue
            if shown and value == place:
                continue
            line = line[: value.column - 1] + '"***"' + line[value.column - 1 + value.length :]
            if value.column == place.column:
                length = 5
            elif value.column < place.column:
                start += 5 - value.length
            elif value.column < place.column + place.length:
                length += 5 - value.length
        return line, (start + 1, max(1, length))


def dotted(key: Key) -> str:
    """A key path as TOML writes it, members of arrays as [0]."""
    words = (f"[{part}]" if isinstance(part, int) else f".{_written(part)}" for part in key)
    return "".join(words).removeprefix(".")


def _written(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else f'"{name}"'
