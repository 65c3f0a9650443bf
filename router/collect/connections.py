"""Connections: how they are accepted, how many there may be, and how long a peer may take to read an answer.

What aiohttp already does is left to it: its keep-alive timer closes whoever connects in silence or drips its headers. It
has no limit of connections, and waits for ever for a peer that does not read; both are here. Descriptors are kept back
for the outbox, the lanes and the console: acceptance stops while those still can open what they need.

Accepting is ours, too. uvloop accepts one connection in a round of the event loop, and under load a round takes
milliseconds: 200 connections a second (measured), while thousands wait unseen. And where no descriptor is left, asyncio's
own loop tries again without a pause, and uvloop may close the listener.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

log: Any = structlog.get_logger()

BACKLOG = 4096  # connections that the system keeps until they are accepted
AT_ONCE = 32  # connections accepted in one round of the event loop, some 2 ms
PAUSE = 1.0  # seconds without accepting, where the system has no room for a connection
READ_DEADLINE = 10.0  # seconds a peer has to read an answer
MOST = 12_000  # connections; 5 KB each that spoke, 1 KB each that did not (measured)
RESERVED = 512  # descriptors that connections leave to everything else
OPEN_FILES = 65_536  # more than connections and lanes can use; some systems' hard limit is a thousand million
_END = b"\r\n\r\n"
_LONGEST = 2048  # bytes of a head that is remembered
FAREWELL = 1.0  # seconds a refused peer has to read that it is refused
MOST_FAREWELLS = 256  # of these at once; beyond them the connection just ends


def raise_open_files() -> None:
    """Let this process open as many files as it may: the usual soft limit of 1024 is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most() -> int:
    """How many connections this process may hold."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST
    return min(MOST, limit - min(RESERVED, limit // 2))


_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Not listening yet. Port 0 is any free one. An IPv6 address takes no IPv4 peers, whatever the system's custom is.
    ``shared``: with others that say so, too.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


class Listener:
    """Accepts on a bound socket, some connections at a time. ``protocol`` makes what serves one."""

    def __init__(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._socket, self._protocol = listening, protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    async def stop(self) -> None:
        """Accept no more. What was accepted goes on."""
        self._loop.remove_reader(self._socket.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                peer, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    continue  # it has gone again
                self._wait(error)
                return
            peer.setblocking(False)
            opening = self._loop.create_task(self._open(peer))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, peer: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, peer)
        except OSError:  # it has gone again
            peer.close()

    def _wait(self, error: OSError) -> None:
        log.warning("accept_waits", reason=error.strerror)
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(PAUSE, self.start)


class Silent(asyncio.Protocol):
    """A connection whose peer has said nothing yet, which costs next to nothing: ten thousand of them may come, and go at
    once, and nobody else notices.

    With its first byte ``speaking`` takes over. Its first head must be whole ``patience`` seconds after it connected.
    """

    __slots__ = ("_end", "_known", "_patience", "_speaking", "_transport")

    def __init__(self, known: set[Silent], speaking: Callable[[], Connection], patience: float) -> None:
        self._known, self._speaking, self._patience = known, speaking, patience

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._known.add(self)
        self._end = asyncio.get_running_loop().call_later(self._patience, self._transport.close)

    def data_received(self, data: bytes) -> None:
        self._leave()
        speaking = self._speaking()
        self._transport.set_protocol(speaking)
        speaking.connection_made(self._transport)
        speaking.expect_head(self._end.when())
        speaking.data_received(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._leave()

    def close(self) -> None:
        self._transport.close()

    def _leave(self) -> None:
        self._end.cancel()
        self._known.discard(self)


class Collect(Protocol):
    """What answers a connection's ordinary requests. A head is what it made of one; equal bytes mean the same again."""

    heads: dict[bytes, Any]

    def refusal(self, message: RawRequestMessage) -> bytes | None: ...

    def take(self, message: RawRequestMessage, payload: StreamReader, connection: Connection) -> Any: ...

    def again(self, head: Any, body: bytes, connection: Connection) -> bool: ...

    def learn(self, sent: bytes, head: Any) -> None: ...


class Connection(RequestHandler):
    """A connection whose peer has ``READ_DEADLINE`` to read an answer, and is cut off then.

    An ordinary request, one that came whole and needs nothing of aiohttp's, is ``collect``'s at once, which gives its
    answer to ``answer`` later: so it costs no task, no request and no response. Where its head is one that was seen
    before, byte by byte, it is not even parsed.
    """

    __slots__ = ("_behind", "_clean", "_collect", "_ends", "_held", "_under_way", "_unread")

    def __init__(self, manager: web.Server, collect: Collect, **settings: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **settings)
        self._collect = collect
        self._max_msg_queue_size -= 1  # its parser counts a body that came late twice, and stops one earlier
        self._under_way = False  # a request that was taken is not answered yet
        self._clean = False  # it was all that the parser has seen since the last one
        self._behind = b""  # what came behind it
        self._held = False  # reading, because of that
        self._ends = False  # the connection, with the answer
        self._unread: asyncio.TimerHandle | None = None
        self._parser = cast(Any, _Sieve(self._parser, self._sifted))

    def _sifted(self, data: bytes, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Is this request, the only one that ``data`` made whole, taken, or answered at once? Else it is aiohttp's."""
        idle = self._waiter is not None and not self._waiter.done() and not self._messages
        if not idle or self._paused or self._reading_paused or self.transport is None:
            return False
        if message.method != "POST" or message.should_close or message.upgrade or not payload.is_eof():
            return False
        if (response := self._collect.refusal(message)) is not None:
            self._write(response)
            return True
        if (head := self._collect.take(message, payload, self)) is not None:
            self._under_way = True
            self._learn(data, message, head)
        return self._under_way

    def _again(self, data: bytes) -> bool:
        """Is this, to the byte, the head of a request that was taken before, and a body as long as that says?"""
        end = data.find(_END) + len(_END)
        head = self._collect.heads.get(data[:end])
        if head is None or len(data) != end + head.length:
            return False
        if self._paused or self._close or self._force_close or self.transport is None:
            return False
        self._under_way = self._collect.again(head, data[end:], self)
        return self._under_way

    def _learn(self, data: bytes, message: RawRequestMessage, head: Any) -> None:
        end = data.find(_END) + len(_END)
        self._clean = len(data) == end + head.length and _is_head(data[:end], message)
        if self._clean and end <= _LONGEST:
            self._collect.learn(data[:end], head)

    def answer(self, response: bytes) -> None:
        """To the request that was taken. What came behind it is next."""
        self._under_way = False
        if self.transport is not None:  # else the peer has gone
            self._write(response)
        if self._ends:
            super().close()
        elif self._behind:
            self._loop.call_soon(self._go_on)

    def _write(self, response: bytes) -> None:
        cast(asyncio.Transport, self.transport).write(response)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def data_received(self, data: bytes) -> None:
        if self._under_way or self._behind:
            self._behind += data
            self._hold()
        elif self._clean and self._again(data):
            return
        elif self._between():
            self._behind = data
            self._loop.call_soon(self._go_on)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._clean = False
        super().data_received(data)

    def _between(self) -> bool:
        """Has aiohttp answered, and is about to wait for what comes next? A quick peer is quicker than that."""
        waits = self._waiter is not None or self._request_in_progress or bool(self._messages)
        return not waits and self._task_handler is not None and self._whole()

    def _whole(self) -> bool:
        return self._parser is None or cast(Any, self._parser).whole()

    def _hold(self) -> None:
        """Read no more for now."""
        if not self._held and self.transport is not None:
            self._held = True
            self.transport.pause_reading()

    def _go_on(self) -> None:
        behind, self._behind = self._behind, b""
        if self.transport is None:
            return
        if self._held:
            self._held = False
            self.transport.resume_reading()
        self.data_received(behind)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """As aiohttp's, which parses nothing and asks the transport once more after every body that was read.

        A body that is not whole may wait in its parser, paused without a sign.
        """
        if self._reading_paused or self._buffer_paused or not self._whole():
            super().resume_reading(resume_parser)

    def _process_keepalive(self) -> None:
        if self._under_way:  # a slow disk is not an idle peer
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def close(self) -> None:
        """As aiohttp's: what is under way is answered first."""
        if self._under_way:
            self._ends = True
        else:
            super().close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=0)  # one unread byte starts the clock

    def expect_head(self, when: float) -> None:
        """End it where no head is whole by then (the loop's time). Sets aiohttp's own timer for that."""
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = when
        self._keepalive_handle = self._loop.call_at(when, self._process_keepalive)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._unread = self._loop.call_later(READ_DEADLINE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._read()
        super().connection_lost(exc)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _is_head(sent: bytes, message: RawRequestMessage) -> bool:
    """Are these all the bytes of its head? Of one that came in pieces they are only the last."""
    first = f"POST {message.path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
    return sent.startswith(first) and sent.count(b"\r\n") == len(message.raw_headers) + 2


class _Sieve:
    """aiohttp's parser of a connection, which keeps back the requests that ``sifted`` sees to."""

    __slots__ = ("_last", "_parser", "_sifted")

    def __init__(self, parser: Any, sifted: Callable[[bytes, RawRequestMessage, StreamReader], bool]) -> None:
        self._parser, self._sifted = parser, sifted
        self._last: StreamReader | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> tuple[Sequence[Any], bool, bytes]:
        try:
            messages, upgraded, tail = self._parser.feed_data(data)
        except HttpProcessingError:
            raise
        except Exception as fault:  # such as IndexError for http://[::1]:99@/
            raise BadHttpMessage("aiohttp's parser cannot read this") from fault
        if messages:
            self._last = messages[-1][1]
        if len(messages) == 1 and self._sifted(data, *messages[0]):
            self._parser.message_consumed()
            return (), upgraded, tail
        return messages, upgraded, tail

    def whole(self) -> bool:
        """Has the body of every request come?"""
        return self._last is None or self._last.is_eof()


class Farewells:
    """The connections beyond the limit: each is sent this ``response`` and ends."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.number = 0  # of those whose peer may still read

    def __call__(self) -> asyncio.Protocol:
        return _Farewell(self)


class _Farewell(asyncio.Protocol):
    """A peer that still writes would not see the answer if the connection closed at once (it would be reset)."""

    def __init__(self, farewells: Farewells) -> None:
        self._farewells = farewells
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = cast(asyncio.Transport, transport)
        self._farewells.number += 1
        peer.set_write_buffer_limits(high=0)  # written now, not at the end of the loop's round
        peer.write(self._farewells.response)
        if self._farewells.number > MOST_FAREWELLS:
            peer.abort()
            return
        peer.write_eof()
        self._end = asyncio.get_running_loop().call_later(FAREWELL, peer.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._farewells.number -= 1
        if self._end is not None:
            self._end.cancel()
