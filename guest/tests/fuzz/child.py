"""The process that fuzzes: instruments what a target is made of, then hands itself to libFuzzer and never returns.

    python -m guest.tests.fuzz.child TARGET -FLAG=VALUE... CORPUS SEEDS

In: libFuzzer's own arguments. Out: libFuzzer's exit status and its report on stderr. The one rule: nothing of the target
may have been imported before, since only imports are instrumented. Dies with its parent.
"""

from __future__ import annotations

import ctypes
import importlib
import signal
import sys

from guest.tests.fuzz import table

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    name = argv[1]
    atheris = importlib.import_module("atheris")  # ships no types
    entry = table.entry(name)
    if entry.regex:
        atheris.enabled_hooks.add("RegEx")
    with atheris.instrument_imports(include=list(entry.instrument)):
        target = table.load(name)
    atheris.Setup([argv[0], *argv[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
