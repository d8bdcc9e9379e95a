"""What the stub answers, request by request, on a small kernel made by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.gdb.description import REGISTERS, TARGET_XML
from guest.netpoll.clients.gdb.target import PACKET_SIZE, Target
from guest.netpoll.clients.vmcore.core import Vmcore
from guest.netpoll.clients.vmcore.source import BytesSource
from guest.tests.core_files import TEXT, core, prstatus, small_kernel

VMALLOC = 0xFFFFC90000000000


def target(data: bytes | None = None) -> Target:
    return Target(Vmcore(BytesSource(small_kernel() if data is None else data)))


@pytest.fixture(scope="module")
def two_cpus() -> Target:
    return target()


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"qSupported:multiprocess+;swbreak+", b"PacketSize=500;qXfer:features:read+;qXfer:threads:read+"),
        (b"vMustReplyEmpty", b""),
        (b"?", b"T05thread:1;"),
        (b"Hg0", b"OK"),
        (b"Hc-1", b"OK"),
        (b"Hg2", b"OK"),
        (b"Hg3", b"E01"),
        (b"Hgx", b"E01"),
        (b"Hz1", b""),
        (b"T2", b"OK"),
        (b"T3", b"E01"),
        (b"qC", b"QC1"),
        (b"qCRC:0,4", b""),
        (b"qfThreadInfo", b"m1,2"),
        (b"qsThreadInfo", b"l"),
        (b"qThreadExtraInfo,1", b"CPU 0, pid 1".hex().encode()),
        (b"qThreadExtraInfo,9", b"E01"),
        (b"qAttached", b"1"),
        (b"qAttached:1", b"1"),
        (b"qTStatus", b""),
        (b"qSymbol::", b""),
        (b"qOffsets", b"TextSeg=ffffffff81000000"),
        (b"QStartNoAckMode", b""),
        (b"vCont?", b""),
        (b"vKill;1", b""),
        (b"m%x,4" % TEXT, b"text".hex().encode()),
        (b"m%x,0" % TEXT, b""),
        (b"m%x,5" % (VMALLOC + 4094), b"++low".hex().encode()),
        (b"m%x,8" % (VMALLOC + 8190), b"--".hex().encode()),
        (b"m0,8", b"E01"),
        (b"m", b"E01"),
        (b"m1", b"E01"),
        (b"m-1,4", b"E01"),
        (b"m1,-4", b"E01"),
        (b"m10000000000000000,4", b"E01"),
        (b"mffffffffffffffff,ffffffffffffffff", b"E01"),
        (b"p10", (TEXT).to_bytes(8, "little").hex().encode()),
        (b"p18", b"xx" * 10),
        (b"pff", b"E01"),
        (b"M%x,1:00" % TEXT, b"E01"),
        (b"X%x,0:" % TEXT, b"E01"),
        (b"G00", b"E01"),
        (b"P0=00", b"E01"),
        (b"c", b"E01"),
        (b"s", b"E01"),
        (b"vCont;c", b"E01"),
        (b"Z0,0,1", b"E01"),
        (b"z0,0,1", b"E01"),
        (b"qXfer:features:read:other.xml:0,10", b"E00"),
        (b"qXfer:auxv:read::0,10", b""),
        (b"qXfer:features:read:target.xml:0", b"E01"),
        (b"qRcmd,zz", b"E01"),
        (b"qRcmd," + b"KERNELOFFSET".hex().encode(), b"0\n".hex().encode()),
        (b"qRcmd," + b"reset".hex().encode(), b"VMCOREINFO has no reset\n".hex().encode()),
        (b"", b""),
        (b"\xff\xfe", b""),
    ],
)
def test_requests(two_cpus: Target, request_: bytes, reply: bytes) -> None:
    assert two_cpus.answer(b"Hg1") == b"OK"
    assert two_cpus.answer(request_) == reply


def test_registers_are_those_of_the_chosen_cpu() -> None:
    stub = target()
    at = 16 * 16  # rip: after sixteen registers of eight bytes
    replies = []
    for thread in (1, 2):
        stub.answer(b"Hg%x" % thread)
        reply = stub.answer(b"g")
        assert reply is not None
        assert len(reply) == 2 * sum(register.size for register in REGISTERS)
        replies.append(reply)
    found = [int.from_bytes(bytes.fromhex(reply[at : at + 16].decode()), "little") for reply in replies]
    assert found == [TEXT, TEXT + 16]
    assert replies[0][328:330] == b"xx", "x87 is not in the note"


def test_every_register_of_the_note_has_a_place() -> None:
    names = {register.name for register in REGISTERS}
    assert set(Vmcore(BytesSource(small_kernel())).registers[0].values) < names
    reply = target(core([], prstatus(gs_base=0x1122334455667788, cs=0x10, eflags=0x1_0000_0246))).answer(b"g")
    assert reply is not None
    assert reply.endswith(b"8877665544332211")
    assert reply[272:288] == b"46020000" + b"10000000", "32 bits of them"


def test_the_description_is_xml_and_is_read_in_pieces() -> None:
    stub, text, more = target(), b"", True
    while more:
        reply = stub.answer(b"qXfer:features:read:target.xml:%x,100" % len(text))
        assert reply is not None
        text, more = text + reply[1:], reply[:1] == b"m"
    assert text == TARGET_XML
    names = [each.get("name") for each in ET.fromstring(text).iter("reg")]
    assert names == [register.name for register in REGISTERS]


def test_threads_as_a_document() -> None:
    reply = target().answer(b"qXfer:threads:read::0,1000")
    assert reply is not None
    rows = ET.fromstring(reply[1:]).iter("thread")
    assert [(row.get("id"), row.get("core"), row.text) for row in rows] == [
        ("1", "0", "CPU 0, pid 1"),
        ("2", "1", "CPU 1, pid 0"),
    ]


def test_more_cpus_than_a_packet_names() -> None:
    stub = target(core([], b"".join(prstatus(at) for at in range(1000))))
    first = stub.answer(b"qfThreadInfo")
    assert first is not None
    assert 200 < first.count(b",") < 1000
    assert len(first) <= PACKET_SIZE
    assert stub.answer(b"T3e8") == b"OK"


def test_a_dump_without_cpus() -> None:
    stub = target(core([]))
    assert [stub.answer(request) for request in (b"?", b"g", b"p0", b"qfThreadInfo", b"qOffsets")] == [
        b"W00", b"E01", b"E01", b"l", b"",
    ]  # fmt: skip


@pytest.mark.parametrize(("request_", "reply"), [(b"D", b"OK"), (b"k", None)])
def test_the_end(request_: bytes, reply: bytes | None) -> None:
    stub = target()
    assert not stub.detached
    assert stub.answer(request_) == reply
    assert stub.detached


@given(st.one_of(st.binary(max_size=60), st.builds(bytes.__add__, st.sampled_from(
    [b"m", b"p", b"Hg", b"T", b"qXfer:", b"qXfer:features:read:target.xml:", b"qThreadExtraInfo,", b"qRcmd,"]
), st.text("0123456789abcdef,:-_ ", max_size=40).map(str.encode))))  # fmt: skip
def test_any_request_is_answered_within_a_packet(request: bytes) -> None:
    reply = target().answer(request)
    assert reply is None or len(reply) <= PACKET_SIZE
