"""Captures of real kernels' netconsole beside their serial consoles: ours reads them, and writes the very same bytes.

The captures (data/netconsole-*.pcapng and .console) are of Debian's kernels on QEMU's e1000, from the start of netconsole to
a panic by sysrq-c: one plain target, one extended, one with release prefix and one with userdata where the kernel has them.
Messages were written to /dev/kmsg: of user space's facility, of two lines, with control characters, of 960 characters, of 900
bytes that each are escaped to four, and one of 121 lines.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from guest.netpoll.clients.netconsole.lines import Line, line_text, lines_of
from guest.netpoll.clients.netconsole.message import Message, console_lines, parse_packet
from guest.netpoll.clients.netconsole.receiver import Mode, Receiver
from guest.netpoll.clients.netconsole.sender import Record, Sender, Target
from guest.netpoll.middleware.pcapng_read import read_file

DATA = Path(__file__).parent / "data"
PLAIN, EXTENDED, RELEASE, USERDATA = 6661, 6662, 6663, 6664  # the targets' remote ports


@dataclass(frozen=True)
class Capture:
    """UDP payloads by port, and the printk lines of the serial console."""

    kernel: str
    payloads: dict[int, list[bytes]]
    console: list[str]

    def messages(self, port: int) -> list[Message]:
        receiver = Receiver(Mode.EXTENDED)
        events = [event for data in self.payloads[port] for event in receiver.receive(data, 0.0)]
        messages = [event for event in events if isinstance(event, Message)]
        assert len(messages) == len(events), "gaps, duplicates or worse in a capture that has none"
        assert receiver.report().clean
        return messages


@pytest.fixture(scope="module", params=["debian-6.1", "debian-6.12"])
def capture(request: pytest.FixtureRequest) -> Capture:
    payloads: dict[int, list[bytes]] = {}
    for packet in read_file(DATA / f"netconsole-{request.param}.pcapng"):
        port, length = struct.unpack_from("!HH", packet.data, 36)
        payloads.setdefault(port, []).append(packet.data[42 : 34 + length])
    raw = (DATA / f"netconsole-{request.param}.console").read_bytes()
    console = [line_text(line) for line in raw.split(b"\n")]
    return Capture(request.param, payloads, [line for line in console if line.startswith(("[", "---["))])


def test_plain_packets_are_the_serial_console_line_by_line(capture: Capture) -> None:
    lines = lines_of(capture.payloads[PLAIN])
    texts = [line.text for line in lines]
    start = capture.console.index(texts[0])
    assert texts == capture.console[start:]
    assert "end Kernel panic" in texts[-1]
    assert all(line.whole for line in lines)


def test_a_record_over_1000_bytes_came_in_two_packets(capture: Capture) -> None:
    cut = [line for line in lines_of(capture.payloads[PLAIN]) if line.first != line.last]
    assert cut, "the 121 lines of one record did not fit in one packet"


def test_each_lost_packet_costs_only_its_own_lines(capture: Capture) -> None:
    """Leave out one packet at a time: every line of the other packets is still there, whole and unchanged."""
    payloads = capture.payloads[PLAIN]
    everything = lines_of(payloads)
    for lost in range(len(payloads)):
        rest = lines_of(payloads[:lost] + payloads[lost + 1 :])
        untouched = Counter(line.text for line in everything if not line.first <= lost <= line.last)
        assert untouched <= Counter(line.text for line in rest if line.whole)


def ordinary(messages: list[Message]) -> list[Message]:
    """Without the two records that printk itself cuts, for one console or the other.

    The 121 lines: at 1024 bytes on plain consoles. The 900 escapes: at 2048 bytes in extended messages of 6.12.
    """
    return [m for m in messages if not m.text.startswith(("lines\nline", "escapes "))]


@pytest.mark.parametrize("port", [EXTENDED, RELEASE, USERDATA])
def test_extended_messages_are_the_serial_console_too(capture: Capture, port: int) -> None:
    messages = capture.messages(port)
    lines = [line for message in ordinary(messages) for line in console_lines(message)]
    cut = {console_lines(m)[0][:15] for m in messages if m not in ordinary(messages)}
    console = [line for line in capture.console if line[:15] not in cut]
    assert lines == console[-len(lines) :]
    assert len(cut) == 2
    assert len(lines) > 50


def test_fragmented_messages_come_whole(capture: Capture) -> None:
    messages = {m.text[:7]: m for m in capture.messages(EXTENDED)}
    escapes = messages["escapes"]
    assert escapes.fragments == {"debian-6.1": 4, "debian-6.12": 3}[capture.kernel]
    assert ("escapes " + "\1" * 900).startswith(escapes.text.removesuffix("\\x"))
    assert len(escapes.text) == {"debian-6.1": 908, "debian-6.12": 515}[capture.kernel]
    assert messages["lines\nl"].text.count("\n") == 120


def test_what_user_space_wrote(capture: Capture) -> None:
    by_text = {m.text: m.header for m in capture.messages(USERDATA)}
    assert by_text["daemon says; a,b=c"].facility == 3
    assert by_text["two\nlines"].severity == 3
    assert by_text["tab\there é back\\slash"].facility == 1


def test_dictionaries_of_devices(capture: Capture) -> None:
    pci = [m for m in capture.messages(EXTENDED) if m.text.startswith("pci 0000:00:04.0: ")]
    assert pci
    assert all(m.pairs[:2] == (("SUBSYSTEM", "pci"), ("DEVICE", "+pci:0000:00:04.0")) for m in pci)


def target_of(message: Message) -> Target:
    """The target that sent it: its release and userdata, which come after SUBSYSTEM and DEVICE."""
    userdata = tuple(pair for pair in message.pairs if pair[0] not in ("SUBSYSTEM", "DEVICE"))
    release = message.header.release
    return Target(extended=True, prefix_release=bool(release), release=release, userdata=userdata)


@pytest.mark.parametrize("port", [EXTENDED, RELEASE, USERDATA])
def test_our_sender_writes_the_kernels_very_bytes(capture: Capture, port: int) -> None:
    """But for the one that 6.12 cuts in the middle of an escape, which ours does not."""
    sent: list[bytes] = []
    cut = {m.seq for m in capture.messages(port) if m.text.endswith("\1\\x")}
    for message in (m for m in capture.messages(port) if m.seq not in cut):
        record = Record(
            message.text,
            message.header.usec,
            message.header.severity,
            message.header.facility,
            message.header.flag,
            pairs=tuple(pair for pair in message.pairs if pair[0] in ("SUBSYSTEM", "DEVICE")),
        )
        sent += Sender(target_of(message), message.seq).packets(record)
    assert sent == [data for data in capture.payloads[port] if parse_packet(data)[0].seq not in cut]
    assert len(cut) == (capture.kernel == "debian-6.12")


def test_our_plain_sender_writes_the_kernels_very_bytes(capture: Capture) -> None:
    messages = capture.messages(EXTENDED)
    sent = [
        packet
        for m in ordinary(messages)
        for packet in Sender(Target()).packets(Record(m.text, m.header.usec, m.header.severity))
    ]
    cut = tuple(console_lines(m)[0][:15].encode() for m in messages if m not in ordinary(messages))
    plain = [data for data in capture.payloads[PLAIN] if not data.startswith(cut) and data[:1] == b"["]
    assert sent == plain[-len(sent) :]
    assert len(sent) > 50


def test_userdata_and_release_of_the_newer_kernel() -> None:
    payloads = [packet.data[42:] for packet in read_file(DATA / "netconsole-debian-6.12.pcapng")]
    headers = [parse_packet(data)[0] for data in payloads if b" foo=hello\n bar=a b=c\n" in data]
    assert headers
    assert all(header.release == "6.12.107+deb13-amd64" for header in headers)


def test_lines_know_their_packets(capture: Capture) -> None:
    payloads = capture.payloads[PLAIN]
    for line in lines_of(payloads):
        assert isinstance(line, Line)
        joined = b"".join(payloads[line.first : line.last + 1])
        assert line.text.encode() in joined
