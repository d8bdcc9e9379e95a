"""What counts as the N-th line of a panic, and that it fires once, at that line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from harness.inject.fuse import Fuse
from harness.plan.model import Arm, Qmp

FLOW = ("198.51.100.10", 6665, "198.51.100.100", 6666)
CUT = Qmp(execute="set_link", arguments={"name": "nic-n0", "up": False})
CRASH = {"t": 1.0, "src": "inject", "kind": "crash", "how": "sysrq-c"}


def line(t: float, text: str = "[    1.000000] x") -> dict[str, Any]:
    return {"t": t, "src": "console", "kind": "line", "text": text}


def frame(t: float, nic: str = "n0", way: str = "out", flow: tuple[str, int, str, int] = FLOW) -> dict[str, Any]:
    ends = dict(zip(("sip", "sport", "dip", "dport"), flow, strict=True))
    return {"t": t, "src": "wire", "kind": "frame", "nic": nic, "dir": way, **ends}


CASES: dict[str, tuple[str, list[dict[str, Any]], float | None]] = {
    "second line of the console": ("console", [CRASH, line(1.1), line(1.2), line(1.3)], 1.2),
    "lines before the crash": ("console", [line(0.8), line(0.9), CRASH, line(1.1)], None),
    "a line that began before the crash": ("console", [CRASH, line(0.9), line(1.1), line(1.2)], 1.2),
    "user space's lines": ("console", [CRASH, line(1.1, "login:"), line(1.2), line(1.3)], 1.3),
    "no crash": ("console", [line(1.1), line(1.2)], None),
    "frames on the console's fuse": ("console", [CRASH, frame(1.1), frame(1.2)], None),
    "second frame": ("wire", [CRASH, frame(1.1), frame(1.2), frame(1.3)], 1.2),
    "a frame captured before the crash and taken after": ("wire", [CRASH, frame(0.9), frame(1.1), frame(1.2)], 1.2),
    "frames over another NIC": ("wire", [CRASH, frame(1.1, nic="n1"), frame(1.2, nic="n1")], None),
    "frames to the guest": ("wire", [CRASH, frame(1.1, way="in"), frame(1.2, way="in")], None),
    "frames of another flow": ("wire", [CRASH, frame(1.1, flow=(*FLOW[:3], 53)), frame(1.2)], None),
    "lines on the wire's fuse": ("wire", [CRASH, line(1.1), line(1.2)], None),
    "frames that are not UDP": ("wire", [CRASH, {"t": 1.1, "src": "wire", "kind": "frame", "nic": "n0", "dir": "out"}], None),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "events", "at"), CASES.values(), ids=CASES)
def test_the_second_line(seen: str, events: list[dict[str, Any]], at: float | None) -> None:
    fired: list[Mapping[str, Any]] = []
    arm = Arm.model_validate({"step": 1, "line": 2, "seen": seen, "nic": "n0", "flows": [FLOW], "action": CUT})
    fuse = Fuse(arm, fired.append)
    for event in events:
        fuse.take(event)
    assert [event["t"] for event in fired] == ([] if at is None else [at])
