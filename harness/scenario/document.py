"""One YAML file -> plain data in which every value knows its place, with YAML 1.1's traps refused on the way.

In: bytes. Out: a `Document`: dicts, lists, strings, ints, floats and bools, and for each path into them the position of the
value and of its key. Rule: only what reads the same to a person and to YAML passes; nothing is constructed but plain data,
and a hostile file costs bounded time and memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.scenario.errors import Position, Problem, ScenarioErrors

MAX_BYTES, MAX_NODES, MAX_DEPTH, MAX_DIGITS = 256 * 1024, 20_000, 24, 18
MAX_FLOW = 100  # brackets inside brackets for the scanner: its time grows with the square of their depth
MAX_SHOWN = 60  # characters of a scalar that is worth computing, to say what YAML makes of it

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)")
_RESOLVER = yaml.SafeLoader("")
_MAC_LIKE = re.compile(r"[0-9]{1,2}(:[0-9]{1,2}){5}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its own position, its key's (the value's own in a list), and its text if it is a plain scalar."""

    value: Position
    key: Position
    plain: str | None = None


@dataclass
class Document:
    """A file as data. `places` has every path; a path of `data` changed by substitution keeps its place."""

    file: str
    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    trapped: set[Position] = field(
        default_factory=set
    )  # values with a problem of their own: nothing more is said of them

    def place(self, path: Path) -> Place:
        """The place of `path`, or of the nearest thing around it that the author wrote."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place(Position(1, 1), Position(1, 1)))

    def problem(self, at: Position, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.file, at, what, remedy))


def read_document(file: str, raw: bytes) -> Document:
    """Parse one file. Problems that leave the rest readable are collected in the result; others raise ScenarioErrors."""
    document = Document(file)
    root = _compose(document, _decode(document, raw))
    if not isinstance(root, yaml.MappingNode):
        raise _fatal(document, _start(root), "a testcase is a mapping of keys to values", "begin with `about:`")
    walker = _Walker(document)
    document.data = walker.walk(root, (), _start(root))
    return document


def _fatal(document: Document, at: Position, what: str, remedy: str) -> ScenarioErrors:
    return ScenarioErrors([*document.problems, Problem(document.file, at, what, remedy)])


def _decode(document: Document, raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise _fatal(document, Position(), f"{len(raw)} bytes is no testcase", f"keep it under {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        at = Position(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        what = f"byte {raw[error.start]:#04x} is not UTF-8"
        raise _fatal(document, at, what, "save the file as UTF-8") from error


class _Loader(yaml.SafeLoader):
    """Gives up on deep brackets while scanning, as the composer does by itself, but a thousand levels later."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MAX_FLOW:
            raise RecursionError("brackets")
        super().fetch_flow_collection_start(token)


def _compose(document: Document, text: str) -> yaml.Node:
    """The node graph of the only document in `text`."""
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(document, text, error) from error
    except yaml.reader.ReaderError as error:
        at = _offset_position(text, error.position)
        what = f"character {int(error.character):#06x} is not allowed in YAML"
        raise _fatal(document, at, what, "remove it, or write it as an escape in double quotes") from error
    except RecursionError as error:
        what = f"nested deeper than {MAX_DEPTH} levels"
        raise _fatal(document, Position(), what, "a testcase needs no more than six") from error
    if root is None:
        raise _fatal(
            document, Position(1, 1), "the file is empty", "write a testcase: docs/authoring.md has an example"
        )
    return root


def _offset_position(text: str, offset: int) -> Position:
    return Position(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _syntax_error(document: Document, text: str, error: yaml.MarkedYAMLError) -> ScenarioErrors:
    mark = error.problem_mark or error.context_mark
    at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    problem = error.problem or "not YAML"
    lines = text.splitlines()
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    if "\t" in line[: at.column] and not line[: at.column].strip():
        at = Position(at.line, line.index("\t") + 1)
        return _fatal(document, at, "a tab cannot indent YAML", "use spaces")
    if "another document" in problem:
        return _fatal(document, at, "a second document begins here", "one testcase a file: remove the `---`")
    if "undefined alias" in problem:
        return _fatal(document, at, problem.replace("found ", ""), "define it with & above, or write the value out")
    context = f" {error.context}" if error.context else ""
    return _fatal(document, at, f"not YAML: {problem}{context}", _syntax_remedy(problem))


def _syntax_remedy(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "check the indentation, and quote text that contains `: `"
    if "cannot start any token" in problem:
        return "quote the text"
    return "check brackets, quotes and indentation on this line and the one before"


def _start(node: yaml.Node | None) -> Position:
    if node is None:
        return Position(1, 1)
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


class _Walker:
    """Turns nodes into data once each time they are reached, so that aliases are bounded by what they expand to."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0
        self.above: list[yaml.Node] = []

    def walk(self, node: yaml.Node, path: Path, key: Position) -> Any:
        """The data under `node`; records its place. Raises ScenarioErrors where the file is a bomb or a knot."""
        self._limit(node)
        plain = node.value if isinstance(node, yaml.ScalarNode) and node.style is None else None
        self.document.places[path] = Place(_start(node), key, plain)
        self.above.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
            assert isinstance(node, yaml.ScalarNode)  # YAML has three kinds
            return self._scalar(node)
        finally:
            self.above.pop()

    def _limit(self, node: yaml.Node) -> None:
        self.nodes += 1
        if any(node is other for other in self.above):
            raise _fatal(
                self.document, _start(node), "an alias inside its own anchor has no end", "write the value out"
            )
        if self.nodes > MAX_NODES:
            what = f"more than {MAX_NODES} values once aliases are written out"
            raise _fatal(self.document, _start(node), what, "remove aliases of aliases")
        if len(self.above) > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
            raise _fatal(self.document, _start(node), what, "a testcase needs no more than six")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        self._core_tag(node, "map")
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                self.document.trapped.add(_start(node))  # what is missing in it may be under that key
                continue
            if key in data:
                first = self.document.places[(*path, key)].key
                what = f"key {key!r} was given before, in line {first.line}"
                self.document.problem(_start(key_node), what, "keep one of the two")
                continue
            data[key] = self.walk(value_node, (*path, key), _start(key_node))
        return data

    def _key(self, node: yaml.Node) -> str | None:
        """The text of a key; None (and a problem) if YAML reads it as anything but text."""
        at = _start(node)
        if not isinstance(node, yaml.ScalarNode):
            self.document.problem(at, "a key must be a word", "no lists or mappings as keys")
        elif node.tag == _TAG + "merge":
            self.document.problem(at, "merge keys (<<) are not used here", "write the keys out")
        elif node.tag != _TAG + "str":
            self.document.problem(at, f"YAML reads the key {node.value} as {_read_as(node)}", f'write "{node.value}"')
        else:
            return str(node.value)
        return None

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        self._core_tag(node, "seq")
        return [self.walk(item, (*path, index), _start(item)) for index, item in enumerate(node.value)]

    def _core_tag(self, node: yaml.Node, tag: str) -> None:
        if node.tag != _TAG + tag:
            self.document.problem(
                _start(node), f"tag {node.tag.replace(_TAG, '!!')} is not used here", "remove the tag"
            )

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        trap = next(_traps(node), None)
        if trap is not None:
            self.document.problem(_start(node), *trap)
            self.document.trapped.add(_start(node))
            return str(node.value)
        return _construct(node)


def _natural_tag(node: yaml.ScalarNode) -> str:
    """The tag that the scalar has by its looks alone."""
    plain = node.style is None
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, node.value, (plain, not plain))  # type: ignore[no-untyped-call]  # stubs
    return tag


def _traps(node: yaml.ScalarNode) -> Iterator[tuple[str, str]]:
    """Plain scalars that YAML 1.1 reads as something else than they look, whatever is expected there."""
    if node.tag != _natural_tag(node):
        yield f"tag {node.tag.replace(_TAG, '!!')} is not used here", "remove the tag"
        return
    tag, text = node.tag.removeprefix(_TAG), str(node.value)
    quoted = f'write "{text}"'
    if _MAC_LIKE.fullmatch(text) and tag != "str":
        yield f"YAML reads the MAC {text} as {_read_as(node)}, in base 60", quoted
    if tag in ("int", "float") and ":" in text:
        yield f"YAML reads {text} as {_read_as(node)}, in base 60", quoted
    if tag == "int" and not _DECIMAL.fullmatch(text):
        yield f"YAML reads {text} as {_read_as(node)}", "write a decimal number, or quote it if it is text"
    elif tag == "int" and len(text) > MAX_DIGITS:
        yield f"a number of {len(text)} digits", "nothing in a testcase is counted that far"
    if tag == "timestamp":
        yield f"YAML reads {text} as a date", quoted
    if tag == "null":
        yield "there is no value here", "give one, or leave the key out"
    if tag in ("value", "merge"):
        yield f"YAML gives {text} a special meaning", quoted


def _construct(node: yaml.Node) -> str | int | float | bool:
    value: str | int | float | bool = yaml.SafeLoader("").construct_object(node)
    return value


def _read_as(node: yaml.Node) -> str:
    """What YAML makes of a scalar, in words. Of a long one only its type: base 60 takes minutes, or leaves no float."""
    if len(node.value) > MAX_SHOWN:
        return f"a value of type {node.tag.removeprefix(_TAG)}"
    try:
        value = _construct(node)
        words = {True: "true", False: "false", None: "nothing"}
        if isinstance(value, bool) or value is None:
            return words[value]
        return f"the number {value}" if isinstance(value, int | float) else f"a {type(value).__name__}"
    except (ValueError, IndexError, yaml.YAMLError):  # a tag by hand, 0x without digits, more digits than can be shown
        return f"a value of type {node.tag.removeprefix(_TAG)}"
