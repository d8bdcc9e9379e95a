"""Cases on another machine (xdist's `--tx ssh=...`): their evidence comes back to the one folder of the run.

In: on the worker the folder of a case that has ended; on the controller the report that carries it. Out: the same folder below the
run's results, and reports that name it there. Rule: what comes from another machine is files with plain names, nothing else; the
worker keeps nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Mapping
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

FILES, PLACE = "netpoll_files", "netpoll_place"  # keys of a report on its way
Data = dict[str, Any]


class Sender:
    """On the worker: the last report of a case takes its folder along, every report says where that was."""

    def __init__(self, results: Path) -> None:
        self._results = results

    @pytest.hookimpl(wrapper=True)
    def pytest_report_to_serializable(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> Generator[None, Data | None, Data | None]:
        data = yield
        evidence = dict(getattr(report, "user_properties", ())).get("evidence")
        if data is None or evidence is None:
            return data
        data[PLACE] = str(self._results)
        if report.when == "teardown":
            data[FILES] = {Path(str(evidence)).name: packed(Path(str(evidence)))}
        return data

    def pytest_unconfigure(self) -> None:
        rmtree(self._results, ignore_errors=True)


class Receiver:
    """On the controller."""

    def __init__(self, results: Path) -> None:
        self._results = results

    @pytest.hookimpl(wrapper=True)
    def pytest_report_from_serializable(
        self, data: Data
    ) -> Generator[
        None, pytest.TestReport | pytest.CollectReport | None, pytest.TestReport | pytest.CollectReport | None
    ]:
        place = data.pop(PLACE, None)
        for name, files in data.pop(FILES, {}).items():
            unpack(self._results, name, files)
        if place is not None:
            data["user_properties"] = [(key, self._here(value, place)) for key, value in data["user_properties"]]
            data["longrepr"] = self._here(data["longrepr"], place)
        return (yield)

    def _here(self, text: Any, place: str) -> Any:
        """The folder's name on this machine instead of the other's."""
        return text.replace(place, str(self._results)) if isinstance(text, str) else text


def packed(folder: Path) -> dict[str, bytes]:
    """Every file of a case, by its name."""
    return {path.name: zlib.compress(path.read_bytes(), 1) for path in sorted(folder.iterdir()) if path.is_file()}


def unpack(results: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A case's folder below `results`. Raises ValueError for a name that is more than a name."""
    folder = results / plain(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / plain(file)).write_bytes(zlib.decompress(content))
    return folder


def plain(name: str) -> str:
    """The name, unless it would lead out of its folder: ValueError then."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"another machine sent a file named {name!r}")
    return name


def elsewhere(rest: list[str]) -> bool:
    """Whether all of pytest's workers are on other machines, so that nothing has to be prepared here."""
    specs = [after for word, after in pairwise(rest) if word == "--tx"]
    specs += [word.removeprefix("--tx=") for word in rest if word.startswith("--tx=")]
    return bool(specs) and all("ssh=" in spec or "socket=" in spec for spec in specs)


def spread(named: list[str], rest: list[str]) -> tuple[list[str], list[str]]:
    """The testcases and options that xdist needs to bring the testcases to another machine: absolute paths, and the folders that
    hold them (the one called testcases, from which cases have their names, where there is one)."""
    if not any(word == "--tx" or word.startswith("--tx=") for word in rest):
        return named, []
    there = [(str(Path(path).absolute()), mark + case) for path, mark, case in (each.partition("::") for each in named)]
    roots = {str(_root(Path(path))) for path, _ in there}
    dist = [] if any(word == "--dist" or word.startswith("--dist=") for word in rest) else ["--dist", "load"]
    return [path + case for path, case in there], [
        *dist,
        *(word for root in sorted(roots) for word in ("--rsyncdir", root)),
    ]


def _root(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    return next((each for each in (folder, *folder.parents) if each.name == "testcases"), folder)
