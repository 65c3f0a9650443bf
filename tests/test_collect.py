"""The collect endpoint as senders meet it: keys, browsers, limits, and what it says when it cannot store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from router.app import App
from router.collect.admission import Admission
from router.outbox.errors import Broken, Busy, DiskFull
from router.secret import Secret
from router.settings import Source
from tests.running import KEY, collect_url, running_app, settings, stored

EVENT = json.dumps({"event": "purchase", "value": 12, "currency": "EUR"})


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    chosen = settings(tmp_path, site="3311", origins=("https://shop.example",))
    digest = "sha256:" + hashlib.sha256(b"digest-key").hexdigest()
    sources = {
        **chosen.sources,
        "blog": Source(tokens=(Secret("blog-key"), Secret("blog-key-2"))),
        "off": Source(tokens=(Secret("off-key"),), enabled=False),
        "digest": Source(tokens=(Secret(digest, digest),)),
    }
    async with running_app(msgspec.structs.replace(chosen, sources=sources)) as app:
        yield app


@pytest.fixture
async def http(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(collect_url(app)) as session:
        yield session


async def said(answer: Any) -> tuple[int, Any]:
    async with answer as response:
        return response.status, await response.json()


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}


async def no_room(_rows: object) -> list[bool]:
    raise DiskFull("x")


class TestKeys:
    @pytest.mark.parametrize(
        ("path", "headers", "source"),
        [
            pytest.param(f"/collect?token={KEY}", {}, "shop", id="token in the query"),
            pytest.param(f"/events?tc_s=3311&token={KEY}", {}, "shop", id="site and token, as Commanders Act"),
            pytest.param("/collect?writeKey=blog-key", {}, "blog", id="writeKey in the query, as a beacon"),
            pytest.param("/collect?k=blog-key", {}, "blog", id="the short form of a tag manager"),
            pytest.param("/collect", {"Authorization": f"Bearer {KEY}"}, "shop", id="bearer"),
            pytest.param("/collect", {"x-api-key": "blog-key-2"}, "blog", id="x-api-key, the second of two"),
            pytest.param("/v1/track", basic(f"{KEY}:"), "shop", id="basic, as Segment"),
            pytest.param("/v1/track", basic(KEY), "shop", id="basic without its colon"),
            pytest.param("/collect", {"x-api-key": "digest-key"}, "digest", id="a key known by its digest"),
        ],
    )
    async def test_every_way_to_give_the_key_works(self, app, http, path, headers, source):
        """
        The key is found wherever a sender puts it, and says whose events these are.
        """
        status, answer = await said(http.post(path, data=EVENT, headers=headers))

        assert (200, 1) == (status, answer["accepted"])
        assert [source] == [event.source for event in await stored(app)]

    async def test_the_key_in_the_body_works(self, app, http):
        """
        Segment's writeKey, in a single call and in a batch.
        """
        single = {"writeKey": "blog-key", "userId": "u", "event": "A"}
        batch = {"writeKey": KEY, "batch": [{"type": "track", "userId": "u", "event": "B"}]}
        assert 200 == (await said(http.post("/v1/track", json=single)))[0]
        assert 200 == (await said(http.post("/v1/batch", json=batch)))[0]
        assert [("blog", "A"), ("shop", "B")] == [(each.source, each.name) for each in await stored(app)]

    async def test_every_wrong_key_is_the_same_answer(self, app, http):
        """
        No key, a wrong one, a wrong site, two keys, a digest used as a key: one identical 401, nothing stored.
        """
        digest = "sha256:" + hashlib.sha256(b"digest-key").hexdigest()
        tries = [
            ("/collect", {}),
            ("/collect?token=wrong", {}),
            ("/collect?token=", {}),
            (f"/collect?token={KEY}&tc_s=9999", {}),
            (f"/collect?token={KEY}", {"x-api-key": "blog-key"}),
            (f"/collect?token={KEY}&token=blog-key", {}),
            ("/collect", {"Authorization": "Basic !!!"}),
            ("/collect", {"x-api-key": digest}),
            ("/collect", {"x-api-key": "ü" * 3000}),
        ]
        answers = {str(await said(http.post(path, data=EVENT, headers=headers))) for path, headers in tries}

        assert 1 == len(answers)
        assert "401" in answers.pop()
        assert [] == await stored(app)

    async def test_a_source_that_is_switched_off(self, app, http):
        """
        Its key is right, so the answer is 403; nothing is stored.
        """
        status, answer = await said(http.post("/collect?token=off-key", data=EVENT))

        assert (403, "source_disabled") == (status, answer["code"])
        assert [] == await stored(app)


class TestAnswer:
    @pytest.mark.parametrize("place", [0, 7, 399])
    async def test_a_batch_with_a_bad_member_stores_the_others(self, app, http, place: int):
        """
        Of 400 events one has no name: 399 are stored in order, the bad one is named by its place.
        """
        batch: list[dict[str, Any]] = [{"event_name": "search", "id": f"e-{n}"} for n in range(400)]
        batch[place] = {"id": "bad", "user": {"id": "u"}, "context": {}}
        status, answer = await said(http.post(f"/events/batch?token={KEY}", json={"batch": batch}))

        assert 200 == status
        assert (True, 399, 0, 1) == tuple(answer[key] for key in ("success", "accepted", "duplicate", "rejected"))
        ((index, field, code),) = [(each["index"], each["field"], each["code"]) for each in answer["problems"]]
        assert (place, "event_name", "missing") == (index, field, code)
        assert 399 == len(await stored(app))

    async def test_a_resend_is_told_as_duplicate(self, app, http):
        """
        The same batch again: nothing new is stored and the answer says so.
        """
        batch = [{"event": "x", "id": "a"}, {"event": "x", "id": "b"}]
        await said(http.post(f"/collect?token={KEY}", json=batch))
        _, answer = await said(http.post(f"/collect?token={KEY}", json=batch))

        assert (0, 2) == (answer["accepted"], answer["duplicate"])
        assert 2 == len(await stored(app))

    async def test_a_single_event_is_told_its_id(self, app, http):
        """
        One object: its id is in the answer, and is the one that is stored.
        """
        _, answer = await said(http.post(f"/collect?token={KEY}", data=EVENT))

        assert [answer["id"]] == [event.id for event in await stored(app)]


class TestBrowsers:
    async def test_a_preflight_of_a_listed_origin_is_allowed(self, http):
        """
        The headers that browser SDKs ask for are allowed by name, with credentials, to listed origins only.
        """
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        async with http.options("/v1/t", headers={"Origin": "https://shop.example", **asked}) as answer:
            assert "https://shop.example" == answer.headers["Access-Control-Allow-Origin"]
            assert "true" == answer.headers["Access-Control-Allow-Credentials"]
            assert {"authorization", "x-retry-count"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
        async with http.options("/v1/t", headers={"Origin": "https://evil.example", **asked}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_an_answer_can_be_read_by_the_sources_own_pages(self, http):
        """
        The origin is echoed for the source that lists it, never as a wildcard, and not for another source.
        """
        origin = {"Origin": "https://shop.example"}
        async with http.post(f"/collect?token={KEY}", data=EVENT, headers=origin) as answer:
            assert ("https://shop.example", "Origin") == (
                answer.headers["Access-Control-Allow-Origin"],
                answer.headers["Vary"],
            )
        async with http.post("/collect?token=blog-key", data=EVENT, headers=origin) as answer:
            assert 200 == answer.status
            assert "Access-Control-Allow-Origin" not in answer.headers

    @pytest.mark.parametrize(
        ("trouble", "status"),
        [
            pytest.param(("collector", "draining", True), 503, id="stopping"),
            pytest.param(("collector", "_admission", Admission(most_requests=0)), 429, id="too much in hand"),
            pytest.param(("store", "append", no_room), 503, id="the disk is full"),
            pytest.param(("collector", "_clock", None), 503, id="a fault of ours"),
        ],
    )
    async def test_a_page_can_read_when_to_come_back(self, app, http, monkeypatch, trouble, status):
        """
        Browser SDKs wait as long as Retry-After says, if they see it: a listed origin is echoed here, too, no other one.
        """
        assert 200 == (await said(http.post(f"/collect?token={KEY}", data=EVENT)))[0]
        holder, name, value = trouble
        monkeypatch.setattr(getattr(app, holder), name, value)
        for _ in range(2):
            async with http.post(
                f"/collect?token={KEY}", data=EVENT, headers={"Origin": "https://shop.example"}
            ) as answer:
                assert (status, "https://shop.example", "Retry-After") == (
                    answer.status,
                    answer.headers["Access-Control-Allow-Origin"],
                    answer.headers["Access-Control-Expose-Headers"],
                )
                assert {"success", "code", "message", "errors"} == set(await answer.json())
                assert answer.headers["Retry-After"].isdigit()
        for other in ({"Origin": "https://evil.example"}, {}):
            async with http.post(f"/collect?token={KEY}", data=EVENT, headers=other) as answer:
                assert status == answer.status
                assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_a_pixel_is_an_image_to_a_page_and_json_to_others(self, app, http):
        """
        GET /events with nested parameters is one event.
        """
        query = f"?tc_s=3311&token={KEY}&event_name=page_view&user[id]=u1&user[consent_categories][]=1"
        async with http.get("/events" + query, headers={"Accept": "image/avif,image/*"}) as answer:
            assert ("image/gif", b"GIF89a") == (answer.content_type, (await answer.read())[:6])
        assert 200 == (await said(http.get("/events" + query)))[0]
        first = (await stored(app))[0]
        assert ("page_view", "u1", ("1",)) == (first.name, first.user.id, first.consent.granted)


class TestNotDurable:
    @pytest.mark.parametrize(
        ("fault", "status", "code"),
        [
            pytest.param(Busy("x"), 429, "busy", id="too much waits"),
            pytest.param(DiskFull("x"), 503, "disk_full", id="no space"),
            pytest.param(Broken("x"), 503, "broken", id="the disk failed"),
        ],
    )
    async def test_what_is_not_on_disk_is_not_acknowledged(self, app, http, monkeypatch, fault, status, code):
        """
        The answer is 429 or 503 with an integer Retry-After, so that SDKs come back.
        """

        async def refuse(_rows: object) -> list[bool]:
            raise fault

        monkeypatch.setattr(app.store, "append", refuse)
        async with http.post(f"/collect?token={KEY}", data=EVENT) as answer:
            assert (status, code) == (answer.status, (await answer.json())["code"])
            assert 1 <= int(answer.headers["Retry-After"]) <= 5

    async def test_while_draining_senders_are_sent_away(self, app, http):
        """
        A stopping server answers 503 with Retry-After.
        """
        app.collector.draining = True
        async with http.post(f"/collect?token={KEY}", data=EVENT) as answer:
            assert (503, "draining") == (answer.status, (await answer.json())["code"])
            assert answer.headers["Retry-After"].isdigit()

    async def test_a_fault_of_ours_shows_nothing(self, app, http, monkeypatch):
        """
        An unexpected exception is a 503 without a trace of its text.
        """

        async def fail(*_: object) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(app.store, "append", fail)
        async with http.post(f"/collect?token={KEY}", data=EVENT) as answer:
            assert 503 == answer.status
            assert "secret" not in await answer.text()

    async def test_a_body_that_never_ends_is_cut_off(self, app, monkeypatch):
        """
        A body slower than the deadline: 408, connection closed, nothing stored.
        """
        monkeypatch.setattr("router.collect.http.BODY_DEADLINE", 0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", app.collect_port)
        writer.write(f"POST /collect?token={KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

        assert answer.startswith(b"HTTP/1.1 408")
        assert [] == await stored(app)
