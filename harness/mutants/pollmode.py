"""Defects of our poll-mode drivers: what they do to rings, registers and interrupts, done wrongly.

In: guest.netpoll.drivers.pmd. Out: a table. Rule: as in drivers; the chip that the driver meets is the model that `harness/nic` serves to QEMU, too.
"""

from __future__ import annotations

from array import array
from typing import Any, cast

from guest.netpoll.layout.bcm5787 import Reg as Tg3Reg
from guest.netpoll.layout.e1000 import Reg
from guest.netpoll.netdevice import NetdevTx
from guest.netpoll.skbuff import SkBuff
from harness.mutants.defect import Break, Defect, each

PMD = "guest.netpoll.drivers.pmd"
BASE = f"{PMD}.device.PollModeDevice"
E1000, TG3, VIRTIO = f"{PMD}.e1000.E1000", f"{PMD}.tg3.Tg3", f"{PMD}.virtio_net.VirtioNet"


def _pmd(case: str) -> tuple[str, str, str]:
    """The testcase on each NIC."""
    e1000, virtio, tg3 = (f"pmd/{case}[nic={nic}]" for nic in ("e1000", "virtio-net", "tg3"))
    return e1000, virtio, tg3


SEND, SEND_VIRTIO, SEND_TG3 = _pmd("send")
ECHO, ECHO_VIRTIO, ECHO_TG3 = _pmd("receive")
RING, _, _ = _pmd("ring-runs-out")
CRASHED, CRASHED_VIRTIO, CRASHED_TG3 = _pmd("crashed")
CUT, CUT_VIRTIO, _ = _pmd("link-cut")


def _nothing(_sound: Any) -> Any:
    return lambda *_args: None


def _becomes(value: Any) -> Break:
    return lambda _sound: value


def _bell_first(sound: Any) -> Any:
    """The tail is moved, and the descriptor that it gives away written afterwards."""

    def hard_start_xmit(self: Any, skb: SkBuff) -> NetdevTx:
        if self.tx.free() < 2:
            return cast(NetdevTx, sound(self, skb))
        self.tx.next_to_use += 1
        self.doorbell()
        self.tx.next_to_use -= 1
        self.xmit_more = True
        status: NetdevTx = sound(self, skb)
        self.xmit_more = False
        return status

    return hard_start_xmit


def _bell_forgotten(nth: int) -> Break:
    def broken(sound: Any) -> Any:
        due = each(nth)
        return lambda self: None if due() else sound(self)

    return broken


def _deaf(nth: int) -> Break:
    """A doorbell of direct.py's that is not heard now and then."""

    def broken(sound: Any) -> Any:
        class Deaf:
            def __init__(self, real: Any) -> None:
                self.real, self.due = real, each(nth)

            def __setitem__(self, at: int, value: int) -> None:
                if not self.due():
                    self.real[at] = value

        return lambda store, *rest: sound(Deaf(store), *rest)

    return broken


def _index_first(sound: Any) -> Any:
    """Of a message that is sent directly: the index is moved, and the frame that it gives away written afterwards."""

    def make(np: Any, dev: Any, npinfo: Any, tx: Any, template: Any) -> Any:
        inner, ring = sound(np, dev, npinfo, tx, template), tx.ring

        def xmit(msg: bytes) -> bool:
            if not dev.xoff and ring.next_to_use < ring.room and dev.xmit_lock.acquire(False):
                tx.index[tx.at] = ring.next_to_use + 1 & tx.wrap
                dev.xmit_lock.release()
            return bool(inner(msg))

        return xmit

    return make


def _never_odd(sound: Any) -> Any:
    return lambda self, size: (*sound(self, size)[:-1], False)


def _stale_status(sound: Any) -> Any:
    """Given back with DD still set: the descriptor looks as if a frame had come already."""
    due = each(20)

    def give_back(self: Any, first: int, count: int) -> None:
        if not due():
            sound(self, first, count)
            return
        self.rx.next_to_clean += count
        self.rx.next_to_use += count
        self.regs.write32(Reg.RDT, self.rx.next_to_use & self.rx.mask)

    return give_back


def _never_refilled(_sound: Any) -> Any:
    def give_back(self: Any, first: int, count: int) -> None:
        self._rx_words[2 * first + 1 : 2 * (first + count) : 2] = memoryview(array("Q", bytes(8 * count)))
        self.rx.next_to_clean += count

    return give_back


def _one_short(sound: Any) -> Any:
    due = each(50)
    return lambda self, slot, size: sound(self, slot, size - due())


def _never_asked(_sound: Any) -> Any:
    """No used index is named at which the device is to interrupt."""
    return lambda self, used: (self.used[1] - self.seen) & 0xFFFF > (used - self.seen) & 0xFFFF


def _unheard(register: int) -> Break:
    """A doorbell that this driver never rings."""

    def broken(sound: Any) -> Any:
        def clean_run(self: Any, budget: int) -> int:
            regs, write = self.regs, self.regs.write32
            regs.write32 = lambda at, value: None if at == register else write(at, value)
            try:
                return cast(int, sound(self, budget))
            finally:
                regs.write32 = write

        return clean_run

    return broken


def _left_on(_sound: Any) -> Any:
    """The crash is taken notice of, and nothing is turned off."""

    def interrupts_off(self: Any) -> None:
        self._polled_alone = True

    return interrupts_off


TABLE = (
    Defect("an e1000's sent descriptors are never taken back", f"{E1000}.clean_tx", _nothing, RING, "delivered"),
    Defect("a tg3's sent descriptors are never taken back", f"{TG3}.clean_tx", _nothing, CRASHED_TG3, "delivered"),
    Defect("a virtio-net's sent buffers are never taken back", f"{VIRTIO}.clean_tx", _nothing, CRASHED_VIRTIO, "delivered"),
    Defect("the tail is written before the descriptor", f"{BASE}.hard_start_xmit", _bell_first, SEND, "delivered"),
    Defect("a virtio-net is not told of each tenth frame", f"{PMD}.virtio_net.Bell", _deaf(10), SEND_VIRTIO, "delivered"),
    Defect("a batch's or a last descriptor's bell is forgotten on a virtio-net", f"{VIRTIO}.doorbell", _bell_forgotten(1), CRASHED_VIRTIO, "delivered"),
    Defect("a direct message's tail is written before its frame", "guest.netpoll.direct._make", _index_first, SEND, "delivered"),
    Defect("a direct message of an odd length has the checksum of an even one", "guest.netpoll.frame.FrameV4.shape", _never_odd, SEND_TG3, "checksums"),
    Defect("a tg3's descriptor says one octet too few", f"{TG3}.fill", _one_short, SEND_TG3, "delivered"),
    Defect("a poll-mode driver never wakes its queue", f"{PMD}.device.netif_wake_queue", _nothing, CRASHED, "delivered"),
    Defect("after a crash interrupts stay as they were", f"{BASE}._interrupts_off", _left_on, CRASHED, "uninterrupted"),
    Defect("an e1000's interrupts are not masked where it is polled", f"{E1000}.irq_mask", _nothing, CRASHED, "uninterrupted"),
    Defect("a virtio-net's interrupts are not masked where it is polled", f"{VIRTIO}.irq_mask", _nothing, CRASHED_VIRTIO, "uninterrupted"),
    Defect("a tg3's interrupts are not masked where it is polled", f"{TG3}.irq_mask", _nothing, CRASHED_TG3, "uninterrupted"),
    Defect("an e1000's link interrupt is ignored", f"{PMD}.e1000._LSC", _becomes(0), CUT, "carrier_follows"),
    Defect("a virtio-net's new configuration is ignored", f"{PMD}.virtio_net._ISR_CONFIG", _becomes(0), CUT_VIRTIO, "carrier_follows"),
    Defect("an e1000's receive ring is never refilled", f"{E1000}._give_back", _never_refilled, ECHO, "echoed"),
    Defect("a tg3's standard ring is never refilled", f"{TG3}._clean_run", _unheard(Tg3Reg.MAILBOX_RCV_STD_PROD_IDX), ECHO_TG3, "echoed"),
    Defect("a tg3 is never told what was taken from its return ring", f"{TG3}._clean_run", _unheard(Tg3Reg.MAILBOX_RCVRET_CON_IDX_0), ECHO_TG3, "echoed"),
    Defect("an e1000's descriptors are given back as if a frame had come", f"{E1000}._give_back", _stale_status, ECHO, "echoed"),
    Defect("a virtio-net is never asked to interrupt", f"{PMD}.virtio_pci.Virtqueue.interrupt_at", _never_asked, ECHO_VIRTIO, "echoed"),
)  # fmt: skip
