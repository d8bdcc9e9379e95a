"""failover: a bond's frames leave over the other slave soon after one is cut, and none over the cut one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.judge.judge import judge
from harness.judge.records import Event
from harness.tests.judge_evidence import console, event, frame, link, plan, run, send, stamped

CARRIERS = [event(0.5, "guest", "carrier", nic=nic, up=True) for nic in ("n0", "n1")]
CUT = [*CARRIERS, *link(3.0, "n0", up=False, seen=0.1)]
ACTIVE = [event(0.6, "guest", "bond", bond="b0", active="n0"), event(3.11, "guest", "bond", bond="b0", active="n1")]
SENT = send(400)  # 1.0 s to 5.0 s


def over(nic: str, times: Sequence[float]) -> list[Event]:
    return [frame(t, nic) for t in times]


BEFORE = over("n0", [1.0, 2.0, 2.9])

CASES: dict[str, tuple[list[Event], bool, bool | None, str]] = {
    "held": (run(SENT, CUT, ACTIVE, BEFORE, over("n1", [3.2, 3.3])), True, True, "n1 took over after 0.300 s"),
    "at-the-limit": (run(SENT, CUT, BEFORE, over("n1", [4.9])), True, True, "n1 took over after 2.000 s"),
    "too-slow": (run(SENT, CUT, BEFORE, over("n1", [4.95])), True, False, "2.050 s without a frame until n1 took over"),
    "never": (run(SENT, CUT, BEFORE), True, False, "no frame left over another slave of b0 after n0 was cut"),
    "astray": (run(SENT, CUT, BEFORE, over("n1", [3.2]), over("n0", [3.5])), True, False, "1 frame left over n0 after"),
    "back-after-restore": (
        run(SENT, CUT, BEFORE, over("n1", [3.2]), link(4.0, "n0", True, 0.1), over("n0", [4.5])), True, True, "took over"),
    "back-just-before-it-is-written": (
        run(SENT, CUT, BEFORE, over("n1", [3.2]), link(4.0, "n0", True, 0.1), over("n0", [3.96])), True, True, "took over"),
    "astray-before-it-was-given-back": (
        run(SENT, CUT, BEFORE, over("n1", [3.2]), link(4.0, "n0", True, 0.1), over("n0", [3.94])), True, False, "1 frame left over n0"),
    "other-slave-before-the-cut-is-no-failover": (
        run(SENT, CUT, BEFORE, over("n1", [2.5])), True, False, "no frame left over another slave"),
    "backup-was-cut": (run(SENT, CUT, over("n1", [1.0, 3.2])), False, None, "no frame of g left over n0 before"),
    "never-cut": (run(SENT, CARRIERS, BEFORE), False, None, "the link of n0 never went down"),
    "guest-did-not-notice": (
        run(SENT, CARRIERS, link(3.0, "n0", False), BEFORE, over("n1", [3.2])), False, None, "never saw the carrier of n0"),
    "nothing-sent-afterwards": (run(send(100), CUT, BEFORE), False, None, "sent nothing after the carrier of n0 was gone"),
    "frames-of-another-flow": (
        run(SENT, CUT, BEFORE, [frame(3.2, "n1", dport=53)]), True, False, "no frame left over another slave"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "reached", "held", "words"), CASES.values(), ids=CASES)
def test_failover(events: list[Event], reached: bool, held: bool | None, words: str) -> None:
    planned = plan({"failover": {"bond": "b0", "cut": "n0", "from": "g", "within": 2}}, bond="active-backup")
    check = judge(planned, events).checks[0]
    assert (check.reached, check.held) == (reached, held), check
    assert words in check.why


def test_a_panic_is_something_sent() -> None:
    """Nothing numbered was sent after the cut, but the kernel spoke over the bond."""
    planned = plan(
        {"failover": {"bond": "b0", "cut": "n0", "from": "g", "within": 2}}, bond="active-backup", stack="kernel"
    )
    events = run(CUT, BEFORE, console(stamped(["Kernel panic - not syncing: x"]), start=3.5), over("n1", [3.5]))
    check = judge(planned, events).checks[0]
    assert (check.reached, check.held) == (True, True)


def test_what_the_kernel_prints_is_nothing_that_our_stack_sent() -> None:
    planned = plan({"failover": {"bond": "b0", "cut": "n0", "from": "g", "within": 2}}, bond="active-backup")
    check = judge(planned, run(send(100), CUT, BEFORE, console(stamped(["eth0: down"]), start=3.5))).checks[0]
    assert (check.reached, check.held) == (False, None)


def test_findings_name_times_and_the_drivers_word() -> None:
    planned = plan({"failover": {"bond": "b0", "cut": "n0", "from": "g"}}, bond="active-backup")
    check = judge(planned, run(SENT, CUT, ACTIVE, BEFORE, over("n1", [3.2]))).checks[0]
    assert check.findings == (
        "n0: cut at 3.000 s, carrier gone at 3.100 s",
        "last frame over n0 at 2.900 s",
        "first frame over n1 at 3.200 s",
        "b0 said at 0.600 s that n0 is active",
        "b0 said at 3.110 s that n1 is active",
    )
    assert check.numbers == {"frames_before": 3, "frames_after": 1, "frames_astray": 0, "gap_seconds": 0.3}
