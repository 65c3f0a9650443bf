"""The loader of ``bad_input.toml``: what senders get wrong and what they are answered, as data for every runner."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from _pytest.mark import ParameterSet
from msgspec import Meta, Struct

RECEIVED = 1_790_000_000_000  # UTC ms, as the file says

Row = Annotated[str, Meta(pattern=r"^[IA]\d\d ")]
Recipe = str | dict[str, Any] | list[Any]


class BodyCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of a request for ``router.body.read``."""

    sent: Recipe
    encoding: str | None = None
    strict_utf8: bool = False
    length: int | None = None
    status: int = 200
    code: str | None = None
    position: int | None = None
    accepted: int = 0
    problems: list[tuple[int, str]] = []
    all_problems: str | None = None
    notes: list[tuple[int, str]] | None = None
    values: list[Any] | None = None
    inside: str | None = None

    def raw(self) -> bytes:
        return built(self.sent)


class DoorCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decoded event for ``router.door.admit``."""

    sent: Recipe
    problem: str | None = None
    notes: list[str] = []
    event: dict[str, Any] = {}
    absent: list[str] = []
    nowhere: list[str] = []  # texts that the stored event does not hold
    open: str | None = None

    def raw(self) -> bytes:
        return built(self.sent)


class CollectCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole HTTP request for the collect endpoint."""

    method: str = "POST"
    path: str = "/collect"
    query: str = "token={token}"
    headers: dict[str, str] = {}
    sent: Recipe = '{"event_name":"a"}'
    status: int = 200
    code: str | None = None
    accepted: int = 0
    answer_headers: dict[str, str] = {}
    open: str | None = None

    def raw(self) -> bytes:
        return built(self.sent)


class SocketCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exact bytes on a connection."""

    sent: Recipe
    statuses: list[int]
    leave: bool = False  # the client hangs up without waiting for an answer
    stored: int = 0
    open: str | None = None

    def raw(self, token: str) -> bytes:
        """With the key put in and the length of the body behind the first blank line."""
        sent = built(self.sent).replace(b"{token}", token.encode())
        return sent.replace(b"{length}", b"%d" % len(sent.partition(b"\r\n\r\n")[2]))


class Corpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    body: dict[Row, BodyCase]
    door: dict[Row, DoorCase]
    collect: dict[Row, CollectCase]
    socket: dict[Row, SocketCase]


def rows(cases: Mapping[str, DoorCase | CollectCase | SocketCase]) -> list[ParameterSet]:
    """The names of the rows for ``parametrize``; an open one must fail."""
    return [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=case.open) if case.open else ())
        for name, case in cases.items()
    ]


def built(recipe: Any) -> bytes:
    """The bytes of a text, of a list, or of one of the file's recipes."""
    match recipe:
        case str():
            return recipe.encode()
        case list():
            return b"".join(map(built, recipe))
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case {"repeat": part, "times": int(times)}:
            return built(part) * times
        case {"size": int(size)}:
            return b'{"event_name":"a","x":"%b"}' % (b"x" * (size - 25))
        case {"keys": int(keys)}:
            return b'{"event_name":"a"%b}' % b"".join(b',"%d":1' % number for number in range(keys - 1))
        case {"gzip": part, "keep": int(keep)}:
            return gzip.compress(built(part), mtime=0)[:keep]
        case {"gzip": part}:
            return gzip.compress(built(part), mtime=0)
        case _:
            raise ValueError(recipe)


CORPUS: Corpus = msgspec.toml.decode(Path(__file__).with_name("bad_input.toml").read_bytes(), type=Corpus)
GOOD = b'{"event_name":"page_view","user":{"id":"u1"},"context":{"event_id":"e-%d","event_timestamp":1789999999000}}'


def among(raw: bytes, good: int = 400) -> bytes:
    """A batch in whose middle the bytes stand, between this many good events."""
    events = [GOOD % number for number in range(good)]
    return b'{"batch":[%b]}' % b",".join([*events[: good // 2], raw, *events[good // 2 :]])
