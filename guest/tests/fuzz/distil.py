"""Which inputs of a grown corpus are worth keeping in the repository: few, small, each reaching something new.

In: a target and a folder of inputs. Out: those that go from one line to another where no seed has gone before, the
smallest first, within BUDGET. The one rule: what is kept is measured by line arcs of the interpreter and not by the
fuzzer's own counters, so that it means the same with every fuzzer.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from guest.tests.fuzz import table
from guest.tests.fuzz.table import SEEDS, Target

BUDGET = 20_000  # octets of kept inputs of one target
LARGEST = 2_000  # of one input

Arc = tuple[str, int, int]


def keep(name: str, corpus: Path) -> int:
    """Copy what is worth it from `corpus` to the kept seeds; returns how many."""
    target = table.load(name)
    old = [data for _, data in table.kept(name)]
    candidates = [path.read_bytes() for path in corpus.iterdir()]
    room = BUDGET - sum(map(len, old))
    chosen = choose(target, [*target.encoded(), *old], candidates, table.entry(name).instrument, room)
    for data in chosen:
        folder = SEEDS / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    return len(chosen)


def choose(
    target: Target, known: Iterable[bytes], candidates: Iterable[bytes], packages: tuple[str, ...], room: int
) -> list[bytes]:
    """Of the candidates those that reach what neither `known` nor a smaller one does; at most `room` octets in all."""
    reached = arcs(target, known, packages)
    chosen: list[bytes] = []
    for data in sorted(candidates, key=lambda data: (len(data), data)):
        fresh = arcs(target, [data], packages) - reached if len(data) <= min(LARGEST, room) else set()
        if fresh:
            reached |= fresh
            room -= len(data)
            chosen.append(data)
    return chosen


def arcs(target: Target, inputs: Iterable[bytes], packages: tuple[str, ...]) -> set[Arc]:
    """(file, line before, line) of every step inside `packages` that the inputs take."""
    tracer = _Tracer(packages)
    before = sys.gettrace()
    for data in inputs:
        sys.settrace(tracer.call)
        try:
            target.run(data)
        finally:
            sys.settrace(before)
    return tracer.found


class _Tracer:
    def __init__(self, packages: tuple[str, ...]) -> None:
        self.found: set[Arc] = set()
        self._packages = packages
        self._last: dict[int, int] = {}  # id of frame -> line

    def call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        module = str(frame.f_globals.get("__name__", ""))
        if not any(module == package or module.startswith(package + ".") for package in self._packages):
            return None
        self._last[id(frame)] = 0
        return self.line

    def line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line":
            self.found.add((frame.f_code.co_filename, self._last.get(id(frame), 0), frame.f_lineno))
            self._last[id(frame)] = frame.f_lineno
        elif event == "return":
            self._last.pop(id(frame), None)
        return self.line
