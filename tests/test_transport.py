"""The only outgoing HTTP, against sockets that misbehave and addresses that must never be dialled."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from router.clock import SystemClock
from router.destination import Header, Request, Response
from router.secret import Secret
from router.transport import MAX_ANSWER, Failure, Transport, is_public

Script = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, for no time; close() sends RST (socket(7))


class Peer:
    """A listener that counts what reaches it. ``script`` is run for every connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self.finished = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            self.finished.set()
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """One whole request: head and body."""
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
        self.requests.append(head + body)
        return head + body


@contextlib.asynccontextmanager
async def listening(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """On 127.0.0.1 and, at the same port, on ::1."""
    peer = Peer(script)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    second = await asyncio.start_server(peer.serve, "::1", peer.port, ssl=tls) if socket.has_ipv6 else None
    try:
        yield peer
    finally:
        for each in (server, second):
            if each is not None:
                each.close()


@contextlib.asynccontextmanager
async def sending(*, allow_private: bool = True, timeout: float = 5.0) -> AsyncIterator[Transport]:
    transport = Transport("lane", SystemClock(), timeout=timeout, concurrency=4, allow_private=allow_private)
    try:
        yield transport
    finally:
        await transport.close()


def post(
    url: str, *, headers: dict[str, Header] | None = None, query: dict[str, Header] | None = None, body: bytes = b"{}"
) -> Request:
    return Request(url=url, body=body, events=(), headers=headers or {}, query=query or {})


def answering(*parts: bytes) -> Script:
    """These bytes in answer to one request, then the end of the connection."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return script


def kind(answer: Response | Failure) -> str:
    return answer.kind if isinstance(answer, Failure) else f"HTTP {answer.status}"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server: the addresses of each name; a name that is not here is asked of the machine."""
    known: dict[str, list[str]] = {}
    ask = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        if host not in known:
            return ask(host, port, *args, **kwargs)
        if not known[host]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for address in known[host] for found in ask(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


# Spellings of this machine, and of what only this machine or its network should reach. Sources: the table of
# github.com/stripe/smokescreen; RFC 6890 and the IANA special-purpose registries; the clouds' metadata addresses.
LITERALS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f000001", "0x7f.0.0.1",
    "0x7f.1", "127.0.0.1.", "127.127.127.127", "0", "0.0.0.0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]", "[2001:0:7f00:1::1]", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "localhost", "localhost.",
    "LOCALHOST", "ip6-localhost", "169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]",
    "100.100.100.200", "100.64.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "192.0.0.1", "192.88.99.1", "198.18.0.1",
    "224.0.0.1", "[ff02::1]", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[2001:db8::1]", "[100::1]",
]  # fmt: skip


class TestGuard:
    @pytest.mark.parametrize("host", LITERALS)
    async def test_no_spelling_of_a_private_address_is_dialled(self, host: str):
        """
        However the address is written, no connection is made and no request leaves.
        """
        async with listening(answering(OK)) as peer, sending(allow_private=False, timeout=2.0) as transport:
            answer = await transport.send(post(f"https://{host}:{peer.port}/in"))

            assert kind(answer) in {"blocked", "address", "name"}
            assert 0 == peer.connections

    @pytest.mark.parametrize(
        "addresses",
        [
            pytest.param(["127.0.0.1"], id="loopback"),
            pytest.param(["::1"], id="loopback of IPv6"),
            pytest.param(["::ffff:127.0.0.1"], id="mapped"),
            pytest.param(["127.0.0.1", "::1"], id="several"),
            pytest.param(["10.0.0.1", "127.0.0.1"], id="several networks"),
            pytest.param(["169.254.169.254"], id="metadata"),
        ],
    )
    async def test_a_name_is_judged_by_what_it_resolves_to(self, names: dict[str, list[str]], addresses: list[str]):
        """
        A public name with a private address is refused when it is dialled, so it cannot be rebound before.
        """
        async with listening(answering(OK)) as peer, sending(allow_private=False, timeout=2.0) as transport:
            names["partner.example"] = addresses
            answer = await transport.send(post(f"https://partner.example:{peer.port}/in"))

            assert "blocked" == kind(answer)
            assert 0 == peer.connections

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "partner.example"])
    async def test_the_counter_counts(self, names: dict[str, list[str]], host: str):
        """
        The same listener is reached where private addresses are allowed: the guard is what stops the others.
        """
        async with listening(answering(OK)) as peer, sending() as transport:
            names["partner.example"] = ["127.0.0.1"]
            answer = await transport.send(post(f"http://{host}:{peer.port}/in"))

            assert ("HTTP 200", 1) == (kind(answer), peer.connections)

    async def test_plain_http_is_refused(self):
        """
        Credentials do not travel in clear unless the destination says so.
        """
        async with listening(answering(OK)) as peer, sending(allow_private=False) as transport:
            assert "blocked" == kind(await transport.send(post(peer.url)))
            assert 0 == peer.connections

    @pytest.mark.parametrize(
        "address",
        [
            pytest.param("fec0::1", id="site-local, RFC 3879"),
            pytest.param("::ffff:0:127.0.0.1", id="translated IPv4, RFC 2765"),
            pytest.param("192.0.0.192", id="Oracle Cloud metadata, in 192.0.0.0/24 of RFC 6890"),
            pytest.param("168.63.129.16", id="Azure's WireServer"),
            pytest.param("3fff::1", id="documentation, RFC 9637"),
            pytest.param("5f00::1", id="segment routing, RFC 9602"),
            pytest.param("100:0:0:1::1", id="dummy prefix, RFC 9780"),
            pytest.param("::ffff:10.0.0.1", id="mapped"),
            pytest.param("fe80::1%eth0", id="link-local with a zone"),
            pytest.param("not an address", id="no address"),
        ],
    )
    def test_special_addresses_are_not_public(self, address: str):
        """
        What IANA or a cloud reserves for inside is not dialled.
        """
        assert not is_public(address)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "35.190.43.134"])
    def test_the_internet_is_public(self, address: str):
        """
        The guard lets partners through.
        """
        assert is_public(address)


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_secrets_stay_at_home(self, status: int):
        """
        A redirect is an answer like others: the other host sees neither key, nor body, nor any connection.
        """
        async with listening(answering(OK)) as elsewhere:
            moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
            async with listening(answering(moved)) as peer, sending() as transport:
                secret = Secret("key-canary")
                answer = await transport.send(
                    post(peer.url, headers={"x-api-key": secret, "Authorization": secret}, query={"token": secret})
                )

                assert f"HTTP {status}" == kind(answer)
                assert (1, 0) == (peer.connections, elsewhere.connections)
                assert 3 == peer.requests[0].count(b"key-canary")


async def flood(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def drip(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.request(reader)
    await reader.read()


async def endless_headers(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-header: " + b"y" * 4000 + b"\r\n")
        await writer.drain()


async def reset(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.request(reader)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class TestAnswers:
    async def test_an_answer_without_end_is_cut(self):
        """
        64 KB are read, the connection is closed, and the status decides.
        """
        async with listening(flood) as peer, sending() as transport:
            answer = await transport.send(post(peer.url))
            async with asyncio.timeout(5):
                await peer.finished.wait()

        assert isinstance(answer, Response)
        assert (200, MAX_ANSWER) == (answer.status, len(answer.body))

    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            pytest.param(drip, "timeout", id="one byte at a time"),
            pytest.param(silence, "timeout", id="no answer"),
            pytest.param(reset, "closed", id="reset"),
            pytest.param(endless_headers, "closed", id="headers without end"),
            pytest.param(answering(), "closed", id="closed without an answer"),
            pytest.param(answering(b"\x16\x03\x01garbage\r\n\r\n"), "closed", id="garbage"),
            pytest.param(answering(b"<html>welcome</html>"), "closed", id="HTTP 0.9"),
            pytest.param(answering(b"HTTP/1.1 200"), "closed", id="half a status line"),
            pytest.param(answering(b"HTTP/1.1 200 OK\r\nX-A"), "closed", id="half a header"),
            pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "closed", id="negative length"),
            pytest.param(
                answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
                "closed",
                id="two lengths",
            ),
            pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken"), "HTTP 200", id="cut body"),
            pytest.param(
                answering(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nbroken"), "HTTP 503", id="cut error"
            ),
            pytest.param(
                answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n"),
                "closed",
                id="chunks that are none",
            ),
            pytest.param(
                answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhel"),
                "HTTP 200",
                id="half a chunk",
            ),
            pytest.param(
                answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nnotgzip"),
                "HTTP 200",
                id="a packed body that is not",
            ),
            pytest.param(answering(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK), "HTTP 200", id="early hints"),
            pytest.param(answering(b"HTTP/1.1 204 No Content\r\n\r\n"), "HTTP 204", id="nothing to say"),
            pytest.param(answering(b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n"), "HTTP 999", id="odd status"),
        ],
    )
    async def test_whatever_comes_is_a_value(self, script: Script, expected: str):
        """
        No answer raises: what has a status counts by it, the rest is a failure of a known kind.
        """
        async with listening(script) as peer, sending(timeout=0.5) as transport:
            assert expected == kind(await transport.send(post(peer.url)))

    async def test_nothing_is_unpacked_kept_or_taken_from_the_environment(self, monkeypatch: pytest.MonkeyPatch):
        """
        We ask for no compression, keep no cookie and obey no proxy of the environment.
        """
        async with listening(answering(OK)) as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=canary; Path=/\r\nContent-Length: 0\r\n\r\n"
            async with listening(answering(cookie)) as peer, sending() as transport:
                for _ in range(2):
                    await transport.send(post(peer.url))

                assert 0 == proxy.connections
                assert 2 == len(peer.requests)
                assert all(b"accept-encoding: identity" in each.lower() for each in peer.requests)
                assert not any(b"canary" in each for each in peer.requests)


class TestKeptConnections:
    async def test_a_connection_that_closes_as_we_write_is_tried_once_more(self):
        """
        The partner ends an idle connection at the moment of the next request: it is sent again, the same, on a new one.
        """

        async def once(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.request(reader)
            writer.write(OK)
            await peer.request(reader)

        async with listening(once) as peer, sending() as transport:
            first = await transport.send(post(peer.url, body=b"one"))
            second = await transport.send(post(peer.url, body=b"two"))

        assert ["HTTP 200", "HTTP 200"] == [kind(first), kind(second)]
        assert [b"one", b"two", b"two"] == [each[-3:] for each in peer.requests]
        assert 2 == peer.connections

    async def test_the_second_try_is_on_a_new_connection(self):
        """
        Several idle connections went stale together: the second try does not take another of them.
        """
        both = asyncio.Event()

        async def once(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.request(reader)
            if peer.connections == 2:
                both.set()
            await both.wait()
            writer.write(OK)
            await peer.request(reader)

        async with listening(once) as peer, sending() as transport:
            await asyncio.gather(*(transport.send(post(peer.url)) for _ in range(2)))
            assert 2 == peer.connections

            assert "HTTP 200" == kind(await transport.send(post(peer.url)))
            assert 3 == peer.connections

    async def test_it_is_tried_once_and_not_for_ever(self):
        """
        A partner that closes every connection gets two requests, no more.
        """
        async with listening(answering()) as peer, sending() as transport:
            assert "closed" == kind(await transport.send(post(peer.url)))
            assert 2 == len(peer.requests)

    async def test_a_cancelled_request_leaves_the_others_alone(self):
        """
        Giving up on one request neither breaks the transport nor mixes up answers.
        """
        asked = asyncio.Event()

        async def by_body(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                if (await peer.request(reader)).endswith(b"slow"):
                    asked.set()
                    await reader.read()
                writer.write(OK)

        async with listening(by_body) as peer, sending() as transport:
            slow = asyncio.create_task(transport.send(post(peer.url, body=b"slow")))
            await asked.wait()
            slow.cancel()
            answers = await asyncio.gather(slow, transport.send(post(peer.url)), return_exceptions=True)

        assert isinstance(answers[0], asyncio.CancelledError)
        assert isinstance(answers[1], Response)
        assert b"ok" == answers[1].body

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param({}, id="no more"),
            pytest.param({"Accept": "application/json"}, id="one that we send too"),
            pytest.param({"content-type": "application/vnd.acme+json"}, id="one twice, in two spellings"),
        ],
    )
    async def test_a_further_request_is_like_the_first(self, more: dict[str, Header]):
        """
        On a connection that was kept, a request has the same address and headers, and nothing else, in whatever order.
        """

        async def for_ever(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await peer.request(reader)
                writer.write(OK)

        async with listening(for_ever) as peer, sending() as transport:
            headers = {"X-Key": Secret("s"), "Content-Type": "application/json", **more}
            asked = {"headers": headers, "query": {"a": "b c&d"}}
            for _ in range(2):
                await transport.send(post(peer.url, body="é".encode(), **asked))
            other = msgspec.structs.replace(post(peer.url, body=b""), method="GET")
            assert "HTTP 200" == kind(await transport.send(other))

            assert 1 == peer.connections
        first, second, third = (each.partition(b"\r\n\r\n") for each in peer.requests)
        assert sorted(first[0].lower().split(b"\r\n")) == sorted(second[0].lower().split(b"\r\n"))
        assert first[0].split(b"\r\n")[0] == second[0].split(b"\r\n")[0]
        assert ("é".encode(), b"") == (second[2], third[2])

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, "HTTP 200"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken", "HTTP 200"),
            (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "HTTP 503"),
            (b"\x16\x03\x01garbage\r\n\r\n", "closed"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "closed"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
            (None, "timeout"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", "timeout"),
        ],
        ids=[
            "early hints",
            "no content",
            "cut body",
            "half a chunk",
            "garbage",
            "negative",
            "redirect",
            "silence",
            "slow body",
        ],
    )
    async def test_what_a_kept_connection_brings_is_a_value(self, said: bytes | None, expected: str):
        """
        As on a new one; and the connection is used no more where the answer was not whole.
        """
        stays = expected == "timeout"

        async def then(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.request(reader)
            writer.write(OK)
            await peer.request(reader)
            writer.write(said or b"")
            if stays:
                await reader.read()

        async with listening(then) as peer, sending(timeout=0.5) as transport:
            assert "HTTP 200" == kind(await transport.send(post(peer.url)))
            assert expected == kind(await transport.send(post(peer.url)))
            assert 1 == peer.connections
            assert "HTTP 200" == kind(await transport.send(post(peer.url)))
            assert 2 == peer.connections

    async def test_a_long_answer_on_a_kept_connection_is_cut(self):
        """
        64 KB are read there, too, and the connection is closed.
        """

        async def then(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.request(reader)
            writer.write(OK)
            await flood(peer, reader, writer)

        async with listening(then) as peer, sending() as transport:
            await transport.send(post(peer.url))
            answer = await transport.send(post(peer.url))
            async with asyncio.timeout(5):
                await peer.finished.wait()

        assert isinstance(answer, Response)
        assert (200, MAX_ANSWER, 1) == (answer.status, len(answer.body), peer.connections)


class TestRequests:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("a\r\nX-Injected: 1", id="a header of its own"),
            pytest.param("a\nX-Injected: 1", id="a bare line feed"),
            pytest.param("a\rX-Injected: 1", id="a bare carriage return"),
            pytest.param("a\0b", id="NUL"),
        ],
    )
    @pytest.mark.parametrize("wrap", [str, Secret], ids=["text", "secret"])
    async def test_a_header_cannot_begin_another(self, value: str, wrap: Callable[[str], Header]):
        """
        Such a value is refused before anything is sent, and the reason does not repeat it.
        """
        async with listening(answering(OK)) as peer, sending() as transport:
            answer = await transport.send(post(peer.url, headers={"x-api-key": wrap(value)}))

            assert isinstance(answer, Failure)
            assert "request" == answer.kind
            assert value not in answer.reason
            assert not any(b"X-Injected" in each for each in peer.requests)

    @pytest.mark.parametrize(
        "url",
        ["https://hooks.example:99999/", "https://hooks..example/", f"https://{'a' * 64}.example/", "https:///in"],
        ids=["a port that no machine has", "an empty part of a name", "too long a name", "no name"],
    )
    async def test_what_is_no_address(self, url: str):
        """
        An address that cannot be dialled is told from a request that cannot be written: it is wrong for every event.
        """
        async with sending() as transport:
            answer = await transport.send(post(url))

        assert Failure(kind="address", reason="no server can have this address: correct url or base_url") == answer

    async def test_a_query_is_data(self):
        """
        What stands in a query value cannot begin another parameter, a fragment or a header.
        """
        async with listening(answering(OK)) as peer, sending() as transport:
            await transport.send(post(peer.url, query={"token": Secret("a+b/c=&x=1#f\r\nY: 2")}))

            line = peer.requests[0].partition(b"\r\n")[0]
            assert b"POST /in?token=a%2Bb/c%3D%26x%3D1%23f%0D%0AY:+2 HTTP/1.1" == line

    @pytest.mark.parametrize(
        "url",
        [
            "", "https://", "https:///in", "https://host:99999/", "https://host:port/", "https://[::1", "https://a b/",
            "https://.example.com/", "https://" + "a" * 70 + ".example/", "https://xn--/", "file:///etc/passwd",
            "ftp://partner.example/", "//partner.example/", "partner.example",
        ],
    )  # fmt: skip
    async def test_a_wrong_address_is_a_value(self, names: dict[str, list[str]], url: str):
        """
        An address that cannot be written as a request is a failure, not an exception.
        """
        names["a b"] = []
        async with sending(allow_private=False) as transport:
            assert isinstance(await transport.send(post(url)), Failure)


class TestNames:
    async def test_a_name_that_does_not_resolve(self, names: dict[str, list[str]]):
        """
        It is told from a partner that does not listen.
        """
        names["partner.example"] = []
        async with sending() as transport:
            assert "name" == kind(await transport.send(post("http://partner.example/in")))

    async def test_nobody_listens(self):
        """
        A refused connection is a passing fault.
        """
        async with listening(answering(OK)) as peer:
            url = peer.url
        async with sending() as transport:
            assert "connect" == kind(await transport.send(post(url)))

    async def test_a_hanging_name_server_stops_one_lane(self, monkeypatch: pytest.MonkeyPatch):
        """
        While one lane's lookup hangs, another lane resolves and sends, and the hanging one fails by its timeout.
        """
        ask, released = socket.getaddrinfo, threading.Event()

        def resolve(host, *args, **kwargs):
            if host == "hanging.example":
                released.wait(10)
            return ask("127.0.0.1", *args, **kwargs)

        async with listening(answering(OK)) as peer, sending(timeout=0.5) as dead, sending() as healthy:
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            hanging = asyncio.create_task(dead.send(post(f"http://hanging.example:{peer.port}/in")))
            answer = await healthy.send(post(f"http://healthy.example:{peer.port}/in"))
            failure = await hanging
            released.set()

        assert ["HTTP 200", "timeout"] == [kind(answer), kind(failure)]

    async def test_closing_ends_the_lookups(self, names: dict[str, list[str]]):
        """
        A closed transport leaves no thread behind: one that waits would keep the process from ending.
        """
        names["partner.example"] = []
        transport = Transport("closing", SystemClock(), timeout=5.0, concurrency=1, allow_private=True)
        await transport.send(post("http://partner.example/in"))
        threads = [each for each in threading.enumerate() if each.name.startswith("resolve-closing")]
        await transport.close()
        for each in threads:
            await asyncio.to_thread(each.join, 2.0)

        assert [] == [each.name for each in threads if each.is_alive()]


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate that signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "partner.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path: Path = tmp_path_factory.mktemp("tls") / "pair.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class TestTls:
    async def test_an_untrusted_certificate_ends_before_the_request(self, untrusted: ssl.SSLContext):
        """
        No byte of a request leaves over a connection that is not trusted.
        """
        async with listening(answering(OK), untrusted) as peer, sending() as transport:
            assert "tls" == kind(await transport.send(post(f"https://127.0.0.1:{peer.port}/in")))
            assert [] == peer.requests

    async def test_a_port_that_speaks_no_tls(self):
        """
        It is never spoken to in clear instead.
        """

        async def plain(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with listening(plain) as peer, sending() as transport:
            assert "tls" == kind(await transport.send(post(f"https://127.0.0.1:{peer.port}/in")))
