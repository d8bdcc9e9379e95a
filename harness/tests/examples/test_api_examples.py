"""Three things that YAML cannot say: to go on until something happens, to decide by what was seen, to compute an expectation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.api.guest import Bond, Flow, Guest, Nic
from harness.judge.model import Verdict

pytestmark = pytest.mark.guest


def test_last_words_after_as_many_failovers_as_there_are_slaves(
    guest: Guest,
    nic: Callable[..., Nic],
    bond: Callable[..., Bond],
    netconsole: Callable[..., Flow],
    link: Callable[[Nic, bool], None],
    crash: Callable[..., None],
    judged: Callable[..., Verdict],
) -> None:
    """Every slave but the last loses its link, one after the other; then the kernel panics."""
    joined = bond("active-backup", nic(), nic(), nic())
    log = netconsole(joined)
    for number, slave in enumerate(joined.slaves[:-1]):
        link(slave, False)
        assert guest.wait(carrier=slave.id, state="down")
        assert guest.wait(console=rf"eth{number + 1}\): making interface the new active one")
        guest.kmsg(log, 40, interval=0.01, label=f"after-{slave.id}")  # netpoll sends again some 0.1 s after a failover
    crash("sysrq-c")
    judged({"parity": {"to": log.receiver}})


def test_messages_while_a_link_flaps_until_one_was_dropped(
    guest: Guest,
    nic: Callable[..., Nic],
    netpoll: Callable[..., Flow],
    link: Callable[[Nic, bool], None],
    judged: Callable[..., Verdict],
) -> None:
    """The cable is out a little longer each time, until the drop routine was called."""
    wire = nic("virtio-net")
    flow = netpoll(wire, sends={"all": {"count": 1500, "interval": 0.01}})
    guest.send("all", background=True)
    assert guest.wait(received=flow.receiver, count=20)
    for _ in range(5):
        link(wire, False)
        dropped = guest.wait(dropped=flow.sender, count=10, within=5)
        link(wire, True)
        if dropped:
            break
    assert guest.wait(carrier=wire.id, state="up")
    assert guest.wait(sent="all", within=60)
    lost = 1500 - len(guest.received(flow))
    assert lost >= 10
    judged({"delivered": {"from": flow.sender, "to": flow.receiver, "except_dropped": True, "except_cut": wire.id}})


def test_netconsole_speaks_after_what_the_guest_says_of_itself(
    guest: Guest, nic: Callable[..., Nic], netconsole: Callable[..., Flow], judged: Callable[..., Verdict]
) -> None:
    """As many messages as the guest has network interfaces, and then every one of them arrived."""
    guest.options["kernel"] = "debian-6.1"
    log = netconsole(nic("virtio-net"), extended=True)
    count = 10 * len(guest.run("ls", "/sys/class/net").out.split())
    guest.kmsg(log, count, interval=0.01)
    assert guest.wait(received=log.receiver, count=count)
    verdict = judged({"delivered": {"from": log.sender, "to": log.receiver, "at_least_sent": count}})
    assert verdict.checks[0].numbers["sent"] == count
