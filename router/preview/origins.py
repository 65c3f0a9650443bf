"""Where each value of a body comes from, found by comparison: a value of the event, its time or its name, or a setting,
that is equal, or under the same name equal once both are in one form (a country's code, upper and lower case, "en-US" and
"en_US").

Where several are equal and none is named alike, where a property of that name says something else, and where a value is
too short to be told from chance, nothing is said.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from router.destination import Destination, field
from router.event import Event
from router.identifiers import alpha2

_SHORT: Final = 4  # characters; equal values shorter than this may be equal by chance
_COMMON: Final = frozenset(Destination.__struct_fields__)

Path = tuple[str | int, ...]


class _Candidate(NamedTuple):
    path: Path
    words: str
    by_name_only: bool = False


def origins(
    body: Any, destination: Destination, event: Event, visible: Event
) -> Iterator[tuple[Path, Any, str | None]]:
    """Every value of a body with its path and where it comes from, None where nobody can tell. ``visible`` is the event
    as the destination is given it.
    """
    known = _known(destination, visible)
    for path, value in _scalars(body):
        yield path, value, _mapped(path, value, destination, event) or _origin(path, value, known)


def _mapped(path: Path, value: Any, destination: Destination, event: Event) -> str | None:
    """The field that the operator's ``map`` put here, if it did."""
    where = dotted(path)
    for target, origin in destination.map.items():
        if where == target or where.endswith(f".{target}"):
            taken = field(event, origin)
            if taken is not None and as_text(msgspec.to_builtins(taken)) == as_text(value):
                return f"{_words(tuple(origin.split('.')))}, by map"
    return None


def _origin(path: Path, value: Any, known: Mapping[str, Sequence[_Candidate]]) -> str | None:
    found = known.get(as_text(value), ())
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
    if isinstance(value, bool) or len(as_text(value)) < _SHORT:
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
    text = as_text(value)
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
        known.setdefault(as_text(value), []).append(_Candidate(path, words, path[0] in _BY_NAME))

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
    return dotted(path)


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

# What an event carries for Turnout itself; that a partner is not sent it says nothing.
_INTERNAL: Final = frozenset(
    (
        *("name", "time", "received", "source", "dialect", "kind"),
        *("sent_name", "sent_time", "routing", "consent", "notes", "test"),
    )
)


def untraced(body: Any, event: Event) -> list[str]:
    """The fields of the event whose values are nowhere in the body."""
    sent = {as_text(value) for _, value in _scalars(body)}
    rewritten = {(_plain(_last(path)), form) for path, value in _scalars(body) for form in _forms(_last(path), value)}
    folded = {_folded(each) for each in sent if len(each) >= _SHORT}
    shapes: dict[str, bool] = {}
    for path, value in _scalars(msgspec.to_builtins(event)):
        if path[0] in _INTERNAL:
            continue
        shape = _shape(path).removesuffix(": sha256")
        alike = any((_plain(_last(path)), form) in rewritten for form in _forms(_last(path), value))
        text = as_text(value)
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


def as_text(value: Any) -> str:
    """As text, so that 142.52 and "142.52" are one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def dotted(path: Path) -> str:
    """As people write it: items.0.price."""
    return ".".join(map(str, path))
