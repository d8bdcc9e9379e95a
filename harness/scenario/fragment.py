"""One fragment file: what it says, which parameters it takes, and those filled in.

In: the node graph of a file `*.fragment.yaml` and the values given by whoever includes it. Out: nodes in which no parameter is left.
Rule: as with a matrix, text inside a string stays text, and a value that is nothing but `${parameter}` becomes the value itself, which
keeps the place where it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import yaml

from harness.scenario.errors import Position, suggest
from harness.scenario.nodes import NAME, TAG, USE, start

SUFFIX = ".fragment.yaml"
ABOUT, NEEDS, PARAMS = "fragment", "needs", "params"
SECTIONS = ("guest", "endpoints", "dump", "debugger", "steps", "expect", "known_bugs", "allow")
KEYS = (ABOUT, NEEDS, PARAMS, "include", *SECTIONS)

Pair = tuple[yaml.Node, yaml.Node]
Report = Callable[[Position, str, str], None]


def word(node: yaml.Node) -> str | None:
    """The text of a scalar; None for a mapping or a list."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


@dataclass(frozen=True)
class Fragment:
    """`needs`: parameters that have to be given, at the node that says so. `params`: the others, with the nodes of name and default."""

    needs: dict[str, yaml.Node]
    params: dict[str, Pair]
    body: yaml.MappingNode  # what is left without these

    def names(self) -> dict[str, yaml.Node]:
        """Every parameter, and where it is named."""
        return {**self.needs, **{name: key for name, (key, _) in self.params.items()}}

    def values(self, given: tuple[Pair, ...], at: Position, report: Report) -> dict[str, yaml.Node]:
        """The value of each parameter. `at`: where the fragment is included."""
        values = {name: default for name, (_, default) in self.params.items()}
        for key, value in given:
            name = str(word(key))
            if name in self.names():
                values[name] = value
            else:
                report(start(key), f"the fragment has no parameter {name!r}", suggest(name, self.names(), "parameters"))
        if missing := [name for name in self.needs if name not in values]:
            example = ", ".join(f"{name}: ..." for name in missing)
            report(
                at,
                f"the fragment needs {' and '.join(map(repr, missing))}",
                f"write {{file: ..., with: {{{example}}}}}",
            )
        return values


def read_fragment(root: yaml.Node, report: Report) -> Fragment | None:
    """The fragment; None after a problem that leaves nothing to read."""
    if not isinstance(root, yaml.MappingNode):
        report(start(root), "a fragment is a mapping of keys to values", f"begin with `{ABOUT}:`")
        return None
    keys = {word(key): value for key, value in root.value}
    for key, _ in root.value:
        if word(key) not in KEYS:
            report(start(key), f"unknown key {word(key)!r} in a fragment", suggest(str(word(key)), KEYS, "keys here"))
    about = keys.get(ABOUT)
    if about is None or len(word(about) or "") < 10:
        report(start(about or root), f"`{ABOUT}:` says what the fragment is for, in a sentence", "write one")
    needs = {str(word(node)): node for node in _needs(keys.get(NEEDS), report)}
    params = {str(word(key)): (key, value) for key, value in _params(keys.get(PARAMS), report)}
    for name in needs.keys() & params.keys():
        report(start(needs[name]), f"parameter {name!r} is needed and has a default", "keep one of the two")
    body = [pair for pair in root.value if word(pair[0]) in ("include", *SECTIONS)]
    return Fragment(needs, params, yaml.MappingNode(root.tag, body, root.start_mark, root.end_mark))


def _needs(node: yaml.Node | None, report: Report) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from (item for item in node.value if _is_name(item, report))
    elif node is not None:
        report(start(node), f"`{NEEDS}` is a list of parameters that have to be given", "write [parameter]")


def _params(node: yaml.Node | None, report: Report) -> Iterator[Pair]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key, value) for key, value in node.value if _is_name(key, report))
    elif node is not None:
        report(start(node), f"`{PARAMS}` is a mapping of parameters to their defaults", "write {parameter: value}")


def _is_name(node: yaml.Node, report: Report) -> bool:
    if NAME.fullmatch(word(node) or ""):
        return True
    report(start(node), f"parameter name {word(node)!r}", "use a-z, 0-9 and _, a letter first, at most 15")
    return False


@dataclass
class Filler:
    """Puts values in for `${parameter}`. `used` and `strangers`: names that were met, known and unknown."""

    values: dict[str, yaml.Node]
    names: tuple[str, ...]
    report: Report
    used: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    done: dict[int, yaml.Node] = field(default_factory=dict)  # by identity: what is shared by aliases stays shared

    def fill(self, node: yaml.Node) -> yaml.Node:
        """A copy without parameters; of a node inside itself the original, which the reader of the whole refuses."""
        if id(node) not in self.done:
            self.done[id(node)] = node
            self.done[id(node)] = self._filled(node)
        return self.done[id(node)]

    def _filled(self, node: yaml.Node) -> yaml.Node:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, self.fill(value)) for key, value in node.value]
            return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            return yaml.SequenceNode(node.tag, [self.fill(item) for item in node.value], node.start_mark, node.end_mark)
        return self._text(node) if "${" in str(node.value) else node

    def _text(self, node: yaml.Node) -> yaml.Node:
        text = str(node.value)
        for use in USE.finditer(text):
            if not use[1]:
                self._look_at(use[2], node)
        whole = USE.fullmatch(text)
        if whole and not whole[1]:
            return self.values.get(whole[2], node)
        filled = USE.sub(lambda use: use[0] if use[1] else self._inside(use[2], use[0], node), text)
        return yaml.ScalarNode(TAG + "str", filled, node.start_mark, node.end_mark, style='"')

    def _look_at(self, name: str, node: yaml.Node) -> None:
        if name in self.names:
            self.used.add(name)
        else:
            self.strangers.add(name)
            remedy = suggest(name, self.names, "parameters")
            remedy += (
                "" if remedy.startswith("did") else "; an axis is handed in by the testcase, with: {nic: '${nic}'}"
            )
            self.report(start(node), f"${{{name}}} names no parameter of this fragment", remedy)

    def _inside(self, name: str, otherwise: str, node: yaml.Node) -> str:
        """The text of a value that stands inside other text."""
        value = self.values.get(name)
        if value is None:
            return otherwise
        if word(value) is None:
            self.report(
                start(node), f"${{{name}}} stands inside text and is given a list or mapping", "let it stand alone"
            )
        return word(value) or ""
