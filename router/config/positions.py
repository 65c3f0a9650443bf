"""Where each key and value of a TOML text stands. ``tomllib`` reads the values but forgets the places.

Pure, and only for text that ``tomllib`` has accepted: what it refuses is refused there, with its own line and column.
Source: TOML v1.0.0. Known limit: a value's end is where its last character is, without its comment.
"""

from __future__ import annotations

import re
import tomllib
from typing import NamedTuple

Key = tuple[str | int, ...]

_KEY = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|' + r"'''.*?'{3,5}(?!')" + r'|"(?:[^"\\]|\\.)*"|' + r"'[^']*'", re.DOTALL
)
_BARE = re.compile(r"[^,\]}#\n]+")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")


class Place(NamedTuple):
    """Line and column, from 1, in characters; ``length`` of what stands there, up to the end of that line."""

    line: int
    column: int
    length: int


class Places(NamedTuple):
    """The first place of every key path, and of every value. Members of arrays are numbered from 0."""

    keys: dict[Key, Place]
    values: dict[Key, Place]

    def nearest(self, path: Key, *, value: bool = False) -> Place:
        """The place of this key (or its value), or of the nearest table around it; the start of the file at last."""
        if value and path in self.values:
            return self.values[path]
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path, Place(1, 1, 1))


def locate(text: str) -> Places:
    """Every key and value of a text with Unix line ends that ``tomllib.loads`` accepts."""
    return _Walk(text).document()


class _Walk:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.places = Places({}, {})
        self.arrays: dict[Key, int] = {}  # arrays of tables: how many there are so far

    def document(self) -> Places:
        table: Key = ()
        while self._skip_gap():
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)
        return self.places

    def _header(self) -> Key:
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        parts = self._dotted()
        path: Key = ()
        for depth, (name, start, end) in enumerate(parts, 1):
            path = (*path, name)
            if brackets == 2 and depth == len(parts):
                self.arrays[path] = self.arrays.get(path, -1) + 1
            self._mark(self.places.keys, path, start, end)
            if path in self.arrays:
                path = (*path, self.arrays[path])
                self._mark(self.places.keys, path, start, end)
        self._skip_gap()
        self.at += brackets
        return path

    def _pair(self, table: Key) -> None:
        path = table
        for name, start, end in self._dotted():
            path = (*path, name)
            self._mark(self.places.keys, path, start, end)
        self._skip_gap()
        self.at += 1  # the equals sign
        self._value(path)

    def _dotted(self) -> list[tuple[str, int, int]]:
        parts = []
        while True:
            self._skip_gap()
            if (found := _KEY.match(self.text, self.at)) is None:
                raise ValueError(f"no key at {self.at}: locate() needs text that tomllib accepts")
            parts.append((_unquoted(found[0]), found.start(), found.end()))
            self.at = found.end()
            self._skip_gap()
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _value(self, path: Key) -> None:
        self._skip_gap()
        start, sign = self.at, self.text[self.at]
        if sign == "[":
            self._members("]", path)
        elif sign == "{":
            self._members("}", path)
        else:
            found = (_STRING if sign in "\"'" else _BARE).match(self.text, self.at)
            if found is None:
                raise ValueError(f"no value at {self.at}: locate() needs text that tomllib accepts")
            self.at = start + len(found[0].rstrip(" \t"))
        self._mark(self.places.values, path, start, self.at)

    def _members(self, close: str, path: Key) -> None:
        """What stands between brackets: values, numbered, or in braces pairs."""
        self.at += 1
        index = 0
        while self._skip_gap() and not self.text.startswith(close, self.at):
            if close == "}":
                self._pair(path)
            else:
                self._value((*path, index))
                index += 1
            self._skip_gap()
            if self.text.startswith(",", self.at):
                self.at += 1
        self.at += 1

    def _skip_gap(self) -> bool:
        """Past blanks, line ends and comments; False at the end of the text."""
        found = _GAP.match(self.text, self.at)
        self.at = self.at if found is None else found.end()
        return self.at < len(self.text)

    def _mark(self, places: dict[Key, Place], path: Key, start: int, end: int) -> None:
        line_start = self.text.rfind("\n", 0, start) + 1
        line_end = self.text.find("\n", start)
        stop = min(end, line_end if line_end >= 0 else len(self.text))
        place = Place(self.text.count("\n", 0, start) + 1, start - line_start + 1, max(1, stop - start))
        places.setdefault(path, place)


def _unquoted(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key
