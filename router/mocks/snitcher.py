"""Snitcher's REST API, read only, with the data that one puts into it.

It keeps the documented limits: a bearer token, 60 requests a minute for each, pages of at most 100, a ``date`` or a
range of dates but not both. It begins with one workspace, one company and the documented session of today, and takes
more: ``POST /sessions`` and ``POST /organisations`` outside the API put one in, or add to the one with that uuid.

Sources: Snitcher, "REST API" (rate limits, errors, pagination, filtering, sessions with events); the list of all sessions
of a workspace and its ``truncated`` from its API reference.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from router.mocks.partner import Answer, Call, Control, Partner

BASE = "/v1"
A_MINUTE = 60_000  # ms
ALLOWED = 60  # requests of one token in a minute
LONGEST_PAGE = {"per_page": 100, "size": 1000}
USUAL_PAGE = 25
ORGANISATION_LIMIT = 10_000  # companies in the list of all sessions
WORKSPACE, COMPANY, SESSION = (
    "ws_abc123",
    "0b7e3c52-90a8-4c1c-8c1b-3c8ad1f3a001",
    "5d1e7a90-52c5-4d2e-9a43-6f0c2b7de001",
)

_COMPANY_SESSIONS = re.compile(rf"{BASE}/workspaces/([^/]+)/organisations/([^/]+)/sessions")
_LIST = re.compile(rf"{BASE}/workspaces/([^/]+)/(organisations|sessions)")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

Object = dict[str, Any]


class Workspace(msgspec.Struct):
    """What one workspace holds, by uuid, in the order it was put in."""

    name: str
    organisations: dict[str, Object] = {}
    sessions: dict[str, Object] = {}


class Refusal(Exception):
    """The answer to a request that breaks a rule."""

    def __init__(self, status: int, message: str, **errors: str) -> None:
        super().__init__(message)
        body: Object = {"message": message}
        if errors:
            body["errors"] = {field: [words] for field, words in errors.items()}
        self.answer = Answer(status, body, reason=message)


class Snitcher(Partner):
    """``empty`` leaves the documented example out. ``organisation_limit`` and ``allowed`` may be made smaller."""

    name: ClassVar[str] = "snitcher"
    own_controls: ClassVar[tuple[Control, ...]] = (
        Control(
            "POST",
            "/sessions",
            "add a session, or let the one with this uuid grow",
            {
                "uuid": "s-1",
                "organisation_uuid": COMPANY,
                "started_at": "2026-11-20T10:00:00+00:00",
                "ended_at": "2026-11-20T10:05:00+00:00",
                "events": [
                    {
                        "event_type": "pageview",
                        "url": "https://acme.com/pricing",
                        "triggered_at": "2026-11-20T10:00:00+00:00",
                    }
                ],
            },
        ),
        Control(
            "POST",
            "/organisations",
            "add a company, or change the one with this uuid",
            {"uuid": "org-2", "name": "Example Ltd", "website": "https://example.com"},
        ),
    )

    def __init__(self, *, now: Callable[[], int], seed: int = 0, empty: bool = False) -> None:
        self.empty = empty
        self.allowed = ALLOWED
        self.organisation_limit = ORGANISATION_LIMIT
        super().__init__(now=now, seed=seed)

    def reset(self) -> None:
        super().reset()
        self.workspaces = {WORKSPACE: Workspace("My Website")}
        self.windows: dict[str, tuple[int, int]] = {}  # token -> the start of its minute, and how many came in it
        if not self.empty:
            self.add_organisation(example_company(self.now()))
            self.add_session(example_session(self.now()))

    # What a person or a test puts in

    def add_session(self, session: Object, workspace: str = WORKSPACE) -> None:
        """Put a session in, or let the one with this uuid grow: its events are added, all else is replaced."""
        sessions = self.workspaces[workspace].sessions
        there = sessions.get(session["uuid"], {})
        grown = {**there, **session}
        if "events" in there or "events" in session:
            grown["events"] = [*there.get("events", []), *session.get("events", [])]
        sessions[session["uuid"]] = grown

    def add_organisation(self, organisation: Object, workspace: str = WORKSPACE) -> None:
        organisations = self.workspaces[workspace].organisations
        organisations[organisation["uuid"]] = {**organisations.get(organisation["uuid"], {}), **organisation}

    # What it answers

    def answer(self, call: Call) -> Answer:
        try:
            if call.method == "POST" and call.path in {"/sessions", "/organisations"}:
                return self._put(call)
            self._admit(call)
            return Answer(200, self._listed(call))
        except Refusal as refusal:
            return refusal.answer

    def _put(self, call: Call) -> Answer:
        body = call.json()
        workspace = call.query.get("workspace", WORKSPACE)
        if not isinstance(body, dict) or not isinstance(body.get("uuid"), str) or workspace not in self.workspaces:
            raise Refusal(400, "send an object with its uuid, for a workspace that is there")
        if not isinstance(body.get("events", []), list):
            raise Refusal(400, "events are a list")
        if call.path == "/sessions":
            self.add_session(body, workspace)
        else:
            self.add_organisation(body, workspace)
        return Answer(201, {"data": {"uuid": body["uuid"]}})

    def _admit(self, call: Call) -> None:
        token = call.bearer()
        if token is None:
            raise Refusal(401, "Unauthenticated.")
        began, count = self.windows.get(token, (call.at, 0))
        if not 0 <= call.at - began < A_MINUTE:
            began, count = call.at, 0
        self.windows[token] = began, count + 1
        if count >= self.allowed:
            raise Refusal(429, "Too Many Attempts.")

    def _listed(self, call: Call) -> Object:
        if call.method == "GET" and call.path == f"{BASE}/workspaces":
            rows = [
                {"uuid": uuid, "name": each.name, "url": "https://example.com", "status": "active"}
                for uuid, each in self.workspaces.items()
            ]
            return _page(call, rows)
        if call.method == "GET" and (found := _COMPANY_SESSIONS.fullmatch(call.path)):
            workspace = self._workspace(found[1])
            if found[2] not in workspace.organisations:
                raise Refusal(404, "Not found.")
            own = [each for each in workspace.sessions.values() if each.get("organisation_uuid") == found[2]]
            return _page(call, [each for each in own if _in_days(call, each)])
        if (found := _LIST.fullmatch(call.path)) and call.method in {"GET", "POST"}:
            workspace = self._workspace(found[1])
            if found[2] == "sessions" and call.method == "GET":
                return self._sessions(call, workspace)
            if found[2] == "organisations":
                return _page(call, [each for each in workspace.organisations.values() if _matches(call, each)])
        raise Refusal(404, "Not found.")

    def _workspace(self, uuid: str) -> Workspace:
        if uuid not in self.workspaces:
            raise Refusal(404, "Not found.")
        return self.workspaces[uuid]

    def _sessions(self, call: Call, workspace: Workspace) -> Object:
        rows = [
            each
            for each in workspace.sessions.values()
            if _in_days(call, each)
            and call.query.get("url", "") in " ".join(str(one.get("url")) for one in each.get("events", []))
            and call.query.get("referrer", "") in str(each.get("referrer") or "")
            and _in_segment(call, workspace.organisations.get(str(each.get("organisation_uuid"))))
        ]
        companies = list(dict.fromkeys(each.get("organisation_uuid") for each in rows))
        if len(companies) <= self.organisation_limit:
            return _page(call, rows)
        kept = companies[: self.organisation_limit]
        page = _page(call, [each for each in rows if each.get("organisation_uuid") in kept])
        return page | {
            "truncated": True,
            "organisation_count": len(companies),
            "organisation_limit": self.organisation_limit,
        }


def _page(call: Call, rows: Sequence[Object]) -> Object:
    number = _whole(call, "page", 1, 1_000_000)
    parameter = "size" if "size" in call.query else "per_page"
    size = _whole(call, parameter, USUAL_PAGE, LONGEST_PAGE[parameter])
    last = max(1, -(-len(rows) // size))
    some = list(rows[(number - 1) * size : number * size])
    path = f"https://api.snitcher.com{call.path}"

    def address(page: int) -> str:
        return f"{path}?page={page}"

    return {
        "data": some,
        "current_page": number,
        "last_page": last,
        "per_page": size,
        "total": len(rows),
        "from": (number - 1) * size + 1 if some else None,
        "to": (number - 1) * size + len(some) if some else None,
        "path": path,
        "first_page_url": address(1),
        "last_page_url": address(last),
        "next_page_url": address(number + 1) if number < last else None,
        "prev_page_url": address(number - 1) if number > 1 else None,
        "success": True,
    }


def _whole(call: Call, name: str, usual: int, most: int) -> int:
    text = call.query.get(name, str(usual))
    if not re.fullmatch("[0-9]{1,7}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise Refusal(422, "The given data was invalid.", **{name: f"The {name} must be between 1 and {most}."})
    return int(text)


def _in_days(call: Call, session: Object) -> bool:
    """Within ``date``, or from ``date_from`` to ``date_to``, both included; of any day where nothing is asked."""
    days = {name: _day(call, name) for name in ("date", "date_from", "date_to") if name in call.query}
    if "date" in days and len(days) > 1:
        raise Refusal(422, "The given data was invalid.", date="The date cannot be combined with a range.")
    if len(days.keys() & {"date_from", "date_to"}) == 1:
        missing = next(iter({"date_from", "date_to"} - days.keys()))
        raise Refusal(422, "The given data was invalid.", **{missing: f"The {missing} field is required."})
    first, last = days.get("date_from", days.get("date", "")), days.get("date_to", days.get("date", "9999"))
    if first > last:
        raise Refusal(422, "The given data was invalid.", date_to="The date_to must not be before date_from.")
    return first <= str(session.get("started_at"))[:10] <= last


def _day(call: Call, name: str) -> str:
    text = call.query[name]
    try:
        day = dt.date.fromisoformat(text if _DAY.fullmatch(text) else "")
    except ValueError:
        day = None
    if day is not None:
        return text
    raise Refusal(422, "The given data was invalid.", **{name: f"The {name} is not a valid date."})


def _in_segment(call: Call, company: Object | None) -> bool:
    if (wanted := call.query.get("segmentUuid")) is None:
        return True
    return wanted in [each.get("uuid") for each in (company or {}).get("segments", [])]


def _matches(call: Call, company: Object) -> bool:
    """The filters of a POST, in both documented forms: values by field, or conditions that are all to hold."""
    if call.method == "GET":
        return True
    body = call.json()
    filters = body.get("filters") if isinstance(body, dict) else None
    if not isinstance(filters, dict):
        raise Refusal(422, "The given data was invalid.", filters="The filters field is required.")
    conditions = filters.get("conditions")
    if conditions is None:
        return all(
            company.get(field) in (value if isinstance(value, list) else [value]) for field, value in filters.items()
        )
    if not isinstance(conditions, list) or not all(isinstance(each, dict) for each in conditions):
        raise Refusal(422, "The given data was invalid.", conditions="The conditions must be an array.")
    held = [_holds(each, company) for each in conditions]
    return any(held) if filters.get("operator") == "OR" else all(held)


def _holds(condition: Object, company: Object) -> bool:
    value, wanted = company.get(str(condition.get("field"))), condition.get("value")
    match condition.get("comparison"):
        case "is" | "=" | "equals":
            return bool(value == wanted)
        case "is_not" | "!=" | "not_equals":
            return bool(value != wanted)
        case "contains":
            return str(wanted) in str(value)
        case _:
            raise Refusal(422, "The given data was invalid.", comparison="The selected comparison is invalid.")


# The documented example, of today


def example_company(now: int) -> Object:
    return {
        "uuid": COMPANY,
        "name": "Acme Corp",
        "website": "https://acme.com",
        "industry": "Software",
        "size": "51-200 employees",
        "phone": "+1 202-555-0123",
        "email": "info@acme.com",
        "address": {"country": "United States", "state": "California", "city": "San Francisco"},
        "profiles": [{"type": "linkedin", "url": "https://www.linkedin.com/company/acme"}],
        "tags": [],
        "segments": [],
        "first_seen": stamp(now - 86_400_000),
        "last_seen": stamp(now - 300_000),
    }


def example_session(now: int) -> Object:
    """The session of "Get Sessions with Events", which began ten minutes ago."""
    began = now - 600_000
    return {
        "uuid": SESSION,
        "organisation_uuid": COMPANY,
        "started_at": stamp(began),
        "ended_at": stamp(began + 300_000),
        "location": {"country": "United States", "state": "California", "city": "San Francisco"},
        "browser": "Chrome",
        "referrer": "https://www.google.com/",
        "device_type": "desktop",
        "events": [
            {
                "event_type": "pageview",
                "url": "https://acme.com/pricing",
                "triggered_at": stamp(began),
                "time_on_page": 45,
            },
            {
                "event_type": "form_submit",
                "url": "https://acme.com/contact",
                "triggered_at": stamp(began + 120_000),
                "form_id": "contact-form",
                "form_name": "Contact Form",
                "fields": [{"name": "email", "value": "j@acme.com"}],
            },
            {
                "event_type": "track",
                "url": "https://acme.com/pricing",
                "triggered_at": stamp(began + 180_000),
                "name": "plan_selected",
                "properties": [{"name": "plan", "value": "enterprise"}],
            },
            {
                "event_type": "click",
                "url": "https://acme.com/page",
                "triggered_at": stamp(began + 240_000),
                "name": "CTA Button",
                "properties": [{"name": "elementText", "value": "Get Started"}],
            },
            {
                "event_type": "download",
                "url": "https://acme.com/whitepaper.pdf",
                "triggered_at": stamp(began + 300_000),
                "name": "$download",
                "properties": [{"name": "url", "value": "https://acme.com/whitepaper.pdf"}],
            },
        ],
    }


def stamp(at: int) -> str:
    """UTC ms as Snitcher writes it: "2025-03-01T10:00:00+00:00"."""
    return dt.datetime.fromtimestamp(at // 1000, dt.UTC).isoformat()
