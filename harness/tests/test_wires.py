"""Where no tap can be had: the same testcases over datagram sockets, with real guests on machines that lack what a tap needs.

Each machine is made for the test by namespaces and mounts of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guest.netpoll.middleware.pcapng_read import read_file
from harness.plan.compile import compile_plan
from harness.plan.explain import explain
from harness.plan.sockets import needs_sockets, needs_tap, over_sockets
from harness.run import Bench, Options, load
from harness.scenario.load import load as load_scenarios

IN_USER = ["unshare", "-rm"]  # root of a user namespace of its own: its limits are its own
AS_IS = ["unshare", "-m"] if os.geteuid() == 0 else IN_USER

LACKING = {
    "no /dev/net/tun": (AS_IS, "mount -t tmpfs none /dev/net", "/dev/net/tun cannot be opened: No such file"),
    "a tun that is none": (AS_IS, "mount --bind /dev/null /dev/net/tun", "/dev/net/tun makes no tap"),
    "a tun that may not be opened": (
        AS_IS,
        "mount -t tmpfs none /dev/net && touch /dev/net/tun && chmod 0 /dev/net/tun && "
        "set -- setpriv --bounding-set=-all --inh-caps=-all",
        "/dev/net/tun cannot be opened",
    ),
    "no network namespace": (IN_USER, "echo 0 > /proc/sys/user/max_net_namespaces", "no network namespace"),
}
CASES = ("send/datagrams-out.yaml", "crash/panic.yaml", "drop/netconsole-link-cut.yaml")


def run(outer: list[str], before: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = " ".join(str(word) if " " not in str(word) else f"'{word}'" for word in arguments)
    script = f'{before} && exec "$@" {sys.executable} -m harness run {words}'
    return subprocess.run(
        [*outer, "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def built(bench: Bench, testcases: Path) -> Path:
    bench.prepare(load([testcases / CASES[0]], bench.options)[0])
    return testcases


@pytest.mark.guest
@pytest.mark.parametrize(("outer", "before", "reason"), LACKING.values(), ids=LACKING.keys())
def test_without_a_tap_the_same_testcases_run(
    built: Path, tmp_path: Path, outer: list[str], before: str, reason: str
) -> None:
    cases = [built / case for case in CASES]
    done = run(outer, before, *cases, "-k", "virtio and not nmi", "--results", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "datagram sockets instead of taps" in done.stderr
    assert reason in done.stderr
    verdicts = [json.loads(path.read_text()) for path in tmp_path.glob("*/verdict.json")]
    assert [verdict["word"] for verdict in verdicts] == ["PASS"] * 3, verdicts
    for folder in (path.parent for path in tmp_path.glob("*/verdict.json")):
        assert json.loads((folder / "versions.json").read_text())["wires"].startswith("dgram: ")
        assert_every_frame_is_saved(folder)


def assert_every_frame_is_saved(folder: Path) -> None:
    """pcapng and evidence tell of the same frames at the same times, and the file says where it was captured."""
    events = [json.loads(line) for line in (folder / "evidence.jsonl").read_text().splitlines()]
    frames = [event for event in events if (event["src"], event["kind"]) == ("wire", "frame")]
    saved = read_file(folder / "case.pcapng")
    assert [packet.timestamp for packet in saved] == [frame["wall_ns"] for frame in frames]
    assert len(frames) > 30
    assert all("relay" in packet.interface.description for packet in saved)
    assert {frame["dir"] for frame in frames if frame.get("csum") == "bad"} == set()


def test_the_plan_says_what_joins_guest_and_host(testcases: Path) -> None:
    scenario = load_scenarios(testcases / "crash" / "panic.yaml")[0]
    said = explain(over_sockets(compile_plan(scenario, "panic.yaml:1")))
    assert "wire   dgram-n0, datagram sockets" in said
    assert '"type": "dgram", "id": "net-n0", "local": {"type": "fd", "str": "fd-n0"}' in said
    assert re.findall(r"\btap\b", said) == []


def test_every_wire_of_every_shipped_plan_changes(testcases: Path) -> None:
    taps = [plan for plan in load([testcases], Options(results=Path(), wires="tap")) if not needs_sockets(plan)]
    for plan, before in ((over_sockets(plan), plan) for plan in taps):
        said = explain(plan)
        assert "tap-" not in said.replace("tap-gone", ""), said
        assert len(re.findall(r"dgram-n", said)) == len(re.findall(r"tap-n", explain(before)))
    assert {plan.case.partition("[")[0] for plan in taps if needs_tap(plan)} == {
        *("links/one-way-in", "links/tap-gone"),
        *("around/arp-storm", "around/jumbo", "around/malformed", "around/netconsole-port"),
        *(plan.case.partition("[")[0] for plan in taps if plan.case.startswith(("netdump/", "debugger/"))),
    }


def test_a_plan_for_sockets_stays_as_it_is(testcases: Path) -> None:
    held = [plan for plan in load([testcases], Options(results=Path(), wires="tap")) if needs_sockets(plan)]
    assert {plan.case for plan in held} == {"nics/packed-ring-waits", "poll/reader-stops", "poll/reader-stops-panic"}
    for plan in held:
        assert plan.wires == "dgram"
        assert over_sockets(plan) == plan


@pytest.mark.guest
def test_what_needs_a_tap_is_inconclusive_with_that_reason(built: Path, tmp_path: Path) -> None:
    case = built / "links" / "tap-gone.yaml"
    done = run(AS_IS, "mount -t tmpfs none /dev/net", case, "-k", "virtio", "--results", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = [json.loads(path.read_text()) for path in tmp_path.glob("*/verdict.json")]
    assert verdict["word"] == "INCONCLUSIVE"
    assert "the tap of n0 itself is deleted, and there are no taps here" in verdict["why"]
    assert "/dev/net/tun cannot be opened: No such file" in verdict["why"]


@pytest.mark.guest
def test_a_tap_that_was_asked_for_and_cannot_be_had_is_the_testbed_failing(built: Path, tmp_path: Path) -> None:
    done = run(
        AS_IS, "mount -t tmpfs none /dev/net", built / CASES[0], "-k", "virtio", "--wires", "tap", "--results", tmp_path
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "/dev/net/tun cannot be opened" in done.stdout
    assert "modprobe tun" in done.stdout
