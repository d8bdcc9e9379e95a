"""netpoll_rx_run(): what frames that come together are is what they are one by one; and hooks that change something meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from guest.netpoll import Netpoll, netpoll_cleanup, netpoll_set_trap
from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.napi import netif_receive_skb_list
from guest.netpoll.netdevice import dev_close
from guest.netpoll.skbuff import SkBuff
from guest.tests.test_core_receive import PEER_MAC, frame4, options4, put
from guest.tests.wired import RECEIVER, SENDER, Wired, wired

MAC = bytes.fromhex("020000000002")


def datagrams(sizes: list[int], seed: int = 1, source: int = 6665) -> list[bytes]:
    rng = random.Random(seed)
    template = make_frame(Endpoints(PEER_MAC, MAC, SENDER.ip, RECEIVER.ip, source, 6666))
    return [template.build(rng.randbytes(size)) for size in sizes]


def payloads(frames: list[bytes]) -> list[bytes]:
    return [frame[42 : 14 + int.from_bytes(frame[16:18], "big")] for frame in frames]


def heard(
    frames: list[bytes], each: int, *, trapped: bool = False
) -> tuple[list[tuple[int, bytes]], list[bytes], dict[str, int]]:
    """What the hook had, what passed on, what was counted, for frames that came `each` at a time; 0: without netpoll_rx_run()."""
    both = wired()
    passed: list[bytes] = []
    both.net.ptype_all.append(lambda skb: passed.append(bytes(skb.data)))
    if trapped:
        netpoll_set_trap(both.net, 1)
    if not each:
        both.info(both.b).netpoll_rx_run = lambda *_: 0  # type: ignore[method-assign]
    for at in range(0, len(frames), each or 1):
        netif_receive_skb_list(both.b, frames[at : at + (each or 1)])
    return both.got, passed, {**both.b.stats, "received": both.rx.stats.received}


def wrong(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 0x41]) + frame[at + 1 :]


ODD_ONES: dict[str, Callable[[bytes], bytes]] = {
    "alike": lambda frame: frame,
    "a wrong payload": lambda frame: wrong(frame, 42),
    "a wrong UDP checksum": lambda frame: wrong(frame, 41),
    "no UDP checksum": lambda frame: frame[:40] + bytes(2) + frame[42:],
    "a wrong identification": lambda frame: wrong(frame, 19),
    "a wrong header checksum": lambda frame: wrong(frame, 24),
    "another TTL": lambda frame: put(bytearray(frame), 22, b"\x05"),
    "a fragment": lambda frame: put(bytearray(frame), 20, b"\x20\x00"),
    "a type of service": lambda frame: put(bytearray(frame), 15, b"\x10"),
    "options": lambda _: options4(),
    "TCP": lambda frame: put(bytearray(frame), 23, b"\x06"),
    "another's MAC address": lambda frame: wrong(frame, 5),
    "broadcast": lambda frame: b"\xff" * 6 + frame[6:],
    "another MAC address of the peer": lambda frame: wrong(frame, 11),
    "another port of the peer": lambda frame: put(bytearray(frame), 34, b"\x11\x12", fix_udp=True),
    "a port that is nobody's": lambda frame: put(bytearray(frame), 36, b"\x11\x12", fix_udp=True),
    "another address": lambda frame: put(bytearray(frame), 30, b"\x0a\0\0\x09", fix_udp=True),
    "a UDP length beyond": lambda frame: put(bytearray(frame), 38, b"\x00\xff"),
    "padding": lambda frame: frame + bytes(9),
    "an end too early": lambda frame: frame[:-1],
    "an odd payload": lambda _: bytes(frame4(b"odd")),
    "hardly a frame": lambda frame: frame[:17],
    "ARP": lambda frame: frame[:12] + b"\x08\x06" + frame[14:],
}


@pytest.mark.parametrize("trapped", [False, True], ids=["", "trapped"])
@pytest.mark.parametrize("change", ODD_ONES.values(), ids=ODD_ONES)
def test_one_among_others(change: Callable[[bytes], bytes], trapped: bool) -> None:
    frames = datagrams([18] * 9)
    frames[0], frames[4], frames[8] = (change(frames[at]) for at in (0, 4, 8))
    one_by_one = heard(frames, 0, trapped=trapped)
    assert heard(frames, 9, trapped=trapped) == one_by_one
    assert heard(frames[1:], 8, trapped=trapped) == heard(frames[1:], 0, trapped=trapped)
    assert len(one_by_one[0]) >= 6


def test_frames_from_a_seed_mixed_and_in_bursts_of_each_size() -> None:
    rng = random.Random(23)
    sizes = [rng.choice((0, 1, 17, 18, 1472)) for _ in range(40)] + [18] * 100
    frames = datagrams(sizes) + datagrams([18] * 20, source=7777)
    for at in rng.sample(range(len(frames)), 60):
        frames[at] = rng.choice(list(ODD_ONES.values()))(frames[at])
    rng.shuffle(frames)
    one_by_one = heard(frames, 0)
    assert len(one_by_one[0]) > 90
    assert all(heard(frames, each) == one_by_one for each in (1, 2, 16, 64, 160))


def test_frames_alike_are_taken_together() -> None:
    both = wired()
    frames = datagrams([19] * 64)
    run = both.info(both.b).netpoll_rx_run
    assert run(frames, 0) == 0, "the first of a flow goes the whole way"
    netif_receive_skb_list(both.b, frames[:1])
    assert run(frames, 1) == 63
    assert [data for _, data in both.got] == payloads(frames)
    assert {port for port, _ in both.got} == {6665}


def acting(do: Callable[[Wired], None]) -> tuple[Wired, list[bytes], list[bytes]]:
    """The hook does something at the third of ten; what it had, and what passed on."""
    both = wired()
    had: list[bytes] = []
    passed: list[bytes] = []

    def hook(np: Netpoll, _port: int, data: bytes) -> None:
        assert isinstance(np.rx_skb, SkBuff)
        assert data in bytes(np.rx_skb.data)
        had.append(data)
        if len(had) == 3:
            do(both)

    both.rx.rx_hook = hook
    both.net.ptype_all.append(lambda skb: passed.append(bytes(skb.data)))
    netif_receive_skb_list(both.b, datagrams([18] * 10))
    assert both.rx.rx_skb is None
    return both, had, passed


def test_a_hook_that_ends_its_client_hears_no_more() -> None:
    _, had, passed = acting(lambda both: netpoll_cleanup(both.rx))
    assert len(had) == 3
    assert len(passed) == 7


def test_a_hook_that_closes_the_device_hears_no_more() -> None:
    _, had, passed = acting(lambda both: dev_close(both.b))
    assert len(had) == 3
    assert passed == []


def test_a_hook_that_raises_is_counted_and_the_rest_goes_on() -> None:
    def fail(_both: Wired) -> None:
        raise RuntimeError("in a hook")

    both, had, _ = acting(fail)
    assert len(had) == 10
    assert both.rx.stats.hook_errors == 1
    assert both.rx.stats.received == 10


def test_a_hook_that_is_replaced_hears_the_next() -> None:
    heard_after: list[bytes] = []

    def replace(both: Wired) -> None:
        both.rx.rx_hook = lambda _np, _port, data: heard_after.append(data)

    _, had, _ = acting(replace)
    assert len(had) == 3
    assert len(heard_after) == 7
