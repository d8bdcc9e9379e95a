"""A builder in a process of its own, for tests that kill it: stops at a named point of Store.build and says so.

Usage: python -m images.tests.crashing_builder ROOT POINT. It writes POINT to stdout when there, then waits for a byte
on stdin (the end of input counts) and goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from images.store import Store

POINTS = ("begun", "half", "filled", "synced", "renamed", "pointing", "done")
NAME, KEY = "toy-0123", "toy"
FILES = {f"folder/{number}": bytes([number]) * 5000 for number in range(40)}


def main(root: Path, stop_at: str) -> None:
    """Builds the object NAME and points KEY to it."""

    def reached(point: str) -> None:
        if point == stop_at:
            print(point, flush=True)
            sys.stdin.read(1)

    def fill(scratch: Path) -> Mapping[str, Any]:
        reached("begun")
        (scratch / "folder").mkdir()
        for number, (path, data) in enumerate(FILES.items()):
            (scratch / path).write_bytes(data)
            if number == len(FILES) // 2:
                reached("half")
        reached("filled")
        return {"kind": "toy", "digest": "0123", "built": "", "size": 1, "packages": {}}

    rename, replace = os.rename, os.replace

    def slow_rename(source: Path, target: Path) -> None:
        reached("synced")
        rename(source, target)
        reached("renamed")

    def slow_replace(source: Path, target: Path) -> None:
        reached("pointing")
        replace(source, target)

    store = Store(root)
    steps = (mock.patch.object(os, "rename", slow_rename), mock.patch.object(os, "replace", slow_replace))
    with steps[0], steps[1], store.lock(KEY):
        if store.current(KEY) is None:
            if store.find(NAME) is None:
                store.build(lambda _: NAME, fill)
            store.point(KEY, NAME)
    reached("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
