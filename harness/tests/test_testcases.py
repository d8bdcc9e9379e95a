"""The shipped testcases and their twins as documents: complete, commented, and each twin about a shipped behaviour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.scenario.load import load, load_tree

HERE = Path(__file__).parent
TESTCASES = HERE.parents[1] / "testcases"
SHIPPED = sorted(TESTCASES.rglob("*.yaml"))
TWINS = sorted((HERE / "must_fail").glob("*.yaml"))

NAMES = {
    "send/datagrams-out",
    "send/datagrams-in",
    "netconsole/messages",
    "drop/our-stack-records",
    "drop/our-stack-queues",
    "drop/netconsole-link-cut",
    "crash/panic",
    "bonding/failover-then-panic",
}


def test_all_smoke_testcases_are_there() -> None:
    assert {loaded.scenario.name for loaded in load_tree([TESTCASES])} >= NAMES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_runs_on_e1000_and_virtio_net(path: Path) -> None:
    models = {nic.model for scenario in load(path) for nic in scenario.guest.nics.values()}
    assert models == {"e1000", "virtio-net"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_says_first_what_it_shows_and_what_it_stands_on(path: Path) -> None:
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment is not None
    assert comment[0].startswith("# Shows ")
    assert "\n# Stands on" in comment[0]


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_each_twin_says_what_must_come_out_and_why(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert re.fullmatch(r"# must: (FAIL|INCONCLUSIVE|ERROR)", first)
    assert second.startswith("# Why: ")


def test_both_crashes_are_tried_on_both_nics() -> None:
    cases = {loaded.scenario.case for loaded in load_tree([TESTCASES / "crash"])}
    assert cases == {
        f"crash/panic[nic={nic},crash={how}]" for nic in ("e1000", "virtio-net") for how in ("sysrq-c", "nmi")
    }
