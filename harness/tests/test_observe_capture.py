"""Captures of real taps: both directions, bursts, long and tagged frames, losses, interfaces that go down, files that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.netns


def scene(name: str, folder: Path) -> dict[str, Any]:
    """Play a scene of harness.tests.capture_scenes in a process and a namespace of its own."""
    argv = [sys.executable, "-m", "harness.tests.capture_scenes", name, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_both_ways(tmp_path: Path) -> None:
    seen = scene("both_ways", tmp_path)
    assert seen["readable"] == [False, True]
    assert seen["drained"] == [3, 0]
    assert [each["dir"] for each in seen["frames"]] == ["out", "in", "out"]
    assert seen["saved"] == [["INBOUND", True], ["OUTBOUND", True], ["INBOUND", True]]
    assert seen["stamps_agree"]
    assert seen["in_time"]
    first = seen["frames"][0]
    flow = ("198.51.100.10", 6665, "198.51.100.100", 6666)
    assert (first["sip"], first["sport"], first["dip"], first["dport"]) == flow
    assert (first["src"], first["tap"], first["nic"], first["csum"], first["len"]) == (
        "wire",
        "tap-n0",
        "n0",
        "ok",
        142,
    )


@pytest.mark.parametrize(("name", "count"), [("burst", 4000), ("wrap_around", 10000)])
def test_nothing_is_lost_or_mixed_up(name: str, count: int, tmp_path: Path) -> None:
    assert scene(name, tmp_path) == {"drained": count, "in_order": True, "errors": []}


def test_a_capture_that_lost_frames_says_so(tmp_path: Path) -> None:
    seen = scene("overflow", tmp_path)
    assert seen["errors"] == [f"the capture on tap-n0 lost {5000 - seen['drained']} frames"]
    assert seen["again"] == 0


def test_frames_longer_than_a_slot_come_whole(tmp_path: Path) -> None:
    seen = scene("long_frames", tmp_path)
    assert seen == {"whole": [True] * 5, "csum": ["ok"] * 5, "errors": []}


@pytest.mark.skipif(
    os.geteuid() != 0, reason="the queue for long frames is as deep as net.core.rmem_max allows, but for root"
)
def test_a_flood_of_long_frames_comes_whole_however_late_it_is_read(tmp_path: Path) -> None:
    assert scene("many_long_frames", tmp_path) == {"drained": 500, "whole": True, "errors": []}


def test_a_tag_that_the_kernel_took_off_is_put_back(tmp_path: Path) -> None:
    assert scene("tagged", tmp_path) == {"same": True, "vlan": 42, "csum": "ok"}


def test_a_comment_stands_at_the_first_frame_after_it(tmp_path: Path) -> None:
    assert scene("comments", tmp_path) == {"comments": [[], ["link of n0 down; link of n1 down"], []]}


def test_an_interface_that_goes_down_is_no_error(tmp_path: Path) -> None:
    assert scene("down_and_up", tmp_path) == {"told": True, "drained": [1, 1], "quiet": True, "errors": []}


def test_other_taps_are_not_seen(tmp_path: Path) -> None:
    assert scene("other_taps", tmp_path) == {"drained": 1}


def test_closing_takes_what_is_left(tmp_path: Path) -> None:
    assert scene("closed", tmp_path) == {"frames": 1, "fileno": -1, "drained": 0}


def test_a_file_that_fails_is_an_error_of_the_testbed(tmp_path: Path) -> None:
    seen = scene("file_fails", tmp_path)
    assert seen["frames"] == 2
    assert seen["errors"] == [f"{tmp_path}/fifo cannot be written: Broken pipe"]


def test_a_capture_that_cannot_be_opened_says_why_and_leaks_nothing(tmp_path: Path) -> None:
    seen = scene("cannot_open", tmp_path)
    assert [said for said in seen["said"] if "cannot capture on nope: No such device" in said]
    assert [said for said in seen["said"] if "No such file or directory" in said]
    assert [said for said in seen["said"] if "No space left on device" in said]
    assert seen["leaked"] == 0
