"""The models by name. Rule: only the one that is asked for is imported: a server is up in a third of the time then."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from harness.nic.bus import Chip, Tell, Timers, Wire
from harness.vfio_user.device import PciDevice

MODELS = {
    "e1000": "harness.nic.e1000.pci",
    "tg3": "harness.nic.tg3.pci",
    "virtio-net": "harness.nic.virtio_net.pci",
}


def make(
    name: str, timers: Timers, mac: bytes, wire: Wire, tell: Tell, count: Callable[[str, int], None], seed: int = 0
) -> tuple[Chip, PciDevice]:
    """A model and the PCI device that holds it. Raises ValueError for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    made: tuple[Chip, PciDevice] = importlib.import_module(MODELS[name]).make(timers, mac, wire, tell, count, seed)
    return made
