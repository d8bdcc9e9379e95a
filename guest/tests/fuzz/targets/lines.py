"""Plain netconsole packets into lines.

In: whether the start of a record is recognised (an octet), then packets, each after its length. Held: text is neither
invented nor thrown away; lines come in order and name packets that exist; how the text was cut into packets is of no
consequence when records are not recognised.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from guest.netpoll.clients.netconsole.lines import RECORD_START, Line, LineAssembler, dropped_messages, lines_of
from guest.tests.fuzz.frames import captured_payloads
from guest.tests.fuzz.octets import Octets, blocks
from guest.tests.fuzz.table import Target


def run(data: bytes) -> None:
    octets = Octets(data)
    starts_line = RECORD_START if octets.u8() & 1 else None
    packets = []
    while octets:
        packets.append(octets.block())
    assembler = LineAssembler(starts_line)
    lines = [line for packet in packets for line in assembler.feed(packet)] + assembler.finish()
    assert assembler.finish() == [], "something was left"
    assert lines == lines_of(packets, starts_line)
    _check(lines, packets)
    if starts_line is None:
        whole = lines_of([b"".join(packets)], None)
        assert [(line.text, line.whole) for line in lines] == [(line.text, line.whole) for line in whole]


def _check(lines: list[Line], packets: list[bytes]) -> None:
    text = b"".join(packets)
    assert sum(line.whole for line in lines) == text.count(b"\n")
    assert all(0 <= line.first <= line.last < len(packets) for line in lines)
    assert all(before.last <= after.first for before, after in pairwise(lines))
    assert all(dropped_messages(line.text) >= 0 for line in lines)
    if text.isascii() and b"\r" not in text:
        assert "".join(line.text + "\n" * line.whole for line in lines).encode() == text


def encoded() -> Iterator[bytes]:
    plain = [
        b"[    1.000000] whole\n",
        b"[    2.000000] cut ",
        b"off\n[    3.0",
        b"[    4.000000] lost end",
        b"<6>[    5.000000] x\r\n",
    ]
    yield b"\x01" + blocks(plain)
    yield b"\x00" + blocks(plain)
    yield b"\x01" + blocks([b"** 12 printk messages dropped **\n", "é\n".encode()[:1], "é\n".encode()[1:], b"\n\n"])
    for payloads in captured_payloads(60):
        yield b"\x01" + blocks(payloads[:6])


TOKENS = (b"[    1.000000]", b"<6>[", b"\n", b"\r\n", b"** 1 printk messages dropped **")
TARGET = Target(run, encoded, TOKENS, max_len=500)
