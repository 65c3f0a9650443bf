"""The pages for people: what the API answers, as HTML, and the operator's acts as forms that ask before they do.

Each page is made on the server and shows text only as text; the live page alone has a script, which is ours. Nothing is
fetched from anybody else. A browser signs in by the Basic scheme: the password is the console's token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from aiohttp import web

from router.console.acts import Acts, Choice, Giving, Reason
from router.console.answers import Fault, Handler
from router.console.questions import STATES, Questions, who
from router.delivery.engine import Delivery
from router.outbox.reads import telling
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Quarantine
from router.wording import counted, when

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# "no-referrer" would make the Origin of our own forms "null" (Fetch, "append a request Origin header").
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
NEWEST = 20  # events on the overview
ROWS = 100  # of one page
STATIC = {"style.css": "text/css", "live.js": "text/javascript"}


class Act(NamedTuple):
    """A form's act: how it asks, with the number and the destination, and what that means."""

    asks: str
    meaning: str


_ACTS: Mapping[str, Act] = {
    "retry": Act("Send {count} to {to} now?", "Each keeps its dedup id, by which a partner knows what it has already."),
    "drop": Act("Give {count} to {to} up?", "They stay visible as dead, and can be sent again."),
    "hold": Act("Hold {to}?", "It waits. Nothing is lost, no try is spent, and what comes is stored."),
    "resume": Act("Let {to} go on?", "It sends at once what waits for it."),
}
_NOTHING = Act("Nothing is left to do at {to}", "It was sent, tried or given up since that page was made.")


def wanted(request: web.Request) -> bool:
    """Is this a browser that wants a page, and no program?"""
    return "text/html" in request.headers.get("Accept", "")


class Pages:
    """One handler a page. ``addresses`` lists them, by method and path."""

    def __init__(self, reader: Reader, acts: Acts, questions: Questions, delivery: Delivery) -> None:
        self._reader, self._acts, self._questions, self._delivery = reader, acts, questions, delivery

    @cached_property
    def _templates(self) -> Environment:
        """Made for the first page: no start waits for it."""
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - see above

        found = Environment(
            loader=PackageLoader("router.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        found.globals["when"] = when
        return found

    def addresses(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/live", self.live),
            ("GET", "/find", self.find),
            ("GET", "/events/{id}", self.event),
            ("GET", "/deliveries", self.deliveries),
            ("GET", "/quarantine", self.quarantine),
            ("GET", "/quarantine/{number}", self.quarantined),
            ("GET", "/audit", self.audit),
            ("GET", "/static/{name}", self.static),
            ("POST", "/act", self.act),
        ]

    def page(self, name: str, *, status: int = 200, here: str = "", **values: Any) -> web.Response:
        text = self._templates.get_template(name).render(here=here, status=status, **values)
        return web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)

    def fault(self, fault: Fault) -> web.Response:
        return self.page("fault.html", status=fault.status, fault=fault.error)

    # Reads

    async def overview(self, _: web.Request) -> web.Response:
        ledger = await self._reader.ledger()
        return self.page(
            "overview.html",
            here="/",
            unready=self._questions.unready(),
            ledger=ledger,
            lanes=await self._reader.lanes(),
            failing={name: each.failing or None for name, each in ledger.destinations.items()},
            running=self._delivery.lanes.keys(),
            limits={name: runner.destination.age_limit() for name, runner in self._delivery.lanes.items()},
            events=(await self._reader.recent(NEWEST)).items,
        )

    async def live(self, _: web.Request) -> web.Response:
        return self.page("live.html", here="/live")

    async def find(self, request: web.Request) -> web.Response:
        return _see(f"/events/{quote(request.query.get('id', '').strip(), safe='')}")

    async def event(self, request: web.Request) -> web.Response:
        """What became of it; or why it was refused, where none of this id was ever stored."""
        try:
            story = await self._questions.story(request.match_info["id"])
        except Fault:
            if not (refused := await self._reader.quarantined_as(request.match_info["id"])):
                raise
            return self.page("quarantine.html", page=Quarantine(items=refused), next=None)
        fields = json.dumps(msgspec.to_builtins(story.fields), indent=2, ensure_ascii=False)
        return self.page("event.html", story=story, lines=list(telling.lines(story)), fields=fields)

    async def deliveries(self, request: web.Request) -> web.Response:
        asked = {name: value for name, value in request.query.items() if value}
        to, state = asked.get("to"), asked.get("state")
        page = await self._questions.deliveries(to, state, ROWS, asked.get("after"))
        lanes = await self._reader.lanes()
        return self.page(
            "deliveries.html",
            here="/deliveries",
            page=page,
            to=to,
            state=state,
            names=[lane.name for lane in lanes],
            states=STATES,
            holds={lane.name: lane.hold_reason for lane in lanes if lane.held},
            next=_further("/deliveries", page.next, to=to, state=state),
        )

    async def quarantine(self, request: web.Request) -> web.Response:
        page = await self._reader.quarantined(ROWS, request.query.get("after"))
        return self.page("quarantine.html", here="/quarantine", page=page, next=_further("/quarantine", page.next))

    async def quarantined(self, request: web.Request) -> web.Response:
        item = await self._questions.quarantined(request.match_info["number"])
        text = json.dumps(json.loads(item.item), indent=2, ensure_ascii=False) if item.item else None
        return self.page("quarantined.html", item=item, text=text)

    async def audit(self, request: web.Request) -> web.Response:
        page = await self._reader.audit(ROWS, request.query.get("after"))
        return self.page("audit.html", here="/audit", page=page, next=_further("/audit", page.next))

    async def static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        body = resources.files("router.console").joinpath("static", name).read_bytes()
        return web.Response(body=body, content_type=STATIC[name], charset="utf-8")

    # Acts

    async def act(self, request: web.Request) -> web.Response:
        """Ask, with the number of deliveries that are meant; and do it once that was answered."""
        form = await _form(request)
        what, to = form.get("what", ""), form.get("to", "")
        if what not in _ACTS:
            raise Fault(400, "invalid", "what: use the buttons of a page")
        sure = form.pop("sure", "") == "yes"
        back = f"/events/{quote(form['id'], safe='')}" if "id" in form else _back(to, form.get("state"))
        if sure:
            await self._do(what, to, form, who(request, "pages"))
            return _see(back)
        count = await self._meant(what, to, form)
        asked = _NOTHING if count == 0 else _ACTS[what]
        words = asked.asks.format(to=to, count="" if count is None else counted(count, "delivery", "deliveries"))
        waits = self._waits(to) if what == "retry" and count else ""
        return self.page(
            "confirm.html", words=words, meaning=asked.meaning, waits=waits, fields=form, back=back, count=count
        )

    def _waits(self, to: str) -> str:
        """Why what is to be sent again is not sent at once."""
        if (runner := self._delivery.lanes.get(to)) is None:
            return "It is not running: they wait until it is enabled in the configuration."
        return "It is on hold: they wait until it is resumed." if runner.lane.held else ""

    async def _meant(self, what: str, to: str, form: Mapping[str, str]) -> int | None:
        if what == "retry":
            return (await self._acts.retry(_choice(Choice, to, form, dry_run=True), "")).count
        if what == "drop":
            return (await self._acts.drop(_choice(Giving, to, form, dry_run=True), "")).count
        await self._acts.known(to)
        return None

    async def _do(self, what: str, to: str, form: Mapping[str, str], by: str) -> None:
        match what:
            case "retry":
                await self._acts.retry(_choice(Choice, to, form, dry_run=False), by)
            case "drop":
                await self._acts.drop(_choice(Giving, to, form, dry_run=False), by)
            case "hold":
                await self._acts.hold(to, Reason().reason, by)
            case _:
                await self._acts.resume(to, by)


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form as a page of ours sends it."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise Fault(415, "unsupported_media_type", "this is for the buttons of a page: programs use /api/v1")
    try:
        return dict(parse_qsl(await request.text(), keep_blank_values=True))
    except (ValueError, LookupError, web.RequestPayloadError):
        raise Fault(400, "malformed", "the form cannot be read: use the buttons of a page") from None


def _see(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address})


def _choice(kind: type[Choice], to: str, form: Mapping[str, str], *, dry_run: bool) -> Any:
    state: Any = "waiting" if form.get("state") == "waiting" else "dead"
    ids = [form["id"]] if "id" in form else None
    return kind(to=to, state=state, ids=ids, all=ids is None, dry_run=dry_run)


def _back(to: str, state: str | None) -> str:
    return f"/deliveries?{urlencode({'to': to, 'state': state})}" if state else "/"


def _further(path: str, after: str | None, **more: str | None) -> str | None:
    """The address of the page that follows; None where none does."""
    if after is None:
        return None
    return f"{path}?{urlencode({**{name: value for name, value in more.items() if value}, 'after': after})}"
