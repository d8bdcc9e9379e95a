"""debugnet: its bytes, and its two ends over a wire that loses, doubles and reorders."""

from __future__ import annotations

import os
import random

import pytest

from guest.netpoll.clients.debugnet import kdh
from guest.netpoll.clients.debugnet.client import Client, State, Tuning
from guest.netpoll.clients.debugnet.server import Limits, Server
from guest.netpoll.clients.debugnet.wire import (
    Answer,
    Message,
    Status,
    Type,
    emit,
    emit_answer,
    parse,
    parse_answer,
    path_of,
)
from guest.netpoll.clients.dump.sources import FileSource
from guest.netpoll.wire import WireError
from guest.tests.dump_wire import MemoryStore, Weather, Wire

NAME = 0x01020304


def memory(size: int, seed: int = 1) -> bytes:
    """Pages of which a third are zero, and an end in the middle of one."""
    rng = random.Random(seed)
    pages = [bytes(4096) if rng.random() < 0.3 else rng.randbytes(4096) for _ in range(-(-size // 4096))]
    return b"".join(pages)[:size]


def source_of(data: bytes) -> FileSource:
    return FileSource(lambda offset, size: data[offset : offset + size], len(data))


def header(length: int) -> bytes:
    return kdh.emit(kdh.Header(length, panicstring="sysrq"))


def client_of(data: bytes, name: int = NAME, tuning: Tuning | None = None) -> Client:
    return Client(source_of(data), header, room=1472, name=name, tuning=tuning)


def server_of(store: MemoryStore, limits: Limits | None = None) -> tuple[Server, list[str]]:
    said: list[str] = []
    return Server(store, said.append, limits), said


MESSAGES = [
    pytest.param(
        Message(Type.HERALD, 1, 0, b"a/b\0"),
        "00000001 00000001 0000000000000000 00000004 00000000 612f6200",
        id="herald",
    ),
    pytest.param(
        Message(Type.HERALD, 2, 0, b"", NAME),
        "00000001 00000002 0000000000000000 00000000 01020304",
        id="herald that names its dump",
    ),
    pytest.param(
        Message(Type.FINISHED, 0x102, 0, b""), "00000002 00000102 0000000000000000 00000000 00000000", id="finished"
    ),
    pytest.param(
        Message(Type.VMCORE, 3, 0x1122334455, b"xyz"),
        "00000003 00000003 0000001122334455 00000003 00000000 78797a",
        id="vmcore",
    ),
    pytest.param(Message(Type.KDH, 4, 0, b"\xff"), "00000004 00000004 0000000000000000 00000001 00000000 ff", id="kdh"),
    pytest.param(
        Message(Type.EKCD_KEY, 5, 8, b"k"), "00000005 00000005 0000000000000008 00000001 00000000 6b", id="key"
    ),
]
ANSWERS = [
    pytest.param(Answer(0x01020304), "01020304", id="of four bytes"),
    pytest.param(Answer(7, NAME, Status.SEEN, b"\x81\x02"), "00000007 01020304 00 8102", id="of many"),
    pytest.param(Answer(1, NAME, Status.NEW), "00000001 01020304 01", id="new"),
    pytest.param(Answer(1, NAME, Status.RESUMED), "00000001 01020304 02", id="resumed"),
    pytest.param(Answer(1, NAME, Status.COMPLETE), "00000001 01020304 03", id="complete"),
    pytest.param(Answer(1, NAME, Status.REFUSED, b"full"), "00000001 01020304 04 66756c6c", id="refused"),
]


class TestBytes:
    """Against the layouts of debugnet.h, netdumpd.h and kerneldump.h."""

    @pytest.mark.parametrize(("message", "golden"), MESSAGES)
    def test_messages(self, message: Message, golden: str) -> None:
        assert emit(message) == bytes.fromhex(golden)
        assert parse(bytes.fromhex(golden)) == message

    @pytest.mark.parametrize(("answer", "golden"), ANSWERS)
    def test_answers(self, answer: Answer, golden: str) -> None:
        assert emit_answer(answer) == bytes.fromhex(golden)
        assert parse_answer(bytes.fromhex(golden)) == answer

    @pytest.mark.parametrize(
        ("datagram", "why"),
        [
            pytest.param(b"", "shorter than a header", id="empty"),
            pytest.param(bytes(23), "shorter than a header", id="short"),
            pytest.param(emit(Message(3, 1, 0, b"xyz"))[:-1], "not as long", id="cut"),
            pytest.param(emit(Message(3, 1, 0, b"xyz")) + b"!", "not as long", id="overlong"),
            pytest.param(emit(Message(3, 1, 0, bytes(4097))), "longer than a server", id="jumbo"),
            pytest.param(emit(Message(6, 1, 0, b"")), "no known type", id="type"),
        ],
    )
    def test_what_is_no_message(self, datagram: bytes, why: str) -> None:
        with pytest.raises(WireError, match=why):
            parse(datagram)

    @pytest.mark.parametrize(
        ("datagram", "why"),
        [
            pytest.param(b"abc", "by its length", id="short"),
            pytest.param(b"abcde", "by its length", id="five bytes"),
            pytest.param(bytes(9), "known", id="without a name"),
            pytest.param(bytes.fromhex("00000001 01020304 09"), "known", id="status"),
            pytest.param(bytes.fromhex("00000001 01020304 00") + bytes(129), "more than", id="bits"),
        ],
    )
    def test_what_is_no_answer(self, datagram: bytes, why: str) -> None:
        with pytest.raises(WireError, match=why):
            parse_answer(datagram)

    @pytest.mark.parametrize(
        ("data", "path"),
        [(b"", None), (b"a\0", "a"), ("ö".encode() + b"\0", "ö")],
    )
    def test_paths(self, data: bytes, path: str | None) -> None:
        assert path_of(Message(Type.HERALD, 1, 0, data)) == path

    @pytest.mark.parametrize("data", [b"abc", b"\xff\0"])
    def test_what_is_no_path(self, data: bytes) -> None:
        with pytest.raises(WireError):
            path_of(Message(Type.HERALD, 1, 0, data))

    def test_kernel_dump_header(self) -> None:
        data = kdh.emit(
            kdh.Header(
                0x1122334455, "amd64", 2, 0x66, 7, 512, "host", "FreeBSD 14\n", "page fault", compression=2, extent=9
            )
        )
        assert len(data) == 512
        for at, golden in (
            (0, b"FreeBSD Kernel Dump\0amd64\0"),
            (32, bytes.fromhex("00000004 00000002 0000001122334455 0000000000000066 00000007 00000200") + b"host\0"),
            (128, b"FreeBSD 14\n\0"),
            (320, b"page fault\0"),
            (495, bytes.fromhex("02 0000000000000009 00000000")),
        ):
            assert data[at : at + len(golden)] == golden, at
        parity = 0
        for at in range(0, 512, 4):
            parity ^= int.from_bytes(data[at : at + 4])
        assert parity == 0
        assert kdh.parse(data).panicstring == "page fault"
        assert kdh.emit(kdh.parse(data)) == data

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            pytest.param(b"short", "512", id="short"),
            pytest.param(bytes(512), "magic", id="magic"),
            pytest.param(header(5)[:100] + b"!" + header(5)[101:], "parity", id="parity"),
        ],
    )
    def test_what_is_no_kernel_dump_header(self, data: bytes, why: str) -> None:
        with pytest.raises(kdh.HeaderError, match=why):
            kdh.parse(data)


WEATHERS = [
    pytest.param(Weather(), id="fair"),
    pytest.param(Weather(loss=0.01), id="1 % lost"),
    pytest.param(Weather(loss=0.1), id="10 % lost"),
    pytest.param(Weather(loss=0.5), id="half lost"),
    pytest.param(Weather(reorder=0.3), id="reordered"),
    pytest.param(Weather(duplicate=0.3, reorder=0.3, late_by=0.5), id="doubled, long after"),
    pytest.param(Weather(loss=0.1, duplicate=0.1, reorder=0.1, late_by=0.1), id="all of it"),
]


@pytest.mark.parametrize("name", [pytest.param(0, id="FreeBSD's acknowledgements"), pytest.param(NAME, id="ours")])
@pytest.mark.parametrize("weather", WEATHERS)
def test_a_dump_arrives_whole(weather: Weather, name: int) -> None:
    data = memory(1_000_001)
    store = MemoryStore()
    server, _ = server_of(store)
    client = client_of(data, name)
    wire = Wire(client, server, 7, weather)
    wire.run()
    assert client.state is State.DONE
    assert [bytes(sink.data) == data for sink in store.sinks] == [True]
    assert store.sinks[0].ended == "vmcore"


@pytest.mark.parametrize("name", [0, NAME])
def test_what_is_lost_is_sent_again_before_the_timer(name: int) -> None:
    data = os.urandom(4_000_000)
    server, _ = server_of(MemoryStore())
    client = client_of(data, name)
    wire = Wire(client, server, 3, Weather(loss=0.01))
    wire.run()
    assert client.counts["resent_fast"] > 20
    assert client.counts["resent_late"] < 10
    assert client.counts["datagrams"] < 1.05 * len(data) / 1448
