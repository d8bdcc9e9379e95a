"""The shipped testcases and their twins as documents: complete, commented, and each twin about a shipped behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.frozen import Frozen
from harness.plan.nics import MODELS
from harness.scenario.load import is_testcase, load, load_tree
from harness.scenario.model import WAITS, BondMode, CrashWord, Scenario

HERE = Path(__file__).parent
TESTCASES = HERE.parents[1] / "testcases"
SHIPPED = sorted(file for file in TESTCASES.rglob("*.yaml") if is_testcase(file))
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
    "poll/socket-full",
    "poll/ring-runs-out",
    "receive/not-ours",
    "receive/trapped",
    "receive/ping-pong",
    "receive/crossing",
    "sysrq/panic-by-wire",
    "sysrq/strangers",
}
OVER_BONDS = {
    "send": ["bonding/modes", "bonding/lacp"],
    "poll": ["poll/bonds"],
    "drop": ["drop/bonds", "drop/lacp"],
    "receive": ["receive/bonds"],
}


def test_all_smoke_testcases_are_there() -> None:
    assert {loaded.scenario.name for loaded in load_tree([TESTCASES])} >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_smoke_testcase_runs_on_e1000_and_virtio_net(name: str) -> None:
    models = {nic.model for case in load(TESTCASES / f"{name}.yaml") for nic in case.guest.nics.values()}
    assert models == {"e1000", "virtio-net"}


@pytest.mark.parametrize("names", OVER_BONDS.values(), ids=OVER_BONDS)
def test_sending_polling_dropping_and_receiving_run_over_each_bond_mode(names: list[str]) -> None:
    cases = [case for name in names for case in load(TESTCASES / f"{name}.yaml")]
    assert {bond.mode for case in cases for bond in case.guest.bonds.values()} == set(get_args(BondMode))
    for case in cases:
        assert {end.device for end in case.endpoints.values()} == set(case.guest.bonds)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_says_first_what_it_shows_and_what_it_stands_on(path: Path) -> None:
    comment = re.match(r"(#.*\n)+", path.read_text().partition("\n")[2])  # the first line is for editors
    assert comment is not None
    assert comment[0].startswith("# Shows ")
    assert "\n# Stands on" in comment[0]


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_each_twin_says_what_must_come_out_and_why(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert re.fullmatch(r"# must: (FAIL|INCONCLUSIVE|ERROR)", first)
    assert second.startswith("# Why: ")


def test_every_way_to_crash_is_tried_and_the_first_two_on_both_nics() -> None:
    scenarios = [loaded.scenario for loaded in load_tree([TESTCASES])]
    assert {step.crash.how for each in scenarios for step in each.steps if step.crash} == set(get_args(CrashWord))
    assert {each.case for each in scenarios if each.name == "crash/panic"} == {
        f"crash/panic[nic={nic},crash={how}]" for nic in ("e1000", "virtio-net") for how in ("sysrq-c", "nmi")
    }


GUIDE = (HERE.parents[1] / "docs" / "authoring.md").read_text()


def models() -> Iterator[type[Frozen]]:
    """Every model that an author writes."""
    waiting: list[type[Frozen]] = [Scenario, *WAITS.values()]
    while waiting:
        model = waiting.pop()
        yield model
        for field in model.model_fields.values():
            inner = [each for each in walk(field.annotation) if isinstance(each, type) and issubclass(each, Frozen)]
            waiting += inner


def walk(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from walk(argument)


def test_the_guide_names_every_key_and_every_nic_model() -> None:
    keys = {field.alias or name for model in models() for name, field in model.model_fields.items()} - {"params"}
    assert len(keys) > 50
    missing = [
        word for word in sorted(keys | set(MODELS)) if not re.search(rf"`[^`]*\b{re.escape(word)}\b[^`]*`", GUIDE)
    ]
    assert missing == []


def test_the_worked_examples_of_the_guide_are_testcases_of_the_default_catalogue() -> None:
    examples = GUIDE.partition("## Five worked examples")[2].partition("\n## ")[0]
    named = [HERE.parents[1] / file for file in re.findall(r"<!-- file: (\S+)", examples)]
    cases = [load(file)[0] for file in named if is_testcase(file)]
    assert len(cases) == 5
    assert not [case.name for case in cases if case.marks], "a gate runs what has no mark"
    assert examples.count("\n### ") == 5


def test_what_the_guide_says_of_known_bugs_is_good(tmp_path: Path) -> None:
    example = GUIDE.partition("### known_bugs")[2].partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "example.yaml"
    without = (TESTCASES / "crash/panic.yaml").read_text().partition("known_bugs")[0]
    file.write_text(without + example)
    assert [len(case.known_bugs) for case in load(file)] == [1] * 4


def test_the_counterparts_of_the_kernels_selftests_are_there() -> None:
    table = GUIDE.partition("## Counterparts of the kernel's selftests")[2]
    named = set(re.findall(r"`([a-z]+/[a-z-]+)`", table))
    assert len(named) >= 12
    assert named <= {f"{path.parent.name}/{path.stem}" for path in SHIPPED}


def test_the_catalogue_has_sixty_testcases_and_more() -> None:
    assert len(SHIPPED) >= 60
