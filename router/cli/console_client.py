"""How commands change things: through the API of the running server, which is the only writer of its outbox."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NoReturn

import click

from router.cli import FAILED, UNREACHABLE
from router.cli.files import NO_DESTINATION, text
from router.terminal import escaped

TIMEOUT = 300.0  # seconds; an act on a million rows takes its time, and the outbox waits 120 for a reader to go
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to recognise, not to listen on


class Console:
    """The console that the configuration names. Every call ends the process, with words, where it cannot be done."""

    def __init__(self, path: Path) -> None:
        from router.settings import Console as ConsoleTable

        self._path = path
        self.listen = text(path, "console", "listen") or ConsoleTable().listen

    def post(self, address: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the console answers. Exit 3 where nobody does, 1 where it refuses."""
        import msgspec

        try:
            status, raw = self._exchange("POST", address, msgspec.json.encode(body))
        except TimeoutError:
            words = f"has not answered within {TIMEOUT:.0f} seconds: what was asked may still be done, so look before you ask again"
            click.echo(f"The console at {escaped(self.listen)} {words}.", err=True)
            sys.exit(UNREACHABLE)
        except (OSError, HTTPException, ValueError):
            click.echo(f"The console is not reachable at {escaped(self.listen)}: start turnout serve.", err=True)
            sys.exit(UNREACHABLE)
        answer = json_object(raw)
        if status != 200 or "success" not in answer:
            _refused(status, answer)
        return answer

    @contextlib.contextmanager
    def lines(self, address: str, silence: float, **headers: str) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that goes on without end. OSError or HTTPException where nobody answers, or nothing
        came for so many seconds; exit 1 where the console refuses.
        """
        connection = self._connection(silence)
        try:
            connection.request("GET", address, headers={**self._headers(), **headers})
            answer = connection.getresponse()
            if answer.status != 200:
                _refused(answer.status, json_object(answer.read(1 << 20)))
            yield iter(answer.readline, b"")
        finally:
            connection.close()

    def _connection(self, timeout: float) -> HTTPConnection:
        host, port = reached(self.listen)
        return HTTPConnection(host, port, timeout=timeout)

    def _exchange(self, method: str, address: str, body: bytes) -> tuple[int, bytes]:
        connection = self._connection(TIMEOUT)
        try:
            connection.request(method, address, body, self._headers())
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 20)
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Turnout-Who": whoami()}
        if (token := self._token()) is not None:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _token(self) -> str | None:
        """The token, resolved by itself: the other secrets of the file are none of this command's business."""
        from router import config
        from router.secret import Secret

        reference = text(self._path, "console", "token")
        if reference is None:
            return None
        token = config.resolve(reference, os.environ, self._path.parent)
        if isinstance(token, Secret):
            return token.reveal()
        click.echo(f"[console] token: {escaped(token.message)}: {escaped(token.help)}.", err=True)
        sys.exit(FAILED)


def reached(listen: str) -> tuple[str, int]:
    """Host and port at which a server of this machine that listens there is reached. ValueError with what to write."""
    from router.config import address

    host, port = address(listen)
    return _ANY.get(host, host), port


def whoami() -> str:
    """Who acts, for the audit: user and machine, as far as they can be told."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # KeyError: a user without a name, before Python 3.13
        user = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9._@-]", "-", f"{user}@{socket.gethostname()}")[:64]


def json_object(raw: bytes) -> dict[str, Any]:
    """The object of an answer; an empty one where it is none."""
    import msgspec

    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _refused(status: int, answer: dict[str, Any]) -> NoReturn:
    click.echo(f"{escaped(_refusal(status, answer))}.", err=True)
    sys.exit(FAILED)


def _refusal(status: int, answer: dict[str, Any]) -> str:
    if answer.get("code") == "unknown_destination":  # its message names the API's way to list them
        return NO_DESTINATION
    words = [str(answer.get("message") or f"the console answered {status}: is it Turnout's address?")]
    words += [f"{each.get('field')}: {each.get('message')}" for each in answer.get("errors", ())]
    return "; ".join(dict.fromkeys(words))
