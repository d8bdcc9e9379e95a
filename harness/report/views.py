"""The views of a run's cases, made by as many processes as there are processors: most of a report's time goes into reading evidence.

In: case folders. Out: a CaseView each, in their order. Rule: what a helping process does not bring is made here, so it can fail in any
way without a report that lacks a case.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from harness.report.view import CaseView, view

ENOUGH = 20  # cases that are worth a process, which has to import us first
Told = Callable[[int, int], None]
Helper = subprocess.Popen[bytes]


def views(folders: Sequence[Path], root: Path, told: Told = lambda _done, _all: None) -> list[CaseView]:
    """Of cases below `root`, where the report will stand. `told`: how many of how many have been read."""
    shares = max(1, min(len(os.sched_getaffinity(0)), len(folders) // ENOUGH))
    helpers = [_start(folders[number::shares], root) for number in range(1, shares)]
    try:
        made: dict[Path, CaseView] = {}
        for number, folder in enumerate(folders[::shares], 1):
            made[folder] = view(folder, root)
            told(min(number * shares, len(folders)), len(folders))
        for number, helper in enumerate(helpers, 1):
            made |= zip(folders[number::shares], _brought(helper), strict=False)
    finally:
        for helper in helpers:
            _end(helper)
    return [made[folder] if folder in made else view(folder, root) for folder in folders]


def _start(folders: Sequence[Path], root: Path) -> Helper:
    ours = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join((ours, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))))
    helper = subprocess.Popen(
        [sys.executable, "-m", "harness.report.views"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path},
    )
    assert helper.stdin is not None
    with suppress(OSError):  # it has ended
        helper.stdin.write(json.dumps([str(root.absolute()), *(str(each.absolute()) for each in folders)]).encode())
        helper.stdin.close()
    return helper


def _brought(helper: Helper) -> list[CaseView]:
    """Of a process that runs this very code as this very user."""
    assert helper.stdout is not None
    try:
        brought = pickle.loads(helper.stdout.read())
    except (OSError, EOFError, pickle.UnpicklingError):
        return []
    return brought if isinstance(brought, list) else []


def _end(helper: Helper) -> None:
    helper.kill()
    helper.wait()
    for pipe in (helper.stdin, helper.stdout):
        if pipe is not None:
            pipe.close()


def main() -> int:
    root, *folders = (Path(word) for word in json.load(sys.stdin))
    sys.stdout.buffer.write(pickle.dumps([view(folder, root) for folder in folders]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
