"""Which driver of ours drives which device, and how one gets from a PCI address or an interface to a net_device.

In: a PCI address, or the name of an interface that the kernel drives. Out: a PollModeDevice, not registered yet, whose `release` gives the
device back. The one rule: a device that no driver of ours knows is not taken, and one whose driver gives up is given back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from guest.netpoll.drivers.pmd import uio
from guest.netpoll.drivers.pmd.bus import BusError, PciDevice
from guest.netpoll.drivers.pmd.claim import PCI, pci_address
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.e1000 import E1000
from guest.netpoll.drivers.pmd.tg3 import Tg3
from guest.netpoll.drivers.pmd.virtio_net import VirtioNet
from guest.netpoll.layout import bcm5787, e1000, virtio
from guest.netpoll.netdevice import Net

Driver = Callable[[Net, str, PciDevice], PollModeDevice]

DRIVERS: dict[tuple[int, int], Driver] = {
    (e1000.VENDOR, e1000.DEVICE): E1000,
    (bcm5787.VENDOR, bcm5787.DEVICE): Tg3,
    (virtio.VENDOR, virtio.DEVICE_NET): VirtioNet,
    (virtio.VENDOR, virtio.DEVICE_NET_TRANSITIONAL): VirtioNet,
}


def ids(address: str) -> tuple[int, int]:
    """Vendor and device of a PCI function. Raises BusError(ENODEV)."""
    folder = PCI / "devices" / address
    try:
        return _number(folder / "vendor"), _number(folder / "device")
    except OSError as error:
        raise BusError(errno.ENODEV, f"no PCI device {address!r}") from error


def probe(net: Net, name: str, address: str) -> PollModeDevice:
    """Take the device at `address` and give it its driver. Raises BusError, the device being left as found."""
    found = ids(address)
    driver = DRIVERS.get(found)
    if driver is None:
        known = ", ".join(f"{vendor:04x}:{device:04x}" for vendor, device in DRIVERS)
        raise BusError(errno.ENODEV, f"{address} is {found[0]:04x}:{found[1]:04x}; there are drivers for {known}")
    bus = uio.take(address)
    try:
        return driver(net, name, bus)
    except BaseException:
        bus.close()
        raise


def probe_interface(net: Net, interface: str) -> PollModeDevice:
    """The same for an interface of the kernel's, which is gone afterwards; the device is called as it was."""
    return probe(net, interface, pci_address(interface))


def candidates() -> list[str]:
    """The PCI addresses of all devices that there is a driver for."""
    return [folder.name for folder in uio.devices() if ids(folder.name) in DRIVERS]


def _number(path: Path) -> int:
    return int(path.read_text(), 16)
