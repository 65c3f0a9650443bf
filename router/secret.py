"""A value that must not be printed.

Keys, tokens and signing secrets live in this type from the configuration to the wire. Nothing that prints, logs,
encodes or compares it sees the text; only ``reveal()`` gives it, and only the transport and a signer call that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import quote, quote_plus


class Secret:
    """A secret text and the reference it came from (``env:SNAP_TOKEN``), which may be shown."""

    __slots__ = ("_value", "reference")

    def __init__(self, value: str, reference: str = "") -> None:
        self._value = value
        self.reference = reference

    def reveal(self) -> str:
        """The text itself. The caller puts it on the wire or into a signature, nowhere else."""
        return self._value

    def digest(self) -> bytes:
        """SHA-256 of the text, for comparison in constant time; lone surrogates are allowed."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogateescape")).digest()

    def __repr__(self) -> str:
        return f"Secret({self.reference or '***'})"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.digest(), other.digest())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __reduce__(self) -> tuple[type, tuple[str]]:
        raise TypeError("a secret is not copied into a file or another process")


def spellings(text: str) -> set[str]:
    """A text as itself, and as JSON and URLs may write it: whoever masks it must look for all of these."""
    escaped = json.dumps(text)[1:-1]
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    return {
        text,
        escaped,
        plain,
        escaped.replace("/", "\\/"),
        plain.replace("/", "\\/"),
        quote(text, safe=""),
        quote(text, safe="").lower(),
        quote(text),
        quote_plus(text),
    }
