"""Injections that cannot happen: a moment in a burst that is over or never begins, a wire that no panic is sent over."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

CRASH = "- crash: {how: sysrq-c}\n"


def armed(*steps: str) -> str:
    """These injections before the crash."""
    return "".join(f"- inject: {step}\n  " for step in steps) + CRASH


ROWS = [
    row("in the burst", CRASH, armed("{link: n1, state: down, after: {line: 10, seen: console}}")),
    row("on the wire of a slave", CRASH, armed("{link: n1, state: down, after: {line: 1, seen: wire}}")),
    row(
        "on the wire of the other slave",
        CRASH,
        armed("{link: n1, state: down, after: {line: 10, seen: wire, nic: n2}}"),
    ),
    row(
        "down and up again",
        CRASH,
        armed(
            "{link: n1, state: down, after: {line: 9, seen: console}}",
            "{link: n1, state: up, after: {line: 10, seen: console}}",
        ),
    ),
    row(
        "a burst that is over",
        CRASH,
        CRASH + "  - inject: {link: n1, state: down, after: {line: 10, seen: console}}\n",
        "22:44: the burst of lines of step 5's panic is over when this step is reached; write it before the crash",
    ),
    row(
        "a link cut after the crash",
        CRASH,
        CRASH + "  - inject: {link: n1, state: down}\n",
        "22:13: the panic of step 5 is over when this is done, and a dead kernel says nothing more; write it before the crash, with `after: {line: ..., seen: console}`",
    ),
    row(
        "no crash",
        CRASH + "expect:\n  - delivered: {from: sender, to: sink}\n  - parity: {to: log}\n",
        "- inject: {link: n1, state: down, after: {line: 10, seen: console}}\nexpect:\n  - delivered: {from: sender, to: sink}\n",
        "21:44: no step crashes the guest, so no panic prints a line; add a step `- crash: ...` after it",
    ),
    row(
        "a wire without a netconsole",
        "- inject: {link: n0, state: down}\n  - wait: {carrier: n0, state: down}\n",
        "- inject: {link: n0, state: down, after: {line: 10, seen: wire}}\n",
        "19:61: no netconsole sends over 'n0', so no line of a panic is ever seen on its wire; name the NIC of one with `nic`, or write seen: console",
    ),
    row(
        "a NIC of the console",
        CRASH,
        armed("{link: n1, state: down, after: {line: 10, seen: console, nic: n1}}"),
        "21:75: the console's lines come over no NIC; remove it, or write seen: wire",
    ),
    row(
        "an unknown wire",
        CRASH,
        armed("{link: n1, state: down, after: {line: 10, seen: wire, nic: n7}}"),
        "21:72: 'n7' is no NIC; NICs: n0, n1, n2",
    ),
    row(
        "a slave that does not exist",
        CRASH,
        armed("{link: n3, state: down, after: {line: 10, seen: console}}"),
        "21:20: 'n3' is no NIC; NICs: n0, n1, n2",
    ),
    row(
        "line nought",
        CRASH,
        armed("{link: n1, state: down, after: {line: 0, seen: console}}"),
        "21:51: 0 is out of range; it must be at least 1",
    ),
    row(
        "down twice",
        CRASH,
        armed(
            "{link: n1, state: down, after: {line: 9, seen: console}}",
            "{link: n1, state: down, after: {line: 10, seen: console}}",
        ),
        "22:31: the link of 'n1' is down already when this line is seen; let down and up follow each other",
    ),
    row(
        "up first",
        CRASH,
        armed("{link: n1, state: up, after: {line: 9, seen: console}}"),
        "21:31: the link of 'n1' is up already when this line is seen; let down and up follow each other",
    ),
    row(
        "backwards",
        CRASH,
        armed(
            "{link: n1, state: down, after: {line: 9, seen: console}}",
            "{link: n1, state: up, after: {line: 9, seen: console}}",
        ),
        "22:49: line 9 has been seen before line 9, at which the step before this one acts; give a line after 9, or change their order",
    ),
    row(
        "cut now what is to be cut in the burst",
        CRASH,
        armed("{link: n1, state: down, after: {line: 9, seen: console}}", "{link: n1, state: down}"),
        "21:31: the link of 'n1' is down already when this line is seen; let down and up follow each other",
        "22:13: the link of 'n1' is to change in the burst, by step 5; change it before that step",
    ),
    row(
        "an excuse for a NIC that is not cut",
        "- parity: {to: log}",
        "- parity: {to: log, except_cut: n1}",
        "24:35: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down, after: {line: 10, seen: console}}`",
    ),
    row(
        "an excuse for a NIC that the panic is not sent over",
        "- parity: {to: log}",
        "- parity: {to: log, except_cut: n0}",
        "24:35: 'n0' does not carry 'bond0'; name the NIC, or a slave of the bond, that lines leave by",
    ),
    row(
        "a line that is to wait, which is no regular expression",
        "- parity: {to: log}",
        "- parity: {to: log, behind: '(new'}",
        "24:31: '(new' is no regular expression: missing ), unterminated subpattern at position 0; escape special characters with \\",
    ),
    row(
        "a carrier that follows what nobody sees",
        "- parity: {to: log}",
        "- parity: {to: log}\n  - carrier_follows: {link: n1}",
        "25:29: no step cuts the link of 'n1'; add a step `- inject: {link: n1, state: down}`",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_injections_that_cannot_happen(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems


LINKS = [
    row(
        "flapping",
        "- inject: {link: n0, state: down}\n  - wait: {carrier: n0, state: down}",
        "- flap: {link: n0, period: 1}",
    ),
    row("set down in the guest", "{link: n0, state: down}", "{link: n0, state: down, by: guest}"),
    row(
        "unplugged and back",
        "- inject: {link: n0, state: down}\n  - wait: {carrier: n0, state: down}",
        "- remove: {nic: n1}\n  - restore: {nic: n1}",
    ),
    row(
        "a filter and none",
        "- inject: {link: n0, state: down}\n  - wait: {carrier: n0, state: down}",
        "- filter: {nic: n0, lose: tx}\n  - filter: {nic: n0}\n  - filter: {nic: n0, hold: rx, seconds: 1}",
    ),
    row(
        "flaps longer than the case",
        "- wait: {carrier: n0, state: down}",
        "- inject: {link: n0, state: up}\n  - flap: {link: n0, period: 2, times: 100}",
        "21:40: 100 times 2 s is longer than the case's timeout of 120 s; raise `timeout`, or flap less often",
    ),
    row(
        "flaps without a link",
        "- wait: {carrier: n0, state: down}",
        "- flap: {link: n0, period: 1}",
        "20:18: the link of 'n0' is down since step 3; put it up before",
    ),
    row(
        "a link that flaps already",
        "- inject: {link: n0, state: down}\n  - wait: {carrier: n0, state: down}",
        "- flap: {link: n0, period: 1, background: true}\n  - inject: {link: n0, state: down}",
        "20:20: the link of 'n0' flaps beside the steps since step 3; leave it alone, or flap without background",
    ),
    row(
        "a slave that is none",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n0, how: release}",
        "20:28: 'n0' is no slave of a bond; name a slave, or write how: unplug",
    ),
    row(
        "an unknown slave",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n4, how: release}\n  - restore: {nic: n4}\n  - flap: {link: n4, period: 1}\n  - filter: {nic: n4, lose: tx}",
        "20:19: 'n4' is no NIC; NICs: n0, n1, n2",
        "21:20: 'n4' is no NIC; NICs: n0, n1, n2",
        "22:18: 'n4' is no NIC; NICs: n0, n1, n2",
        "23:19: 'n4' is no NIC; NICs: n0, n1, n2",
    ),
    row(
        "a NIC that is away",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n1}\n  - inject: {link: n1, state: down}",
        "21:20: 'n1' has been taken away: unplug; restore it before, or name another",
    ),
    row(
        "taken away twice",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n1}\n  - remove: {nic: n1, how: rip}",
        "21:19: 'n1' has been taken away: unplug; restore it before, or name another",
    ),
    row(
        "put back what is there",
        "- wait: {carrier: n0, state: down}",
        "- restore: {nic: n1}",
        "20:20: 'n1' has not been taken away here; remove it before, or leave this step out",
    ),
    row(
        "what was torn out never comes back",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n1, how: rip}\n  - restore: {nic: n1}\n  - remove: {nic: n2, how: tap}\n  - restore: {nic: n2}",
        "21:20: 'n1' was torn out, which QEMU takes for the end of it; remove it by how: unplug",
        "23:20: the tap of 'n2' is gone, and QEMU's backend with it; use inject with by: tap",
    ),
    row(
        "our stack on a NIC that goes",
        "- wait: {carrier: n0, state: down}",
        "- remove: {nic: n0}\n  - restore: {nic: n0}",
        "21:20: 'sender' has its socket on the interface that went away with 'n0'; put our stack on a bond, or use stack: kernel",
    ),
    row(
        "the dead unplug nothing",
        CRASH,
        CRASH + "  - remove: {nic: n1}\n  - filter: {nic: n1, lose: tx}\n",
        "22:13: 'n1' is to be taken away, but step 5 crashed the guest; move it before the crash",
        "23:13: the panic of step 5 is over when this is done, and a dead kernel says nothing more; write it before the crash, with `after: {line: ..., seen: console}`",
        "23:19: 'n1' has been taken away: unplug; restore it before, or name another",
    ),
    row(
        "a filter that does two things",
        "- wait: {carrier: n0, state: down}",
        "- filter: {nic: n0, lose: tx, hold: rx, seconds: 1}",
        "20:13: a filter loses frames or holds them; give one of lose, hold",
    ),
    row(
        "held for no time",
        "- wait: {carrier: n0, state: down}",
        "- filter: {nic: n0, hold: rx}",
        "20:13: how long frames are held is said by `seconds`; give both of hold, seconds, or neither",
    ),
    row(
        "a filter on a filter",
        "- wait: {carrier: n0, state: down}",
        "- filter: {nic: n0, lose: tx}\n  - filter: {nic: n0, lose: rx}",
        "21:19: 'n0' has a filter since step 4; take it away before: `- filter: {nic: n0}`",
    ),
    row(
        "no filter to take away",
        "- wait: {carrier: n0, state: down}",
        "- filter: {nic: n0}",
        "20:19: 'n0' has no filter here; give one of lose, hold",
    ),
    row(
        "numbers without headers, and nobody who reads the log",
        "- parity: {to: log}",
        "- sequence: {from: kernel, to: log}",
        "24:15: nothing reads the kernel's log after the last send, so nobody knows which numbers there are; add a step `- records: {by: agent}` after it",
        "24:22: 'kernel' sends no extended headers, so its lines have no numbers; write extended: true at endpoint 'kernel'",
        "24:22: no step sends from 'kernel'; add a step `- send: {from: kernel, ...}`",
    ),
    row(
        "a latency without a limit",
        "- parity: {to: log}",
        "- latency: {from: sender, to: sink}",
        "24:14: no limit is given, so nothing can be too late; give p99 or most, in seconds",
    ),
    row(
        "a latency that cannot hold",
        "- parity: {to: log}",
        "- latency: {from: sender, to: sink, at_least: 2, most: 1}",
        "24:49: what took 2 s is over the limit of 1 s, so this can never hold; ask for less, or allow more",
    ),
    row(
        "a guest that panics sets nothing down",
        CRASH,
        armed("{link: n1, state: down, by: guest, after: {line: 9, seen: console}}"),
        "21:41: a guest that panics sets no link down; write by: cable, or remove `after`",
    ),
]


@pytest.mark.parametrize("bad", LINKS, ids=lambda bad: bad.id)
def test_links_that_cannot_do_this(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
