"""netpoll_setup() and netpoll_cleanup(): device, carrier, addresses, and every way in which they fail."""

from __future__ import annotations

import errno
import ipaddress
import threading

import pytest

from guest.netpoll import CarrierTimeout, Net, Netpoll, SetupError, netpoll_cleanup, netpoll_send_udp, netpoll_setup
from guest.netpoll.context import Context
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.netdevice import (
    NetdevError,
    NetdevEvent,
    NetDevice,
    dev_change_name,
    dev_close,
    dev_open,
    netif_device_detach,
    register_netdev,
    unregister_netdev,
)
from guest.tests.wired import RECEIVER, SENDER, FakeTime, wired

PEER = RECEIVER.ip
SIX = [ipaddress.ip_interface(a) for a in ("fe80::1/64", "fd00::1/64")]


def stack() -> tuple[Net, FakeTime, LoopbackDevice]:
    time = FakeTime()
    net = Net(Context(time.clock, time.delay))
    dev, _ = wire_pair(net)
    dev.addresses.append(SENDER)
    return net, time, dev


def client(net: Net, **fields: object) -> Netpoll:
    np = Netpoll(net, "client", dev_name="wire0", remote_ip=PEER)
    for name, value in fields.items():
        setattr(np, name, value)
    return np


def test_setup_brings_the_device_up_and_takes_its_addresses() -> None:
    net, _, dev = stack()
    np = client(net)
    netpoll_setup(np)
    assert dev.running
    assert (np.dev, np.local_ip, np.local_mac) == (dev, SENDER.ip, dev.dev_addr)
    assert np.max_payload == 1472


def test_what_is_given_is_kept() -> None:
    net, _, _ = stack()
    np = Netpoll(net, dev_name="wire0", remote_ip=PEER, local_ip=PEER + 7, local_mac=b"\2\0\0\0\0\7")
    netpoll_setup(np)
    assert (np.local_ip, np.local_mac) == (PEER + 7, b"\2\0\0\0\0\7")


def test_an_unspecified_address_is_the_devices() -> None:
    net, _, _ = stack()
    np = client(net, local_ip=ipaddress.ip_address("0.0.0.0"))
    netpoll_setup(np)
    assert np.local_ip == SENDER.ip


@pytest.mark.parametrize(
    ("remote", "local"),
    [("fe80::2", "fe80::1"), ("fd00::2", "fd00::1"), ("ff02::1", "fd00::1")],
    ids=["link-local to link-local", "global to global", "multicast"],
)
def test_ipv6_source_is_of_the_scope_of_the_target(remote: str, local: str) -> None:
    net, _, dev = stack()
    dev.addresses.extend(SIX)
    np = client(net, remote_ip=ipaddress.ip_address(remote))
    netpoll_setup(np)
    assert np.local_ip == ipaddress.ip_address(local)
    assert np.max_payload == 1452


class NoPolling(NetDevice):
    """A driver without poll_controller."""

    supports_netpoll = False


class Broken(NetDevice):
    """A driver whose open fails."""

    def open(self) -> None:
        raise NetdevError(errno.EPERM, "not allowed")


FAILURES = [
    ({"dev_name": "eth7"}, errno.ENODEV, "client: eth7 doesn't exist"),
    ({"dev_name": "nopoll"}, errno.EOPNOTSUPP, "nopoll doesn't support polling"),
    ({"dev_name": "broken"}, errno.EPERM, "failed to open broken: not allowed"),
    ({"dev_name": "slave"}, errno.EBUSY, "slave is a slave of wire0"),
    ({"dev_name": "wire1"}, errno.EADDRNOTAVAIL, "wire1: no IPv4 address, none was given"),
    ({"remote_ip": ipaddress.ip_address("fd00::2")}, errno.EADDRNOTAVAIL, "no IPv6 address"),
    ({"local_ip": ipaddress.ip_address("fd00::2")}, errno.EAFNOSUPPORT, "not of one family"),
]


@pytest.mark.parametrize(("fields", "code", "why"), FAILURES, ids=[f[2] for f in FAILURES])
def test_setup_fails(fields: dict[str, object], code: int, why: str) -> None:
    net, _, dev = stack()
    for other in (NoPolling(net, "nopoll"), Broken(net, "broken"), NetDevice(net, "slave")):
        register_netdev(other)
    net.devices["slave"].master = dev
    np = client(net, **fields)
    before = (np.local_ip, np.remote_ip, np.local_mac)
    with pytest.raises(SetupError, match=why) as caught:
        netpoll_setup(np)
    assert caught.value.errno == code
    assert np.dev is None
    assert (np.local_ip, np.remote_ip, np.local_mac) == before
    assert dev.npinfo is None


def test_setup_twice_is_an_error_and_harmless() -> None:
    wire = wired()
    with pytest.raises(SetupError, match="set up already, on wire0"):
        netpoll_setup(wire.tx)
    assert netpoll_send_udp(wire.tx, b"x") == 0


# -- carrier ------------------------------------------------------------------------------------------


def test_carrier_that_comes_in_time_is_waited_for() -> None:
    net, _, dev = stack()
    dev.cable.up = False

    def plug_in_meanwhile(event: NetdevEvent, which: NetDevice) -> None:
        if event is NetdevEvent.UP and which is dev:
            dev.cable.set_link(True)

    net.netdev_chain.append(plug_in_meanwhile)
    np = client(net)
    netpoll_setup(np, require_carrier=True)
    assert dev.carrier
    assert netpoll_send_udp(np, b"x") == 0


def quick_clock() -> Context:
    """Time that passes by itself: each look at the clock is a second later."""
    ticks = iter(range(1000))
    return Context(lambda: float(next(ticks)), lambda _: None)


def test_carrier_that_never_comes_is_logged_and_setup_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(quick_clock())
    dev, _ = wire_pair(net)
    dev.addresses.append(SENDER)
    dev.cable.up = False
    np = client(net)
    netpoll_setup(np, timeout=0.01)
    assert "wire0: no carrier after 0.01 s, going on without" in caplog.text
    assert np.dev is dev
    assert dev.xoff


@pytest.mark.parametrize("running", [False, True], ids=["brought up", "running already"])
def test_a_required_carrier_that_never_comes_is_an_error(running: bool) -> None:
    net, _, dev = stack()
    net.context.clock = quick_clock().clock
    dev.cable.up = False
    if running:
        dev_open(dev)
    with pytest.raises(CarrierTimeout, match=r"wire0: no carrier after 0\.01 s"):
        netpoll_setup(client(net), require_carrier=True, timeout=0.01)
    assert dev.npinfo is None


class NoInterrupt(NetDevice):
    """A driver without a descriptor to wait on, and without a link."""

    def open(self) -> None:
        self.carrier = False


def test_carrier_is_polled_for_where_no_descriptor_tells() -> None:
    net, time, _ = stack()
    register_netdev(NoInterrupt(net, "mute"))
    with pytest.raises(CarrierTimeout, match=r"mute: no carrier after 4 s"):
        netpoll_setup(client(net, dev_name="mute", local_ip=SENDER.ip), require_carrier=True)
    assert time.now == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("required", [False, True])
def test_a_device_that_vanishes_while_its_carrier_is_waited_for(required: bool) -> None:
    """Said at once, and as what it is: no client is bound to a device that is gone."""
    net, time, _ = stack()
    dev = NoInterrupt(net, "mute")
    register_netdev(dev)
    time.at(0.5, lambda: netif_device_detach(dev))
    np = client(net, dev_name="mute", local_ip=SENDER.ip)
    with pytest.raises(SetupError, match="mute went away before its carrier came") as caught:
        netpoll_setup(np, require_carrier=required)
    assert caught.value.errno == errno.ENODEV
    assert (np.dev, dev.npinfo) == (None, None)
    assert time.now == pytest.approx(0.5, abs=0.01)


def test_where_a_descriptor_tells_it_is_waited_for_and_not_polled() -> None:
    """In real time, from another thread: the wait ends with the interrupt, long before the timeout."""
    net, time, dev = stack()
    dev.cable.up = False
    plug = threading.Timer(0.05, dev.cable.set_link, [True])
    plug.start()
    netpoll_setup(client(net), require_carrier=True, timeout=30)
    plug.join()
    assert dev.carrier
    assert time.delays == 0


def test_without_a_peer_the_device_still_has_an_address_and_any_peer_is_heard() -> None:
    wire = wired()
    netpoll_cleanup(wire.rx)
    heard: list[bytes] = []
    np = Netpoll(wire.net, dev_name="wire1", local_port=6666, rx_hook=lambda _np, _source, data: heard.append(data))
    netpoll_setup(np)
    assert (np.local_ip, np.remote_ip) == (RECEIVER.ip, ipaddress.ip_address("0.0.0.0"))
    netpoll_send_udp(wire.tx, b"from whoever")
    wire.interrupts()
    assert heard == [b"from whoever"]


def test_a_device_that_runs_is_not_waited_for() -> None:
    net, time, dev = stack()
    dev.cable.up = False
    dev_open(dev)
    netpoll_setup(client(net))
    assert time.now == 0


# -- life after setup ---------------------------------------------------------------------------------


def test_a_new_mtu_and_a_new_mac_are_followed() -> None:
    wire = wired()
    wire.a.mtu, wire.a.dev_addr = 100, b"\2\0\0\0\0\7"
    for event in (NetdevEvent.CHANGEMTU, NetdevEvent.CHANGEADDR):
        wire.net.call_netdevice_notifiers(event, wire.a)
    assert wire.tx.max_payload == 72
    netpoll_send_udp(wire.tx, b"x")
    assert wire.b.rx_ring[0][6:12] == b"\2\0\0\0\0\7"


def test_a_mac_that_was_given_is_not_changed_by_the_device() -> None:
    net, _, dev = stack()
    np = Netpoll(net, dev_name="wire0", remote_ip=PEER, local_mac=b"\2\0\0\0\0\7")
    netpoll_setup(np)
    dev.dev_addr = b"\2\0\0\0\0\x08"
    net.call_netdevice_notifiers(NetdevEvent.CHANGEADDR, dev)
    assert np.local_mac == b"\2\0\0\0\0\7"


def test_a_new_name_is_followed() -> None:
    wire = wired()
    dev_change_name(wire.a, "wire7")
    assert wire.tx.dev_name == "wire7"
    assert wire.net.dev_get_by_name("wire7") is wire.a
    assert wire.net.dev_get_by_name("wire0") is None


def test_cleanup_leaves_nothing_behind() -> None:
    net, _, dev = stack()
    listeners = len(net.netdev_chain)
    np = client(net)
    netpoll_setup(np)
    netpoll_cleanup(np)
    netpoll_cleanup(np)
    assert (np.dev, dev.npinfo, len(net.netdev_chain)) == (None, None, listeners)
    assert dev.running  # as in the kernel: what setup brought up stays up


def test_setup_after_cleanup_works_again() -> None:
    wire = wired()
    netpoll_cleanup(wire.tx)
    assert netpoll_send_udp(wire.tx, b"lost") == 1
    netpoll_setup(wire.tx)
    assert netpoll_send_udp(wire.tx, b"sent") == 0


def test_unregistering_a_device_unbinds_its_clients() -> None:
    wire = wired()
    unregister_netdev(wire.b)
    unregister_netdev(wire.b)
    assert wire.rx.dev is None
    assert (wire.b.running, wire.b.present, wire.b.operstate) == (False, False, "notpresent")
    with pytest.raises(NetdevError, match="no such device any more"):
        dev_open(wire.b)


def test_registering_a_name_twice_is_an_error() -> None:
    net, _, _ = stack()
    with pytest.raises(NetdevError, match="'wire0' is registered already"):
        register_netdev(NetDevice(net, "wire0"))


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a:b", "a\0b", "\ud800", "sixteencharacter"])
def test_a_name_that_no_device_can_have_is_an_error(name: str) -> None:
    net, _, _ = stack()
    with pytest.raises(NetdevError, match="is not a device name") as caught:
        register_netdev(NetDevice(net, name))
    assert caught.value.errno == errno.EINVAL


def test_events_of_a_devices_life() -> None:
    net, _, dev = stack()
    events: list[NetdevEvent] = []
    net.netdev_chain.append(lambda event, which: events.append(event) if which is dev else None)
    dev_open(dev)
    dev_open(dev)
    dev_close(dev)
    dev_close(dev)
    unregister_netdev(dev)
    up, down = [NetdevEvent.UP], [NetdevEvent.GOING_DOWN, NetdevEvent.DOWN]
    assert events == [*up, *down, NetdevEvent.UNREGISTER]


def test_repr_is_the_option_string() -> None:
    assert "6665@10.0.0.1/wire0,6666@10.0.0.2/02:00:00:00:00:02" in repr(wired().tx)
