"""`bench netdump`: what its figures say, and that it can be run."""

from __future__ import annotations

import pytest

from harness.bench import netdump

FIGURES = {
    "stream": [1.0, 2.0, 1.0],
    "dump": [1.5, 3.0, 9.0],
    "dump through the middleware": [2.0, 2.0, 2.0],
    "dump, 1 % lost": [2.2, 2.2, 5.0],
}


def test_a_ratio_is_that_of_neighbours() -> None:
    assert netdump.ratio_of([1.5, 3.0, 9.0], [1.0, 2.0, 1.0]) == 1.5


def test_table_and_verdict() -> None:
    result = {"mib": 32, "seconds": FIGURES}
    lines = netdump.table(result)
    assert [line.split("  ")[0] for line in lines] == list(FIGURES)
    assert lines[1].endswith("1.50 times stream (goal 2: met)")
    assert lines[3].endswith("1.10 times dump through the middleware (goal 1.2: met)")
    assert netdump.met(result)


@pytest.mark.parametrize("what", netdump.GOALS)
def test_a_goal_that_is_missed(what: str) -> None:
    result = {"mib": 32, "seconds": FIGURES | {what: [9.0, 9.0, 9.0]}}
    assert not netdump.met(result)
    assert sum("MISSED" in line for line in netdump.table(result)) == 1


@pytest.mark.netns
def test_it_runs() -> None:
    result = netdump.measure(1, 1)
    assert list(result["seconds"]) == list(FIGURES)
    assert all(times[0] > 0 for times in result["seconds"].values())
