"""The acknowledged exchange with one debugger: requests in, each answered once; lost, doubled and late datagrams sorted out.

In: datagrams with their IPv4 identification and the time (seconds, of any monotonic clock). Out: datagrams. The rule it
keeps: gdb never gets an answer to another question than the one it asked last, even if it then gets none.

Why that takes care: a reply does not say what it answers. gdb sends a request, waits for `+` (2 s, four times), throws
away replies that come while it waits for that, takes the next reply for its answer, and asks for it again with `-` (2 s,
three times). So:

* A copy of a request is not answered again: the second `+` and reply would be taken for those of the next request. Without
  identifications the same request within COPY_WITHIN counts as a copy; where gdb meant it, it asks again after 2 s.
* `+` and reply go in datagrams of their own: a reply that is late or doubled then mostly comes before the `+` of the
  next request, where gdb throws it away.
* `-` may mean that our reply was lost, or that the request after it was (an early copy of our `+` had stood for its). Only where the
  identifications show that no request can be missing is the last reply sent again; gdb else reports the error.

What is left: our own datagrams doubled *and* delayed by the network beyond the next `+`. gdb has no means against that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from guest.netpoll.clients.gdb.arrivals import Arrivals, Order
from guest.netpoll.clients.gdb.packet import Decoder, Packet, Sign, frame

COPY_WITHIN = 0.5  # seconds: gdb repeats itself after remotetimeout, 2 s; a network's copy is there at once

Answer = Callable[[bytes], bytes | None]


class Link:
    """One debugger's exchange. `answer(request)` gives the reply, or None where none is due (`k`).

    `counts`: packets, resent (replies, by `-`), duplicate, late, bad, interrupts, naks (that could not be answered).
    """

    def __init__(self, answer: Answer) -> None:
        self.counts: Counter[str] = Counter()
        self._answer = answer
        self._arrivals = Arrivals()
        self._decoder = Decoder()
        self._request: bytes | None = None
        self._asked_at = 0.0
        self._reply = b""
        self._acks = 0  # since the request
        self._missing = 0  # datagrams of gdb's since the request

    def receive(self, data: bytes, ident: int | None, now: float) -> list[bytes]:
        """Take one datagram; the datagrams to send, in order."""
        arrival = self._arrivals.judge(ident)
        if arrival.order is Order.OLD:
            self.counts["late"] += 1
            return []
        self._missing += arrival.missing
        known = arrival.order is Order.NEW
        return [part for event in self._decoder.feed(data) for part in self._take(event, known, now)]

    def _take(self, event: Sign | Packet, known: bool, now: float) -> list[bytes]:
        match event:
            case Packet(request):
                return self._asked(request, known, now)
            case Sign.ACK:
                self._acks += 1
            case Sign.NAK:
                return self._asked_again(known)
            case Sign.INTERRUPT:
                self.counts["interrupts"] += 1  # nothing runs that could be interrupted
            case Sign.BAD | Sign.LONG:
                self.counts["bad"] += 1
                return [b"-"]
        return []

    def _asked(self, request: bytes, known: bool, now: float) -> list[bytes]:
        if not known and request == self._request and now - self._asked_at < COPY_WITHIN:
            self.counts["duplicate"] += 1
            return []
        self.counts["packets"] += 1
        self._request, self._asked_at = request, now
        self._acks = self._missing = 0
        reply = self._answer(request)
        self._reply = b"" if reply is None else frame(reply)
        return [b"+", self._reply] if self._reply else [b"+"]

    def _asked_again(self, known: bool) -> list[bytes]:
        may_be_lost = self._acks + self._missing >= 2 and self._missing > 0 if known else self._acks > 0
        if may_be_lost or not self._reply:
            self.counts["naks"] += 1
            return []
        self.counts["resent"] += 1
        return [self._reply]
