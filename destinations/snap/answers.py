"""What Snap's answers say: to events, to a question about events, and to the question what it got.

Source: Snap, "Using the API", Example Response; "Verify Set Up", statuses, validate, logs and stats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from destinations.snap.events import EVENT_NAMES
from destinations.snap.lint import HASHED
from router.destination import Response, Verdict, by_status
from router.outcome import Delivered, Hold, Outcome, Rejected, Retry, Split

# A parser's "unexpected token" is about the body and not about ours.
_ABOUT_TOKEN = re.compile(r"(?<!unexpected )(?:\b|_)token\b|unauthori[sz]ed", re.IGNORECASE)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"|`([^`]*)`")
_PLAIN_WORD = re.compile(
    r"\(?(?:(?:(?:user_data|custom_data|app_data)\.)?[A-Za-z][A-Za-z_'-]{0,39}[0-9]?|[0-9]{1,4})[.,:;!?)]*", re.ASCII
)
_KNOWN_WORDS = frozenset(
    (
        *("event_name", "event_time", "event_source_url", "event_id", "action_source", "integration"),
        *("user_data", "custom_data", "app_data", "extinfo", "app_id", "value", "currency", *HASHED),
        *("external_id", "client_ip_address", "client_user_agent", "sc_click_id", "sc_cookie1", "madid", "idfv"),
    )
)
_LONGEST_QUOTE = 200
_REFUSED_ACCESS = "Snap refused the access token: set a valid access_token, then resume"

Finding = tuple[int, Literal["error", "warning"], str]


def outcome(response: Response) -> Outcome:
    answer = response.object()
    match response.status, answer.get("status"):
        case 200, "VALID":
            return Delivered()
        case (200, "INVALID") | (400, _):
            return _refused(response, answer)
        case status, _ if 200 <= status < 300:
            return Delivered(unverified=True)
        case 401, _:
            return Hold(_REFUSED_ACCESS)
        case 403, _:
            return Hold(
                "the access token may not send to this pixel or app: use a token of the organisation that owns it, "
                "then resume"
            )
        case 404, _:
            return Hold("Snap does not know this pixel or app: check pixel_id and app_id, then resume")
        case 429, _:
            return Retry("Snap limits the rate: it is tried again later; a lower rate avoids this")
        case status, _ if status >= 500:
            return Retry(f"Snap failed (HTTP {status}): it is tried again later")
        case _:
            return by_status(response)


def verdict(response: Response) -> Verdict:
    """The answer of ``/validate``, event by event. One about the access, or none at all, tells nothing of the events."""
    answer = response.object()
    findings = tuple(_findings(response, answer))
    wrong = answer.get("status") == "INVALID" or any(severity == "error" for _, severity, _ in findings)
    if response.status not in (200, 400) or (not wrong and (response.status, answer.get("status")) != (200, "VALID")):
        found = outcome(response)
        return Verdict(valid=None, summary=getattr(found, "reason", "the answer says nothing"))
    if wrong and not findings and isinstance(found := outcome(response), Hold):
        return Verdict(valid=None, summary=found.reason)
    said = _said(answer)
    word = "INVALID" if wrong else "VALID"
    return Verdict(valid=not wrong, summary=f"{word}: {said}" if said else word, findings=findings)


def report_rows(response: Response) -> list[dict[str, Any]]:
    """The rows of ``/validate/logs`` or of ``/validate/stats``; one row with the reason where Snap gives neither."""
    answer = response.object()
    logs, stats = answer.get("logs"), answer.get("stats")
    if response.status == 200 and isinstance(logs, list):
        return [_log(one) for one in logs if isinstance(one, dict)]
    if response.status == 200 and isinstance(stats, dict):
        return [_stat(kind, stats[kind]) for kind in ("live", "test") if isinstance(stats.get(kind), dict)]
    found = outcome(response)
    said = found.reason if isinstance(found, Hold | Retry) else _said(answer)
    return [{"status": "FAILURE", "reason": said or f"HTTP {response.status}: it gives no reason"}]


def _log(log: Mapping[str, Any]) -> dict[str, Any]:
    """One judged event, without anything that Snap may repeat from it: its name is one of Snap's own, or is not shown."""
    name, time = str(log.get("event_name")).upper(), log.get("event_time")
    timed = isinstance(time, int) and not isinstance(time, bool)
    return {
        "event_name": name if name in EVENT_NAMES else "…",
        "event_time": time if timed else None,
        "action_source": _plain(str(log.get("action_source") or "")),
        "status": _plain(str(log.get("status") or "")),
        "error_records": [_plain(message) for message in _messages(log.get("error_records"))],
        "warning_records": [_plain(message) for message in _messages(log.get("warning_records"))],
    }


def _stat(kind: str, stat: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: stat.get(name) for name in ("event_count_past_hour", "latest_event_ts")}
    return {
        "events": kind,
        **{name: value if isinstance(value, int | float) else None for name, value in figures.items()},
    }


def _findings(response: Response, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """What is said of each event; an answer in the form of a sent request's names one event at most."""
    most, logs = len(response.request.events), answer.get("event_logs")
    if not isinstance(logs, list):
        index = _member(answer.get("event"), most) if most > 1 else 0
        if index is not None and not _about_token(response, answer):
            yield from ((index, "error", _plain(words)) for words in _messages(answer.get("errors")))
        return
    for place, log in enumerate(logs):
        if not isinstance(log, dict):
            continue
        index = _member(log.get("event", place), most)
        if index is None:
            continue
        errors = _messages(log.get("errors"))
        if not errors and log.get("status") == "INVALID":
            errors = ["invalid, without a reason"]
        yield from ((index, "error", _plain(words)) for words in errors)
        yield from ((index, "warning", _plain(words)) for words in _messages(log.get("warnings")))


def _refused(response: Response, answer: Mapping[str, Any]) -> Outcome:
    """An INVALID answer: about the token (Snap reports a bad one as 400 too), one event it names, or who knows."""
    if _about_token(response, answer):
        return Hold(_REFUSED_ACCESS)
    reason = f"Snap refused the event: {_said(answer) or 'it gives no reason'}; correct the field, then retry"
    events = response.request.events
    if len(events) == 1:
        return Rejected(reason)
    if (index := _member(answer.get("event"), len(events))) is not None:
        return Split(reason, rejected={index: reason})
    return Split("Snap refused the batch and names no event: it is divided to find which")


def _about_token(response: Response, answer: Mapping[str, Any]) -> bool:
    said = _said(answer) or _plain(response.body[:4096].decode("utf-8", "replace"))
    return _ABOUT_TOKEN.search(said) is not None


def _member(index: Any, events: int) -> int | None:
    """The index where it is that of an event of the request."""
    return index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < events else None


def _said(answer: Mapping[str, Any]) -> str:
    """Snap's codes and messages, safe to show; empty where it gives none in the documented shape."""
    errors = answer.get("errors")
    messages = _messages(errors) if isinstance(errors, dict) else []
    return _plain(", ".join(dict.fromkeys([*messages, *_scalars(answer.get("reason"))])))


def _messages(said: Any) -> list[str]:
    """The texts of ``{"codes": [...], "error_msgs": [...]}``, or of a list of texts or of such objects."""
    if isinstance(said, dict):
        return [*_scalars(said.get("codes")), *_scalars(said.get("error_msgs"))]
    if isinstance(said, list):
        return [message for one in said for message in (_messages(one) if isinstance(one, dict) else _scalars(one))]
    return _scalars(said)


def _plain(text: str) -> str:
    """``text`` without what it may repeat from an event: quotations, addresses, long numbers, anything but words."""
    kept: list[str] = []
    for word in _QUOTED.sub(_unquoted, text[:4096]).split():
        shown = word if _PLAIN_WORD.fullmatch(word) else "…"
        if not (shown == "…" and kept and kept[-1] == "…"):
            kept.append(shown)
    plain = " ".join(kept)
    return plain if len(plain) <= _LONGEST_QUOTE else plain[: _LONGEST_QUOTE - 1] + "…"


def _unquoted(found: re.Match[str]) -> str:
    inside = next(group for group in found.groups() if group is not None)
    return inside if inside in _KNOWN_WORDS else " … "


def _scalars(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if isinstance(one, str | int) and not isinstance(one, bool)]
