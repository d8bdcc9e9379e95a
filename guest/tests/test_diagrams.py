"""Each diagram of the slides, drawn by the calls that are really made. Each list reads as the slide's arrows.

"" stands for whoever is outside of the picture: the client, the hardware.
"""

from __future__ import annotations

from guest.netpoll import Netpoll, netpoll_poll, netpoll_queue, netpoll_send_udp
from guest.netpoll.bonding import Bond, Mode
from guest.netpoll.bonding.queue_xmit import bond_dev_queue_xmit
from guest.netpoll.bonding.xmit import bond_3ad_xmit_xor
from guest.netpoll.drivers.loopback import LoopbackDevice
from guest.netpoll.napi import do_irq
from guest.netpoll.netdevice import netif_stop_queue
from guest.netpoll.skbuff import SkBuff
from guest.tests.arrows import recorded
from guest.tests.bonding_bench import Bench
from guest.tests.wired import Wired, wired

CLIENT = HARDWARE = SOFTIRQ = ""


def test_sending_packets() -> None:
    """Slide "Sending Packets": the queue is open."""
    wire = wired()
    with recorded(LoopbackDevice) as arrows:
        netpoll_send_udp(wire.tx, b"message")
    assert arrows == [
        (CLIENT, "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        ("netpoll_send_skb", "dev->hard_start_xmit"),
    ]


def full(wire: Wired) -> Wired:
    """Take every descriptor: netif_queue_stopped() is true until the driver reclaims them."""
    for _ in range(wire.a.tx_size):
        netpoll_send_udp(wire.tx, b"fill")
    assert wire.a.xoff
    return wire


def test_sending_packets_when_the_queue_is_stopped() -> None:
    """Slides "Sending Packets", all steps: netif_queue_stopped? -> poll_controller -> poll -> xmit."""
    wire = full(wired())
    with recorded(LoopbackDevice) as arrows:
        netpoll_send_udp(wire.tx, b"message")
    assert arrows == [
        (CLIENT, "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        ("netpoll_send_skb", "netpoll_poll"),
        ("netpoll_poll", "dev->poll_controller"),
        ("dev->poll_controller", "irq routine"),
        ("irq routine", "netif_rx_schedule"),
        ("netpoll_poll", "dev->poll"),
        ("netpoll_send_skb", "dev->hard_start_xmit"),
    ]


def test_sending_packets_when_the_queue_is_stopped_without_napi() -> None:
    """dev->poll == NULL: the interrupt routine reclaims the descriptors by itself."""
    wire = full(wired(napi=False))
    with recorded(LoopbackDevice) as arrows:
        netpoll_send_udp(wire.tx, b"message")
    assert arrows == [
        (CLIENT, "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        ("netpoll_send_skb", "netpoll_poll"),
        ("netpoll_poll", "dev->poll_controller"),
        ("dev->poll_controller", "irq routine"),
        ("netpoll_send_skb", "dev->hard_start_xmit"),
    ]


def test_when_polling_fails() -> None:
    """Slide "When Polling Fails...": the link is down; the drop routine is netpoll_queue."""
    wire = wired(drop=netpoll_queue)
    wire.a.cable.set_link(False)
    wire.interrupts()
    wire.info().tries = wire.info().max_retries = 2
    polled = [
        ("netpoll_send_skb", "netpoll_poll"),
        ("netpoll_poll", "dev->poll_controller"),
        ("dev->poll_controller", "irq routine"),
    ]
    with recorded(LoopbackDevice) as arrows:
        netpoll_send_udp(wire.tx, b"message")
    assert arrows == [
        (CLIENT, "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        *polled,
        *polled,
        ("netpoll_send_skb", "netpoll_queue"),
    ]


def test_receiving_packets_non_napi() -> None:
    """Slide "Receiving Packets (non-NAPI)": ours are consumed; others go OK to the stack."""
    wire = wired(napi=False)
    passed: list[bytes] = []
    wire.net.ptype_all.append(lambda skb: passed.append(bytes(skb.data)))
    netpoll_send_udp(wire.tx, b"message")
    wire.b.hardware_receive(bytes(60))
    with recorded(LoopbackDevice) as arrows:
        do_irq(wire.b)
    assert arrows == [
        (HARDWARE, "irq routine"),
        ("irq routine", "netif_rx"),
        ("netif_rx", "netpoll_rx"),
        ("irq routine", "netif_rx"),
        ("netif_rx", "netpoll_rx"),
        (SOFTIRQ, "net_rx_action"),  # for the one that passed on
    ]
    assert wire.payloads() == [b"message"]  # DROP: consumed
    assert passed == [bytes(60)]  # OK: not netpoll's


def test_receiving_packets_napi() -> None:
    """Slides "Receiving Packets (NAPI)", the second time with netpoll_rx."""
    wire = wired()
    netpoll_send_udp(wire.tx, b"message")
    with recorded(LoopbackDevice) as arrows:
        do_irq(wire.b)
    assert arrows == [
        (HARDWARE, "irq routine"),
        ("irq routine", "netif_rx_schedule"),
        (SOFTIRQ, "net_rx_action"),
        ("net_rx_action", "dev->poll"),
        ("dev->poll", "netif_receive_skb"),
        ("netif_receive_skb", "netpoll_rx"),
    ]
    assert wire.payloads() == [b"message"]


RECEIVE = [
    (HARDWARE, "irq routine"),
    ("irq routine", "netif_rx_schedule"),
    (SOFTIRQ, "net_rx_action"),
    ("net_rx_action", "dev->poll"),
    ("dev->poll", "netif_receive_skb"),
    ("netif_receive_skb", "netpoll_rx"),
    ("netpoll_rx", "netpoll_send_udp"),
    ("netpoll_send_udp", "netpoll_send_skb"),
]


def answer(np: Netpoll, _source: int, data: bytes) -> None:
    """An rx_hook that sends."""
    netpoll_send_udp(np, data)


def test_sending_packets_in_the_receive_path() -> None:
    """The slide of that name, the queue open: the driver is entered from its own poll routine."""
    wire = wired()
    wire.rx.rx_hook = answer
    netpoll_send_udp(wire.tx, b"message")
    with recorded(LoopbackDevice) as arrows:
        do_irq(wire.b)
    assert arrows == [*RECEIVE, ("netpoll_send_skb", "dev->hard_start_xmit")]


def test_sending_packets_in_the_receive_path_when_the_queue_is_stopped() -> None:
    """The same slide's trap: netpoll_poll would enter the poll routine that is running. Drop instead."""
    wire = wired()
    wire.rx.drop = netpoll_queue

    def stopped(np: Netpoll, source: int, data: bytes) -> None:
        netif_stop_queue(wire.b)
        answer(np, source, data)

    wire.rx.rx_hook = stopped
    netpoll_send_udp(wire.tx, b"message")
    with recorded(LoopbackDevice) as arrows:
        do_irq(wire.b)
    assert arrows == [*RECEIVE, ("netpoll_send_skb", "netpoll_queue")]


def test_receiving_while_netpoll_polls_and_sending_from_there() -> None:
    """Send, poll, receive, hook, send: the longest way through the slides. It ends in the ring, not in itself."""
    wire = wired(tx_ring=4, rx_hook=answer)
    full(wire)
    netpoll_send_udp(wire.rx, b"for the sender")
    with recorded(LoopbackDevice) as arrows:
        netpoll_send_udp(wire.tx, b"message")
    assert arrows == [
        (CLIENT, "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        ("netpoll_send_skb", "netpoll_poll"),
        ("netpoll_poll", "dev->poll_controller"),
        ("dev->poll_controller", "irq routine"),
        ("irq routine", "netif_rx_schedule"),
        ("netpoll_poll", "dev->poll"),
        ("dev->poll", "netif_receive_skb"),
        ("netif_receive_skb", "netpoll_rx"),
        ("netpoll_rx", "netpoll_send_udp"),
        ("netpoll_send_udp", "netpoll_send_skb"),
        ("netpoll_send_skb", "dev->hard_start_xmit"),
        ("netpoll_send_skb", "dev->hard_start_xmit"),
    ]


BOND = {
    Bond.hard_start_xmit.__code__: "bond: dev->hard_start_xmit",
    Bond.poll_controller.__code__: "bond: dev->poll_controller",
    bond_3ad_xmit_xor.__code__: "bond_3ad_xmit_xor",
    bond_dev_queue_xmit.__code__: "bond_dev_queue_xmit",
}
BONDED = [
    (CLIENT, "netpoll_send_udp"),
    ("netpoll_send_udp", "netpoll_send_skb"),
    ("netpoll_send_skb", "bond: dev->hard_start_xmit"),
    ("bond: dev->hard_start_xmit", "bond_3ad_xmit_xor"),
    ("bond_3ad_xmit_xor", "bond_dev_queue_xmit"),
    ("bond_dev_queue_xmit", "netpoll_send_skb"),
]
E100_XMIT_FRAME = ("netpoll_send_skb", "dev->hard_start_xmit")


def bonded() -> tuple[Bench, Bond, Netpoll]:
    """Two 802.3ad bonds that have agreed, and a client on the left one."""
    bench = Bench(tx_ring=8)
    left, right = bench.bond(mode=Mode.AD), bench.bond(False, mode=Mode.AD)
    bench.run(4)
    return bench, left, bench.client(left, right)


def test_sending_packets_bonding_driver() -> None:
    """Slides "Sending Packets - Bonding Driver", to the last: through netpoll_send_skb twice, to the slave's driver."""
    _, _, client = bonded()
    with recorded(LoopbackDevice, BOND) as arrows:
        netpoll_send_udp(client, b"message")
    assert arrows == [*BONDED, E100_XMIT_FRAME]


def test_sending_packets_bonding_driver_when_the_slaves_queue_is_stopped() -> None:
    """netpoll_poll, dev->poll_controller and dev->poll of that diagram are the slave's."""
    bench, _, client = bonded()
    for dev in bench.l:
        while not dev.xoff:
            dev.hard_start_xmit(SkBuff(bytes(60), dev))
    with recorded(LoopbackDevice, BOND) as arrows:
        netpoll_send_udp(client, b"message")
    assert arrows == [
        *BONDED,
        ("netpoll_send_skb", "netpoll_poll"),
        ("netpoll_poll", "dev->poll_controller"),
        ("dev->poll_controller", "irq routine"),
        ("irq routine", "netif_rx_schedule"),
        ("netpoll_poll", "dev->poll"),
        E100_XMIT_FRAME,
    ]


def test_polling_a_bond_polls_its_slaves() -> None:
    """The bond's own poll_controller, which the slides' bonding kernel added: one netpoll_poll for each slave."""
    _, _, client = bonded()
    with recorded(LoopbackDevice, BOND) as arrows:
        netpoll_poll(client)
    one = [("netpoll_poll", "dev->poll_controller"), ("dev->poll_controller", "irq routine")]
    assert arrows == [
        (CLIENT, "netpoll_poll"),
        ("netpoll_poll", "bond: dev->poll_controller"),
        ("bond: dev->poll_controller", "netpoll_poll"),
        *one,
        ("bond: dev->poll_controller", "netpoll_poll"),
        *one,
    ]
