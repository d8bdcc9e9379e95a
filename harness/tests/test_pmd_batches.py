"""Batches on our poll-mode drivers: whole, in order, with one doorbell, and what becomes of those that meet a full ring."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from guest.netpoll import MessageTooLong, netpoll_send_udp, netpoll_send_udp_batch
from guest.netpoll.netdevice import NetdevTx
from guest.netpoll.skbuff import SkBuff
from harness.nic.faults import Setting
from harness.tests.pmd_rig import DRIVERS, Rig, faultless


@pytest.fixture(params=DRIVERS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from faultless(Rig(str(request.param)))


def test_batches_larger_than_the_ring_leave_whole_and_in_order(rig: Rig) -> None:
    rng = random.Random(11)
    messages = [rng.randbytes(rng.randint(0, 1472)) for _ in range(3 * rig.dev.tx.count + 7)]
    for first in range(0, len(messages), 600):
        some = messages[first : first + 600]
        assert netpoll_send_udp_batch(rig.np, some) == len(some)
    assert rig.payloads() == messages
    assert rig.np.stats.sent == len(messages)


def test_batches_of_one_length_and_of_many_and_single_messages_share_the_ring(rig: Rig) -> None:
    """A run leaves its frames close together in the buffers, and its addresses in the descriptors."""
    rng = random.Random(13)
    sent: list[bytes] = []
    for size in (18, 0, 1, 19, 1472, 1471, 18, 600):
        runs = [[rng.randbytes(size) for _ in range(rng.choice((1, 63, 300, rig.dev.tx.count + 9)))] for _ in range(3)]
        mixed = [rng.randbytes(rng.randint(0, 1472)) for _ in range(rng.randint(1, 90))]
        for messages in (*runs, mixed):
            assert netpoll_send_udp_batch(rig.np, messages) == len(messages)
            assert netpoll_send_udp(rig.np, messages[0]) == 0
            sent += [*messages, messages[0]]
    assert rig.payloads() == sent
    assert rig.np.stats.sent == len(sent)
    assert not any(sum_of(frame) % 65535 for frame in rig.tape.sent)


def sum_of(frame: bytes) -> int:
    """Of an IPv4 header, plus that of its UDP datagram with the pseudo header: both are 0 modulo 65535."""
    size = int.from_bytes(frame[38:40], "big")
    segment = frame[26 : 34 + size] + bytes(size & 1)
    return int.from_bytes(frame[14:34], "big") % 65535 + (int.from_bytes(segment, "big") + 17 + size) % 65535


def test_what_a_run_has_no_room_for_goes_to_the_drop_routine_whole(rig: Rig) -> None:
    rig.slot.chip.fault("no-dma", Setting())
    usable = rig.dev.tx.usable
    messages = [b"message %4d" % number for number in range(usable + 3)]
    assert netpoll_send_udp_batch(rig.np, messages) == usable
    assert [frame[42:] for frame in rig.dropped] == messages[usable:]
    assert rig.np.stats.sent == usable
    assert rig.np.stats.dropped == 3
    assert rig.dev.xoff
    assert netpoll_send_udp_batch(rig.np, [b"stopped", b"already"]) == 0
    assert [frame[42:] for frame in rig.dropped[3:]] == [b"stopped", b"already"]
    assert not any(sum_of(frame) % 65535 for frame in rig.dropped)
    rig.slot.chip.fault("no-dma", None)
    rig.until(lambda: not rig.dev.xoff, "the queue")
    assert rig.payloads() == messages[:usable]


def test_a_message_too_long_ends_a_batch_after_those_before_it(rig: Rig) -> None:
    with pytest.raises(MessageTooLong):
        netpoll_send_udp_batch(rig.np, [b"one", b"two", bytes(1473), b"four"])
    assert rig.payloads() == [b"one", b"two"]


def test_a_batch_rings_the_bell_once(rig: Rig) -> None:
    rig.serve()
    registers = rig.dev.regs  # type: ignore[attr-defined]
    before = registers.writes
    assert netpoll_send_udp_batch(rig.np, [b"%d" % n for n in range(50)]) == 50
    assert registers.writes == before + 1
    assert rig.payloads() == [b"%d" % n for n in range(50)]


def counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[SkBuff]:
    """Grows by each frame that the driver takes by itself."""
    alone: list[SkBuff] = []
    xmit = rig.dev.hard_start_xmit

    def counting(skb: SkBuff) -> NetdevTx:
        status = xmit(skb)
        if status is NetdevTx.OK:
            alone.append(skb)
        return status

    monkeypatch.setattr(rig.dev, "hard_start_xmit", counting)
    return alone


def numbered(count: int, mixed: bool) -> list[bytes]:
    return [b"%04d" % n + bytes(n % 7 if mixed else 0) for n in range(count)]


@pytest.mark.parametrize("mixed", [False, True], ids=["one length", "many lengths"])
def test_batches_stop_no_queue_as_long_as_the_nic_keeps_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    """What has left is taken back where room is short. Batches of 64 come to the ring's end at another place each lap."""
    alone, before = counted(rig, monkeypatch), rig.dev.stats["tx_stopped"]
    messages = numbered(8 * rig.dev.tx.count // 64 * 64, mixed)
    for first in range(0, len(messages), 64):
        assert netpoll_send_udp_batch(rig.np, messages[first : first + 64]) == 64
    assert rig.payloads() == messages
    assert (alone, rig.dev.stats["tx_stopped"]) == ([], before)


@pytest.mark.parametrize("mixed", [False, True], ids=["one length", "many lengths"])
def test_of_a_batch_that_meets_a_full_ring_one_frame_goes_by_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    """It polls until the NIC, which has slept, has taken something; the rest goes together again."""
    alone, usable = counted(rig, monkeypatch), rig.dev.tx.usable
    messages = numbered(usable + 64, mixed)
    rig.slot.chip.fault("no-dma", Setting())
    assert netpoll_send_udp_batch(rig.np, messages[: usable - 10]) == usable - 10
    rig.clock.call_later(1e-3, lambda: rig.slot.chip.fault("no-dma", None))
    assert netpoll_send_udp_batch(rig.np, messages[usable - 10 :]) == 74
    assert rig.payloads() == messages
    assert len(alone) == 1
