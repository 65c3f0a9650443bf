"""The shape of ``config.toml``, beside the destinations: what TOML decodes into and the engines are given.

Data only. Reading the file, resolving secrets, positions and suggestions are ``router.config``'s.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from router.destination import Destination
from router.secret import Secret

_LONGEST = 3653 * 86_400.0  # ten years: what is added to a day of this century must still be one
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZES = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_SIZE = re.compile(r"(\d{1,9})(KB|MB|GB)", re.ASCII)  # bytes that fit 64 bits
_FASTEST = 1_000_000.0  # a second
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)", re.ASCII)


def seconds(duration: str) -> float:
    """Seconds of "90s", "15m", "72h", "7d". ValueError, with what to write, for anything else."""
    if (found := _DURATION.fullmatch(duration)) is None:
        raise ValueError('write a number and a unit: "30s", "15m", "72h" or "7d"')
    if (length := float(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise ValueError('write ten years at most: "3653d"')
    return length


def size(text: str) -> int:
    """Bytes of "64MB", "1GB"; "0MB" is none. ValueError, with what to write, for anything else."""
    if (found := _SIZE.fullmatch(text)) is None:
        raise ValueError('write a number and a unit: "64MB" or "1GB"')
    return int(found[1]) * _SIZES[found[2]]


def per_second(rate: str) -> float:
    """Requests a second of "10/s", "600/m". ValueError, with what to write, for anything else."""
    if (found := _RATE.fullmatch(rate)) is None:
        raise ValueError('write a number and a unit of time: "10/s" or "600/m"')
    if not 0 < (speed := float(found[1]) / _UNITS[found[2]]) <= _FASTEST:
        raise ValueError('write more than nothing and a million a second at most: "10/s" or "600/m"')
    return speed


class Collect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: Annotated[str, Meta(description="Address and port of the collect endpoint.")] = "127.0.0.1:8080"
    workers: Annotated[
        int,
        Meta(
            ge=0, le=64, description="Processes that collect, beside the one that stores and delivers; 0: none beside."
        ),
    ] = 0
    trusted_proxies: Annotated[tuple[str, ...], Meta(description="CIDRs whose X-Forwarded-For is believed.")] = ()
    session: Annotated[
        str,
        Meta(
            description='How long after an event its visitor\'s click ids are added to the next, as "30m"; "0s": never.'
        ),
    ] = "30m"
    strict_utf8: Annotated[bool, Meta(description="Refuse invalid UTF-8 instead of repairing it.")] = False


class Console(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: Annotated[str, Meta(description="JSON API, metrics, health.")] = "127.0.0.1:8081"
    token: Annotated[Secret | None, Meta(description="Needed where listen is not a loopback address.")] = None
    hosts: Annotated[tuple[str, ...], Meta(description="Host names that a proxy in front of it forwards.")] = ()


class Outbox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(description="A directory of its own; a relative one is beside this file.")] = "outbox"
    keep_delivered: Annotated[
        str, Meta(description="For how long events are kept that every destination is done with, counted by the day.")
    ] = "7d"
    keep_dead: Annotated[
        str, Meta(description="For how long dead deliveries, their tries and a removed destination's backlog are kept.")
    ] = "30d"
    dedup: Annotated[str, Meta(description="How far back a repeated event id is recognised, 7d at most.")] = "24h"
    min_free: Annotated[
        str,
        Meta(description="With less free space than this, events are refused; a warning comes at five times as much."),
    ] = "200MB"
    ballast: Annotated[
        str, Meta(description="Space kept in reserve, so that what partners took can be written down on a full disk.")
    ] = "64MB"


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends. ``tokens`` may hold two during a rotation; ``sha256:<hex>`` gives a token by its digest."""

    tokens: Annotated[tuple[Secret, ...], Meta(min_length=1, description="Keys of this source.")]
    enabled: Annotated[bool, Meta(description="False refuses what it sends, with 403.")] = True
    site: Annotated[str | None, Meta(description="Commanders Act tc_s.")] = None
    default_country: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")] | None,
        Meta(description="For phone numbers without a country code."),
    ] = None
    origins: Annotated[
        tuple[str, ...], Meta(description="Web origins whose scripts may read the answer; other pages can post too.")
    ] = ()


class Snitcher(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="snitcher"):
    """A Snitcher account: its sessions are fetched with ``token``, its webhooks are taken with ``webhook_secret``."""

    token: Annotated[Secret | None, Meta(description="Personal access token; without one nothing is fetched.")] = None
    webhook_secret: Annotated[
        Secret | None,
        Meta(
            description="Signs what Snitcher posts to /webhooks/NAME, as X-Snitcher-Signature: sha256=<hex of "
            "HMAC-SHA256 of the body>; without one there is no such path."
        ),
    ] = None
    base_url: Annotated[str, Meta(description="Address of the REST API.")] = "https://api.snitcher.com/v1"
    interval: Annotated[str, Meta(description="From the start of one round of fetching to the next, 10s at least.")] = (
        "5m"
    )
    workspaces: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")], ...],
        Meta(description="Ids of the workspaces to fetch; empty: all, looked up once an hour."),
    ] = ()
    page_size: Annotated[int, Meta(ge=1, le=1000, description="Sessions or companies in one answer.")] = 100
    page_size_parameter: Annotated[
        Literal["per_page", "size"], Meta(description="How the size is asked for: per_page to 100, or size to 1000.")
    ] = "per_page"
    segment: Annotated[str | None, Meta(description="Only sessions of companies in this segment, by its id.")] = None
    url: Annotated[str | None, Meta(description="Only sessions with this text in an address.")] = None
    referrer: Annotated[str | None, Meta(description="Only sessions with this text in the referrer.")] = None
    form_fields: Annotated[
        tuple[str, ...],
        Meta(description="Form fields kept as properties. Others are dropped, unless they are known to name a person."),
    ] = ()
    unknown_events: Annotated[
        Literal["track", "skip"], Meta(description="What becomes of an event of a type that is not documented.")
    ] = "track"
    companies: Annotated[bool, Meta(description="Send a company's traits as a group event, and again on change.")] = (
        True
    )
    default_country: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")] | None,
        Meta(description="For phone numbers without a country code."),
    ] = None
    enabled: Annotated[bool, Meta(description="False fetches nothing, and refuses webhooks with 403.")] = True
    allow_private: Annotated[bool, Meta(description="May reach private and loopback addresses, and plain http.")] = (
        False
    )

    def __post_init__(self) -> None:
        if self.token is None and self.webhook_secret is None:
            raise ValueError(
                "neither token nor webhook_secret is given: nothing can be fetched or received; give one or both"
            )


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file, checked. ``destinations`` keeps the order of the file."""

    collect: Collect = Collect()
    console: Console = Console()
    outbox: Outbox = Outbox()
    sources: dict[str, Source | Snitcher] = {}
    destinations: dict[str, Destination] = {}
