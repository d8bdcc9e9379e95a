"""The console script's first lines: `netpoll-harness` and `python -m harness`.

In: the command line. Out: the exit code of `harness.cli`. Rule: Ctrl-C is answered in words from the first moment to the last;
importing the harness takes a second, and a user may change his mind within it.
"""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130  # 128 + SIGINT, as a shell says it


def main() -> int:
    """Never raises for Ctrl-C."""
    try:
        from harness.cli import main as command

        return command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is the interpreter's end
        # CPython remembers a KeyboardInterrupt that left an exec() of text (dataclasses and pydantic make functions so), caught or
        # not, and under `python -m` ends by that signal instead of our exit code; the next exec() of text forgets it.
        exec("")


if __name__ == "__main__":
    sys.exit(main())
