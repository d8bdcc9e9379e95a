"""LACP: PDUs of any content, links that come and go, ports that are bound and unbound, and time, into one system.

In: options of the bond (an octet), then what happens, each of a kind (an octet, with a port's number). PDUs come as 110
octets, or made from a few, so that a partner which agrees with us is not left to chance. Held: it settles, and stays
settled; the books of ports and aggregators agree; no port without a link carries frames; what is sent is well-formed and
within the rate limit; the next deadline is in the future, so that nobody who waits for it spins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from guest.netpoll.bonding import lacpdu
from guest.netpoll.bonding.ad import AdSystem
from guest.netpoll.bonding.lacpdu import Information, Lacpdu, Marker
from guest.netpoll.bonding.params import AdSelect, BondParams, LacpRate, Mode
from guest.netpoll.bonding.port import PARTNER_ADMIN, MuxState, Port, Selected
from guest.netpoll.wire import WireError
from guest.tests.fuzz.octets import Octets
from guest.tests.fuzz.table import Target

PORTS = 3
MAX_TX = 3  # LACPDUs in a second: IEEE 802.1AX-2014 6.4.16
US = bytes.fromhex("020000000001")
RAW, MADE, LINK, TIME, UNBIND, BIND, SYSTEM, MARKER = range(8)
SECONDS = (0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 30.0, 90.0, 1e6)
SPEEDS = (10, 100, 1000, 0)


@dataclass
class World:
    """The system, the time, and when each port sent its last LACPDUs."""

    ad: AdSystem
    now: float = 100.0
    sent: dict[int, deque[float]] = field(default_factory=dict)

    def settle(self) -> None:
        self.ad.settle(self.now)

    def port(self, number: int) -> Port | None:
        return self.ad.ports.get(number % PORTS + 1)


def run(data: bytes) -> None:
    octets = Octets(data)
    made = World(_system(octets.u8()))
    for number in range(1, PORTS + 1):
        made.ad.bind_slave(number, US[:5] + bytes((number,)), 1000, True)
    made.settle()
    while octets:
        what = octets.u8()
        unbound = _happen(made, what & 7, what >> 3, octets)
        _check(made, unbound)
    _check_parser(data)


def _system(flags: int) -> AdSystem:
    params = BondParams(
        mode=Mode.AD,
        ad_select=tuple(AdSelect)[flags % 3],
        lacp_rate=LacpRate.FAST if flags & 4 else LacpRate.SLOW,
        lacp_active=not flags & 8,
    )
    return AdSystem(params, US)


def _happen(made: World, kind: int, number: int, octets: Octets) -> int:
    """One event; the number of a port that was unbound by it, which says good-bye beyond the rate limit."""
    port = made.port(number)
    if kind == TIME:
        made.now += SECONDS[octets.u8() % len(SECONDS)]
        made.settle()
    elif kind == SYSTEM:
        made.ad.set_system(bytes((2, 0, 0, 0, 0, octets.u8())), made.now)
    elif kind == BIND and port is None:
        made.ad.bind_slave(number % PORTS + 1, US, SPEEDS[octets.u8() % 4], True)
        made.settle()
    elif port is not None:
        return _happen_to(made, kind, port, octets)
    return 0


def _happen_to(made: World, kind: int, port: Port, octets: Octets) -> int:
    if kind == UNBIND:
        made.ad.unbind_slave(port, made.now)
        return port.number
    if kind == LINK:
        bits = octets.u8()
        made.ad.handle_link_change(port, bool(bits & 1), SPEEDS[bits >> 2 & 3], not bits & 2, made.now)
    else:
        made.ad.rx_indication(port, _pdu(kind, port, octets), made.now)
    return 0


def _pdu(kind: int, port: Port, octets: Octets) -> bytes:
    if kind == RAW:
        return octets.take(lacpdu.PDU_LEN)
    if kind == MARKER:
        return lacpdu.emit(Marker(bool(octets.u8() & 1), octets.take(14).ljust(14, b"\0")))
    who, state, view = octets.u8(), octets.u8(), octets.u8()
    system = bytes((2, 0, 0, 0, 9, who & 3))
    theirs = Information(0xFFFF, system, port.actor.key ^ (who >> 2 & 3), 0xFF, who >> 4, state)
    return lacpdu.emit(Lacpdu(theirs, _view(view, port.actor)))


def _view(view: int, ours: Information) -> Information:
    """What the partner believes of us: the truth, or one thing wrong, or nothing."""
    seen = (ours, PARTNER_ADMIN, replace(ours, key=ours.key ^ 1), replace(ours, state=view))
    return seen[view & 3]


def _check(made: World, unbound: int) -> None:
    ad = made.ad
    assert len(ad.aggregators) == len(ad.ports)
    actives = [aggregator for aggregator in ad.aggregators if aggregator.is_active]
    assert actives == ([ad.active] if ad.active else [])
    members = [port for aggregator in ad.aggregators for port in aggregator.ports]
    assert len(members) == len(set(map(id, members))), "a port is in two aggregators"
    for port in ad.ports.values():
        _check_port(made, port, members)
    for aggregator in ad.aggregators:
        _check_group(aggregator.ports)
    _check_sent(made, unbound)
    deadline = ad.next_deadline()
    assert deadline is None or deadline > made.now, f"to come back at {deadline}, it is {made.now}"
    _check_settled(made)


def _check_port(made: World, port: Port, members: list[Port]) -> None:
    assert (port.aggregator is not None) == any(member is port for member in members)
    assert port.aggregator is None or port.aggregator in made.ad.aggregators
    if port.mux_state is MuxState.COLLECTING_DISTRIBUTING:
        assert port.enabled, "frames are carried without a link"
        assert port.partner_has(lacpdu.SYNCHRONIZATION)
    if port.mux_state in (MuxState.ATTACHED, MuxState.COLLECTING_DISTRIBUTING):
        assert port.selected is Selected.SELECTED
        assert port.aggregator is made.ad.active
    assert port.has(lacpdu.DISTRIBUTING) == (port.mux_state is MuxState.COLLECTING_DISTRIBUTING)


def _check_group(ports: list[Port]) -> None:
    """Who is in one aggregator has one partner and one key; who may only be alone is."""
    groups = {(port.actor.key, port.partner.system, port.partner.system_priority, port.partner.key) for port in ports}
    assert len(groups) <= 1 or any(port.selected is Selected.UNSELECTED for port in ports)
    for port in ports:
        answered = any(port.partner.system)
        alone = not port.lacp_enabled or not answered or not port.partner_has(lacpdu.AGGREGATION)
        assert not alone or len(ports) == 1 or port.selected is Selected.UNSELECTED, "aggregated, though individual"


def _check_sent(made: World, unbound: int) -> None:
    for number, frame in made.ad.drain():
        assert frame[:6] == lacpdu.SLOW_MULTICAST
        pdu = lacpdu.parse(frame[14:])
        assert lacpdu.emit(pdu) == frame[14:]
        if isinstance(pdu, Marker) or number == unbound:
            continue
        assert pdu.actor.port == number
        times = made.sent.setdefault(number, deque(maxlen=MAX_TX))
        fresh = len(times) < MAX_TX or made.now >= times[0] + 1.0
        assert fresh, f"port {number} sends more than {MAX_TX} LACPDUs in a second"
        times.append(made.now)
    if unbound:
        made.sent.pop(unbound, None)


def _check_settled(made: World) -> None:
    before = [_state(port) for port in made.ad.ports.values()]
    made.settle()
    assert [_state(port) for port in made.ad.ports.values()] == before, "it had not settled"
    assert made.ad.drain() == []


def _state(port: Port) -> tuple[object, ...]:
    return (port.rx_state, port.periodic_state, port.mux_state, port.selected, port.actor, port.partner, port.timers())


def _check_parser(data: bytes) -> None:
    try:
        pdu = lacpdu.parse(data)
    except WireError:
        return
    assert lacpdu.parse(lacpdu.emit(pdu)) == pdu


ALL = 0xFF & ~lacpdu.DEFAULTED & ~lacpdu.EXPIRED


def encoded() -> Iterator[bytes]:
    up = b"".join(bytes((LINK | port << 3, 0b1001)) for port in range(PORTS))
    meet = b"".join(bytes((MADE | port << 3, port << 4, 0x0F, 0)) for port in range(PORTS))
    agree = b"".join(bytes((MADE | port << 3, port << 4, ALL, 0)) for port in range(PORTS))
    wait = bytes((TIME, 5))
    for flags in range(16):
        yield bytes((flags,)) + up + meet + wait + agree + wait + agree
    yield b"\0" + up + meet + wait + agree + bytes((LINK, 0)) + wait + bytes((LINK, 0b1001)) + meet + wait + agree
    yield b"\4" + up + meet + wait + agree + bytes((UNBIND, BIND, 2)) + wait + bytes((TIME, 8, TIME, 8, SYSTEM, 7))
    yield b"\0" + up + bytes((MADE, 1, 0x0F, 0, MADE | 8, 2, 0x0F, 0)) + wait + bytes((LINK, 0b1011, MARKER, 0))
    yield b"\0" + up + bytes((RAW,)) + lacpdu.emit(Lacpdu(PARTNER_ADMIN, PARTNER_ADMIN)) + wait
    yield lacpdu.emit(Lacpdu(replace(PARTNER_ADMIN, system=US), PARTNER_ADMIN, 5, 2))
    yield lacpdu.emit(Marker(False, bytes(range(14))))


TARGET = Target(run, encoded, tokens=(bytes((1, 1, 1, 20)), bytes((2, 20)), bytes((3, 16)), US), max_len=400)
