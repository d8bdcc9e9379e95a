"""The device as a PCI function: vendor capabilities that lead to the areas of BAR 4, MSI-X in BAR 1, one interrupt pin.

In: timers, a MAC address, the wire. Out: the model and a PciDevice. Rule: modern only: no I/O BAR, device id 0x1041, revision 1.
"""

from __future__ import annotations

from collections.abc import Callable

from guest.netpoll.layout.virtio import (
    COMMON_SIZE,
    DEVICE_NET,
    NET_CONFIG_SIZE,
    PCI_CAP,
    PCI_CAP_ID_VNDR,
    VENDOR,
    CfgType,
)
from harness.nic.bus import Tell, Timers, Wire
from harness.nic.faulty import Faulty
from harness.nic.pcibus import PciBus
from harness.nic.virtio_net.device import QUEUES, VECTORS, VirtioNet
from harness.nic.virtio_net.transport import (
    BAR_SIZE,
    COMMON_AT,
    DEVICE_AT,
    ISR_AT,
    NOTIFY_AT,
    NOTIFY_MULTIPLIER,
)
from harness.vfio_user.config import BarKind, Capability, ConfigSpace, Identity, msix
from harness.vfio_user.device import Bar, PciDevice
from harness.vfio_user.registers import RegisterFile
from harness.vfio_user.wire import Irq

_BAR, _MSIX_BAR = 4, 1
_MSIX_AT, _MSIX_ENABLE = 0x98, 0x80  # of the high byte of message control
_MSIX_SIZE = 4096


def _capability(at: int, kind: CfgType, offset: int, size: int) -> Capability:
    """One vendor capability; the header's first two bytes are the list's."""
    extra = NOTIFY_MULTIPLIER.to_bytes(4, "little") if kind == CfgType.NOTIFY else b""
    whole = PCI_CAP.pack(0, 0, PCI_CAP.size + len(extra), kind, _BAR, 0, offset, size) + extra
    return Capability(PCI_CAP_ID_VNDR, at, whole[2:])


CAPABILITIES = (
    _capability(0x40, CfgType.COMMON, COMMON_AT, COMMON_SIZE),
    _capability(0x50, CfgType.ISR, ISR_AT, 1),
    _capability(0x60, CfgType.DEVICE, DEVICE_AT, NET_CONFIG_SIZE),
    _capability(0x70, CfgType.NOTIFY, NOTIFY_AT, NOTIFY_MULTIPLIER * len(QUEUES)),
    msix(_MSIX_AT, VECTORS, _MSIX_BAR, 0, _MSIX_SIZE // 2),
)


def make(
    timers: Timers, mac: bytes, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int
) -> tuple[VirtioNet, PciDevice]:
    """A model and the device that holds it."""
    bus = PciBus(timers, Irq.MSIX)
    model = VirtioNet(mac, bus, wire, tell, count, seed)
    bars = (BarKind(_MSIX_BAR, _MSIX_SIZE), BarKind(_BAR, BAR_SIZE, wide=True, prefetchable=True))
    config = ConfigSpace(Identity(VENDOR, DEVICE_NET, 0x020000, 1, VENDOR, 0x1100), bars, CAPABILITIES)
    transport = model.transport
    transport.master = lambda: config.bus_master
    transport.msix_enabled = lambda: bool(config.data[_MSIX_AT + 3] & _MSIX_ENABLE)
    parts: dict[int, tuple[BarKind, Bar]] = {
        _MSIX_BAR: (bars[0], RegisterFile(_MSIX_SIZE)),
        _BAR: (bars[1], Faulty(transport, model.faults, bus.sleep)),
    }
    irqs: dict[int, int] = {Irq.INTX: 1, Irq.MSIX: VECTORS}
    access = Faulty(config, model.faults, bus.sleep, slows=False)
    bus.device = PciDevice(config, parts, irqs, transport.reset, access)
    return model, bus.device
