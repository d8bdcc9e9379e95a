"""Files -> Scenarios: the loader's two doors, one file or a tree of them.

In: paths of YAML files and folders, and the kernels that exist. Out: `Loaded` scenarios, one for each combination of a
matrix. Rule: either everything asked for is loaded, or ScenarioErrors holds every problem found in any of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from harness.scenario.checks import check, check_known_bugs
from harness.scenario.document import Document, Path, read_document
from harness.scenario.errors import Position, Problem, ScenarioErrors
from harness.scenario.fragment import SUFFIX as FRAGMENT
from harness.scenario.matrix import Combination, expand, unresolved
from harness.scenario.messages import Message, messages
from harness.scenario.model import Scenario
from harness.scenario.shape import shape_messages

SUFFIXES = (".yaml", ".yml")
ROOT = "testcases"  # a folder of this name is where names begin


@dataclass(frozen=True)
class Loaded:
    """A scenario and where it was written, as `file:line`; `includes`: the fragments that it takes parts from, with what it gave to
    their parameters; `expect`: where each expectation was written, as `file:line`."""

    scenario: Scenario
    source: str
    includes: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()


def load(path: FilePath, known_kernels: Collection[str] | None = None, root: FilePath | None = None) -> list[Scenario]:
    """All combinations of one file. `root`: the folder that names are relative to (default: one called testcases above the
    file, else the file's own). `known_kernels` None: kernels are not checked. Raises ScenarioErrors."""
    return [loaded.scenario for loaded in _load_file(path, known_kernels, root)]


def load_tree(paths: Sequence[FilePath], known_kernels: Collection[str] | None = None) -> list[Loaded]:
    """All testcases in these files and folders, folders in alphabetical order. Raises ScenarioErrors with every problem."""
    problems: list[Problem] = []
    found: list[Loaded] = []
    for file, root in _files(paths, problems):
        try:
            found.extend(_load_file(file, known_kernels, root))
        except ScenarioErrors as error:
            problems.extend(error.problems)
    problems.extend(_same_names(found))
    if problems:
        raise ScenarioErrors(problems)
    return found


def _files(paths: Iterable[FilePath], problems: list[Problem]) -> list[tuple[FilePath, FilePath | None]]:
    """Each YAML file once, with the folder it was found under."""
    files: dict[FilePath, tuple[FilePath, FilePath | None]] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_visible(file, path))
            if not inside:
                problems.append(Problem(str(path), Position(), "no testcase in this folder", "name files *.yaml"))
            for file in inside:
                files.setdefault(file.resolve(), (file, path))
        elif is_testcase(path):
            files.setdefault(path.resolve(), (path, None))
        else:
            what, remedy = "a fragment is no testcase", "name a testcase that includes it"
            problems.append(Problem(str(path), Position(), what, remedy))
    return list(files.values())


def is_testcase(file: FilePath) -> bool:
    """By its name: no fragment."""
    return not file.name.endswith(FRAGMENT)


def _is_visible(file: FilePath, root: FilePath) -> bool:
    """A testcase by its suffix; nothing hidden, such as an editor's copy or .git."""
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix in SUFFIXES and is_testcase(file) and not hidden and file.is_file()


def _same_names(found: Iterable[Loaded]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for loaded in found:
        name, file = loaded.scenario.name, loaded.source.rpartition(":")[0]
        other = first.setdefault(name, file)
        if other != file:
            problems.append(Problem(file, Position(1, 1), f"testcase {name!r} is in {other} too", "rename one of them"))
    return problems


def _load_file(file: FilePath, known_kernels: Collection[str] | None, root: FilePath | None) -> list[Loaded]:
    document = read_document(str(file), _read(file))
    name = _name(document, file, root)
    scenarios = []
    for combination in expand(document):
        scenario = _validate(document, combination, name)
        if scenario is not None:
            _report(document, combination, check(scenario, known_kernels))
            scenarios.append(scenario)
    if not document.problems:
        for message in check_known_bugs(scenarios, known_kernels):
            place = document.place(message.path)
            document.problem(place.key if message.on_key else place.value, message.what, message.remedy)
    if document.problems:
        raise ScenarioErrors(document.problems)
    source = f"{file}:{document.place(()).value.line}"
    includes = tuple(f"{path} ({', '.join(each.given) or 'as it is'})" for path, each in document.includes.items())
    return [Loaded(scenario, source, includes, tuple(_expectations(document, scenario))) for scenario in scenarios]


def _expectations(document: Document, scenario: Scenario) -> Iterable[str]:
    """Where each of them stands: in the file, or in a fragment."""
    for number in range(len(scenario.expect)):
        at = document.place(("expect", number)).value
        yield f"{at.file or document.file}:{at.line}"


def _read(file: FilePath) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        problem = Problem(
            str(file), Position(), f"cannot be read: {error.strerror}", "give a file or folder of testcases"
        )
        raise ScenarioErrors([problem]) from error


def _name(document: Document, file: FilePath, root: FilePath | None) -> str:
    """`folder/stem` below the root; a `name` given in the file must be the end of the file's path."""
    path = file.resolve().with_suffix("")
    base = next((above for above in path.parents if above.name == ROOT), (root or file.parent).resolve())
    default = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
    given = document.data.get("name", default)
    if isinstance(given, str) and not f"/{path.as_posix()}".endswith(f"/{given}"):
        at = document.place(("name",)).value
        document.problem(
            at, f"name {given!r} does not agree with the path of the file", f"write {default!r}, or leave it out"
        )
    return given if isinstance(given, str) else default


def _validate(document: Document, combination: Combination, name: str) -> Scenario | None:
    """The scenario of one combination, or None after its problems were put into `document`."""
    data: dict[str, Any] = {**combination.data, "name": name}
    shape = list(shape_messages(data))
    _report(document, combination, shape)
    try:
        scenario = Scenario.model_validate({**data, **_params(data, combination)})
    except ValidationError as error:
        wrong = [message.path for message in shape]
        found = messages(error, lambda path: document.place(path).plain)
        _report(document, combination, [m for m in found if not any(m.path[: len(p)] == p for p in wrong)])
        return None
    return None if shape else scenario


def _params(data: dict[str, Any], combination: Combination) -> dict[str, Any]:
    if "params" in data:  # the author's own: nothing to fill in, the problem was reported by its shape
        return {"params": {}}
    return {"params": combination.params}


def _report(document: Document, combination: Combination, found: Iterable[Message]) -> None:
    """Problems at their places; a value that came from the matrix is wrong where the matrix says it."""
    for message in found:
        if unresolved(combination.data, message.path):
            continue  # the axis itself was reported
        place = document.place(_origin(combination, message))
        if place.value in document.trapped and not message.on_key:
            continue  # its problem was found when it was read
        document.problem(place.key if message.on_key else place.value, message.what, message.remedy)


def _origin(combination: Combination, message: Message) -> Path:
    return message.path if message.on_key else combination.origin.get(message.path, message.path)
