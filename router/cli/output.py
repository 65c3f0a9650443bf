"""How commands print: tables, lines of JSON, and text that cannot take over a terminal.

Data goes to stdout, talk to stderr. ``rich`` draws tables on a terminal only; in a pipe they are plain columns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from router.terminal import escaped


def line(value: Any) -> None:
    """One object as one line of JSON on stdout."""
    import msgspec

    print(msgspec.json.encode(value).decode(), flush=True)  # a reader of a pipe waits for each line


def counted(count: int, one: str, many: str = "") -> str:
    """As "1 delivery", "2 deliveries"; ``many`` where an s does not make the plural."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def coloured(stream: TextIO) -> bool:
    """Whether to colour: a terminal, unless NO_COLOR; anything, where FORCE_COLOR (no-color.org, force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headings on stdout: drawn on a terminal, plain columns two spaces apart in a pipe."""
    cells = [["" if cell is None else escaped(str(cell)) for cell in row] for row in rows]
    if coloured(sys.stdout):
        _drawn(headings, cells)
    else:
        _columns([list(headings), *cells])


def _columns(lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _drawn(headings: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        drawn.add_row(*map(Text, row))  # Text: what was sent is no markup
    Console(highlight=False).print(drawn)
