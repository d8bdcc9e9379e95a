"""The NIC models a testcase can name: the word in YAML, QEMU's device, and the Linux driver that must bind to it.

In: nothing. Out: `MODELS`, read by the loader (unknown words), the compiler (devices, buses) and the template (drivers to
preload). Rule: a row is here only if QEMU's hot-plug and Linux's driver were seen to work together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """One row. `express`: a PCI Express device, which q35 takes on a root port instead of the PCI bridge. `link`: the guest
    can see QMP's set_link; without it QEMU throws frames away while the guest's carrier stays up (no
    `link_status_changed` in the device's NetClientInfo)."""

    word: str  # in the testcase
    device: str  # QEMU's device name
    driver: str  # name under /sys/bus/*/drivers, also the module's name
    express: bool
    note: str
    link: bool = True


def _e100(word: str, chip: str) -> Model:
    """eepro100.c answers every MDI read of the PHY's status with a link."""
    return Model(word, word, "e100", False, f"Intel {chip}, 100 Mbit/s; set_link is not seen", link=False)


_TABLE = (
    Model("virtio-net", "virtio-net-pci", "virtio_net", True, "paravirtual; carrier follows set_link at once"),
    Model("e1000", "e1000", "e1000", False, "Intel 82540EM; about 2.3 s from up to carrier"),
    Model("e1000-82544gc", "e1000-82544gc", "e1000", False, "Intel 82544GC"),
    Model("e1000-82545em", "e1000-82545em", "e1000", False, "Intel 82545EM"),
    Model("e1000e", "e1000e", "e1000e", True, "Intel 82574L, MSI-X"),
    Model("igb", "igb", "igb", True, "Intel 82576; QEMU 8.0 or newer"),
    _e100("i82550", "82550"),
    _e100("i82551", "82551"),
    _e100("i82557b", "82557B"),
    _e100("i82559er", "82559ER"),
    _e100("i82801", "82801 (ICH)"),
    Model("rtl8139", "rtl8139", "8139cp", False, "Realtek 8139C+, so 8139cp and not 8139too"),
    Model("pcnet", "pcnet", "pcnet32", False, "AMD PCnet-PCI II"),
    Model("vmxnet3", "vmxnet3", "vmxnet3", True, "VMware's paravirtual NIC"),
    Model("tulip", "tulip", "tulip", False, "DEC 21143; set_link is not seen", link=False),
    Model(
        "ne2k_pci",
        "ne2k_pci",
        "ne2k-pci",
        False,
        "NE2000, no NAPI: the slides' other path; set_link unseen",
        link=False,
    ),
)

MODELS: dict[str, Model] = {model.word: model for model in _TABLE}

DRIVERS: tuple[str, ...] = tuple(dict.fromkeys(model.driver for model in _TABLE))
