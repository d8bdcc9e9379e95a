"""The driver over a datagram socket: both ways, a full queue, an end that goes away; two of our stacks joined by one pair."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from guest.netpoll import Net, Netpoll, netpoll_parse_options, netpoll_send_udp, netpoll_setup
from guest.netpoll.core import RxHook
from guest.netpoll.drivers.dgram import DgramDevice
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import NETDEV_TX_BUSY, NETDEV_TX_OK, dev_open, register_netdev, unregister_netdev
from guest.netpoll.send import NET_XMIT_SUCCESS
from guest.netpoll.skbuff import SkBuff

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FRAME = THERE + HERE + b"\x88\xb5" + bytes(range(50))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, far:
        far.settimeout(5)
        yield ours, far


@contextmanager
def device(sock: socket.socket, mac: bytes = HERE) -> Iterator[DgramDevice]:
    dev = DgramDevice(Net(), "wire0", mac, sock)
    register_netdev(dev)
    dev_open(dev)
    try:
        yield dev
    finally:
        unregister_netdev(dev)


def xmit(dev: DgramDevice, frame: bytes = FRAME) -> int:
    return dev.hard_start_xmit(SkBuff(frame, dev))


def test_a_frame_is_a_datagram_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[tuple[bytes, int]] = []
    with device(pair[0]) as dev, Loop(dev.net) as loop:
        dev.net.ptype_all.append(lambda skb: got.append((bytes(skb.data), skb.protocol)))
        assert xmit(dev) == NETDEV_TX_OK
        assert pair[1].recv(2000) == FRAME
        pair[1].send(FRAME)
        pair[1].send(FRAME + b"!")
        loop.run_until(lambda: len(got) == 2, 5, "two frames")
    assert got == [(FRAME, 0x88B5), (FRAME + b"!", 0x88B5)]


def test_a_full_queue_stops_ours_and_room_wakes_it(pair: tuple[socket.socket, socket.socket]) -> None:
    with device(pair[0]) as dev, Loop(dev.net) as loop:
        taken = 0
        while xmit(dev) == NETDEV_TX_OK:
            taken += 1
        assert dev.xoff
        assert dev.stats["tx_stopped"] == 1
        assert [pair[1].recv(2000) for _ in range(taken)] == [FRAME] * taken, "what was taken arrives"
        loop.run_until(lambda: not dev.xoff, 5, "the queue's waking")
        assert xmit(dev) == NETDEV_TX_OK


def test_an_end_that_closed_is_a_carrier_that_goes_with_the_next_frame(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with device(pair[0]) as dev, Loop(dev.net) as loop:
        pair[1].close()
        assert xmit(dev) == NETDEV_TX_BUSY
        assert dev.operstate == "down"
        assert not loop.run_once(0), "nobody is called again and again"


def client(net: Net, name: str, ends: str, rx_hook: RxHook | None = None) -> Netpoll:
    np = Netpoll(net, name, rx_hook=rx_hook)
    netpoll_parse_options(np, ends)
    netpoll_setup(np, timeout=5)
    return np


def test_two_stacks_speak_over_one_pair(pair: tuple[socket.socket, socket.socket]) -> None:
    heard: list[bytes] = []
    with device(pair[0]) as near, device(pair[1], THERE) as far, Loop(far.net) as loop:
        sender = client(near.net, "near", "6665@10.9.0.1/wire0,6666@10.9.0.2/02:00:00:00:00:02")
        client(
            far.net,
            "far",
            "6666@10.9.0.2/wire0,6665@10.9.0.1/02:00:00:00:00:01",
            lambda _np, _port, data: heard.append(bytes(data)),
        )
        messages = [bytes([number]) * (number + 1) for number in range(100)]
        assert [netpoll_send_udp(sender, message) for message in messages] == [NET_XMIT_SUCCESS] * 100
        loop.run_until(lambda: len(heard) == 100, 5, "100 messages")
    assert heard == messages
