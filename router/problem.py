"""What is wrong with a request or with one event of it, as a value.

A problem names the place and the remedy and never repeats what was sent: senders put personal data in every field.
"""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a request was not accepted, or was accepted with a note.

    ``index`` counts from 0 in the order sent; None until it is known. ``code`` is stable and documented in the README;
    ``message`` says what to do next. ``id`` is the sender's event id where it is safe to repeat.
    """

    index: int | None = None
    id: str | None = None
    field: str | None = None
    code: str
    message: str


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer, of either port, that is no success. SDKs show ``code`` and ``message`` and nothing else."""

    success: bool = False
    code: str
    message: str
    errors: list[dict[str, str]] = []


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """The whole request was refused and nothing of it is stored. ``position`` counts bytes from 0, or is None."""

    code: str
    message: str
    status: int = 400
    field: str | None = None
    position: int | None = None
