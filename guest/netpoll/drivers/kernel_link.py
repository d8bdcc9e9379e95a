"""A NetDevice that is an interface of the kernel we run on: what af_packet, its ring and tap share.

In: rtnetlink's news about the interface. Out: carrier, MAC, MTU, flags and addresses of the NetDevice,
kept current, and netif_device_detach() when the interface is gone. The one rule: news is fetched in the
interrupt routine, as a NIC's link interrupt would be served; there is no thread and no timer.
"""

from __future__ import annotations

import errno
import os
import socket

from guest.netpoll.drivers import rtnetlink
from guest.netpoll.netdevice import (
    ARPHRD_ETHER,
    IFF_NOARP,
    Net,
    NetdevError,
    NetdevEvent,
    NetDevice,
    dev_change_name,
    netif_carrier_off,
    netif_carrier_on,
    netif_device_detach,
    netif_stop_queue,
)

GONE = {errno.ENODEV, errno.ENXIO}
_ETHERNET_LIKE = {rtnetlink.ARPHRD_ETHER, rtnetlink.ARPHRD_LOOPBACK}


class KernelLink(NetDevice):
    """Base of the drivers over a kernel interface; `kernel_flags` are its IFF_ flags as last seen."""

    def __init__(self, net: Net, name: str) -> None:
        super().__init__(net, name)
        self.ifindex = 0
        self.kernel_flags = 0
        self._monitor: socket.socket | None = None

    def open_link(self) -> None:
        """Find the interface, bring it up, start following it; raises NetdevError."""
        try:
            self.ifindex = _index_of(self.name)
            self._monitor = rtnetlink.monitor()
            if not rtnetlink.link(self.ifindex).up:
                rtnetlink.set_up(self.ifindex)
            self.read_link()
        except OSError as error:
            self.close_link()
            code = errno.ENODEV if error.errno in GONE else error.errno or errno.EIO
            raise NetdevError(code, f"{self.name}: {error.strerror}") from error

    def close_link(self) -> None:
        """Stop following the interface; it stays as it is."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    @property
    def monitor_fd(self) -> int:
        """Readable when a link or an address changed; -1 while closed."""
        return self._monitor.fileno() if self._monitor is not None else -1

    def check_link(self) -> None:
        """Part of the interrupt routine: if there is news, take it in."""
        if self._monitor is not None and rtnetlink.drain(self._monitor):
            self.read_link_or_detach()

    def read_link_or_detach(self) -> None:
        """read_link(), or note that the interface is gone."""
        try:
            self.read_link()
        except OSError as error:
            if error.errno not in GONE:
                raise
            netif_carrier_off(self)
            netif_device_detach(self)

    def read_link(self) -> None:
        """Take over the kernel's view; raises OSError."""
        link = rtnetlink.link(self.ifindex)
        self.kernel_flags = link.flags
        self.type = ARPHRD_ETHER if link.hardware in _ETHERNET_LIKE else link.hardware
        self.flags = self.flags & ~IFF_NOARP | link.flags & IFF_NOARP
        self._follow(link)
        self.addresses = self.ip_addresses()
        if link.carrier:
            netif_carrier_on(self)
        else:
            netif_stop_queue(self)
            netif_carrier_off(self)

    def ip_addresses(self) -> list[rtnetlink.Interface]:
        """Our IP addresses: the interface's."""
        return rtnetlink.addresses(self.ifindex)

    def hardware_address(self, link: rtnetlink.Link) -> bytes:
        """Our MAC address, given the interface's."""
        return link.address or self.dev_addr

    def _follow(self, link: rtnetlink.Link) -> None:
        """Tell listeners of a new name, MAC address or MTU."""
        if link.name and link.name != self.name:
            dev_change_name(self, link.name)
        address = self.hardware_address(link)
        if address != self.dev_addr:
            self.dev_addr = address
            self.net.call_netdevice_notifiers(NetdevEvent.CHANGEADDR, self)
        if link.mtu != self.mtu:
            self.mtu = link.mtu
            self.net.call_netdevice_notifiers(NetdevEvent.CHANGEMTU, self)


def _index_of(name: str) -> int:
    """if_nametoindex(), with the errno that it does not give; raises OSError."""
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):  # a name with a NUL in it, or of no encoding, is nobody's either
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
