"""Webhooks: what a source's partner posts to us, signed. What it signs is the bytes, so these are looked at first.

Sources with a ``webhook_secret`` have one, at /webhooks/NAME.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from router.clock import Clock
from router.collect import packing
from router.collect.intake import Intake
from router.collect.keys import Sender
from router.dialects import snitcher
from router.secret import Secret
from router.settings import Snitcher, Source
from router.visit import Visit

SIGNATURE = "X-Snitcher-Signature"


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    sender: Sender
    source: Snitcher
    secret: Secret

    def signed(self, raw: bytes, signature: str) -> bool:
        """Is this the partner's signature of these bytes? ``sha256=`` and an HMAC in hex; compared in constant time.

        Source: Snitcher, webhooks, X-Snitcher-Signature.
        """
        expected = "sha256=" + hmac.new(self.secret.reveal().encode(), raw, hashlib.sha256).hexdigest()
        given = signature.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(expected.encode(), given)


def hooks(sources: Mapping[str, Source | Snitcher], senders: Mapping[str, Sender]) -> dict[str, Hook]:
    """Those that have a secret to sign with, by name."""
    return {
        name: Hook(sender=senders[name], source=source, secret=source.webhook_secret)
        for name, source in sources.items()
        if isinstance(source, Snitcher) and source.webhook_secret is not None and source.webhook_secret.reveal()
    }


class WebhookResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a webhook: with a ``code`` nothing of it was taken."""

    status: int = 200
    code: str | None = None
    message: str = ""
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0


class Webhooks:
    """Takes what partners post. ``hooks`` may be replaced while it runs."""

    def __init__(self, hooks: Mapping[str, Hook], intake: Intake, clock: Clock) -> None:
        self.hooks = hooks
        self._intake, self._clock = intake, clock

    async def receive(self, name: str, raw: bytes, signature: str) -> WebhookResult:
        """NotDurable where it could not be stored."""
        if (hook := self.hooks.get(name)) is None:
            return WebhookResult(status=404, code="not_found", message="there is no webhook here any more")
        if not hook.signed(raw, signature):
            words = (
                "must be sha256=<hex of HMAC-SHA256 of the body>, made with webhook_secret; check the webhook's secret"
            )
            return WebhookResult(status=401, code="bad_signature", message=f"{SIGNATURE} {words}")
        if not hook.source.enabled:
            return WebhookResult(
                status=403, code="source_disabled", message="this source is switched off; ask its operator"
            )
        payload = snitcher.decoded(raw)
        if not isinstance(payload, dict):
            message = "the body is not one JSON object; send it as it is documented"
            return WebhookResult(status=400, code="malformed_json", message=message)
        if not snitcher.names_its_event(payload):
            message = "event is missing: send the name of what happened, as company.identified"
            return WebhookResult(status=400, code="missing", message=message)
        return await self._stored(payload, hook)

    async def _stored(self, payload: dict[str, object], hook: Hook) -> WebhookResult:
        source = hook.source
        items = snitcher.webhook_items(
            payload, source.form_fields, unknown=source.unknown_events == "track", companies=source.companies
        )
        visit = Visit(received=self._clock.now(), dialect=snitcher.NAME)
        answers = [await self._intake.take(body, hook.sender, visit) for body in packing.packed(items)]
        return WebhookResult(
            accepted=sum(each.accepted for each in answers),
            duplicate=sum(each.duplicate for each in answers),
            rejected=sum(each.rejected for each in answers),
        )
