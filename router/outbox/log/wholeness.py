"""What must be true of an outbox's files before it opens: a file that went is never replaced by an empty one, and a state
that is older than its log is not written on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from router.outbox.errors import OutboxError
from router.outbox.log.entries import Segment, filled, has_events

log: Any = structlog.get_logger()


def need_state(directory: Path) -> None:
    """OutboxError where there is a log and no state."""
    if not filled(directory / "state.db") and any((directory / "log").iterdir()):
        raise OutboxError(f"{directory} has a log but no state.db, or an empty one: restore it from a backup")


def need_segments(directory: Path, known: Sequence[Segment], *, killed: bool) -> None:
    """OutboxError where a segment is lost. After a kill the last commits stand beside the newest one; where that is gone,
    they went with it, and the log says so.
    """
    paths = [segment.path(directory) for segment in known]
    for path in paths:
        if not filled(path):
            raise OutboxError(f"{path} is missing or empty: restore it from a backup")
    if paths and killed and not (newest := paths[-1]).with_name(f"{newest.name}-wal").exists():
        reason = "after a kill its -wal is missing: unless a program has folded it in, the last events went with it"
        log.error("wal_missing", file=newest.name, reason=f"{reason}; compare with a backup")


def refuse_unknown_events(directory: Path, known: Sequence[Segment]) -> None:
    """OutboxError for a log that goes on beyond the state: that is an older one, put back."""
    newest = known[-1].number if known else 0
    for path in sorted((directory / "log").glob("*.db")):
        if path.stem.isdigit() and int(path.stem) > newest and has_events(path):
            raise OutboxError(f"{path} is newer than state.db: restore both from one backup")
