"""The guest's userland, unpacked: programs for the guest's root, and the tools that images are made with on the host.

In: the recipe. Out: a tree with Python's library precompiled by its own interpreter. Rule: a program of the tree is run
with the tree's own C library, never the host's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import CacheUnusable, ImageError
from images.fetch import Builder
from images.process import argv_in_tree, run, tail
from images.recipes import USERLAND
from images.store import manifest_of

LIB = "usr/lib/x86_64-linux-gnu"
# Parts of Python's library that no guest needs; also kept from being compiled.
PYTHON_DROPPED = re.compile(
    r"/(test|tests|idlelib|lib2to3|ensurepip|distutils|tkinter|turtledemo|pydoc_data|unittest|sqlite3|curses|dbm|wsgiref"
    r"|msilib|config-[^/]*)/|/(turtle|pydoc|doctest|pickletools|sitecustomize)\.py$"
)


@dataclass(frozen=True)
class Userland:
    """An unpacked userland."""

    tree: Path
    python: str  # python3.11
    digest: str
    packages: Mapping[str, str]

    def argv(self, program: str, name: str | None = None) -> tuple[str, ...]:
        """The words that run a program of the tree on the host; `program` is a path below the tree."""
        return argv_in_tree(self.tree / LIB, self.tree / program, name)

    def tool(
        self, program: str, *words: str, name: str | None = None, stdin: bytes = b"", cwd: Path | None = None
    ) -> bytes:
        """Runs a program of the tree and returns what it printed. Raises ImageError when it fails."""
        done = run(
            [*self.argv(program, name), *words], stdin=stdin, cwd=cwd, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        )
        if done.returncode:
            command = " ".join([name or program, *words])
            raise ImageError(f"`{command}` ended with {done.returncode}:\n{tail(done.stderr or done.stdout)}")
        return done.stdout

    def unpack(self, tool: str, packed: bytes) -> bytes:
        """Decompresses with `zstd` or `lz4` of the tree. Raises ValueError."""
        done = run([*self.argv(f"usr/bin/{tool}"), "-d", "-c", "-q"], stdin=packed)
        if done.returncode:
            raise ValueError(tail(done.stderr))
        return done.stdout

    def compile(self, folder: Path, prefix: str, dropped: str = r"(?!)") -> None:
        """Compiles Python files below `folder` for the guest, where that folder will be called `prefix`.

        The .pyc files say that they need no check against their source, which costs a guest time and cannot differ.
        One process only: then the same sources give the same bytes. -B and -f: the compiler must not find, and keep,
        files that importing its own modules left behind; they would be checked by time, and be out of date in the guest.
        """
        options = ["-q", "-f", "-x", dropped, "-s", str(folder), "-p", prefix]
        words = ["-I", "-B", "-m", "compileall", "--invalidation-mode", "unchecked-hash", *options, str(folder)]
        self.tool(f"usr/bin/{self.python}", *words)


def ensure_userland(builder: Builder) -> Userland:
    """The userland. Raises ImageError."""
    path = builder.fetched(USERLAND, _finish)
    manifest = manifest_of(path)
    return Userland(path / "tree", manifest["python"], manifest["digest"], manifest["packages"])


def _finish(scratch: Path) -> Mapping[str, Any]:
    """Finds the Python version and compiles its library, which Debian does on installation."""
    tree = scratch / "tree"
    found = [path.name for path in (tree / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)]
    if len(found) != 1:
        raise CacheUnusable(f"the userland holds {len(found)} Pythons: {found}", "its recipe does not fit this suite")
    userland = Userland(tree, found[0], "", {})
    userland.compile(tree / "usr/lib" / found[0], f"/usr/lib/{found[0]}", PYTHON_DROPPED.pattern)
    return {"python": found[0]}
