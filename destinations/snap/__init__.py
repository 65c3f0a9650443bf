"""Snap Conversions API v3: web and offline events to a pixel, app events to a Snap App ID.

What an event looks like to Snap (``body``), what Snap would refuse (``lint``), and what its answers mean (``answers``).
Which events come here, how old they may be and when they are tried again is decided elsewhere.

Source: Snap, "Conversions API": "Using the API", "Parameters", "Verify Set Up"
(https://developers.snap.com/api/marketing-api/Conversions-API). Its pages contradict each other in places; every
choice is explained where it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from destinations.snap import answers, lint
from destinations.snap.body import (
    action_source,
    app_data,
    custom_data,
    custom_fields,
    event_time,
    options,
    present,
    test_code,
    user_data,
)
from destinations.snap.events import DEFAULT_EVENTS, EVENT_NAMES
from destinations.snap.lint import faults
from router.destination import Complaint, Destination, Header, Request, Response, Verdict, mapped
from router.event import Event
from router.outcome import Outcome, Refusal
from router.secret import Secret

__all__ = ["EVENT_NAMES", "MAX_BYTES", "OLDEST_DAYS", "Snap", "faults"]

# Snap documents no limit in bytes. 2 MB is what a large customer data platform allows itself per request.
MAX_BYTES = 2_000_000

ONLINE_DAYS = 7  # what is older is taken as an offline upload alone
OLDEST_DAYS = 37  # "maximum 37 days back to be eligible to be reported"

_ASSET_ID = "^[0-9A-Za-z-]{1,64}$"
_APP_ID = "the id that Snap gave your app, from Ads Manager, in letters, digits and -; it is not the bundle id"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)
_A_DAY = {"ms": 86_400_000, "s": 86_400, "m": 1440, "h": 24, "d": 1}


class Snap(Destination, tag="snap", frozen=True, kw_only=True):
    pixel_id: Annotated[
        str, Meta(pattern=_ASSET_ID, description="Events Manager, Pixel ID. Web and offline events go there.")
    ]
    access_token: Annotated[Secret, Meta(description="Business Details, Conversions API Tokens.")]
    app_id: Annotated[
        Annotated[str, Meta(pattern=_ASSET_ID, extra={"looks": _APP_ID})] | None,
        Meta(description="Snap App ID. App events go there; without it they are refused."),
    ] = None
    ios_app_id: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]{1,20}\Z")] | None,
        Meta(
            description="The App Store's number of your iOS app, for app_data.app_id; senders know its bundle id only."
        ),
    ] = None
    token_in_header: Annotated[bool, Meta(description="Send the token as Authorization: Bearer, not in the URL.")] = (
        False
    )
    oauth: Annotated[bool, Meta(description="The token is an OAuth token: Snap allows those 10 requests a second.")] = (
        False
    )
    test_event_code: Annotated[
        str | None, Meta(description="Marks every event as a test: Snap shows it and does not process it.")
    ] = None
    integration: Annotated[str, Meta(min_length=1, description="The name under which Snap lists this integration.")] = (
        "turnout"
    )
    time_unit: Annotated[Literal["s", "ms"], Meta(description="Unit of event_time; Snap takes both.")] = "s"
    opt_out_field: Annotated[
        Literal["data_processing_options", "data_use"],
        Meta(description="Where limited data use is asked for; data_use is the older form."),
    ] = "data_processing_options"
    max_age: Annotated[
        str | None, Meta(description='Oldest event to send. Snap takes "7d"; up to "37d" for offline uploads.')
    ] = None

    title: ClassVar[str] = "Snapchat"
    home: ClassVar[str] = "https://tr.snapchat.com"
    docs: ClassVar[str] = "https://developers.snap.com/api/marketing-api/Conversions-API"
    max_batch: ClassVar[int] = 2000
    default_batch: ClassVar[int] = 100
    default_rate: ClassVar[str | None] = "1000/s"
    window: ClassVar[str | None] = "7d"
    dedup_key: ClassVar[str] = "event_id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent", "advertising_id", "idfv"})
    default_events: ClassVar[Mapping[str, str] | None] = DEFAULT_EVENTS
    partner_names: ClassVar[frozenset[str] | None] = EVENT_NAMES
    identifiers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "em": ("user.digests.email",),
            "ph": ("user.digests.phone",),
            "ip+ua": ("clear.ip", "clear.user_agent"),
            "madid": ("clear.advertising_id",),
            "sc_click_id": ("clicks.ScCid",),
            "sc_cookie1": ("cookies._scid",),
            "external_id": ("user.digests.external_id",),
        }
    )
    test_endpoint: ClassVar[str | None] = "validates events without processing them, and lists them for 24 hours"

    def __post_init__(self) -> None:
        if self.oauth and self.rate is None:
            msgspec.structs.force_setattr(self, "rate", "10/s")
        if self._oldest() > OLDEST_DAYS:
            raise ValueError(f'max_age is too long: Snap takes no older event, so write at most "{OLDEST_DAYS}d"')

    def complaints(self) -> Iterable[Complaint]:
        if ONLINE_DAYS < self._oldest() <= OLDEST_DAYS:
            words = f"max_age is more than {ONLINE_DAYS}d: Snap takes only offline events so late"
            yield Complaint(("max_age",), words, f'"{ONLINE_DAYS}d" for web and app events', "warning")
        if self.test_event_code and self.match.get("test") != {"exists": True}:
            words = "Snap takes every event as a test, and counts none"
            remedy = 'take it out after the trial, or let tests alone through: match = { "test" = { exists = true } }'
            yield Complaint(("test_event_code",), words, remedy, "warning")

    def _oldest(self) -> float:
        """``max_age`` in days; 0 where there is none, or none that can be read."""
        if self.max_age is None or (found := _DURATION.fullmatch(self.max_age)) is None:
            return 0.0
        return float(found[1]) / _A_DAY[found[2]]

    def requests(self, events: Sequence[Event], now: int) -> Iterable[Request | Refusal]:  # noqa: ARG002 - the contract's; nothing of Snap's depends on it
        # Web events and app events have different addresses, so a batch holds one kind only.
        by_asset: dict[str, list[tuple[Event, bytes]]] = {}
        for event in events:
            body = self.body(event)
            asset = self.asset(body)
            if asset is None or (reason := ". ".join(faults(body, notes=event.notes, ours=not self.map))):
                yield Refusal(event, reason if asset else "action_source: app events need a Snap App ID; set app_id")
            else:
                by_asset.setdefault(asset, []).append((event, msgspec.json.encode(body)))
        for asset, members in by_asset.items():
            for part in self.batched(members, MAX_BYTES):
                yield self._request(asset, part)

    def body(self, event: Event) -> dict[str, Any]:
        """The event as Snap reads it, ``map`` applied. Whether Snap would take it is what ``faults`` says."""
        source = action_source(event)
        body = present(
            {
                "integration": self.integration,
                "event_name": (self.partner_name(event) or "").upper(),
                "event_time": event_time(event, self.time_unit),
                "action_source": source,
                "event_source_url": event.page.url,
                "event_id": event.id,
                "test_event_code": test_code(event) or self.test_event_code or event.test,
                **self._options(event),
                "app_data": app_data(event, self.ios_app_id) if source == "MOBILE_APP" else None,
                "custom_data": custom_data(event),
            }
        )
        body["user_data"] = user_data(event, source)
        if not self.map:
            return body
        body = mapped(body, event, self.map)
        custom = body.get("custom_data")
        if isinstance(custom, dict) and isinstance(custom.get("custom_fields"), dict):
            custom["custom_fields"] = custom_fields(custom["custom_fields"])
        return body

    def asset(self, body: Mapping[str, Any]) -> str | None:
        """Whose event it is: the app's or the pixel's. None for an app event where no app is set."""
        return self.app_id if body.get("action_source") == "MOBILE_APP" else self.pixel_id

    def hints(self, event: Event) -> Iterable[str]:
        return lint.hints(event)

    def validation(self, request: Request) -> Request:
        """The same request as a question: Snap checks the events, says what is wrong and processes none."""
        return msgspec.structs.replace(request, url=f"{request.url}/validate")

    def verdict(self, response: Response) -> Verdict:
        return answers.verdict(response)

    def reports(self) -> Mapping[str, Request]:
        """What Snap was asked to validate in the last 24 hours, and how many events it got; of the app as well."""
        asked = {name: self._question(self.pixel_id, name) for name in ("logs", "stats")}
        if self.app_id is not None:
            asked |= {f"app {name}": self._question(self.app_id, name) for name in ("logs", "stats")}
        return asked

    def report_rows(self, response: Response) -> Sequence[Mapping[str, Any]]:
        return answers.report_rows(response)

    def outcome(self, response: Response) -> Outcome:
        return answers.outcome(response)

    def _options(self, event: Event) -> dict[str, list[str]]:
        said = options(event)
        if self.opt_out_field == "data_processing_options" or "LMU" not in said:
            return {"data_processing_options": said}
        return {"data_use": ["lmu"], "data_processing_options": [one for one in said if one != "LMU"]}

    def _request(self, asset: str, members: Sequence[tuple[Event, bytes]]) -> Request:
        headers, query = self._access()
        return Request(
            url=self.endpoint(f"/v3/{asset}/events"),
            body=b'{"data":[%b]}' % b",".join(body for _, body in members),
            events=tuple(event for event, _ in members),
            headers={"Content-Type": "application/json", **headers},
            query=query,
        )

    def _question(self, asset: str, name: str) -> Request:
        headers, query = self._access()
        url = self.endpoint(f"/v3/{asset}/events/validate/{name}")
        return Request(method="GET", url=url, body=b"", events=(), headers=headers, query=query)

    def _access(self) -> tuple[dict[str, Header], dict[str, Header]]:
        """The token, among the headers or in the query."""
        if self.token_in_header:
            return {"Authorization": Secret(f"Bearer {self.access_token.reveal()}", self.access_token.reference)}, {}
        return {}, {"access_token": self.access_token}
