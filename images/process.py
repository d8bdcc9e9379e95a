"""Helper processes (apt-get, dpkg-deb, tools out of fetched packages): started so that they die with us.

In: an argument list. Out: its output. Rule: no helper outlives the harness, also when that is killed: each asks the
kernel for SIGKILL when the thread that started it is gone (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def guarded(argv: Sequence[str | Path]) -> list[str]:
    """The argument list that runs `argv` and kills it when the thread that started it ends.

    setpriv(1) sets the death signal: Python's own hook between fork and exec may deadlock in a process with threads.
    """
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return [*prefix, *(os.fspath(word) for word in argv)]


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs to the end, whatever the exit status. Raises OSError (cannot be started) and TimeoutExpired."""
    return subprocess.run(
        guarded(argv),
        env=env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def tail(output: bytes, lines: int = 12) -> str:
    """The last lines of a helper's output, indented, for an error message."""
    text = output.decode(errors="replace").strip()
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def argv_in_tree(lib: Path, program: Path, name: str | None = None) -> tuple[str, ...]:
    """The words that run `program` of an extracted tree with that tree's own C library, on any host of this machine type.

    `lib` is the tree's multiarch library folder; `name` becomes argv[0] where a program goes by that (kmod).
    """
    argv = [str(lib / "ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path", f"{lib}:{lib}/pulseaudio"]
    return (*argv, *(["--argv0", name] if name else []), str(program))
