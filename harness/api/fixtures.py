"""pytest's fixtures for tests in Python: `pytest_plugins = ["harness.api.fixtures"]` in a conftest.py.

Out: `guest`, and its verbs under names of their own: `nic`, `bond`, `link`, `netconsole`, `netpoll`, `crash`, `judged`. Rule: a test has one
guest, which ends with it; a test that says what it expects with `judged` fails with the words of a testcase that failed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.api.guest import Bond, Data, Flow, Guest, Nic
from harness.judge.model import Verdict
from harness.pytest_plugin import bench_of
from harness.report import terminal
from harness.testbed.errors import TestbedError

STRANGE = re.compile(r"[^a-z0-9_.-]+")


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of one's own. It starts with the first step; `guest.options["kernel"] = "debian-6.12"` chooses before that."""
    node = request.node
    name = f"{node.path.stem}/{STRANGE.sub('-', node.name.lower()).strip('-')}"
    doc = (
        (getattr(node, "function", None).__doc__ or "").strip().partition("\n")[0] if hasattr(node, "function") else ""
    )
    made = Guest(
        bench_of(request.config), name, doc if len(doc) >= 10 else f"a test in Python: {node.name}", node.nodeid
    )
    yield made
    made.end()


@pytest.fixture
def nic(guest: Guest) -> Callable[..., Nic]:
    """`nic("e1000e", mtu=9000)`: a NIC on a tap of its own, virtio-net if nothing is said."""
    return guest.nic


@pytest.fixture
def bond(guest: Guest) -> Callable[..., Bond]:
    """`bond("active-backup", nic(), nic())`."""
    return guest.bond


@pytest.fixture
def netconsole(guest: Guest) -> Callable[..., Flow]:
    """`netconsole(device)`: the kernel's own, to an endpoint on the host."""
    return guest.netconsole


@pytest.fixture
def netpoll(guest: Guest) -> Callable[..., Flow]:
    """`netpoll(device, sends={"first": {"count": 100}})`: our stack at both ends."""
    return guest.netpoll


@pytest.fixture
def link(guest: Guest) -> Callable[[Nic, bool], None]:
    """`link(nic, up=False)`: the cable is pulled."""
    return guest.link


@pytest.fixture
def crash(guest: Guest) -> Callable[..., None]:
    """`crash("nmi")`."""
    return guest.crash


@pytest.fixture
def judged(guest: Guest, request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """`judged({"parity": {"to": log.receiver}})`: end the case; PASS is returned, FAIL fails the test with its place and what was seen,
    INCONCLUSIVE skips it, ERROR is the testbed's."""

    def judge(*expect: Data) -> Verdict:
        verdict = guest.judge(*expect)
        told: list[tuple[str, Any]] = [("verdict", verdict.word), ("why", verdict.why), ("evidence", str(guest.folder))]
        request.node.user_properties += [*told, ("seconds", verdict.seconds)]
        if verdict.word == "INCONCLUSIVE" and not request.config.getoption("--inconclusive-fails"):
            pytest.skip(f"inconclusive: {verdict.why}")
        if verdict.word == "ERROR":
            raise TestbedError(verdict.why, f"{guest.folder} shows how far the guest came")
        if verdict.word != "PASS":
            pytest.fail(terminal.explain_failure(verdict, guest.folder, guest.plan), pytrace=False)
        return verdict

    return judge
