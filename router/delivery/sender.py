"""Between a lane and its partner: requests from events, and from an answer what it means and what of it is kept."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from router import retry
from router.clock import Clock
from router.delivery.ends import Job
from router.delivery.redact import redacted
from router.delivery.subjects import key
from router.destination import Destination, Request, Response
from router.event import Event, telling, withheld, without
from router.outbox.state.deliveries import Attempt
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry, Split
from router.secret import Secret
from router.transport import Failure, Transport

log: Any = structlog.get_logger()


class Written(msgspec.Struct):
    """What a destination made of some jobs: requests with the jobs they carry, and ends without a request."""

    requests: list[tuple[Request, list[Job]]] = []
    ended: list[tuple[Job, str]] = []  # with the reason


class Sender:
    """One lane's way to its partner. Keeps no queue and knows no pace."""

    def __init__(self, name: str, destination: Destination, clock: Clock, concurrency: int) -> None:
        self._name, self._destination, self._clock = name, destination, clock
        self._transport = Transport.to(destination, name, clock, concurrency)
        self._withheld = withheld(destination.clear)
        self._secrets = tuple(secret.reveal() for secret in destination.all_secrets())

    async def close(self) -> None:
        await self._transport.close()

    # Out

    def write(self, jobs: Sequence[Job]) -> Written:
        """Every job is in one request or ended. A fault in the destination's mapping ends one event, never the lane."""
        now = self._clock.now()
        try:
            visible = [without(job.event, self._withheld) for job in jobs]
            return _paired(jobs, visible, list(self._destination.requests(visible, now)))
        except BaseException as error:  # noqa: BLE001 - whatever a partner's file raises, sys.exit too, ends one event
            if len(jobs) > 1:
                parts = [self.write([job]) for job in jobs]
                return Written(
                    [pair for part in parts for pair in part.requests], [end for part in parts for end in part.ended]
                )
            log.warning("mapping_failed", destination=self._name, reason=type(error).__name__)
            reason = f"the mapping failed ({type(error).__name__}): report it with the event's id"
            return Written(ended=[(job, reason) for job in jobs])

    def subject(self, job: Job) -> str | None:
        """What the job is about, as the outbox keeps it. A fault here is one of the mapping, which ``write`` meets."""
        try:
            subject = self._destination.subject(without(job.event, self._withheld))
            return None if subject is None else key(subject)
        except BaseException:  # noqa: BLE001 - whatever a partner's file raises
            return None

    def parted(self, jobs: Sequence[Job], closed: Mapping[str, str]) -> tuple[list[Job], list[tuple[Job, str]]]:
        """Those that may be sent, and those that are kept out because their subject is ``closed``, with the reason."""
        free: list[Job] = []
        shut: list[tuple[Job, str]] = []
        for job in jobs:
            if (reason := closed.get(job.subject or "")) is not None and self._kept_out(job):
                shut.append((job, reason))
            else:
                free.append(job)
        return free, shut

    def _kept_out(self, job: Job) -> bool:
        try:
            return self._destination.kept_out(without(job.event, self._withheld))
        except BaseException:  # noqa: BLE001 - whatever a partner's file raises
            return True

    # And back

    async def send(self, request: Request, jobs: Sequence[Job]) -> tuple[Outcome, Attempt]:
        """One request on the wire and what it means."""
        began = self._clock.now()
        answer = await self._transport.send(request)
        at = self._clock.now()
        status, text = None, None
        if isinstance(answer, Response):
            status, outcome = answer.status, self._classified(answer, at)
            if remarkable(outcome, jobs):
                text = redacted(answer.body, (*self._secrets, *self._told(answer)))
        else:
            outcome = _of_failure(answer)
        reason = getattr(outcome, "reason", None)
        kind = type(outcome).__name__.lower()
        seqs = [job.seq for job in jobs]
        return outcome, Attempt(seqs=seqs, began=began, at=at, outcome=kind, status=status, reason=reason, answer=text)

    def _classified(self, answer: Response, at: int) -> Outcome:
        try:
            outcome = _checked(self._destination.outcome(answer))
        except BaseException:  # sys.exit too: nothing is awaited here, so no cancellation of ours is meant
            log.exception("outcome_failed", destination=self._name)
            outcome = Retry("the answer could not be read")
        return _sane(outcome, answer, at)

    def _told(self, answer: Response) -> Iterable[str]:
        """Clear values that this partner was sent and may repeat."""
        for event in answer.request.events:
            yield from telling(event.clear, self._destination.clear)


def remarkable(outcome: Outcome, jobs: Sequence[Job]) -> bool:
    """Is an attempt worth a row of its own? A delivery at the first try is not: its run says it all."""
    return not isinstance(outcome, Delivered) or bool(outcome.rejected) or any(job.attempts for job in jobs)


def _paired(jobs: Sequence[Job], visible: Sequence[Event], pieces: Sequence[Request | Refusal]) -> Written:
    """Who is in which request. Nearly always all are in one, in their own order. One that carries nobody is not sent."""
    for piece in pieces:
        _check(piece)
    if len(pieces) == 1 and isinstance(pieces[0], Request) and _same(pieces[0].events, visible):
        return Written([(pieces[0], list(jobs))], [])
    by_id: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        by_id.setdefault((job.event.source, job.event.id), []).append(job)
    written = Written([], [])
    for piece in pieces:
        if isinstance(piece, Refusal):
            written.ended.append((by_id[piece.event.source, piece.event.id].pop(0), piece.reason))
        elif piece.events:
            written.requests.append((piece, [by_id[each.source, each.id].pop(0) for each in piece.events]))
    if any(by_id.values()):
        raise ValueError("the destination left an event out")
    return written


def _check(piece: Request | Refusal) -> None:
    """A struct takes whatever it is given: an error for what can be neither sent nor written down."""
    if isinstance(piece, Refusal):
        piece.reason.encode()
        return
    memoryview(piece.body)
    texts = (piece.url, *piece.headers, *piece.headers.values(), *piece.query, *piece.query.values())
    if not all(isinstance(text, str | Secret) for text in texts):
        raise TypeError("an address, a header and a query are text")


def _same(carried: Sequence[Event], given: Sequence[Event]) -> bool:
    return len(carried) == len(given) and all(map(operator.is_, carried, given))


_TAKEN = Delivered()
_OUTCOME: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)


def _checked(outcome: Outcome) -> Outcome:
    """An error for what is no outcome through and through: a reason that is no text could not be written down, and with
    it nothing of any other lane.
    """
    return outcome if outcome == _TAKEN else _OUTCOME.decode(msgspec.json.encode(outcome))


def _sane(outcome: Outcome, answer: Response, at: int) -> Outcome:
    """What a destination returned, with numbers that can be waited for and indexes that exist."""
    match outcome:
        case Retry(reason=reason, after=None, until=None):
            return Retry(reason, after=retry.retry_after(answer.headers.get("retry-after"), at))
        case Retry(reason=reason, after=after, until=until):
            usable = after is not None and math.isfinite(after) and after > 0
            return Retry(reason, after=min(after or 0.0, retry.LONGEST_RETRY_AFTER) if usable else None, until=until)
        case Split(reason=reason, rejected=rejected):
            return Split(reason, _existing(rejected, answer))
        case Delivered(rejected=rejected) if rejected:
            return msgspec.structs.replace(outcome, rejected=_existing(rejected, answer))
        case _:
            return outcome


def _existing(rejected: dict[int, str], answer: Response) -> dict[int, str]:
    return {index: reason for index, reason in rejected.items() if 0 <= index < len(answer.request.events)}


def _of_failure(failure: Failure) -> Outcome:
    match failure.kind:
        case "tls" | "blocked" | "address":
            return Hold(failure.reason)
        case "request":
            return Rejected(failure.reason)
        case _:
            return Retry(failure.reason)
