"""Bytes -> YAML's node graph: the syntax of one file, with each error where it stands.

In: a file's name and bytes. Out: the root node, whose marks carry line and column, and the file's name if it is a fragment. Rule: a
hostile file costs bounded time and memory; what the values mean is not looked at here.
"""

from __future__ import annotations

import io
import re
from typing import Any

import yaml

from harness.scenario.errors import Position, Problem, ScenarioErrors

MAX_BYTES, MAX_DEPTH = 256 * 1024, 24
QUICK = 1000  # characters of the longest line in a file for libyaml, which descends by recursion in C
MAX_FLOW = 100  # brackets inside brackets for the scanner: its time grows with the square of their depth

TAG = "tag:yaml.org,2002:"
NAME = re.compile(r"[a-z][a-z0-9_]{0,14}")  # of an axis of the matrix, or of a fragment's parameter
USE = re.compile(r"\$(\$?)\{([^}]*)\}")  # ${name}; $${x} is a literal ${x}


def start(node: yaml.Node | None) -> Position:
    """Where a node begins."""
    if node is None:
        return Position(1, 1)
    return Position(node.start_mark.line + 1, node.start_mark.column + 1, node.start_mark.name)


def fatal(file: str, at: Position, what: str, remedy: str) -> ScenarioErrors:
    """To raise where the rest cannot be read."""
    return ScenarioErrors([Problem(at.file or file, at, what, remedy)])


class _Loader(yaml.SafeLoader):
    """Gives up on deep brackets while scanning, as the composer does by itself, but a thousand levels later."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MAX_FLOW:
            raise RecursionError("brackets")
        super().fetch_flow_collection_start(token)


class _Named(io.StringIO):
    """libyaml asks a stream, and nobody else, for the name that its marks carry."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def _quick(text: str, mark: str) -> yaml.Node | None:
    """The same graph by libyaml, five times as fast; None where it is not at hand, where the text may be nested too deep for it (a level takes
    a bracket or a column), and where something is wrong, which the other parser has words for."""
    if not yaml.__with_libyaml__ or max(map(text.count, "[{")) > MAX_FLOW or max(map(len, text.split("\n"))) > QUICK:
        return None
    try:
        loader = yaml.CSafeLoader(_Named(text, mark))
        root: yaml.Node | None = loader.get_single_node()
    except yaml.YAMLError:
        return None
    return None if root is None or _lacks_value(root) else root


def _lacks_value(root: yaml.Node) -> bool:
    """Whether something is left out, `key:` alone, which libyaml sees a column further on."""
    found, todo = {id(root)}, [root]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.ScalarNode):
            if not node.value and not node.style:
                return True
            continue
        pairs = isinstance(node, yaml.MappingNode)
        below = [each for pair in node.value for each in pair] if pairs else node.value
        todo += [each for each in below if id(each) not in found]
        found.update(map(id, below))
    return False


def compose(file: str, raw: bytes, mark: str = "") -> yaml.Node:
    """The node graph of the only document in a file; `mark` becomes the `Position.file` of its nodes. Raises ScenarioErrors."""
    text = _decode(file, raw)
    if (quick := _quick(text, mark)) is not None:
        return quick
    try:
        loader = _Loader(text)
        loader.name = mark
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, text, error) from error
    except yaml.reader.ReaderError as error:
        at = _offset_position(text, error.position)
        what = f"character {int(error.character):#06x} is not allowed in YAML"
        raise fatal(file, at, what, "remove it, or write it as an escape in double quotes") from error
    except RecursionError as error:
        what = f"nested deeper than {MAX_DEPTH} levels"
        raise fatal(file, Position(), what, "a testcase needs no more than six") from error
    if root is None:
        raise fatal(file, Position(1, 1), "the file is empty", "write a testcase: docs/authoring.md has an example")
    return root


def _decode(file: str, raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise fatal(file, Position(), f"{len(raw)} bytes is no testcase", f"keep it under {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        at = Position(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        what = f"byte {raw[error.start]:#04x} is not UTF-8"
        raise fatal(file, at, what, "save the file as UTF-8") from error


def _offset_position(text: str, offset: int) -> Position:
    return Position(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _syntax_error(file: str, text: str, error: yaml.MarkedYAMLError) -> ScenarioErrors:
    mark = error.problem_mark or error.context_mark
    at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    problem = error.problem or "not YAML"
    lines = text.splitlines()
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    if "\t" in line[: at.column] and not line[: at.column].strip():
        at = Position(at.line, line.index("\t") + 1)
        return fatal(file, at, "a tab cannot indent YAML", "use spaces")
    if "another document" in problem:
        return fatal(file, at, "a second document begins here", "one testcase a file: remove the `---`")
    if "undefined alias" in problem:
        return fatal(file, at, problem.replace("found ", ""), "define it with & above, or write the value out")
    context = f" {error.context}" if error.context else ""
    return fatal(file, at, f"not YAML: {problem}{context}", _syntax_remedy(problem))


def _syntax_remedy(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "check the indentation, and quote text that contains `: `"
    if "cannot start any token" in problem:
        return "quote the text"
    return "check brackets, quotes and indentation on this line and the one before"
