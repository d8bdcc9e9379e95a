"""The matrix: which combinations of axis values a testcase has, and `${axis}` replaced by a value.

In: a `Document`. Out: one `Combination` (params and plain data) each. Rule: text inside a string stays text; a string that is
nothing but `${axis}` becomes the value itself, so `smp: ${smp}` can be a number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from harness.scenario.document import Document, Path
from harness.scenario.errors import suggest
from harness.scenario.nodes import NAME, USE

MAX_COMBINATIONS = 1000

_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # part of the case's name, and of its folder's

Axes = dict[str, list[str | int]]


@dataclass(frozen=True)
class Combination:
    """One value for each axis. `origin`: where a value that came whole from an axis was written in the matrix."""

    params: dict[str, str]
    data: dict[str, Any]
    origin: dict[Path, Path]


def expand(document: Document) -> list[Combination]:
    """All combinations, the last axis varying fastest. Problems go to `document`; axes with problems are left out."""
    body = {key: value for key, value in document.data.items() if key != "matrix"}
    axes = _axes(document)
    _check_uses(document, body, axes)
    if prod(map(len, axes.values())) > MAX_COMBINATIONS:
        at = document.place(("matrix",)).key
        what = f"the matrix has {prod(map(len, axes.values()))} combinations"
        document.problem(at, what, f"keep it under {MAX_COMBINATIONS}, in several testcases")
        return []
    indices = itertools.product(*(range(len(values)) for values in axes.values()))
    return [_combine(body, axes, dict(zip(axes, chosen, strict=True))) for chosen in indices]


def _combine(body: dict[str, Any], axes: Axes, chosen: dict[str, int]) -> Combination:
    values = {axis: axes[axis][index] for axis, index in chosen.items()}
    origin: dict[Path, Path] = {}

    def substitute(path: Path, text: str) -> Any:
        whole = USE.fullmatch(text)
        if whole and not whole[1] and whole[2] in values:
            origin[path] = ("matrix", whole[2], chosen[whole[2]])
            return values[whole[2]]
        return USE.sub(lambda use: use[0][1:] if use[1] else str(values.get(use[2], use[0])), text)

    data = {key: _map_strings((key,), value, substitute) for key, value in body.items()}
    return Combination({axis: str(value) for axis, value in values.items()}, data, origin)


def _map_strings(path: Path, value: Any, change: Callable[[Path, str], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _map_strings((*path, key), item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings((*path, index), item, change) for index, item in enumerate(value)]
    return change(path, value) if isinstance(value, str) else value


def _axes(document: Document) -> Axes:
    matrix = document.data.get("matrix", {})
    if not isinstance(matrix, dict):
        at = document.place(("matrix",)).value
        document.problem(at, "matrix is a mapping of axes to lists", "write e.g. `nic: [e1000, virtio-net]` under it")
        return {}
    return {axis: values for axis, listed in matrix.items() if (values := _axis(document, axis, listed))}


def _axis(document: Document, axis: str, listed: Any) -> list[str | int]:
    place = document.place(("matrix", axis))
    if not NAME.fullmatch(axis):
        document.problem(place.key, f"axis name {axis!r}", "use a-z, 0-9 and _, a letter first, at most 15")
        return []
    if not isinstance(listed, list) or not listed:
        document.problem(place.value, f"axis {axis!r} has no values", "give a list, e.g. [e1000, virtio-net]")
        return []
    good: list[str | int] = []
    for index, value in enumerate(listed):
        place = document.place(("matrix", axis, index))
        if trouble := _value_trouble(value, place.plain, good):
            document.problem(place.value, *trouble)
        else:
            good.append(value)
    return good if len(good) == len(listed) else []


def _value_trouble(value: Any, plain: str | None, before: list[str | int]) -> tuple[str, str] | None:
    if isinstance(value, bool | float):
        return f"YAML reads {plain} as {str(value).lower()}, and an axis value is text", f'write "{plain}"'
    if isinstance(value, dict | list):
        return "an axis value is a word or a whole number", "use several axes, or several testcases"
    if not _VALUE.fullmatch(str(value)):
        return f"axis value {value!r} cannot be part of a name", "use letters, digits, _ . + -, a letter or digit first"
    if str(value) in map(str, before):
        return f"axis value {value!r} is listed twice", "remove one"
    return None


def _uses(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    """Every `${axis}` in the values under `path`."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _uses((*path, key), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _uses((*path, index), item)
    elif isinstance(value, str):
        yield from ((path, use[2]) for use in USE.finditer(value) if not use[1])


def _check_uses(document: Document, body: dict[str, Any], axes: Axes) -> None:
    matrix = document.data.get("matrix")
    written = list(matrix) if isinstance(matrix, dict) else []  # an axis with bad values is known all the same
    used = set()
    unknown = False
    for path, axis in _uses((), body):
        used.add(axis)
        if axis not in written:
            unknown = True
            at = document.place(path).value
            remedy = suggest(axis, written, "axes") + " (a literal ${...} is written $${...})"
            document.problem(at, f"${{{axis}}} names no axis of the matrix", remedy)
    for axis in axes:
        if axis not in used and not unknown:  # it may be the one that was misspelt
            at = document.place(("matrix", axis)).key
            document.problem(at, f"axis {axis!r} changes nothing", f"use ${{{axis}}} somewhere, or remove the axis")


def unresolved(data: Any, path: Path) -> bool:
    """Whether the value at `path` still holds a `${axis}`: the axis was wrong and has been reported."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(data, str) and any(not use[1] for use in USE.finditer(data))
