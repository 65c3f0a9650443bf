"""A visitor's address: whose word for it counts, whatever stands between the visitor and us."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import msgspec
import pytest

from destinations.ipsnare import IpSnare
from router.collect.connections import bound
from router.secret import Secret
from router.settings import Settings
from tests.running import KEY, collect_url, running_app, settings, stored

VISITOR = "203.0.113.9"


def proxied(directory: Path) -> Settings:
    """Whoever connects here is a trusted proxy, and somebody needs addresses."""
    lane = IpSnare(api_key=Secret("k"), base_url="http://127.0.0.1:1", allow_private=True)
    chosen = settings(directory, destinations={"jobs": lane}, origins=("https://shop.example",))
    collect = msgspec.structs.replace(chosen.collect, trusted_proxies=("127.0.0.0/8", "10.0.0.0/8"))
    return msgspec.structs.replace(chosen, collect=collect)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([VISITOR], id="one proxy"),
        pytest.param([f"198.51.100.1, {VISITOR}"], id="the visitor says it is somebody else"),
        pytest.param(["198.51.100.1", VISITOR], id="and the proxy adds a line of its own"),
        pytest.param(["198.51.100.1", f"{VISITOR}, 10.0.0.7", "10.0.0.8"], id="three proxies, two lines of theirs"),
        pytest.param([f"198.51.100.1, {VISITOR}, ::ffff:10.0.0.7"], id="a proxy in the form of IPv6"),
    ],
)
async def test_the_last_address_that_no_proxy_vouches_further_for(tmp_path: Path, lines: list[str]):
    """
    All lines of X-Forwarded-For are one chain, in their order, whatever way the request is taken.
    """
    headers = [("Origin", "https://shop.example"), *(("X-Forwarded-For", line) for line in lines)]
    async with running_app(proxied(tmp_path)) as app, aiohttp.ClientSession(collect_url(app)) as http:
        for _ in range(3):
            async with http.post(f"/collect?token={KEY}", json={"event": "x"}, headers=headers) as answer:
                assert 200 == answer.status

        assert [VISITOR] * 3 == [event.clear.ip for event in await stored(app)]


@pytest.mark.parametrize("shared", [pytest.param(False, id="one process"), pytest.param(True, id="several")])
def test_an_address_is_of_one_kind(shared: bool):
    """
    Nobody's IPv4 address comes in the form of IPv6: on [::] only IPv6 is taken.
    """
    with bound("::", 0, shared=shared) as listening:
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection(("::1", port), 5):
            pass

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
