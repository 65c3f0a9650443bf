"""Webhook: every event to an address of your own, signed as https://www.standardwebhooks.com asks.

The body is ``{"type", "timestamp", "data"}``; ``data`` is the event, or with ``batch`` a list of events.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta
from standardwebhooks import Webhook as Signer

from router.destination import Complaint, Destination, Request, mapped
from router.event import Event
from router.secret import Secret

_ADDRESS = 'the address of a server, as "https://host/path": https or http, no user and no #fragment'
Address = Annotated[
    str,
    Meta(pattern=r"^https?://[^\s@/?#]+([/?][^\s#]*)?\Z", description="Where to post.", extra={"looks": _ADDRESS}),
]
Secrets = Annotated[
    tuple[Secret, ...], Meta(min_length=1, description='"whsec_...": all sign, so that one can rotate.')
]
Name = Annotated[str, Meta(pattern=r"^(?!(?i:webhook-|content-|transfer-|host\Z))[A-Za-z0-9-]+\Z")]
Value = Annotated[str, Meta(pattern=r"^[\x20-\x7e]*\Z")]  # no line break: it would begin a header of its own
_SECRET = re.compile(r"(whsec_)?([A-Za-z0-9+/]{4}){5,}([A-Za-z0-9+/]{2,3}={0,2})?")


class Webhook(Destination, tag="webhook", frozen=True, kw_only=True):
    url: Address
    secrets: Secrets
    headers: Annotated[dict[Name, Value], Meta(description="More headers.")] = msgspec.field(default_factory=dict)

    title: ClassVar[str] = "Webhook"
    home: ClassVar[str] = ""  # yours
    docs: ClassVar[str] = "https://www.standardwebhooks.com"
    max_batch: ClassVar[int] = 1000
    dedup_key: ClassVar[str] = "webhook-id"

    def __post_init__(self) -> None:
        for wrong in self.complaints():
            raise ValueError(wrong.words)

    def complaints(self) -> Iterable[Complaint]:
        yield from self._plain_http()
        yield from self._unfit_secrets()

    def _plain_http(self) -> Iterator[Complaint]:
        if not self.allow_private and not self.endpoint("").startswith("https://"):
            key = "url" if self.base_url is None else "base_url"
            words = f"{key} must begin with https://; allow_private = true lets plain http through"
            yield Complaint((key,), words, "correct it, or set allow_private = true if this is meant")

    def _unfit_secrets(self) -> Iterator[Complaint]:
        if not all(_SECRET.fullmatch(secret.reveal()) for secret in self.secrets):
            words = 'secrets must be base64 of 15 bytes or more, as "whsec_..."'
            yield Complaint(("secrets",), words, "copy the whole secret, or make one: openssl rand -base64 24")

    def endpoint(self, path: str) -> str:
        return (self.base_url or self.url) + path

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request]:
        if (self.batch or 1) > 1:
            events = sorted(events, key=lambda event: (event.time, event.id))  # same members: same id, same bytes
            digest = hashlib.sha256(msgspec.json.encode([event.id for event in events])).hexdigest()
            yield self._post(digest, "turnout.batch", [self._data(event) for event in events], events, now)
        else:
            for event in events:
                message_id = event.id.encode("unicode_escape").decode()  # a header takes ASCII without line breaks
                yield self._post(message_id, self.partner_name(event), self._data(event), [event], now)

    def _data(self, event: Event) -> dict[str, Any]:
        data = msgspec.to_builtins(event)
        return mapped({name: value for name, value in data.items() if name != "clear"}, event, self.map)

    def _post(self, message_id: str, kind: str | None, data: Any, events: Sequence[Event], now: int) -> Request:
        newest = dt.datetime.fromtimestamp(events[-1].time / 1000, dt.UTC).isoformat(timespec="milliseconds")
        body = {"type": kind, "timestamp": newest.replace("+00:00", "Z"), "data": data}
        request, sent_at = Request.json(self.endpoint(""), body, events), dt.datetime.fromtimestamp(now // 1000, dt.UTC)
        signatures = [Signer(one.reveal()).sign(message_id, sent_at, request.body.decode()) for one in self.secrets]
        headers = {"webhook-id": message_id, "webhook-timestamp": str(now // 1000)}
        headers["webhook-signature"] = " ".join(signatures)
        return msgspec.structs.replace(request, headers={**self.headers, **request.headers, **headers})
