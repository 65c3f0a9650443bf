"""The console: what programs read and operators do, and who is kept out."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.app import App
from router.console import guard, routes
from router.console.pages import Pages
from router.metrics import Metrics, bucketed
from router.outbox.errors import Broken
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Mark
from router.outbox.state.registers import Quarantined
from tests.builders import NOW, an_event, many, rows
from tests.consoles import OpenConsole
from tests.running import running_app, settings
from tests.stepped import SteppedClock

TOKEN = "a-console-token"
PAGES = {path for _, path, _ in Pages(None, None, None, None).addresses()}
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


class TestReads:
    async def test_the_ledger_is_the_documented_object(self, open_console: OpenConsole, store: Outbox):
        """
        GET /api/v1/ledger answers the keys that programs rely on, and adds up.
        """
        await store.append(many(3))

        answer = await (await (await open_console()).get("/api/v1/ledger")).json()
        links = {
            "delivered": 0,
            "waiting": 3,
            "filtered": 0,
            "dead": 0,
            "erased": 0,
            "held": True,
            "hold_reason": "key refused",
            "hold_until": None,
        }
        assert links == answer["destinations"]["links"]
        del answer["destinations"]
        expected = {"received": 3, "duplicate": 0, "rejected": 0, "accepted": 3, "difference": 0}
        assert expected == answer

    async def test_an_event_is_explained(self, open_console: OpenConsole, store: Outbox):
        """
        One address tells everything of one event, with the checks of every running destination.
        """
        await store.append(rows(an_event("a/b c")))

        story = await (await (await open_console()).get("/api/v1/events/a%2Fb%20c")).json()
        assert ["links", "gone"] == [each["to"] for each in story["destinations"]]
        assert "waiting" == story["destinations"][0]["state"]
        assert story["destinations"][0]["checks"]

    async def test_events_of_one_id_of_several_sources(self, open_console: OpenConsole, store: Outbox):
        """
        The newest is told, the others are named; the list has them all.
        """
        await store.append(rows(an_event("a"), an_event("a", source="blog")))
        client = await open_console()

        story = await (await client.get("/api/v1/events/a")).json()
        assert ("blog", [{"seq": 1, "source": "shop"}]) == (story["source"], story["others"])
        listed = await (await client.get("/api/v1/events?id=a")).json()
        assert [2, 1] == [each["seq"] for each in listed["items"]]

    async def test_pages_of_deliveries_follow_each_other(self, open_console: OpenConsole, store: Outbox):
        """
        "next" leads to every delivery of a state, once.
        """
        await store.append(many(5))
        client, after, seen = await open_console(), "", []
        while after is not None:
            path = f"/api/v1/deliveries?to=links&state=waiting&limit=2{after and '&after=' + after}"
            page = await (await client.get(path)).json()
            seen += [each["id"] for each in page["items"]]
            after = page["next"]

        assert ["e-5", "e-4", "e-3", "e-2", "e-1"] == seen

    async def test_what_was_refused_is_there_to_read(self, open_console: OpenConsole, store: Outbox):
        """
        The quarantine lists reasons, and shows one item.
        """
        await store.quarantine([Quarantined(at=NOW, source="shop", code="missing", message="send a name", item="{}")])
        client = await open_console()

        listed = await (await client.get("/api/v1/quarantine")).json()
        assert ["missing"] == [each["code"] for each in listed["items"]]
        shown = await (await client.get(f"/api/v1/quarantine/{listed['items'][0]['id']}")).json()
        assert "{}" == shown["item"]

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            pytest.param("/api/v1/events/nobody", 404, "not_found", id="an event that is not stored"),
            pytest.param("/api/v1/quarantine/x", 404, "not_found", id="a number that is none"),
            pytest.param("/api/v1/nothing", 404, "not_found", id="an address that is none"),
            pytest.param("/api/v1/..%2f..%2fetc%2fpasswd", 404, "not_found", id="a path that climbs"),
            pytest.param("/api/v1/deliveries?to=typo", 404, "unknown_destination", id="a destination that is none"),
            pytest.param("/api/v1/deliveries?state=held", 400, "invalid", id="a state that is none"),
            pytest.param("/api/v1/deliveries?limit=0", 400, "invalid", id="no entries"),
            pytest.param("/api/v1/deliveries?limit=5000000", 400, "invalid", id="too many entries"),
            pytest.param("/api/v1/deliveries?after=1;drop", 400, "invalid", id="a place that is none"),
            pytest.param("/api/v1/deliveries?limit=1&limit=2", 400, "invalid", id="a parameter twice"),
            pytest.param("/api/v1/audit?after=-1", 400, "invalid", id="a negative place"),
            pytest.param("/api/v1/ledger?verbose=1", 400, "unknown_field", id="a parameter that is none"),
            pytest.param("/api/v1/deliveries:retry", 405, "method_not_allowed", id="the wrong method"),
        ],
    )
    async def test_a_wrong_question_is_answered_with_what_to_do(
        self, open_console: OpenConsole, path: str, status: int, code: str
    ):
        """
        Errors have a stable code and the form that is documented, and repeat nothing of the request.
        """
        answer = await (await open_console()).get(path)

        body = await answer.json()
        assert (status, code, False) == (answer.status, body["code"], body["success"])
        assert {"success", "code", "message", "errors"} == set(body)
        for sent in ("typo", "drop", "5000000", "verbose", "nobody", "passwd"):
            assert sent not in body["message"]


class TestActs:
    async def died(self, store: Outbox, lane: str, *seqs: int) -> None:
        await store.settle(store.lanes[lane], [Mark(seqs=seqs, state="dead", at=NOW, attempts=1, reason="HTTP 400")])

    @pytest.mark.parametrize("lane", ["links", "gone"])
    async def test_dead_deliveries_go_again(self, open_console: OpenConsole, store: Outbox, lane: str):
        """
        Retry moves what is meant back to waiting, of running and of removed destinations, and leaves an audit row.
        """
        await store.append(many(4))
        await self.died(store, lane, 1, 2, 3)
        client = await open_console()

        body = {"to": lane, "state": "dead", "ids": ["e-1", "#3", "nobody"]}
        answer = await (await client.post("/api/v1/deliveries:retry", json=body)).json()
        assert (True, 2, 1) == (answer["success"], answer["count"], answer["unknown"])
        ledger = await (await client.get("/api/v1/ledger")).json()
        assert (1, 3, 0) == (
            ledger["destinations"][lane]["dead"],
            ledger["destinations"][lane]["waiting"],
            ledger["difference"],
        )
        (row,) = (await (await client.get("/api/v1/audit")).json())["items"]
        assert ("retry", f"{lane} dead", 2) == (row["what"], row["selection"], row["count"])

    @pytest.mark.parametrize(
        "lane",
        [
            pytest.param(
                "links",
            ),
            "gone",
        ],
    )
    async def test_waiting_deliveries_are_given_up(self, open_console: OpenConsole, store: Outbox, lane: str):
        """
        Drop reaches what waits for another try and what was never tried, of running and of removed destinations.
        """
        await store.append(many(4))
        waiting = Mark(seqs=[2], state="waiting", at=NOW, attempts=1, due=NOW + 60_000)
        await store.settle(store.lanes[lane], [waiting])
        client = await open_console()

        body = {"to": lane, "ids": ["e-1", "e-2"]}
        assert 2 == (await (await client.post("/api/v1/deliveries:drop", json=body)).json())["count"]
        body = {"to": lane, "all": True}
        assert 2 == (await (await client.post("/api/v1/deliveries:drop", json=body)).json())["count"]
        ledger = await (await client.get("/api/v1/ledger")).json()
        assert (4, 0, 0) == (
            ledger["destinations"][lane]["dead"],
            ledger["destinations"][lane]["waiting"],
            ledger["difference"],
        )
        assert [] == await Reader(store.directory).recount()

    @pytest.mark.parametrize(
        ("act", "body", "count"),
        [
            pytest.param("retry", {"state": "dead", "all": True}, 2, id="all dead ones"),
            pytest.param("retry", {"state": "dead", "ids": ["e-1", "e-3"]}, 1, id="one dead one"),
            pytest.param("drop", {"state": "waiting", "all": True}, 3, id="all waiting ones"),
            pytest.param("drop", {"state": "waiting", "ids": ["e-1", "e-3", "e-5"]}, 2, id="two waiting ones"),
        ],
    )
    async def test_a_dry_run_counts_and_changes_nothing(
        self, open_console: OpenConsole, store: Outbox, act: str, body: dict[str, Any], count: int
    ):
        """
        dry_run answers the count the act would have, and leaves ledger and audit alone.
        """
        await store.append(many(5))
        await self.died(store, "links", 1, 2)
        client = await open_console()
        before = await (await client.get("/api/v1/ledger")).json()

        asked = {"to": "links", "dry_run": True, **body}
        answer = await (await client.post(f"/api/v1/deliveries:{act}", json=asked)).json()
        assert (count, True) == (answer["count"], answer["dry_run"])
        assert before == await (await client.get("/api/v1/ledger")).json()
        assert [] == (await (await client.get("/api/v1/audit")).json())["items"]

    async def test_a_lane_is_held_and_let_go(self, open_console: OpenConsole):
        """
        Hold and resume take effect at once, show in the ledger and leave who did it in the audit.
        """
        client = await open_console()
        headers = {"X-Turnout-Who": "anna@laptop"}

        await client.post("/api/v1/destinations/links:hold", json={"reason": "maintenance"}, headers=headers)
        links = (await (await client.get("/api/v1/ledger")).json())["destinations"]["links"]
        assert (True, "maintenance") == (links["held"], links["hold_reason"])
        await client.post("/api/v1/destinations/links:resume")
        assert not (await (await client.get("/api/v1/ledger")).json())["destinations"]["links"]["held"]
        acts = (await (await client.get("/api/v1/audit")).json())["items"]
        expected = [("resume", "api from 127.0.0.1"), ("hold", "anna@laptop from 127.0.0.1")]
        assert expected == [(each["what"], each["who"]) for each in acts]

    async def test_a_hold_without_words_has_a_reason(self, open_console: OpenConsole):
        """
        A held lane says why wherever it is shown: an empty reason would look like none.
        """
        client = await open_console()

        await client.post("/api/v1/destinations/links:hold", json={"reason": " "})
        links = (await (await client.get("/api/v1/ledger")).json())["destinations"]["links"]
        assert "held by the operator" == links["hold_reason"]

    @pytest.mark.parametrize(
        ("path", "body", "status", "code"),
        [
            pytest.param("deliveries:retry", {"to": "links"}, 400, "invalid", id="nothing selected"),
            pytest.param(
                "deliveries:retry", {"to": "links", "ids": ["a"], "all": True}, 400, "invalid", id="two selections"
            ),
            pytest.param("deliveries:retry", {"all": True}, 400, "invalid", id="no destination"),
            pytest.param("deliveries:retry", {"to": 5, "all": True}, 400, "invalid", id="a number for a name"),
            pytest.param("deliveries:retry", {"to": "links", "ids": ["a"] * 1001}, 400, "invalid", id="too many ids"),
            pytest.param(
                "deliveries:retry", {"to": "typo", "all": True}, 404, "unknown_destination", id="unknown name"
            ),
            pytest.param(
                "deliveries:retry",
                {"to": "links", "all": True, "is_admin": 1},
                400,
                "unknown_field",
                id="a field too many",
            ),
            pytest.param(
                "deliveries:drop", {"to": "links", "state": "dead", "all": True}, 400, "invalid", id="drop the dead"
            ),
            pytest.param("destinations/typo:hold", {}, 404, "unknown_destination", id="hold a stranger"),
            pytest.param("destinations/gone:resume", {}, 409, "not_running", id="resume what was removed"),
            pytest.param("destinations/links:resume", {"now": 1}, 400, "unknown_field", id="a field where none is"),
            pytest.param("replays/²:cancel", {}, 404, "not_found", id="a sign that only looks like a digit"),
            pytest.param(f"replays/{'9' * 5000}:cancel", {}, 404, "not_found", id="a number without end"),
        ],
    )
    async def test_a_wrong_act_does_nothing(
        self, open_console: OpenConsole, path: str, body: dict[str, Any], status: int, code: str
    ):
        """
        What is not understood completely is refused completely, with a stable code.
        """
        client = await open_console()

        answer = await client.post(f"/api/v1/{path}", json=body)
        text = await answer.text()
        assert (status, code) == (answer.status, (await answer.json())["code"])
        assert "is_admin" not in text
        assert [] == (await (await client.get("/api/v1/audit")).json())["items"]

    @pytest.mark.parametrize(
        ("raw", "kind", "status"),
        [
            pytest.param(b'{"to": "links"', "application/json", 400, id="broken JSON"),
            pytest.param(b"[]", "application/json", 400, id="a list"),
            pytest.param(b"[" * 100_000, "application/json", 400, id="a deep one"),
            pytest.param(b'{"to": "\xff"}', "application/json", 400, id="not UTF-8"),
            pytest.param(b'{"to": "links", "all": true}', "text/plain", 415, id="a form's content type"),
            pytest.param(io.BytesIO(b" " * 2_000_000), "application/json", 413, id="a large one"),
        ],
    )
    async def test_only_json_is_taken(self, open_console: OpenConsole, raw: bytes | io.BytesIO, kind: str, status: int):
        """
        A body that is not a JSON object, labelled as such, is refused: a page's form can send nothing else.
        """
        answer = await (await open_console()).post("/api/v1/deliveries:retry", data=raw, headers={"Content-Type": kind})

        assert status == answer.status
        assert False is (await answer.json())["success"]

    async def test_a_body_that_is_not_compressed_as_it_says(self, open_console: OpenConsole):
        """
        It is the sender's mistake, and told as one.
        """
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        client = await open_console()
        answer = await client.post("/api/v1/deliveries:retry", data=b'{"to": "links"}', headers=headers)

        assert (400, "malformed") == (answer.status, (await answer.json())["code"])


class TestGuard:
    @pytest.mark.parametrize(
        "header",
        [
            pytest.param(None, id="none"),
            pytest.param("Bearer wrong", id="a wrong token"),
            pytest.param("Bearer ", id="an empty token"),
            pytest.param(f"Basic {TOKEN}", id="another scheme"),
            pytest.param(f"Bearer {TOKEN}\xe9", id="more than ASCII"),
            pytest.param(f"Bearer {'x' * 7000}", id="a long one"),
        ],
    )
    async def test_without_the_token_there_is_nothing(self, open_console: OpenConsole, header: str | None):
        """
        Every address but the health checks answers 401, alike, whatever is wrong with the token.
        """
        client = await open_console(TOKEN)
        headers = {"Authorization": header} if header is not None else {}

        for path in ("/api/v1/ledger", "/metrics", "/", "/openapi.json", "/nothing"):
            answer = await client.get(path, headers=headers)
            assert (401, "unauthorized") == (answer.status, (await answer.json())["code"])
        assert 401 == (await client.post("/api/v1/destinations/links:resume", headers=headers)).status
        for path in ("/healthz", "/readyz"):
            assert 200 == (await client.get(path, headers=headers)).status

    async def test_with_the_token_there_is_everything(self, open_console: OpenConsole):
        """
        The right token opens reads and acts.
        """
        client = await open_console(TOKEN)

        assert 200 == (await client.get("/api/v1/ledger", headers=OPERATOR)).status
        assert 200 == (await client.post("/api/v1/destinations/links:resume", headers=OPERATOR)).status

    async def test_guessing_is_stopped(self, open_console: OpenConsole, clock: SteppedClock):
        """
        After ten wrong tokens within a minute an address waits, even with the right one; then it may again.
        """
        client = await open_console(TOKEN)
        wrong = {"Authorization": "Bearer wrong"}
        statuses = [(await client.get("/api/v1/ledger", headers=wrong)).status for _ in range(11)]

        assert [401] * 10 + [429] == statuses
        assert 429 == (await client.get("/api/v1/ledger", headers=OPERATOR)).status
        clock.step(61)
        assert 200 == (await client.get("/api/v1/ledger", headers=OPERATOR)).status

    async def test_no_token_is_no_guess(self, open_console: OpenConsole):
        """
        Whatever number of requests without a token an address sends, the right one opens at once.
        """
        client = await open_console(TOKEN)
        statuses = [(await client.get("/metrics")).status for _ in range(11)]

        assert [401] * 11 == statuses
        assert 200 == (await client.get("/metrics", headers=OPERATOR)).status

    def test_the_table_of_guesses_is_bounded(self):
        """
        A million addresses fill no memory.
        """
        guesses = guard.Guesses()
        for number in range(guard.REMEMBERED + 500):
            guesses.wrong(str(number), 0)

        assert guard.REMEMBERED == len(guesses._wrong)

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            pytest.param("127.0.0.1:8081", True, id="the address"),
            pytest.param("localhost:8081", True, id="localhost"),
            pytest.param("[::1]:8081", True, id="IPv6"),
            pytest.param("LOCALHOST", True, id="in capitals"),
            pytest.param("console.example:8081", True, id="the name it listens on"),
            pytest.param("rebound.attacker.example", False, id="somebody's name"),
            pytest.param("127.0.0.1.attacker.example", False, id="a name that begins like an address"),
            pytest.param("localhost@attacker.example", False, id="with a user"),
            pytest.param("", False, id="empty"),
            pytest.param(None, False, id="none"),
        ],
    )
    def test_the_host_must_be_ours(self, host: str | None, expected: bool):
        """
        A name that somebody points at loopback is not ours; an IP literal cannot be pointed anywhere.
        """
        assert expected is guard.known_host(host, "console.example:8081")

    async def test_a_strange_host_is_misdirected(self, open_console: OpenConsole):
        """
        DNS rebinding is answered 421 on every address, the health checks too.
        """
        client = await open_console()

        for path in ("/api/v1/ledger", "/healthz", "/"):
            answer = await client.get(path, headers={"Host": "rebound.attacker.example"})
            assert (421, "unknown_host") == (answer.status, (await answer.json())["code"])

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param({"Origin": "https://attacker.example"}, id="another origin"),
            pytest.param({"Origin": "null"}, id="a sandboxed page"),
            pytest.param({"Sec-Fetch-Site": "cross-site"}, id="a cross-site fetch"),
            pytest.param({"Sec-Fetch-Site": "same-site"}, id="a neighbour"),
        ],
    )
    async def test_a_page_of_somebody_else_cannot_act(
        self, open_console: OpenConsole, headers: dict[str, str], store: Outbox
    ):
        """
        A cross-site POST is refused even where no token is set, and changes nothing.
        """
        answer = await (await open_console()).post("/api/v1/destinations/links:resume", headers=headers)

        assert (403, "foreign_origin") == (answer.status, (await answer.json())["code"])
        assert store.lanes["links"].held is not None

    async def test_a_page_of_ours_can_act(self, open_console: OpenConsole):
        """
        The console's own origin may post.
        """
        client = await open_console()
        origin = f"http://{client.host}:{client.port}"

        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert 200 == (await client.post("/api/v1/destinations/links:resume", headers=headers)).status

    async def test_every_answer_is_locked_down(self, open_console: OpenConsole):
        """
        Headers forbid framing, sniffing, caching and foreign content, and tell no versions, on errors too.
        """
        client = await open_console()

        for path in ("/", "/api/v1/ledger", "/metrics", "/nothing"):
            answer = await client.get(path)
            assert guard.HEADERS.items() <= dict(answer.headers).items()
            assert "aiohttp" not in str(answer.headers)
            assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_a_fault_of_ours_shows_nothing(self, open_console: OpenConsole, store: Outbox):
        """
        An outbox that cannot be read is a 503 with a code, without path, class or trace.
        """
        (store.directory / "state.db").rename(store.directory / "elsewhere.db")
        answer = await (await open_console()).get("/api/v1/ledger")
        (store.directory / "elsewhere.db").rename(store.directory / "state.db")

        assert (503, "outbox") == (answer.status, (await answer.json())["code"])
        assert not re.search(r"state\.db|Error|Traceback|/tmp", await answer.text())


class TestHealth:
    async def test_ready_means_it_takes_events(self, open_console: OpenConsole, store: Outbox):
        """
        Ready as long as events can be stored; draining and a broken outbox say so. Alive all the while.
        """
        closed = None
        client = await open_console(closed=lambda: closed)

        assert 200 == (await client.get("/readyz")).status
        closed = "draining"
        answer = await client.get("/readyz")
        assert (503, {"ready": False, "reason": "draining"}) == (answer.status, await answer.json())
        store.failed = Broken("no")
        answer = await client.get("/readyz")
        assert (503, "broken") == (answer.status, (await answer.json())["reason"])
        store.failed = None
        assert 200 == (await client.get("/healthz")).status
        assert 200 == (await client.head("/healthz")).status

    async def test_not_ready_before_senders_find_a_port(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        The console answers first; until the port of the senders is open it says that it is starting.
        """
        found: list[tuple[int, Any]] = []

        async def ready(app: App) -> None:
            async with aiohttp.request("GET", f"http://127.0.0.1:{app.console_port}/readyz") as answer:
                found.append((answer.status, await answer.json()))

        async def collecting(app: App, *given: Any) -> int:
            await ready(app)
            return await collect(app, *given)

        collect = App._collect_here
        monkeypatch.setattr(App, "_collect_here", collecting)
        async with running_app(settings(tmp_path)) as app:
            await ready(app)

        assert [(503, {"ready": False, "reason": "starting"}), (200, {"ready": True, "reason": None})] == found


class TestDocument:
    async def test_it_is_the_table_of_addresses(self, open_console: OpenConsole):
        """
        /openapi.json names every address and method that the application answers, and no other.
        """
        client = await open_console()
        document = await (await client.get("/openapi.json")).json()

        told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        answered = {
            (route.method, route.resource.canonical)
            for route in client.app.router.routes()
            if route.method != "HEAD" and route.resource.canonical not in {"/", "/openapi.json", *PAGES}
        }
        assert answered == told

    async def test_every_reference_is_defined(self, open_console: OpenConsole):
        """
        The document is whole: every $ref leads somewhere, every operation has a name of its own.
        """
        answer = await (await open_console()).get("/openapi.json")
        document = await answer.json()

        schemas = document["components"]["schemas"]
        references = set(re.findall(r'"#/components/schemas/(\w+)"', await answer.text()))
        assert references <= set(schemas)
        names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
        assert len(names) == len(set(names))

    async def test_what_is_not_ready_answers_as_it_says(self, open_console: OpenConsole):
        """
        503 of /readyz is no error to a client made from the document: it has the same form as 200.
        """
        client = await open_console(closed=lambda: "draining")
        document = await (await client.get("/openapi.json")).json()
        answer = await client.get("/readyz")

        told = document["paths"]["/readyz"]["get"]["responses"]
        assert told["200"]["content"] == told[str(answer.status)]["content"]
        properties = document["components"]["schemas"]["Health"]["properties"]
        assert set(properties) == set(await answer.json())

    async def test_a_body_is_needed_where_a_field_is(self, open_console: OpenConsole):
        """
        The document says of which acts the body may be left out; the others answer 400 without one.
        """
        client = await open_console()
        document = await (await client.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            if "post" in methods:
                needed = methods["post"]["requestBody"]["required"]
                answer = await client.post(path.format(name="links", number=1))
                assert needed is (400 == answer.status)

    async def test_the_index_leads_to_every_page(self, open_console: OpenConsole):
        """
        GET / names addresses, and each of them answers.
        """
        client = await open_console()
        index = await (await client.get("/")).json()

        assert "/api/v1/ledger" in index["addresses"]
        for path in index["addresses"]:
            assert 200 == (await client.get(path)).status

    def test_only_health_is_open(self, store: Outbox):
        """
        Adding an address without a guard is a decision, made here.
        """
        table = routes.table(routes.Api(None, store, None, None, acts=None, questions=None))

        assert {"/healthz", "/readyz"} == {route.path for route in table if route.open}


class TestMetrics:
    async def test_the_ledger_is_there_to_alert_on(self, open_console: OpenConsole, store: Outbox, clock: SteppedClock):
        """
        Backlog, its age, holds and the difference are gauges; sums are counters.
        """
        await store.append(many(3))
        clock.step(90)

        text = await (await (await open_console()).get("/metrics")).text()
        for line in (
            'turnout_outbox_entries{destination="links",state="waiting"} 3.0',
            'turnout_outbox_oldest_age_seconds{destination="links"} 90.0',
            'turnout_destination_up{destination="links"} 0.0',
            'turnout_destination_hold{by="operator",destination="links"} 1.0',
            "turnout_events_accepted_total 3.0",
            "turnout_ledger_difference 0.0",
        ):
            assert line in text.splitlines()

    async def test_each_delivery_counts_once(self, open_console: OpenConsole, store: Outbox):
        """
        The sum over turnout_deliveries_total is what the ledger has as delivered, also of what was known there already.
        """
        await store.append(many(3))
        for number, how in enumerate(({}, {"duplicate": True}, {"duplicate": True, "unverified": True}), 1):
            mark = Mark(seqs=[number], state="delivered", at=NOW, attempts=1, **how)
            await store.settle(store.lanes["links"], [mark])

        text = await (await (await open_console()).get("/metrics")).text()
        told = [line for line in text.splitlines() if line.startswith("turnout_deliveries") and '"links"' in line]
        assert [
            'turnout_deliveries_total{destination="links",outcome="delivered"} 3.0',
            'turnout_deliveries_duplicate_total{destination="links"} 2.0',
            'turnout_deliveries_unverified_total{destination="links"} 1.0',
        ] == told

    async def test_series_are_bounded(self, store: Outbox):
        """
        Whatever codes, statuses and durations come by, there are at most 60 series and 60 for each destination and source.
        """
        metrics = Metrics()
        names = ["a", "b", "c"]
        for name in names:
            await store.lane(name, "webhook")
            for status in [None, *range(100, 600), 7000]:
                outcome = "delivered" if status and 200 <= status < 300 else "retry"
                metrics.attempted(name, outcome, status, 0.2)
                metrics.attempted(name, "hold", status, 0.2)
                metrics.attempted(name, "rejected", status, 0.2)
            metrics.delivered(name, 1, 5.0)
            for number in range(1000):
                metrics.rejected(name, f"code_{number}")
            metrics.received(name, "plain", 2)
            metrics.duplicate(name)
        metrics.ingest([0.002])
        metrics.configured("1.0", 3, NOW)

        text = (await metrics.exposition(Reader(store.directory), store, NOW)).decode()
        series = [line for line in text.splitlines() if not line.startswith("#")]
        assert 60 + 60 * 2 * len(names) >= len(series)
        assert 'turnout_events_rejected_total{code="other",source="a"} 968.0' in series

    @pytest.mark.parametrize(
        ("status", "expected"),
        [(None, "none"), (204, "2xx"), (429, "429"), (404, "4xx"), (503, "5xx"), (999, "other")],
    )
    def test_statuses_are_told_in_classes(self, status: int | None, expected: str):
        """
        A partner cannot make series by inventing statuses.
        """
        assert expected == bucketed(status)
