"""The fake partners' chassis, over real HTTP: it records, counts, and misbehaves exactly as told."""

import asyncio
import errno
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from router.mocks import PARTNERS
from router.mocks.partner import Answer, Call, Partner, Trouble, running

IMPATIENT = aiohttp.ClientTimeout(total=0.3)


class Till(Partner):
    """A partner with the smallest of rules: a body that says it is bad is refused."""

    name = "till"

    def answer(self, call: Call) -> Answer:
        if call.body == b'"bad"':
            return Answer(400, {"message": "bad"}, reason="bad")
        return Answer(200, {"ok": True}, keys=(call.body.decode(),))


@pytest.fixture
def till() -> Till:
    return Till(now=lambda: 5)


@pytest_asyncio.fixture(loop_scope="function")
async def client(till) -> AsyncIterator[aiohttp.ClientSession]:
    async with running(till) as url, aiohttp.ClientSession(url) as session:
        yield session


async def post(client, body="one", path="/v1/take", **more) -> int:
    async with client.post(path, json=body, **more) as response:
        await response.read()
        return response.status


async def listed(client, path):
    async with client.get(path) as response:
        return await response.json()


class TestRecords:
    async def test_lists_what_came_and_what_was_said(self, client):
        """
        /received shows every call with its answer, and masks the secrets of its query.
        """
        await post(client, {"a": 1}, "/v3/pixel/events?access_token=hush&mode=x")
        await post(client, "bad")

        first, second = await listed(client, "/received")

        assert {
            "n": 1, "at": 5, "method": "POST", "path": "/v3/pixel/events", "body": {"a": 1}, "status": 200,
            "query": {"access_token": "***", "mode": "x"}, "accepted": True, "reason": "", "keys": ['{"a": 1}'],
        } == first  # fmt: skip
        assert (2, "bad", 400, False, "bad") == tuple(second[k] for k in ("n", "body", "status", "accepted", "reason"))

    async def test_lists_what_is_new(self, client):
        """
        /received?after=n leaves out what was seen before; anything else than a number is a mistake.
        """
        for body in ("a", "b", "c"):
            await post(client, body)

        assert [3] == [call["n"] for call in await listed(client, "/received?after=2")]
        assert {"message": "after is the n of the last call you have seen"} == await listed(client, "/received?after=x")

    async def test_counts_calls_and_events(self, client):
        """
        /counts tells calls from events, and an event taken twice from two events.
        """
        for body in ("a", "a", "b", "bad"):
            await post(client, body)

        counts = await listed(client, "/counts")

        assert {"received": 4, "accepted": 3, "refused": 1, "troubled": 0, "events": 3, "distinct": 2} == counts

    async def test_forgets_on_reset(self, client, till):
        """
        After /reset nothing was received and nothing is wrong.
        """
        till.trouble = [Trouble(status=500)]
        await post(client)

        async with client.post("/reset") as response:
            assert 200 == response.status

        assert [] == await listed(client, "/received")
        assert 200 == await post(client)
        assert 1 == till.counts.received

    def test_keeps_the_newest_calls_and_counts_all(self, till, monkeypatch):
        """
        A long run drops the oldest calls from the list and from nothing else.
        """
        monkeypatch.setattr("router.mocks.partner.KEPT", 10)

        for n in range(25):
            till.take(Call(path="/", body=str(n).encode(), at=n))

        assert 25 == till.counts.received == till.counts.distinct
        assert len(till.received) <= 10
        assert 25 == till.received[-1].n

    async def test_waits_for_what_was_taken(self, client, till):
        """
        wait_for ends with the call that completes the count; a refused one does not count unless asked for.
        """
        taken = asyncio.ensure_future(till.wait_for(2))
        called = asyncio.ensure_future(till.wait_for(3, accepted=False))
        different = asyncio.ensure_future(till.wait_for_events(2))

        for body in ("a", "bad"):
            await post(client, body)
        early = (taken.done(), called.done(), different.done())
        await post(client, "b")
        await asyncio.gather(taken, called, different)

        assert (False, False, False) == early


class TestTrouble:
    async def test_answers_as_told_instead_of_working(self, client, till):
        """
        A status takes the place of the rules: the partner took nothing.
        """
        till.trouble = [Trouble(status=503, body={"why": "tired"}, retry_after="7", headers={"X-Seen": "yes"})]

        async with client.post("/", json="one") as response:
            assert (503, {"why": "tired"}) == (response.status, await response.json())
            assert ("7", "yes") == (response.headers["Retry-After"], response.headers["X-Seen"])
        assert (0, 1) == (till.counts.accepted, till.counts.troubled)

    async def test_may_take_and_lose_the_answer(self, client, till):
        """
        With taken, the partner has the event although its client never learns so.
        """
        till.trouble = [Trouble(reset=True, taken=True)]

        with pytest.raises(aiohttp.ClientConnectionError):
            await post(client, "one")

        assert {'"one"': 1} == till.taken
        assert 1 == till.counts.accepted

    async def test_resets_the_connection(self, client, till):
        """
        A reset is a reset, not an orderly end.
        """
        till.trouble = [Trouble(reset=True)]

        with pytest.raises(aiohttp.ClientOSError) as error:
            await post(client)

        assert errno.ECONNRESET == error.value.errno
        assert 0 == till.counts.accepted

    @pytest.mark.parametrize("trouble", [Trouble(hang=True), Trouble(drip=True)], ids=["hangs", "drips"])
    async def test_never_ends(self, client, till, trouble):
        """
        A client that does not limit the whole answer would wait for ever; the one that does is served again.
        """
        till.trouble = [trouble]

        with pytest.raises(TimeoutError):
            await post(client, timeout=IMPATIENT)
        till.trouble = []

        assert 200 == await post(client)

    async def test_floods(self, client, till):
        """
        A flood has more bytes than a client should read, and ends when the client leaves.
        """
        till.trouble = [Trouble(flood=True, times=1)]

        async with client.post("/", json="one") as response:
            read = await response.content.readexactly(1_000_000)

        assert 1_000_000 == len(read)
        assert 200 == await post(client)

    @pytest.mark.parametrize("raw", ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", ""])
    async def test_speaks_no_http(self, client, till, raw):
        """
        Bytes that are no answer, an answer cut short, and no bytes at all reach the client as they are.
        """
        till.trouble = [Trouble(raw=raw)]

        with pytest.raises(aiohttp.ClientError):
            await post(client)

    async def test_a_delay_alone_leaves_the_rules_in_force(self, client, till):
        """
        A slow partner still takes what is good and refuses what is bad, once the time has passed.
        """
        till.trouble = [Trouble(delay=0.01)]

        assert [200, 400] == [await post(client, body) for body in ("good", "bad")]

    async def test_a_delay_outlasts_an_impatient_client(self, client, till):
        """
        Nothing is taken before the delay is over.
        """
        till.trouble = [Trouble(delay=600)]

        with pytest.raises(TimeoutError):
            await post(client, timeout=IMPATIENT)
        assert 0 == till.counts.received

    async def test_hits_only_the_bodies_it_names(self, client, till):
        """
        One bad member makes its batch fail, and no other.
        """
        till.trouble = [Trouble(status=400, match="poison")]

        assert [200, 400] == [await post(client, ["a", "b"]), await post(client, ["a", "poison"])]

    async def test_lasts_so_many_calls(self, client, till):
        """
        times counts down, and the trouble behind it comes next.
        """
        till.trouble = [Trouble(status=500, times=2), Trouble(status=429, times=1)]

        assert [500, 500, 429, 200] == [await post(client) for _ in range(4)]

    def test_hits_the_same_share_with_the_same_seed(self):
        """
        A share of the calls is hit, and the same ones in every run.
        """

        def hits(seed):
            partner = Till(now=lambda: 0, seed=seed)
            partner.trouble = [Trouble(status=500, share=0.3)]
            return [partner.next_trouble(Call(path="/", at=0)) is not None for _ in range(1000)]

        assert hits(1) == hits(1) != hits(2)
        assert 200 < sum(hits(1)) < 400

    async def test_is_set_and_ended_over_http(self, client):
        """
        POST /trouble takes one or a list, DELETE ends it, and a misspelt one is refused by name.
        """
        one = await post(client, {"status": 500}, "/trouble"), await post(client)
        two = await post(client, [{"status": 502, "times": 1}, {"status": 504}], "/trouble"), await post(client)
        async with client.delete("/trouble") as response:
            ended = response.status, await post(client)
        async with client.post("/trouble", json={"statos": 500}) as response:
            wrong = response.status, await response.json()

        assert ((200, 500), (200, 502), (200, 200)) == (one, two, ended)
        assert 400 == wrong[0]
        assert "statos" in wrong[1]["message"]


class TestControls:
    async def test_are_listed(self, client):
        """
        GET / tells every control, and is no call that the partner got; GET /trouble tells how it misbehaves.
        """
        async with client.get("/") as answer:
            told = await answer.json()
        async with client.post("/trouble", json={"status": 503}) as answer:
            assert 200 == answer.status
        async with client.get("/trouble") as answer:
            trouble = await answer.json()
        async with client.get("/received") as answer:
            received = await answer.json()

        assert {"/", "/received", "/counts", "/trouble", "/reset"} <= {each["path"] for each in told["controls"]}
        assert set(Trouble.__struct_fields__) == set(told["trouble"])
        assert [{"status": 503}] == trouble
        assert [] == received


@pytest.mark.parametrize("name", sorted(PARTNERS))
class TestPartners:
    async def test_is_served(self, name):
        """
        Every fake partner in the list starts, and answers a stranger without falling over.
        """
        partner = PARTNERS[name](now=lambda: 5)

        async with running(partner) as url, aiohttp.ClientSession(url) as client:
            status = await post(client, {"hello": ["stranger"]}, "/somewhere")

        assert name == partner.name
        assert 400 <= status < 500
        assert (1, 0) == (partner.counts.received, partner.counts.accepted)

    @pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'{"data": [null]}', b'"text"', b"1e999"])
    def test_bad_bodies_are_refused_not_fatal(self, name, body):
        """
        Bytes that are no documented body are refused with a status of the client's fault.
        """
        partner = PARTNERS[name](now=lambda: 5)
        paths = {"linktrace": "/api/v1/events", "ipsnare": "/v1/track", "snap": "/v3/11111111-2222/events"}
        headers = {
            "content-type": "application/json", "x-api-key": "k", "authorization": "Bearer k",
            "webhook-id": "i", "webhook-timestamp": "0", "webhook-signature": "v1,x",
        }  # fmt: skip
        call = Call(path=paths.get(name, "/"), query={"access_token": "k"}, headers=headers, body=body, at=0)

        answer = partner.take(call)

        assert 400 <= answer.status < 500
        assert msgspec.json.encode(partner.received)


def test_an_unknown_partner_is_a_key_error():
    """
    The list of fake partners behaves as a mapping.
    """
    assert "linktrace" in PARTNERS
    assert "nobody" not in PARTNERS
