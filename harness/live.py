"""The terminal while cases run: a line for each that is running, and counts. Without a terminal: a line for each case that ended.

In: pytest's hooks on the process that reports, and the results folder. Out: lines. Rule: what stays on the screen is worth reading
afterwards: failures and the table at the end; a running case's line goes when it does. `-q` leaves all to pytest; `-v` shows QMP's and the
agent's talk as it comes; NO_COLOR and dumb terminals get no colour.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.report.page import STYLES, clean
from harness.report.running import Watch

PER_SECOND = 4  # looks at the folders
SUFFIXES = (".yaml::", ".yml::")


class Progress:
    """A pytest plugin. `start` is called once before a thread is started here, since forking wants none."""

    def __init__(self, reporter: Any, results: Path, verbosity: int, start: Callable[[], None]) -> None:
        self._reporter, self._results, self._verbosity, self._start = reporter, results, verbosity, start
        self._counts: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}  # of each case, by its pytest name
        self._file = os.fdopen(
            os.dup(reporter._tw._file.fileno()), "w"
        )  # the terminal itself: pytest captures what it calls so
        self._watch: Watch | None = None
        self._live: Live | None = None
        self._over = threading.Event()
        self._talking = threading.Lock()
        self._talker: threading.Thread | None = None

    @property
    def plain(self) -> bool:
        """Were cases told in lines of ours that stay?"""
        return self._watch is not None and self._live is None and self._verbosity == 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._watch is None and any(suffix in nodeid for suffix in SUFFIXES):
            self._start()
            self._reporter.showfspath = False
            self._begin(Watch(self._results))

    def _begin(self, watch: Watch) -> None:
        self._watch = watch
        if self._verbosity > 0:
            self._talker = threading.Thread(target=self._talk, name="talk", daemon=True)
            self._talker.start()
        elif _is_terminal(self._reporter):
            console = Console(file=self._file, highlight=False, markup=False, emoji=False)
            self._live = Live(
                get_renderable=self._drawn, console=console, refresh_per_second=PER_SECOND, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: Any) -> Generator[None, Any, Any]:
        """Our line says it: no letter for a case while cases run."""
        told = yield
        quiet = self._verbosity == 0 and not self._over.is_set() and _verdict(report)
        return (told[0], "", "") if quiet else told

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        self._seconds.setdefault(report.nodeid, report.duration)  # a case is run at its set-up
        over = report.when == "call" or (report.when == "setup" and not report.passed)
        told = _verdict(report)
        if self._talker is not None:
            self._talked()  # all of it, before pytest says how it went
        if over and told:
            word, why = told
            self._counts[word] += 1
            seconds = dict(report.user_properties).get("seconds", self._seconds[report.nodeid])
            self._say(word, report.nodeid.rpartition("::")[2], why, float(seconds))

    def _say(self, word: str, case: str, why: str, seconds: float) -> None:
        """What passed goes by without a line on a terminal; the table at the end has it."""
        told = "" if word == "PASS" else f"  {clean(why)}"
        line = f"{word:5} {seconds:6.2f} s  {case}{told}"
        if self._live is not None:
            if word != "PASS":
                self._live.console.print(Text(word, STYLES.get(word, "")).append(line[len(word) :], "default"))
        elif self._verbosity == 0:
            self._reporter.ensure_newline()
            self._reporter.write_line(line)

    def _drawn(self) -> RenderableType:
        assert self._watch is not None
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
        for width in (None, 44, 40, None):
            table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
        for each in self._watch.look():
            seconds = f"{time.monotonic() - each.since:5.1f} s"
            waits = f"waits for {clean(each.waits)}" if each.waits else ""
            table.add_row(seconds, Text(each.case), Text(clean(each.step)), Text(waits, "dim"))
        return Group(table, Text(self._counted(), "dim"))

    def _counted(self) -> str:
        total = getattr(self._reporter._session, "testscollected", 0) if self._reporter._session else 0
        words = ", ".join(f"{self._counts[word]} {word}" for word in STYLES if self._counts[word])
        return f"{sum(self._counts.values())} of {total or '?'} cases over{': ' if words else ''}{words}"

    def _talk(self) -> None:
        assert self._watch is not None
        while not self._over.wait(1 / PER_SECOND):
            self._talked()

    def _talked(self) -> None:
        assert self._watch is not None
        with self._talking:
            for line in self._watch.talk():
                self._file.write(clean(line) + "\n")
            self._file.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()
        if self._talker is not None:
            self._talker.join()
            self._talked()
        self._file.close()


def _verdict(report: Any) -> tuple[str, str] | None:
    """Word and reason, of a report that carries a verdict."""
    properties = dict(getattr(report, "user_properties", ()))
    return (properties["verdict"], properties["why"]) if "verdict" in properties else None


def _is_terminal(reporter: Any) -> bool:
    return bool(reporter.isatty) and os.environ.get("TERM", "") not in ("", "dumb")
