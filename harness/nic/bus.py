"""What a device model needs of the world: the machine it is plugged into, and the wire at its other end.

Rule: `Memory`'s methods raise DmaFault where there is no memory; none of these calls waits for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.nic.faults import Setting


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

    def msi(self, vector: int = 0) -> bool:
        """Raise an MSI, or the MSI-X of that vector; False if the guest has not enabled it."""

    def intx(self, asserted: bool) -> None:
        """Drive the interrupt pin."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None:
        """Keep whoever made the present access waiting."""


class Timers(Protocol):
    """What a `Bus` is made with: real time behind a socket, a test's own in one process."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None: ...


class Wire(Protocol):
    """The network's side; frames without FCS."""

    def send(self, frame: bytes) -> None: ...

    def resume(self) -> None:
        """The model takes frames again after its `receive` has said no."""


class Chip(Protocol):
    """The model itself, as whoever plugs it in sees it."""

    def receive(self, frame: bytes) -> bool:
        """A frame from the wire. False: not taken, offer it again after `Wire.resume`."""

    def receive_all(self, frames: Sequence[bytes]) -> int:
        """Frames from the wire in their order; how many were taken. The rest: as above."""

    def settle(self) -> None:
        """A burst of accesses or frames is over."""

    def plug(self, cable: bool, silent: bool = False) -> None:
        """Put the cable in or pull it out. `silent`: the device does not tell the driver."""

    def spurious(self) -> None:
        """An interrupt without a reason."""

    def fault(self, name: str, setting: Setting | None) -> None:
        """Switch a fault on or off. Raises ValueError for one that the model does not have."""


Tell = Callable[..., None]
"""`tell(kind, **keys)`: an event of the device, for the evidence."""
