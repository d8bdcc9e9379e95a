"""The slides' "Extending Netconsole": records out, sysrq keys in, over one netpoll client, on the in-process wire."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from guest.netpoll import Net, Netpoll, SetupError, netpoll_poll, netpoll_queue, netpoll_send_udp, netpoll_setup
from guest.netpoll.clients.netconsole.client import Netconsole, peer_of, source_of
from guest.netpoll.clients.netconsole.message import Message
from guest.netpoll.clients.netconsole.receiver import Receiver
from guest.netpoll.clients.netconsole.sender import Record, Target
from guest.netpoll.clients.sysrq import Peer, encode_keys
from guest.netpoll.drivers.loopback import LoopbackDevice, wire_pair
from guest.netpoll.loop import Loop

GUEST_IP, HOST_IP, OTHER_IP = (ipaddress.ip_address(f"10.0.0.{n}") for n in (2, 1, 9))
HOST_MAC = "02:00:00:00:00:02"
OPTIONS = f"6665@{GUEST_IP}/wire0,6666@{HOST_IP}/{HOST_MAC}"


@dataclass
class Bench:
    """A guest's netconsole on wire0, and the host's end wire1."""

    net: Net
    loop: Loop
    wire: LoopbackDevice
    console: Netconsole
    pressed: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)

    def host(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address = HOST_IP, port: int = 6666) -> Netpoll:
        np = Netpoll(
            self.net, "host", dev_name="wire1", local_ip=ip, remote_ip=GUEST_IP, local_port=port, remote_port=6665
        )
        np.rx_hook = lambda _np, _port, data: self.received.append(data)
        netpoll_setup(np)
        return np

    def settle(self) -> None:
        """Serve until nothing is left to do."""
        while self.loop.run_once(0):
            pass


@contextmanager
def bench(options: str = OPTIONS, target: Target | None = None, allowed: str = "tsub") -> Iterator[Bench]:
    net = Net()
    wire, _ = wire_pair(net)
    pressed: list[str] = []
    with Loop(net) as loop:
        console = Netconsole(net, options, target, sysrq=pressed.append, allowed=frozenset(allowed))
        yield Bench(net, loop, wire, console, pressed)
        console.close()


def test_presets_are_the_slides() -> None:
    with bench(f"@{GUEST_IP}/wire0,@{HOST_IP}/") as b:
        np = b.console.np
        assert (np.name, np.local_port, np.remote_port, np.remote_mac) == ("netconsole", 6665, 6666, b"\xff" * 6)
        assert np.drop is netpoll_queue
        assert np.rx_hook is not None


def test_records_arrive_and_fragments_are_put_together() -> None:
    with bench(target=Target(extended=True)) as b:
        b.host()
        assert b.console.write(Record("up", 1)) == 1
        assert b.console.write(Record("x" * 2500, 2)) == 3
        b.settle()
        receiver = Receiver()
        messages = [event for data in b.received for event in receiver.receive(data, 0.0)]
        assert [m.text for m in messages if isinstance(m, Message)] == ["up", "x" * 2500]
        assert receiver.report().clean


def test_keys_of_the_peer_reach_the_sink() -> None:
    with bench() as b:
        netpoll_send_udp(b.host(), encode_keys("sub"))
        b.settle()
        assert b.pressed == ["s", "u", "b"]


def test_keys_work_by_polling_after_a_crash() -> None:
    """What the extension is for: no interrupt is served, no process runs, and a host can still ask for a reboot."""
    with bench() as b:
        host = b.host()
        b.net.context.crash()
        netpoll_send_udp(host, encode_keys("b"))
        assert b.pressed == []
        netpoll_poll(b.console.np)
        assert b.pressed == ["b"]


STRANGERS = {
    "other address": {"ip": OTHER_IP},
    "other port": {"port": 7777},
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_strangers_keys_do_not(stranger: dict[str, object]) -> None:
    with bench() as b:
        netpoll_send_udp(b.host(**stranger), encode_keys("sub"))  # type: ignore[arg-type]  # of several types
        b.settle()
        assert b.pressed == []


def test_a_forged_mac_does_not() -> None:
    with bench() as b:
        host = b.host()
        host.local_mac, host.mac_given = bytes.fromhex("0200000000aa"), True
        assert host.dev is not None
        host.prepare(host.dev, HOST_IP, GUEST_IP)
        netpoll_send_udp(host, encode_keys("sub"))
        b.settle()
        assert b.console.sysrq is not None
        assert (b.pressed, b.console.sysrq.counts["stranger"]) == ([], 1)


def test_forbidden_keys_do_not() -> None:
    with bench(allowed="t") as b:
        netpoll_send_udp(b.host(), encode_keys("tb"))
        b.settle()
        assert b.pressed == ["t"]


def test_records_queued_while_the_link_is_down_come_after() -> None:
    with bench() as b:
        b.host()
        assert b.wire.npinfo is not None
        b.wire.npinfo.max_retries = b.wire.npinfo.tries = 3  # type: ignore[attr-defined]  # a NetpollInfo
        b.wire.cable.set_link(False)
        b.loop.run_until(lambda: not b.wire.carrier, 5, "carrier off")
        assert [b.console.write(Record(text, 0)) for text in ("one", "two")] == [0, 0]
        b.wire.cable.set_link(True)
        b.loop.run_until(lambda: len(b.received) == 2, 5, "the queued records")
        assert b.received == [b"[    0.000000] one\n", b"[    0.000000] two\n"]


def test_sysrq_needs_one_peer() -> None:
    net = Net()
    wire_pair(net)
    with pytest.raises(ValueError, match="one peer only"):
        Netconsole(net, f"@{GUEST_IP}/wire0,@0.0.0.0/", sysrq=print)


def test_no_device_is_a_setup_error() -> None:
    with pytest.raises(SetupError, match="eth9 doesn't exist"):
        Netconsole(Net(), f"@{GUEST_IP}/eth9,@{HOST_IP}/")


def test_the_broadcast_mac_is_no_configured_mac() -> None:
    np = Netpoll(Net(), remote_ip=HOST_IP, remote_port=5)
    assert peer_of(np) == Peer(HOST_IP, 5, b"")
    np.remote_mac = bytes(6)
    assert peer_of(np) == Peer(HOST_IP, 5, bytes(6))


def test_a_source_exists_inside_a_hook_only() -> None:
    with pytest.raises(ValueError, match="outside an rx_hook"):
        source_of(Netpoll(Net()), 5)


def test_the_source_of_an_ipv6_datagram() -> None:
    net, sources = Net(), []
    wire_pair(net)
    ends = ipaddress.ip_address("fd00::1"), ipaddress.ip_address("fd00::2")
    a = Netpoll(net, dev_name="wire0", local_ip=ends[0], remote_ip=ends[1], local_port=1, remote_port=2)
    a.rx_hook = lambda np, port, _data: sources.append(source_of(np, port))
    b = Netpoll(net, dev_name="wire1", local_ip=ends[1], remote_ip=ends[0], local_port=2, remote_port=1)
    with Loop(net) as loop:
        netpoll_setup(a)
        netpoll_setup(b)
        netpoll_send_udp(b, b"x")
        loop.run_until(lambda: bool(sources), 5, "the datagram")
    assert sources == [Peer(ends[1], 2, bytes.fromhex(HOST_MAC.replace(":", "")))]
