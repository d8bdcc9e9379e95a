"""Expectations that could only be INCONCLUSIVE, because no step ever provokes their condition."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

ROWS = [
    row(
        "delivered to somebody else's peer",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: sender, to: log}",
        "23:35: 'sender' sends to 'sink', not to 'log'; write to: sink",
    ),
    row(
        "delivered, but nobody sends",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: kernel, to: log}",
        "23:23: no step sends from 'kernel'; add a step `- send: {from: kernel, ...}`",
    ),
    row(
        "more than is sent",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: sender, to: sink, at_least_sent: 11}",
        "23:16: at least 11 are asked for, but the steps send 10 from 'sender'; send more, or ask for fewer",
    ),
    row(
        "except_dropped of the kernel",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: kernel, to: log, except_dropped: true}",
        "23:23: no step sends from 'kernel'; add a step `- send: {from: kernel, ...}`",
        "23:56: 'kernel' is the kernel's netconsole, which has no drop routine to name what it dropped; remove it, or use lost_only_while_down",
    ),
    row(
        "except_cut of a link that is not cut",
        "- delivered: {from: sender, to: sink}",
        "- delivered: {from: sender, to: sink, except_cut: n1}",
        "23:53: 'n1' does not carry 'n0'; name the NIC, or a slave of the bond, that lines leave by",
        "23:53: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down}`",
    ),
    row(
        "parity at our stack's peer",
        "- parity: {to: log}",
        "- parity: {to: sink}",
        "24:18: 'sink' hears no kernel: its peer is not the guest's netconsole; name an endpoint whose peer has stack: kernel",
    ),
    row(
        "parity without a crash",
        "  - crash: {how: sysrq-c}\n",
        "",
        "23:13: parity is about a panic, but no step crashes the guest; add a step `- crash: {how: sysrq-c}`, or expect `delivered`",
    ),
    row(
        "GUEST_PANICKED without a crash",
        "  - crash: {how: sysrq-c}\nexpect:\n",
        "expect:\n  - event: {name: GUEST_PANICKED}\n",
        "22:12: GUEST_PANICKED follows a crash, but no step crashes the guest; add a step `- crash: ...`",
        "24:13: parity is about a panic, but no step crashes the guest; add a step `- crash: {how: sysrq-c}`, or expect `delivered`",
    ),
    row(
        "dropped by the kernel",
        "- delivered: {from: sender, to: sink}",
        "- dropped: {by: kernel, link: n1}",
        "23:19: 'kernel' is the kernel's netconsole, which has no drop routine to report; use stack: netpoll, or lost_only_while_down",
        "23:19: no step sends from 'kernel'; add a step `- send: {from: kernel, ...}`",
        "23:33: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down}`",
    ),
    row(
        "dropped by the host",
        "- delivered: {from: sender, to: sink}",
        "- dropped: {by: sink, link: n0}",
        "23:19: 'sink' is on a tap of the host, which keeps its carrier whatever is injected; name the guest's endpoint",
        "23:19: no step sends from 'sink'; add a step `- send: {from: sink, ...}`",
    ),
    row(
        "dropped over a link that is not cut",
        "- delivered: {from: sender, to: sink}",
        "- dropped: {by: sender, link: n1}",
        "23:33: 'n1' does not carry 'n0'; name the NIC, or a slave of the bond, that messages leave by",
        "23:33: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down}`",
    ),
    row(
        "queued by an endpoint that records",
        "- delivered: {from: sender, to: sink}",
        "- queued_delivered: {by: sender, link: n0}",
        "23:28: 'sender' queues nothing: its on_drop is record; write on_drop: queue at endpoint 'sender'",
        "23:42: the link of 'n0' is never put up again; add a step `- inject: {link: n0, state: up}`",
    ),
    row(
        "link that stays down",
        "- delivered: {from: sender, to: sink}",
        "- lost_only_while_down: {from: sender, to: sink, link: n0, at_least_sent: 3}",
        "23:58: the link of 'n0' is never put up again; add a step `- inject: {link: n0, state: up}`",
    ),
    row(
        "failover of an unknown bond",
        "- delivered: {from: sender, to: sink}",
        "- failover: {bond: bond1, cut: n0, from: sender}",
        "23:22: 'bond1' is no bond; did you mean 'bond0'?",
    ),
    row(
        "failover of a NIC that is no slave",
        "- delivered: {from: sender, to: sink}",
        "- failover: {bond: bond0, cut: n0, from: sender}",
        "23:34: 'n0' does not carry 'bond0'; name the NIC, or a slave of the bond, that messages leave by",
        "23:44: 'sender' sends over 'n0', not over 'bond0'; name an endpoint on the bond",
    ),
    row(
        "failover without a cut",
        "- delivered: {from: sender, to: sink}",
        "- failover: {bond: bond0, cut: n1, from: kernel}",
        "23:34: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down}`",
    ),
    row(
        "a queue of no NIC",
        "- wait: {carrier: n0, state: down}",
        "- wait: {queue: bond0, state: stopped}",
        "20:19: 'bond0' is no NIC; NICs: n0, n1, n2",
    ),
    row(
        "wait longer than the case",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n0, state: down, within: 500}",
        "20:46: within 500 s is longer than the case's timeout of 120 s; raise `timeout`, or shorten it",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_expectations_that_can_never_be_reached(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
