"""Floods: what their frames are, what a testcase may ask for, and when the judge calls one a flood."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import get_args

import pytest

from guest.netpoll.wire import arp, ethernet
from harness.inject.flood import KINDS, Flood, Target
from harness.judge.judge import judge
from harness.observe.frames import frame_keys
from harness.plan.compile import compile_plan
from harness.plan.model import Host
from harness.plan.sockets import needs_tap
from harness.scenario.load import load
from harness.scenario.model import FloodKind
from harness.tests.judge_evidence import event, plan, run
from harness.tests.scenario_table import GOOD, Row, problems_of, row

TARGET = Target.of(
    {
        "tap": "lo",
        "local_mac": "52:54:00:68:6f:01",
        "local_ip": "198.51.100.100",
        "local_port": 6666,
        "remote_mac": "52:54:00:6e:70:01",
        "remote_ip": "198.51.100.10",
        "remote_port": 6665,
    }
)


def frames(kind: str, count: int = 300) -> list[bytes]:
    rng = random.Random(5)
    return [KINDS[kind](TARGET, rng) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_same_for_the_same_seed_and_not_all_alike(kind: str) -> None:
    assert frames(kind) == frames(kind)
    assert len(set(frames(kind))) > 250
    assert all(len(frame) >= ethernet.HEADER_LEN for frame in frames(kind)), "shorter ones never leave a packet socket"


def test_each_kind_of_a_testcase_is_one_of_ours() -> None:
    assert set(KINDS) == set(get_args(FloodKind))


def test_an_arp_storm_asks_everybody_for_somebody_else_each_time() -> None:
    asked = [arp.parse(frame[ethernet.HEADER_LEN :]) for frame in frames("arp-storm")]
    assert all(frame[:6] == ethernet.BROADCAST for frame in frames("arp-storm"))
    assert {each.operation for each in asked} == {arp.ARPOP_REQUEST}
    assert len({(each.spa, each.tpa) for each in asked}) == len(asked)


def test_jumbo_frames_are_longer_than_an_mtu_and_right_otherwise() -> None:
    made = frames("jumbo", 50)
    assert all(1514 < len(frame) <= 9014 for frame in made)
    assert {frame_keys(frame)["csum"] for frame in made} == {"ok"}


def test_datagrams_to_netconsoles_port_are_right_in_everything() -> None:
    told = [frame_keys(frame) for frame in frames("netconsole-port", 50)]
    assert {(each["dip"], each["dport"], each["csum"], each["ip_csum"]) for each in told} == {
        ("198.51.100.10", 6665, "ok", "ok")
    }


def test_malformed_frames_are_all_damaged_and_of_all_lengths() -> None:
    made = frames("malformed", 1000)
    told = [frame_keys(frame) for frame in made]
    right = [
        each for each in told if each.get("csum") == "ok" and each.get("dport") == 6665 and each["ip_csum"] == "ok"
    ]
    assert len(right) < 30, "a changed byte may be the same by chance"
    assert min(map(len, made)) < 30 < 150 < max(map(len, made))


def test_a_flood_keeps_its_rate_and_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)

    class Tap:
        def bind(self, _address: object) -> None: ...
        def send(self, frame: bytes) -> int:
            return theirs.send(frame)

        def close(self) -> None:
            theirs.close()

    monkeypatch.setattr("harness.inject.flood.socket.socket", lambda *_: Tap())
    flood = Flood(TARGET, "arp-storm", rate=1000, seed=3)
    first = ours.recv(2048)
    assert first == KINDS["arp-storm"](TARGET, random.Random(3))
    assert ours.recv(2048) != first
    assert flood.stop() == flood.stop() >= 2
    ours.close()


FLOOD = "- flood: {to: kernel, kind: jumbo}"
CRASH = "- crash: {how: sysrq-c}"
ROWS = [
    row(
        "a flood of an unknown endpoint",
        CRASH,
        f"{FLOOD.replace('kernel', 'kernl')}\n  {CRASH}",
        "21:17: 'kernl' is no endpoint; did you mean 'kernel'?",
    ),
    row(
        "a flood of the host",
        CRASH,
        f"{FLOOD.replace('kernel', 'log')}\n  {CRASH}",
        "21:17: 'log' is on the host; a flood goes to the guest; write to: kernel",
    ),
    row(
        "a flood after the crash",
        CRASH,
        f"{CRASH}\n  {FLOOD}",
        "22:12: a flood is to begin, but step 5 crashed the guest; move it before the crash",
    ),
    row(
        "a flood expected where there is none",
        "- parity: {to: log}",
        "- parity: {to: log}\n  - flooded: {nic: n0}",
        "25:20: no step floods 'n0'; add a step `- flood: ...`",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_a_flood_that_cannot_be_is_refused(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems


def test_a_bond_is_flooded_over_every_slave(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(GOOD.replace(CRASH, f"{FLOOD}\n  {CRASH}"))
    made = compile_plan(load(file)[0], "case.yaml:1")
    floods = [action.args for stage in made.stages for action in stage.actions if isinstance(action, Host)]
    taps = [args["target"]["tap"] for args in floods if "target" in args]
    assert taps == ["tap-n1", "tap-n2"]
    assert needs_tap(made) == "step 5: a flood of frames needs an interface to be sent on"


CRASHED = event(2.0, "inject", "crash", how="sysrq-c")
PANIC = [
    event(2.1, "console", "line", text="[    9.000001] Kernel panic - not syncing: sysrq triggered crash"),
    event(
        3.0, "console", "line", text="[    9.900001] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---"
    ),
]
TIMES = {
    "enough in time": ([2.1, 2.5, 2.9], "PASS"),
    "too few": ([2.1, 2.5], "INCONCLUSIVE"),
    "before and after do not count": ([1.0, 1.9, 2.5, 2.6, 3.1], "INCONCLUSIVE"),
}


@pytest.mark.parametrize(("times", "word"), TIMES.values(), ids=TIMES)
def test_only_what_came_during_the_panic_makes_a_flood(times: list[float], word: str) -> None:
    came = [
        event(t, "wire", "frame", tap="tap-n0", nic="n0", dir="in", len=60, wall_ns=0, ethertype=0x806) for t in times
    ]
    verdict = judge(plan({"flooded": {"nic": "n0", "at_least": 3}}, crash=True), run(CRASHED, *PANIC, *came))
    (found,) = (check for check in verdict.checks if check.check == "flooded")
    assert ("PASS" if found.reached else "INCONCLUSIVE") == word, found.why
