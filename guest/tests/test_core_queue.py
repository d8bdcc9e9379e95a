"""netpoll_queue(): what could not be sent leaves later - in order, bounded, counted."""

import pytest

from guest.netpoll import Netpoll, netpoll_cleanup, netpoll_queue, netpoll_send_udp, netpoll_setup
from guest.netpoll.skbuff import DropReason, SkBuff
from guest.tests.wired import Wired, wired


def cut(wire: Wired) -> None:
    """Pull the cable, and have the first message spend the retries."""
    wire.a.cable.set_link(False)
    wire.interrupts()


def mend(wire: Wired) -> None:
    """Plug it in; the link interrupt wakes the queue, whose worker runs in process context."""
    wire.a.cable.set_link(True)
    wire.interrupts()
    wire.net.context.run_work()
    wire.interrupts()


def test_queued_frames_leave_in_order_after_link_up() -> None:
    wire = wired(drop=netpoll_queue)
    cut(wire)
    messages = [b"%d" % n for n in range(10)]
    for msg in messages:
        netpoll_send_udp(wire.tx, msg)
    assert (wire.tx.stats.queued, wire.tx.stats.late) == (10, 0)
    mend(wire)
    wire.time.delay(0.1)  # the ring holds 4: the worker comes again
    for _ in range(3):
        wire.net.context.run_timers()
        wire.net.context.run_work()
        wire.interrupts()
        wire.time.delay(0.1)
    assert wire.payloads() == messages
    assert wire.tx.stats.late == 10


def test_the_queue_has_a_depth_and_says_what_it_lost() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    for n in range(20):
        netpoll_send_udp(wire.tx, b"%d" % n)
    assert (wire.tx.stats.dropped, wire.tx.stats.queued, wire.tx.stats.lost) == (20, 16, 4)
    mend(wire)
    assert wire.payloads() == [b"%d" % n for n in range(16)]


def test_depth_is_configurable() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    wire.info().queue_depth = 2
    cut(wire)
    for n in range(5):
        netpoll_send_udp(wire.tx, b"%d" % n)
    assert (wire.tx.stats.queued, wire.tx.stats.lost) == (2, 3)


def test_a_direct_send_does_not_overtake_what_is_queued() -> None:
    """No worker runs in between: the send itself empties the queue, as it must after a crash."""
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    netpoll_send_udp(wire.tx, b"first")
    netpoll_send_udp(wire.tx, b"second")
    wire.net.context.crash()
    wire.a.cable.set_link(True)
    assert netpoll_send_udp(wire.tx, b"third") == 0
    assert [frame[42:] for frame in wire.b.rx_ring] == [b"first", b"second", b"third"]
    assert (wire.tx.stats.sent, wire.tx.stats.late) == (1, 2)


def test_nor_when_the_queue_is_open_again_and_the_worker_has_not_run_yet() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    netpoll_send_udp(wire.tx, b"first")
    wire.a.cable.set_link(True)
    wire.interrupts()
    assert not wire.a.xoff
    netpoll_send_udp(wire.tx, b"second")
    assert [frame[42:] for frame in wire.b.rx_ring] == [b"first", b"second"]


def test_two_devices_do_not_hold_each_other_up() -> None:
    """2.6.12 had one queue for all."""
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    for n in range(20):
        netpoll_send_udp(wire.tx, b"%d" % n)
    other = wired(tx_ring=64, drop=netpoll_queue)
    netpoll_send_udp(other.tx, b"unaffected")
    other.interrupts()
    assert other.payloads() == [b"unaffected"]
    assert other.tx.stats.queued == 0


def test_a_drop_routine_may_look_and_then_queue() -> None:
    seen: list[bytes] = []

    def look(skb: SkBuff) -> None:
        seen.append(bytes(skb.data[wire.tx.header_len :]))
        netpoll_queue(skb)

    wire = wired(tx_ring=64, drop=look)
    cut(wire)
    netpoll_send_udp(wire.tx, b"held")
    mend(wire)
    assert seen == wire.payloads() == [b"held"]


def test_who_asks_is_told_of_each_frame_that_left_late() -> None:
    told: list[bytes] = []
    wire = wired(tx_ring=64, drop=netpoll_queue)
    wire.tx.late = lambda skb: told.append(bytes(skb.data[42:]))
    cut(wire)
    for n in range(3):
        netpoll_send_udp(wire.tx, b"%d" % n)
    assert told == []
    mend(wire)
    assert told == [b"0", b"1", b"2"]


def test_the_worker_retries_by_timer_where_no_interrupt_tells() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    netpoll_send_udp(wire.tx, b"patient")
    ctx = wire.net.context
    ctx.run_work()  # cannot send, and sets its timer
    assert ctx.timers
    wire.a.cable.up = True  # no interrupt
    wire.a.carrier = True
    wire.a.xoff = False
    assert ctx.run_timers() == pytest.approx(0.1)
    wire.time.delay(0.11)
    assert ctx.run_timers() is None
    wire.interrupts()
    assert wire.payloads() == [b"patient"]


def test_cleanup_loses_and_counts_what_is_queued_by_this_client_only() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    other = Netpoll(wire.net, "other", dev_name="wire0", remote_ip=wire.tx.remote_ip, drop=netpoll_queue)
    netpoll_setup(other)
    cut(wire)
    netpoll_send_udp(wire.tx, b"mine")
    netpoll_send_udp(other, b"theirs")
    lost = wire.info().txq[0]
    netpoll_cleanup(wire.tx)
    assert lost.drop_reason is DropReason.FLUSHED
    assert (wire.tx.stats.lost, other.stats.lost) == (1, 0)
    assert [bytes(skb.data[42:]) for skb in wire.info().txq] == [b"theirs"]


def test_a_device_that_is_down_is_not_sent_to_by_the_worker() -> None:
    wire = wired(tx_ring=64, drop=netpoll_queue)
    cut(wire)
    netpoll_send_udp(wire.tx, b"held")
    wire.a.cable.up = wire.a.carrier = True
    wire.a.xoff = wire.a.running = False
    wire.net.context.run_work()
    assert (len(wire.info().txq), wire.tx.stats.late) == (1, 0)


def test_queueing_for_a_device_without_netpoll_frees_the_frame() -> None:
    skb = SkBuff(b"frame")
    netpoll_queue(skb)
    assert skb.users == 0
    assert skb.drop_reason is DropReason.QUEUE_FULL
