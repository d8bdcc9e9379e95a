"""One capture a case: every frame of every tap once, by time, with names and comments; read by tshark, too."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

import images
from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.netpoll.middleware.pcapng_read import read_file
from harness.judge.records import Event
from harness.report import pcapng
from harness.tests.judge_evidence import event, frame, link, plan, run

ZERO = 1_700_000_000_000_000_000  # ns of the wall clock at the case's beginning
ETHER = bytes.fromhex("ffffffffffff 52540068 6f01 88b5")  # to everybody, of a type for experiments
PLAN = plan({"event": {"name": "RESET"}})
INJECTED = [
    *link(1.0, "n0", False),
    event(2.0, "inject", "crash", how="sysrq-c"),
    event(9.0, "inject", "meteor", size=3),
]


def captured(folder: Path, **times: list[float]) -> list[Event]:
    """Captures of taps with frames at these times, and the case's events."""
    rng = random.Random(5)
    for nic, moments in times.items():
        with Writer.create(folder / f"tap-{nic}.pcapng") as writer:
            number = writer.add_interface(f"tap-{nic}")
            for t in moments:
                data = ETHER + rng.randbytes(60)
                writer.packet(number, ZERO + round(t * 1e9), data, direction=Direction.INBOUND)
    return run(frame(0.5, wall_ns=ZERO + 500_000_000), INJECTED)


def test_every_frame_is_there_once_by_time_on_its_tap(tmp_path: Path) -> None:
    events = captured(tmp_path, n0=[0.5, 1.5, 1.5, 2.5], n1=[0.4, 1.4, 3.0])
    before = {nic: [(p.timestamp, p.data) for p in read_file(tmp_path / f"tap-{nic}.pcapng")] for nic in ("n0", "n1")}
    assert pcapng.merge(tmp_path, PLAN, events) == tmp_path / "case.pcapng"
    found = read_file(tmp_path / "case.pcapng")
    assert [packet.timestamp for packet in found] == sorted(packet.timestamp for packet in found)
    after = {nic: [(p.timestamp, p.data) for p in found if p.interface.name == f"tap-{nic}"] for nic in before}
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.pcapng"]


def test_injections_stand_at_the_next_frame_of_each_tap_or_at_the_last(tmp_path: Path) -> None:
    pcapng.merge(tmp_path, PLAN, captured(tmp_path, n0=[0.5, 1.5, 2.5], n1=[0.4]))
    found = [
        (p.interface.name, p.timestamp - ZERO, " | ".join(p.comments)) for p in read_file(tmp_path / "case.pcapng")
    ]
    at = {(name, t // 10**6): text for name, t, text in found}
    assert at["tap-n0", 500] == ""
    assert at["tap-n0", 1500] == "before this frame, at 1.000000 s of the case: link n0 down"
    assert at["tap-n0", 2500].split("; ") == [
        "before this frame, at 2.000000 s of the case: crash sysrq-c",
        "after this frame, at 9.000000 s of the case: meteor 3",
    ]
    assert at["tap-n1", 400].count("after this frame") == 3


def test_a_capture_that_a_kill_cut_short_is_left_alone(tmp_path: Path) -> None:
    events = captured(tmp_path, n0=[0.5, 1.5], n1=[0.4])
    whole = (tmp_path / "tap-n0.pcapng").read_bytes()
    (tmp_path / "tap-n0.pcapng").write_bytes(whole[:-7])
    assert pcapng.merge(tmp_path, PLAN, events) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tap-n0.pcapng", "tap-n1.pcapng"]


@pytest.mark.parametrize("events", [run(), run(INJECTED)], ids=["nothing", "no-frame"])
def test_no_captures_no_file(events: list[Event], tmp_path: Path) -> None:
    assert pcapng.merge(tmp_path, PLAN, events) is None
    assert not list(tmp_path.iterdir())


def test_tshark_reads_it_without_a_warning(tools: images.Tools, tmp_path: Path) -> None:
    events = captured(tmp_path, n0=[0.5 + n / 997 for n in range(1500)], n1=[0.4 + n / 97 for n in range(200)])
    path = pcapng.merge(tmp_path, PLAN, events)
    words = [*tools.argv("tshark"), "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for name in ("frame.interface_name", "frame.interface_description", "frame.time_delta", "frame.comment"):
        words += ["-e", name]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert len(rows) == 1700
    assert {(row[0], row[1]) for row in rows} == {("tap-n0", "NIC n0, e1000"), ("tap-n1", "NIC n1, e1000")}
    assert all(float(row[2] or 0) >= 0 for row in rows), "frames are out of order"
    assert sum("link n0 down" in row[3] for row in rows) == 2
    noise = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert noise == []


def test_names_of_endpoints_resolve(tools: images.Tools, tmp_path: Path) -> None:
    path = pcapng.merge(tmp_path, PLAN, captured(tmp_path, n0=[0.5]))
    words = [*tools.argv("tshark"), "-r", str(path), "-q", "-z", "hosts"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "198.51.100.10\tg" in told
    assert "198.51.100.100\th" in told
