"""Logs: one line of JSON on stderr, or a coloured one on a terminal, with known fields only.

A line says what happened by a constant name and a few fields of the list below; a field that is not on it is dropped
and counted, so that no log call can print an event, a header or a secret by accident, at any level. Exceptions are
logged by class and place: their messages repeat input (``KeyError: 'jane@example.com'``), and so do local variables.

A flood is cut: of one kind of line so many a second, and the next one says how many were left out. And nobody waits for
the log: while whatever reads it hangs, lines are kept up to a number, then left out.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol, TextIO

import msgspec
import structlog

from router.terminal import escaped

Level = str  # "debug", "info", "warning" or "error"

FIELDS = frozenset(
    {
        "event", "level", "time", "logger", "exception", "trace", "dropped_fields",
        "event_id", "name", "source", "dialect", "destination", "type", "state", "segment", "seq",
        "outcome", "attempt", "status", "code", "reason", "until", "wait_s", "duration_ms", "retry_after_s",
        "count", "accepted", "duplicate", "rejected", "delivered", "waiting", "filtered", "dead", "held", "difference",
        "bytes", "queue", "lanes", "sources", "destinations", "workspace",
        "listen", "method", "route", "peer_trusted", "path", "file", "line", "column", "key", "message",
        "left_out", "config", "version", "python", "sqlite", "pid", "signal", "actor", "action",
    }
)  # fmt: skip

# Libraries that print what they are given: aiosqlite writes SQL parameters at DEBUG, asyncio writes coroutines' arguments.
PINNED = ("aiohttp", "aiohttp.access", "aiosqlite", "asyncio")

LONGEST_TEXT = 500
A_SECOND = 10  # lines of one kind
KINDS = 1000  # that are remembered; names are ours, so there are some dozens
UNWRITTEN = 1000  # lines kept for a reader that hangs
FAREWELL = 1.0  # seconds for these at the end


class Stream(Protocol):
    """What is needed of where the lines go."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


def configure(level: Level, stream: Stream, *, json: bool | None = None) -> None:
    """Send this process's logs to ``stream``. ``json`` None: unless it is a terminal. May be called again, to change.

    ValueError for a level that is none.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ValueError('a log level is "debug", "info", "warning" or "error"')
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            Limit(),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            exception_by_place,
            known_fields,
            _renderer(stream, json=json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,  # the level can change while the server runs
    )
    _route_libraries()
    global _level  # noqa: PLW0603 - of the process, as what is configured here is
    _level = level


_level: Level = "info"


def level() -> Level:
    """What was configured last."""
    return _level


def _renderer(stream: Stream, *, json: bool | None) -> Any:
    if json or (json is None and not stream.isatty()):
        return lambda _, __, fields: msgspec.json.encode(fields).decode()
    return structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, timestamp_key="time")


class _Lines:
    """Writes lines. A reader of the log that has gone away must not stop deliveries."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a broken pipe, a full disk, a closed stream
            return

    debug = info = warning = error = critical = msg


class Limit:
    """A processor: ``A_SECOND`` lines of a name and level in a second; the first after that says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[object, object], _Second] = {}

    def __call__(self, _: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        kind, now = (fields.get("event"), fields.get("level")), self._clock()
        second = self._kinds.get(kind)
        if second is None or now - second.began >= 1:
            self._kinds.pop(kind, None)
            self._kinds[kind] = _Second(now)
            if len(self._kinds) > KINDS:
                del self._kinds[next(iter(self._kinds))]
            return fields if second is None or not second.left_out else {**fields, "left_out": second.left_out}
        second.lines += 1
        if second.lines > A_SECOND:
            second.left_out += 1
            raise structlog.DropEvent
        return fields


class _Second:
    __slots__ = ("began", "left_out", "lines")

    def __init__(self, began: float) -> None:
        self.began, self.lines, self.left_out = began, 1, 0


class Detached:
    """A stream for ``configure`` that never waits: a thread writes to the real one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(UNWRITTEN)
        threading.Thread(target=self._write_for_ever, name="turnout-logs", daemon=True).start()
        atexit.register(self.drain)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(text)
        return len(text)

    def flush(self) -> None:
        """The thread does."""

    def drain(self) -> None:
        """Until everything is written, for ``FAREWELL`` seconds."""
        until = time.monotonic() + FAREWELL
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _write_for_ever(self) -> None:
        while True:
            text = self._lines.get()
            with contextlib.suppress(OSError, ValueError):  # a broken pipe, a full disk, a closed stream
                self._stream.write(text)
                self._stream.flush()
            self._lines.task_done()


def known_fields(_: Any, __: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Only fields of the list, and of those only plain values; the last processor before the line is made."""
    known = {name: _plain(value) for name, value in fields.items() if name in FIELDS}
    if len(known) < len(fields):
        known["dropped_fields"] = len(fields) - len(known)
    return known


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value[:LONGEST_TEXT])
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return f"<{type(value).__name__}>"


def exception_by_place(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """``exc_info`` as the exception's class and the places it passed, innermost last."""
    given = fields.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    if error is None and given is True:
        error = sys.exception()
    if error is not None:
        fields["exception"] = _named(error)
        frames = traceback.extract_tb(error.__traceback__)
        fields["trace"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return fields


def _named(error: BaseException) -> str:
    """The class, and the words of the operating system or of SQLite, which repeat nothing; and what caused it."""
    words = getattr(error, "sqlite_errorname", None) or (error.strerror if isinstance(error, OSError) else None)
    name = f"{type(error).__name__}: {words}" if words else type(error).__name__
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return name if cause is None else f"{name}, caused by {type(cause).__name__}"


# How asyncio of 3.14 and later reports what fails after its caller was cancelled. aiohttp shields the look-up of a name,
# so a request that was given up would say in the log that its partner's name was not found.
_SHIELDED = " exception in shielded future"


class _Libraries(logging.Handler):
    """What libraries log with ``logging``, by the first line of its template: the arguments are other people's data."""

    def emit(self, record: logging.LogRecord) -> None:
        words = str(record.msg).partition("\n")[0]
        if words.endswith(_SHIELDED) and record.exc_info and isinstance(record.exc_info[1], OSError):
            return
        structlog.get_logger().log(record.levelno, words, logger=record.name, exc_info=record.exc_info)


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries())
    root.setLevel(logging.WARNING)
    for name in PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)
