"""A traced device works as the bare one, and its capture says what went over it."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import images
from guest.netpoll import (
    Net,
    NetdevTx,
    Netpoll,
    netpoll_cleanup,
    netpoll_poll,
    netpoll_queue,
    netpoll_send_udp,
    netpoll_setup,
)
from guest.netpoll.drivers.loopback import Cable, LoopbackDevice, wire_pair
from guest.netpoll.loop import Loop
from guest.netpoll.middleware.pcapng import Direction, Writer
from guest.netpoll.middleware.pcapng_read import read_file
from guest.netpoll.middleware.trace import TraceDevice, pcapng_record
from guest.netpoll.netdevice import NetDevice, dev_close, dev_open, unregister_netdev
from guest.netpoll.skbuff import SkBuff

A, B = ipaddress.IPv4Address("10.0.0.1"), ipaddress.IPv4Address("10.0.0.2")


class Recorded:
    """A record function that keeps what it is given; its clock counts calls."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes, Direction]] = []
        self.time = 0

    def __call__(self, now: int, frame: bytes, direction: Direction) -> None:
        self.frames.append((now, frame, direction))

    def clock(self) -> int:
        self.time += 1
        return self.time

    def payloads(self, direction: Direction) -> list[bytes]:
        return [frame[42:] for _, frame, way in self.frames if way is direction]


@contextmanager
def two_clients(net: Net) -> Iterator[tuple[Netpoll, Netpoll, list[bytes], list[bytes]]]:
    """A client on each end of wire0-wire1, what each received, in `net`."""
    got_a: list[bytes] = []
    got_b: list[bytes] = []
    a = Netpoll(
        net, "a", dev_name="wire0", local_ip=A, remote_ip=B, rx_hook=lambda _np, _port, data: got_a.append(data)
    )
    b = Netpoll(
        net, "b", dev_name="wire1", local_ip=B, remote_ip=A, rx_hook=lambda _np, _port, data: got_b.append(data)
    )
    a.local_port, a.remote_port = b.remote_port, b.local_port = 1000, 2000
    for np in (a, b):
        netpoll_setup(np)
    try:
        yield a, b, got_a, got_b
    finally:
        for np in (a, b):
            netpoll_cleanup(np)


@pytest.mark.parametrize("napi", [True, False], ids=["NAPI", "netif_rx"])
def test_frames_pass_and_are_recorded_once(napi: bool) -> None:
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net, napi=napi)
    outer = TraceDevice(inner, record, record.clock)
    assert net.devices["wire0"] is outer
    with Loop(net) as loop, two_clients(net) as (a, b, got_a, got_b):
        netpoll_send_udp(a, b"out")
        loop.run_until(lambda: got_b == [b"out"], 5, "the frame at the other end")
        netpoll_send_udp(b, b"in 1")
        netpoll_send_udp(b, b"in 2")
        loop.run_until(lambda: len(got_a) == 2, 5, "the frames back")
    assert record.payloads(Direction.OUTBOUND) == [b"out"]
    assert record.payloads(Direction.INBOUND) == [b"in 1", b"in 2"] == got_a
    assert [now for now, _, _ in record.frames] == [1, 2, 3]


def test_a_refused_frame_is_not_recorded() -> None:
    """Two descriptors: the third frame finds the queue stopped; it is recorded when it is sent, after the poll."""
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net, tx_ring=2)
    outer = TraceDevice(inner, record, record.clock)
    with Loop(net), two_clients(net) as (a, _b, _, _):
        for message in (b"1", b"2"):
            netpoll_send_udp(a, message)
        assert outer.xoff
        assert inner.xoff
        outer.xmit_lock_owner = 0
        assert outer.hard_start_xmit(SkBuff(b"refused", outer)) is not NetdevTx.OK
        assert record.payloads(Direction.OUTBOUND) == [b"1", b"2"]
        netpoll_send_udp(a, b"3")  # polls the descriptors free
    assert record.payloads(Direction.OUTBOUND) == [b"1", b"2", b"3"]
    assert a.stats.polled > 0


def test_netpoll_polls_through_it_after_a_crash() -> None:
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net)
    TraceDevice(inner, record, record.clock)
    with two_clients(net) as (a, b, got_a, _):
        net.context.crash()
        netpoll_send_udp(b, b"to the dead")
        assert got_a == []
        netpoll_poll(a)
        assert got_a == [b"to the dead"]
        netpoll_send_udp(a, b"last words")
    assert record.payloads(Direction.INBOUND) == [b"to the dead"]
    assert record.payloads(Direction.OUTBOUND) == [b"last words"]


def test_queue_stop_carrier_and_wake_show_through() -> None:
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net)
    outer = TraceDevice(inner, record, record.clock)
    with Loop(net) as loop, two_clients(net) as (a, _b, _, got_b):
        a.drop = netpoll_queue
        outer.npinfo.max_retries = outer.npinfo.tries = 3  # type: ignore[union-attr]  # a NetpollInfo
        inner.cable.set_link(False)
        loop.run_until(lambda: not outer.carrier, 5, "carrier off")
        assert outer.xoff
        netpoll_send_udp(a, b"queued")
        assert a.stats.queued == 1
        inner.cable.set_link(True)
        loop.run_until(lambda: got_b == [b"queued"], 5, "the queued frame")
        assert outer.carrier
        assert a.stats.late == 1
    assert record.payloads(Direction.OUTBOUND) == [b"queued"]


def test_an_inner_device_that_vanishes_takes_the_outer_along() -> None:
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net)
    outer = TraceDevice(inner, record, record.clock)
    with two_clients(net) as (a, _b, _, _):
        unregister_netdev(inner)
        assert a.dev is None
    assert "wire0" not in net.devices
    assert not outer.present
    assert not outer.running


def test_tracers_stack() -> None:
    net, below, above = Net(), Recorded(), Recorded()
    inner, _ = wire_pair(net)
    top = TraceDevice(TraceDevice(inner, below, below.clock), above, above.clock)
    assert net.devices["wire0"] is top
    with Loop(net) as loop, two_clients(net) as (a, b, got_a, got_b):
        netpoll_send_udp(a, b"x")
        netpoll_send_udp(b, b"y")
        loop.run_until(lambda: bool(got_a and got_b), 5, "one frame each way")
    assert [frame[1:] for frame in below.frames] == [frame[1:] for frame in above.frames]
    assert len(above.frames) == 2


def test_an_open_device_is_refused() -> None:
    net = Net()
    dev: NetDevice = LoopbackDevice(net, "x", bytes(6), Cable())
    dev_open(dev)
    with pytest.raises(ValueError, match="x is in use already"):
        TraceDevice(dev, Recorded(), lambda: 0)
    dev_close(dev)


def test_tshark_finds_no_fault_with_the_capture(tmp_path: Path, tools: images.Tools) -> None:
    path = tmp_path / "trace.pcapng"
    net, record = Net(), Recorded()
    inner, _ = wire_pair(net)
    with Writer.create(path) as writer:
        TraceDevice(inner, pcapng_record(writer, inner, "one end"), record.clock)
        with Loop(net) as loop, two_clients(net) as (a, b, got_a, got_b):
            for size in (0, 1, 17, 18, 100, 1471, 1472):
                netpoll_send_udp(a, bytes(size))
                netpoll_send_udp(b, b"\xff" * size)
            loop.run_until(lambda: len(got_a) == len(got_b) == 7, 5, "all frames")
    assert len(read_file(path)) == 14
    command = [*tools.argv("tshark"), "-r", str(path), "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    command += ["-T", "fields"]
    command += ["-E", "separator=|", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "udp.length"]
    command += ["-e", "_ws.malformed", "-e", "_ws.expert.message"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes = [size for size in (0, 1, 17, 18, 100, 1471, 1472) for _ in "ab"]
    assert sorted(done.stdout.splitlines()) == sorted(f"1|1|{size + 8}||" for size in sizes)
