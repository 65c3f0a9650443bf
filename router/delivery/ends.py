"""What an outcome makes of each event: jobs and an attempt in, marks for the outbox out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from router import retry
from router.destination import Destination
from router.event import Event
from router.outbox.state.deliveries import Attempt, Closing, Mark
from router.outcome import Delivered, Outcome, Rejected
from router.settings import seconds

LONGEST_QUOTA = 45 * 86_400_000  # ms
OUTLASTED = "passing faults for as long as retry_for allows"
LONGEST_CLOSE = 3653 * 86_400.0  # seconds


class Job(msgspec.Struct, frozen=True):
    """One event on its way. ``parked``: it has a row in the outbox, from an earlier try, and waits ``since`` then."""

    seq: int
    event: Event
    attempts: int = 0
    parked: bool = False
    since: int | None = None  # UTC ms
    subject: str | None = None  # what it is about, where the destination cares


def window(destination: Destination) -> int | None:
    """How old an event may be to be sent, in ms; None where it may be of any age."""
    return int(seconds(limit) * 1000) if (limit := destination.age_limit()) else None


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1))


def expired(age: int, window: int) -> str:
    """Why an event older than the window is not sent; both in ms. The age is rounded down, so that reasons group."""
    unit, size = next(each for each in _UNITS if age // each[1] * each[1] > window)
    limit, whole = next(each for each in _UNITS if window % each[1] == 0)
    return f"expired: {age // size} {unit} old, at most {window // whole} {limit}"


def tried(job: Job) -> Job:
    """The job with one more attempt spent."""
    return Job(job.seq, job.event, job.attempts + 1, job.parked, job.since, job.subject)


def _alike(jobs: Sequence[Job]) -> dict[tuple[int, bool], list[int]]:
    """Sequence numbers by (attempts so far, parked)."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for job in jobs:
        groups.setdefault((job.attempts, job.parked), []).append(job.seq)
    return groups


def delivered(jobs: Sequence[Job], outcome: Delivered, attempt: Attempt) -> list[Mark]:
    """The batch was taken, but for the members that the outcome names."""
    taken = [job for index, job in enumerate(jobs) if index not in outcome.rejected]
    marks = [
        Mark(
            seqs=seqs,
            state="delivered",
            at=attempt.at,
            began=attempt.began,
            parked=parked,
            attempts=attempts + 1,
            status=attempt.status,
            duplicate=outcome.duplicate,
            unverified=outcome.unverified,
            free=outcome.free,
        )
        for (attempts, parked), seqs in _alike(taken).items()
    ]
    return marks + rejected(jobs, outcome.rejected, attempt)


def rejected(jobs: Sequence[Job], reasons: Mapping[int, str], attempt: Attempt) -> list[Mark]:
    """The members with these indexes are dead, each with its reason."""
    return [
        Mark(
            seqs=(jobs[index].seq,),
            state="dead",
            at=attempt.at,
            began=attempt.began,
            parked=jobs[index].parked,
            attempts=jobs[index].attempts + 1,
            status=attempt.status,
            reason=reason,
            subjects=_subjects([jobs[index]]),
        )
        for index, reason in reasons.items()
        if 0 <= index < len(jobs)
    ]


def retried(
    jobs: Sequence[Job], attempt: Attempt, *, after: float | None, until: int | None, chance: float
) -> list[Mark]:
    """Waiting for another try: by our schedule, or later where the partner says so."""
    marks = []
    for (attempts, parked), seqs in _alike(jobs).items():
        wait = max(retry.delay(attempts + 1, chance), after or 0.0)
        due = max(attempt.at + int(wait * 1000), min(until or 0, attempt.at + LONGEST_QUOTA))
        marks.append(
            Mark(
                seqs=seqs,
                state="waiting",
                at=attempt.at,
                began=attempt.began,
                parked=parked,
                attempts=attempts + 1,
                due=due,
                status=attempt.status,
                reason=attempt.reason,
                subjects=_subjects(jobs),
            )
        )
    return marks


def forgotten(marks: Sequence[Mark], seqs: Collection[int]) -> list[Mark]:
    """The marks, in which those of ``seqs`` that were not delivered are erased: their people were forgotten meanwhile."""
    parts: list[Mark] = []
    for mark in marks:
        parts += [mark] if mark.state == "delivered" else _apart(mark, seqs)
    return [part for part in parts if part.seqs]


def _apart(mark: Mark, theirs: Collection[int]) -> tuple[Mark, Mark]:
    gone = [seq for seq in mark.seqs if seq in theirs]
    left = [seq for seq in mark.seqs if seq not in theirs]
    erased = Mark(seqs=gone, state="erased", at=mark.at, parked=mark.parked, attempts=mark.attempts)
    return msgspec.structs.replace(mark, seqs=left), erased


def behind(job: Job, due: int, now: int) -> Mark:
    """It waits until an earlier event about the same subject, which is due then, has its end."""
    reason = "waits behind an earlier event about the same subject"
    return Mark(
        seqs=(job.seq,),
        state="waiting",
        at=now,
        parked=job.parked,
        attempts=job.attempts,
        due=due,
        reason=reason,
        subjects=_subjects([job]),
    )


def closing(jobs: Sequence[Job], outcome: Outcome, at: int) -> list[Closing]:
    """What an outcome means for later events about the same subjects."""
    closes = outcome.closes if isinstance(outcome, Delivered | Rejected) else None
    if closes is None:
        return []
    until = at + int(min(closes.seconds, LONGEST_CLOSE) * 1000)
    final = isinstance(outcome, Delivered)
    return [Closing(job.subject, closes.reason, until, final) for job in jobs if job.subject is not None]


def _subjects(jobs: Sequence[Job]) -> dict[int, str]:
    return {job.seq: job.subject for job in jobs if job.subject is not None}


def unsent(
    jobs: Sequence[Job], state: Literal["filtered", "dead", "erased"], reason: str | None, now: int
) -> list[Mark]:
    """An end that needed no request."""
    return [
        Mark(
            seqs=seqs,
            state=state,
            at=now,
            parked=parked,
            attempts=attempts,
            reason=reason,
            subjects=_subjects(jobs) if state == "dead" else {},
        )
        for (attempts, parked), seqs in _alike(jobs).items()
    ]
