"""Which frames a virtio-net device takes, and the commands of the control queue that say so (virtio 1.2, 5.1.6.5).

In: commands. Out: `accepts(frame)`. Rule: a command that is too short, too long or unknown is answered with VIRTIO_NET_ERR and
changes nothing.
"""

from __future__ import annotations

from guest.netpoll.layout.virtio import (
    CTRL_ERR,
    CTRL_MAC_ADDR_SET,
    CTRL_MAC_TABLE_SET,
    CTRL_OK,
    CTRL_VLAN_ADD,
    CTRL_VLAN_DEL,
    Ctrl,
    CtrlRx,
)

BROADCAST = b"\xff" * 6
TABLE = 64  # addresses of each kind; more, and all of the kind are taken


class Filter:
    """`mac`: the device's address, which CTRL_MAC_ADDR_SET changes."""

    def __init__(self, mac: bytes) -> None:
        self._born = mac
        self.reset()

    def reset(self) -> None:
        self.mac = self._born
        self.modes = dict.fromkeys(CtrlRx, False)
        self.modes[CtrlRx.PROMISC] = True  # a driver that does not negotiate CTRL_RX gets everything
        self.unicast: frozenset[bytes] = frozenset()
        self.multicast: frozenset[bytes] = frozenset()
        self.vlans: set[int] | None = None  # None: the driver has not negotiated CTRL_VLAN

    def accepts(self, frame: bytes) -> bool:
        if (
            self.vlans is not None
            and frame[12:14] == b"\x81\x00"
            and int.from_bytes(frame[14:16], "big") & 0xFFF not in self.vlans
        ):
            return False
        target, modes = frame[:6], self.modes
        if modes[CtrlRx.PROMISC]:
            return True
        if target == BROADCAST:
            return not modes[CtrlRx.NOBCAST]
        if target[0] & 1:
            return not modes[CtrlRx.NOMULTI] and (modes[CtrlRx.ALLMULTI] or target in self.multicast)
        return not modes[CtrlRx.NOUNI] and (target == self.mac or modes[CtrlRx.ALLUNI] or target in self.unicast)

    def command(self, data: bytes) -> int:
        """class, command and its data; returns the acknowledgement."""
        if len(data) < 2:
            return CTRL_ERR
        kind, what, rest = data[0], data[1], data[2:]
        if kind == Ctrl.RX:
            return self._mode(what, rest)
        if kind == Ctrl.MAC:
            return self._address(what, rest)
        if kind == Ctrl.VLAN:
            return self._vlan(what, rest)
        return CTRL_ERR

    def _mode(self, what: int, rest: bytes) -> int:
        if what not in self.modes or len(rest) != 1:
            return CTRL_ERR
        self.modes[CtrlRx(what)] = rest[0] != 0
        return CTRL_OK

    def _address(self, what: int, rest: bytes) -> int:
        if what == CTRL_MAC_ADDR_SET and len(rest) == 6:
            self.mac = rest
            return CTRL_OK
        if what != CTRL_MAC_TABLE_SET:
            return CTRL_ERR
        unicast, rest = _table(rest)
        multicast, rest = _table(rest)
        if unicast is None or multicast is None or rest:
            return CTRL_ERR
        self.unicast, self.multicast = unicast, multicast
        self.modes[CtrlRx.ALLUNI] |= len(unicast) > TABLE
        self.modes[CtrlRx.ALLMULTI] |= len(multicast) > TABLE
        return CTRL_OK

    def _vlan(self, what: int, rest: bytes) -> int:
        if self.vlans is None or what not in (CTRL_VLAN_ADD, CTRL_VLAN_DEL) or len(rest) != 2:
            return CTRL_ERR
        number = int.from_bytes(rest, "little") & 0xFFF
        (self.vlans.add if what == CTRL_VLAN_ADD else self.vlans.discard)(number)
        return CTRL_OK


def _table(data: bytes) -> tuple[frozenset[bytes] | None, bytes]:
    """struct virtio_net_ctrl_mac, and what follows it; None if there is none."""
    count = int.from_bytes(data[:4], "little")
    end = 4 + 6 * count
    if len(data) < end or len(data) < 4:
        return None, b""
    return frozenset(data[at : at + 6] for at in range(4, end, 6)), data[end:]
