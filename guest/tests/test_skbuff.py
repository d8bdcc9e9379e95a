"""sk_buff: ownership, kinds of frames, and the emergency pool when memory runs out."""

import pytest

from guest.netpoll import Net, NetDevice, netpoll_send_udp
from guest.netpoll.skbuff import (
    MAX_SKB_SIZE,
    MAX_SKBS,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    SkbError,
    SkbPool,
    SkBuff,
    eth_type_trans,
    kfree_skb,
    skb_clone,
    skb_get,
    skb_shared,
)
from guest.tests.wired import wired


def no_memory(*_: object) -> SkBuff:
    raise MemoryError


def test_an_skb_is_freed_exactly_once() -> None:
    skb = SkBuff(b"frame")
    kfree_skb(skb)
    with pytest.raises(SkbError, match="freed twice"):
        kfree_skb(skb)


def test_a_reference_makes_it_shared_until_given_back() -> None:
    skb = SkBuff(b"frame")
    skb_get(skb)
    assert skb_shared(skb)
    kfree_skb(skb)
    assert not skb_shared(skb)


def test_a_clone_has_a_life_of_its_own() -> None:
    skb = SkBuff(b"frame", protocol=0x800)
    skb.ip_summed, skb.pkt_type = 1, PACKET_OTHERHOST
    clone = skb_clone(skb)
    kfree_skb(skb)
    assert (clone.data, clone.protocol, clone.ip_summed, clone.pkt_type, clone.users) == (b"frame", 0x800, 1, 3, 1)


OURS = bytes.fromhex("020000000001")
KINDS = [
    (OURS, PACKET_HOST),
    (b"\xff" * 6, PACKET_BROADCAST),
    (bytes.fromhex("333300000001"), PACKET_MULTICAST),
    (bytes.fromhex("020000000002"), PACKET_OTHERHOST),
]


@pytest.mark.parametrize(("dst", "kind"), KINDS, ids=["host", "broadcast", "multicast", "otherhost"])
def test_eth_type_trans(dst: bytes, kind: int) -> None:
    skb = SkBuff(dst + bytes(6) + b"\x86\xdd")
    dev = NetDevice(Net(), "eth0", OURS)
    assert eth_type_trans(skb, dev) == skb.protocol == 0x86DD
    assert (skb.pkt_type, skb.dev) == (kind, dev)


@pytest.mark.parametrize("frame", [b"", b"\x02", bytes(13)], ids=["empty", "one octet", "no ethertype"])
def test_eth_type_trans_of_a_runt(frame: bytes) -> None:
    skb = SkBuff(frame)
    eth_type_trans(skb, NetDevice(Net(), "eth0", OURS))
    assert skb.pkt_type == PACKET_OTHERHOST


def test_pool_serves_when_memory_is_out_and_refills_when_it_is_back() -> None:
    pool = SkbPool()
    assert pool.refill_skbs() == MAX_SKBS
    real, pool.alloc = pool.alloc, no_memory
    skbs = [pool.find_skb(100) for _ in range(MAX_SKBS)]
    assert all(skb is not None and len(skb) == 100 for skb in skbs)
    assert (len(pool), pool.used) == (0, MAX_SKBS)
    assert pool.find_skb(100) is None
    assert pool.refill_skbs() == 0
    pool.alloc = real
    assert pool.refill_skbs() == MAX_SKBS


def test_a_pool_skb_has_a_fixed_size() -> None:
    pool = SkbPool()
    pool.refill_skbs()
    pool.alloc = no_memory
    assert pool.find_skb(MAX_SKB_SIZE + 1) is None
    assert len(pool) == MAX_SKBS


def test_sending_without_memory_uses_the_pool_then_drops_and_process_context_refills() -> None:
    wire = wired(tx_ring=64)
    pool = wire.net.skb_pool
    real, pool.alloc = pool.alloc, no_memory
    messages = [b"%d" % n for n in range(MAX_SKBS + 3)]
    results = [netpoll_send_udp(wire.tx, msg) for msg in messages]
    assert results == [0] * MAX_SKBS + [1] * 3
    assert (wire.tx.stats.sent, wire.tx.stats.dropped) == (MAX_SKBS, 3)
    wire.interrupts()
    assert wire.payloads() == messages[:MAX_SKBS]
    pool.alloc = real
    wire.net.context.run_work()
    assert len(pool) == MAX_SKBS


def test_setup_fills_the_pool() -> None:
    assert len(wired().net.skb_pool) == MAX_SKBS
