"""One POST on a connection that is open already: aiohttp's connections, timeouts of our own, and its parser.

A session of aiohttp takes two thirds of the time of a small request for what is the same every time: address, headers,
cookies, redirects, traces. Whatever is not ordinary (a first connection, another method, a header that changes how the
message is read) is left to the session. What arrives, and what goes wrong, is the same as there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

_OWN = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "expect", "user-agent", "accept", "accept-encoding"}
)


class Answered(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Connector(aiohttp.TCPConnector):
    """Gives no kept connection on which the partner has spoken unasked: aiohttp (3.14) would take those words for the
    answer to the next request, which would be called delivered and never have left. Its own check is of the socket alone.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._keys: dict[tuple[str | None, int | None, bool], Any] = {}

    async def _get(self, key: Any, traces: Any) -> Any:
        self._keys[key.host, key.port, key.is_ssl] = key
        for protocol, _ in tuple(self._conns.get(key, ())):  # up to the one that is given
            if protocol.should_close:
                protocol.close()
            elif protocol.is_connected():
                break
        return await super()._get(key, traces)

    async def kept(self, url: URL) -> Any:
        """An open connection to the place of ``url`` that nobody uses, or None."""
        key = self._keys.get((url.raw_host, url.port, url.scheme == "https"))
        return None if key is None else await self._get(key, [])


def ordinary(url: URL, headers: Mapping[str, str]) -> bool:
    """Can it be written here? A name in two spellings cannot: a session sends the last of them alone."""
    names = {name.lower() for name in headers}
    return url.raw_user is None and len(names) == len(headers) and _OWN.isdisjoint(names)


def head(url: URL, common: str) -> str:
    """The beginning of every POST to this address; ``common`` are headers that all of them have."""
    return f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nAccept: */*\r\n{common}"


async def post(
    connection: Any, beginning: str, headers: Mapping[str, str], body: bytes, *, within: float, longest: int
) -> Answered:
    """Send, and read at most ``longest`` bytes of the answer, ``within`` so many seconds. Faults are those of a session: ClientError, TimeoutError."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    written = f"{beginning}{''.join(lines)}Content-Length: {len(body)}\r\n\r\n".encode() + body
    whole = False
    deadline = asyncio.get_running_loop().call_later(within, _expire, connection.protocol)
    try:
        connection.protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        connection.transport.write(written)
        message, content = await _answer(connection.protocol)
        read = await content_of(content, longest)
        whole = len(read) < longest and content.at_eof()
        return Answered(message.code, message.headers, read)
    except HttpProcessingError as error:
        raise aiohttp.ClientConnectionError("not HTTP") from error
    finally:
        deadline.cancel()
        if whole:
            connection.release()
        else:
            connection.close()


def _expire(protocol: Any) -> None:
    """Time is over: whoever reads is told, be it of the head or of the body."""
    content = protocol._payload  # noqa: SLF001 - as aiohttp's own timer for a silent socket does
    protocol.set_exception(TimeoutError())
    if content is not None:
        content.set_exception(TimeoutError())


async def _answer(protocol: Any) -> Any:
    """The answer itself, after those that only say that it will come (1xx)."""
    while True:
        message, content = await protocol.read()
        if not 100 <= message.code < 200 or message.code == 101:
            return message, content


async def content_of(content: aiohttp.StreamReader, longest: int) -> bytes:
    """At most so many bytes. An answer that breaks off after its status still counts by its status."""
    parts: list[bytes] = []
    size = 0
    try:
        while size < longest and not content.at_eof() and (part := await content.read(longest - size)):
            parts.append(part)
            size += len(part)
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        return b"".join(parts)
    return b"".join(parts)
