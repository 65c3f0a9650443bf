"""The pages: what people see of the outbox in a browser, and what they do there."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from destinations.linktrace import LinkTrace
from router.delivery.engine import Delivery
from router.event import User
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import instant
from router.outbox.state.deliveries import Mark
from router.outbox.state.registers import Quarantined
from router.person import Person
from router.secret import Secret
from router.wording import when
from tests.builders import NOW, an_event, many, rows
from tests.consoles import OpenConsole

BROWSER = {"Accept": "text/html,application/xhtml+xml"}
TOKEN = "a-console-token"
HOSTILE = "<script>alert(1)</script>\"'&"
FOREIGN = re.compile(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", re.IGNORECASE)
INLINE = re.compile(r"<script(?! src=)|<style|\son[a-z]+\s*=|\sstyle\s*=|javascript:", re.IGNORECASE)
PAGES = ("/", "/live", "/deliveries", "/quarantine", "/audit")


async def page(client: TestClient[Any, Any], path: str, **headers: str) -> tuple[int, str]:
    answer = await client.get(path, headers={**BROWSER, **headers})
    return answer.status, await answer.text()


async def post(client: TestClient[Any, Any], **fields: str) -> ClientResponse:
    return await client.post("/act", data=fields, headers=BROWSER, allow_redirects=False)


async def states(store: Outbox) -> dict[str, int]:
    lane = (await Reader(store.directory).ledger()).destinations["links"]
    return {"waiting": lane.waiting, "dead": lane.dead}


class TestPages:
    @pytest.mark.parametrize("path", PAGES)
    async def test_each_answers_before_anything_came(self, open_console: OpenConsole, path: str):
        """
        An empty outbox has pages that say so.
        """
        status, text = await page(await open_console(), path)

        assert (200, True) == (status, text.startswith("<!doctype html>"))
        assert f'<a href="{path}" aria-current="page">' in text

    async def test_programs_get_json_at_the_root(self, open_console: OpenConsole):
        """
        Only who asks for a page gets one.
        """
        client = await open_console()

        assert "addresses" in await (await client.get("/")).json()
        assert "<h1>Overview</h1>" in (await page(client, "/"))[1]

    async def test_the_overview_is_the_ledger(self, open_console: OpenConsole, store: Outbox):
        """
        The sum, each destination with what it waits for, and the newest events; numbers lead to what they count.
        """
        await store.append(many(3))
        await store.settle(store.lanes["links"], [Mark(seqs=[1], state="dead", at=NOW, attempts=1, reason="no")])
        _, text = await page(await open_console(), "/")

        assert "received 3 = accepted" in text
        assert "<strong>on hold</strong>: key refused" in text
        assert '<a href="/deliveries?to=links&amp;state=dead">1</a>' in text
        assert '<a href="/deliveries?to=links&amp;state=waiting">2</a>' in text
        assert '<a href="/events/%233">e-3</a>' in text

    async def test_a_destination_may_come_while_the_overview_is_made(
        self, open_console: OpenConsole, store: Outbox, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A reload may fall between the two reads of a page.
        """
        read = Reader.ledger

        async def ledger(reader: Reader) -> Any:
            found = await read(reader)
            await store.lane("late", "webhook")
            return found

        monkeypatch.setattr(Reader, "ledger", ledger)

        assert 200 == (await page(await open_console(), "/"))[0]

    async def test_the_overview_says_how_long_what_waits_can_wait(
        self, open_console: OpenConsole, store: Outbox, delivery: Delivery
    ):
        """
        A partner takes events up to an age: how long there is to mend what holds a destination up.
        """
        client = await open_console()
        await delivery.apply({"links": LinkTrace(api_key=Secret("k"), max_age="2d")})
        assert "old</small>" not in (await page(client, "/"))[1]
        await store.append(many(1))

        assert "<small>sent up to 2d old</small>" in (await page(client, "/"))[1]

    async def test_the_overview_says_when_nothing_is_taken(self, open_console: OpenConsole, store: Outbox):
        """
        As /readyz does: who looks at the pages alone must not take a full disk for a quiet night.
        """
        client = await open_console()
        assert "No events are taken" not in (await page(client, "/"))[1]
        store.space.full = True

        assert "<strong>No events are taken</strong>: disk_full." in (await page(client, "/"))[1]

    async def test_an_event_is_told_as_by_explain(self, open_console: OpenConsole, store: Outbox):
        """
        What became of it at every destination, and the event as it is stored without its digests.
        """
        await store.append(rows(an_event("a/b c", properties={"colour": "red"})))
        client = await open_console()

        for path in ("/events/a%2Fb%20c", "/events/%231"):
            status, text = await page(client, path)
            assert 200 == status
            assert "number 1, log segment 1; answered after the commit" in text
            assert f"{instant(NOW):%Y-%m-%d %H:%M:%S}.000Z" in text
            assert "waiting, the destination is held (key refused)" in text
            assert "&#34;colour&#34;: &#34;red&#34;" in text

    async def test_an_id_is_found(self, open_console: OpenConsole, store: Outbox):
        """
        The search leads to the event, whatever its id is made of.
        """
        await store.append(rows(an_event("a/b?c#d")))
        client = await open_console()
        answer = await client.get("/find", params={"id": " a/b?c#d "}, headers=BROWSER)

        assert (200, True) == (answer.status, "<code>a/b?c#d</code>" in await answer.text())

    async def test_an_id_that_was_refused_is_found(self, open_console: OpenConsole, store: Outbox):
        """
        Its sender looks for it like any other, and is told the reason.
        """
        refused = Quarantined(at=NOW, source="shop", code="missing", message="add a name", event_id="q", item=None)
        await store.quarantine([refused])
        client = await open_console()
        answer = await client.get("/find", params={"id": "q"}, headers=BROWSER)

        assert (200, True) == (answer.status, "<td>add a name" in await answer.text())
        assert 404 == (await page(client, "/events/other"))[0]

    async def test_pages_of_deliveries_follow_each_other(
        self, open_console: OpenConsole, store: Outbox, monkeypatch: pytest.MonkeyPatch
    ):
        """
        "Older" leads to every delivery of what is asked for, once.
        """
        monkeypatch.setattr("router.console.pages.ROWS", 2)
        await store.append(many(5))
        client, path, seen = await open_console(), "/deliveries?to=links&state=waiting", []
        while path:
            _, text = await page(client, path)
            seen += re.findall(r'href="/events/%23(\d+)"', text)
            following = re.search(r'href="([^"]+)" rel="next"', text)
            path = following[1].replace("&amp;", "&") if following else ""

        assert ["5", "4", "3", "2", "1"] == seen

    async def test_a_page_that_ends_early_does_not_say_that_there_are_none(
        self, open_console: OpenConsole, store: Outbox, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Only so many deliveries are looked at for one page: what is asked for may be older.
        """
        monkeypatch.setattr("router.outbox.reads.pages._SCANNED", 2)
        await store.append(many(5))
        for seq in range(1, 6):
            state = "filtered" if seq == 1 else "delivered"
            await store.settle(store.lanes["links"], [Mark(seqs=[seq], state=state, at=NOW + seq, attempts=1)])
        client = await open_console()
        _, text = await page(client, "/deliveries?to=links&state=filtered")

        assert "There are none among the newest" in text
        assert 'rel="next"' in text
        assert "There are none.</p>" in (await page(client, "/deliveries?to=links&state=dead"))[1]

    async def test_a_held_destination_has_no_next_try(self, open_console: OpenConsole, store: Outbox):
        """
        Nothing is tried there before it goes on, whatever was planned.
        """
        await store.append(many(1))
        await store.settle(
            store.lanes["links"],
            [Mark(seqs=[1], state="waiting", at=NOW, attempts=1, due=NOW + 9_000_000, reason="no")],
        )
        client = await open_console()
        due = when(instant(NOW + 9_000_000))

        for path in ("/", "/deliveries"):
            assert due not in (await page(client, path))[1]
        await store.hold(store.lanes["links"], None)
        for path in ("/", "/deliveries"):
            assert due in (await page(client, path))[1]

    async def test_what_was_refused_is_shown_scrubbed(self, open_console: OpenConsole, store: Outbox):
        """
        With its reason, and what may be kept of it.
        """
        refused = Quarantined(
            at=NOW, source="shop", code="missing", message="add a name", event_id="q", item='{"a": 1}'
        )
        await store.quarantine([refused])
        client = await open_console()

        assert '<a href="/quarantine/1">1</a>' in (await page(client, "/quarantine"))[1]
        assert "&#34;a&#34;: 1" in (await page(client, "/quarantine/1"))[1]
        assert 404 == (await page(client, "/quarantine/2"))[0]


class TestSafety:
    @pytest.mark.parametrize("path", [*PAGES, "/events/%231", "/deliveries?to=links", "/quarantine/1"])
    async def test_what_was_sent_is_only_ever_text(self, open_console: OpenConsole, store: Outbox, path: str):
        """
        No page runs or fetches what an event says, nor anything of another site; the policy forbids both again.
        """
        await store.append(rows(an_event(HOSTILE, name=HOSTILE, source=HOSTILE, properties={HOSTILE: HOSTILE})))
        refused = Quarantined(
            at=NOW, source=HOSTILE, code="bad", message=HOSTILE, event_id=HOSTILE, item=f'["{"<b>"}"]'
        )
        await store.quarantine([refused])
        client = await open_console()
        answer = await client.get(path, headers=BROWSER)
        text = await answer.text()

        assert 200 == answer.status
        assert not any(each in text for each in ("<script>", "<b>"))
        assert None is INLINE.search(text)
        assert None is FOREIGN.search(text)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    def test_the_checks_can_fail(self):
        """
        The patterns see what they are for.
        """
        assert INLINE.search("<a onclick=x>")
        assert INLINE.search("<script>x")
        assert FOREIGN.search('<img src="//cdn.example/x">')

    async def test_style_and_script_are_ours(self, open_console: OpenConsole):
        """
        Both come from here, by their type, and nothing else does.
        """
        client = await open_console()

        assert "text/css" == (await client.get("/static/style.css")).content_type
        script = await client.get("/static/live.js")
        assert "text/javascript" == script.content_type
        assert "innerHTML" not in await script.text()
        assert "EventSource.CLOSED" in await script.text()  # a refusal is not tried again, and must not say so
        for path in ("/static/frame.html", "/static/..%2Fpages.py", "/static/"):
            assert 404 == (await client.get(path)).status

    async def test_a_redirect_is_guarded_as_any_answer(self, open_console: OpenConsole):
        """
        It is not kept by anybody, and does not say which versions run here.
        """
        client = await open_console()
        answer = await client.get("/find", params={"id": "x\r\nSet-Cookie: a"}, headers=BROWSER, allow_redirects=False)

        assert (303, "/events/x%0D%0ASet-Cookie%3A%20a") == (answer.status, answer.headers["Location"])
        assert ("turnout", "no-store") == (answer.headers["Server"], answer.headers["Cache-Control"])

    async def test_a_browser_signs_in_with_the_token_as_password(self, open_console: OpenConsole):
        """
        It is asked for by the Basic scheme, which a browser knows; a wrong one is no better than none.
        """
        client = await open_console(token=TOKEN)
        asked = await client.get("/", headers=BROWSER)
        assert (401, "text/html") == (asked.status, asked.content_type)
        assert asked.headers["WWW-Authenticate"].startswith("Basic ")

        for given, status in ((f"me:{TOKEN}", 200), (f":{TOKEN}", 200), ("me:other", 401), (TOKEN, 401)):
            basic = f"Basic {b64encode(given.encode()).decode()}"
            assert status == (await page(client, "/", Authorization=basic))[0]
        assert 401 == (await page(client, "/", Authorization="Basic not-base64"))[0]

    async def test_a_fault_is_told_on_a_page(self, open_console: OpenConsole):
        """
        With its code and what to do; programs get it as JSON, and the API never a page.
        """
        client = await open_console()
        status, text = await page(client, "/events/nothing")

        assert (404, True) == (status, "no event of this id is stored" in text)
        assert "not_found" == (await (await client.get("/events/nothing")).json())["code"]
        assert "not_found" == (await (await client.get("/api/v1/events/x", headers=BROWSER)).json())["code"]
        assert 400 == (await page(client, "/deliveries?state=lost"))[0]


class TestActs:
    async def test_an_act_asks_with_the_number_before_it_is_done(self, open_console: OpenConsole, store: Outbox):
        """
        The first click changes nothing and says how many are meant; the second one does it, and is in the audit.
        """
        await store.append(many(3))
        await store.settle(store.lanes["links"], [Mark(seqs=[1, 2], state="dead", at=NOW, attempts=1, reason="no")])
        client = await open_console()

        asked = await post(client, what="retry", to="links", state="dead")
        assert (200, True) == (asked.status, "Send 2 deliveries to links now?" in await asked.text())
        assert {"waiting": 1, "dead": 2} == await states(store)

        done = await post(client, what="retry", to="links", state="dead", sure="yes")
        assert (303, "/deliveries?to=links&state=dead") == (done.status, done.headers["Location"])
        assert {"waiting": 3, "dead": 0} == await states(store)
        assert "pages from 127.0.0.1" in (await page(client, "/audit"))[1]

    async def test_what_is_not_sent_at_once_is_said_before(self, open_console: OpenConsole, store: Outbox):
        """
        Where the destination is on hold or does not run, they wait; where nothing is meant any more, nothing is asked.
        """
        await store.append(many(2))
        for name in ("links", "gone"):
            dead = Mark(seqs=[1], state="dead", at=NOW, attempts=1, reason="no")
            await store.settle(store.lanes[name], [dead])
        client = await open_console()

        assert "on hold: they wait" in await (await post(client, what="retry", to="links", state="dead")).text()
        assert "not running: they wait" in await (await post(client, what="retry", to="gone", state="dead")).text()
        nothing = await (await post(client, what="retry", to="links", state="dead", id="#2")).text()
        assert "Nothing is left to do at links" in nothing
        assert "sure" not in nothing
        await store.hold(store.lanes["links"], None)
        assert "they wait" not in await (await post(client, what="retry", to="links", state="dead")).text()

    async def test_a_browser_may_send_the_forms_of_our_pages(self, open_console: OpenConsole):
        """
        Under the policy of the page, its Origin is said and is ours; under "no-referrer" it would be "null", as of a page
        of nobody.

        Source: Fetch, "append a request Origin header".
        """
        client = await open_console()
        policy = (await client.get("/", headers=BROWSER)).headers["Referrer-Policy"]
        origin = "null" if policy == "no-referrer" else str(client.make_url("/").origin())
        headers = {**BROWSER, "Origin": origin, "Sec-Fetch-Site": "same-origin"}

        assert 200 == (await client.post("/act", data={"what": "hold", "to": "links"}, headers=headers)).status

    async def test_one_event_alone(self, open_console: OpenConsole, store: Outbox):
        """
        From an event's page only its own delivery is meant, and that page is shown again.
        """
        await store.append(many(3))
        client = await open_console()
        done = await post(client, what="drop", to="links", state="waiting", id="#2", sure="yes")

        assert (303, "/events/%232") == (done.status, done.headers["Location"])
        assert {"waiting": 2, "dead": 1} == await states(store)

    async def test_what_was_erased_is_not_offered(self, open_console: OpenConsole, store: Outbox):
        """
        There is nothing left of it to send, though its destination has not come to it yet.
        """
        await store.append(rows(an_event("e", user=User(id="u"))))
        client = await open_console()
        assert "Send it to links now" in (await page(client, "/events/%231"))[1]
        await store.erase([Person(user_id="u")], "me")

        status, text = await page(client, "/events/%231")
        assert (200, True) == (status, "its person asked to be forgotten" in text)
        assert "Send it to links" not in text

    async def test_hold_and_resume(self, open_console: OpenConsole, store: Outbox):
        """
        A lane waits, or goes on.
        """
        client = await open_console()
        assert 303 == (await post(client, what="resume", to="links", sure="yes")).status
        assert store.lanes["links"].held is None
        assert "Hold links?" in await (await post(client, what="hold", to="links")).text()
        assert store.lanes["links"].held is None
        assert 303 == (await post(client, what="hold", to="links", sure="yes")).status
        assert "operator" == store.lanes["links"].held.by

    async def test_what_cannot_be_done_says_why(self, open_console: OpenConsole):
        """
        An unknown act or destination, one that does not run.
        """
        client = await open_console()

        assert 400 == (await post(client, what="explode", to="links")).status
        assert 404 == (await post(client, what="hold", to="nobody")).status
        assert 409 == (await post(client, what="hold", to="gone", sure="yes")).status

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            pytest.param(b"what=hold&to=\xff", "application/x-www-form-urlencoded", 400, id="no UTF-8"),
            pytest.param(b"what=hold", "application/x-www-form-urlencoded; charset=none", 400, id="unknown charset"),
            pytest.param(b"--x\r\nwrong", "multipart/form-data; boundary=x", 415, id="multipart"),
            pytest.param(b"{}", "application/json", 415, id="JSON"),
        ],
    )
    async def test_what_is_no_form_of_ours_is_refused(
        self, open_console: OpenConsole, body: bytes, kind: str, status: int
    ):
        """
        It is the sender's mistake, and no fault that the log has to tell.
        """
        answer = await (await open_console()).post("/act", data=body, headers={**BROWSER, "Content-Type": kind})

        assert status == answer.status

    async def test_a_form_of_another_site_does_nothing(self, open_console: OpenConsole, store: Outbox):
        """
        A browser says where a form stood.
        """
        client = await open_console()
        fields = {"what": "resume", "to": "links", "sure": "yes"}
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = await client.post("/act", data=fields, headers={**BROWSER, **headers})
            assert 403 == answer.status
        assert store.lanes["links"].held is not None
