"""The contract between Turnout and a partner.

A destination is a settings struct with two pure methods: ``requests`` says what to send for some events, ``outcome``
says what the partner's answer means. It does no IO and reads no clock. The struct is at once the TOML table, the
registry entry and the reference page, so a field's ``Meta(description=...)`` is what users read.

Adding a partner is one file in ``destinations/``, one line in its ``__init__``, and case files.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from router.event import Clear, Event
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry, Split
from router.secret import Secret

Header = str | Secret

_Duration = Annotated[
    str, Meta(pattern=r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]+)?(ms|s|m|h|d)\Z", description='text as "28d"')
]
_Rate = Annotated[str, Meta(pattern=r"^(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?/(s|m|h)\Z", description='text as "10/s"')]
_Count = Annotated[int, Meta(ge=1)]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request and the events it carries. Secrets stay wrapped, so printing a request shows none."""

    url: str
    body: bytes
    events: tuple[Event, ...]
    headers: Mapping[str, Header] = {}
    query: Mapping[str, Header] = {}
    method: Literal["POST", "GET"] = "POST"

    @classmethod
    def json(
        cls,
        url: str,
        body: Any,
        events: Iterable[Event],
        *,
        headers: Mapping[str, Header] | None = None,
        query: Mapping[str, Header] | None = None,
    ) -> Request:
        """A POST of ``body`` as JSON; the same body always gives the same bytes."""
        return cls(
            url=url,
            body=msgspec.json.encode(body),
            events=tuple(events),
            headers={"Content-Type": "application/json", **(headers or {})},
            query=query or {},
        )


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: header names in lower case, at most 64 KB of body, ``at`` in UTC ms."""

    status: int
    request: Request
    at: int
    headers: Mapping[str, str] = {}
    body: bytes = b""

    def json(self) -> Any:
        """The decoded body, or None where it is not JSON. Partners answer HTML too; that is never a fault of ours."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def object(self) -> dict[str, Any]:
        """The decoded body where it is a JSON object, else an empty one."""
        body = self.json()
        return body if isinstance(body, dict) else {}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a partner's own check says of some events. ``valid`` None: its answer does not tell.

    ``findings`` are (index in the request's events, "error" or "warning", words safe to show); ``summary`` is its
    answer in short, safe to show.
    """

    valid: bool | None
    summary: str
    findings: tuple[tuple[int, Literal["error", "warning"], str], ...] = ()


class Complaint(NamedTuple):
    """A fault of settings that are valid one by one, or as a warning what could be set better.

    ``key`` is the setting as TOML writes it, and the way into it: ("events", "signed_up"), ("short_code", 0).
    """

    key: tuple[str | int, ...]
    words: str
    help: str
    severity: Literal["error", "warning"] = "error"


class Destination(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """What every destination takes. A field that is None is given by the class constants below."""

    enabled: Annotated[bool, Meta(description="False keeps the lane and holds its backlog.")] = True
    sources: Annotated[tuple[str, ...], Meta(description="Only events of these sources; empty: of all.")] = ()
    events: Annotated[
        dict[str, str] | tuple[str, ...] | None,
        Meta(description="Event names to send: a list keeps the partner's names, a table gives them."),
    ] = None
    consent: Annotated[
        tuple[str, ...], Meta(description="Consent categories that must all be granted; unknown is no.")
    ] = ()
    match: Annotated[dict[str, Any], Meta(description="Conditions on fields, all of which must hold.")] = {}
    map: Annotated[
        dict[str, str], Meta(description="Target path in the partner's event = field of ours it is taken from.")
    ] = {}
    base_url: Annotated[str | None, Meta(description="Another address, for tests and proxies.")] = None
    rate: Annotated[str | None, Meta(description='Requests at most, as "10/s" or "600/m".')] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, Meta(description="Requests under way at once.")
    ] = None
    batch: Annotated[
        Annotated[int, Meta(ge=1, le=5000)] | None, Meta(description="Events in one request, within the partner's.")
    ] = None
    timeout: Annotated[str | None, Meta(description='Longest wait for one answer, as "15s".')] = None
    max_age: Annotated[str | None, Meta(description='Oldest event to send, as "7d".')] = None
    retry_for: Annotated[str, Meta(description='How long passing faults are retried, as "72h".')] = "72h"
    allow_private: Annotated[bool, Meta(description="May reach private and loopback addresses, and plain http.")] = (
        False
    )

    # What the class says of its partner. The README's table is made from these.
    title: ClassVar[str]
    home: ClassVar[str]  # the partner's base address
    docs: ClassVar[str]  # where the wire contract is described
    max_batch: ClassVar[_Count] = 1
    default_batch: ClassVar[_Count] = 1
    default_concurrency: ClassVar[_Count] = 8
    default_rate: ClassVar[_Rate | None] = None
    default_timeout: ClassVar[_Duration] = "15s"
    window: ClassVar[_Duration | None] = None  # the partner's acceptance window; None where it has none
    dedup_key: ClassVar[str]  # by what the partner recognises a resend
    clear: ClassVar[frozenset[str]] = frozenset()  # fields of Clear it needs; everything else is withheld from it
    default_events: ClassVar[Mapping[str, str] | None] = None  # our name -> theirs; None: every event, own name
    partner_names: ClassVar[frozenset[str] | None] = None  # all that it takes, in capitals; None: it takes any
    # What the partner can know a person or thing by: its name for it -> paths in our event, all of which it needs.
    identifiers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    test_endpoint: ClassVar[str | None] = None  # the partner's own check, in words for the README; None: it has none
    monthly_quota: ClassVar[_Count | None] = None  # events a calendar month (UTC) that the partner takes
    paths: ClassVar[tuple[str, ...]] = ()  # its settings that name fields of an event, beside match and map
    named: ClassVar[tuple[str, ...]] = ()  # its settings that name events of ours, beside events
    ordered: ClassVar[bool] = False  # events of one subject go one after another, in the order in which they came

    def complaints(self) -> Iterable[Complaint]:
        """What of these settings can only fail later. Asked of a file with other faults in it, too: a generator method
        of its own for each check lets one check be made where a setting that another needs could not be read.
        """
        return ()

    def requests(self, events: Sequence[Event], now: int) -> Iterable[Request | Refusal]:
        """The requests that carry these events; every event ends in exactly one request or refusal.

        ``now`` (UTC ms) may enter signatures and headers, never a body: a retry sends the same bytes.
        """
        raise NotImplementedError

    def outcome(self, response: Response) -> Outcome:
        """What the answer means. This default follows the status alone; override for what the partner documents."""
        return by_status(response)

    def subject(self, event: Event) -> str | None:  # noqa: ARG002 - for those that override it
        """What the event is about at the partner (its short code, its click), where ``ordered`` or a close needs it."""
        return None

    def kept_out(self, event: Event) -> bool:  # noqa: ARG002 - for those that override it
        """Is this event not to be sent once its subject is closed?"""
        return True

    def lacking(self, event: Event) -> Mapping[str, Sequence[str]]:
        """Each of the partner's identifiers with what an event lacks for it, by its paths: nothing where it carries it."""
        return {name: [path for path in paths if not field(event, path)] for name, paths in self.identifiers.items()}

    def quota(self) -> int | None:
        """Events a calendar month (UTC) that the partner takes, as far as one knows."""
        return self.monthly_quota

    def hints(self, event: Event) -> Iterable[str]:  # noqa: ARG002 - for those that override it
        """What is allowed and could be sent better in this event ("no click id: ..."), for whoever previews it."""
        return ()

    def validation(self, request: Request) -> Request | None:  # noqa: ARG002 - for those that override it
        """The same events as a question that the partner answers without processing them; None where it has none."""
        return None

    def verdict(self, response: Response) -> Verdict:  # noqa: ARG002 - for those that override it
        """What the answer to ``validation`` says. It is read for people, so nothing personal may be repeated."""
        return Verdict(valid=None, summary="the answer says nothing")

    def reports(self) -> Mapping[str, Request]:
        """Pages of the partner's own about what it got ("logs", "stats"), each a GET without events."""
        return {}

    def report_rows(self, response: Response) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002 - for those that override it
        """The answer to one of ``reports`` as rows. They are read by people, so nothing personal may be repeated."""
        return ()

    def age_limit(self) -> str | None:
        """How old an event may be to be sent; None where it may be of any age."""
        return self.max_age or self.window

    def largest_batch(self) -> int:
        """Events in one request at most."""
        return min(self.batch or self.default_batch, self.max_batch)

    def batched(self, encoded: Sequence[tuple[Event, bytes]], most: int) -> Iterator[list[tuple[Event, bytes]]]:
        """Encoded events, in order, as what goes in one request each: ``largest_batch`` events and ``most`` bytes with the
        commas between them. One event alone may be larger.
        """
        part: list[tuple[Event, bytes]] = []
        size, weight = self.largest_batch(), 0
        for member in encoded:
            if part and (len(part) == size or weight + len(member[1]) > most):
                yield part
                part, weight = [], 0
            part.append(member)
            weight += len(member[1]) + 1
        if part:
            yield part

    def all_secrets(self) -> list[Secret]:
        """Every secret among the settings, but for the empty ones of what is switched off."""
        found: list[Secret] = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            members = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
            found += [each for each in members if isinstance(each, Secret) and each.reveal()]
        return found

    def endpoint(self, path: str) -> str:
        return (self.base_url or self.home).rstrip("/") + path

    def partner_name(self, event: Event) -> str | None:
        """What the partner calls this event; None where it is not to be sent there."""
        return self.event_names().get(event.name) if self.events is not None or self.default_events else event.name

    def event_names(self) -> Mapping[str, str]:
        """Our name -> the partner's, as configured. Empty where every event goes under its own name."""
        defaults = self.default_events or {}
        if self.events is None:
            return defaults
        if isinstance(self.events, dict):
            return self.events
        return {name: defaults.get(name, name) for name in self.events}


def by_status(response: Response) -> Outcome:
    """The rules that hold where a partner documents nothing else (destination contracts, "Rules that hold everywhere").

    Redirects are never followed: credentials would travel along, and a 302 turned into GET is a false success.
    """
    status, batched = response.status, len(response.request.events) > 1
    if 200 <= status < 300:
        return Delivered()
    if 300 <= status < 400:
        return Hold("redirected: the address is wrong, set base_url to where it points")
    if status in {401, 403}:
        return Hold("credentials refused: check the key, then resume")
    if status == 410:
        return Hold("the address is gone: check the destination, then resume")
    if status < 200 or status in {408, 425, 429} or status >= 500:  # below 200: no answer to this request at all
        return Retry(f"HTTP {status}")
    if status == 413:
        return Split("request too large") if batched else Rejected("too large for the partner")
    return Split(f"HTTP {status}") if batched else Rejected(f"HTTP {status}")


def unfit(kind: Any) -> str | None:
    """What of a class cannot be worked with, as ".window: ..."; None where all is well. Its constants are anybody's code."""
    if not (isinstance(kind, type) and issubclass(kind, Destination)):
        return " is no class of router.destination.Destination"
    for name, hint in typing.get_type_hints(Destination, include_extras=True).items():
        if typing.get_origin(hint) is ClassVar:
            if not hasattr(kind, name):
                return f".{name} is missing"
            (form,) = typing.get_args(hint)
            try:
                if msgspec.convert(getattr(kind, name), form) != getattr(kind, name):
                    return f".{name}: expected {form}"
            except msgspec.ValidationError as error:
                return f".{name}: {_described(form) or error}"
    if not kind.clear <= set(Clear.__struct_fields__):
        return f".clear: expected fields of Clear, which are {', '.join(Clear.__struct_fields__)}"
    if strange := {*kind.paths, *kind.named}.difference(kind.__struct_fields__):
        return f".paths, .named: {min(strange)} is none of its settings"
    return None


def _described(form: Any) -> str | None:
    metas = [meta for one in (form, *typing.get_args(form)) for meta in getattr(one, "__metadata__", ())]
    return next((f"expected {meta.description}" for meta in metas if meta.description), None)


_SCRUBBED = re.compile(r"\[(?:email|phone|iban|card|secret)\]")  # the marks of router.scrub


def is_scrubbed(text: str) -> bool:
    """Was personal data taken out of this text at the door? As an id it would make one of many."""
    return _SCRUBBED.search(text) is not None


_MISSING: Any = object()


def field(event: Event, path: str) -> Any:
    """The value at a dotted path of an event ("properties.brand", "money.value", "items.0.id"), or None.

    One language of paths serves ``match``, ``map`` and the settings of destinations.
    """
    value: Any = event
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part, _MISSING)
        elif isinstance(value, list | tuple):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else _MISSING
        else:
            value = getattr(value, part, _MISSING) if part in getattr(value, "__struct_fields__", ()) else _MISSING
        if value is _MISSING:
            return None
    return value


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in a body under construction, making the objects on the way."""
    *parents, last = path.split(".")
    for part in parents:
        child = body.get(part)
        if not isinstance(child, dict):
            child = body[part] = {}
        body = child
    body[last] = value


def mapped(body: dict[str, Any], event: Event, mapping: Mapping[str, str]) -> dict[str, Any]:
    """``body`` with the operator's ``map`` applied; a field the event lacks changes nothing."""
    for target, origin in mapping.items():
        value = field(event, origin)
        if value is not None:
            put(body, target, msgspec.to_builtins(value))
    return body
