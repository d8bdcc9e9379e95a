"""In which order cases are begun: as the files do in one process, the long ones first where workers share them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.weight import seconds
from harness.run import Options, load

ROOT = Path(__file__).resolve().parents[2]
FILES = ["testcases/bonding/lacp.yaml", "testcases/crash/panic.yaml", "testcases/netdump/nmi.yaml"]


class Collected:
    """What pytest would run, as a worker or as the only process."""

    def __init__(self, spread: bool) -> None:
        self.spread, self.names = spread, list[str]()

    def pytest_configure(self, config: pytest.Config) -> None:
        if self.spread:
            vars(config)["workerinput"] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = [item.name for item in session.items]


def collected(spread: bool, *words: str) -> list[str]:
    seen = Collected(spread)
    files = [str(ROOT / name) for name in FILES]
    pytest.main(["-p", "no:xdist", "-p", "no:cacheprovider", "--collect-only", "-qq", *words, *files], [seen])
    return seen.names


def test_one_process_runs_the_cases_as_the_files_have_them() -> None:
    assert collected(False) == [plan.case for name in FILES for plan in load([ROOT / name], Options(Path()))]


def test_workers_begin_with_what_takes_longest_and_equals_stay_in_order() -> None:
    names = collected(True)
    assert sorted(names) == sorted(collected(False))
    assert names[0] == "netdump/nmi"
    assert [name for name in names if "lacp" in name] == [name for name in collected(False) if "lacp" in name]
    assert names.index("bonding/lacp[rate=slow,policy=layer2]") < names.index("crash/panic[nic=virtio-net,crash=nmi]")


def test_each_repetition_is_over_before_the_next_begins() -> None:
    names = collected(True, "--repeat=2")
    assert [name.rpartition("#")[2] for name in names] == ["1"] * (len(names) // 2) + ["2"] * (len(names) // 2)


def test_a_dump_outweighs_what_messages_take_and_a_plain_panic_is_the_least() -> None:
    weights = {plan.case: seconds(plan) for plan in load([ROOT / "testcases"], Options(Path()))}
    dumps = [weight for case, weight in weights.items() if case.startswith("netdump/")]
    assert min(dumps) > max(weight for case, weight in weights.items() if case.startswith(("crash/", "send/")))
    assert weights["crash/panic[nic=virtio-net,crash=nmi]"] == min(weights.values())
