"""Our poll-mode drivers on our device models, in one process: the whole frame path, each case with each driver.

send_udp -> hard_start_xmit -> ring -> registers -> model -> wire, and wire -> model -> interrupt -> schedule -> poll -> rx_hook.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from guest.netpoll import netpoll_poll, netpoll_send_udp, netpoll_send_udp_batch
from guest.netpoll.drivers.pmd.device import LOOKS
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import dev_close, dev_open
from harness.nic.faults import Setting
from harness.tests.pmd_rig import DRIVERS, MAC, Rig, faultless, frame_to


@pytest.fixture(params=DRIVERS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(model: str) -> Iterator[Rig]:
    yield from faultless(Rig(model))


def test_the_address_is_the_device_s_own(rig: Rig) -> None:
    assert rig.dev.dev_addr == MAC


def test_a_message_leaves_and_one_comes_back(rig: Rig) -> None:
    assert netpoll_send_udp(rig.np, b"last words") == 0
    assert rig.payloads() == [b"last words"]
    assert rig.arrive(b"an answer")
    rig.serve()
    assert rig.got == [b"an answer"]


def test_thousands_each_way_with_lengths_from_a_seed(rig: Rig) -> None:
    rng = random.Random(7)
    sent = [rng.randbytes(rng.randint(0, 1472)) for _ in range(3000)]
    for number, payload in enumerate(sent):
        assert netpoll_send_udp(rig.np, payload) == 0
        assert rig.arrive(payload[::-1]), number
        if number % 7 == 0:
            rig.serve()
    rig.serve()
    assert rig.payloads() == sent
    assert rig.got == [payload[::-1] for payload in sent]
    assert rig.dropped == []


def test_descriptors_are_taken_back_by_one_cpu_at_a_time_unless_it_died_of_it(rig: Rig) -> None:
    rig.serve()
    assert netpoll_send_udp(rig.np, b"left") == 0
    rig.clock.advance(0.01)
    assert rig.payloads() == [b"left"]
    assert rig.dev._cleaning.acquire(blocking=False), "another CPU is in clean_tx()"
    rig.dev.poll(16)
    assert rig.dev.tx.in_flight() == 1
    rig.crash()
    rig.dev.poll(16)
    assert rig.dev.tx.in_flight() == 0


@pytest.mark.parametrize("model", ["tg3", "virtio-net"], indirect=True)
def test_polling_that_finds_work_reads_no_register(rig: Rig) -> None:
    """A read costs 90 us over vfio-user; e1000's interrupt routine reads ICR even so."""
    rig.serve()
    rig.crash()
    registers = rig.dev.regs  # type: ignore[attr-defined]
    before = registers.reads
    for n in range(20):
        netpoll_send_udp(rig.np, b"%d" % n)
        rig.arrive(b"%d" % n)
        netpoll_poll(rig.np)
    assert rig.got == [b"%d" % n for n in range(20)]
    assert registers.reads == before


def test_what_comes_while_an_interrupt_is_acknowledged_is_not_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt whose work a poll has done already. The read that acknowledges it acknowledges the next one, too, if that is quick:
    no other would come."""
    rig.serve()
    late = [b"late"]

    def first(read: Callable[[int], int]) -> Callable[[int], int]:
        def reading(at: int) -> int:
            if late:
                assert rig.arrive(late.pop())
            return read(at)

        return reading

    registers = rig.dev.regs  # type: ignore[attr-defined]
    for name in ("read8", "read32"):
        monkeypatch.setattr(registers, name, first(getattr(registers, name)))
    do_irq(rig.dev)
    assert late == [], "it acknowledges"
    rig.serve()
    assert rig.got == [b"late"]
    assert rig.arrive(b"next")
    rig.serve()
    assert rig.got == [b"late", b"next"]


def test_frames_that_interrupts_find_wait_for_the_loop(rig: Rig) -> None:
    for n in range(40):
        assert rig.arrive(b"%d" % n)
    assert rig.got == []
    rig.serve()
    assert rig.got == [b"%d" % n for n in range(40)]


def test_a_softirq_looks_again_before_it_lets_interrupts_through(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while it looks costs no interrupt, and is looked after as long."""
    rig.serve()
    interrupts: list[int] = []
    polls: list[int] = []
    late = [b"second"]
    interrupt, poll = rig.dev.interrupt, rig.dev.poll

    def counted_interrupt() -> None:
        interrupts.append(len(polls))
        interrupt()

    def counted_poll(budget: int) -> int:
        if len(polls) == LOOKS // 2:
            assert rig.arrive(late.pop())
        polls.append(poll(budget))
        return polls[-1]

    monkeypatch.setattr(rig.dev, "interrupt", counted_interrupt)
    monkeypatch.setattr(rig.dev, "poll", counted_poll)
    assert rig.arrive(b"first")
    do_irq(rig.dev)
    assert rig.got == [b"first", b"second"]
    assert [number for number, done in enumerate(polls) if done] == [0, LOOKS // 2]
    assert (interrupts, len(polls)) == ([0], LOOKS // 2 + 1 + LOOKS)
    assert rig.dev.irq_enabled()


def test_netpoll_looks_once(rig: Rig) -> None:
    rig.serve()
    assert rig.arrive(b"polled")
    netpoll_poll(rig.np)
    assert rig.got == [b"polled"]
    assert not rig.dev.rx_sched
    assert rig.dev.irq_enabled()


def test_down_and_up_again(rig: Rig) -> None:
    for round_ in range(3):
        dev_close(rig.dev)
        rig.serve()
        dev_open(rig.dev)
        rig.until(lambda: rig.dev.carrier, "carrier")
        assert netpoll_send_udp(rig.np, b"%d" % round_) == 0
        assert rig.arrive(b"%d" % round_)
        rig.serve()
    assert rig.payloads() == rig.got == [b"0", b"1", b"2"]


def test_another_address_is_taken_as_a_bond_wants_it(rig: Rig) -> None:
    other = bytes.fromhex("525400aabbff")
    rig.dev.set_mac_address(other)
    assert rig.arrive_frame(frame_to(other, b"to the new one"))
    rig.serve()
    assert rig.got == [b"to the new one"]


def test_the_link_goes_and_comes_with_interrupts(rig: Rig) -> None:
    rig.slot.chip.plug(False)
    rig.serve()
    assert not rig.dev.carrier
    assert rig.dev.xoff
    rig.slot.chip.plug(True)
    rig.until(lambda: rig.dev.carrier, "carrier")
    assert not rig.dev.xoff
    assert netpoll_send_udp(rig.np, b"back") == 0
    assert rig.payloads()[-1] == b"back"


def test_a_frame_that_was_held_back_is_nobodys_once_the_cable_is_out(rig: Rig) -> None:
    rig.slot.chip.fault("delay", Setting(seconds=0.5))
    assert rig.arrive(b"late")
    rig.slot.chip.plug(False)
    rig.clock.advance(1)
    rig.serve()
    assert rig.got == []
    assert rig.slot.counts["rx_frames"] == 0


def test_after_a_crash_the_link_is_seen_by_polling_alone(rig: Rig) -> None:
    rig.crash()
    rig.slot.chip.plug(False)
    netpoll_poll(rig.np)
    assert not rig.dev.carrier
    rig.slot.chip.plug(True)
    for _ in range(1000):
        rig.clock.advance(0.01)
        netpoll_poll(rig.np)
        if rig.dev.carrier:
            break
    assert netpoll_send_udp(rig.np, b"back") == 0
    assert rig.payloads()[-1:] == [b"back"]


def test_a_full_ring_stops_the_queue_and_is_woken_when_cleaned(rig: Rig) -> None:
    rig.slot.chip.fault("no-dma", Setting())
    taken = fill(rig)
    assert rig.tape.sent == []
    assert rig.dev.tx.in_flight() == rig.dev.tx.usable == len(taken)
    rig.slot.chip.fault("no-dma", None)
    rig.serve()
    assert not rig.dev.xoff
    assert rig.payloads() == taken
    assert netpoll_send_udp(rig.np, b"more") == 0
    assert rig.payloads()[-1] == b"more"


def test_a_full_ring_is_cleaned_by_polling_after_a_crash(rig: Rig) -> None:
    """The send that finds the queue stopped polls until the device has gone on; nothing is lost."""
    rig.crash()
    rig.slot.chip.fault("no-dma", Setting())
    taken = fill(rig)
    rig.clock.call_later(0.1, lambda: rig.slot.chip.fault("no-dma", None))
    assert netpoll_send_udp(rig.np, b"the one that waited") == 0
    assert rig.payloads() == [*taken, b"the one that waited"]
    assert rig.dev.stats["tx_woken"] >= 1


def test_a_device_that_never_goes_on_costs_the_retry_bound_and_the_drop_routine_hears(rig: Rig) -> None:
    rig.slot.chip.fault("no-dma", Setting())
    fill(rig)
    before = rig.clock.now
    assert netpoll_send_udp(rig.np, b"too much") != 0
    assert [frame[42:] for frame in rig.dropped] == [b"too much"]
    assert 0.5 < rig.clock.now - before < 2
    rig.slot.chip.fault("no-dma", None)


def test_a_lost_interrupt_is_made_up_for_by_polling(rig: Rig) -> None:
    rig.slot.chip.fault("no-interrupts", Setting())
    assert rig.arrive(b"nobody was told")
    rig.serve()
    assert rig.got == []
    netpoll_poll(rig.np)
    assert rig.got == [b"nobody was told"]
    rig.slot.chip.fault("no-interrupts", None)
    assert rig.arrive(b"and on")
    rig.serve()
    assert rig.got == [b"nobody was told", b"and on"]


def test_interrupts_are_never_enabled_after_a_crash(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(model)
    rig.crash()
    monkeypatch.setattr(rig.dev, "irq_unmask", lambda: pytest.fail("the device's interrupt was enabled"))
    monkeypatch.setattr(rig.slot, "interrupt_enable", lambda: pytest.fail("the bus's interrupt was enabled"))
    for n in range(rig.dev.tx.count * 2):
        assert netpoll_send_udp(rig.np, b"%d" % n) == 0
        assert rig.arrive(b"%d" % n)
        netpoll_poll(rig.np)
    assert rig.payloads() == rig.got == [b"%d" % n for n in range(rig.dev.tx.count * 2)]
    assert rig.slot.faults == []
    rig.close()


def test_after_a_crash_the_first_poll_turns_interrupts_off_and_none_comes(rig: Rig) -> None:
    """Read back from the chip and the bus, while frames come and go and the link does."""
    assert rig.dev.irq_enabled()
    assert rig.slot.interrupt_state()[0]
    rig.crash()
    netpoll_poll(rig.np)
    told = rig.slot.interrupt_state()[1]
    assert not rig.dev.irq_enabled(), "though there was nothing to do"
    for n in range(rig.dev.tx.count * 2):
        assert netpoll_send_udp(rig.np, b"%d" % n) == 0
        assert rig.arrive(b"%d" % n)
        netpoll_poll(rig.np)
    for up in (False, True):
        rig.slot.chip.plug(up)
        rig.clock.advance(5)
        netpoll_poll(rig.np)
        assert rig.dev.carrier is up
    assert not rig.dev.irq_enabled()
    assert rig.slot.interrupt_state() == (False, told)


def test_after_a_crash_who_cleans_a_full_ring_sees_the_link_as_well(rig: Rig) -> None:
    """Nobody polls but the sends, and each of their polls has work to do."""
    rig.crash()
    rig.slot.chip.plug(False)
    rig.clock.advance(0.1)
    sends = 0
    while not rig.dropped:
        netpoll_send_udp(rig.np, b"%d" % sends)
        sends += 1
        assert sends <= rig.dev.tx.count + 1, "the ring was cleaned, and the link not looked at"
    assert not rig.dev.carrier
    assert rig.dev.xoff


def test_a_transmitter_that_hangs_is_reset_by_the_watchdog(rig: Rig) -> None:
    rig.slot.chip.fault("no-dma", Setting())
    taken = fill(rig)
    rig.until(lambda: rig.dev.stats["tx_timeouts"] > 0, "the watchdog", within=10)
    assert rig.dev.stats["tx_lost"] == len(taken)
    rig.slot.chip.fault("no-dma", None)
    rig.until(lambda: rig.dev.carrier and not rig.dev.xoff, "the queue")
    assert netpoll_send_udp(rig.np, b"again") == 0
    assert rig.payloads() == [b"again"]


def test_a_device_that_is_gone_is_found_out_and_taken_back(rig: Rig) -> None:
    rig.slot.chip.fault("gone", Setting())
    rig.until(lambda: not rig.dev.carrier, "the watchdog", within=3)
    assert netpoll_send_udp(rig.np, b"into nothing") != 0
    assert rig.dev.stats["vanished"] == 1
    rig.slot.chip.fault("gone", None)
    rig.until(lambda: rig.dev.carrier and not rig.dev.xoff, "the device")
    assert netpoll_send_udp(rig.np, b"and back") == 0
    assert rig.arrive(b"and back")
    rig.serve()
    assert rig.payloads()[-1:] == rig.got == [b"and back"]


def test_without_an_interrupt_polling_is_enough(model: str) -> None:
    rig = Rig(model, interrupts=False)
    for n in range(100):
        assert netpoll_send_udp(rig.np, b"%d" % n) == 0
        assert rig.arrive(b"%d" % n)
        netpoll_poll(rig.np)
    assert rig.payloads() == rig.got == [b"%d" % n for n in range(100)]
    rig.close()


def fill(rig: Rig) -> list[bytes]:
    """Messages until the queue stops."""
    taken: list[bytes] = []
    while not rig.dev.xoff:
        taken.append(b"message %d" % len(taken))
        assert netpoll_send_udp(rig.np, taken[-1]) == 0
        assert len(taken) <= rig.dev.tx.count
    return taken


@pytest.mark.parametrize("crashed", [False, True], ids=["alive", "crashed"])
@pytest.mark.parametrize("model", ["virtio-net"], indirect=True)
def test_a_virtio_device_that_needs_a_reset_gets_it(rig: Rig, crashed: bool) -> None:
    if crashed:
        rig.crash()
    addresses = rig.dev.tx.addresses
    first, addresses[0] = addresses[0], 0xDEAD_0000  # the first buffer points nowhere
    assert netpoll_send_udp(rig.np, b"lost") == 0
    addresses[0] = first
    netpoll_poll(rig.np)
    if not crashed:
        rig.until(lambda: rig.dev.carrier, "the device")
    assert netpoll_send_udp(rig.np, b"and back") == 0
    assert rig.payloads() == [b"and back"]
    rig.slot.faults.clear()


@pytest.mark.parametrize("model", ["virtio-net"], indirect=True)
def test_virtio_frames_that_leave_in_another_order_are_cleaned_in_theirs(rig: Rig) -> None:
    rng = random.Random(3)
    for _ in range(20):
        rig.slot.chip.fault("no-completions", Setting())
        count = rng.randint(1, 50)
        assert netpoll_send_udp_batch(rig.np, [b"x"] * count) == count
        held = rig.slot.chip._held  # type: ignore[attr-defined]
        rng.shuffle(held)
        last = held.pop(rng.randrange(len(held)))
        rig.slot.chip.fault("no-completions", None)
        rig.dev.clean_tx()
        assert rig.dev.tx.in_flight() >= 1
        rig.slot.chip._held.append(last)  # type: ignore[attr-defined]
        rig.slot.chip.fault("no-completions", None)
        rig.dev.clean_tx()
        assert rig.dev.tx.in_flight() == 0
    assert rig.dev.stats["broken"] == 0
