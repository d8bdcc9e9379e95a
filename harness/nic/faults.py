"""What goes wrong on purpose: the faults of a device that can be switched on and off while it runs; tg3 has all of them.

In: `apply` with a fault's name. Out: flags that the engines ask, and what becomes of a frame. Rule: nothing goes wrong unless
it was asked for; chance comes from a seeded generator. The table of names is `NAMES`, also in docs/tg3.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

NAMES: dict[str, str] = {
    "no-interrupts": "no MSI, no INTx; what was withheld is raised when the fault ends",
    "no-completions": "frames leave, but the status block's TX consumer stands still: descriptors run out",
    "no-dma": "TX descriptors are never fetched: frames do not leave, descriptors run out",
    "stale-status": "the status block is not written, interrupts are raised as ever",
    "gone": "every register and all of configuration space reads as ones, writes are lost",
    "no-reset": "a core reset resets nothing, though the bootcode reports as ever",
    "slow": "each register access takes `seconds` longer",
    "drop": "frames are lost with `chance`",
    "corrupt": "one bit of a frame flips with `chance`",
    "delay": "frames are held back for `seconds` with `chance`",
    "reorder": "a frame changes places with the next one with `chance`",
    "duplicate": "a frame comes twice with `chance`",
}
FRAME_FAULTS = ("drop", "corrupt", "delay", "reorder", "duplicate")
DIRECTIONS = ("tx", "rx")
HEADERS = 42  # bytes of Ethernet, IPv4 and UDP that `corrupt` leaves alone where there is more


@dataclass(frozen=True)
class Setting:
    """A fault that is on. `direction`: tx, rx or both, for frames."""

    chance: float = 1.0
    seconds: float = 0.0
    direction: str = "both"


@dataclass
class Faults:
    """Which faults are on. `later(seconds, callback)` serves delays. `count(name, 1)` hears of each time that one strikes."""

    later: Callable[[float, Callable[[], None]], None]
    count: Callable[[str, int], None]
    seed: int = 0
    on: dict[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._held: dict[str, bytes] = {}  # by direction: the frame that waits to change places

    def strikes(self, name: str) -> bool:
        """Whether a fault that has no chance to miss is on; if so it is counted."""
        if name not in self.on:
            return False
        self.count(name, 1)
        return True

    def apply(self, name: str, setting: Setting | None) -> None:
        """Switch a fault on (with its setting) or off (None). Raises ValueError for an unknown one or a senseless setting."""
        if name not in NAMES:
            raise ValueError(f"no fault is called {name!r}; there are {', '.join(NAMES)}")
        if setting is None:
            self.on.pop(name, None)
            return
        if (
            not 0 <= setting.chance <= 1
            or not 0 <= setting.seconds <= 4
            or setting.direction not in (*DIRECTIONS, "both")
        ):
            raise ValueError(f"{name}: {setting}")
        self.on[name] = setting

    def frames(self, direction: str, frame: bytes, deliver: Callable[[bytes], None]) -> Iterator[bytes]:
        """What becomes of one frame: the frames to pass on now; `deliver` takes those that come later."""
        if self._hits("drop", direction):
            return
        if self._hits("corrupt", direction):
            frame = self._flip(frame)
        if self._hits("delay", direction):
            self.later(self.on["delay"].seconds, lambda: deliver(frame))
            return
        held = self._held.pop(direction, None)
        if held is None and self._hits("reorder", direction):
            self._held[direction] = frame
            return
        yield frame
        if held is not None:
            yield held
        if self._hits("duplicate", direction):
            yield frame

    def waiting(self, direction: str) -> bytes | None:
        """The frame that waited to change places, when nobody is to wait any more."""
        return self._held.pop(direction, None)

    def _hits(self, name: str, direction: str) -> bool:
        setting = self.on.get(name)
        if setting is None or setting.direction not in (direction, "both") or self._rng.random() >= setting.chance:
            return False
        self.count(name, 1)
        return True

    def _flip(self, frame: bytes) -> bytes:
        first = HEADERS if len(frame) > HEADERS else 0
        damaged = bytearray(frame)
        damaged[self._rng.randrange(first, len(frame))] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)
