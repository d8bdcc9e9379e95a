"""One YAML file -> plain data in which every value knows its place, with YAML 1.1's traps refused on the way.

In: bytes. Out: a `Document`: dicts, lists, strings, ints, floats and bools, and for each path into them the position of the
value and of its key. Rule: only what reads the same to a person and to YAML passes; nothing is constructed but plain data,
and a hostile file costs bounded time and memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.scenario.errors import Position, Problem, ScenarioErrors
from harness.scenario.include import Included, with_fragments
from harness.scenario.nodes import MAX_BYTES, MAX_DEPTH, MAX_FLOW, TAG, compose, fatal, start

__all__ = ["MAX_BYTES", "MAX_FLOW", "Document", "Path", "Place", "read_document"]

MAX_NODES, MAX_DIGITS = 20_000, 18
MAX_SHOWN = 60  # characters of a scalar that is worth computing, to say what YAML makes of it

Path = tuple[str | int, ...]

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
    includes: Mapping[str, Included] = field(default_factory=dict)  # by the fragment's file

    def place(self, path: Path) -> Place:
        """The place of `path`, or of the nearest thing around it that the author wrote."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place(Position(1, 1), Position(1, 1)))

    def problem(self, at: Position, what: str, remedy: str) -> None:
        """What is wrong in a fragment stands there, and is said with who includes it."""
        by = self.includes.get(at.file)
        self.problems.append(Problem(at.file or self.file, at, what, remedy, by.place if by else ""))

    def fatal(self, at: Position, what: str, remedy: str) -> ScenarioErrors:
        """To raise where the rest cannot be read."""
        self.problem(at, what, remedy)
        return ScenarioErrors(self.problems)


def read_document(file: str, raw: bytes) -> Document:
    """Parse one file and the fragments that it includes. Problems that leave the rest readable are collected in the result; others
    raise ScenarioErrors."""
    root = compose(file, raw)
    if not isinstance(root, yaml.MappingNode):
        raise fatal(file, start(root), "a testcase is a mapping of keys to values", "begin with `about:`")
    whole, includes = with_fragments(file, root)
    document = Document(file, includes=includes)
    document.data = _Walker(document).walk(whole, (), start(root))
    return document


class _Walker:
    """Turns nodes into data once each time they are reached, so that aliases are bounded by what they expand to."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0
        self.above: list[yaml.Node] = []

    def walk(self, node: yaml.Node, path: Path, key: Position) -> Any:
        """The data under `node`; records its place. Raises ScenarioErrors where the file is a bomb or a knot."""
        self._limit(node)
        plain = node.value if isinstance(node, yaml.ScalarNode) and not node.style else None
        self.document.places[path] = Place(start(node), key, plain)
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
            raise self.document.fatal(start(node), "an alias inside its own anchor has no end", "write the value out")
        if self.nodes > MAX_NODES:
            what = f"more than {MAX_NODES} values once aliases are written out"
            raise self.document.fatal(start(node), what, "remove aliases of aliases")
        if len(self.above) > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
            raise self.document.fatal(start(node), what, "a testcase needs no more than six")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        self._core_tag(node, "map")
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                self.document.trapped.add(start(node))  # what is missing in it may be under that key
                continue
            if key in data:
                first = self.document.places[(*path, key)].key
                what = f"key {key!r} was given before, in line {first.line}"
                self.document.problem(start(key_node), what, "keep one of the two")
                continue
            data[key] = self.walk(value_node, (*path, key), start(key_node))
        return data

    def _key(self, node: yaml.Node) -> str | None:
        """The text of a key; None (and a problem) if YAML reads it as anything but text."""
        at = start(node)
        if not isinstance(node, yaml.ScalarNode):
            self.document.problem(at, "a key must be a word", "no lists or mappings as keys")
        elif node.tag == TAG + "merge":
            self.document.problem(at, "merge keys (<<) are not used here", "write the keys out")
        elif node.tag != TAG + "str":
            self.document.problem(at, f"YAML reads the key {node.value} as {_read_as(node)}", f'write "{node.value}"')
        else:
            return str(node.value)
        return None

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        self._core_tag(node, "seq")
        return [self.walk(item, (*path, index), start(item)) for index, item in enumerate(node.value)]

    def _core_tag(self, node: yaml.Node, tag: str) -> None:
        if node.tag != TAG + tag:
            self.document.problem(start(node), f"tag {node.tag.replace(TAG, '!!')} is not used here", "remove the tag")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        trap = next(_traps(node), None)
        if trap is not None:
            self.document.problem(start(node), *trap)
            self.document.trapped.add(start(node))
            return str(node.value)
        return _construct(node)


def _natural_tag(node: yaml.ScalarNode) -> str:
    """The tag that the scalar has by its looks alone."""
    plain = not node.style
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, node.value, (plain, not plain))  # type: ignore[no-untyped-call]  # stubs
    return tag


def _traps(node: yaml.ScalarNode) -> Iterator[tuple[str, str]]:
    """Plain scalars that YAML 1.1 reads as something else than they look, whatever is expected there."""
    if node.tag != _natural_tag(node):
        yield f"tag {node.tag.replace(TAG, '!!')} is not used here", "remove the tag"
        return
    tag, text = node.tag.removeprefix(TAG), str(node.value)
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
        return f"a value of type {node.tag.removeprefix(TAG)}"
    try:
        value = _construct(node)
        words = {True: "true", False: "false", None: "nothing"}
        if isinstance(value, bool) or value is None:
            return words[value]
        return f"the number {value}" if isinstance(value, int | float) else f"a {type(value).__name__}"
    except (ValueError, IndexError, yaml.YAMLError):  # a tag by hand, 0x without digits, more digits than can be shown
        return f"a value of type {node.tag.removeprefix(TAG)}"
