"""How fast the stack is: against plain sockets on the same veth in the same run, and layer by layer.

In: a Path: a veth whose near end has the kernel's own address too, and a permanent neighbour behind its far
end. Out: rows of microseconds a frame, ratios and goals; memory() for how much is occupied after how many
frames. The one rule is that of common.by_turns().
"""

from __future__ import annotations

from collections.abc import Mapping

from guest.netpoll.bench.common import Case, Path, Row
from guest.netpoll.bench.layers import layers
from guest.netpoll.bench.memory import memory
from guest.netpoll.bench.receive import receive
from guest.netpoll.bench.transmit import transmit

__all__ = ["Case", "Path", "Row", "layers", "memory", "receive", "run", "transmit"]


def run(path: Path, competitors: Mapping[str, tuple[Case, float]] | None = None, rounds: int = 300) -> list[Row]:
    """Every table. `competitors` send as well: name -> (case, the factor that our rings should be faster by)."""
    return [*transmit(path, competitors or {}, rounds), *receive(path, rounds), *layers(path, rounds)]
