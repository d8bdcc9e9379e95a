"""The NIC models a testcase can name: the word in YAML, QEMU's device, and the Linux driver that must bind to it.

In: nothing. Out: `MODELS`, read by the loader (unknown words), the compiler (devices, buses) and the template (drivers to
preload). Rule: a row is here only if QEMU's hot-plug and Linux's driver were seen to work together; docs/nics.md is what a run of
testcases/nics saw of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

BRIDGE = "pb0"  # q35's bus of conventional PCI devices: harness.testbed.qemu
POLL_MODE = (
    "e1000",
    "virtio-net",
    "virtio-net-modern",
    "tg3",
    "our-e1000",
    "our-virtio-net",
)  # there is a driver of ours for these (guest.netpoll.drivers.pmd)
NO_BOND = {  # what bonding wants of a slave's driver, by mode
    "802.3ad": "tells no speed and full duplex, so 802.3ad sends no LACPDU over it",
    "balance-alb": "takes no other MAC while it is up, as balance-alb asks it to",
}
NONE: Mapping[str, str | bool] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Model:
    """One row. `express`: a PCI Express device, which q35 takes on a root port instead of the PCI bridge. `link`: the guest
    can see QMP's set_link; without it QEMU throws frames away while the guest's carrier stays up (no
    `link_status_changed` in the device's NetClientInfo, or one that the guest's driver never asks about). `properties`: what makes
    this variant of QEMU's device; the testcase's own come after them. `controller`: the PCI device whose bus the NIC is plugged
    into, plugged in before it. `ours`: its name in harness.nic.models, for a model of ours in a process of its own, which QEMU reaches
    over vfio-user. `mtu`: the largest that its driver is known to take; None where nobody has looked. `functions`: it has virtual
    functions (SR-IOV), which lie on the same bus, 16 and 17 slots above it, whether or not anybody asks for them. `rings`: its driver has a set_ringparam(), so that
    `ethtool -G` can make them smaller. `no_bond`: modes that it is of no use in (`NO_BOND`)."""

    word: str  # in the testcase
    device: str  # QEMU's device name
    driver: str  # name under /sys/bus/*/drivers, also the module's name
    express: bool
    note: str
    link: bool = True
    properties: Mapping[str, str | bool] = field(default_factory=lambda: NONE)
    controller: str | None = None
    ours: str | None = None
    mtu: int | None = None
    functions: bool = False
    rings: bool = True
    no_bond: tuple[str, ...] = ()

    @property
    def served(self) -> bool:
        """Whether a process of ours is the device."""
        return self.ours is not None

    @property
    def poll_mode(self) -> bool:
        """Whether there is a driver of ours for it."""
        return self.word in POLL_MODE


def _virtio(word: str, note: str, express: bool = True, **properties: str | bool) -> Model:
    renamed = {name.replace("_", "-"): value for name, value in properties.items()}
    return Model(word, "virtio-net-pci", "virtio_net", express, note, properties=MappingProxyType(renamed))


def _e100(word: str, chip: str) -> Model:
    """eepro100.c answers every MDI read of the PHY's status with a link."""
    return Model(word, word, "e100", False, f"Intel {chip}, 100 Mbit/s", link=False, mtu=1500)


_FRAMES = ("drop", "corrupt", "delay", "reorder", "duplicate")
_ALL = ("no-interrupts", "no-completions", "no-dma", "gone", "slow", "silent-link", "spurious-interrupt", *_FRAMES)
FAULTS: Mapping[str, tuple[str, ...]] = {  # of each model of ours; harness.nic has them
    "tg3": (*_ALL, "stale-status", "no-reset"),
    "e1000": (*_ALL, "no-reset"),
    "virtio-net": _ALL,
}


def _ours(word: str, model: str, driver: str, note: str) -> Model:
    return Model(word, "vfio-user-pci", driver, False, note, ours=model, mtu=1500)


_TABLE = (
    _virtio("virtio-net", "paravirtual, as this QEMU makes it by default: transitional on PCI, modern on PCI Express"),
    _virtio("virtio-net-legacy", "virtio 0.9 registers in I/O ports", False, disable_legacy="off", disable_modern=True),
    _virtio("virtio-net-modern", "virtio 1 registers only", disable_legacy="on"),
    _virtio("virtio-net-packed", "virtio 1.1 packed ring", disable_legacy="on", packed=True),
    Model("e1000", "e1000", "e1000", False, "Intel 82540EM; about 2 s from up to carrier"),
    Model("e1000-82544gc", "e1000-82544gc", "e1000", False, "Intel 82544GC"),
    Model("e1000-82545em", "e1000-82545em", "e1000", False, "Intel 82545EM"),
    Model("e1000e", "e1000e", "e1000e", True, "Intel 82574L, MSI-X"),
    Model("igb", "igb", "igb", True, "Intel 82576; QEMU 8.0 or newer", functions=True),
    _e100("i82550", "82550"),
    _e100(
        "i82551", "82551; its driver insists on microcode, which QEMU takes no notice of: the guest has an empty one"
    ),
    _e100("i82557a", "82557A"),
    _e100("i82557b", "82557B"),
    _e100("i82557c", "82557C"),
    _e100("i82558a", "82558A"),
    _e100("i82558b", "82558B"),
    _e100("i82559a", "82559A"),
    _e100("i82559b", "82559B"),
    _e100("i82559c", "82559C"),
    _e100("i82559er", "82559ER"),
    _e100("i82562", "82562"),
    _e100("i82801", "82801 (ICH)"),
    Model("rtl8139", "rtl8139", "8139cp", False, "Realtek 8139C+, so 8139cp and not 8139too", mtu=4096, rings=False),
    Model("pcnet", "pcnet", "pcnet32", False, "AMD PCnet-PCI II", mtu=1500, no_bond=tuple(NO_BOND)),
    Model("vmxnet3", "vmxnet3", "vmxnet3", True, "VMware's paravirtual NIC"),
    Model("tulip", "tulip", "tulip", False, "DEC 21143", link=False, rings=False, mtu=1500, no_bond=tuple(NO_BOND)),
    Model(
        "ne2k_pci",
        "ne2k_pci",
        "ne2k-pci",
        False,
        "NE2000, no NAPI: the slides' other path",
        link=False,
        rings=False,
        mtu=1500,
        no_bond=tuple(NO_BOND),
    ),
    Model(
        "usb-net",
        "usb-net",
        "cdc_ether",
        True,
        "CDC Ethernet over USB",
        link=False,
        controller="qemu-xhci",
        rings=False,
        mtu=1500,
        no_bond=tuple(NO_BOND),
    ),
    _ours("tg3", "tg3", "tg3", "Broadcom BCM5787, our own model (docs/tg3.md)"),
    _ours("our-e1000", "e1000", "e1000", "Intel 82540EM, our own model (docs/models.md)"),
    _ours("our-virtio-net", "virtio-net", "virtio_net", "virtio 1, our own model (docs/models.md)"),
)

MODELS: dict[str, Model] = {model.word: model for model in _TABLE}

# What a controller's own driver is called, for the template to load.
CONTROLLER_DRIVERS = ("xhci_pci",)
DRIVERS: tuple[str, ...] = (*CONTROLLER_DRIVERS, *dict.fromkeys(model.driver for model in _TABLE))
