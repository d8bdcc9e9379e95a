"""gdb as fetched: for testcases with a debugger, and the tests of the stub.

In: the recipe in images.recipes. Out: the words that run it. Rule: nothing of the host's steers it: its own C library, no start-up files, no
server that it asks for symbols.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.fetch import Builder
from images.process import argv_in_tree, run, tail
from images.recipes import GDB
from images.store import manifest_of
from images.userland import LIB

PROGRAM = "usr/bin/gdb"


@dataclass(frozen=True)
class Gdb:
    """gdb without Python. It reads no .gdbinit."""

    tree: Path
    version: str

    def argv(self) -> tuple[str, ...]:
        """The words that run it; append arguments."""
        return _argv(self.tree)


def ensure_gdb(builder: Builder) -> Gdb:
    """gdb, fetched when it is not in the cache yet. Raises ImageError."""
    path = builder.fetched(GDB, _finish)
    return Gdb(path / "tree", manifest_of(path)["version"])


def _argv(tree: Path) -> tuple[str, ...]:
    program = argv_in_tree(tree / LIB, tree / PROGRAM)
    return ("env", "-u", "DEBUGINFOD_URLS", *program, "-nx", "--data-directory", str(tree / "usr/share/gdb"))


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Runs it once: what does not run is no debugger."""
    done = run([*_argv(scratch / "tree"), "--version"])
    match = re.search(rb"GNU gdb .*?(\d[\d.]+)$", done.stdout, re.MULTILINE)
    if done.returncode or match is None:
        raise ImageError(f"gdb ended with {done.returncode}:\n{tail(done.stderr or done.stdout)}")
    return {"version": match[1].decode()}
