"""`--repeat`: each case so many times, and a figure that says whether any verdict differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.repetition import Flakes, case_of, flakes, name_of, number_of
from harness.tests.test_run_doors import call

RUNS: dict[str, tuple[list[tuple[str, str, bool]], Flakes]] = {
    "nothing": ([], Flakes(0, 0, 0, ())),
    "all the same": ([("a#1", "PASS", False), ("a#2", "PASS", False), ("b#1", "KNOWN_BUG", False), ("b#2", "KNOWN_BUG", False)], Flakes(4, 2, 0, ())),
    "one of three": (
        [("a[n=1]#1", "PASS", False), ("a[n=1]#2", "FAIL", False), ("a[n=1]#3", "PASS", False), ("b#1", "PASS", False)],
        Flakes(4, 2, 1, ("a[n=1]: 2 PASS, 1 FAIL",)),
    ),
    "what was not provoked once": ([("a#1", "PASS", False), ("a#2", "INCONCLUSIVE", False)], Flakes(2, 1, 1, ("a: 1 PASS, 1 INCONCLUSIVE",))),
    "two cases": ([("a", "PASS", False), ("a", "ERROR", False), ("b", "FAIL", False), ("b", "PASS", False)], Flakes(4, 2, 2, ("a: 1 PASS, 1 ERROR", "b: 1 FAIL, 1 PASS"))),
    "a bug of chance came and went": ([("a#1", "PASS", True), ("a#2", "KNOWN_BUG", True), ("a#3", "PASS", True)], Flakes(3, 1, 0, ())),
    "a bug of chance, and another": (
        [("a#1", "PASS", True), ("a#2", "KNOWN_BUG", True), ("a#3", "FAIL", True)],
        Flakes(3, 1, 1, ("a: 2 PASS or KNOWN_BUG, 1 FAIL",)),
    ),
    "a bug that always comes did not": ([("a#1", "KNOWN_BUG", False), ("a#2", "PASS", False)], Flakes(2, 1, 1, ("a: 1 KNOWN_BUG, 1 PASS",))),
}  # fmt: skip


@pytest.mark.parametrize(("runs", "found"), RUNS.values(), ids=RUNS)
def test_what_differs_is_counted_and_named(runs: list[tuple[str, str, bool]], found: Flakes) -> None:
    assert flakes(runs) == found


def test_the_figure_in_words() -> None:
    assert str(flakes([("a#1", "PASS", False), ("a#2", "PASS", False)])) == "2 verdicts of 1 cases, 0 differ"


def test_names() -> None:
    assert [name_of("a[n=1]", 3, 20), name_of("a[n=1]", 1, 1)] == ["a[n=1]#3", "a[n=1]"]
    assert [case_of("a[n=1]#12"), number_of("a[n=1]#12"), number_of("a[n=1]")] == ["a[n=1]", 12, 0]


STEADY = """\
about: a guest is asked to say true
guest:
  nics:
    n0: {model: virtio-net}
steps:
  - run: {argv: ["true"]}
  - machine: {do: pause}
  - machine: {do: resume}
expect:
  - event: {name: STOP}
"""


@pytest.mark.guest
def test_a_case_that_is_run_three_times_has_three_verdicts(tmp_path: Path) -> None:
    (tmp_path / "steady.yaml").write_text(STEADY)
    done = call("run", tmp_path / "steady.yaml", "--repeat", "3", "--results", tmp_path / "r")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 verdicts of 1 cases, 0 differ" in done.stdout
    assert len(list((tmp_path / "r").glob("*/verdict.json"))) == 3


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steady.yaml").write_text(STEADY)
    done = call("run", tmp_path / "steady.yaml", "--repeat", "0", "--results", tmp_path / "r")
    assert done.returncode == 2
    assert "--repeat" in done.stderr
