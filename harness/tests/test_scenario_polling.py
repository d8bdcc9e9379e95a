"""`stack: pmd`, the step `context` and the expectation `uninterrupted`: what is refused, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

GOOD = """\
about: our stack polls alone
guest:
  nics:
    n0: {model: e1000}
    n1: {model: e1000}
endpoints:
  polled: {at: guest, stack: pmd, device: n0, peer: far}
  far: {at: host, stack: netpoll, device: n0, peer: polled}
  other: {at: guest, stack: netpoll, device: n1, peer: beyond}
  beyond: {at: host, stack: netpoll, device: n1, peer: other}
steps:
  - context: {of: polled, becomes: crashed}
  - send: {from: polled, count: 300}
expect:
  - uninterrupted: {by: polled}
"""
STEP = "  - context: {of: polled, becomes: crashed}\n"
ROWS: list[Row] = [
    row("no such endpoint", "{of: polled", "{of: poled",
        "12:19: 'poled' is no endpoint; did you mean 'polled'?"),
    row("on the kernel's driver", "{of: polled", "{of: other",
        "12:19: 'other' is on netpoll; a NIC is polled in a crashed context by a driver of ours only; name an endpoint of the guest with stack: pmd"),
    row("another context", "becomes: crashed", "becomes: softirq",
        "12:36: 'softirq' is not one of crashed; write one of them"),
    row("twice", STEP, STEP + STEP,
        "13:14: step 1 has crashed our stack already; remove one of them"),
    row("after the guest's end", STEP, "  - crash: {how: sysrq-c}\n" + STEP,
        "13:14: our stack is to crash, but step 1 crashed the guest; move it before the crash",
        "14:11: 'polled' is to send, but step 1 crashed the guest; move it before the crash"),
    row("under a send", STEP, "  - send: {from: polled, count: 9, label: under, seed: 5, background: true}\n" + STEP,
        "13:14: the background send 'under' runs while our stack is to crash; wait for it before: `- wait: {sent: under}`",
        "12:11: nothing waits for the end of the background send 'under'; add a step `- wait: {sent: under}` after it"),
    row("nobody crashed", STEP, "",
        "14:25: no step has our stack crash, so interrupts are served; add `- context: {of: polled, becomes: crashed}`"),
    row("whose interrupts are the kernel's", "by: polled", "by: other",
        "15:25: 'other' is on netpoll, whose interrupts are the kernel's; name an endpoint of the guest with stack: pmd"),
    row("jumbo frames", "n0: {model: e1000}", "n0: {model: e1000, mtu: 9000}",
        "4:29: poll-mode drivers have buffers for an MTU of 1500; 1500 or less, or write stack: netpoll"),
    row("by nobody", "by: polled", "by: polle",
        "15:25: 'polle' is no endpoint; did you mean 'polled'?"),
]  # fmt: skip


def test_the_good_testcase_is_good(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "about", "about", GOOD) == ()


@pytest.mark.parametrize("bad", ROWS, ids=lambda each: each.id)
def test_bad_input_is_named(tmp_path: Path, bad: Row) -> None:
    assert sorted(problems_of(tmp_path, bad.old, bad.new, GOOD)) == sorted(bad.problems)
