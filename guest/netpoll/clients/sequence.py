"""Numbered datagrams that can be checked byte for byte: what was sent follows from (seed, seq) alone.

In: a `Stream` (seed, count, length bounds). Out of the generator: payloads; out of the `Receiver`: one `Arrival` a
datagram and a `Summary` of ranges missing, duplicated, out of order, damaged or foreign. The rule it keeps: the two
ends share only the `Stream`, so a receiver regenerates each payload and a single wrong bit anywhere is seen.

Payload, big-endian, `length` bytes in all:

    0        4          8              16       18
    | "NPSQ" | stream id | sequence u64 | length | fill ... |

The fill is SHAKE-128 of seed and sequence; its first four bytes choose the length.
"""

from __future__ import annotations

import enum
import hashlib
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

MAGIC = b"NPSQ"
HEADER = struct.Struct("!4sIQH")
HEADER_LENGTH = HEADER.size
MAX_LENGTH = 65_507  # largest UDP payload over IPv4
MAX_COUNT = 1 << 32  # the receiver keeps one byte a datagram
MAX_DETAILS = 1000  # of each kind that a summary names; the counts go on


@dataclass(frozen=True, slots=True)
class Stream:
    """What both ends agree on. Lengths are of the UDP payload, in bytes, both bounds included.

    Raises ValueError when the bounds leave no room for the header, or are the wrong way round.
    """

    seed: int
    count: int
    min_length: int = 64
    max_length: int = 1400

    def __post_init__(self) -> None:
        if not HEADER_LENGTH <= self.min_length <= self.max_length <= MAX_LENGTH:
            raise ValueError(
                f"lengths {self.min_length}..{self.max_length}: need "
                f"{HEADER_LENGTH} <= min_length <= max_length <= {MAX_LENGTH}"
            )
        if not 0 < self.count <= MAX_COUNT:
            raise ValueError(f"count {self.count}: need 1..{MAX_COUNT}")
        if not -(1 << 63) <= self.seed < 1 << 63:
            raise ValueError(f"seed {self.seed}: does not fit in 64 bits")


class Why(enum.Enum):
    """What a datagram turned out to be. The first three are byte-exact members of the stream."""

    OK = "ok"
    LATE = "late"  # a higher number came before it
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"  # no magic, or another stream's id
    TRUNCATED = "truncated"  # shorter than its header or than the header says
    OVERLONG = "overlong"
    OUT_OF_RANGE = "out of range"  # a number that this stream never sends
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One datagram judged. `seq` is what its header claims (None: no header); `ok` means byte-exact."""

    index: int  # 0 for the first datagram handed to the receiver
    seq: int | None
    ok: bool
    why: Why
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a stream. Ranges are [first, last]; lists hold at most MAX_DETAILS, the counts everything."""

    expected: int
    received: int  # distinct, byte-exact
    missing: list[list[int]]
    missing_count: int
    duplicates: dict[int, int]  # seq -> copies beyond the first
    duplicate_count: int
    late: list[int]  # in order of arrival
    late_count: int
    bad: list[dict[str, Any]]  # corrupt, truncated, overlong, out of range, foreign
    bad_count: int
    counts: dict[str, int] = field(default_factory=dict)  # by Why.value

    @property
    def complete(self) -> bool:
        """Every datagram arrived byte-exact at least once."""
        return self.received == self.expected

    @property
    def perfect(self) -> bool:
        """Complete, each once, in order, and nothing else beside them."""
        return self.complete and not (self.duplicate_count or self.late_count or self.bad_count)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types (keys of `duplicates` become strings), with the two properties."""
        plain = asdict(self)
        plain["duplicates"] = {str(seq): copies for seq, copies in self.duplicates.items()}
        return plain | {"complete": self.complete, "perfect": self.perfect}


class Generator:
    """Makes the payload of any sequence number of a stream; also what the receiver compares with."""

    def __init__(self, stream: Stream) -> None:
        key = struct.pack("!qII", stream.seed, stream.min_length, stream.max_length)
        self.stream = stream
        self.stream_id = int.from_bytes(hashlib.shake_128(b"id" + key).digest(4), "big")
        self._fill = hashlib.shake_128(key)
        self._spread = stream.max_length - stream.min_length + 1

    def payload(self, seq: int) -> bytes:
        """The datagram numbered `seq`. Raises ValueError outside 0..count-1."""
        if not 0 <= seq < self.stream.count:
            raise ValueError(f"sequence {seq} is outside 0..{self.stream.count - 1}")
        fill = self._fill.copy()
        fill.update(seq.to_bytes(8, "big"))
        length = self.stream.min_length + int.from_bytes(fill.digest(4), "big") % self._spread
        header = HEADER.pack(MAGIC, self.stream_id, seq, length)
        return header + fill.digest(length - HEADER_LENGTH)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.payload, range(self.stream.count))


def generate(stream: Stream) -> Iterator[bytes]:
    """All payloads of a stream, in order."""
    return iter(Generator(stream))


class Receiver:
    """Judges datagrams one at a time and remembers, in one byte a number, what came."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._generator = Generator(stream)
        self._seen = bytearray(stream.count)
        self._highest = -1
        self._received = 0
        self._counts: Counter[Why] = Counter()
        self._duplicates: Counter[int] = Counter()
        self._late: list[int] = []
        self._bad: list[Arrival] = []

    @property
    def finished(self) -> bool:
        """Every number has arrived byte-exact; nothing needs to be awaited any more."""
        return self._received == self.stream.count

    @property
    def received(self) -> int:
        """Distinct byte-exact datagrams so far."""
        return self._received

    def receive(self, data: bytes) -> Arrival:
        """Judge one UDP payload. Never raises, whatever the bytes."""
        index = self._counts.total()
        why, seq, detail = self._judge(data)
        if why is Why.OK:
            assert seq is not None  # _judge calls nothing OK that has no number
            why = self._account(seq)
        self._counts[why] += 1
        ok = why in (Why.OK, Why.LATE, Why.DUPLICATE)
        arrival = Arrival(index, seq, ok, why, detail)
        if not ok and len(self._bad) < MAX_DETAILS:
            self._bad.append(arrival)
        return arrival

    def _judge(self, data: bytes) -> tuple[Why, int | None, str]:
        if len(data) < HEADER_LENGTH:
            why = Why.TRUNCATED if data and MAGIC.startswith(data[:4]) else Why.FOREIGN
            return why, None, f"{len(data)} bytes, the header alone has {HEADER_LENGTH}"
        magic, stream_id, seq, length = HEADER.unpack_from(data)
        if magic != MAGIC:
            return Why.FOREIGN, None, f"magic {magic!r}"
        if stream_id != self._generator.stream_id:
            return Why.FOREIGN, seq, f"stream {stream_id:#010x}, not {self._generator.stream_id:#010x}"
        if seq >= self.stream.count:
            return Why.OUT_OF_RANGE, seq, f"the stream ends at {self.stream.count - 1}"
        wanted = self._generator.payload(seq)
        if data == wanted:
            return Why.OK, seq, ""
        return _difference(seq, length, bytes(data), wanted)

    def _account(self, seq: int) -> Why:
        if self._seen[seq]:
            if seq in self._duplicates or len(self._duplicates) < MAX_DETAILS:
                self._duplicates[seq] += 1
            return Why.DUPLICATE
        self._seen[seq] = 1
        self._received += 1
        if seq > self._highest:
            self._highest = seq
            return Why.OK
        if len(self._late) < MAX_DETAILS:
            self._late.append(seq)
        return Why.LATE

    def summary(self) -> Summary:
        """Everything so far. Numbers not yet arrived count as missing."""
        return Summary(
            expected=self.stream.count,
            received=self._received,
            missing=[list(run) for run in _take(self.missing(), MAX_DETAILS)],
            missing_count=self.stream.count - self._received,
            duplicates=dict(self._duplicates),
            duplicate_count=self._counts[Why.DUPLICATE],
            late=list(self._late),
            late_count=self._counts[Why.LATE],
            bad=[asdict(a) | {"why": a.why.value} for a in self._bad],
            bad_count=sum(n for why, n in self._counts.items() if why not in _MEMBERS),
            counts={why.value: n for why, n in self._counts.items()},
        )

    def missing(self) -> Iterator[tuple[int, int]]:
        """Runs [first, last] of numbers that have not arrived, ascending."""
        for run in re.finditer(rb"\0+", bytes(self._seen)):
            yield run.start(), run.end() - 1


_MEMBERS = frozenset({Why.OK, Why.LATE, Why.DUPLICATE})


def _difference(seq: int, length: int, data: bytes, wanted: bytes) -> tuple[Why, int, str]:
    """Name how `data` differs from what was sent: a cut, a tail, or the first wrong byte."""
    if length == len(wanted) and len(data) < len(wanted) and wanted.startswith(data):
        return Why.TRUNCATED, seq, f"{len(data)} of {len(wanted)} bytes"
    if data.startswith(wanted):
        return Why.OVERLONG, seq, f"{len(data) - len(wanted)} bytes after the {len(wanted)} sent"
    offset = next((i for i, (a, b) in enumerate(zip(data, wanted, strict=False)) if a != b), len(data))
    got = f"{data[offset]:#04x}" if offset < len(data) else "the end"
    return Why.CORRUPT, seq, f"byte {offset} of {len(wanted)} is {got}, not {wanted[offset]:#04x}"


def _take(runs: Iterable[tuple[int, int]], limit: int) -> Iterator[tuple[int, int]]:
    return (run for run, _ in zip(runs, range(limit), strict=False))
