"""Text for a terminal or a log line: what was sent must not be able to take over either."""

from __future__ import annotations

import re

# C0 and C1 controls, and the marks that turn the direction of text or hide in it: what was sent may hold any of them.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""``text`` on one line: control and direction characters and lone surrogates are written as \x1b or \u202e."""
    return _CONTROLS.sub(lambda found: _written(ord(found[0])), text)


def _written(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
