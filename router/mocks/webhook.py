"""A careful receiver of our webhooks: Standard Webhooks headers, and the body that the README promises.

It verifies by its own HMAC, not by the package that signs, and remembers every webhook-id: the same id with another
body is a fault of the sender. Source: https://github.com/standard-webhooks/standard-webhooks (Specification).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from router.mocks.partner import Answer, Call, Partner

TOLERANCE = 300  # seconds between the sender's clock and ours
BATCH = "turnout.batch"

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)
_ALWAYS = frozenset({"id", "name", "time", "received", "source", "dialect"})  # what every event has


class Webhook(Partner):
    """``secret`` is the one this receiver verifies with (``whsec_...``); None leaves signatures unchecked."""

    name: ClassVar[str] = "webhook"

    def __init__(self, *, now: Callable[[], int], seed: int = 0, secret: str | None = None) -> None:
        super().__init__(now=now, seed=seed)
        self.secret = secret

    def reset(self) -> None:
        super().reset()
        self.bodies: dict[str, bytes] = {}  # webhook-id -> digest of the body it came with

    def answer(self, call: Call) -> Answer:
        fault = _headers_fault(call) or self._signature_fault(call)
        if fault is not None:
            return _refusal(401, fault)
        message = call.json()
        if (fault := _body_fault(message, call.headers["webhook-id"])) is not None:
            return _refusal(400, fault)
        digest = hashlib.sha256(call.body).digest()
        if self.bodies.setdefault(call.headers["webhook-id"], digest) != digest:
            return _refusal(409, "this webhook-id came with another body before")
        data = message["data"]
        return Answer(204, keys=tuple(event["id"] for event in (data if isinstance(data, list) else [data])))

    def _signature_fault(self, call: Call) -> str | None:
        if self.secret is None:
            return None
        key = base64.b64decode(self.secret.removeprefix("whsec_") + "==")
        signed = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.body
        expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        given = [part.removeprefix("v1,") for part in call.headers["webhook-signature"].split(" ")]
        return None if any(hmac.compare_digest(expected, one) for one in given) else "no signature matches"


def _headers_fault(call: Call) -> str | None:
    if call.method != "POST":
        return "only POST is taken"
    if call.media_type() != "application/json":
        return "Content-Type must be application/json"
    if not call.headers.get("webhook-id"):
        return "webhook-id is missing"
    stamp = call.headers.get("webhook-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit()) or abs(int(stamp) - call.at / 1000) > TOLERANCE:
        return "webhook-timestamp must be seconds, within five minutes"
    signatures = call.headers.get("webhook-signature", "").split(" ")
    if not all(one.startswith("v1,") for one in signatures):
        return "webhook-signature must be v1,<base64>"
    return None


def _body_fault(message: Any, webhook_id: str) -> str | None:
    if not isinstance(message, dict) or message.keys() != {"type", "timestamp", "data"}:
        return "the body must be an object of type, timestamp and data"
    if not isinstance(message["type"], str) or not message["type"]:
        return "type must be text"
    if not _is_instant(message["timestamp"]):
        return "timestamp must be ISO 8601 in UTC with milliseconds"
    data = message["data"]
    if message["type"] == BATCH:
        return _members_fault(data)
    if (fault := _event_fault(data)) is not None:
        return fault
    escaped = data["id"].encode("unicode_escape").decode()
    return None if escaped == webhook_id else "webhook-id must be the id of the event, escaped where a header needs it"


def _members_fault(data: Any) -> str | None:
    if not isinstance(data, list) or not data:
        return "data of a batch must be a list of events"
    faults = [fault for event in data if (fault := _event_fault(event)) is not None]
    if faults:
        return faults[0]
    return None if len({event["id"] for event in data}) == len(data) else "a batch must not repeat an event"


def _event_fault(event: Any) -> str | None:
    if not isinstance(event, dict) or not event.keys() >= _ALWAYS:
        return "an event must have " + ", ".join(sorted(_ALWAYS))
    if not isinstance(event["id"], str) or not event["id"]:
        return "the id of an event must be text"
    return "an event must not carry personal data in clear" if "clear" in event else None


def _is_instant(value: Any) -> bool:
    try:
        return (
            isinstance(value, str) and bool(_TIMESTAMP.fullmatch(value)) and bool(msgspec.convert(value, dt.datetime))
        )
    except msgspec.ValidationError:
        return False


def _refusal(status: int, reason: str) -> Answer:
    return Answer(status, {"message": reason}, reason=reason)
