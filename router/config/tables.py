"""Decodes the tables of the file into structs, each field by itself, so that one run finds every fault."""

from __future__ import annotations

import ast
import difflib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec

from router.config import drafts
from router.config.findings import At, Report, dotted
from router.config.positions import Key
from router.config.references import REFERENCE, Unresolved, exposed, resolve
from router.destination import Complaint, Destination
from router.secret import Secret
from router.settings import Collect, Console, Outbox, Settings, Snitcher, Source

SOURCES: Mapping[str, type[Any]] = {"snitcher": Snitcher}  # those with a type; without one it is who sends to us

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def _table(key: Key) -> str:
    return f"[{dotted(key)}]"


def suggestion(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(known)}"


_WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


class Tables:
    def __init__(
        self,
        report: Report,
        environ: Mapping[str, str],
        directory: Path,
        types_of: Mapping[str, type[Destination]],
        unusable: Mapping[str, Complaint],
    ) -> None:
        self.report, self.environ, self.directory, self.types_of = report, environ, directory, types_of
        self.unusable = unusable  # types of packages that the destinations of this file cannot have
        self._wanted: set[str] = set()  # those of them that it names
        self.drafts: set[Key] = set()  # the tables with faults in them, or with a placeholder for a secret
        self._off: set[Key] = set()  # the destinations with enabled = false
        self._placeholders: set[Key] = set()  # their fields with a secret that could not be resolved

    def settings(self, document: dict[str, Any]) -> Settings:
        known = {field.name: field for field in msgspec.structs.fields(Settings)}
        for name in document.keys() - known.keys():
            self.report.error((name,), f'unknown table "{name}"', suggestion(name, known))
        settings = Settings(
            collect=self._section(document, "collect", Collect) or Collect(),
            console=self._section(document, "console", Console) or Console(),
            outbox=self._beside(self._section(document, "outbox", Outbox) or Outbox()),
            sources=dict(self._named(document, "sources", self._source)),
            destinations=dict(self._named(document, "destinations", self._destination)),
        )
        for kind, said in self.unusable.items():
            if kind not in self._wanted:
                self.report.warning((), said.words, said.help)
        return settings

    def _beside(self, outbox: Outbox) -> Outbox:
        """With its place counted from the file, wherever a command is called from: another place is another outbox."""
        return msgspec.structs.replace(outbox, path=str(self.directory / outbox.path))

    def _section(self, document: dict[str, Any], name: str, struct: type[Any]) -> Any:
        return self.table(struct, document[name], (name,)) if name in document else None

    def _named(self, document: dict[str, Any], name: str, read: Callable[[Any, Key], Any]) -> Iterator[tuple[str, Any]]:
        """The tables of ``[sources.*]`` or ``[destinations.*]`` that could be read."""
        tables = document.get(name, {})
        if not isinstance(tables, dict):
            self.report.error((name,), f"{name} are tables with a name each", f"write [{name}.NAME]")
            return
        for label, raw in tables.items():
            key: Key = (name, label)
            if not _NAME.fullmatch(label):
                self.report.error(key, "a name has letters, digits, - and _, 64 at most", "rename it")
            elif not isinstance(raw, dict):
                self.report.error(key, f"{dotted(key)} is not a table", f"write [{dotted(key)}]")
            elif (made := read(raw, key)) is not None:
                yield label, made

    def _source(self, raw: dict[str, Any], key: Key) -> Any:
        kind = raw.get("type")
        if kind is None:
            return self.table(Source, raw, key)
        if not isinstance(kind, str) or kind not in SOURCES:
            known = f"{suggestion(kind if isinstance(kind, str) else '', SOURCES)}; without a type it sends to /collect"
            self.report.error((*key, "type"), "unknown source type", known, at="value")
            return None
        if raw.get("enabled") is False:
            self._off.add(key)
        return self.table(SOURCES[kind], raw, key)

    def _destination(self, raw: dict[str, Any], key: Key) -> Any:
        kind = raw.get("type")
        if kind is None:
            self.report.error(key, f'missing key "type" in {_table(key)}', suggestion("", self.types_of))
        elif isinstance(kind, str) and kind in self.types_of:
            if raw.get("enabled") is False:
                self._off.add(key)
            return self.table(self.types_of[kind], raw, key)
        elif isinstance(kind, str) and kind in self.unusable:
            self._wanted.add(kind)
            said = self.unusable[kind]
            self.report.error((*key, "type"), said.words, said.help, at="value")
        else:
            known = suggestion(kind if isinstance(kind, str) else "", self.types_of)
            self.report.error((*key, "type"), "unknown destination type", known, at="value")
        return None

    def table(self, struct: type[Any], raw: Any, key: Key) -> Any:
        """The struct; where a fault was reported, a draft of it that serves further checks, or None.

        In a draft a field that could not be read has its default, or None.
        """
        if not isinstance(raw, dict):
            self.report.error(key, f"{dotted(key)} is not a table", f"write {_table(key)}")
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        self.report.open |= {(*key, name) for name, value in raw.items() if _harmless(name, value, fields, key)}
        unsure = self._keys(fields, raw, key, struct.__struct_config__.tag_field)
        given: dict[str, Any] = {}
        for name, field in fields.items():
            value = self._value(field.type, raw[name], (*key, name)) if name in raw else _NOTHING
            if value is not _NOTHING:
                given[field.name] = value
            elif field.required:
                given[field.name] = None
            if (value is _NOTHING and name in raw) or (*key, name) in self._placeholders:
                unsure.add(field.name)
        return self._made(struct, given, key, unsure)

    def _made(self, struct: type[Any], given: dict[str, Any], key: Key, unsure: set[str]) -> Any:
        """The struct, or a draft of it where a field is unsure or where the struct itself finds a fault."""
        made, faulty = None, bool(unsure)
        if not unsure:
            try:
                made = struct(**given)
            except ValueError:  # from its __post_init__, which is asked again below
                faulty = True
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a partner's file raises
                faulty = True
                self.report.error(key, *drafts.broken(error))
        made = drafts.draft(struct, given) if made is None else made
        hints = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        for said in drafts.complaints(struct, made, unsure):
            faulty = faulty or said.severity == "error"
            self._complain(said, key, hints)
        if faulty:
            self.drafts.add(key)
        return made

    def _complain(self, said: Complaint, key: Key, hints: Mapping[str, Any]) -> None:
        """At the setting, or where it tells of something inside one, at that."""
        place = (*key, *said.key)
        inside = len(said.key) > 1 and _showable(hints[str(said.key[0])], place)
        say = self.report.error if said.severity == "error" else self.report.warning
        say(place, said.words, said.help or None, at="value" if inside else "key")

    def _keys(self, fields: Mapping[str, Any], raw: dict[str, Any], key: Key, tag: str | None) -> set[str]:
        """Reports unknown and missing keys; a required key that is only misspelt is reported once.

        Gives the fields of which nobody can tell what was meant: those that are missing, and those that may be misspelt.
        """
        where = _table(key) + (f' (type = "{raw.get(tag)}")' if tag is not None else "")
        unknown = [name for name in raw if name not in fields and name != tag]
        misspelt = set()
        for name in unknown:
            misspelt.update(difflib.get_close_matches(name, list(fields), n=1))
            self.report.error((*key, name), f'unknown key "{name}" in {where}', suggestion(name, fields))
        missing = [name for name, field in fields.items() if field.required and name not in raw]
        for name in missing:
            if name not in misspelt:
                self.report.error(key, f'missing key "{name}" in {where}', _line_to_write(fields[name], key))
        return {fields[name].name for name in (*missing, *misspelt)}

    def _value(self, hint: Any, raw: Any, key: Key) -> Any:
        """One field's value, or ``_NOTHING`` with what is wrong reported."""
        shape = _without_secrets(hint)
        try:
            plain = msgspec.convert(raw, shape)
        except msgspec.ValidationError as error:
            members = _wrong_members(raw, shape) if isinstance(raw, dict) and _in_a_table(error) else {}
            for member, fault in (members or {(): error}).items():
                self._misshapen(hint, fault, key, member)
            return _NOTHING
        return self._filled(hint, plain, key)

    def _misshapen(self, hint: Any, error: msgspec.ValidationError, key: Key, member: Key) -> None:
        """Reports a value of another form, or in a table the ``member`` of it, or the name of that."""
        of_a_name = _of_a_name(error)
        message, inner = _in_words(error, _of_members(hint, 0 if of_a_name else 1) if member else hint)
        at: At = "key" if of_a_name else "value" if _showable(hint, key) else "hidden"
        self.report.error((*key, *member, *inner), f"{dotted(key)}: {message}", description(hint), at=at)

    def _filled(self, hint: Any, value: Any, key: Key) -> Any:
        """``value``, which has the right shape, with its secrets resolved and its own tables decoded."""
        origin, inside = typing.get_origin(hint), typing.get_args(hint)
        if hint is Secret:
            return self._secret(value, key)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            made = self.table(hint, value, key)
            return _NOTHING if made is None else made
        if origin is Annotated:
            return self._filled(inside[0], value, key)
        if not _special(hint) or value is None:
            return self._plain(hint, value, key)
        if origin in {Union, types.UnionType}:
            return self._either(inside, value, key)
        if isinstance(value, Mapping):
            return _whole({name: self._filled(inside[1], one, (*key, name)) for name, one in value.items()})
        return _whole(tuple(self._filled(inside[0], one, (*key, place)) for place, one in enumerate(value)))

    def _either(self, options: tuple[Any, ...], value: Any, key: Key) -> Any:
        """A union with a secret or a table in it: text beside a secret is a secret where it is a reference."""
        if isinstance(value, str) and str in options and not REFERENCE.fullmatch(value):
            return value
        return self._filled(next(option for option in options if _special(option)), value, key)

    def _plain(self, hint: Any, value: Any, key: Key) -> Any:
        """A reference where none is read would be sent to the partner as it stands, and so would a blank that was copied
        with an id or a name. ``match`` may mean one.
        """
        named = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, tuple) else {}
        texts = {(*key, name): one for name, one in named.items()} or {key: value}
        if any(isinstance(one, str) and REFERENCE.fullmatch(one) for one in texts.values()):
            self.report.error(
                key, f"{dotted(key)} is not a secret, so no reference is read here", "write the value", at="value"
            )
            return _NOTHING
        if Any in typing.get_args(hint):
            return value
        at: At = "value" if _showable(hint, key) else "hidden"
        blank: list[tuple[Key, At]] = [(place, at) for place, one in texts.items() if _has_blank_ends(one)]
        blank += [((*key, name), "key") for name in named if _has_blank_ends(name)]
        for place, where in blank:
            words = f"{dotted(key)}: a blank or a line end stands before or after the text"
            self.report.error(place, words, "take it away", at=where)
        return _stripped(value) if blank else value  # so that the other checks find what else is wrong with it

    def _secret(self, text: str, key: Key) -> Any:
        if key[:1] == ("sources",) and key[2] == "tokens" and text.startswith("sha256:"):
            if _DIGEST.fullmatch(text):
                return Secret(text, text)
            self.report.error(key, "this digest is not sha256: and 64 lower-case hex digits", _DIGEST_HELP, at="hidden")
            return _NOTHING
        found = resolve(text, self.environ, self.directory)
        if isinstance(found, Secret):
            if (notice := exposed(text, self.directory)) is not None:
                self.report.warning(key, f"{dotted(key)}: {notice.message}", notice.help, at="hidden")
            return found
        if key[:2] in self._off and REFERENCE.fullmatch(text):
            return self._placeholder(text, found, key)
        self.report.error(key, f"{dotted(key)}: {found.message}", found.help, at="hidden")
        return _NOTHING

    def _placeholder(self, text: str, why: Unresolved, key: Key) -> Secret:
        """Stands for the secret of a destination or source that is switched off, maybe because its key is gone.

        It does not run, so a placeholder comes near no wire.
        """
        self._placeholders.add(key[:3])
        words = f"{dotted(key)}: {why.message}; it is needed once the {str(key[0])[:-1]} is enabled again"
        self.report.warning(key, words, why.help, at="hidden")
        return Secret("", text)


def _has_blank_ends(value: Any) -> bool:
    return isinstance(value, str) and value != value.strip()


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {_stripped(name): _stripped(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_stripped, value))
    return value.strip() if isinstance(value, str) else value


class _Nothing:
    """Stands for a value that could not be read and was reported."""


_NOTHING = _Nothing()
_DIGEST_HELP = 'printf %s "$TOKEN" | sha256sum, then write tokens = ["sha256:..."]'


def _whole(values: Any) -> Any:
    """A container, unless a member of it could not be read."""
    members = values.values() if isinstance(values, dict) else values
    return _NOTHING if any(one is _NOTHING for one in members) else values


def _special(hint: Any) -> bool:
    """A type that msgspec cannot fill by itself: a secret, or a table whose every fault is wanted."""
    if isinstance(hint, type) and issubclass(hint, Secret | msgspec.Struct):
        return True
    return any(_special(inside) for inside in typing.get_args(hint))


def _without_secrets(hint: Any) -> Any:
    """The type to check the shape of a value with: secrets are text as yet, tables anything."""
    if hint is Secret:
        return str
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return Any
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return Annotated[_without_secrets(inside[0]), *inside[1:]]
    if origin in {Union, types.UnionType}:
        return Union[tuple(dict.fromkeys(map(_without_secrets, inside)))]  # noqa: UP007 - made from a list
    if origin is None or not _special(hint):
        return hint
    return origin[tuple(one if one is ... else _without_secrets(one) for one in inside)]


_COMMON = frozenset(field.encode_name for field in msgspec.structs.fields(Destination))
_PASTED = frozenset({"workspaces", "segment", "base_url"})
_ADDRESSES = frozenset({"url", "base_url"})  # some servers take a key as a part of the address


def _showable(hint: Any, key: Key) -> bool:
    """A value that is surely no secret: a partner's own fields are where keys are pasted by mistake."""
    if takes_secret(hint) or (key[0] == "sources" and key[2] in _PASTED):
        return False
    return key[0] != "destinations" or key[2] in _COMMON or bool(_choices(hint))


_ALIKE = 0.8  # of a key that nobody knows and one that somebody does
_SOUNDS_SECRET = re.compile(r"key|token|secret|passw|auth|cred|sign", re.IGNORECASE)


def _harmless(name: str, value: Any, fields: Mapping[str, Any], key: Key) -> bool:
    """Can this value be no secret, though something is wrong on its line?

    A partner's own text counts only where it fits a pattern that the setting has; under a key that is not known, only
    where the key is nearly a known one of this kind, and no misspelling of a secret.
    """
    if name not in fields:
        secret = [known for known, field in fields.items() if takes_secret(field.type)]
        close = difflib.get_close_matches(name, list(fields), n=1, cutoff=_ALIKE)
        if not close or _SOUNDS_SECRET.search(name) or difflib.get_close_matches(name, secret, n=1):
            return False
        name = close[0]
    hint = fields[name].type
    if name == "base_url" or takes_secret(hint):
        return False
    return _showable(hint, (*key, name)) or (_has_pattern(hint) and name not in _ADDRESSES and _fits(value, hint))


def _has_pattern(hint: Any) -> bool:
    """Is it one text of a certain look?"""
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    if any(meta.pattern for meta in metas):
        return True
    return typing.get_origin(hint) in {Annotated, Union, types.UnionType} and any(
        _has_pattern(inside) for inside in typing.get_args(hint)
    )


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _in_a_table(error: msgspec.ValidationError) -> bool:
    return "[...]" in str(error) or _of_a_name(error)


def _of_a_name(error: msgspec.ValidationError) -> bool:
    return " - at `key` in " in str(error)


def _wrong_members(table: Mapping[str, Any], shape: Any) -> dict[Key, msgspec.ValidationError]:
    """What is wrong with each member by itself: msgspec says of a table only that something in it is."""
    wrong: dict[Key, msgspec.ValidationError] = {}
    for name, value in table.items():
        try:
            msgspec.convert({name: value}, shape)
        except msgspec.ValidationError as error:
            wrong[name,] = error
    return wrong


def _of_members(hint: Any, which: int) -> Any:
    """The type of the names (0) or values (1) of the table that a type is or may be; None where it is none."""
    if typing.get_origin(hint) is dict:
        return typing.get_args(hint)[which]
    return next((found for inside in typing.get_args(hint) if (found := _of_members(inside, which))), None)


def _in_words(error: msgspec.ValidationError, hint: Any) -> tuple[str, Key]:
    """The message of msgspec without its own names and without the value, and where inside the value it points."""
    message, _, where = str(error).partition(" - at `")
    inner = tuple(int(number) if number else name for name, number in re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", where))
    if message.startswith("Invalid enum value"):
        return f"write one of {', '.join(map(_quoted, _choices(hint)))}", inner
    if "matching regex" in message and (look := _look(hint)) is not None:
        return f"expected {look}", inner
    words = re.sub(r"`([^`]+)`", lambda found: _kinds(found[1]), message)
    words = re.sub(r"matching regex (.*)", lambda found: f"that looks like {_read_pattern(found[1])}", words)
    return words[:1].lower() + words[1:], inner


def _kinds(names: str) -> str:
    """The types of "int | null" in words. TOML has no null, so nobody can write it."""
    return " or ".join(_WORDS.get(name, name) for name in names.split(" | ") if name != "null")


def _read_pattern(shown: str) -> str:
    """A pattern from a message of msgspec, which quotes it as Python does."""
    return bare_pattern(str(ast.literal_eval(shown)))


def bare_pattern(pattern: str) -> str:
    """A regular expression without the anchors of its ends, which say nothing to whoever writes a value."""
    return re.sub(r"^\^|(?:\\Z|\$)$", "", pattern)


def _look(hint: Any) -> str | None:
    """What a pattern asks for, where its ``Meta`` says so in words, under ``extra``."""
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra and "looks" in meta.extra:
            return str(meta.extra["looks"])
    return next((found for inside in typing.get_args(hint) if (found := _look(inside))), None)


def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return next((found for inside in typing.get_args(hint) if (found := _choices(inside))), ())


def _quoted(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def description(hint: Any) -> str | None:
    """What a field's ``Meta`` says of it."""
    said = (meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta))
    return next((words for words in said if words), None)


def takes_secret(hint: Any) -> bool:
    return hint is Secret or any(takes_secret(inside) for inside in typing.get_args(hint))


def _line_to_write(field: msgspec.structs.FieldInfo, key: Key) -> str:
    said = description(field.type)
    if not takes_secret(field.type):
        return f"{field.encode_name} = ..." + (f"  # {said}" if said else "")
    variable = re.sub(r"[^A-Z0-9]+", "_", f"{key[-1]}_{field.encode_name.removesuffix('s')}".upper())
    many = typing.get_origin(getattr(field.type, "__origin__", field.type)) is tuple
    reference = f'["env:{variable}"]' if many else f'"env:{variable}"'
    return f"{field.encode_name} = {reference}" + (f"  # {said}" if said else "")
