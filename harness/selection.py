"""Which cases a pytest command line chooses, asked of pytest itself before anything is fetched or booted for a case that will not run.

In: the arguments that the run will be given. Out: names of cases. Rule: pytest decides; whatever selects (-k, -m, --lf, FILE::CASE,
a plugin's option) counts here as it will count there. What else is wrong with the arguments is left for the run to say.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import pytest

WRONG_EXPRESSION = "ERROR: Wrong expression passed to"  # pytest's words
UNKNOWN_OPTION = "error: unrecognized arguments: "  # argparse's, in pytest's name


class WrongArguments(Exception):
    """What pytest cannot make anything of."""


class WrongExpression(WrongArguments):
    """What stands behind -k or -m; the message says where, and what would be right."""


class UnknownOption(WrongArguments):
    """An option that neither `run` nor pytest has."""


class _Listener:
    """Takes the names of what is left after every deselection."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Also called for errors of the collection, in an exception class of pytest's own."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = frozenset(item.name for item in session.items)


def selected(arguments: Sequence[str]) -> frozenset[str]:
    """Names of the tests that `pytest ARGUMENTS` would run; none when it would not even start. Raises KeyboardInterrupt,
    which pytest would keep to itself, and WrongExpression for an expression of -k or -m that is none: workers would not survive it.
    UnknownOption for what would be told in the name of a program that nobody called."""
    listener, said = _Listener(), io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        pytest.main([*arguments, "--collect-only", "-q"], plugins=[listener])
    if listener.interrupted:
        raise KeyboardInterrupt
    for line in said.getvalue().splitlines():
        if line.startswith(WRONG_EXPRESSION):
            raise WrongExpression(
                f"{line.removeprefix('ERROR: ')}\n  -> words joined by and, or, not and brackets: -k 'panic and not e1000'"
            )
        if UNKNOWN_OPTION in line:
            raise UnknownOption(
                f"{line.partition(UNKNOWN_OPTION)[2]}: neither `netpoll-harness run` nor pytest knows it\n"
                "  -> netpoll-harness run --help; pytest --help"
            )
    return listener.names
