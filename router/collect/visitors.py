"""The click ids of visitors' sessions: an advertiser's parameter is in the address of the landing page only, and counts
for everything the visitor does in that session (Snap, "Sending Click ID").

Known by source and anonymous id, bounded, and forgotten when a visitor has done nothing for the length of a session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

import msgspec

from router.outbox.log import entries
from router.outbox.log.entries import Row
from router.outbox.state.memory import Visitor

MOST = 200_000  # visitors with click ids; the one longest gone gives way
KEPT = "click_kept"  # the note of an event that was given its session's click ids


class Visitors:
    """``session`` (ms) is how long after an event its visitor is the same session's; 0 keeps nothing."""

    def __init__(self, session: int, known: Iterable[Visitor] = (), most: int = MOST) -> None:
        self.session, self._most = session, most
        self._visitors: OrderedDict[tuple[str, str], Visitor] = OrderedDict()
        self._written: dict[tuple[str, str], int] = {}  # when each was last put on disk
        for each in known:
            self._put(each)
            self._written[each.source, each.person] = each.seen

    def __len__(self) -> int:
        return len(self._visitors)

    def attend(self, rows: Sequence[Row]) -> tuple[list[Row], list[Visitor]]:
        """The events with the click ids of their sessions, and what of that is to be put on disk."""
        if not self.session:
            return list(rows), []
        changed: dict[tuple[str, str], Visitor] = {}
        attended = [self._attend(row, changed) if row.anonymous_id else row for row in rows]
        return attended, list(changed.values())

    def forget(self, people: Collection[str]) -> None:
        """Whoever has one of these anonymous ids, at any source: one look at all, however many they are."""
        for key in [each for each in self._visitors if each[1] in people]:
            del self._visitors[key]
            self._written.pop(key, None)

    def _attend(self, row: Row, changed: dict[tuple[str, str], Visitor]) -> Row:
        key = (row.source, row.anonymous_id or "")
        known = self._visitors.get(key)
        if known is not None and row.received - known.seen > self.session:
            known = None
        if known is None and not row.clicks:
            return row
        kept = known.clicks if known is not None else {}
        clicks = {**kept, **row.clicks}
        visitor = Visitor(row.source, key[1], clicks, row.received)
        self._put(visitor)
        # A session that goes on is put on disk again now and then, so that a restart does not end it.
        if clicks != kept or row.received - self._written.get(key, 0) > self.session // 4:
            changed[key] = visitor
            self._written[key] = row.received
        if len(clicks) == len(row.clicks):
            return row
        event = row.read()
        return entries.row(msgspec.structs.replace(event, clicks=clicks, notes=(*event.notes, KEPT)))

    def _put(self, visitor: Visitor) -> None:
        key = (visitor.source, visitor.person)
        self._visitors[key] = visitor
        self._visitors.move_to_end(key)
        if len(self._visitors) > self._most:
            gone, _ = self._visitors.popitem(last=False)
            self._written.pop(gone, None)
