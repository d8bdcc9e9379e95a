"""Case folders for the tests of reports: one of each kind of verdict, and one with a hostile guest.

Everything goes through the store and the judge; nothing is drawn by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.judge.records import Event
from harness.plan.model import Plan
from harness.report import store
from harness.tests.judge_evidence import PANIC_LINES, crashed, event, frame, link, plan, run, rx, send

HOSTILE = '[   20.003500] </td><script>document.title="owned"</script><img src=x onerror=alert(1)> \x1b[2J \u202egnp'
"""A console line by somebody who knows that it will stand in a page."""

VERSIONS = {"kernel": "6.1.0-50-amd64", "qemu": "11.1.3", "accel": "tcg", "harness": "0.1.0"}
PARITY = plan({"parity": {"to": "h"}}, stack="kernel", crash=True)
DELIVERED = plan({"delivered": {"from": "g", "to": "h"}})
LOST = plan({"lost_only_while_down": {"from": "g", "to": "h", "link": "n0"}}, cuts=("down", "up"))
BUG = {"when": {}, "verdict": "FAIL", "reason": "netpoll loses lines, tracked as 4711"}

UNKNOWN = event(1.5, "martian", "ray", strength=7)  # a kind that no table knows
STATE = event(1.2, "guest", "valve", nic="n0", state="ajar")

CUT_SENDS = [*send(50, step=0.05), *rx([*range(10), *range(40, 50)], step=0.05)]

KINDS: dict[str, tuple[Plan, list[Event]]] = {
    "pass": (DELIVERED, run(send(10), rx(range(10)), UNKNOWN, STATE)),
    "fail": (PARITY, crashed(PANIC_LINES[:5], [*PANIC_LINES[:7], HOSTILE, *PANIC_LINES[7:]])),
    "known": (plan({"parity": {"to": "h"}}, stack="kernel", crash=True, known_bug=BUG), crashed(PANIC_LINES[:5])),
    "inconclusive": (PARITY, run(event(9.9, "inject", "crash", how="nmi"))),
    "error": (DELIVERED, run(event(1.0, "run", "error", what="QEMU ended by itself", hint="see case.log"))),
    "cut": (LOST, run(CUT_SENDS, link(1.6, "n0", False, 0.02), link(2.6, "n0", True, 0.01), frame(2.7, out=False))),
}  # fmt: skip


def make(root: Path, kind: str, name: str = "") -> Path:
    """The folder of one case below `root`, with its verdict."""
    planned, events = KINDS[kind]
    planned = planned.model_copy(update={"case": f"{name or kind}/case[nic=e1000]"})
    folder = store.new_case(root, planned, VERSIONS)
    (folder / store.EVIDENCE).write_text("".join(json.dumps(each) + "\n" for each in events))
    (folder / "console.log").write_text("".join(f"{e['text']}\n" for e in events if e["kind"] == "line"))
    store.write_verdict(folder, store.rejudge(folder))
    return folder
