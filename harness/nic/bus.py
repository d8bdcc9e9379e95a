"""What a device model needs of the world: the machine it is plugged into, and the wire at its other end.

Rule: `Memory`'s methods raise DmaFault where there is no memory; none of these calls waits for anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Memory(Protocol):
    """Guest memory; `harness.vfio_user.dma.DmaMemory` is one. `store16`, `store32`: one store of the CPU each."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...

    def store16(self, address: int, value: int) -> None: ...

    def store32(self, address: int, value: int) -> None: ...


class Bus(Protocol):
    """The machine's side."""

    @property
    def memory(self) -> Memory: ...

    def msi(self) -> bool:
        """Raise an MSI; False if the guest has not enabled it."""

    def intx(self, asserted: bool) -> None:
        """Drive the interrupt pin."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None:
        """Keep whoever made the present access waiting."""


class Wire(Protocol):
    """The network's side; frames without FCS."""

    def send(self, frame: bytes) -> None: ...

    def resume(self) -> None:
        """The model takes frames again after its `receive` has said no."""


Tell = Callable[..., None]
"""`tell(kind, **keys)`: an event of the device, for the evidence."""
