"""Logs: only what is on the list is printed, at every level, whoever logs it."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator

import pytest
import structlog

from router import logs
from router.event import Event
from router.secret import Secret

CANARY = "jane@example.com"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging belongs to the process: every test leaves it as it was."""
    root = logging.getLogger()
    before, level, handlers = structlog.get_config(), root.level, list(root.handlers)
    yield
    structlog.configure(**before)
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestFields:
    def test_known(self, stream):
        """
        A line is one JSON object: what happened, when, how serious, and the fields of the list.
        """

        logs.configure("info", stream)
        structlog.get_logger().info("delivery_settled", destination="snap-eu", outcome="delivered", attempt=2)

        (line,) = lines(stream)
        assert str(line.pop("time")).endswith("Z")
        expected = {
            "event": "delivery_settled",
            "level": "info",
            "destination": "snap-eu",
            "outcome": "delivered",
            "attempt": 2,
        }
        assert expected == line

    @pytest.mark.parametrize("level", ["debug", "info", "error"])
    def test_unknown(self, stream, level):
        """
        A field that is not on the list is dropped and counted, whatever the level.
        """

        logs.configure("debug", stream)
        getattr(structlog.get_logger(), level)("event_accepted", email=CANARY, body={"to": CANARY}, source="shop")

        (line,) = lines(stream)
        assert ("shop", 2) == (line["source"], line["dropped_fields"])
        assert CANARY not in stream.getvalue()

    def test_values(self, stream):
        """
        A field of the list prints plain values only: no event, secret or table goes out under a good name.
        """

        logs.configure("info", stream)
        event = Event(id=CANARY, name="x", time=1, received=1, source="s", dialect="d")
        structlog.get_logger().info("x", reason=event, code=Secret(CANARY), path={"a": CANARY}, lanes=["a", 1])

        (line,) = lines(stream)
        assert ("<Event>", "<Secret>", "<dict>", ["a", 1]) == (
            line["reason"],
            line["code"],
            line["path"],
            line["lanes"],
        )

    def test_text(self, stream):
        """
        Text is cut to a line's length and cannot write to a terminal.
        """

        logs.configure("info", stream)
        structlog.get_logger().info("x", reason="\x1b[2J\n\ud800" + "a" * 9999)

        (line,) = lines(stream)
        assert str(line["reason"]).startswith("\\x1b[2J\\x0a\\ud800aaa")
        assert len(str(line["reason"])) < 2 * logs.LONGEST_TEXT

    def test_level(self, stream):
        """
        What is below the level is not printed; the level can change while loggers are held.
        """

        log = structlog.get_logger()
        logs.configure("warning", stream)
        log.info("quiet")
        logs.configure("info", stream)
        log.info("loud")
        assert ["loud"] == [line["event"] for line in lines(stream)]

    def test_no_level(self, stream):
        """
        A level that is none is refused with those there are.
        """

        with pytest.raises(ValueError, match='"debug", "info"'):
            logs.configure("loud", stream)


class TestExceptions:
    def test_place(self, stream):
        """
        An exception is logged by its class and places; its message and the variables around it repeat input.
        """

        logs.configure("debug", stream)
        email = CANARY
        try:
            try:
                {}[email]
            except KeyError as missing:
                raise ValueError(f"no {email}") from missing
        except ValueError:
            structlog.get_logger().exception("mapper_failed", destination="snap")

        (line,) = lines(stream)
        assert "ValueError, caused by KeyError" == line["exception"]
        assert "test_logs.py" in str(line["trace"])
        assert CANARY not in stream.getvalue()

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(OSError(28, "No space left on device", CANARY), "OSError: No space left on device")],
        ids=["the operating system's"],
    )
    def test_words(self, stream, error, expected):
        """
        The words of the operating system are kept: they say what an operator must know and repeat nothing.
        """

        logs.configure("info", stream)
        structlog.get_logger().error("outbox_failed", exc_info=error)
        assert [expected] == [line["exception"] for line in lines(stream)]
        assert CANARY not in stream.getvalue()

    def test_sqlite(self, stream):
        """
        SQLite's error is logged by its documented name.
        """

        logs.configure("info", stream)
        connection = sqlite3.connect(":memory:")
        try:
            connection.execute(f"SELECT '{CANARY}' FROM nowhere")
        except sqlite3.Error as error:
            structlog.get_logger().error("outbox_failed", exc_info=error)
        finally:
            connection.close()

        assert ["OperationalError: SQLITE_ERROR"] == [line["exception"] for line in lines(stream)]


class TestLibraries:
    @pytest.mark.parametrize("name", ["aiosqlite", "aiohttp.access", "aiohttp.server", "asyncio", "elsewhere"])
    def test_quiet(self, stream, name):
        """
        Libraries are heard from warnings on, even while we log at debug: aiosqlite prints SQL parameters there.
        """

        logs.configure("debug", stream)
        logging.getLogger(name).debug("executing %s", CANARY)
        logging.getLogger(name).info("executing %s", CANARY)
        assert "" == stream.getvalue()

    def test_warning(self, stream):
        """
        A library's warning is a line like ours: the first line of its template, without what was filled in.
        """

        logs.configure("info", stream)
        words = "Task exception was never retrieved\nfuture: %s"
        logging.getLogger("asyncio").error(words, CANARY, exc_info=ValueError(CANARY))

        (line,) = lines(stream)
        assert "Task exception was never retrieved" == line["event"]
        assert ("error", "asyncio", "ValueError") == (line["level"], line["logger"], line["exception"])
        assert CANARY not in stream.getvalue()

    @pytest.mark.parametrize(("fault", "heard"), [(socket.gaierror("no name"), 0), (ValueError("x"), 1)])
    async def test_a_look_up_whose_request_was_given_up(self, stream, fault: Exception, heard: int):
        """
        A shielded future that fails on the network after its caller was cancelled is no line; any other fault is one.
        """
        logs.configure("info", stream)
        loop = asyncio.get_running_loop()
        inner: asyncio.Future[None] = loop.create_future()
        outer = asyncio.shield(inner)
        outer.cancel()
        await asyncio.sleep(0)
        inner.set_exception(fault)
        await asyncio.sleep(0)
        if sys.version_info < (3, 14):  # it says nothing by itself
            words = f"{type(fault).__name__} exception in shielded future"
            loop.call_exception_handler({"message": words, "exception": inner.exception()})

        assert heard == len(lines(stream))

    def test_once(self, stream):
        """
        Configuring again does not print twice.
        """

        logs.configure("info", io.StringIO())
        logs.configure("info", stream)
        logging.getLogger("aiohttp").warning("slow")
        assert 1 == len(lines(stream))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestStream:
    @pytest.mark.parametrize(
        ("stream", "json", "is_json"),
        [(io.StringIO, None, True), (Terminal, None, False), (Terminal, True, True), (io.StringIO, False, False)],
        ids=["a pipe", "a terminal", "a terminal, JSON asked for", "a pipe, text asked for"],
    )
    def test_form(self, stream, json, is_json):
        """
        JSON where nobody looks on, coloured lines on a terminal, and what was asked for in any case.
        """

        written = stream()
        logs.configure("info", written, json=json)
        structlog.get_logger().info("started", listen="127.0.0.1:8080", email=CANARY)
        assert is_json is written.getvalue().startswith("{")
        assert CANARY not in written.getvalue()

    def test_gone(self):
        """
        A log whose reader is gone stops nothing.
        """

        stream = io.StringIO()
        logs.configure("info", stream)
        stream.close()
        assert None is structlog.get_logger().info("delivery_settled")


class TestFlood:
    def test_of_one_kind_ten_a_second_and_the_rest_is_counted(self):
        """
        R16: the first line of the next second says how many were left out; other kinds go on meanwhile.
        """
        now = 100.0
        limit = logs.Limit(lambda: now)
        passed = [passes(limit, "sqlite_busy") for _ in range(25)]

        assert [{"event": "sqlite_busy", "level": "info"}] * 10 == [each for each in passed if each is not None]
        assert {"event": "other", "level": "info"} == passes(limit, "other")
        now = 101.0
        assert {"event": "sqlite_busy", "level": "info", "left_out": 15} == passes(limit, "sqlite_busy")
        now = 102.0
        assert {"event": "sqlite_busy", "level": "info"} == passes(limit, "sqlite_busy")

    def test_it_remembers_so_many_kinds(self):
        """
        Even a program that names lines by its input does not fill the memory.
        """
        limit = logs.Limit(lambda: 0.0)
        for number in range(3 * logs.KINDS):
            passes(limit, f"kind {number}")

        assert logs.KINDS == len(limit._kinds)

    def test_configured_logs_are_limited(self, stream):
        """
        Whatever logs without end, and at whatever speed.
        """
        logs.configure("info", stream)
        for _ in range(1000):
            structlog.get_logger().warning("disk_slow")

        assert 10 <= len(lines(stream)) < 100


class TestDetached:
    def test_a_reader_that_hangs_holds_nobody_up(self):
        """
        R16: the pipe is full and nobody reads it; logging returns all the same, and keeps the first lines for whoever
        reads at last.
        """
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "w") as writing, os.fdopen(read_end) as reading:
            detached = logs.Detached(writing)
            for number in range(20_000):  # a megabyte, where a pipe holds 64 KB
                detached.write(f"{number:050}\n")
            kept = [next(reading) for _ in range(logs.UNWRITTEN)]
            detached._lines.put("after\n")  # waits for room, which there is now that somebody reads
            rest = list(iter(reading.readline, "after\n"))

            assert [f"{number:050}\n" for number in range(logs.UNWRITTEN)] == kept
            assert 10_000 < 20_000 - len(kept) - len(rest)

    def test_a_stream_that_fails_holds_nobody_up(self):
        """
        R16: the disk of the log is full.
        """

        class Full(io.StringIO):
            def write(self, _: str) -> int:
                raise OSError(errno.ENOSPC, "no space")

        detached = logs.Detached(Full())
        for _ in range(10):
            detached.write("line\n")
        detached.drain()

        assert detached._lines.empty()


def passes(limit: logs.Limit, event: str) -> dict[str, object] | None:
    try:
        return dict(limit(None, "info", {"event": event, "level": "info"}))
    except structlog.DropEvent:
        return None
