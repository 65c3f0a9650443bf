"""What a lane has in hand: taken from the outbox and not yet at its end. In memory; if the process dies, all of it still
waits in the outbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from router.delivery.ends import Job
from router.delivery.subjects import Subjects
from router.destination import Request
from router.outbox.state.deliveries import Mark
from router.outbox.state.lane import Lane


class Ready(msgspec.Struct, frozen=True):
    """A request that waits for its turn, the jobs that it carries, and when it was written (UTC ms)."""

    request: Request
    jobs: list[Job]
    at: int


class Hand:
    """``again`` are to be written as requests once more, ``ready`` are written, ``parked`` have a row in the outbox.

    ``written_at``: how many erasures there had been when what is ready was written.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.again: deque[list[Job]] = deque()
        self.ready: deque[Ready] = deque()
        self.written_at = 0
        self.parked: set[int] = set()
        self.subjects = Subjects()

    def take_again(self, jobs: list[Job]) -> None:
        """To be sent as soon as the lane may."""
        if jobs:
            self.again.append(jobs)
            self._lane.more.set()

    def unwrite(self) -> None:
        """What is ready is to be written anew when the lane may go on: signatures age."""
        while self.ready:
            self.take_again(self.ready.popleft().jobs)

    def leave(self, marks: Iterable[Mark]) -> None:
        """What became of these is on disk."""
        for mark in marks:
            self.take_again(self.subjects.leave(mark.seqs))
            if mark.parked:
                self.parked.difference_update(mark.seqs)
                self._lane.next_due = 0  # look again: some wait anew
            if mark.parked or mark.due is not None:
                self._lane.more.set()

    def drop(self, seqs: frozenset[int] | None) -> list[int]:
        """Let go of the meant ones, or of all, among what waits here; returns the fresh ones, which have no row yet."""
        waiting = [self.subjects.give_up(seqs), *self.again, *(each.jobs for each in self.ready)]
        self.again.clear()
        self.ready.clear()
        fresh: list[int] = []
        for jobs in waiting:
            fresh += self._dropped(jobs, seqs)
        return fresh

    def _dropped(self, jobs: Sequence[Job], seqs: frozenset[int] | None) -> list[int]:
        dropped = [job for job in jobs if seqs is None or job.seq in seqs]
        self.parked.difference_update(job.seq for job in dropped)
        following = self.subjects.leave([job.seq for job in dropped])
        self.take_again([job for job in jobs if seqs is not None and job.seq not in seqs])
        self.take_again(following)
        return [job.seq for job in dropped if not job.parked]
