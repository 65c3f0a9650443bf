"""What senders are answered: status, headers, body, and how they go over the wire.

Error bodies never repeat what was sent. An answer is a value until the connection writes it: as bytes of ours where the
request was an ordinary one, as a response of aiohttp's where aiohttp read it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE
from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

from router.problem import Error, Malformed

SERVER: Final = "Turnout"  # else the library's name and version
JSON: Final = "application/json"
GIF: Final = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
_NO_MORE: Final[dict[str, str]] = {}
_HEADS: Final = {each: f"HTTP/1.1 {each.value} {each.phrase}\r\nServer: {SERVER}\r\n" for each in HTTPStatus}

encode: Final = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """An answer. ``closing``: the connection ends with it, for what is left of the request is not worth reading."""

    status: int
    body: bytes
    more: dict[str, str] = _NO_MORE  # headers beside those that every answer has
    kind: str = JSON
    closing: bool = False
    code: str = ""  # why nothing of the request was taken

    def allowing(self, origin: str) -> Reply:
        """The same, for a page of this origin to read."""
        return self._replace(more={**self.more, **allowed(origin)})

    def response(self) -> web.Response:
        headers = CIMultiDict({"Server": SERVER, **self.more})
        if self.body:
            headers[CONTENT_TYPE] = self.kind
        response = web.Response(status=self.status, body=self.body, headers=headers)
        if self.closing:
            response.force_close()
        return response

    def wire(self) -> bytes:
        """As it goes over a connection that stays open."""
        more = _lines(self.more) if self.more else ""
        kind = f"Content-Type: {self.kind}\r\nDate: {rfc822_formatted_time()}\r\nContent-Length: {len(self.body)}\r\n"
        return f"{_HEADS[self.status]}{more}{kind}\r\n".encode() + self.body  # type: ignore[index]  # a status is an int


def _lines(headers: dict[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def allowed(origin: str) -> dict[str, str]:
    """Echo the listed origin: a wildcard loses JSON beacons, which are credentialed."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }


def refused(status: int, code: str, message: str, more: dict[str, str] = _NO_MORE) -> Reply:
    return Reply(status, encode(Error(code=code, message=message)), more, code=code)


def malformed(problem: Malformed) -> Reply:
    errors = [{"field": problem.field, "message": problem.message}] if problem.field else []
    return Reply(
        problem.status, encode(Error(code=problem.code, message=problem.message, errors=errors)), code=problem.code
    )


def closing(reply: Reply) -> Reply:
    return reply._replace(closing=True)


def wire_refusal(status: HTTPStatus, error: Error, connection: str, retry_after: int) -> bytes:
    """A refusal as it goes over the wire, made once and sent often."""
    body = encode(error)
    head = f"{_HEADS[status]}Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Retry-After: {retry_after}\r\nConnection: {connection}\r\n\r\n".encode() + body


def wire_allowing(response: bytes, origin: str) -> bytes:
    """A refusal as it goes over the wire, for a page of this origin to read."""
    first, rest = response.split(b"\r\n", 1)
    return b"%b\r\n%b%b" % (first, _lines(allowed(origin)).encode(), rest)
