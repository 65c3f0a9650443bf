"""Webhook: every event to an address of your own, signed as https://www.standardwebhooks.com asks.

The body is ``{"type", "timestamp", "data"}``; ``data`` is the event, or with ``batch`` a list of events.
"""

import base64
import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from router.destination import Complaint, Destination, Request, mapped
from router.event import Event, bare, payload
from router.secret import Secret

_ADDRESS = 'the address of a server, as "https://host/path": https or http, no user and no #fragment'
Address = Annotated[
    str,
    Meta(pattern=r"^https?://[^\s@/?#]+([/?][^\s#]*)?\Z", description="Where to post.", extra={"looks": _ADDRESS}),
]
Secrets = Annotated[
    tuple[Secret, ...], Meta(min_length=1, description='"whsec_...": all sign, so that one can rotate.')
]
_NAME = "a header's name in letters, digits and -; webhook-*, content-*, transfer-* and host are set here"
Name = Annotated[
    str, Meta(pattern=r"^(?!(?i:webhook-|content-|transfer-|host\Z))[A-Za-z0-9-]+\Z", extra={"looks": _NAME})
]
_VALUE = "text in ASCII without a line end"  # it would begin a header of its own
Value = Annotated[str, Meta(pattern=r"^[\x20-\x7e]*\Z", extra={"looks": _VALUE})]
_encode = msgspec.json.Encoder().encode
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
        keys, sent_at = [_signing_key(secret) for secret in self.secrets], str(now // 1000)
        if self.largest_batch() > 1:
            events = sorted(events, key=lambda event: (event.time, event.id))  # same members: same id, same bytes
            digest = hashlib.sha256(msgspec.json.encode([event.id for event in events])).hexdigest()
            data = b"[%b]" % b",".join([self._data(event) for event in events])
            yield self._post(digest, "turnout.batch", data, tuple(events), sent_at, keys)
        else:
            for event in events:
                message_id = event.id.encode("unicode_escape").decode()  # a header takes ASCII without line breaks
                yield self._post(message_id, self.partner_name(event), self._data(event), (event,), sent_at, keys)

    def _data(self, event: Event) -> bytes:
        """The event as JSON, without its clear values."""
        if not self.map:
            return payload(event)
        return _encode(mapped(msgspec.to_builtins(bare(event)), event, self.map))

    def _post(
        self, message_id: str, kind: str | None, data: bytes, events: tuple[Event, ...], sent_at: str, keys: list[bytes]
    ) -> Request:
        newest = dt.datetime.fromtimestamp(events[-1].time / 1000, dt.UTC).isoformat(timespec="milliseconds")
        body = b'{"type":%b,"timestamp":"%b","data":%b}' % (
            _encode(kind),
            newest.encode().replace(b"+00:00", b"Z"),
            data,
        )
        signed = b"%b.%b.%b" % (message_id.encode(), sent_at.encode(), body)
        headers = {
            **self.headers,
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": sent_at,
            "webhook-signature": " ".join([_signature(key, signed) for key in keys]),
        }
        return Request(url=self.endpoint(""), body=body, events=events, headers=headers)


def _signing_key(secret: Secret) -> bytes:
    return base64.b64decode(secret.reveal().removeprefix("whsec_") + "==")  # where it came without; more is skipped


def _signature(key: bytes, signed: bytes) -> str:
    """As the library of Standard Webhooks makes it, which takes ten times as long: it begins anew for every message."""
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
