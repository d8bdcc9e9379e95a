"""Datagrams under way: which are acknowledged, which are lost, and when to stop waiting.

In: numbers sent and acknowledged, the time. Out: datagrams to send again. The one rule: order is that of transmission, the last one of
each datagram counting, so that a datagram that is lost twice is noticed twice.

One is lost when enough that were sent after it have arrived. Where nothing comes back at all, the latest is sent once more, soon
(RFC 8985, 7: a tail loss probe): its acknowledgement tells of the others, or of the acknowledgement that was lost. The timer is last.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from guest.netpoll.clients.debugnet.wire import HEADER, HEADER_LEN, Type

MOST_REORDER = 32
LEAST_PROBE = 0.01  # seconds


class Flight:
    """`sent`: number -> (transmission, when, datagram), in order of transmission. `high`: end of the highest chunk ever sent."""

    def __init__(self, first_timeout: float, least_timeout: float, most_timeout: float) -> None:
        self.sent: dict[int, tuple[int, float, bytes]] = {}
        self.high = 0
        self._transmission = 0
        self._newest = 0  # the latest transmission known to have arrived
        self._again: dict[int, None] = {}  # sent twice, lately: a second acknowledgement says that this was not needed
        self._resent: set[int] = set()  # those under way that were
        self._slack = 0
        self._least, self._most = least_timeout, most_timeout
        self._timeout = first_timeout
        self._smooth = self._varies = 0.0
        self._backoff = 1
        self._active = 0.0  # when something was sent, or acknowledged
        self._probed = False

    def put(self, seqno: int, datagram: bytes, end: int, now: float) -> None:
        """Sent for the first time."""
        self._transmission = transmission = self._transmission + 1
        self.sent[seqno] = transmission, now, datagram
        self._active = now
        if end > self.high:
            self.high = end

    def acknowledge(self, seqno: int, now: float) -> bool:
        """One number; False if it was not under way."""
        entry = self.sent.pop(seqno, None)
        if entry is None:
            self._not_lost(seqno)
            return False
        self._resent.discard(seqno)
        self._active, self._probed = now, False
        transmission, when, _ = entry
        if transmission > self._newest:
            self._newest = transmission
            if seqno not in self._again:
                self._measured(now - when)
        return True

    def seen(self, below: int, bits: bytes, now: float) -> bool:
        """All numbers below, and above it those whose bit is set; False if that is no news. The latest is the round trip's measure."""
        sent, again, latest, news = self.sent, self._again, None, False
        for seqno in self._told(below, int.from_bytes(bits, "little")):
            transmission, when, _ = sent.pop(seqno)
            self._resent.discard(seqno)
            news = True
            if transmission > self._newest:
                self._newest = transmission
                latest = when if seqno not in again else None
        if news:
            self._active, self._probed = now, False
        if latest is not None:
            self._measured(now - latest)
        return news

    def _told(self, below: int, mask: int) -> list[int]:
        """Those under way that an answer speaks of. What was never sent again ascends: nobody looks at what is above all that was seen."""
        early = list(takewhile((below + mask.bit_length()).__ge__, self.sent))
        if self._resent:
            early += self._resent.difference(early)
        return [n for n in early if n < below or (n > below and mask >> n - below - 1 & 1)]

    def _not_lost(self, seqno: int) -> None:
        """It was acknowledged twice: if we sent it twice, that was for nothing, and we wait for more signs the next time."""
        if seqno in self._again:
            del self._again[seqno]
            self._slack = min(self._slack + 1, MOST_REORDER)

    def _measured(self, seconds: float) -> None:
        """A round trip (RFC 6298, 2.3)."""
        if not self._smooth:
            self._smooth, self._varies = seconds, seconds / 2
        else:
            self._varies += (abs(self._smooth - seconds) - self._varies) / 4
            self._smooth += (seconds - self._smooth) / 8
        self._timeout = min(max(self._smooth + 4 * self._varies, self._least), self._most)
        self._backoff = 1

    def lost(self, reorder: int, now: float) -> list[bytes]:
        """Those that `reorder` later ones have overtaken, now sent again."""
        limit = self._newest - reorder - self._slack
        gone = []
        for seqno, (transmission, _, _) in self.sent.items():
            if transmission > limit:
                break
            gone.append(seqno)
        return [self._resend(seqno, now) for seqno in gone]

    def probe(self, now: float) -> list[bytes]:
        """The latest once more, where nothing has come or gone for two round trips; once, until something is acknowledged."""
        if not self.sent or now < self._probe_at():
            return []
        self._probed = True
        return [self._resend(next(reversed(self.sent)), now)]

    def _probe_at(self) -> float:
        if self._probed or not self._smooth:
            return float("inf")
        return self._active + max(LEAST_PROBE, 2 * self._smooth)

    def timed_out(self, now: float) -> list[bytes]:
        """All of them, if the oldest is due; the next time it takes twice as long."""
        if not self.sent or now < self._oldest_due():
            return []
        self._backoff = min(self._backoff * 2, 64)
        return [self._resend(seqno, now) for seqno in list(self.sent)]

    def due(self) -> float:
        """When there is something to do for those under way; there must be one."""
        return min(self._oldest_due(), self._probe_at())

    def _oldest_due(self) -> float:
        _, when, _ = next(iter(self.sent.values()))
        return when + min(self._timeout * self._backoff, self._most)

    def _resend(self, seqno: int, now: float) -> bytes:
        self._transmission += 1
        self._active = now
        _, _, datagram = self.sent.pop(seqno)
        self.sent[seqno] = self._transmission, now, datagram
        self._again[seqno] = None
        self._resent.add(seqno)
        if len(self._again) > 4 * MOST_REORDER:
            del self._again[next(iter(self._again))]
        return datagram

    def overlaps(self, offset: int, size: int) -> bool:
        """A chunk under way has bytes of that range."""
        for _, _, datagram in self.sent.values():
            _, _, start, length, _ = HEADER.unpack_from(datagram)
            if start < offset + size and offset < start + length:
                return True
        return False

    def renumber(self, number: Callable[[], int]) -> None:
        """Everything under way gets a new number and is due at once: the server forgot which it has seen, but not their bytes."""
        before, self.sent = self.sent, {}
        self._again.clear()
        self._resent.clear()
        for _, _, datagram in before.values():
            kind, _, offset, size, aux2 = HEADER.unpack_from(datagram)
            seqno = number()
            self._transmission += 1
            again = HEADER.pack(kind, seqno, offset, size, aux2) + datagram[HEADER_LEN:]
            self.sent[seqno] = self._transmission, float("-inf"), again

    def drop_controls(self) -> None:
        """Keep chunks alone."""
        for seqno, (_, _, datagram) in list(self.sent.items()):
            if HEADER.unpack_from(datagram)[0] != Type.VMCORE:
                del self.sent[seqno]
                self._resent.discard(seqno)

    def clear(self) -> None:
        """Nothing is under way, nothing was sent."""
        self.sent.clear()
        self._again.clear()
        self._resent.clear()
        self.high = 0
