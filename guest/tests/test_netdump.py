"""Red Hat's netdump: its bytes, against Wireshark's dissector too, and its two ends over a wire that loses, doubles and reorders."""

from __future__ import annotations

import heapq
import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import images
from guest.netpoll.clients.netdump import elf_core
from guest.netpoll.clients.netdump.client import Client, State, Tuning
from guest.netpoll.clients.netdump.memory import VmcoreMemory
from guest.netpoll.clients.netdump.pull import Pull, Stage
from guest.netpoll.clients.netdump.server import Limits, Server
from guest.netpoll.clients.netdump.wire import (
    Code,
    Command,
    Reply,
    Request,
    emit_reply,
    emit_request,
    emit_start,
    parse_reply,
    parse_request,
    parse_start,
)
from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.netpoll.middleware.pcapng import Writer
from guest.netpoll.wire import WireError
from guest.tests.core_files import DIRECT_MAP, Load, core, note, prstatus
from guest.tests.dump_wire import MemoryStore, Weather
from guest.tests.fuzz.frames import udp_frame

MAGIC, NAME = 0x1122334455667788, 0x01020304
PEER, PORT = "10.0.0.2", 6666

REQUESTS = [
    pytest.param(Request(MAGIC, 0, 7, 5), "1122334455667788 00000000 00000007 00000005 00000000", id="ack"),
    pytest.param(Request(MAGIC, 9, 1, 0x1234), "1122334455667788 00000009 00000001 00001234 00000000", id="memory"),
    pytest.param(Request(0, 1, 3), "0000000000000000 00000001 00000003 00000000 00000000", id="reboot"),
]
REPLIES = [
    pytest.param(Reply(4, 62, 8, 5, b"x:0x1\n"), "04 0000003e 00000008 00000005 783a3078310a", id="start"),
    pytest.param(Reply(5, 9, 3, 0x400, b"\xaa" * 3), "05 00000009 00000003 00000400 aaaaaa", id="memory"),
    pytest.param(Reply(5, 9, 4, 0x100000), "05 00000009 00000004 00100000", id="reserved"),
    pytest.param(Reply(4, 0, 9, 0), "04 00000000 00000009 00000000", id="end"),
]


class TestBytes:
    @pytest.mark.parametrize(("request_", "golden"), REQUESTS)
    def test_requests(self, request_: Request, golden: str) -> None:
        assert emit_request(request_) == bytes.fromhex(golden)
        assert parse_request(bytes.fromhex(golden) + b"longer is accepted") == request_

    @pytest.mark.parametrize(("reply", "golden"), REPLIES)
    def test_replies(self, reply: Reply, golden: str) -> None:
        assert emit_reply(reply) == bytes.fromhex(golden)
        assert parse_reply(bytes.fromhex(golden)) == reply

    @pytest.mark.parametrize(
        ("datagram", "why"),
        [
            pytest.param(b"", "shorter", id="empty"),
            pytest.param(bytes(12), "shorter", id="short"),
            pytest.param(bytes(13), "version", id="version"),
            pytest.param(b"\x04" + bytes(7) + b"\x0d" + bytes(4), "code", id="code"),
            pytest.param(b"\x05" + bytes(12 + 1025), "longer", id="long"),
        ],
    )
    def test_what_is_no_reply(self, datagram: bytes, why: str) -> None:
        with pytest.raises(WireError, match=why):
            parse_reply(datagram)

    def test_start(self) -> None:
        items = {"task_struct": 0xFFFF888000001000, "page_offset": DIRECT_MAP, "netdump_magic": MAGIC}
        line = b"task_struct:0xffff888000001000 page_offset:0xffff888000000000 netdump_magic:0x1122334455667788\n"
        assert emit_start(items) == line
        assert parse_start(b"junk " + line + b" more:12 bad:0xzz") == items

    def test_wireshark_reads_the_same(self, tmp_path: Path, tools: images.Tools) -> None:
        capture = tmp_path / "netdump.pcapng"
        with Writer.create(capture, application="test") as writer:
            number = writer.add_interface("test")
            request = emit_request(Request(MAGIC, 9, Command.SEND_MEM, 0x1234, 0x77))
            reply = emit_reply(Reply(5, 9, Code.MEM, 0x400, b"\xaa\xbb"))
            for datagram in (request, reply):
                writer.packet(number, 0, udp_frame(6666, datagram))
        fields = ("magic", "seq_nr", "command", "from", "to", "version", "code", "info", "payload")
        words = [word for field in fields for word in ("-e", f"netdump.{field}")]
        argv = [*tools.argv("tshark"), "-r", str(capture), "-d", "udp.port==6666,netdump", "-T", "fields", *words]
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        assert out[0].split("\t")[:5] == ["0x1122334455667788", "0x00000009", "1", "0x00001234", "0x00000077"]
        # the dissector has info's bytes the other way round than the kernel that sends them
        assert out[1].split("\t") == ["", "0x00000009", "", "", "", "0x05", "3", "0x00040000", "aabb"]


def machine(size: int = 300, seed: int = 1) -> bytes:
    """A vmcore: RAM of `size` pages in two ranges, the first begins and ends inside of a page; two CPUs."""
    rng = random.Random(seed)
    memory = b"".join(bytes(4096) if rng.random() < 0.2 else rng.randbytes(4096) for _ in range(size))
    cut = len(memory) // 3 // 4096 * 4096 + 1000
    loads = [Load(0x1400, memory[:cut], DIRECT_MAP + 0x1400), Load(0x4000000, memory[cut:], DIRECT_MAP + 0x4000000)]
    return core(loads, prstatus(7, rip=1) + prstatus(0) + note(b"VMCOREINFO", 0, b"PAGESIZE=4096\n"))


def client_of(vmcore: bytes, name: int = NAME, tuning: Tuning | None = None) -> Client:
    memory = VmcoreMemory(BytesSource(vmcore))
    return Client(memory, magic=MAGIC, name=name, task=0x77, state="state\n" * 300, tuning=tuning)


def same(file: bytes, vmcore: bytes) -> None:
    """The collector's file has the machine's memory, its notes, and claims no RAM that was none."""
    got, want = Vmcore(BytesSource(file)), Vmcore(BytesSource(vmcore))
    for first, last in want.physical_ranges():
        assert got.read_physical(first, last - first) == want.read_physical(first, last - first)
    pages = [(first & ~4095, -(-last // 4096) * 4096) for first, last in want.physical_ranges()]
    assert list(got.physical_ranges()) == pages
    assert got.vmcoreinfo == want.vmcoreinfo
    assert [cpu.values for cpu in got.registers] == [cpu.values for cpu in want.registers]
    assert got.read_virtual(DIRECT_MAP + pages[-1][0], 4096) == want.read_physical(pages[-1][0], 4096)


class Wire:
    """As dump_wire.Wire, for this protocol: everything goes to one port."""

    def __init__(self, client: Client, server: Server, seed: int, weather: Weather) -> None:
        self.client, self.server, self.weather = client, server, weather
        self.now = 100.0
        self.cut = False
        self._rng = random.Random(seed)
        self._serial = itertools.count()
        self._air: list[tuple[float, int, bool, bytes]] = []

    def send(self, to_server: bool, data: bytes) -> None:
        rng, weather = self._rng, self.weather
        for _ in range(1 + (rng.random() < weather.duplicate)):
            delay = 0.0002 + (rng.random() * weather.late_by if rng.random() < weather.reorder else 0)
            if rng.random() >= weather.loss and not self.cut:
                heapq.heappush(self._air, (self.now + delay, next(self._serial), to_server, data))

    def pull(self) -> Pull | None:
        return self.server.pulls.get((PEER, PORT))

    def step(self) -> None:
        for datagram in self.client.poll(self.now):
            self.send(True, datagram)
        waits = [self.client.wait(self.now), *(pull.wait(self.now) for pull in self.server.pulls.values()), 0.25]
        waits += [self._air[0][0] - self.now] if self._air else []
        self.now += max(0.0005, min(waits))
        while self._air and self._air[0][0] <= self.now:
            _, _, to_server, data = heapq.heappop(self._air)
            if to_server:
                self.server.receive(PEER, PORT, data, self.now)
            else:
                self.client.receive(data, PORT, self.now)
        pull = self.pull()
        for request in pull.work(self.now) if pull is not None else []:
            self.send(False, request)

    def run(self, until: Callable[[], bool] | None = None, seconds: float = 3600) -> None:
        end = self.now + seconds
        while not self.client.ended and not (until and until()):
            assert self.now < end, f"the dump has not ended: {self.client.state}, {self.client.counts}"
            self.step()


def server_of(store: MemoryStore, limits: Limits | None = None, magic: int | None = None) -> tuple[Server, list[str]]:
    said: list[str] = []
    return Server(store, said.append, limits, magic=magic), said


@pytest.mark.parametrize(
    "weather",
    [
        pytest.param(Weather(), id="fair"),
        pytest.param(Weather(loss=0.01), id="1 % lost"),
        pytest.param(Weather(loss=0.1), id="10 % lost"),
        pytest.param(Weather(loss=0.4), id="much lost"),
        pytest.param(Weather(reorder=0.3), id="reordered"),
        pytest.param(Weather(0.1, 0.1, 0.1, 0.1), id="all of it"),
    ],
)
def test_a_dump_arrives_whole(weather: Weather) -> None:
    vmcore = machine()
    store = MemoryStore()
    wire = Wire(client_of(vmcore), server_of(store)[0], 5, weather)
    wire.run(until=lambda: wire.server.finished > 0)
    same(bytes(store.sinks[0].data), vmcore)
    assert store.sinks[0].ended == "vmcore"


def test_the_order_of_red_hats_server() -> None:
    store = MemoryStore()
    wire = Wire(client_of(machine(10)), server_of(store)[0], 5, Weather())
    asked: list[int] = []
    send = wire.send

    def spy(to_server: bool, data: bytes) -> None:
        if not to_server:
            asked.append(parse_request(data).command)
        send(to_server, data)

    wire.send = spy  # type: ignore[method-assign]
    wire.run()
    names = [Command(command).name for command, _ in itertools.groupby(asked)]
    assert names == [
        "START_NETDUMP_ACK", "GET_PAGE_SIZE", "GET_NR_PAGES", "GET_REGS", "SEND_MEM", "SHOW_STATE", "REBOOT",
    ]  # fmt: skip
    assert (wire.client.state, wire.client.reboot) == (State.DONE, True)
    assert "".join(store.sinks[0].lines).count("state") == 300


def test_a_machine_of_red_hats() -> None:
    """It knows nothing of names and notes: registers make the one note of a CPU, and crash(8) calls the file a netdump."""
    vmcore = machine(20)
    store = MemoryStore()
    client = client_of(vmcore, 0)
    client._start = emit_start({"task_struct": 0x77, "page_offset": DIRECT_MAP, "netdump_magic": MAGIC})
    Wire(client, server_of(store)[0], 1, Weather(loss=0.05)).run()
    file = bytes(store.sinks[0].data)
    [cpu] = Vmcore(BytesSource(file)).registers
    assert cpu.values["rip"] == 1
    phoff = int.from_bytes(file[32:40], "little")
    load = file[phoff + 56 : phoff + 112]
    assert int.from_bytes(load[8:16], "little") % 4096 == 0
    assert int.from_bytes(load[48:56], "little") == 4096


def test_thirty_two_bits() -> None:
    data = elf_core.header(3, 4096, 8192, elf_core.notes(3, b"r" * 68, 0xC0001000), [(1, 3)], 0xC0000000)
    assert data[:20].hex() == "7f454c46010101000000000000000000" + "04000300"
    assert data[52:84].hex(" ", 4) == "04000000 74000000 00000000 00000000 68010000 00000000 00000000 00000000".replace(
        "68010000", (len(data) - 52 - 64).to_bytes(4, "little").hex()
    )
    assert data[84:116].hex(" ", 4) == "01000000 00300000 001000c0 00100000 00200000 00200000 07000000 00100000"


class TestRestarts:
    def test_of_the_server(self) -> None:
        vmcore = machine(2000)
        store = MemoryStore()
        client = client_of(vmcore)
        wire = Wire(client, server_of(store)[0], 5, Weather(loss=0.01))
        wire.run(until=lambda: client.sent > 4096 * 1000)
        pull = wire.pull()
        assert pull is not None
        pull._save(store.sinks[0], pull._window, wire.now)  # type: ignore[arg-type]  # a second has passed
        wire.server, _ = server_of(store)
        wire.run()
        same(bytes(store.sinks[0].data), vmcore)
        assert len(store.sinks) == 1
        assert client.sent < 4096 * 1300 + 4096 * 1000

    def test_of_the_machine(self) -> None:
        vmcore = machine(300, seed=2)
        store = MemoryStore()
        wire = Wire(client_of(machine(300)), server_of(store)[0], 5, Weather())
        wire.run(until=lambda: wire.client.sent > 4096 * 100)
        wire.client = client_of(vmcore, NAME + 1)
        wire._air.clear()
        wire.run()
        same(bytes(store.sinks[1].data), vmcore)
        assert store.sinks[0].ended == "incomplete: the machine has started anew"

    def test_a_link_that_is_cut(self) -> None:
        vmcore = machine()
        store = MemoryStore()
        wire = Wire(client_of(vmcore), server_of(store)[0], 5, Weather())
        wire.run(until=lambda: wire.client.sent > 4096 * 100)
        wire.cut = True
        back = wire.now + 30
        wire.run(until=lambda: wire.now > back)
        wire.cut = False
        wire.run()
        assert len(store.sinks) == 1
        same(bytes(store.sinks[0].data), vmcore)


class TestRefusals:
    @pytest.mark.parametrize(
        ("limits", "room", "why"),
        [
            pytest.param(Limits(size=1 << 20), 1 << 30, "the limit is 1048576 bytes", id="limit"),
            pytest.param(Limits(), 1 << 20, "No space left on device", id="full"),
        ],
    )
    def test_what_does_not_fit(self, limits: Limits, room: int, why: str) -> None:
        store = MemoryStore(room=room)
        server, said = server_of(store, limits)
        wire = Wire(client_of(machine()), server, 1, Weather())
        wire.run()
        assert why in said[1]
        assert wire.client.reboot
        assert all(sink.ended.startswith("partial") for sink in store.sinks)

    @pytest.mark.parametrize(("code", "info"), [(Code.PAGE_SIZE, 12345), (Code.NR_PAGES, 0), (Code.NR_PAGES, 1 << 31)])
    def test_a_machine_that_lies_about_sizes(self, code: Code, info: int) -> None:
        store = MemoryStore()
        wire = Wire(client_of(machine()), server_of(store)[0], 1, Weather())
        command = {Code.PAGE_SIZE: Command.GET_PAGE_SIZE, Code.NR_PAGES: Command.GET_NR_PAGES}[code]
        wire.client._answers[command] = lambda request: [emit_reply(Reply(4, request.nr, code, info))]
        wire.run()
        assert store.sinks == []

    def test_notes_that_are_too_many(self) -> None:
        store = MemoryStore()
        client = client_of(machine())
        client._start = emit_start({"notes_page": client.memory.count, "notes_size": 1 << 40, "netdump_magic": MAGIC})
        Wire(client, server_of(store)[0], 1, Weather()).run()
        assert store.sinks == []

    def test_another_magic_than_the_server_wants(self) -> None:
        server, said = server_of(MemoryStore(), magic=MAGIC + 1)
        wire = Wire(client_of(machine(), tuning=Tuning(patience=20)), server, 1, Weather())
        wire.run()
        assert (server.pulls, len(said), "another magic" in said[0]) == ({}, 1, True)

    def test_requests_with_another_magic_are_counted_and_not_answered(self) -> None:
        client = client_of(machine())
        client.receive(emit_request(Request(0, 0, Command.START_NETDUMP_ACK, 5)), PORT, 0.0)
        assert client.state is State.ANSWERING
        client.poll(0.0)
        client.receive(emit_request(Request(MAGIC + 1, 1, Command.REBOOT)), PORT, 0.0)
        client.receive(b"short", PORT, 0.0)
        assert client.poll(0.0) == []
        assert (client.state, client.counts["forged"], client.counts["unreadable"]) == (State.ANSWERING, 1, 1)


@pytest.mark.parametrize(
    ("command", "first", "code", "info"),
    [
        (Command.NONE, 0, Code.NONE, 0),
        (Command.HELLO, 0, Code.HELLO, 4),
        (Command.GET_PAGE_SIZE, 0, Code.PAGE_SIZE, 4096),
        (Command.GET_NR_PAGES, 0, Code.NR_PAGES, 0x4000 + 200),
        (Command.SEND_MEM, 0, Code.RESERVED, 1),
        (Command.SEND_MEM, 0x100, Code.RESERVED, 0x4000),
        (Command.SEND_MEM, 0xFFFFFF, Code.ERROR, 0),
        (Command.START_NETDUMP_ACK, 5, Code.ERROR, 7),
        (99, 0, Code.ERROR, 99),
        (Command.EXIT, 0, Code.END_NETDUMP, 0),
    ],
)
def test_what_the_machine_answers(command: int, first: int, code: Code, info: int) -> None:
    client = client_of(machine(300))
    client.receive(emit_request(Request(MAGIC, 0, Command.START_NETDUMP_ACK, 5)), PORT, 0.0)
    client.poll(0.0)
    client.receive(emit_request(Request(MAGIC, 3, command, first)), PORT, 0.0)
    [answer] = map(parse_reply, client.poll(0.0))
    assert (answer.version, answer.code, answer.info) == (5, code, info)
    assert answer.nr == (0 if command == Command.EXIT else 3)


@pytest.mark.parametrize("lost", [{1}, {0, 1, 2}], ids=["a piece between two", "all of it"])
def test_a_state_that_is_lost_is_asked_for_again(lost: set[int]) -> None:
    store = MemoryStore()
    client = client_of(machine(5))
    client._show = b"state\n" * 500  # three pieces
    wire = Wire(client, server_of(store)[0], 1, Weather())
    pieces, send = itertools.count(), wire.send

    def lossy(to_server: bool, data: bytes) -> None:
        if not (to_server and data[5:9] == int(Code.LOG).to_bytes(4, "big") and next(pieces) in lost):
            send(to_server, data)

    wire.send = lossy  # type: ignore[method-assign]
    wire.run()
    assert "state\n" * 499 + "state" in "".join(store.sinks[0].lines)


def test_log_is_kept_for_the_dump() -> None:
    store = MemoryStore()
    server, said = server_of(store)
    for text in (b"BUG: ", b"panic\n"):
        server.receive(PEER, 6664, emit_reply(Reply(4, 0, Code.LOG, 0, text)), 0.0)
    wire = Wire(client_of(machine(5)), server, 1, Weather())
    wire.run()
    assert store.sinks[0].lines[0] == "what it printed:\nBUG: panic\n"
    assert said == ["10.0.0.2: a netdump is announced"]


_NUMBER = st.integers(0, 12) | st.integers(0, (1 << 32) - 1)


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=40)
        | st.builds(
            lambda *fields: emit_reply(Reply(*fields)), st.sampled_from([4, 5]), _NUMBER, _NUMBER, _NUMBER, st.binary(max_size=30)
        ),
        max_size=40,
    )
)  # fmt: skip
def test_no_datagram_makes_a_server_fail(datagrams: list[bytes]) -> None:
    store = MemoryStore()
    server, _ = server_of(store, Limits(size=1 << 20))
    wire = Wire(client_of(machine(3)), server, 1, Weather())
    for datagram in datagrams:
        wire.send(True, datagram)
        wire.step()
        server.receive("10.0.0.9", 1, datagram, wire.now)
    server.tick(wire.now + 10_000)
    assert all(pull.stage in Stage for pull in server.pulls.values())
    assert all(len(sink.data) <= 3 << 20 for sink in store.sinks)


@given(st.lists(st.binary(max_size=40) | st.builds(lambda *f: emit_request(Request(MAGIC, *f)), *[_NUMBER] * 4)))
def test_no_datagram_makes_a_machine_fail(datagrams: list[bytes]) -> None:
    client = client_of(machine(3))
    for now, datagram in enumerate(datagrams):
        client.receive(datagram, PORT, float(now))
        client.poll(float(now))


@settings(deadline=None, max_examples=40)
@given(st.integers(), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.integers(6, 80))
def test_whatever_is_lost_the_bytes_are_equal(
    seed: int, loss: float, duplicate: float, reorder: float, late_by: float, size: int
) -> None:
    vmcore = machine(size, seed)
    store = MemoryStore()
    wire = Wire(client_of(vmcore), server_of(store)[0], seed, Weather(loss, duplicate, reorder, late_by))
    wire.run(until=lambda: wire.server.finished > 0)
    same(bytes(store.sinks[0].data), vmcore)
