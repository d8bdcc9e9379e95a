"""pytest's door: a testcase file is a module, each combination of its matrix a test.

In: `pytest testcases/` or `netpoll-harness run`, which is the same with images prepared first. Out: pytest's own words: PASS passed,
FAIL failed, INCONCLUSIVE skipped (failed with --inconclusive-fails), ERROR an error at set-up, a known bug xfailed. Rule: the plugin decides
nothing; it asks harness.run and translates.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import images
from harness.away import Receiver, Sender
from harness.judge.model import Verdict
from harness.live import Progress
from harness.plan import weight
from harness.plan.model import Plan
from harness.repetition import flakes, name_of, number_of, times
from harness.report import facts, html, store, terminal
from harness.report.github import workflow_commands
from harness.run import Bench, Options, load, results_folder
from harness.scenario.errors import ScenarioErrors
from harness.scenario.load import SUFFIXES, is_testcase
from harness.scenario.model import MARKS
from harness.testbed.errors import TestbedError
from harness.workers import Workers, auto

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
BENCH: pytest.StashKey[Bench] = pytest.StashKey()
PROGRESS = "netpoll-harness-progress"  # name of a plugin
VERDICTS: pytest.StashKey[list[tuple[Verdict, Path]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("netpoll-harness")
    group.addoption("--results", type=Path, help="folder for evidence (default: runs/<UTC time>)")
    group.addoption("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="accelerator (default: probe)")
    group.addoption("--wires", choices=["auto", "tap", "dgram"], default="auto", help="what joins guest and host")
    group.addoption("--qemu", type=Path, help="another qemu-system-x86_64 than the image's own")
    group.addoption("--kernel", help="run every case on this kernel instead of the testcase's")
    group.addoption("--modules", type=Path, help="modules of --kernel")
    group.addoption("--nic", metavar="MODEL", help="run every case on NICs of this model")
    group.addoption("--fresh", action="store_true", help="restore every machine, copy none that is warm")
    group.addoption("--mirror", default="", help="Debian mirror to fetch images from")
    group.addoption(
        "--repeat", type=times, default=1, metavar="N", help="run each case N times, and say how many verdicts differ"
    )
    group.addoption("--inconclusive-fails", action="store_true", help="an inconclusive case fails")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every case once, then every case again: what one leaves behind meets all others. Side by side the long ones begin first, so that
    none of them is alone at the end; one after the other they come as the files do."""
    spread = hasattr(config, "workerinput")
    items.sort(key=lambda item: item.place(spread) if isinstance(item, CaseItem) else (0, 0.0))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OPTIONS] = _options(config)
    config.stash[VERDICTS] = []
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Workers(config.stash[OPTIONS]), "netpoll-harness-workers")
        config.pluginmanager.register(Receiver(config.stash[OPTIONS].results), "netpoll-harness-receiver")
    elif _is_away(config):
        config.pluginmanager.register(Sender(config.stash[OPTIONS].results), "netpoll-harness-sender")


def _is_away(config: pytest.Config) -> bool:
    return bool(getattr(config, "workerinput", {}).get("netpoll_away"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """The process that reports follows the cases, wherever they run."""
    config = session.config
    reporter = config.pluginmanager.getplugin("terminalreporter")
    verbosity = config.get_verbosity()
    if reporter is None or hasattr(config, "workerinput") or verbosity < 0 or config.getoption("capture") == "no":
        return
    alone = not (getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None))
    start = (lambda: bench_of(config).start()) if alone else (lambda: None)
    progress = Progress(reporter, config.stash[OPTIONS].results, verbosity, start)
    config.pluginmanager.register(progress, PROGRESS)


def _options(config: pytest.Config) -> Options:
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    chosen = worker.get("netpoll_results") or config.getoption("--results")
    if _is_away(config):
        chosen = tempfile.mkdtemp(prefix="netpoll-harness-away-")
    accel = config.getoption("--accel")
    return Options(
        results=results_folder(Path(chosen) if chosen else None),
        accel=None if accel == "auto" else accel,
        qemu=config.getoption("--qemu"),
        kernel=config.getoption("--kernel"),
        modules=config.getoption("--modules"),
        nic=config.getoption("--nic"),
        originals=worker.get("netpoll_originals"),
        fresh=config.getoption("--fresh"),
        mirror=config.getoption("--mirror"),
        wires=None if (chosen_wires := config.getoption("--wires")) == "auto" else chosen_wires,
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """xdist asks before anything is configured."""
    return auto(config.args, _options(config))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A YAML file below a folder called `testcases`, or one that was named on the command line."""
    if file_path.suffix not in SUFFIXES:
        return None
    named = any(Path(argument.split("::")[0]).absolute() == file_path for argument in parent.config.args)
    if named or ("testcases" in file_path.parts and is_testcase(file_path)):
        return TestcaseFile.from_parent(parent, path=file_path)
    return None


class TestcaseFile(pytest.File):
    """One YAML file."""

    __test__ = False

    def collect(self) -> Iterable[pytest.Item]:
        try:
            plans = load([self.path], self.config.stash[OPTIONS])
        except ScenarioErrors as errors:
            raise self.CollectError(str(errors)) from errors
        most: int = self.config.getoption("--repeat")
        numbers = range(1, most + 1)
        return [CaseItem.from_parent(self, name=name_of(p.case, n, most), plan=p) for n in numbers for p in plans]


class CaseFailed(Exception):
    """A verdict that is not what the testcase hoped for; carries it for the report."""

    def __init__(self, verdict: Verdict, folder: Path, plan: Plan) -> None:
        super().__init__(verdict.why)
        self.verdict, self.folder, self.plan = verdict, folder, plan


class CaseItem(pytest.Item):
    """One case. It is run at set-up, since a testbed that fails is an error and not a failure; judged in the call."""

    def __init__(self, *, plan: Plan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._plan = plan
        self._outcome: tuple[Verdict, Path] | None = None
        for mark in plan.scenario.marks:
            self.add_marker(mark)

    def place(self, spread: bool) -> tuple[int, float]:
        """Which repetition it is; and the more it weighs the less, where cases are spread over workers."""
        return number_of(self.name), -weight.seconds(self._plan) if spread else 0.0

    def setup(self) -> None:
        bench = bench_of(self.config)
        verdict, folder = bench.run(self._plan)
        self._outcome = verdict, folder
        self.config.stash[VERDICTS].append((verdict, folder))
        self.user_properties += [("verdict", verdict.word), ("why", verdict.why), ("evidence", str(folder))]
        self.user_properties += [("place", terminal.place_of(verdict, self._plan)), ("by_chance", verdict.by_chance)]
        if verdict.word == "ERROR":
            raise CaseFailed(verdict, folder, self._plan)

    def runtest(self) -> None:
        assert self._outcome is not None
        verdict, folder = self._outcome
        if verdict.word == "KNOWN_BUG":
            pytest.xfail(f"known bug: {verdict.known_bug}")
        if verdict.word == "INCONCLUSIVE" and not self.config.getoption("--inconclusive-fails"):
            pytest.skip(f"inconclusive: {verdict.why}")
        if verdict.word != "PASS":
            raise CaseFailed(verdict, folder, self._plan)

    def _repr_failure_py(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What pytest calls for set-up and call alike: words for what a reader can mend, a traceback for our own defects."""
        error = excinfo.value
        if isinstance(error, CaseFailed):
            return terminal.explain_failure(error.verdict, error.folder, error.plan)
        if isinstance(error, TestbedError | images.ImageError | RuntimeError):
            return str(error)
        return super()._repr_failure_py(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


def bench_of(config: pytest.Config) -> Bench:
    """The one of this process, made when it is first asked for and closed with the session."""
    if BENCH not in config.stash:
        reporter = config.pluginmanager.getplugin("terminalreporter")

        def say(text: str) -> None:
            if reporter is not None:
                reporter.ensure_newline()
                reporter.write_line(text)

        config.stash[BENCH] = Bench(config.stash[OPTIONS], say)
    return config.stash[BENCH]


def pytest_unconfigure(config: pytest.Config) -> None:
    if BENCH in config.stash:
        config.stash[BENCH].close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Every verdict in one line, however the cases were spread over workers."""
    rows = list(_rows(terminalreporter))
    if rows:
        terminalreporter.section("netpoll harness")
        for line in terminal.summary(rows, told=_lines_were_written(config)):
            terminalreporter.write_line(line)
        for line in _annotations(terminalreporter) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
            terminalreporter.write_line(line)
        if config.getoption("--repeat") > 1:
            told = [(nodeid.rpartition("::")[2], each) for nodeid, each, _ in _told(terminalreporter)]
            found = flakes((case, each["verdict"], bool(each.get("by_chance"))) for case, each in told)
            for line in (*found.lines, str(found)):
                terminalreporter.write_line(line)
        results = config.stash[OPTIONS].results
        terminalreporter.write_line(f"evidence: {results}")
        terminalreporter.write_line(_report(results, config))


def _lines_were_written(config: pytest.Config) -> bool:
    """A line a case, as where there is no terminal to redraw."""
    progress = config.pluginmanager.getplugin(PROGRESS)
    return progress is not None and progress.plain


def _report(results: Path, config: pytest.Config) -> str:
    """Write the run's page; a run whose page cannot be written is still a run."""
    try:
        store.write_run(results, facts.facts(["run", *config.invocation_params.args]))
        return f"report: {html.write(results)}"
    except store.StoreError as error:
        return f"no report: {error}"
    except Exception as error:  # a defect of the page must not become a defect of the run
        return f"no report: {type(error).__name__}: {error}; a defect of the harness, `netpoll-harness report {results}` shows where"


def _annotations(reporter: Any) -> Iterator[str]:
    """For GitHub, which shows them beside the testcases."""
    return workflow_commands(
        (told.get("place") or nodeid.partition("::")[0], nodeid.rpartition("::")[2], told["verdict"], told["why"])
        for nodeid, told, _ in _told(reporter)
    )


def _rows(reporter: Any) -> Iterator[tuple[str, str, str, float]]:
    """(case, verdict, why, seconds) of every case."""
    for nodeid, told, seconds in _told(reporter):
        yield nodeid.rpartition("::")[2], told["verdict"], told["why"], told.get("seconds", seconds)


def _told(reporter: Any) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(pytest's name, properties, seconds) of every report that carries a verdict, each case once."""
    seen: set[str] = set()
    for reports in list(reporter.stats.values()):
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))
            if "verdict" in properties and report.nodeid not in seen:
                seen.add(report.nodeid)
                yield report.nodeid, properties, report.duration
