"""One dump at the collector: datagrams in, bytes to its sink and acknowledgements out.

In: the datagrams of one client, in batches. Out of `flush()`: the answers to them. The one rule: nothing is acknowledged before the
sink has it, and no number twice is written twice: a datagram from the past must not overwrite what came after it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.wire import (
    ACK,
    HEADER,
    HEADER_LEN,
    MAX_DATA,
    SPREAD,
    Answer,
    Message,
    Status,
    Type,
    emit_answer,
    parse,
)
from guest.netpoll.clients.dump.sink import Sink, SinkError, Store
from guest.netpoll.wire import WireError

AHEAD = 4 * SPREAD  # numbers from the lowest that is missing
EVERY, EVERY_WITH_GAPS = 16, 8  # datagrams to one long answer
DELAY = 0.002  # seconds that it may wait for more


class Stage(enum.Enum):
    """What a dump has come to."""

    WAITING = "waiting for data"
    RECEIVING = "receiving"
    COMPLETE = "complete"
    REFUSED = "refused"


class Dump:
    """`note(peer, what)` counts what is wrong with a datagram. `size` is the limit of the file, in bytes."""

    def __init__(
        self,
        store: Store,
        peer: str,
        name: int,
        path: str | None,
        seqno: int,
        size: int,
        note: Callable[[str, str], None],
        now: float,
    ) -> None:
        self.peer, self.name = peer, name
        self.stage = Stage.WAITING
        self.heard = now
        self.bytes = 0
        self.repeated = 0
        self._store, self._path = store, path
        self._limit = size
        self._note = note
        self._sink: Sink | None = None
        self._header = kdh.Header(0)
        self._low = seqno + 1  # all below have been received
        self._above: set[int] = set()
        self._batch: list[tuple[int, int, bytes]] = []
        self._controls: list[Message] = []
        self._seen: list[int] = []  # to acknowledge
        self._since: float | None = None  # the first of them
        self._urgent = False
        self._answers: list[bytes] = []  # that wait for nothing
        self._encrypted = False
        self.why = ""

    def heralded(self, seqno: int, status: Status) -> None:
        """Answer a HERALD, once a flush. A client of ours that heralds again gives what is under way new numbers: those before will
        not come, and waiting for them would leave no room to answer about the others."""
        if self.name and 0 < (ahead := seqno + 1 - self._low & 0xFFFFFFFF) < 1 << 31:
            self._low = self._low + ahead & 0xFFFFFFFF
            self._above = {n for n in self._above if 0 < (n - self._low & 0xFFFFFFFF) < 1 << 31}
            while self._low in self._above:
                self._above.remove(self._low)
                self._low = self._low + 1 & 0xFFFFFFFF
        answer = emit_answer(Answer(seqno, self.name, status))
        if answer not in self._answers:
            self._answers.append(answer)

    def receive(self, datagram: bytes) -> None:
        """One datagram; it is looked at, and kept for flush(). Never raises, whatever the bytes."""
        size = len(datagram) - HEADER_LEN
        if 0 < size <= MAX_DATA:
            kind, seqno, offset, claimed, _ = HEADER.unpack_from(datagram)
            if kind == 3 and claimed == size:  # Type.VMCORE
                if offset + size > self._limit:
                    self._beyond(seqno)
                elif self._is_new(seqno):
                    self._batch.append((offset, size, datagram))
                return
        self._other(datagram)

    def _is_new(self, seqno: int) -> bool:
        """Note the number; False if it was here before, or is none that a client could be at."""
        low = self._low
        ahead = (seqno - low) & 0xFFFFFFFF
        if ahead == 0:
            self._low = low = low + 1 & 0xFFFFFFFF
            above = self._above
            while low in above:
                above.remove(low)
                self._low = low = low + 1 & 0xFFFFFFFF
        elif ahead < AHEAD and seqno not in self._above:
            self._above.add(seqno)
        elif ahead < AHEAD or ahead >= 1 << 31:
            self.repeated += 1
            self._seen.append(seqno)
            return False
        else:
            self._note(self.peer, "with a number far ahead")
            return False
        self._seen.append(seqno)
        return True

    def _beyond(self, seqno: int) -> None:
        self._note(self.peer, "beyond the limit")
        if self.name:
            self._answers = [
                emit_answer(Answer(seqno, self.name, Status.REFUSED, b"the dump is larger than the limit"))
            ]

    def _other(self, datagram: bytes) -> None:
        try:
            message = parse(datagram)
        except WireError as error:
            self._note(self.peer, str(error))
            return
        if message.type in (Type.HERALD, Type.VMCORE):
            self._note(self.peer, "out of place")
        elif self._is_new(message.seqno) or self.stage is not Stage.COMPLETE:
            self._controls.append(message)  # twice does no harm, and FreeBSD's test client gives FINISHED the number 0

    # -- process context

    def flush(self, now: float) -> list[bytes]:
        """Write what came, and answer it. To be called when a batch of datagrams has been received, and when wait() says so."""
        if self._batch or self._controls:
            self.heard = now
            self._work()
        answers, self._answers = self._answers, []
        if not self._seen:
            return answers
        if self._since is None:
            self._since = now
        if self.stage is Stage.REFUSED:
            return answers + self._refusal()
        if not self.name:
            answers += map(ACK.pack, self._seen)
        elif self._urgent or self.wait(now) <= 0:
            answers.append(self._long_answer())
        else:
            return answers
        self._seen.clear()
        self._since, self._urgent = None, False
        return answers

    def wait(self, now: float) -> float:
        """Seconds until flush() has an answer that nothing received calls for; inf for none."""
        if self._since is None:
            return float("inf")
        many = len(self._seen) >= (EVERY_WITH_GAPS if self._above else EVERY)
        return 0.0 if many else max(0.0, self._since + DELAY - now)

    def _refusal(self) -> list[bytes]:
        seqno = self._seen[-1]
        self._seen.clear()
        self._since = None
        return [emit_answer(Answer(seqno, self.name, Status.REFUSED, self.why.encode()))] if self.name else []

    def _long_answer(self) -> bytes:
        """All below the lowest that is missing, and those above it that are here."""
        mask = 0
        for seqno in self._above:
            ahead = (seqno - self._low & 0xFFFFFFFF) - 1
            if ahead < SPREAD:
                mask |= 1 << ahead
        tail = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
        return emit_answer(Answer(self._low, self.name, Status.SEEN, tail))

    def _work(self) -> None:
        batch, self._batch = self._batch, []
        controls, self._controls = self._controls, []
        if self.stage in (Stage.COMPLETE, Stage.REFUSED):
            self._note(self.peer, f"for a dump that is {self.stage.value}")
            return
        self._urgent = bool(controls)
        try:
            sink = self._sink = self._sink or self._store.open(self.peer, self.name, self._path, "debugnet")
            self.stage = Stage.RECEIVING
            for offset, data in runs(batch):
                sink.write(offset, data)
                self.bytes += len(data)
            for message in controls:
                self._control(sink, message)
        except SinkError as error:
            self.why, self.stage = str(error), Stage.REFUSED
            if self._sink is not None:
                self._sink.abandon(self.why, partial=True)

    def _control(self, sink: Sink, message: Message) -> None:
        if message.type == Type.KDH:
            self._described(sink, message.data)
        elif message.type == Type.EKCD_KEY:
            if not self._encrypted:
                sink.log("the dump is encrypted; its key is not kept here")
            self._encrypted = True
        else:
            suffix = kdh.SUFFIXES.get(self._header.compression, "")
            name = ("vmcore_encrypted" if self._encrypted else "vmcore") + suffix
            sink.finish(self._header.length, name, exact=bool(suffix))
            self.stage = Stage.COMPLETE

    def _described(self, sink: Sink, data: bytes) -> None:
        """What the header says; one that is damaged is told and does not count (netdumpd acknowledges it as well)."""
        try:
            header = kdh.parse(data)
        except kdh.HeaderError as error:
            sink.log(str(error))
            self._note(self.peer, "with a kernel dump header that is none")
            return
        if header.length > self._limit:
            raise SinkError(f"the dump of {header.length} bytes is larger than the limit of {self._limit}")
        self._header = header
        for what in ("length", "architecture", "hostname", "versionstring", "panicstring"):
            sink.log(f"{what}: {getattr(header, what)!r}")

    def end(self, why: str) -> None:
        """No more comes. What is incomplete stays so, for a client that comes again."""
        if self.stage is Stage.RECEIVING and self._sink is not None:
            self._sink.abandon(why, partial=False)


def runs(batch: list[tuple[int, int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of (offset, size, datagram)s, those that follow one another joined; in their order."""
    parts: list[bytes] = []
    start = end = 0
    for offset, size, datagram in batch:
        if offset != end and parts:
            yield start, b"".join(parts)
            parts.clear()
        if not parts:
            start = end = offset
        parts.append(datagram[HEADER_LEN:])
        end += size
    if parts:
        yield start, b"".join(parts)
