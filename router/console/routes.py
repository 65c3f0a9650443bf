"""The table of addresses: method, path, what it takes and what it answers. Routing and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, UnionType
from typing import NamedTuple

import msgspec

from router.console.acts import Again, Choice, Done, Erased, Forgotten, Giving, Held, Nothing, Reason, Replayed, Replays
from router.console.answers import JSON, Handler
from router.console.api import Alive, Api, Health
from router.console.questions import STATES
from router.console.stream import EVENT_STREAM
from router.outbox.reads.reader import MOST
from router.outbox.reads.views import (
    Audit,
    Configs,
    Deliveries,
    Destinations,
    Events,
    Ledger,
    Message,
    Quarantine,
    QuarantineView,
    Story,
)


class Parameter(NamedTuple):
    name: str
    words: str
    schema: Mapping[str, object] = MappingProxyType({"type": "string"})


class Route(NamedTuple):
    """One address. ``answer`` is None where it is not JSON, and one of the messages of an event stream; with a status of
    ``also`` it answers the same. ``open`` addresses need no token.
    """

    method: str
    path: str
    words: str
    handler: Handler
    answer: type[msgspec.Struct] | UnionType | None
    body: type[msgspec.Struct] | None = None
    query: tuple[Parameter, ...] = ()
    open: bool = False
    media: str = JSON
    also: int | None = None


_LIMIT = Parameter("limit", "Entries of one page.", {"type": "integer", "minimum": 1, "maximum": MOST, "default": 100})
_AFTER = Parameter("after", 'The "next" of the page before.')
_TO = Parameter("to", "One destination.")
_STATE = Parameter("state", "One state.", {"type": "string", "enum": list(STATES)})
_SOURCE = Parameter("source", "Events of one source.")
_NAME = Parameter("name", "Events of one name.")
_SEEN = Parameter(
    "after",
    "Begin behind the event of this number, 0 for the oldest, instead of now; so does the header Last-Event-ID.",
    {"type": "integer", "minimum": 0},
)
_ID = Parameter("id", 'Event id, or "#" and a sequence number.')


def table(api: Api) -> list[Route]:
    """Every address but the two that are made from this table: the index and the OpenAPI document."""
    return [
        Route("GET", "/healthz", "Does the process answer?", api.healthz, Alive, open=True),
        Route("GET", "/readyz", "Can it take events? 503 where not.", api.readyz, Health, open=True, also=503),
        Route("GET", "/metrics", "Prometheus metrics.", api.metrics, None),
        Route("GET", "/api/v1/ledger", "What came in, what became of it, and the difference.", api.ledger, Ledger),
        Route("GET", "/api/v1/destinations", "The lanes as they stand.", api.destinations, Destinations),
        Route(
            "GET",
            "/api/v1/events",
            "The newest events, or those of one id.",
            api.events,
            Events,
            query=(_ID, _LIMIT, _AFTER),
        ),
        Route("GET", "/api/v1/events/{id}", "What became of one event, and why.", api.event, Story),
        Route(
            "GET",
            "/api/v1/deliveries",
            "Deliveries, newest events first.",
            api.deliveries,
            Deliveries,
            query=(_TO, _STATE, _LIMIT, _AFTER),
        ),
        Route(
            "GET",
            "/api/v1/quarantine",
            "What could not be accepted.",
            api.quarantine,
            Quarantine,
            query=(_LIMIT, _AFTER),
        ),
        Route("GET", "/api/v1/quarantine/{number}", "One of them, scrubbed.", api.quarantined, QuarantineView),
        Route(
            "GET",
            "/api/v1/stream",
            "Every event as it is stored, unsampled, and every delivery as it is settled.",
            api.stream,
            Message,
            query=(_SOURCE, Parameter("to", "Deliveries and matches of one destination."), _NAME, _SEEN),
            media=EVENT_STREAM,
        ),
        Route("GET", "/api/v1/audit", "What operators did.", api.audit, Audit, query=(_LIMIT, _AFTER)),
        Route("GET", "/api/v1/configs", "Under which configurations decisions were made.", api.configs, Configs),
        Route(
            "POST", "/api/v1/deliveries:retry", "Send dead or waiting deliveries again, now.", api.retry, Done, Choice
        ),
        Route("POST", "/api/v1/deliveries:drop", "Give waiting deliveries up.", api.drop, Done, Giving),
        Route("POST", "/api/v1/destinations/{name}:hold", "Let a lane wait.", api.hold, Held, Reason),
        Route("POST", "/api/v1/destinations/{name}:resume", "Let a lane go on.", api.resume, Held, Nothing),
        Route("GET", "/api/v1/replays", "Replays, newest first.", api.replays, Replays),
        Route(
            "POST",
            "/api/v1/replays",
            "Send events again; a preview unless dry_run is false.",
            api.replay,
            Replayed,
            Again,
        ),
        Route("POST", "/api/v1/replays/{number}:cancel", "Let a replay go no further.", api.cancel, Replayed, Nothing),
        Route(
            "POST",
            "/api/v1/people:forget",
            "Erase people everywhere, and keep them out.",
            api.forget,
            Erased,
            Forgotten,
        ),
    ]
