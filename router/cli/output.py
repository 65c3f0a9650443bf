"""How commands print: tables, lines of JSON, and text that cannot take over a terminal.

Data goes to stdout, talk to stderr. ``rich`` draws tables on a terminal only; in a pipe they are plain columns. Nothing
is cut off to make a table fit: what a person copies from it must be whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

from router.terminal import escaped

GAP = 2  # characters between two columns
NARROWEST = 24  # a column of prose; its words are broken rather than made narrower


def line(value: Any, file: BinaryIO | None = None) -> None:
    """One object as one line of JSON, on stdout or in a file: in UTF-8, whatever the terminal's encoding is (RFC 8259)."""
    import msgspec

    if file is not None:
        file.write(msgspec.json.encode(value) + b"\n")
    else:
        click.echo(msgspec.json.encode(value))  # and at once: a reader of a pipe waits for each line


def coloured(stream: TextIO) -> bool:
    """Whether to colour: a terminal, unless NO_COLOR; anything, where FORCE_COLOR (no-color.org, force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def drawing(stream: TextIO) -> bool:
    """Whether to draw: on a terminal, with colours or without, and where colours are forced."""
    return coloured(stream) or stream.isatty()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], prose: Sequence[str] = ()) -> None:
    """Rows under headings on stdout: drawn on a terminal, plain columns two spaces apart in a pipe.

    On a terminal only words of ``prose`` may be broken, which is the last column unless it is said; where the others do
    not fit, each row is a block of lines.
    """
    cells = [["" if cell is None else escaped(str(cell)) for cell in row] for row in rows]
    if drawing(sys.stdout):
        _drawn(headings, cells, prose or headings[-1:])
    else:
        _columns([list(headings), *cells])


def _columns(lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _drawn(headings: Sequence[str], cells: list[list[str]], prose: Sequence[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False, color_system="auto" if coloured(sys.stdout) else None)
    columns = list(zip(headings, *cells, strict=True))
    least = [_least(column, prose=column[0] in prose) for column in columns]
    widths = _fitted([_longest(column) for column in columns], least, console.width - GAP * (len(columns) - 1))
    if widths is None:
        _blocks(headings, cells)
    else:
        _ruled(console, headings, cells, widths)


def _longest(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _least(column: Iterable[str], *, prose: bool) -> int:
    """The longest word, which stays whole; of prose no more than the narrowest column."""
    longest = _longest(word for text in column for word in text.split())
    return min(longest, NARROWEST) if prose else longest


def _fitted(widths: list[int], least: list[int], room: int) -> list[int] | None:
    """Widths that fit: the widest gives first, none below its least. None where there are none."""
    if sum(least) > room:
        return None
    fitted = [min(width, room) for width in widths]
    while sum(fitted) > room:
        widest = max((place for place, width in enumerate(fitted) if width > least[place]), key=fitted.__getitem__)
        fitted[widest] -= 1
    return fitted


def _ruled(console: Console, headings: Sequence[str], cells: list[list[str]], widths: list[int]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading, width in zip(headings, widths, strict=True):
        drawn.add_column(heading, width=width, overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))  # Text: what was sent is no markup
    console.print(drawn)


def _blocks(headings: Sequence[str], cells: list[list[str]]) -> None:
    """Each row as lines of heading and value, without the empty ones."""
    width = max(map(len, headings))
    for place, row in enumerate(cells):
        if place:
            print()
        for heading, cell in zip(headings, row, strict=True):
            if cell:
                print(f"{heading:{width}}  {cell}")
