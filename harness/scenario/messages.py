"""pydantic's errors -> problems with a place and a remedy an author can act on.

In: a ValidationError of `Scenario` and the locations it names. Out: (path, on the key or the value, what, remedy). Rule: an error
type is a row of a table; what has no row keeps pydantic's own sentence.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.scenario.document import Path
from harness.scenario.errors import suggest
from harness.scenario.model import WAITS, Scenario

FILLED_BY_LOADER = ("params",)

PATTERNS = {
    r"^[a-z][a-z0-9_-]{0,14}$": "use a-z, 0-9, _ and -, a letter first, at most 15 characters",
    r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$": "write six pairs of lower-case hex digits in quotes, like '52:54:00:12:34:56'",
    r"^[chlmpqstw]{1,8}$": "use letters of h l m p q s t w, whose answer on the console is known, and c to forge or to crash",
    r"^[A-Z][A-Z0-9_]+$": "write a QMP event in capitals, like GUEST_PANICKED",
    r"^[a-z0-9][a-z0-9_./-]*$": "use a-z, 0-9, _ . / and -, a letter or digit first",
}


class Message:
    """A problem before it has a position."""

    __slots__ = ("on_key", "path", "remedy", "what")

    def __init__(self, path: Path, what: str, remedy: str, on_key: bool = False) -> None:
        self.path, self.what, self.remedy, self.on_key = path, what, remedy, on_key


def messages(error: ValidationError, plain: Callable[[Path], str | None]) -> Iterator[Message]:
    """One message for each error; `plain` gives the text of an unquoted scalar at a path."""
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_below(other["loc"], detail["loc"]) for other in details):
            continue  # its values are there, and wrong
        path = authored(detail["loc"])
        on_key = bool(path) and path[-1] == "[key]"
        path = path[:-1] if on_key else path
        describe = _TABLE.get(detail["type"], _as_pydantic_says)
        what, remedy = describe(path, detail, plain(path))
        yield Message(path, what, remedy, on_key or detail["type"] == "extra_forbidden")


def _below(loc: tuple[str | int, ...], above: tuple[str | int, ...]) -> bool:
    return len(loc) > len(above) and loc[: len(above)] == above


def authored(loc: tuple[str | int, ...]) -> Path:
    """pydantic's location without the tag that it puts in after the `wait` of a step."""
    tagged = len(loc) > 3 and loc[0] == "steps" and loc[2] == "wait" and loc[3] in WAITS
    return (*loc[:3], *loc[4:]) if tagged else loc


def model_at(path: Path) -> type[BaseModel] | None:
    """The model whose keys stand at `path` of a Scenario; None if there is none or several could."""
    found: Any = Scenario
    for key in path:
        found = _descend(found, key)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def known_keys(path: Path) -> list[str]:
    """The keys an author can write at `path`."""
    model = model_at(path)
    names = [field.alias or name for name, field in model.model_fields.items()] if model else []
    return [name for name in names if name not in FILLED_BY_LOADER] + (
        ["include", "matrix"] if model is Scenario else []
    )


def _descend(annotation: Any, key: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        return _strip(fields[str(key)].annotation) if key in fields else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return _strip(arguments[1])
    return _strip(arguments[0]) if get_origin(annotation) is tuple else None


def _strip(annotation: Any) -> Any:
    """Without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _strip(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _strip(members[0]) if len(members) == 1 else None
    return annotation


_Described = tuple[str, str]


def _unknown_key(path: Path, _detail: ErrorDetails, _plain: str | None) -> _Described:
    key, around = str(path[-1]), path[:-1]
    if around == () and key in FILLED_BY_LOADER:
        return f"key {key!r} is filled in by the loader", "use `matrix`"
    known = known_keys(around) or _wait_keys(around)
    return f"unknown key {key!r}", suggest(key, known, "keys here")


def _wait_keys(path: Path) -> list[str]:
    return ["within", "state", "count"] if len(path) == 3 and path[2] == "wait" else []


def _missing(path: Path, _detail: ErrorDetails, _plain: str | None) -> _Described:
    inside = f" in {path[-2]!r}" if len(path) > 1 and isinstance(path[-2], str) else ""
    return f"key {str(path[-1])!r} is missing{inside}", "add it"


def _text_expected(_path: Path, detail: ErrorDetails, plain: str | None) -> _Described:
    if plain is None or isinstance(detail["input"], list | dict):
        return f"text is expected here, not {_kind(detail['input'])}", "write a word"
    value = str(detail["input"]).lower() if isinstance(detail["input"], bool) else detail["input"]
    kind = "" if isinstance(value, str) else "the number "
    return f"text is expected here, but YAML reads {plain} as {kind}{value}", f'write "{plain}"'


def _choice(_path: Path, detail: ErrorDetails, plain: str | None) -> _Described:
    expected = [word.strip("' ") for word in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(",")]
    if isinstance(detail["input"], bool | int | float) and plain is not None:
        what = (
            f"one of {', '.join(expected)} is expected here, but YAML reads {plain} as {str(detail['input']).lower()}"
        )
        return what, "write one of them"
    remedy = suggest(str(detail["input"]), expected)
    what = f"{_show(detail['input'])} is not one of {', '.join(expected)}"
    return what, remedy if remedy.startswith("did") else "write one of them"


def _pattern(_path: Path, detail: ErrorDetails, _plain: str | None) -> _Described:
    pattern = str(detail["ctx"]["pattern"])
    return f"{_show(detail['input'])} cannot be used here", PATTERNS.get(pattern, f"it must match {pattern}")


def _expected(what: str, remedy: str) -> Callable[[Path, ErrorDetails, str | None], _Described]:
    def describe(_path: Path, detail: ErrorDetails, _plain: str | None) -> _Described:
        return f"{what} is expected here, not {_kind(detail['input'])}", remedy

    return describe


def _bound(sign: str, key: str) -> Callable[[Path, ErrorDetails, str | None], _Described]:
    def describe(_path: Path, detail: ErrorDetails, _plain: str | None) -> _Described:
        return f"{_show(detail['input'])} is out of range", f"it must be {sign} {detail['ctx'][key]:g}"

    return describe


def _length(words: str, key: str) -> Callable[[Path, ErrorDetails, str | None], _Described]:
    def describe(_path: Path, detail: ErrorDetails, _plain: str | None) -> _Described:
        context = detail["ctx"]
        has = context.get("actual_length", len(detail["input"]))
        noun = "character" if isinstance(detail["input"], str) else "value"
        given = f"1 {noun} is" if has == 1 else f"{has} {noun}s are"
        return f"{given} given here", f"give {words} {context[key]}"

    return describe


def _as_pydantic_says(path: Path, detail: ErrorDetails, _plain: str | None) -> _Described:
    return f"{'.'.join(map(str, path))}: {detail['msg']}", "see docs/authoring.md"


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else _show(value)


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


_MAPPING = _expected("a mapping", "put `key: value` lines under it, indented")
_WHOLE = _expected("a whole number", "write digits without quotes")
_NUMBER = _expected("a number", "write it without quotes")
_LIST = _expected("a list", "write [a, b], or `- ` lines")

_TABLE: dict[str, Callable[[Path, ErrorDetails, str | None], _Described]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "string_type": _text_expected,
    "literal_error": _choice,
    "string_pattern_mismatch": _pattern,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "bool_type": _expected("true or false", "write one of them without quotes"),
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "greater_than": _bound("above", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("below", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "too_short": _length("at least", "min_length"),
    "too_long": _length("at most", "max_length"),
    "string_too_short": _length("at least", "min_length"),
}
