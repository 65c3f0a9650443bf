"""The loader of ``bad_input.toml``: what senders get wrong and what they are answered, as data for every runner."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

RECEIVED = 1_790_000_000_000  # UTC ms, as the file says

Row = Annotated[str, Meta(pattern=r"^[IA]\d\d ")]
Recipe = str | dict[str, Any] | list[Any]


class BodyCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of a request for ``router.body.read``."""

    bytes: Recipe
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
        return built(self.bytes)


class DoorCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decoded event for ``router.door.admit``."""

    item: Recipe  # JSON
    problem: str | None = None
    notes: list[str] = []
    event: dict[str, Any] = {}
    absent: list[str] = []
    nowhere: list[str] = []  # texts that the stored event does not hold

    def raw(self) -> bytes:
        return built(self.item)


class CollectCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole HTTP request for the collect endpoint."""

    method: str = "POST"
    path: str = "/collect"
    query: str = "token={token}"
    headers: dict[str, str] = {}
    bytes: Recipe = '{"event_name":"a"}'
    status: int = 200
    code: str | None = None
    accepted: int = 0
    answer_headers: dict[str, str] = {}

    def raw(self) -> bytes:
        return built(self.bytes)


class SocketCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exact bytes on a connection."""

    bytes: Recipe
    statuses: list[int]
    close: bool = True
    stored: int = 0

    def raw(self, token: str) -> bytes:
        """With the key put in and the length of the body behind the first blank line."""
        sent = built(self.bytes).replace(b"{token}", token.encode())
        return sent.replace(b"{length}", b"%d" % len(sent.partition(b"\r\n\r\n")[2]))


class Corpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    body: dict[Row, BodyCase]
    door: dict[Row, DoorCase]
    collect: dict[Row, CollectCase]
    socket: dict[Row, SocketCase]


def built(recipe: Any) -> bytes:
    """The bytes of a text, of a list, or of one of the file's recipes."""
    match recipe:
        case str():
            return recipe.encode()
        case list():
            return b"".join(map(built, recipe))
        case {"hex": digits}:
            return bytes.fromhex(digits)
        case {"repeat": part, "times": times}:
            return built(part) * times
        case {"size": size}:
            return b'{"event_name":"a","x":"%b"}' % (b"x" * (size - 25))
        case {"keys": keys}:
            return b'{"event_name":"a"%b}' % b"".join(b',"%d":1' % number for number in range(keys - 1))
        case {"gzip": part, **cut}:
            return gzip.compress(built(part), mtime=0)[: cut.get("keep")]
        case _:
            raise ValueError(recipe)


CORPUS: Corpus = msgspec.toml.decode(Path(__file__).with_name("bad_input.toml").read_bytes(), type=Corpus)
GOOD = b'{"event_name":"page_view","user":{"id":"u1"},"context":{"event_id":"e-%d","event_timestamp":1789999999000}}'


def among(raw: bytes, good: int = 400) -> bytes:
    """A batch in whose middle the bytes stand, between this many good events."""
    events = [GOOD % number for number in range(good)]
    return b'{"batch":[%b]}' % b",".join([*events[: good // 2], raw, *events[good // 2 :]])
