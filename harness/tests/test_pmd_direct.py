"""guest/netpoll/direct.py beside the way that each message went before: the same frames, octet for octet, and the same counters (pmd_pair.py);
and what a comparison in one thread cannot show.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from guest.netpoll import netpoll_send_udp, netpoll_send_udp_batch, netpoll_setup
from guest.netpoll.core import netpoll_cleanup
from guest.netpoll.lockdep import Checker, Rule
from guest.netpoll.tool.resolve import use
from harness.nic.inprocess import Bar
from harness.tests.pmd_pair import Pair, compare
from harness.tests.pmd_rig import DRIVERS, faultless


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", DRIVERS)
def test_the_same_frames_and_counters_as_through_hard_start_xmit(model: str, seed: int) -> None:
    assert compare(model, seed) > 1000, "it was not the direct way that was compared"


@pytest.fixture(params=DRIVERS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    yield from faultless(Pair(str(request.param), direct=True))


def test_a_direct_message_makes_no_sk_buff_and_calls_no_driver(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it leaves when there is no memory for either, without the pool."""
    pair.np.pool.alloc = lambda *_: pytest.fail("an sk_buff")
    monkeypatch.setattr(pair.dev, "hard_start_xmit", lambda _: pytest.fail("hard_start_xmit"))
    for number in range(100):
        pair.send(0, b"%d" % number)
    assert pair.payloads() == [b"%d" % number for number in range(100)]
    assert pair.np.pool.used == 0


def test_two_cpus_send_at_once_and_each_message_leaves_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever meets the other's lock waits for it on the way that there was. The model does one thing at a time, as QEMU's do."""
    bus, write, delay = threading.RLock(), Bar._write, pair.net.context.delay

    def one_at_a_time(bar: Bar, offset: int, width: int, value: int) -> None:
        with bus:
            write(bar, offset, width, value)

    def while_nobody_writes(seconds: float) -> None:
        with bus:
            delay(seconds)

    monkeypatch.setattr(Bar, "_write", one_at_a_time)
    monkeypatch.setattr(pair.net.context, "delay", while_nobody_writes)
    some = [[b"%d %d" % (client, number) for number in range(1000)] for client in (0, 1)]
    pair.npinfo.max_retries = pair.npinfo.tries = 20000
    went: list[int] = []

    def sender(client: int) -> None:
        went.extend(netpoll_send_udp(pair.clients[client], each) for each in some[client])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        cpus = [threading.Thread(target=sender, args=(client,)) for client in (0, 1)]
        for cpu in cpus:
            cpu.start()
        for cpu in cpus:
            cpu.join(60)
    finally:
        sys.setswitchinterval(before)
    pair.serve()
    assert sorted(pair.payloads()) == sorted(some[0] + some[1])
    for client in (0, 1):
        mine = [each for each in pair.payloads() if each.startswith(b"%d " % client)]
        assert mine == some[client], "in order"
    assert went == [0] * 2000
    assert not pair.dev.xmit_lock_owner


def test_the_checker_asks_of_a_direct_message_what_it_asks_of_hard_start_xmit(pair: Pair) -> None:
    checker = Checker(pair.net.context)
    checker.watch(pair.dev)
    assert netpoll_send_udp(pair.np, b"checked") == 0
    assert checker.violations == []
    with pair.net.context.local_irq_save():
        assert netpoll_send_udp(pair.np, b"in an improper context") == 0
    assert [found.rule for found in checker.violations] == [Rule.IRQS_OFF]
    checker.close()
    with pair.net.context.local_irq_save():
        assert netpoll_send_udp(pair.np, b"nobody looks") == 0
    assert len(checker.violations) == 1
    assert pair.payloads() == [b"checked", b"in an improper context", b"nobody looks"]


def test_a_peer_that_was_resolved_anew_gets_what_is_sent_directly(pair: Pair) -> None:
    """A client whose ends have changed, as netdump's do when its server answers from another port, sends nothing to the old ones."""
    mac = bytes.fromhex("020000000099")
    pair.np.remote_port = 4711
    use(pair.np, mac)
    assert netpoll_send_udp(pair.np, b"one") == 0
    assert netpoll_send_udp_batch(pair.np, [b"two"] * 3) == 3
    assert [(frame[:6], int.from_bytes(frame[36:38])) for frame in pair.tape.sent] == [(mac, 4711)] * 4


def test_nothing_is_sent_directly_for_a_client_that_is_gone_or_with_the_old_rule(pair: Pair) -> None:
    assert pair.np.direct is not None
    netpoll_cleanup(pair.np)
    assert pair.np.direct is None
    assert netpoll_send_udp(pair.np, b"too late") != 0
    pair.net.era_recursion = True
    netpoll_setup(pair.np)
    assert pair.np.direct is None, "poll_owner is not looked at there"
    assert netpoll_send_udp(pair.np, b"as in 2.6.12") == 0
    assert pair.payloads() == [b"as in 2.6.12"]
