"""Which events of a lane must wait for an earlier one about the same subject: the same click, the same link. In memory.

An event leaves hand when its end or its next wait is written down; the next one about its subject comes to hand then.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Sequence

from router.delivery.ends import Job

MOST_BEHIND = 5_000  # events that wait in memory; a lane reads no further ones meanwhile


def key(subject: str) -> str:
    """A subject as the outbox keeps it: what it was cannot be read from it."""
    return hashlib.blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Subjects:
    """One job of a subject is in hand; those behind it come in the order of their numbers."""

    def __init__(self) -> None:
        self._in_hand: dict[str, int] = {}  # subject -> sequence number
        self._subject: dict[int, str] = {}  # and the other way round
        self._behind: dict[str, deque[Job]] = {}
        self.waiting = 0

    def take(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that come to hand now, or are in hand already; the others are kept behind them."""
        free = []
        for job in jobs:
            if job.subject is None or self._in_hand.get(job.subject, job.seq) == job.seq:
                self._hold(job)
                free.append(job)
            else:
                self._behind.setdefault(job.subject, deque()).append(job)
                self.waiting += 1
        return free

    def _hold(self, job: Job) -> None:
        if job.subject is not None:
            self._in_hand[job.subject] = job.seq
            self._subject[job.seq] = job.subject

    def leave(self, seqs: Sequence[int]) -> list[Job]:
        """These left hand; returns those that were next in line and are in hand now."""
        following = []
        for seq in seqs:
            subject = self._subject.pop(seq, None)
            if subject is None:
                continue
            del self._in_hand[subject]
            if line := self._behind.get(subject):
                job = line.popleft()
                self.waiting -= 1
                if not line:
                    del self._behind[subject]
                self._hold(job)  # at once, so that none that comes now gets in before it
                following.append(job)
        return following

    def give_up(self, seqs: Collection[int] | None) -> list[Job]:
        """These, or all with None, are behind nothing any more and are returned; the others keep their places."""
        gone: list[Job] = []
        for subject, line in list(self._behind.items()):
            left = deque(job for job in line if seqs is not None and job.seq not in seqs)
            gone += [job for job in line if seqs is None or job.seq in seqs]
            if left:
                self._behind[subject] = left
            else:
                del self._behind[subject]
        self.waiting -= len(gone)
        return gone
