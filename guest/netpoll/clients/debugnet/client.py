"""The crashed machine's end of debugnet netdump: a dump as datagrams, a bounded window of them under way.

In: a `Source` of chunks, acknowledgements, the time. Out of `poll()`: datagrams for `port`. The one rule: a chunk is let go when the
server has acknowledged it, and no chunk that overlaps another is sent before that one has been.

HERALD, the chunks, KDH, FINISHED, as FreeBSD's kernel has it (netdump_client.c). Different here: the window slides, and what was lost
is sent again as soon as datagrams sent after it are acknowledged, not only when the timer says so; each datagram is acknowledged by
itself, so no server notices. Only a server of ours (wire.py) is ever asked a second time for a dump that has begun: FreeBSD's takes a
second HERALD for a new dump.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guest.netpoll.clients.debugnet.flight import Flight
from guest.netpoll.clients.debugnet.wire import (
    HEADER,
    HEADER_LEN,
    MAX_DATA,
    SPREAD,
    Answer,
    Message,
    Status,
    Type,
    emit,
    parse_answer,
)
from guest.netpoll.clients.dump.sources import Chunk, Source, SourceError
from guest.netpoll.wire import WireError

STARVED = 1.0  # seconds without a look at a source that has nothing


class State(enum.Enum):
    """Where a dump is."""

    HERALD = "looking for the server"
    DATA = "sending"
    HEADER = "sending the header"
    FINISHING = "finishing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times in seconds. FreeBSD's: window 64, no `reorder`, every timeout 1 s, 11 of them are the end."""

    window: int = 64  # datagrams under way
    our_window: int = 128  # to a server of ours, which answers many at once
    reorder: int = 3  # one is lost when so many sent after it have arrived
    herald: float = 0.5
    first_timeout: float = 1.0  # until a round trip has been seen
    least_timeout: float = 0.2  # an emulated machine may be held up for so long
    most_timeout: float = 2.0
    silence: float = 3.0  # without a word from a server of ours: ask again whether it is there
    patience: float = 600.0  # without a word from any: give up
    last_words: int = 10  # FINISHED to a server that answers no more: it may have finished


class Client:
    """`name` is a number that no other dump has, 0 for none: then the server is not asked whether it is ours.

    `header(length)` makes the kernel dump header of a dump of that many bytes; `room` is the longest payload of a datagram.
    """

    def __init__(
        self,
        source: Source,
        header: Callable[[int], bytes],
        *,
        room: int,
        name: int = 0,
        path: str = "",
        tuning: Tuning | None = None,
    ) -> None:
        self.source = source
        self.tuning = tuning or Tuning()
        self.state = State.HERALD
        self.port: int | None = None  # where datagrams go; None: the port that the server was configured with
        self.why = ""
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self.ours = False  # the server is one of ours
        self._header = header
        self._chunk = min(room - HEADER_LEN, MAX_DATA)
        self._name = name
        self._path = path.encode() + b"\0" if path else b""
        self._chunks: Iterator[Chunk | None] = source.chunks(self._chunk)
        self._held: Chunk | None = None
        self._exhausted = False
        self.starved = False  # the source had nothing yet when the window had room
        self._begun = False
        self._flight = Flight(self.tuning.first_timeout, self.tuning.least_timeout, self.tuning.most_timeout)
        self._seqno = 1
        self._asked = 1  # the HERALD's number
        self._herald_at = float("-inf")
        self._heard = float("-inf")
        self._last_words = 0

    @property
    def ended(self) -> bool:
        """Nothing more will be sent."""
        return self.state in (State.DONE, State.FAILED)

    @property
    def done(self) -> bool:
        """The server has all of it."""
        return self.state is State.DONE

    @property
    def total(self) -> int:
        """Bytes of the file, 0 for a stream, which ends when it ends."""
        return self.source.length if self.source.repeatable else 0

    @property
    def resent(self) -> int:
        """Datagrams sent again."""
        return self.counts["resent_fast"] + self.counts["resent_late"] + self.counts["probes"]

    # -- what arrives

    def receive(self, data: bytes, port: int, now: float) -> None:
        """One datagram of the server's, from its `port`. Never raises, whatever the bytes."""
        if self.ended:
            return
        try:
            answer = parse_answer(data)
        except WireError:
            self.counts["unreadable"] += 1
            return
        if answer.name and answer.name != self._name:
            self.counts["forged"] += 1
        elif answer.status is Status.REFUSED and (answer.seqno in self._flight.sent or self.state is State.HERALD):
            self._end(State.FAILED, f"the server refuses: {answer.tail.decode(errors='backslashreplace')}")
        elif self.state is State.HERALD:
            self._welcome(answer, port, now)
        elif port != self.port or answer.status is not Status.SEEN:
            self.counts["late"] += 1
        else:
            self._acknowledged(answer, now)

    def _acknowledged(self, answer: Answer, now: float) -> None:
        flight, seqno = self._flight, answer.seqno
        seen = flight.seen(seqno, answer.tail, now) if answer.name else flight.acknowledge(seqno, now)
        self.counts["repeated"] += not seen
        self._heard = now

    def _welcome(self, answer: Answer, port: int, now: float) -> None:
        """The answer to a HERALD: from here on we speak to that port."""
        if answer.seqno != self._asked:
            self.counts["late"] += 1
            return
        self.port, self._heard, self.ours = port, now, bool(answer.name)
        if answer.status is Status.COMPLETE:
            self._end(State.DONE, "")
        elif self._begun and answer.status is not Status.RESUMED:
            self._again()
        else:
            self.counts["resumed"] += self._begun
            self._flight.renumber(self._next)
            self.state = State.DATA
        self._begun = True

    def _again(self) -> None:
        """The server has nothing of what it acknowledged: from the beginning, where the source has one."""
        if not self.source.repeatable:
            self._end(State.FAILED, "the server has lost what it had, and a stream cannot be sent twice")
            return
        self.counts["restarted"] += 1
        self._chunks, self._held, self._exhausted = self.source.chunks(self._chunk), None, False
        self._flight.clear()
        self.state = State.DATA

    # -- what leaves

    def poll(self, now: float) -> list[bytes]:
        """The datagrams to send now, to `port`."""
        if self.ended:
            return []
        if self._heard < 0 or not (self._flight.sent or self.state is State.HERALD):
            self._heard = now  # nothing is owed to us
        if now - self._heard > self.tuning.patience:
            self._end(State.FAILED, f"no word from the server for {self.tuning.patience:g} s")
            return []
        if self.state is State.HERALD:
            return self._herald(now)
        if self.ours and now - self._heard > self.tuning.silence:
            return self._ask_again(now)
        out = self._resend(now)
        if self.state is State.DATA and not self._exhausted:
            self._fill(out, now)
        if not self._flight.sent and not out and (self._exhausted or self.state is not State.DATA):
            self._advance(out, now)
        self.counts["datagrams"] += len(out)
        return out

    def wait(self, now: float) -> float:
        """Seconds until poll() has something to do, if nothing is received before."""
        if self.state is State.HERALD:
            return max(0.0, self._herald_at + self.tuning.herald - now)
        if self._flight.sent:
            return max(0.0, self._flight.due() - now)
        return STARVED if self.starved else 0.0

    def _herald(self, now: float) -> list[bytes]:
        if now - self._herald_at < self.tuning.herald:
            return []
        self._herald_at = now
        self.counts["heralds"] += 1
        return [emit(Message(Type.HERALD, self._asked, 0, self._path, self._name))]

    def _ask_again(self, now: float) -> list[bytes]:
        """Is the server there, and does it know us? KDH and FINISHED under way are made anew after its answer."""
        self.state, self.port, self._asked = State.HERALD, None, self._next()
        self._flight.drop_controls()
        return self._herald(now)

    def _next(self) -> int:
        self._seqno += 1
        return self._seqno

    def _resend(self, now: float) -> list[bytes]:
        lost = self._flight.lost(self.tuning.reorder, now)
        late = [] if lost else self._flight.timed_out(now)
        if not lost and not late and (probe := self._flight.probe(now)):
            self.counts["probes"] += 1
            return probe
        self.counts["resent_fast"] += len(lost)
        self.counts["resent_late"] += len(late)
        if late and self.state is State.FINISHING and not self.ours:
            self._last_words += 1
            if self._last_words > self.tuning.last_words:
                self._end(State.DONE, "the last acknowledgement never came")
        return lost or late

    def _fill(self, out: list[bytes], now: float) -> None:
        """Chunks, until the window is full, the source has no more, or a chunk must wait for one that it overlaps."""
        flight = self._flight
        sent = flight.sent
        room = min(self._window() - len(sent), SPREAD + min(sent, default=self._seqno) - self._seqno)
        self.starved = False
        pack = HEADER.pack
        for _ in range(room):
            chunk = self._held or self._pull()
            if chunk is None:
                return
            offset, data = chunk
            if offset < flight.high and flight.overlaps(offset, len(data)):
                self._held = chunk
                return
            self._held = None
            self._seqno = seqno = self._seqno + 1
            datagram = pack(3, seqno, offset, len(data), 0) + data  # Type.VMCORE
            flight.put(seqno, datagram, offset + len(data), now)
            out.append(datagram)
            self.sent += len(data)

    def _window(self) -> int:
        return self.tuning.our_window if self.ours else self.tuning.window

    def _pull(self) -> Chunk | None:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._exhausted = True
            return None
        except SourceError as error:
            self._end(State.FAILED, str(error))
            return None
        self.starved = chunk is None
        return chunk

    def _advance(self, out: list[bytes], now: float) -> None:
        """Everything sent is acknowledged: on to the next step."""
        if self.state is State.DATA and self._exhausted:
            self.state = State.HEADER
            self._control(Type.KDH, self._header(self.source.length), out, now)
        elif self.state is State.HEADER:
            self.state = State.FINISHING
            self._control(Type.FINISHED, b"", out, now)
        elif self.state is State.FINISHING:
            self._end(State.DONE, "")

    def _control(self, kind: Type, data: bytes, out: list[bytes], now: float) -> None:
        datagram = emit(Message(kind, self._next(), 0, data))
        self._flight.put(self._seqno, datagram, 0, now)
        out.append(datagram)

    def _end(self, state: State, why: str) -> None:
        self.state, self.why = state, why
        self._flight.clear()
