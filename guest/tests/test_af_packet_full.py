"""AF_PACKET drivers when descriptors and buffers run out; batches, and threads that share a device."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from struct import Struct

import pytest

from guest.netpoll import (
    Net,
    Netpoll,
    netpoll_queue,
    netpoll_send_udp,
    netpoll_send_udp_batch,
)
from guest.netpoll.drivers.af_packet import AfPacketDevice
from guest.netpoll.drivers.af_packet_ring import AfPacketRingDevice
from guest.netpoll.netdevice import (
    NETIF_F_HW_CSUM,
    dev_close,
    dev_open,
)
from guest.tests.af_packet_stack import stack
from guest.tests.kernel_end import KERNEL_IP, KERNEL_MAC, OUR_IP, OURS, KernelEnd

pytestmark = pytest.mark.netns


# -- descriptors and buffers that run out -------------------------------------------------------------


def tap_that_nobody_reads(name: str) -> int:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun may not be opened here")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, Struct("16sH22x").pack(name.encode(), 0x1002))
    return fd


def read_all(fd: int) -> list[bytes]:
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(os.read(fd, 2000))
    return frames


def test_a_nic_that_takes_no_more_stops_the_queue_and_nothing_is_lost(
    netns: KernelEnd, driver: type[AfPacketDevice]
) -> None:
    """The driver's ENOBUFS - through a queueing discipline these frames would vanish without a word."""
    fd = tap_that_nobody_reads("tap0")
    with stack(driver(Net(), "tap0")) as ours:
        np = ours.client(f"6665@{OUR_IP}/tap0,6666@{KERNEL_IP}/{KERNEL_MAC}")
        ours.info().max_retries = ours.info().tries = 20
        netns.ip.link("set", index=netns.index("tap0"), txqlen=1000)
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0:
            sent += 1
        assert ours.dev.xoff
        assert ours.dev.stats["tx_stopped"] >= 1
        assert not any(events & select.EPOLLOUT for _, events in ours.dev.irq_fds())  # it would be ready at once
        taken = [frame[42:] for frame in read_all(fd) if frame[12:14] == b"\x08\x00"]
        assert taken == [b"%d" % n for n in range(len(taken))]
        assert sent - len(taken) in (0, *range(1, 256))  # what is in our ring is still ours
        assert netpoll_send_udp(np, b"there is room again") == 0
        left = [frame[42:] for frame in read_all(fd)]
        assert left[-1] == b"there is room again"
        assert len(taken) + len(left) == sent + 1
    os.close(fd)


@pytest.mark.parametrize("coalesce", [1, 64])
def test_what_a_nic_refused_leaves_when_it_takes_frames_again_though_nobody_sends(
    netns: KernelEnd, coalesce: int
) -> None:
    """Frames that stayed in the ring are rung for by the timer, not by the next send, which may never come."""
    fd = tap_that_nobody_reads("tap0")
    with stack(AfPacketRingDevice(Net(), "tap0", tx_coalesce=coalesce)) as ours:
        np = ours.client(f"6665@{OUR_IP}/tap0,6666@{KERNEL_IP}/{KERNEL_MAC}")
        ours.info().max_retries = ours.info().tries = 20
        netns.ip.link("set", index=netns.index("tap0"), txqlen=1000)
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0:
            sent += 1
        came: list[bytes] = []

        def all_came() -> bool:
            came.extend(frame[42:] for frame in read_all(fd) if frame[12:14] == b"\x08\x00")
            return len(came) >= sent

        ours.loop.run_until(all_came, 5, f"{sent} frames that were reported sent")
        assert came == [b"%d" % n for n in range(sent)]
    os.close(fd)


@pytest.mark.parametrize("rings", [False, True], ids=["calls", "rings"])
def test_frames_that_the_nic_does_not_finish_fill_buffer_or_ring(netns: KernelEnd, rings: bool) -> None:
    """A token bucket holds completed frames back, as a stalled DMA engine would: the queue really stops."""
    if not netns.throttle(OURS, rate=4000, burst=1600):
        pytest.skip("this kernel has no token bucket (sch_tbf)")
    sock = netns.udp(6666)
    net = Net()
    dev: AfPacketDevice = (
        AfPacketRingDevice(net, OURS, tx_ring=32, qdisc_bypass=False)
        if rings
        else AfPacketDevice(net, OURS, sndbuf=20_000, qdisc_bypass=False)
    )
    with stack(dev) as ours:
        np = ours.client(drop=netpoll_queue)
        ours.info().max_retries = ours.info().tries = 20
        sent = 0
        while netpoll_send_udp(np, b"%d" % sent) == 0 and sent < 1000:
            sent += 1
        assert dev.xoff
        if isinstance(dev, AfPacketRingDevice):
            assert dev.tx_status().count(0) <= 2  # the bucket goes on dripping
        assert np.stats.queued == 1
        ours.loop.run_until(lambda: np.stats.late == 1, 10, "room for what is queued")
        assert [sock.recv(10) for _ in range(sent + 1)] == [b"%d" % n for n in range(sent + 1)]


# -- batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gso", [False, True], ids=["one by one", "cut up by the kernel"])
def test_batches(netns: KernelEnd, driver: type[AfPacketDevice], gso: bool) -> None:
    sock = netns.udp(6666)
    messages = [b"%04d" % n for n in range(150)] + [b"", b"odd one", *(bytes([n]) * 1472 for n in range(100))]
    with stack(driver(Net(), OURS, gso=gso)) as ours:
        np = ours.client()
        for at in range(0, len(messages), 60):
            batch = messages[at : at + 60]
            assert netpoll_send_udp_batch(np, batch) == len(batch)
            assert [sock.recv(2000) for _ in batch] == batch
        assert np.stats.sent == len(messages)


@pytest.mark.parametrize("gso", [False, True], ids=["one by one", "or cut up"])
def test_batches_with_checksums_left_to_the_kernel(netns: KernelEnd, gso: bool) -> None:
    """To a socket that checks them: what a veth carries on is trusted, what is read off the wire there must be right to be told apart."""
    sock = netns.udp(6666)
    messages = [b"%04d" % n for n in range(150)] + [b"", b"odd", *(bytes([n]) * 1472 for n in range(100))]
    with stack(AfPacketDevice(Net(), OURS, gso=gso, csum=True)) as ours:
        np = ours.client()
        assert bool(ours.dev.features & NETIF_F_HW_CSUM)
        for at in range(0, len(messages), 60):
            batch = messages[at : at + 60]
            assert netpoll_send_udp_batch(np, batch) == len(batch)
            assert [sock.recv(2000) for _ in batch] == batch


def test_a_frame_that_is_refused_goes_the_slow_way_with_its_checksum(netns: KernelEnd) -> None:
    sock = netns.udp(6666)
    messages = [b"%04d" % n for n in range(20)]
    with stack(AfPacketDevice(Net(), OURS, csum=True)) as ours:
        np = ours.client()
        dev = ours.dev
        assert isinstance(dev, AfPacketDevice)
        assert dev._csum_sock is not None
        sending: socket.socket = dev._csum_sock

        class Full:
            """Takes seven."""

            taken = 0

            def sendmsg(self, parts: Iterable[bytes]) -> int:
                self.taken += 1
                if self.taken > 7:
                    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
                return sending.sendmsg(parts)

            def close(self) -> None:
                sending.close()

        dev._csum_sock = Full()  # type: ignore[assignment]  # a socket that fills up
        assert netpoll_send_udp_batch(np, messages) == 20
        assert [sock.recv(100) for _ in messages] == messages


def test_a_kernel_that_cannot_cut_up_is_asked_once(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    sock = netns.udp(6666)
    with stack(driver(Net(), OURS, gso=True)) as ours:
        np = ours.client()
        asked: list[bytes] = []

        class OldKernel:
            """Refuses the header type, as Linux before 6.2 does."""

            def send(self, data: bytes) -> int:
                asked.append(data)
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

            def close(self) -> None:
                pass

        assert isinstance(ours.dev, AfPacketDevice)
        real, ours.dev._gso_sock = ours.dev._gso_sock, OldKernel()  # type: ignore[assignment]  # no old kernel here
        if real is not None:
            real.close()
        for _ in range(2):
            assert netpoll_send_udp_batch(np, [b"a", b"b"]) == 2
            assert [sock.recv(10), sock.recv(10)] == [b"a", b"b"]
        assert len(asked) == 1


def test_threads_share_a_ring(netns: KernelEnd) -> None:
    """Two senders and the loop, over few descriptors: everything arrives once, each sender's in order."""
    sock = netns.udp(6666)
    sock.setblocking(False)
    room = threading.Semaphore(100)  # as many as the receiver's buffer has room for, without rights to make it larger
    got: list[bytes] = []

    def all_came() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(sock.recv(10))
                room.release()
        return len(got) == 4000

    with stack(AfPacketRingDevice(Net(), OURS, tx_ring=32, tx_coalesce=8)) as ours:
        np = ours.client()
        senders = [
            threading.Thread(target=send_numbered, args=(np, who, 2000, room), daemon=True) for who in (b"a", b"b")
        ]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 60
        while not all_came():
            assert time.monotonic() < deadline, f"4000 datagrams awaited within 60 s, {len(got)} came"
            ours.loop.run_once(0.001)
        for sender in senders:
            sender.join()
        assert np.stats.sent == 4000
    for who in (b"a", b"b"):
        assert [m for m in got if m.startswith(who)] == [b"%s%d" % (who, n) for n in range(2000)]


def send_numbered(np: Netpoll, who: bytes, count: int, room: threading.Semaphore) -> None:
    for n in range(count):
        room.acquire()
        netpoll_send_udp(np, b"%s%d" % (who, n))


def test_closing_under_a_sending_thread_harms_nobody(netns: KernelEnd, driver: type[AfPacketDevice]) -> None:
    assert netns
    errors: list[BaseException] = []

    def send_on() -> None:
        try:
            while not done.is_set():
                netpoll_send_udp(np, b"x")
        except BaseException as error:
            errors.append(error)

    done = threading.Event()
    with stack(driver(Net(), OURS)) as ours:
        np = ours.client()
        thread = threading.Thread(target=send_on)
        thread.start()
        for _ in range(20):
            dev_close(ours.dev)
            dev_open(ours.dev)
        done.set()
        thread.join()
    assert errors == []
    assert np.stats.dropped + np.stats.sent > 0


def test_coalesced_frames_leave_when_the_device_is_closed(netns: KernelEnd) -> None:
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, tx_coalesce=100)) as ours:
        netpoll_send_udp(ours.client(), b"x")
        dev_close(ours.dev)
        assert sock.recv(10) == b"x"


def test_coalesced_frames_leave_by_the_loop(netns: KernelEnd) -> None:
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, tx_coalesce=100)) as ours:
        np = ours.client()
        for n in range(5):
            netpoll_send_udp(np, b"%d" % n)
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        ours.loop.run_once(0)
        assert [sock.recv(10) for _ in range(5)] == [b"%d" % n for n in range(5)]


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_small_ring_keeps_what_is_written_and_not_rung_for(netns: KernelEnd, size: int) -> None:
    """A descriptor whose status word is not published yet is not free, also where the ring is shorter than the look ahead."""
    sock = netns.udp(6666)
    messages = [number.to_bytes(2, "big") * 20 for number in range(4 * size)]
    with stack(AfPacketRingDevice(Net(), OURS, tx_ring=size)) as ours:
        np = ours.client()
        for at in range(0, len(messages), 2 * size):  # twice around in one batch, with one doorbell wished for
            batch = messages[at : at + 2 * size]
            assert netpoll_send_udp_batch(np, batch) == len(batch)
            assert [sock.recv(100) for _ in batch] == batch


@pytest.mark.parametrize("at_once", [1, 7, 31])
def test_a_receive_ring_is_gone_around_many_times(netns: KernelEnd, at_once: int) -> None:
    """32 descriptors and 500 frames, in runs that end before, at and beyond the ring's end."""
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    messages = [b"%d" % n for n in range(500)]
    with stack(AfPacketRingDevice(Net(), OURS, rx_ring=32)) as ours:
        ours.client()
        for at in range(0, len(messages), at_once):
            for message in messages[at : at + at_once]:
                sock.sendto(message, (OUR_IP, 6665))
            ours.until_heard(min(at + at_once, len(messages)))
        assert ours.heard == [(6666, message) for message in messages]
        assert ours.dev.stats["rx_missed_errors"] == 0


def test_frames_that_find_the_receive_ring_full_are_counted(netns: KernelEnd) -> None:
    netns.neighbour(OUR_IP)
    sock = netns.udp(6666)
    with stack(AfPacketRingDevice(Net(), OURS, rx_ring=32)) as ours:
        ours.client()
        for n in range(100):
            sock.sendto(b"%d" % n, (OUR_IP, 6665))
        while ours.loop.run_once(0):
            pass
        dev_close(ours.dev)
        count = len(ours.heard)
        assert ours.heard == [(6666, b"%d" % n) for n in range(count)]
        assert 0 < count <= 32
        assert ours.dev.stats["rx_missed_errors"] >= 100 - count
