"""What became of one event at each destination, from its rows, its runs and its attempts."""

from __future__ import annotations

from typing import Any

import aiosqlite
import msgspec

from router import route
from router.event import Event
from router.lifecycle import State
from router.outbox.reads import account
from router.outbox.reads.account import Account
from router.outbox.reads.views import AttemptView, Chapter, CheckView, instant, maybe
from router.outbox.state.cursors import AWAY


async def chapter(state: aiosqlite.Connection, lane: Account, seq: int) -> Chapter:
    tries = await _tries(state, lane.id, seq)
    for kept, attempts, due, at, status, reason, config in await state.execute_fetchall(
        "SELECT state, attempts, due, at, status, reason, config FROM delivery WHERE lane = ? AND seq = ?",
        (lane.id, seq),
    ):
        return Chapter(
            to=lane.name,
            state=kept,
            attempts=attempts,
            due=maybe(due),
            at=instant(at),
            status=status,
            reason=reason,
            config=config,
            tries=tries,
            hold_reason=lane.hold_reason if kept == "waiting" else None,
        )
    for last, kept, began, at, status, reason, config in await state.execute_fetchall(
        "SELECT last, state, began, at, status, reason, config FROM run WHERE lane = ? AND first <= ?"
        " ORDER BY first DESC LIMIT 1",
        (lane.id, seq),
    ):
        if last >= seq:
            return _of_run(lane, kept, began, at, status, reason, config, tries)
    if seq <= lane.start:
        return Chapter(to=lane.name, state="earlier", reason="it came before this destination was there", tries=tries)
    if seq <= lane.cursor:
        return Chapter(to=lane.name, state="unknown", reason="no record of it is kept any more", tries=tries)
    if lane.stop is not None and seq > lane.stop:
        return Chapter(to=lane.name, state="earlier", reason=AWAY, tries=tries)
    trouble = None if lane.hold_reason else await account.trouble(state, lane.id)
    reason = trouble and f"the destination is failing ({trouble}): it is asked again at intervals of at most 15 minutes"
    return Chapter(to=lane.name, state="waiting", reason=reason, tries=tries, hold_reason=lane.hold_reason)


def _of_run(
    lane: Account,
    kept: State,
    began: int | None,
    at: int,
    status: int | None,
    reason: str | None,
    config: int,
    tries: list[AttemptView],
) -> Chapter:
    """A delivery at the first try has no attempt row: its run says it all."""
    if began is not None and not any(each.began == instant(began) for each in tries):
        first = AttemptView(
            began=instant(began), duration_ms=at - began, outcome=kept, events=1, status=status, config=config
        )
        tries = sorted([*tries, first], key=lambda each: each.began)  # a replay's come later
    return Chapter(
        to=lane.name,
        state=kept,
        attempts=1 if kept == "delivered" else 0,
        at=instant(at),
        status=status,
        reason=reason,
        config=config,
        tries=tries,
    )


async def _tries(state: aiosqlite.Connection, lane: int, seq: int) -> list[AttemptView]:
    rows = await state.execute_fetchall(
        "SELECT seqs, began, at, outcome, status, reason, answer, config FROM attempt"
        " WHERE lane = ?1 AND first <= ?2 AND last >= ?2 ORDER BY began, id",
        (lane, seq),
    )
    tries = []
    for seqs, began, at, outcome, status, reason, answer, config in rows:
        stretches = msgspec.json.decode(seqs, type=list[tuple[int, int]])
        if any(first <= seq <= last for first, last in stretches):
            tries.append(
                AttemptView(
                    began=instant(began),
                    duration_ms=at - began,
                    outcome=outcome,
                    events=sum(last - first + 1 for first, last in stretches),
                    status=status,
                    reason=reason,
                    answer=answer,
                    config=config,
                )
            )
    return tries


def checks(rule: route.Rule, event: Event) -> list[CheckView]:
    return [CheckView(check.name, check.ok, check.words) for check in route.explain(rule, event)]


def digests(event: Event | None) -> tuple[str, ...]:
    if event is None:
        return ()
    digests = event.user.digests
    return tuple(name for name in digests.__struct_fields__ if getattr(digests, name) is not None)


def fields(event: Event | None) -> dict[str, Any]:
    """The normalised event as plain values, without digests: they are of one person as much as what they stand for."""
    if event is None:
        return {}
    fields: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(user := fields.get("user"), dict):
        user.pop("digests", None)
        if not user:
            del fields["user"]
    return fields
