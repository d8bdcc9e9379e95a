"""Steps that cannot happen, given the guest and the steps before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

ROWS = [
    row(
        "send from an unknown endpoint",
        "- send: {from: sender, count: 10}",
        "- send: {from: sendr, count: 10}",
        "17:18: 'sendr' is no endpoint; did you mean 'sender'?",
        "18:35: 10 can never arrive: 0 are sent to 'sink' up to here; send more from 'sender' before, or wait for fewer",
        "23:23: no step sends from 'sender'; add a step `- send: {from: sender, ...}`",
    ),
    row(
        "label twice",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10}\n  - send: {from: sender, count: 10}",
        "18:11: a send called 'sender' comes before; give this one a label of its own",
        "18:11: datagrams of this send cannot be told from those of 'sender'; give it another `seed`",
    ),
    row(
        "datagrams alike",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10}\n  - send: {from: sender, count: 10, label: again}",
        "18:11: datagrams of this send cannot be told from those of 'sender'; give it another `seed`",
    ),
    row(
        "size out of bounds",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10, size: [4, 3000]}",
        "17:43: sizes 4 to 3000 are not within 18 to 1472: netpoll does not fragment; a number takes 18 bytes; change `size`",
    ),
    row(
        "size upside down",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10, size: [40, 30]}",
        "17:43: the lowest size 40 is above the highest 30; write [lowest, highest]",
    ),
    row(
        "three sizes",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10, size: [40, 50, 60]}",
        "17:43: 3 values are given here; give at most 2",
    ),
    row(
        "kernel message too long",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10}\n  - send: {from: kernel, count: 1, size: [16, 2000]}",
        "18:42: sizes 16 to 2000 are not within 1 to 960: a numbered line with its time stamp must fit one netconsole datagram; change `size`",
    ),
    row(
        "send to a netconsole",
        "- send: {from: sender, count: 10}",
        "- send: {from: sender, count: 10}\n  - send: {from: log, count: 1}",
        "18:18: 'log' sends to 'kernel', but the kernel's netconsole receives nothing; give the guest's endpoint stack: netpoll",
    ),
    row(
        "background send nobody waits for",
        "- crash: {how: sysrq-c}\n",
        "- run: {argv: ['true']}\n  - send: {from: sender, count: 3, label: bg, background: true, seed: 9}\n",
        "22:11: nothing waits for the end of the background send 'bg'; add a step `- wait: {sent: bg}` after it",
        "25:13: parity is about a panic, but no step crashes the guest; add a step `- crash: {how: sysrq-c}`, or expect `delivered`",
    ),
    row(
        "link of a bond",
        "- inject: {link: n0, state: down}",
        "- inject: {link: bond0, state: down}",
        "19:20: 'bond0' is a bond; name one of its slaves: n1, n2",
        "20:32: 'n0' has its link here; inject link down before waiting for it",
    ),
    row(
        "link of an unknown NIC",
        "- inject: {link: n0, state: down}",
        "- inject: {link: n5, state: down}",
        "19:20: 'n5' is no NIC; NICs: n0, n1, n2",
        "20:32: 'n0' has its link here; inject link down before waiting for it",
    ),
    row(
        "link cut twice",
        "- inject: {link: n0, state: down}",
        "- inject: {link: n0, state: down}\n  - inject: {link: n0, state: down}",
        "20:31: the link of 'n0' has been down since step 3; put it up in between, or remove this step",
    ),
    row(
        "link put up that is up",
        "- inject: {link: n0, state: down}",
        "- inject: {link: n0, state: up}",
        "19:31: the link of 'n0' is up here; put it down first, or remove this step",
        "20:32: 'n0' has its link here; inject link down before waiting for it",
    ),
    row(
        "carrier of an unknown NIC",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n7, state: down}",
        "20:21: 'n7' is no NIC or bond; devices: n0, n1, n2, bond0",
    ),
    row(
        "carrier up of a cut link",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n0, state: up}",
        "20:32: the link of 'n0' is down here; inject link up before waiting for it",
    ),
    row(
        "carrier down of a bond with links",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: bond0, state: down}",
        "20:35: 'bond0' has its link here; inject link down before waiting for it",
    ),
    row(
        "NIC whose link the guest cannot see",
        '"${nic}"',
        "tulip",
        "3:3: axis 'nic' changes nothing; use ${nic} somewhere, or remove the axis",
        "20:21: the guest cannot see the link of 'n0': QEMU's tulip does not follow set_link; use one of virtio-net, virtio-net-legacy, virtio-net-modern, virtio-net-packed, e1000, e1000-82544gc, e1000-82545em, e1000e, igb, rtl8139, pcnet, vmxnet3, tg3, our-e1000, our-virtio-net",
    ),
    row(
        "received at an unknown endpoint",
        "- wait: {received: sink, count: 10}",
        "- wait: {received: sunk, count: 10}",
        "18:22: 'sunk' is no endpoint; did you mean 'sink'?",
    ),
    row(
        "received at a netconsole",
        "- wait: {received: sink, count: 10}",
        "- wait: {received: kernel, count: 10}",
        "18:22: 'kernel' is the kernel's netconsole, which receives nothing; wait at its peer",
    ),
    row(
        "more than is sent",
        "- wait: {received: sink, count: 10}",
        "- wait: {received: sink, count: 11}",
        "18:35: 11 can never arrive: 10 are sent to 'sink' up to here; send more from 'sender' before, or wait for fewer",
    ),
    row(
        "sent of an unknown label",
        "- wait: {received: sink, count: 10}",
        "- wait: {sent: sendr}",
        "18:18: no send called 'sendr' comes before; did you mean 'sender'?",
    ),
    row(
        "drop routine of the kernel",
        "- wait: {carrier: n0, state: down}",
        "- wait: {dropped: kernel}",
        "20:21: 'kernel' is the kernel's netconsole, which has no drop routine to report; use stack: netpoll, or lost_only_while_down",
    ),
    row(
        "drop routine of the host",
        "- wait: {carrier: n0, state: down}",
        "- wait: {dropped: sink}",
        "20:21: 'sink' is on a tap of the host, which keeps its carrier whatever is injected; name the guest's endpoint",
    ),
    row(
        "no regular expression",
        "- wait: {carrier: n0, state: down}",
        "- wait: {console: '(panic'}",
        "20:21: '(panic' is no regular expression: missing ), unterminated subpattern at position 0; escape special characters with \\",
    ),
    row(
        "event in small letters",
        "- wait: {carrier: n0, state: down}",
        "- wait: {event: guest_panicked}",
        "20:19: 'guest_panicked' cannot be used here; write a QMP event in capitals, like GUEST_PANICKED",
    ),
    row(
        "the dead do nothing",
        "- crash: {how: sysrq-c}",
        "- crash: {how: sysrq-c}\n  - send: {from: sender, count: 1, label: late}\n  - run: {argv: [ls]}\n  - crash: {how: nmi}\n  - wait: {carrier: n0, state: down}",
        "22:11: 'sender' is to send, but step 5 crashed the guest; move it before the crash",
        "22:11: datagrams of this send cannot be told from those of 'sender'; give it another `seed`",
        "23:10: the guest is to run a command, but step 5 crashed the guest; move it before the crash",
        "24:12: a second crash, but step 5 crashed the guest; move it before the crash",
        "25:11: the guest is to see a carrier, but step 5 crashed the guest; move it before the crash",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_steps_that_cannot_happen(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
