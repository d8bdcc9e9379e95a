"""debugnet in trouble: ends that die and come again, links that are cut, disks that fill, strangers that forge; and whatever a fuzzer says."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.client import Client, State, Tuning
from guest.netpoll.clients.debugnet.server import Limits
from guest.netpoll.clients.debugnet.wire import Answer, Message, Status, Type, emit, emit_answer
from guest.netpoll.clients.dump.sources import StreamSource
from guest.tests.dump_wire import MemoryStore, Weather, Wire
from guest.tests.test_debugnet import NAME, client_of, header, memory, server_of, source_of

_ANY, _OFFSET = st.integers(0, 8) | st.integers(0, (1 << 32) - 1), st.integers(0, 99) | st.integers(0, (1 << 64) - 1)


def _datagram(kind: int, seqno: int, offset: int, data: bytes) -> bytes:
    return emit(Message(kind, seqno, offset, data))


class TestServerThatIsRestarted:
    """Killed, then another on the same disk: what a client of ours has not had acknowledged is all that comes again."""

    @pytest.mark.parametrize("seed", range(5))
    def test_it_goes_on(self, seed: int) -> None:
        data = memory(2_000_000)
        store = MemoryStore()
        wire = Wire(client_of(data), server_of(store)[0], seed, Weather(loss=0.02, reorder=0.1, duplicate=0.1))
        wire.run(until=lambda: wire.client.sent > 700_000)
        wire.server, said = server_of(store)
        wire.run()
        assert wire.client.state is State.DONE
        assert [bytes(sink.data) == data for sink in store.sinks] == [True]
        assert wire.client.counts["resumed"] == 1
        assert wire.client.sent < 1.1 * len(data)
        assert said == ["10.0.0.2: a dump goes on"]

    def test_it_was_complete_and_only_the_last_acknowledgement_was_lost(self) -> None:
        data = memory(50_000)
        store = MemoryStore()
        wire = Wire(client_of(data), server_of(store)[0], 1, Weather())
        wire.run(until=lambda: wire.server.finished > 0)
        wire.server, _ = server_of(store)
        wire._air.clear()  # the acknowledgement
        wire.run()
        assert wire.client.state is State.DONE
        assert len(store.sinks) == 1

    def test_on_an_empty_disk_it_begins_again(self) -> None:
        data = memory(1_000_000)
        store = MemoryStore()
        wire = Wire(client_of(data), server_of(MemoryStore())[0], 1, Weather())
        wire.run(until=lambda: wire.client.sent > 300_000)
        wire.server, _ = server_of(store)
        wire.run()
        assert bytes(store.sinks[0].data) == data
        assert wire.client.counts["restarted"] == 1

    def test_on_an_empty_disk_a_stream_has_ended(self) -> None:
        parts = iter([os.urandom(500_000), os.urandom(500_000), b""])
        client = Client(StreamSource(lambda _: next(parts)), header, room=1472, name=NAME)
        wire = Wire(client, server_of(MemoryStore())[0], 1, Weather())
        wire.run(until=lambda: client.sent > 300_000)
        wire.server, _ = server_of(MemoryStore())
        wire.run()
        assert (client.state, client.why) == (
            State.FAILED,
            "the server has lost what it had, and a stream cannot be sent twice",
        )


class TestLinkThatIsCut:
    @pytest.mark.parametrize("size", [1_000_000, pytest.param(3_000_000, id="more than an answer speaks of")])
    @pytest.mark.parametrize("name", [0, NAME])
    def test_it_comes_back(self, name: int, size: int) -> None:
        data = memory(size)
        store = MemoryStore()
        wire = Wire(client_of(data, name), server_of(store)[0], 1, Weather(loss=0.01))
        wire.run(until=lambda: wire.client.sent > 300_000)
        wire.cut = True
        back = wire.now + 20
        wire.run(until=lambda: wire.now > back)
        wire.cut = False
        wire.run()
        assert [bytes(sink.data) == data for sink in store.sinks] == [True]

    @pytest.mark.parametrize("name", [0, NAME])
    def test_it_does_not(self, name: int) -> None:
        wire = Wire(client_of(memory(1_000_000), name, Tuning(patience=30)), server_of(MemoryStore())[0], 1, Weather())
        wire.run(until=lambda: wire.client.sent > 300_000)
        wire.cut = True
        wire.run()
        assert (wire.client.state, wire.client.why) == (State.FAILED, "no word from the server for 30 s")

    def test_no_server(self) -> None:
        wire = Wire(client_of(b"x", NAME, Tuning(patience=30)), server_of(MemoryStore())[0], 1, Weather(loss=1))
        wire.run()
        assert wire.client.state is State.FAILED
        assert wire.client.counts["heralds"] == 61


class TestClientThatIsRestarted:
    """It crashes again while its dump is under way, or after."""

    @pytest.mark.parametrize(("name", "second"), [(0, 0), (NAME, NAME + 1)])
    def test_a_new_dump(self, name: int, second: int) -> None:
        store = MemoryStore()
        server, _ = server_of(store)
        wire = Wire(client_of(os.urandom(1_000_000), name), server, 1, Weather(reorder=0.2))
        wire.run(until=lambda: wire.client.sent > 300_000)
        data = os.urandom(600_000)
        again = wire.now + 10
        wire.client = client_of(b"", name)  # the machine reboots, says nothing, and crashes
        wire.run_server_until(again)
        wire.client = client_of(data, second)
        wire.run()
        assert [sink.ended for sink in store.sinks] == [
            "incomplete: the client has started anew" if not name else "",
            "vmcore",
        ]
        assert bytes(store.sinks[1].data) == data

    def test_a_herald_that_comes_twice_begins_nothing(self) -> None:
        """FreeBSD's, in the middle of its dump: the network had kept a copy."""
        data = os.urandom(1_000_000)
        store = MemoryStore()
        wire = Wire(client_of(data, 0), server_of(store)[0], 1, Weather())
        wire.run(until=lambda: wire.client.sent > 300_000)
        wire._send(True, 20023, emit(Message(Type.HERALD, 1, 0, b"")))
        wire.run()
        assert [bytes(sink.data) == data for sink in store.sinks] == [True]


class TestOverlappingChunks:
    """A flattened stream writes parts of the file twice; the later bytes stay."""

    @pytest.mark.parametrize("seed", range(10))
    def test_the_later_stays(self, seed: int) -> None:
        rng = random.Random(seed)
        stream, data = bytearray(), bytearray()
        for _ in range(200):
            offset, record = rng.randrange(60_000), rng.randbytes(rng.randrange(1, 5000))
            stream += offset.to_bytes(8, "big") + len(record).to_bytes(8, "big") + record
            data.extend(bytes(max(0, offset + len(record) - len(data))))
            data[offset : offset + len(record)] = record
        flat = b"makedumpfile".ljust(16, b"\0") + (1).to_bytes(8, "big") * 2
        parts = iter([flat.ljust(4096, b"\0"), bytes(stream), b"\xff" * 16, b""])
        store = MemoryStore()
        client = Client(StreamSource(lambda _: next(parts)), header, room=1472, name=NAME)
        weather = Weather(loss=0.05, reorder=0.2, duplicate=0.2, late_by=0.2)
        Wire(client, server_of(store)[0], seed, weather).run()
        assert bytes(store.sinks[0].data) == data


class TestRefusals:
    def test_a_full_disk_ends_the_dump_and_the_client_hears_why(self) -> None:
        store = MemoryStore(room=300_000)
        server, _ = server_of(store)
        wire = Wire(client_of(os.urandom(1_000_000)), server, 1, Weather(loss=0.05))
        wire.run()
        why = "cannot write: No space left on device"
        assert (wire.client.state, wire.client.why) == (State.FAILED, f"the server refuses: {why}")
        assert store.sinks[0].ended == f"partial: {why}"
        assert len(store.sinks[0].data) > 200_000

    def test_a_dump_above_the_limit(self) -> None:
        store = MemoryStore()
        server, said = server_of(store, Limits(size=300_000))
        wire = Wire(client_of(os.urandom(1_000_000)), server, 1, Weather())
        wire.run()
        assert wire.client.why == "the server refuses: the dump is larger than the limit"
        assert len(store.sinks[0].data) <= 300_000
        assert sum("beyond the limit" in line for line in said) == 1

    def test_a_header_that_lies_about_the_length(self) -> None:
        store = MemoryStore()
        server, _ = server_of(store, Limits(size=300_000))
        client = Client(source_of(b"x" * 5000), lambda _: kdh.emit(kdh.Header(1 << 50)), room=1472, name=NAME)
        Wire(client, server, 1, Weather()).run()
        assert "larger than the limit" in client.why
        assert store.sinks[0].ended.startswith("partial")

    def test_a_thousand_heralds_of_strangers_hold_nobody_up(self) -> None:
        data = os.urandom(300_000)
        store = MemoryStore()
        server, _ = server_of(store, Limits(waiting=8))
        wire = Wire(client_of(data), server, 1, Weather())
        wire.run(until=lambda: wire.client.sent > 100_000)
        for number in range(1000):
            server.herald(f"10.1.{number >> 8}.{number & 255}", 20024, emit(Message(Type.HERALD, 1, 0, b"")), wire.now)
        assert len(server.dumps) <= 9
        wire.run()
        assert [bytes(sink.data) == data for sink in store.sinks] == [True]

    def test_more_dumps_than_allowed(self) -> None:
        store = MemoryStore()
        server, said = server_of(store, Limits(dumps=1))
        wire = Wire(client_of(os.urandom(300_000)), server, 1, Weather())
        wire.run(until=lambda: wire.client.sent > 100_000)
        for _ in range(3):
            assert server.herald("10.0.0.9", 20024, emit(Message(Type.HERALD, 1, 0, b"")), wire.now) is None
        assert said[1:] == [
            "10.0.0.9: a datagram that found no room: too many dumps at a time (said once, counted from here on)"
        ]
        assert server.counts["that found no room: too many dumps at a time"] == 3

    def test_who_is_silent_is_given_up(self) -> None:
        store = MemoryStore()
        server, _ = server_of(store, Limits(idle=20))
        wire = Wire(client_of(os.urandom(300_000)), server, 1, Weather())
        wire.run(until=lambda: wire.client.sent > 100_000)
        server.tick(wire.now + 19)
        assert len(server.dumps) == 1
        server.tick(wire.now + 21)
        assert (server.dumps, store.sinks[0].ended) == ({}, "incomplete: the client is silent")


BAD = [
    pytest.param(b"", "shorter than a header", id="empty"),
    pytest.param(bytes(24), "of no known type", id="zeros"),
    pytest.param(emit(Message(3, 5, 0, b"abc"))[:-1], "not as long", id="truncated"),
    pytest.param(emit(Message(3, 5, 0, b"")), "out of place", id="empty chunk"),
    pytest.param(emit(Message(1, 5, 0, b"")), "out of place", id="herald to a dump's port"),
    pytest.param(emit(Message(3, 5_000_000, 0, b"abc")), "far ahead", id="number far ahead"),
    pytest.param(emit(Message(3, 5, 1 << 63, b"abc")), "beyond the limit", id="offset beyond"),
    pytest.param(emit(Message(3, 5, (1 << 64) - 1, b"abc")), "beyond the limit", id="offset that overflows"),
]


class TestForgeries:
    @pytest.mark.parametrize(("datagram", "what"), BAD)
    def test_counted_and_said_once(self, datagram: bytes, what: str) -> None:
        store = MemoryStore()
        server, said = server_of(store)
        dump = server.herald("10.0.0.9", 20024, emit(Message(Type.HERALD, 1, 0, b"")), 0.0)
        assert dump is not None
        for _ in range(3):
            dump.receive(datagram)
            dump.flush(0.0)
        assert [sum(what in line for line in said)] == [1]
        assert [count for why, count in server.counts.items() if what in why] == [3]
        assert all(not sink.data for sink in store.sinks)

    @pytest.mark.parametrize(
        ("datagram", "what"),
        [
            pytest.param(emit(Message(3, 1, 0, b"abc")), "no HERALD", id="data"),
            pytest.param(emit(Message(1, 1, 0, b"", 0x2515F095)), "no HERALD", id="netgdb"),
            pytest.param(emit(Message(1, 1, 0, b"abc")), "without its NUL", id="path"),
        ],
    )
    def test_to_the_well_known_port(self, datagram: bytes, what: str) -> None:
        server, said = server_of(MemoryStore())
        for _ in range(3):
            assert server.herald("10.0.0.9", 20024, datagram, 0.0) is None
        assert (len(said), what in said[0], server.counts.total()) == (1, True, 3)

    def test_a_replay_overwrites_nothing(self) -> None:
        store = MemoryStore()
        server, _ = server_of(store)
        dump = server.herald("10.0.0.9", 20024, emit(Message(Type.HERALD, 1, 0, b"")), 0.0)
        assert dump is not None
        first, second = emit(Message(3, 2, 0, b"old")), emit(Message(3, 3, 0, b"new"))
        for datagram in (first, second, first):
            dump.receive(datagram)
            dump.flush(0.0)
        assert (bytes(store.sinks[0].data), dump.repeated) == (b"new", 1)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(Answer(1, NAME + 1, Status.NEW), id="another's name"),
            pytest.param(Answer(9, NAME, Status.NEW), id="another herald"),
            pytest.param(Answer(1, NAME + 1, Status.REFUSED, b"no"), id="refused in another's name"),
        ],
    )
    def test_answers_that_are_not_for_us(self, answer: Answer) -> None:
        client = client_of(b"x")
        client.poll(0.0)
        client.receive(emit_answer(answer), 40000, 0.0)
        client.receive(b"garbage", 40000, 0.0)
        assert client.state is State.HERALD
        assert client.counts["unreadable"] == 1


@given(
    st.lists(st.binary(max_size=64) | st.builds(_datagram, _ANY, _ANY, _OFFSET, st.binary(max_size=40)), max_size=40)
)
def test_no_datagram_makes_a_server_fail(datagrams: list[bytes]) -> None:
    store = MemoryStore()
    server, _ = server_of(store, Limits(size=1 << 16))
    dump = server.herald("10.0.0.9", 20024, emit(Message(Type.HERALD, 1, 0, b"")), 0.0)
    assert dump is not None
    for datagram in datagrams:
        server.herald("10.0.0.9", 20024, datagram, 0.0)
        dump.receive(datagram)
    dump.flush(1.0)
    server.tick(1000.0)
    assert all(len(sink.data) <= 1 << 16 for sink in store.sinks)


@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([40000, 20023, 1]))))
def test_no_datagram_makes_a_client_fail(datagrams: list[tuple[bytes, int]]) -> None:
    client = client_of(memory(10_000))
    for now, (datagram, port) in enumerate(datagrams):
        client.poll(float(now))
        client.receive(datagram, port, float(now))
        assert client.wait(float(now)) >= 0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(),
    st.floats(0, 0.6),
    st.floats(0, 0.6),
    st.floats(0, 0.6),
    st.floats(0, 2),
    st.integers(0, 90_000),
    st.sampled_from([0, NAME]),
)
def test_whatever_is_lost_the_bytes_are_equal(
    seed: int, loss: float, duplicate: float, reorder: float, late_by: float, size: int, name: int
) -> None:
    data = memory(size, seed)
    store = MemoryStore()
    client = client_of(data, name)
    Wire(client, server_of(store)[0], seed, Weather(loss, duplicate, reorder, late_by)).run()
    assert [bytes(sink.data) == data for sink in store.sinks] == [True]
