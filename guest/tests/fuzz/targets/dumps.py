"""The ends of both dump protocols, told anything: datagrams to a debugnet server and client, and to Red Hat's.

In: datagrams, each for one of the four (an octet): as they are, or with a header made of small numbers, so that a fuzzer need not find
magics and lengths. Held: nothing raises; no file grows beyond the limit; a client's wait is never negative.
"""

from __future__ import annotations

from collections.abc import Iterator

from guest.netpoll.clients.debugnet import client as debugnet
from guest.netpoll.clients.debugnet import server as collector
from guest.netpoll.clients.debugnet.wire import Message, Type, emit
from guest.netpoll.clients.dump.sources import FileSource
from guest.netpoll.clients.netdump import client as redhat
from guest.netpoll.clients.netdump import server as puller
from guest.netpoll.clients.netdump.memory import VmcoreMemory
from guest.netpoll.clients.netdump.wire import Reply, Request, emit_reply, emit_request
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import Load, core, prstatus
from guest.tests.dump_wire import MemoryStore
from guest.tests.fuzz.octets import Octets, block
from guest.tests.fuzz.table import Target

LIMIT = 1 << 16
NAME, MAGIC, PEER = 7, 9, "10.0.0.2"
VMCORE = core([Load(0x1000, b"x" * 5000)], prstatus())
DATAGRAM, HERALD, ANSWER, REPLY, REQUEST = range(5)
SPREAD = (0, 1, 2, 3, 0xFF, 0x1000, LIMIT - 1, LIMIT, 0x7FFFFFFF, 0xFFFFFFFF)


def _number(octets: Octets) -> int:
    value = octets.u8()
    return SPREAD[value % len(SPREAD)] if value >= 128 else value


def run(data: bytes) -> None:
    octets = Octets(data)
    store, pages = MemoryStore(), MemoryStore()
    server = collector.Server(store, lambda _: None, collector.Limits(size=LIMIT))
    pull = puller.Server(pages, lambda _: None, puller.Limits(size=LIMIT))
    dump = server.herald(PEER, 1, emit(Message(Type.HERALD, 1, 0, b"", octets.u8() & 1)), 0.0)
    assert dump is not None
    sender = debugnet.Client(FileSource(_read, 9000), lambda _: bytes(512), room=1472, name=NAME)
    machine = redhat.Client(VmcoreMemory(BytesSource(VMCORE)), magic=MAGIC, name=NAME)
    now = 1.0
    for _ in range(40):
        if not octets:
            break
        now += octets.u8() / 64
        kind = octets.u8() % 5
        if kind == DATAGRAM:
            dump.receive(_message(octets))
            dump.flush(now)
        elif kind == HERALD:
            server.herald(PEER, octets.u8(), _message(octets), now)
        elif kind == ANSWER:
            sender.poll(now)
            sender.receive(octets.block(), 5, now)
            assert sender.wait(now) >= 0
        elif kind == REPLY:
            pull.receive(PEER, 1, _reply(octets), now)
            for known in pull.pulls.values():
                known.work(now)
        else:
            machine.receive(_request(octets), 1, now)
            machine.poll(now)
            assert machine.wait(now) >= 0
    dump.flush(now + 1)
    server.tick(now + 1000)
    pull.tick(now + 1000)
    assert all(len(sink.data) <= LIMIT for sink in store.sinks)
    assert all(len(sink.data) <= LIMIT + (1 << 19) for sink in pages.sinks)


def _read(_offset: int, size: int) -> bytes:
    return b"y" * size


def _message(octets: Octets) -> bytes:
    if octets.u8() & 1:
        return octets.block()
    fields = [_number(octets) for _ in range(4)]
    return emit(Message(fields[0], fields[1], fields[2] << (octets.u8() & 32), octets.block(), fields[3]))


def _reply(octets: Octets) -> bytes:
    if octets.u8() & 1:
        return octets.block()
    nr, code, info = (_number(octets) for _ in range(3))
    return emit_reply(Reply(4 + (octets.u8() & 1), nr, code, info, octets.block()[:1024]))


def _request(octets: Octets) -> bytes:
    if octets.u8() & 1:
        return octets.block()
    return emit_request(Request(MAGIC, *(_number(octets) for _ in range(4))))


def encoded() -> Iterator[bytes]:
    """Both exchanges from their beginning; the numbers of the questions count from 1."""
    chunk = bytes((1, DATAGRAM, 0, 3, 2, 0, 0, 0)) + block(b"abc")
    finished = bytes((1, DATAGRAM, 0, 2, 3, 0, 0, 0)) + block(b"")
    yield bytes((0,)) + chunk + finished
    yield bytes((1,)) + chunk + chunk + bytes((1, HERALD, 5, 0, 1, 1, 0, 7, 0)) + block(b"a/b\0")
    welcome = bytes((1, ANSWER)) + block(bytes.fromhex("00000001 00000007 01"))
    yield bytes((0,)) + welcome + bytes((1, ANSWER)) + block(bytes.fromhex("00000004 00000007 00 03"))
    start = bytes((1, REPLY, 0, 0, 62, 8, 5)) + block(b"name:0x7 notes_page:0x2 notes_size:0x40\n")
    size = bytes((1, REPLY, 0, 0, 1, 7, 133)) + block(b"")
    count = bytes((64, REPLY, 0, 0, 2, 6, 2)) + block(b"")
    registers = bytes((64, REPLY, 0, 0, 3, 10, 2)) + block(b"line\n" + bytes(216))
    page = bytes((1, REPLY, 0, 0, 4, 3, 0)) + block(b"p" * 100)
    yield bytes((0,)) + start + size + count + registers + page
    ack = bytes((1, REQUEST, 0, 0, 7, 5, 0))
    yield bytes((0,)) + ack + b"".join(bytes((1, REQUEST, 0, 1, command, 1, 0)) for command in range(11))


TARGET = Target(run, encoded, (b"\0\0\0\7", b"name:0x", b"netdump_magic:0x"), max_len=600)
