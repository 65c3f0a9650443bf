"""Preview: what a destination would be sent for one event, why or why not, and where every value of it comes from.

The event is routed, aged, shown and written by what delivery uses for it, so the body is the one that goes on the wire
when the event goes alone. Secrets are masked in everything that is made for people here. Pure.

Where a value comes from is found by comparison: a value of the event, its time or its name, or a setting, that is equal,
or under the same name equal once both are in one form (a country's code, upper and lower case, "en-US" and "en_US").
Where several are equal and none is named alike, where a property of that name says something else, and where a value is
too short to be told from chance, nothing is said.
What only the running server knows is not said either: whether the lane is held, or the event's subject closed.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from router import quality, route
from router.destination import Destination, Header, Request, field
from router.event import NOTHING, Clear, Event
from router.identifiers import alpha2
from router.outcome import Refusal
from router.secret import Secret
from router.settings import seconds

Result = Literal["sent", "filtered", "too_old", "refused"]

MASK: Final = "***"
_SHORT: Final = 4  # characters; equal values shorter than this may be equal by chance
_LONGEST: Final = 60  # characters of a value that are shown
_WEAK: Final = 8  # characters of a secret; a shorter one is a part of many words
_A_CODE: Final = 2  # letters of a country, which occur in any text
# Any other header may carry a credential: those of a webhook are the operator's own, under names of their choice.
_PLAIN_HEADERS: Final = frozenset({"accept", "content-type", "user-agent", "webhook-id", "webhook-timestamp"})
_COMMON: Final = frozenset(Destination.__struct_fields__)

Path = tuple[str | int, ...]


class Leaf(msgspec.Struct, frozen=True, rename={"origin": "from"}):
    """One value of a body. ``value`` is fit to be shown; ``origin`` is where it comes from, None where nobody can tell."""

    path: str
    value: str
    origin: str | None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one event at one destination.

    ``request`` is there whenever one could be written, also where the event is too old to be sent; ``window`` is the
    age that is accepted, in words, None where any is.
    """

    to: str
    destination: Destination
    event: Event
    result: Result
    reason: str | None
    checks: tuple[route.Check, ...]
    request: Request | None
    hints: tuple[str, ...]
    match: quality.Match
    age: float  # seconds
    window: str | None

    def leaves(self) -> list[Leaf]:
        """Every value of the body, in its order; none where it is not JSON."""
        body = _body(self.request)
        private = [value for value in _values(self.event.clear) if len(value) > _A_CODE]
        return [
            Leaf(_dotted(path), self._fit(value, origin, private), origin)
            for path, value, origin in _origins(body, self.destination, self.event)
        ]

    def _fit(self, value: Any, origin: str | None, private: Sequence[str]) -> str:
        text = masked(_text(value), self.destination)
        if (origin or "").startswith("clear.") or any(each in text for each in private):
            return MASK
        if _DIGEST.fullmatch(text):
            return f"{text[:8]}...{text[-4:]}"
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

    def untraced(self) -> list[str]:
        """The fields of the event whose values are nowhere in the body; they may have shaped it all the same."""
        return [] if self.request is None else _untraced(_body(self.request), self.event)


_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def preview(name: str, destination: Destination, event: Event, now: int) -> Preview:
    """What the lane ``name`` would do with the event at the instant ``now`` (UTC ms), as soon as it gets to it."""
    checks = tuple(route.explain(route.compile(name, destination), event))
    against = next((check.words for check in checks if not check.ok), None)
    visible, window = _visible(event, destination), destination.max_age or destination.window
    request, refusal = (None, against) if against is not None else _written(destination, visible, now)
    age = (now - event.time) / 1000
    result, reason = _result(against, _too_old(age, window), refusal)
    return Preview(
        to=name,
        destination=destination,
        event=event,
        result=result,
        reason=reason,
        checks=checks,
        request=request,
        hints=() if against is not None else tuple(destination.hints(visible)),
        match=quality.for_destination(destination, visible),
        age=age,
        window=window,
    )


def _result(against: str | None, late: str | None, refusal: str | None) -> tuple[Result, str | None]:
    """In the order in which a lane asks."""
    if against is not None:
        return "filtered", against
    if late is not None:
        return "too_old", late
    return ("refused", refusal) if refusal is not None else ("sent", None)


def _too_old(age: float, window: str | None) -> str | None:
    return "expired: older than the partner accepts" if window and age > seconds(window) else None


def _visible(event: Event, destination: Destination) -> Event:
    """The event as the destination is given it: with only those clear values that it declares."""
    if event.clear == NOTHING:
        return event
    return msgspec.structs.replace(
        event, clear=Clear(**{name: getattr(event.clear, name) for name in destination.clear})
    )


def _written(destination: Destination, event: Event, now: int) -> tuple[Request | None, str | None]:
    """The request that carries the event alone, or why there is none."""
    try:
        (piece,) = destination.requests([event], now)
    except Exception as error:  # noqa: BLE001 - whatever a partner's file raises ends an event in delivery, too
        return None, f"the mapping failed ({type(error).__name__}): report it with the event's id"
    return (None, piece.reason) if isinstance(piece, Refusal) else (piece, None)


# What is shown of a request


def secrets(destination: Destination) -> list[Secret]:
    """Every secret of a destination's settings."""
    found: list[Secret] = []
    for name in destination.__struct_fields__:
        value = getattr(destination, name)
        members = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        found += [each for each in members if isinstance(each, Secret) and each.reveal()]
    return found


def masked(text: str, destination: Destination) -> str:
    """``text`` without the destination's secrets, in the spellings of JSON and of URLs.

    A short one is taken out where it stands alone, not out of the middle of words, and not where it is a key of JSON.
    """
    spellings = {spelt for secret in secrets(destination) for spelt in _spellings(secret.reveal())}
    for spelt in sorted(spellings, key=len, reverse=True):
        if len(spelt) >= _WEAK:
            text = text.replace(spelt, MASK)
        else:
            before, after = (r"(?<!\w)" if spelt[0].isalnum() else ""), (r"(?!\w)" if spelt[-1].isalnum() else "")
            text = re.sub(rf'{before}{re.escape(spelt)}{after}(?!":)', MASK, text)
    return text


def _spellings(value: str) -> set[str]:
    return {value, quote(value, safe=""), quote(value), msgspec.json.encode(value).decode()[1:-1]}


def address(request: Request, destination: Destination) -> str:
    """The URL with its query. What the operator wrote into a query by hand may be a key, so its values are masked."""
    plain, given = _split(request.url)
    query = [f"{quote(name)}={MASK}" for name in given]
    query += [f"{quote(name)}={_fit_header(value, destination)}" for name, value in request.query.items()]
    return "?".join([masked(plain, destination), *(["&".join(query)] if query else [])])


def _split(url: str) -> tuple[str, list[str]]:
    """The URL without user, query and fragment; the names in its query."""
    parts = urlsplit(url)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", names


def _fit_header(value: Header, destination: Destination) -> str:
    return MASK if isinstance(value, Secret) else masked(quote(value, safe=""), destination)


def headers(request: Request, destination: Destination) -> dict[str, str]:
    """The headers that the destination sets; only what cannot be a credential has its value."""
    return {
        name: masked(value, destination) if isinstance(value, str) and name.lower() in _PLAIN_HEADERS else MASK
        for name, value in request.headers.items()
    }


def body_text(request: Request, destination: Destination) -> str:
    """The body, to the letter; a secret in it is masked."""
    return masked(request.body.decode("utf-8", "replace"), destination)


def curl(request: Request, destination: Destination) -> str:
    """The request as a command for bash and curl 7.87 or newer. Secrets are where their references say: "$SNAP_TOKEN"."""
    plain, given = _split(request.url)
    own = secrets(destination)
    parts = [f"curl -sS -X {request.method} {_single(masked(plain, destination))}"]
    parts += [f"--url-query {_single(f'{name}={MASK}')}" for name in given]
    parts += [f"--url-query {_pair(f'{name}=', value, own)}" for name, value in request.query.items()]
    parts += [
        f"-H {_pair(f'{name}: ', value if isinstance(value, Secret) else shown, own)}"
        for (name, value), shown in zip(request.headers.items(), headers(request, destination).values(), strict=True)
    ]
    if request.method != "GET":
        parts.append(f"--data-raw {_single(body_text(request, destination))}")
    command = " \\\n  ".join(parts)
    return f"# {MASK} stands for what is not shown\n{command}" if MASK in command else command


_ODD: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def _single(text: str) -> str:
    r"""``text`` as one word of bash. What could take over a terminal is written as \x..; the word is the same."""
    if not _ODD.search(text):
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _ODD.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), plain) + "'"


def _pair(name: str, value: Header, own: Sequence[Secret]) -> str:
    if not isinstance(value, Secret):
        return _single(name + value)
    before, variable = _placed(value.reveal(), own)
    return f'"{_in_double(name + before)}{variable}"'


def _placed(text: str, own: Sequence[Secret]) -> tuple[str, str]:
    """What stands before a secret of the settings in a text made from it ("Bearer "), and its variable."""
    for secret in own:
        before, variable = text.removesuffix(secret.reveal()), _variable(secret.reference)
        if before != text and variable is not None and not any(each.reveal() in before for each in own):
            return before, variable
    return "", MASK


def _variable(reference: str) -> str | None:
    kind, _, name = reference.partition(":")
    match kind:
        case "env" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            return f"${name}"
        case "file":
            return f"$(cat {shlex.quote(name)})"
        case "credential":
            return f'$(cat "$CREDENTIALS_DIRECTORY"/{shlex.quote(name)})'
    return None


def _in_double(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)


# Where values come from


class _Candidate(NamedTuple):
    path: Path
    words: str
    by_name_only: bool = False


def _origins(body: Any, destination: Destination, event: Event) -> Iterator[tuple[Path, Any, str | None]]:
    known = _known(destination, _visible(event, destination))
    for path, value in _scalars(body):
        yield path, value, _mapped(path, value, destination, event) or _origin(path, value, known)


def _mapped(path: Path, value: Any, destination: Destination, event: Event) -> str | None:
    """The field that the operator's ``map`` put here, if it did."""
    where = _dotted(path)
    for target, origin in destination.map.items():
        if where == target or where.endswith(f".{target}"):
            taken = field(event, origin)
            if taken is not None and _text(msgspec.to_builtins(taken)) == _text(value):
                return f"{_words(tuple(origin.split('.')))}, by map"
    return None


def _origin(path: Path, value: Any, known: Mapping[str, Sequence[_Candidate]]) -> str | None:
    found = known.get(_text(value), ())
    if inside := [each for each in found if path[-len(each.path) :] == each.path]:
        return max(inside, key=lambda each: len(each.path)).words
    if named := [each for each in found if _same_name(path, each.path)]:
        return _agreed(path, named)
    if namesakes := [each for each in _namesakes(path, known) if each[1].path[0] == "properties"]:
        forms = _forms(_last(path), value)
        return _agreed(path, [each for text, each in namesakes if forms & _forms(_last(path), text)])
    if named := [each for each in found if _one_word(path, each.path)]:
        return _agreed(path, named)
    forms = _forms(_last(path), value)
    if named := [each for text, each in _namesakes(path, known) if forms & _forms(_last(path), text)]:
        return _agreed(path, named)
    if isinstance(value, bool) or len(_text(value)) < _SHORT:
        return None
    return _agreed(path, [each for each in found if not each.by_name_only])


def _agreed(path: Path, found: Sequence[_Candidate]) -> str | None:
    """The one origin; of several places of one list the one with the same number, else all of them.

    What a sender puts beside its name is in properties still, after it got its own field: the field counts.
    """
    fields = [each for each in found if each.path[0] != "properties"]
    if fields and all(_same_name(each.path, fields[0].path) for each in found):
        found = fields
    if not found:
        return None
    if len(words := {each.words for each in found}) == 1:
        return words.pop()
    if len(shapes := {_shape(each.path) for each in found}) != 1:
        return None
    numbers = _numbers(path)
    level = [each.words for each in found if _numbers(each.path) == numbers[-len(_numbers(each.path)) :]]
    return level[0] if len(level) == 1 else shapes.pop()


def _namesakes(path: Path, known: Mapping[str, Sequence[_Candidate]]) -> list[tuple[str, _Candidate]]:
    """Whatever the event has under the name of a value of the body."""
    return [(text, each) for text, many in known.items() for each in many if _same_name(path, each.path)]


def _forms(name: str, value: Any) -> set[str]:
    """A value under this name, in the forms that partners rewrite it to."""
    text = _text(value)
    code = alpha2(text) if _plain(name).endswith("country") else None
    return {_folded(text), *([] if code is None else [_folded(code)])}


def _folded(text: str) -> str:
    return text.casefold().replace("-", "_")


def _numbers(path: Path) -> Path:
    return tuple(part for part in path if isinstance(part, int))


def _same_name(path: Path, origin: Path) -> bool:
    return _plain(_last(path)) == _plain(_last(origin))


def _one_word(path: Path, origin: Path) -> bool:
    """Is the field of the event called like one word of the body's ("price" of "item_price")?"""
    return _plain(_last(origin)) in {part.lower() for part in _WORD.findall(_last(path))}


_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+", re.ASCII)


def _last(path: Path) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


_BY_NAME: Final = frozenset({"kind", "dialect", "source", "received", "notes"})


def _known(destination: Destination, event: Event) -> dict[str, list[_Candidate]]:
    """Values, as text, and where each of them stands."""
    known: dict[str, list[_Candidate]] = {}

    def add(value: Any, path: Path, words: str) -> None:
        known.setdefault(_text(value), []).append(_Candidate(path, words, path[0] in _BY_NAME))

    for path, value in _scalars(msgspec.to_builtins(event)):
        add(value, path, _words(path))
    add(event.time // 1000, ("time",), "time, in seconds")
    for written in _instants(event.time):
        add(written, ("time",), "time")
    theirs = destination.partner_name(event) or ""
    for spelt in {theirs, theirs.upper()} - {"", event.name}:
        add(spelt, ("name",), f'name "{event.name}"')
    for name in destination.__struct_fields__:
        value = getattr(destination, name)
        if name not in _COMMON and isinstance(value, str | int) and not isinstance(value, bool):
            add(value, (name,), f"setting {name}")
    return known


def _instants(time: int) -> set[str]:
    """An instant (UTC ms) as ISO 8601, as partners write it."""
    try:
        moment = dt.datetime.fromtimestamp(time / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):  # beyond the years that a datetime knows
        return set()
    shapes = [moment.isoformat(timespec="milliseconds")]
    shapes += [moment.isoformat(timespec="seconds")] if time % 1000 == 0 else []
    return {form for each in shapes for form in (each, each.replace("+00:00", "Z"))}


def _words(path: Path) -> str:
    """A path of the event; a digest by what it is of."""
    if path[:2] == ("user", "digests") and len(path) == 3:
        return f"{_subject(str(path[2]))}: sha256"
    return _dotted(path)


def _subject(digest: str) -> str:
    """What a digest is of, without the form that some partner wants it in ("email_gmail" beside "email")."""
    if digest == "external_id":
        return "user.id"
    known = (kind for kind in _SUBJECTS if digest == kind or digest.startswith(f"{kind}_"))
    return f"user.{max(known, key=len, default=digest)}"


_SUBJECTS: Final = (
    *("email", "phone", "first_name", "last_name", "street", "city", "state", "zip", "country", "gender"),
    *("birth_date", "advertising_id"),
)

# What an event carries for the house itself; that a partner is not sent it says nothing.
_HOUSE: Final = frozenset(
    (
        *("name", "time", "received", "source", "dialect", "kind"),
        *("sent_name", "sent_time", "routing", "consent", "notes", "test"),
    )
)


def _untraced(body: Any, event: Event) -> list[str]:
    sent = {_text(value) for _, value in _scalars(body)}
    rewritten = {(_plain(_last(path)), form) for path, value in _scalars(body) for form in _forms(_last(path), value)}
    folded = {_folded(each) for each in sent if len(each) >= _SHORT}
    shapes: dict[str, bool] = {}
    for path, value in _scalars(msgspec.to_builtins(event)):
        if path[0] in _HOUSE:
            continue
        shape = _shape(path).removesuffix(": sha256")
        alike = any((_plain(_last(path)), form) in rewritten for form in _forms(_last(path), value))
        text = _text(value)
        if path[0] == "clear":  # its digest says the same
            shape = f"user.{path[-1]}" if f"user.{path[-1]}" in shapes else shape
        alike = alike or (len(text) >= _SHORT and _folded(text) in folded)
        shapes[shape] = shapes.get(shape, False) or alike or _occurs(text, sent)
    return [shape for shape, used in shapes.items() if not used]


def _occurs(text: str, sent: Iterable[str]) -> bool:
    return text in sent or (len(text) >= _SHORT and any(text in each for each in sent))


def _shape(path: Path) -> str:
    """The path for every member of a list alike: items.*.price."""
    return _words(tuple("*" if isinstance(part, int) else part for part in path))


# Values


def _body(request: Request | None) -> Any:
    try:
        return None if request is None else msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _scalars(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value in a tree that is no table, list or null, with its path."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _scalars(inside, (*path, name))
    elif isinstance(value, list | tuple):
        for number, inside in enumerate(value):
            yield from _scalars(inside, (*path, number))
    elif value is not None:
        yield path, value


def _text(value: Any) -> str:
    """As text, so that 142.52 and "142.52" are one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _values(clear: Clear) -> Iterator[str]:
    for name in clear.__struct_fields__:
        if value := getattr(clear, name):
            yield value
