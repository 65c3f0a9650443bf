"""Whoever counts what lanes do."""

from __future__ import annotations


class Observer:
    """Told what happened, for metrics. Override what you count."""

    def attempted(self, lane: str, outcome: str, status: int | None, duration: float) -> None:
        """One request was answered or failed, after so many seconds."""

    def delivered(self, lane: str, count: int, oldest: float) -> None:
        """So many events were taken by the partner; ``oldest`` is the age of the oldest in seconds."""
