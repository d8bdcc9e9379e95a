"""Fragments: parts of testcases in files of their own, put in before anything else is looked at.

In: the node graph of a testcase. Out: the same graph, each `include` replaced by what its fragment says. Rule: nothing overrides
anything, what is given twice is an error; and a node keeps the place where it was written, so that an error names the line of the
fragment, or of the testcase if that gave the parameter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness.scenario.errors import Position, Problem, ScenarioErrors, suggest
from harness.scenario.fragment import SUFFIX, Filler, Fragment, Pair, read_fragment, word
from harness.scenario.nodes import MAX_DEPTH, compose, fatal, start

INCLUDE, STEPS = "include", "steps"
MAX_INCLUDES, MAX_CHAIN, MAX_JOINED = 100, 8, 20_000
MAX_BYTES = 1024 * 1024  # of all fragments of one testcase


@dataclass(frozen=True)
class Included:
    """A fragment that was put in: by whom (`file:line:column`), and what its parameters were given, as written."""

    place: str
    given: tuple[str, ...]


@dataclass(frozen=True)
class _Use:
    """One `include`: the node that names the file, and the values given to parameters."""

    file: yaml.Node
    given: tuple[Pair, ...]


def with_fragments(file: str, root: yaml.MappingNode) -> tuple[yaml.MappingNode, dict[str, Included]]:
    """The testcase with everything that it includes, and the fragments by file. Raises ScenarioErrors with all that is wrong about
    fragments."""
    work = _Work(file)
    whole = work.expanded(root, (file,))
    if work.problems:
        raise ScenarioErrors(work.problems)
    return whole, work.included


@dataclass
class _Work:
    """What one testcase has included so far."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    included: dict[str, Included] = field(default_factory=dict)
    includes: int = 0
    size: int = 0
    joined: int = 0

    def problem(self, at: Position, what: str, remedy: str) -> None:
        by = self.included.get(at.file)
        self.problems.append(Problem(at.file or self.file, at, what, remedy, by.place if by else ""))

    def expanded(self, root: yaml.MappingNode, chain: tuple[str, ...]) -> yaml.MappingNode:
        """`root` without its includes. `chain`: the files that led here, the testcase first."""
        own: list[Pair] = []
        parts: list[list[Pair]] = []
        for key, value in root.value:
            if word(key) == INCLUDE:
                parts += [self._fragment(use, chain) for use in self._uses(value, several=True)]
            elif word(key) == STEPS and isinstance(value, yaml.SequenceNode):
                steps, more = self._steps(value, chain)
                own.append((key, steps))
                parts += more
            else:
                own.append((key, value))
        pairs: list[Pair] = []
        for part in [*parts, own]:
            pairs = self._joined(pairs, part, 0)
        return yaml.MappingNode(root.tag, pairs, root.start_mark, root.end_mark)

    def _steps(self, steps: yaml.SequenceNode, chain: tuple[str, ...]) -> tuple[yaml.SequenceNode, list[list[Pair]]]:
        """The steps with those of fragments in their places, and what else these fragments say."""
        items: list[yaml.Node] = []
        rest: list[list[Pair]] = []
        for item in steps.value:
            if not (isinstance(item, yaml.MappingNode) and [word(key) for key, _ in item.value] == [INCLUDE]):
                items.append(item)
                continue
            for use in self._uses(item.value[0][1]):
                pairs = self._fragment(use, chain)
                items += [step for key, value in pairs if word(key) == STEPS for step in _items(value)]
                rest.append([pair for pair in pairs if word(pair[0]) != STEPS])
        return yaml.SequenceNode(steps.tag, items, steps.start_mark, steps.end_mark), rest

    def _uses(self, value: yaml.Node, several: bool = False) -> Iterator[_Use]:
        """The fragments that the value of an `include` names."""
        if several and isinstance(value, yaml.SequenceNode):
            for item in value.value:
                yield from self._uses(item)
        elif word(value) is not None:
            yield _Use(value, ())
        elif isinstance(value, yaml.MappingNode):
            yield from self._with_parameters(value)
        else:
            remedy = f"write the path of a file *{SUFFIX}, or {{file: PATH, with: {{parameter: value}}}}"
            self.problem(start(value), "a fragment is named here", remedy)

    def _with_parameters(self, value: yaml.MappingNode) -> Iterator[_Use]:
        given = {str(word(key)): inner for key, inner in value.value}
        for key, _ in value.value:
            if word(key) not in ("file", "with"):
                self.problem(start(key), f"unknown key {word(key)!r}", "keys here: file, with")
        file, parameters = given.get("file"), given.get("with")
        if file is None or word(file) is None:
            self.problem(start(value), "an include names no file", f"add `file: PATH`, a path of a file *{SUFFIX}")
        elif parameters is not None and not isinstance(parameters, yaml.MappingNode):
            self.problem(start(parameters), "`with` gives values to parameters", "write {parameter: value}")
        else:
            yield _Use(file, tuple(parameters.value) if isinstance(parameters, yaml.MappingNode) else ())

    def _fragment(self, use: _Use, chain: tuple[str, ...]) -> list[Pair]:
        """What the fragment says, its parameters filled in, and its own includes done."""
        at = start(use.file)
        path = os.path.normpath(os.path.join(os.path.dirname(chain[-1]), str(word(use.file))))
        raw = self._read(str(word(use.file)), path, at, chain)
        if raw is None:
            return []
        place = f"{at.file or self.file}:{at.line}:{at.column}"
        written = tuple(f"{word(key)}: {word(value) or '...'}" for key, value in use.given)
        self.included.setdefault(path, Included(place, written))
        try:
            root = compose(path, raw, mark=path)
        except ScenarioErrors as error:
            self.problems += [Problem(each.file, each.at, each.what, each.remedy, place) for each in error.problems]
            return []
        fragment = read_fragment(root, self.problem)
        return self._filled(fragment, use, (*chain, path)) if fragment else []

    def _filled(self, fragment: Fragment, use: _Use, chain: tuple[str, ...]) -> list[Pair]:
        given = fragment.values(use.given, start(use.file), self.problem)
        filler = Filler(given, tuple(fragment.names()), self.problem)
        body = filler.fill(fragment.body)
        assert isinstance(body, yaml.MappingNode)
        for name, key in fragment.names().items():
            if name not in filler.used and not filler.strangers:  # it may be the one that was misspelt
                self.problem(
                    start(key), f"parameter {name!r} changes nothing", f"use ${{{name}}} somewhere, or remove it"
                )
        return list(self.expanded(body, chain).value)

    def _read(self, named: str, path: str, at: Position, chain: tuple[str, ...]) -> bytes | None:
        """The fragment's bytes; None after a problem."""
        if trouble := self._trouble(named, path, chain):
            self.problem(at, *trouble)
            return None
        self.includes += 1
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            there = [each.name for each in sorted(Path(path).parent.glob(f"*{SUFFIX}"))]
            self.problem(
                at, f"{path} cannot be read: {error.strerror}", suggest(Path(path).name, there, "fragments there")
            )
            return None
        self.size += len(raw)
        if self.size > MAX_BYTES:
            raise fatal(self.file, at, f"fragments of more than {MAX_BYTES} bytes", "include less")
        return raw

    def _trouble(self, named: str, path: str, chain: tuple[str, ...]) -> tuple[str, str] | None:
        """Why a fragment cannot be put in here, and what to do."""
        if "${" in named:
            return "a fragment's path is fixed: the matrix does not choose it", "make the fragment take a parameter"
        if os.path.isabs(named):
            return f"{named} is a path of one machine", "write it relative to the folder of this file"
        if not named.endswith(SUFFIX):
            return f"{named} is no fragment", f"a fragment's name ends in {SUFFIX}"
        if path in chain:
            return f"{' includes '.join([*chain[chain.index(path) :], path])}", "remove one of these includes"
        if len(chain) > MAX_CHAIN:
            return f"fragments of fragments, more than {MAX_CHAIN} deep", "include them side by side"
        if self.includes >= MAX_INCLUDES:
            return f"more than {MAX_INCLUDES} fragments", "write the testcase out"
        return None

    def _joined(self, first: list[Pair], second: Iterable[Pair], depth: int) -> list[Pair]:
        """Mappings key by key, lists one after the other; anything else can be given once."""
        result = list(first)
        places = {word(key): number for number, (key, _) in enumerate(first)}
        for key, value in second:
            number = places.get(word(key))
            if number is None:
                result.append((key, value))
            else:
                result[number] = (key, self._both(*result[number], key, value, depth))
        return result

    def _both(self, key: yaml.Node, one: yaml.Node, again: yaml.Node, two: yaml.Node, depth: int) -> yaml.Node:
        self.joined += 1
        if depth > MAX_DEPTH or self.joined > MAX_JOINED:
            raise fatal(self.file, start(again), "too much to be joined with a fragment", "write the testcase out")
        if isinstance(one, yaml.MappingNode) and isinstance(two, yaml.MappingNode):
            return yaml.MappingNode(
                two.tag, self._joined(one.value, two.value, depth + 1), two.start_mark, two.end_mark
            )
        if isinstance(one, yaml.SequenceNode) and isinstance(two, yaml.SequenceNode):
            return yaml.SequenceNode(two.tag, [*one.value, *two.value], two.start_mark, two.end_mark)
        before = start(key)
        what = f"key {word(again)!r} is given in {before.file or self.file}:{before.line}, too"
        self.problem(start(again), what, "keep one of the two, or make it a parameter of the fragment")
        return two


def _items(value: yaml.Node) -> list[yaml.Node]:
    return list(value.value) if isinstance(value, yaml.SequenceNode) else [value]
