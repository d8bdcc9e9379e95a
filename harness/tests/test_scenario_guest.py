"""Guests and endpoints that cannot be: references that lead nowhere, addresses twice, impossible pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

ROWS = [
    row(
        "unknown kernel",
        "guest:\n",
        "guest:\n  kernel: debian-6.2\n",
        "5:11: unknown kernel 'debian-6.2'; did you mean 'debian-6.12'?",
    ),
    row(
        "properties of the plan",
        "n1: {model: e1000}",
        "n1: {model: e1000, properties: {mac: x, bus: y}}",
        "7:37: property 'mac' is decided by the plan; use the NIC's own key `mac`",
        "7:45: property 'bus' is decided by the plan; remove it",
    ),
    row(
        "MTU beyond the model's",
        "  bonds:\n",
        "    n3: {model: tg3, mtu: 1501}\n  bonds:\n",
        "9:27: tg3 has no MTU of 1501; 1500 at most, or another model",
    ),
    row(
        "multicast MAC",
        "n1: {model: e1000}",
        "n1: {model: e1000, mac: '53:54:00:12:34:56'}",
        "7:29: 53:54:00:12:34:56 is a multicast address, no NIC can own it; make its first byte even; 52 is QEMU's",
    ),
    row(
        "MAC twice",
        "n1: {model: e1000}",
        "n1: {model: e1000, mac: '52:54:00:6e:70:01'}",
        "7:29: 52:54:00:6e:70:01 is the MAC of 'n0' too; give each NIC its own",
    ),
    row(
        "slave that is no NIC",
        "slaves: [n1, n2]",
        "slaves: [n1, n9]",
        "10:47: slave 'n9' is no NIC of this guest; NICs: n0, n1, n2",
    ),
    row(
        "slave twice in a bond",
        "slaves: [n1, n2]",
        "slaves: [n1, n1]",
        "10:47: 'n1' is twice in this bond; a NIC has one master",
    ),
    row(
        "slave of two bonds",
        "slaves: [n1, n2]}",
        "slaves: [n1, n2]}\n    bond1: {mode: balance-rr, slaves: [n2]}",
        "11:40: 'n2' is a slave of 'bond0' already; a NIC has one master",
    ),
    row(
        "bond over bond",
        "slaves: [n1, n2]}",
        "slaves: [n1, n2]}\n    bond1: {mode: balance-rr, slaves: [bond0]}",
        "11:40: 'bond0' is a bond; the bonding driver takes no bond as a slave: name NICs",
        "13:46: 'bond0' is a slave of 'bond1', netpoll_setup() refuses slaves; write device: bond1",
        "14:43: 'bond0' is a slave of 'bond1', netpoll_setup() refuses slaves; write device: bond1",
    ),
    row(
        "bond called like a NIC",
        "bond0: {mode",
        "n0: {mode",
        "10:5: 'n0' is a NIC already; give the bond another name",
        "12:46: device 'bond0' is no NIC or bond of the guest; devices: n0, n1, n2",
        "13:43: device 'bond0' is no NIC or bond of the guest; devices: n0, n1, n2",
        "19:20: 'n0' is a bond; name one of its slaves: n1, n2",
        "20:32: 'n0' has its link here; inject link down before waiting for it",
    ),
    row(
        "bond options",
        "slaves: [n1, n2]}",
        "slaves: [n1, n2], options: {primary: n0, miimon: 3}}",
        "10:71: primary 'n0' is no slave of 'bond0'; slaves: n1, n2",
        "10:75: 'miimon' is a key of the bond itself; move it out of options",
    ),
    row(
        "device unknown",
        "device: n0, peer: sink",
        "device: n7, peer: sink",
        "14:47: device 'n7' is no NIC or bond of the guest; devices: n0, n1, n2, bond0",
        "15:44: 'sink' is on 'n0', its peer 'sender' on 'n7'; a host endpoint listens on its peer's device",
    ),
    row(
        "device is a slave",
        "device: n0, peer: sink",
        "device: n1, peer: sink",
        "14:47: 'n1' is a slave of 'bond0', netpoll_setup() refuses slaves; write device: bond0",
        "15:44: 'sink' is on 'n0', its peer 'sender' on 'n1'; a host endpoint listens on its peer's device",
    ),
    row(
        "peer unknown",
        "peer: sink",
        "peer: snk",
        "14:57: peer 'snk' is no endpoint; did you mean 'sink'?",
    ),
    row(
        "peer of somebody else",
        "peer: sink",
        "peer: log",
        "14:57: 'log' has another peer, 'kernel'; two endpoints name each other",
        "15:54: 'sender' has another peer, 'log'; two endpoints name each other",
        "23:35: 'sender' sends to 'log', not to 'sink'; write to: log",
    ),
    row(
        "peers on one side",
        "sink: {at: host",
        "sink: {at: guest",
        "14:57: 'sender' and its peer 'sink' are both at guest; one of the two is at: guest, the other at: host",
    ),
    row(
        "peers on two devices",
        "log: {at: host, stack: netpoll, device: bond0",
        "log: {at: host, stack: netpoll, device: n0",
        "13:43: 'log' is on 'n0', its peer 'kernel' on 'bond0'; a host endpoint listens on its peer's device",
    ),
    row(
        "kernel of the host",
        "sink: {at: host, stack: netpoll",
        "sink: {at: host, stack: kernel",
        "15:27: the kernel under test is the guest's, not the host's; write stack: netpoll on the host",
        "17:18: 'sender' sends to 'sink', but the kernel's netconsole receives nothing; give the guest's endpoint stack: netpoll",
        "18:22: 'sink' is the kernel's netconsole, which receives nothing; wait at its peer",
    ),
    row(
        "drop routine of the kernel",
        "peer: log}",
        "peer: log, on_drop: queue}",
        "12:73: the kernel's netconsole has no drop routine to choose; remove on_drop, or use stack: netpoll",
    ),
    row(
        "extended on our stack",
        "peer: sink}",
        "peer: sink, extended: true}",
        "14:73: extended headers are the kernel netconsole's; set it on the endpoint with stack: kernel",
    ),
    row(
        "no IP address",
        "peer: sink}",
        "peer: sink, ip: 198.51.100}",
        "14:67: '198.51.100' is no IP address; write one like 198.51.100.10 or 2001:db8::10",
    ),
    row(
        "float for an IP address",
        "peer: sink}",
        "peer: sink, ip: 198.51}",
        '14:67: text is expected here, but YAML reads 198.51 as the number 198.51; write "198.51"',
    ),
    row(
        "IPv6 address",
        "peer: sink}",
        "peer: sink, ip: 'fe80::1'}",
        "14:67: fe80::1 is an IPv6 address, and its peer 'sink' has 198.51.100.101; give 'sink' one, too, like 2001:db8::100",
    ),
    row(
        "ip of the other side",
        "peer: sink}",
        "peer: sink, ip: 198.51.100.100}",
        "14:67: 198.51.100.100 is an address at host already; guest and host need different ones",
    ),
    row(
        "ip and port twice",
        "peer: sink}",
        "peer: sink, ip: 198.51.100.10, port: 6665}",
        "14:67: 198.51.100.10:6665 is the address of 'kernel' too; give each endpoint its own ip or port",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_guests_and_endpoints_that_cannot_be(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
