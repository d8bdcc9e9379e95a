"""`bench capture`'s figures: ratios, goals, and a peer that could not run."""

from __future__ import annotations

import pytest

from harness.bench.capture import Figures, met, table


def figures(ours: float = 6.0, lossy: float = 6.6, bare: float | None = 4.0, left_out: str = "") -> Figures:
    found = Figures(size=26 << 20)
    for seconds in (ours, ours + 1, ours - 1):
        found.add("netdump", seconds, seconds + 5)
    if bare is not None:
        found.add("udp", bare, bare + 4)
        found.add("bare", 1.0, None)
    found.add("netdump, 1 % lost", lossy, lossy + 5)
    if left_out:
        found.left_out["ssh"] = left_out
    else:
        found.add("ssh", 12.0, 22.0)
    return found


def test_medians_ratios_and_goals_are_told() -> None:
    lines = table(figures())
    assert lines[0] == "a dump of 26.0 MiB"
    assert "netdump                           6.00 s          11.00 s" in lines
    assert "the dump's bare UDP stream        4.00 s           8.00 s" in lines
    assert "as many frames of nothing         1.00 s  " in lines
    assert "netdump, against the bare UDP stream of the dump: 1.50 times as long (goal 2 at most: met)" in lines
    assert "netdump, 1 % lost, against none: 1.10 times as long (goal 1.2 at most: met)" in lines
    assert "makedumpfile into ssh against netdump, from the panic: 2.00 times as long" in lines
    assert met(figures())


@pytest.mark.parametrize(
    ("found", "line"),
    [
        pytest.param(
            figures(ours=9.0), "bare UDP stream of the dump: 2.25 times as long (goal 2 at most: MISSED)", id="too slow"
        ),
        pytest.param(
            figures(lossy=7.5), "against none: 1.25 times as long (goal 1.2 at most: MISSED)", id="loss costs too much"
        ),
        pytest.param(
            figures(left_out="only root can be logged in to"),
            "ssh was left out: only root can be logged in to",
            id="no peer",
        ),
    ],
)
def test_what_is_missed_is_said(found: Figures, line: str) -> None:
    assert any(line in each for each in table(found))
    assert not met(found)
