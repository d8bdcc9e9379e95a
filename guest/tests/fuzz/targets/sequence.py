"""Datagrams into the receiver of a numbered stream: its own, its own damaged, and any others.

In: datagrams, each of a kind (an octet): a number of the stream, a number with one octet changed, cut or lengthened, or
octets after their length. Held: nothing raises; what is judged byte-exact is; the summary adds up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from guest.netpoll.clients.sequence import Generator, Receiver, Stream, Why
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

STREAM = Stream(seed=7, count=40, min_length=18, max_length=60)
GENERATOR = Generator(STREAM)
EXACT, CHANGED, CUT, TAIL, OTHER = range(5)


def run(data: bytes) -> None:
    octets = Octets(data)
    receiver = Receiver(STREAM)
    count, exact = 0, set[int]()
    while octets:
        datagram = _datagram(octets)
        arrival = receiver.receive(datagram)
        assert arrival.index == count
        count += 1
        is_exact = datagram in PAYLOADS
        assert arrival.ok == is_exact, f"{arrival} for {datagram.hex()}"
        assert arrival.ok == (arrival.why in (Why.OK, Why.LATE, Why.DUPLICATE))
        if is_exact and arrival.seq is not None:
            assert (arrival.why is Why.DUPLICATE) == (arrival.seq in exact)
            exact.add(arrival.seq)
    _check(receiver, count, exact)


PAYLOADS = frozenset(GENERATOR)


def _datagram(octets: Octets) -> bytes:
    kind = octets.u8() % 5
    if kind == OTHER:
        return octets.block()
    exact = GENERATOR.payload(octets.u8() % STREAM.count)
    if kind == CUT:
        return exact[: octets.u8()]
    if kind == TAIL:
        return exact + octets.block()
    if kind == CHANGED:
        at, value = octets.u8() % len(exact), octets.u8()
        return exact[:at] + bytes((value,)) + exact[at + 1 :]
    return exact


def _check(receiver: Receiver, count: int, exact: set[int]) -> None:
    summary = receiver.summary()
    assert summary.received == receiver.received == len(exact)
    assert sum(summary.counts.values()) == count
    assert summary.received + summary.duplicate_count + summary.bad_count == count
    assert summary.missing_count == sum(last - first + 1 for first, last in summary.missing)
    missing = {seq for first, last in summary.missing for seq in range(first, last + 1)}
    assert missing == set(range(STREAM.count)) - exact
    assert summary.complete == receiver.finished == (not missing)
    assert json.loads(json.dumps(summary.to_dict()))["received"] == len(exact)


def encoded() -> Iterator[bytes]:
    yield b"".join(bytes((EXACT, seq)) for seq in range(STREAM.count))
    yield bytes((EXACT, 5, EXACT, 3, EXACT, 3, CHANGED, 1, 20, 0, CUT, 2, 17, CUT, 2, 30, TAIL, 4)) + block(b"tail")
    for foreign in (b"", b"NPSQ", b"XXXX" + bytes(20), b"NPSQ" + bytes(14), GENERATOR.payload(0)):
        yield bytes((OTHER,)) + block(foreign)
    yield bytes((OTHER,)) + block(GENERATOR.payload(0)[:8] + (STREAM.count).to_bytes(8, "big") + bytes(12))


TARGET = Target(run, encoded, tokens=(b"NPSQ", GENERATOR.payload(0)[:8]), max_len=400)
