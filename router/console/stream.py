"""The live view: every event as it is stored, and every delivery as it is settled, as server-sent events.

Events are read from the log at the reader's own pace: however slow it is, none is left out, none is sampled, and nobody
waits for it. Deliveries wait in a queue of so many; what does not fit is sent as a ``gap``, and so are events that are no
longer stored. A delivery is sent after its event. Who comes back with ``Last-Event-ID`` is sent the events behind it, and
once more how the deliveries of those just before it stand; whoever reads must bear the same delivery twice.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from aiohttp import web

from router import quality, route
from router.console import guard
from router.console.answers import Fault
from router.delivery.engine import Delivery
from router.event import Event
from router.outbox.errors import OutboxError
from router.outbox.log.entries import KEPT, Stored
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Accepted, EventView, Gap, Message, Settled, accepted, instant, maybe
from router.outbox.state.deliveries import Mark

log: Any = structlog.get_logger()

EVENT_STREAM = "text/event-stream"

MOST_STREAMS = 32
MOST_NOTICES = 10_000  # deliveries that wait for one slow reader
HEARTBEAT = 15.0  # seconds without a byte, after which a proxy in between may hang up
PATIENCE = 0.5  # seconds in which a stream ends by itself when the server stops
TOLD_AGAIN = 1_000  # events before the last one seen, how whose deliveries stand is told to who comes back
COME_BACK = 30  # seconds, for those who find every place taken
_BATCH = 64  # messages between two looks at the other requests: a few ms
_KEPT = 4_096  # messages of events kept for all readers

# nginx gathers answers unless told so.
_HEADERS = {**guard.HEADERS, "Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"}
_encode = msgspec.json.Encoder().encode


class Question(NamedTuple):
    """What a reader wants: events of one ``source`` and ``name``, deliveries of one destination, behind an event.

    ``resumed``: it was here before.
    """

    source: str | None = None
    to: str | None = None
    name: str | None = None
    after: int | None = None
    resumed: bool = False

    def wants(self, event: Accepted | EventView | None) -> bool:
        """Is this event, or a delivery of it, to be shown? One that is damaged or gone may be anybody's."""
        if event is None or event.source is None:
            return True
        return self.source in {None, event.source} and self.name in {None, event.name}


class Notice(NamedTuple):
    """What became of one event of a lane."""

    seq: int
    lane: str
    mark: Mark


class Notices:
    """Deliveries that wait to be told, in order, ``most`` of them; in the place of what did not fit is how many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: deque[Notice | Gap] = deque()

    def add(self, lane: str, mark: Mark) -> None:
        room = self._most - len(self._queue)
        self._queue.extend(Notice(seq, lane, mark) for seq in mark.seqs[: max(0, room)])
        if (left_out := len(mark.seqs) - max(0, room)) > 0:
            last = self._queue.pop() if self._queue and isinstance(self._queue[-1], Gap) else Gap(left_out=0)
            self._queue.append(Gap(left_out=getattr(last, "left_out", 0) + left_out))

    def take(self, position: int, most: int) -> list[Notice | Gap]:
        """The next ones, up to the first whose event is beyond ``position`` and was not told yet."""
        taken: list[Notice | Gap] = []
        while self._queue and len(taken) < most:
            first = self._queue[0]
            if isinstance(first, Notice) and first.seq > position:
                break
            taken.append(self._queue.popleft())
        return taken

    def waiting(self) -> set[tuple[int, str]]:
        """Event and lane of each."""
        return {(each.seq, each.lane) for each in self._queue if isinstance(each, Notice)}


class Feed:
    """What all streams read from: messages of events, made once for everybody."""

    def __init__(self, reader: Reader, store: Outbox, delivery: Delivery) -> None:
        self.reader, self.store, self._delivery = reader, store, delivery
        self._made: dict[int, Accepted] = {}

    async def events(self, after: int) -> list[Accepted]:
        """The next events behind this one, as messages; none where there are none yet."""
        return [self._message(stored) for stored in await self.store.read(after, _BATCH)]

    def behind(self, position: int) -> int:
        """Where the log goes on for who found no event behind this one: some are no longer stored."""
        if position >= self.store.last:
            return position
        return max(position, next(each.first for each in self.store.segments.all if each.number != KEPT) - 1)

    def _message(self, stored: Stored) -> Accepted:
        if stored.erased:
            self._made.pop(stored.seq, None)
        if (made := self._made.get(stored.seq)) is None:
            matches = self._matches(stored.event) if stored.event else None
            made = accepted(stored.seq, stored.event, matches, erased=stored.erased)
            if len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[stored.seq] = made
        return made

    def _matches(self, event: Event) -> dict[str, quality.Match]:
        """For every destination that can know somebody and is to get this event."""
        return {
            name: quality.for_destination(runner.destination, event)
            for name, runner in self._delivery.lanes.items()
            if runner.destination.identifiers and route.decide(runner.rule, event) is None
        }

    async def about(self, seqs: Iterable[int]) -> Mapping[int, Accepted | EventView]:
        """What is known of the events of these numbers."""
        known: dict[int, Accepted | EventView] = {seq: self._made[seq] for seq in seqs if seq in self._made}
        if others := [seq for seq in seqs if seq not in known]:
            known.update((each.seq, each) for each in (await self.reader.events(others)).items)
        return known


class Stream:
    """One reader's way through the log. A watcher of the outbox, while it is open."""

    def __init__(self, feed: Feed, question: Question) -> None:
        self._feed, self._asked = feed, question
        self._newest = feed.store.last  # of what happened up to here, only the outbox can tell
        self._position = min(self._newest if question.after is None else question.after, self._newest)
        self._notices = Notices(MOST_NOTICES)
        self._wake = asyncio.Event()
        self._ending = False
        self.ended = asyncio.Event()

    # Watcher

    def accepted(self, last: int) -> None:  # noqa: ARG002 - the log is asked
        self._wake.set()

    def settled(self, lane: str, marks: Sequence[Mark]) -> None:
        if self._asked.to in {None, lane}:
            for mark in marks:
                self._notices.add(lane, mark)
            self._wake.set()

    def end(self) -> None:
        self._ending = True
        self._wake.set()

    # Telling

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Some messages at a time, as they go over the wire; a heartbeat where there are none for a while."""
        loop = asyncio.get_running_loop()
        yield self._place()
        spoke = loop.time()
        if self._asked.resumed:
            yield await self._stand(max(1, self._position - TOLD_AGAIN + 1), self._position)
        while not self._ending:
            self._wake.clear()
            before = self._position
            told = await self._events()
            notices = self._notices.take(self._position, _BATCH)
            told += await self._deliveries(notices)
            if not told and loop.time() - spoke >= HEARTBEAT:
                told = self._place()
            if told:
                yield told
                spoke = loop.time()
            if self._position == before and not notices:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, spoke + HEARTBEAT - loop.time())):
                        await self._wake.wait()
            else:
                await asyncio.sleep(0)

    def _place(self) -> bytes:
        """A comment that shows nothing, with an id: who comes back begins here, though nothing of late was for it."""
        return b": so far\nid: %d\n\n" % self._position

    async def _events(self) -> bytes:
        events = await self._feed.events(self._position)
        first, self._position = self._position + 1, events[-1].seq if events else self._feed.behind(self._position)
        told = b"".join(_frame(self._cut(each), each.seq) for each in events if self._asked.wants(each))
        if gone := self._position + 1 - first - len(events):
            told = _frame(Gap(left_out=gone, of="events")) + told
        if first <= self._newest:
            told += await self._stand(first, min(self._position, self._newest))
        return told

    def _cut(self, event: Accepted) -> Accepted:
        """With the match of the destination that was asked for only."""
        if self._asked.to is None:
            return event
        matches = {name: match for name, match in event.matches.items() if name == self._asked.to}
        return msgspec.structs.replace(event, matches=matches)

    async def _stand(self, first: int, last: int) -> bytes:
        """How the deliveries of older events stand, but of those about which a newer notice waits."""
        waiting = self._notices.waiting()
        found = await self._feed.reader.settled(first, last, self._asked.to)
        return await self._told([each for each in found if (each.seq, each.to) not in waiting])

    async def _deliveries(self, notices: Sequence[Notice | Gap]) -> bytes:
        return await self._told([each if isinstance(each, Gap) else _settled(each) for each in notices])

    async def _told(self, messages: Sequence[Settled | Gap]) -> bytes:
        known = await self._feed.about({each.seq for each in messages if isinstance(each, Settled)})
        told = bytearray()
        for each in messages:
            if isinstance(each, Gap):
                told += _frame(each)
            elif self._asked.wants(event := known.get(each.seq)):
                told += _frame(msgspec.structs.replace(each, id=event.id if event else None))
        return bytes(told)


class Streams:
    """The streams that are open."""

    def __init__(self, reader: Reader, store: Outbox, delivery: Delivery) -> None:
        self._store = store
        self._feed = Feed(reader, store, delivery)
        self._open: dict[Stream, web.Request] = {}
        self._closing = False

    async def answer(self, request: web.Request, question: Question) -> web.StreamResponse:
        """Tell until the reader goes or the server stops."""
        there = [each for each in self._open.values() if each.transport and not each.transport.is_closing()]
        if len(there) >= MOST_STREAMS or self._closing:
            return _full()
        stream = Stream(self._feed, question)
        response = web.StreamResponse(headers=_HEADERS)
        self._open[stream] = request
        self._store.watchers.add(stream)
        try:
            await response.prepare(request)
            async with contextlib.aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    await response.write(chunk)
            await response.write_eof()
        except OutboxError:
            log.warning("stream_ended", exc_info=True)  # the reader comes back to where it was
        except ConnectionError:
            pass  # the reader has gone
        finally:
            self._store.watchers.discard(stream)
            del self._open[stream]
            stream.ended.set()
        return response

    async def close(self) -> None:
        """End every stream; one whose reader does not take the end is cut off."""
        self._closing = True
        for stream in self._open:
            stream.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(stream.ended.wait() for stream in list(self._open)))
        for request in self._open.values():
            if request.transport is not None:
                request.transport.abort()


def _full() -> web.Response:
    words = f"{MOST_STREAMS} streams are open: close one, or come back later"
    answer = Fault(503, "too_many_streams", words).answer()
    answer.headers["Retry-After"] = str(COME_BACK)
    return answer


def _settled(notice: Notice) -> Settled:
    mark = notice.mark
    return Settled(
        seq=notice.seq,
        to=notice.lane,
        state=mark.state,
        attempts=mark.attempts,
        at=instant(mark.at),
        due=maybe(mark.due),
        status=mark.status,
        reason=mark.reason,
        duplicate=mark.duplicate,
        unverified=mark.unverified,
    )


def _frame(message: Message, number: int | None = None) -> bytes:
    identified = b"" if number is None else b"id: %d\n" % number
    kind = str(type(message).__struct_config__.tag).encode()
    return b"%bevent: %b\ndata: %b\n\n" % (identified, kind, _encode(message))
