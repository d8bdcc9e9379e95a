"""A bond of ours over two poll-mode drivers, each on its device model, in one process: what two NICs do to one frame."""

from __future__ import annotations

from collections import Counter

import pytest

from guest.netpoll import Net, Netpoll, netpoll_send_udp, netpoll_setup
from guest.netpoll.bonding import Bond
from guest.netpoll.bonding.slave import Link
from guest.netpoll.core import NetpollInfo
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import dev_close, register_netdev
from harness.nic.faults import Setting
from harness.nic.inprocess import Clock, Slot, Tape
from harness.tests.pmd_rig import DRIVERS, HERE, PEER, PEER_PORT, PORT, THERE, frame_to

MACS = bytes.fromhex("525400aabb01"), bytes.fromhex("525400aabb03")


class Bonded:
    """`tapes`: what left by each NIC. `got`: payloads at the rx_hook."""

    def __init__(self, model: str, mode: str) -> None:
        self.clock, self.tapes = Clock(), (Tape(), Tape())
        self.slots = [Slot(model, mac, tape, self.clock) for mac, tape in zip(MACS, self.tapes, strict=True)]
        self.net = Net(self.clock.context())
        self.devs: list[PollModeDevice] = [
            DRIVERS[model](self.net, f"eth{n}", slot) for n, slot in enumerate(self.slots)
        ]
        self.bond = Bond(self.net, "bond0", mode)
        register_netdev(self.bond)
        for dev in self.devs:
            register_netdev(dev)
            self.bond.enslave(dev)
        self.loop = Loop(self.net)
        self.got: list[bytes] = []
        self.np = Netpoll(self.net, rx_hook=self._hook, dev_name="bond0", local_ip=HERE, remote_ip=THERE, remote_mac=PEER,
                          local_port=PORT, remote_port=PEER_PORT)  # fmt: skip
        netpoll_setup(self.np, require_carrier=False, timeout=0)
        while not all(slave.is_up and slave.link is Link.UP for slave in self.bond.slaves):
            assert self.clock.now < 20, "both slaves up"
            self.clock.advance(0.01)
            self.serve()

    def _hook(self, _np: Netpoll, _port: int, data: bytes) -> None:
        self.got.append(data)

    def serve(self) -> None:
        for _ in range(1000):
            if not self.loop.run_once(0):
                return
        raise AssertionError("the loop has not come to rest in 1000 turns")

    def flood(self, frame: bytes) -> None:
        """As a switch does that has not learned whose the address is."""
        for slot in self.slots:
            slot.chip.receive(frame)
            slot.chip.settle()

    def close(self) -> None:
        assert [slot.faults for slot in self.slots] == [[], []], "no DMA outside what was allocated"
        dev_close(self.bond)
        for dev in self.devs:
            self.bond.release(dev)
        self.loop.close()
        for dev in self.devs:
            dev.release()


@pytest.fixture(params=DRIVERS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def messages(tape: Tape) -> list[bytes]:
    """Of the UDP datagrams that left, without the MAC's padding."""
    frames = [frame for frame in tape.sent if frame[12:14] == b"\x08\x00"]
    return [frame[42 : 34 + int.from_bytes(frame[38:40], "big")] for frame in frames]


def with_a_full_ring(model: str) -> tuple[Bonded, int]:
    """In broadcast, its first device doing no DMA; how many messages that took."""
    bonded, sent = Bonded(model, "broadcast"), 0
    bonded.slots[0].chip.fault("no-dma", Setting())
    while not bonded.devs[0].xoff:
        assert netpoll_send_udp(bonded.np, b"%d" % sent) == 0
        sent += 1
    return bonded, sent


def test_a_broadcast_leaves_by_both_though_one_ring_is_full_and_another_cpu_in_its_poll_routine(model: str) -> None:
    """The other slave's success made the full one's copy nobody's: it was polled once, and then it was lost."""
    bonded, sent = with_a_full_ring(model)
    full, (first, second) = bonded.devs[0], bonded.tapes
    bonded.slots[0].chip.fault("no-dma", None)
    npinfo, waits, delay = full.npinfo, Counter[str](), bonded.net.context.delay
    assert isinstance(npinfo, NetpollInfo)
    npinfo.poll_lock.acquire()

    def until_it_leaves(seconds: float) -> None:
        delay(seconds)
        waits["udelay"] += 1
        if waits["udelay"] == 5:
            npinfo.poll_lock.release()

    bonded.net.context.delay = until_it_leaves
    assert netpoll_send_udp(bonded.np, b"%d" % sent) == 0
    assert waits["udelay"] == 5
    assert messages(first) == messages(second) == [b"%d" % number for number in range(sent + 1)]
    bonded.close()


def test_a_broadcast_s_copy_waits_for_a_device_that_goes_on_later(model: str) -> None:
    bonded, sent = with_a_full_ring(model)
    first, second = bonded.tapes
    for number in range(sent, sent + 10):
        assert netpoll_send_udp(bonded.np, b"%d" % number) == 0
    wanted = [b"%d" % number for number in range(sent + 10)]
    assert messages(second) == wanted
    assert messages(first) == []
    bonded.slots[0].chip.fault("no-dma", None)
    bonded.clock.advance(0.2)
    bonded.serve()
    assert messages(first) == wanted
    bonded.close()


@pytest.mark.parametrize("mode", ["active-backup", "balance-tlb", "balance-alb"])
def test_what_a_switch_floods_is_handed_up_once(model: str, mode: str) -> None:
    bonded = Bonded(model, mode)
    payloads = [b"%d" % number for number in range(50)]
    for payload in payloads:
        bonded.flood(frame_to(bonded.bond.dev_addr, payload))
        bonded.serve()
    assert bonded.got == payloads
    bonded.close()
