"""`ncfrag` fragments into whole bodies, in bounded memory, whatever arrives.

In: header and slice of each fragment, with the time. Out: the body when its last hole is filled, and a note of each body
given up. The rule it keeps: bytes once taken are never overwritten, and nothing is stored that was not received.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from guest.netpoll.clients.netconsole.message import FormatError, Header


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sender can make us hold: at most `slots` bodies of `total` bytes each in `pieces` fragments."""

    slots: int = 32
    total: int = 80 * 1024  # 8192 of text, 256 userdata items of 256, and sysdata
    pieces: int = 256
    timeout: float = 30.0  # seconds after the first fragment


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A fragmented message that was given up: `have` of `total` bytes had come."""

    seq: int
    have: int
    total: int
    why: str


@dataclass(slots=True)
class _Slot:
    header: Header  # of its first fragment, `fragment` None
    total: int
    since: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    have: int = 0


class Reassembler:
    """Holds fragments by sequence number. `given_up` collects what was evicted since it was last taken."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._slots: dict[int, _Slot] = {}  # insertion order is age
        self.given_up: list[Incomplete] = []

    def add(self, header: Header, data: bytes, now: float) -> tuple[Header, bytes, int] | None:
        """Take one fragment; (header without fragment, body, fragments) once all are there, else None.

        Raises FormatError for a fragment that cannot belong to any message, or that contradicts the others.
        """
        if header.fragment is None:
            raise ValueError("not a fragment")
        offset, total = header.fragment
        if not data or not 0 < total <= self._limits.total or offset + len(data) > total:
            raise FormatError(f"ncfrag={offset}/{total} with {len(data)} bytes")
        slot = self._slot(replace(header, fragment=None), total, now)
        self._store(slot, offset, data)
        if slot.have < total:
            return None
        del self._slots[header.seq]
        return slot.header, b"".join(slot.pieces[at] for at in sorted(slot.pieces)), len(slot.pieces)

    def _slot(self, header: Header, total: int, now: float) -> _Slot:
        slot = self._slots.get(header.seq)
        if slot and (slot.header, slot.total) != (header, total):
            self._give_up(header.seq, "another message came with its number")
            slot = None
        if slot is None:
            if len(self._slots) >= self._limits.slots:
                self._give_up(next(iter(self._slots)), "too many messages in pieces")
            slot = self._slots[header.seq] = _Slot(header, total, now)
        return slot

    def _store(self, slot: _Slot, offset: int, data: bytes) -> None:
        if slot.pieces.get(offset) == data:
            return  # a copy
        if len(slot.pieces) >= self._limits.pieces:
            raise FormatError(f"more than {self._limits.pieces} fragments")
        if any(at < offset + len(data) and offset < at + len(piece) for at, piece in slot.pieces.items()):
            raise FormatError(f"ncfrag={offset}/{slot.total} overlaps what came before")
        slot.pieces[offset] = data
        slot.have += len(data)

    def expire(self, now: float) -> None:
        """Give up on what has waited longer than the timeout."""
        old = [seq for seq, slot in self._slots.items() if now - slot.since >= self._limits.timeout]
        for seq in old:
            self._give_up(seq, f"incomplete after {self._limits.timeout:g} s")

    def close(self) -> None:
        """Give up on everything: no more packets will come."""
        for seq in list(self._slots):
            self._give_up(seq, "the end")

    def take_given_up(self) -> list[Incomplete]:
        """What was evicted since the last call."""
        taken, self.given_up = self.given_up, []
        return taken

    def _give_up(self, seq: int, why: str) -> None:
        slot = self._slots.pop(seq)
        self.given_up.append(Incomplete(seq, slot.have, slot.total, why))
