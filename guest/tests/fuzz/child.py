"""The process that fuzzes: instruments what a target is made of, then hands itself to libFuzzer and never returns.

    python -m guest.tests.fuzz.child TARGET SECONDS -FLAG=VALUE... CORPUS SEEDS

In: libFuzzer's own arguments but for the time. Out: libFuzzer's exit status and its report on stderr. The one rule:
nothing of the target may have been imported before, since only imports are instrumented. Dies with its parent.

The seconds are for new inputs. libFuzzer counts those for the seeds, too, which on a busy machine may be all there are;
so the seeds are timed first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import signal
import sys
import time
from pathlib import Path

from guest.tests.fuzz import table
from guest.tests.fuzz.replay import replay
from guest.tests.fuzz.table import Target

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    began = time.monotonic()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    name, seconds, *flags = argv[1:]
    atheris = importlib.import_module("atheris")  # ships no types
    entry = table.entry(name)
    if entry.regex:
        atheris.enabled_hooks.add("RegEx")
    with atheris.instrument_imports(include=list(entry.instrument)):
        target = table.load(name)
    for_seeds = _seconds_for(target, Path(flags[-1]))
    total = math.ceil(time.monotonic() - began + for_seeds + int(seconds))
    atheris.Setup([argv[0], f"-max_total_time={total}", *flags], target.run)
    atheris.Fuzz()


def _seconds_for(target: Target, folder: Path) -> float:
    """What running the seeds takes, up to one that fails, which is left to libFuzzer to report."""
    began = time.monotonic()
    with contextlib.suppress(Exception):
        for path in folder.iterdir():
            replay(target, path.read_bytes())
    return time.monotonic() - began


if __name__ == "__main__":
    main(sys.argv)
