"""pcapng: golden blocks, what survives a kill and a full disk, a reader that nothing fools, and tshark as judge."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import images
from guest.netpoll.middleware import pcapng
from guest.netpoll.middleware.pcapng import Direction, Interface, Packet, Writer
from guest.netpoll.middleware.pcapng_read import (
    PcapngError,
    TruncatedError,
    blocks,
    read,
    read_file,
    repair,
    whole_length,
)

NOW = 1_700_000_000_123_456_789
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tshark(tools: images.Tools) -> tuple[str, ...]:
    return tools.argv("tshark")


GOLDEN = {
    "section header": (
        pcapng.section_header("abc"),
        "0a0d0d0a 28000000 4d3c2b1a 01000000 ffffffff ffffffff 04000300 61626300 00000000 28000000",
    ),
    "interface": (
        pcapng.interface_description(Interface(0, "tap0", mac=bytes.fromhex("525400123456"))),
        "01000000 34000000 01000000 00000000 02000400 74617030"
        " 06000600 52540012 34560000 09000100 09000000 00000000 34000000",
    ),
    "packet": (
        pcapng.enhanced_packet(
            1, 0x0102030405060708, b"\xaa\xbb\xcc\xdd\xee", direction=Direction.OUTBOUND, comment="hi"
        ),
        "06000000 3c000000 01000000 04030201 08070605 05000000 05000000 aabbccdd ee000000"
        " 01000200 68690000 02000400 02000000 00000000 3c000000",
    ),
    "bare packet": (
        pcapng.enhanced_packet(0, 1, b"abcd"),
        "06000000 28000000 00000000 00000000 01000000 04000000 04000000 61626364 00000000 28000000",
    ),
    "names": (
        pcapng.name_resolution({bytes([10, 0, 0, 1]): "guest"}),
        "04000000 24000000 01000a00 0a000001 67756573 74000000 00000000 00000000 24000000",
    ),
}


@pytest.mark.parametrize(("block", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_blocks(block: bytes, golden: str) -> None:
    assert block.hex(" ", -4) == golden


def capture(path: Path) -> list[Packet]:
    """Less than a page. Two devices, the second declared late, frames both ways, a comment, a cut frame."""
    with Writer.create(path, application="test", system="Linux") as writer:
        tap = writer.add_interface("tap0", mac=bytes(6))
        writer.packet(tap, NOW, bytes(14), direction=Direction.INBOUND)
        bond = writer.add_interface("bond0", description="active-backup", snaplen=64)
        writer.add_names({bytes([10, 0, 0, 1]): "guest", bytes(15) + b"\1": "localhost6"})
        writer.packet(bond, NOW + 1, bytes(61), direction=Direction.OUTBOUND, comment="réponse")
        writer.packet(bond, NOW + 2, bytes(64), original_length=1514)
    first = Interface(0, "tap0", mac=bytes(6), ticks=10**9)
    second = Interface(1, "bond0", snaplen=64, description="active-backup", ticks=10**9)
    return [
        Packet(first, NOW, bytes(14), 14, Direction.INBOUND),
        Packet(second, NOW + 1, bytes(61), 61, Direction.OUTBOUND, ("réponse",)),
        Packet(second, NOW + 2, bytes(64), 1514),
    ]


def test_round_trip(tmp_path: Path) -> None:
    wanted = capture(tmp_path / "a.pcapng")
    assert list(read((tmp_path / "a.pcapng").read_bytes())) == wanted


@given(
    st.lists(
        st.tuples(st.binary(max_size=99), st.sampled_from(Direction), st.text(max_size=9), st.integers(0, 2**64 - 1))
    )
)
def test_any_packet_round_trips(packets: list[tuple[bytes, Direction, str, int]]) -> None:
    interface = Interface(0, "x", ticks=10**9)
    data = pcapng.section_header("t") + pcapng.interface_description(interface)
    for frame, direction, comment, when in packets:
        data += pcapng.enhanced_packet(0, when, frame, direction=direction, comment=comment)
    wanted = [
        Packet(interface, when, frame, len(frame), direction, (comment,) if comment else ())
        for frame, direction, comment, when in packets
    ]
    assert list(read(data)) == wanted


def test_every_cut_is_seen_and_leaves_the_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    capture(path)
    data = path.read_bytes()
    edges = {offset for offset in range(len(data) + 1) if whole_length(data[:offset]) == offset}
    assert len(edges) == 8  # nothing, and after each of seven blocks
    for cut in set(range(len(data))) - edges:
        with pytest.raises(TruncatedError):
            list(read(data[:cut]))
        assert whole_length(data[:cut]) == max(edge for edge in edges if edge < cut)


def test_repair_cuts_only_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    wanted = capture(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert read_file(path) == wanted[:-1]
    assert repair(path) > 0
    assert list(read(path.read_bytes())) == wanted[:-1]
    assert repair(path) == 0


START = pcapng.section_header("t")
IFACE = pcapng.interface_description(Interface(0, "x", snaplen=4))
FRAME = pcapng.enhanced_packet(0, 1, b"abcd", comment="c", direction=Direction.INBOUND)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


HOSTILE = {
    "no section header": (IFACE, "does not start"),
    "byte-order magic": (patched(START, 8, b"\1\2\3\4"), "byte-order magic"),
    "version 2": (patched(START, 12, b"\2"), r"version 2\.0"),
    "length 0": (START + patched(IFACE, 4, bytes(4)), "block length 0"),
    "length not a multiple of 4": (START + patched(IFACE, 4, b"\x0d"), "block length 13"),
    "length of 2 GiB": (START + patched(IFACE, 4, b"\0\0\0\x80"), "block length 2147483648"),
    "lengths differ": (START + patched(IFACE, len(IFACE) - 4, b"\x99"), "lengths of the block differ"),
    "packet before its interface": (START + FRAME, "interface 0, which is not described"),
    "interface of another section": (START + IFACE + START + FRAME, "interface 0, which is not described"),
    "captured length leaves the block": (START + IFACE + patched(FRAME, 20, b"\xff"), "captured length 255"),
    "captured more than there was": (START + IFACE + patched(FRAME, 24, b"\3"), "captured length 4 of 3"),
    "captured more than snaplen": (START + IFACE + pcapng.enhanced_packet(0, 1, b"abcde"), "captured length 5"),
    "option leaves the block": (START + IFACE + patched(FRAME, 34, b"\xf0"), "leaves the block"),
    "options after their end": (START + IFACE + patched(FRAME, 32, bytes(4)), "end of options"),
    "comment not UTF-8": (START + IFACE + patched(FRAME, 36, b"\xff"), "not UTF-8"),
    "direction 3": (START + IFACE + patched(FRAME, 44, b"\3"), "direction 3"),
    "tiny packet block": (START + pcapng.block(pcapng.EPB, bytes(8)), "packet block too short"),
    "tiny section": (pcapng.block(pcapng.SHB, b"\x4d\x3c\x2b\x1a"), "section header too short"),
    "tsresol of two bytes": (
        START + pcapng.block(pcapng.IDB, bytes.fromhex("01000000 00000000 09000200 09090000")),
        "if_tsresol",
    ),
}


@pytest.mark.parametrize(("data", "why"), HOSTILE.values(), ids=HOSTILE.keys())
def test_damage_is_an_error_with_its_offset(data: bytes, why: str) -> None:
    with pytest.raises(PcapngError, match=why) as caught:
        list(read(data))
    assert data[caught.value.offset :]


@given(st.binary(max_size=200).map(lambda tail: START + IFACE + tail) | st.binary(max_size=60))
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    with contextlib.suppress(PcapngError):
        list(read(data))


def test_reads_other_writers() -> None:
    """Big-endian, microseconds by default, an unknown block in between: as tcpdump or dumpcap may write."""
    big = bytes.fromhex(
        "0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c"
        "00000001 00000014 0001 0000 00040000 00000014"
        "00000bad 00000010 01020304 00000010"
        "00000006 00000024 00000000 00000000 0000000a 00000002 00000002 abcd0000 00000024"
    )
    [packet] = read(big)
    assert (packet.timestamp, packet.data, packet.interface.ticks) == (10_000, b"\xab\xcd", 10**6)


def test_misuse_is_refused(tmp_path: Path) -> None:
    with Writer.create(tmp_path / "a") as writer:
        with pytest.raises(ValueError, match="interface 0 was not declared"):
            writer.packet(0, NOW, b"")
        with pytest.raises(ValueError, match="MAC of 3 bytes"):
            writer.add_interface("x", mac=b"abc")
        with pytest.raises(ValueError, match="packed address"):
            writer.add_names({b"10.0.0.1": "x"})
        assert writer.add_interface("y") == 0  # the refused one took no number
        writer.packet(0, NOW, b"")
    assert len(read_file(tmp_path / "a")) == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_block_crosses_a_page_and_readers_do_not_notice(tmp_path: Path, seed: int) -> None:
    """A kernel cuts a write of a killed process at pages only; frames that are longer than a page are let through."""
    path, rng = tmp_path / "a", random.Random(seed)
    frames = [bytes(rng.randrange(1600)) for _ in range(400)] + [bytes(9000), b"x"]
    with Writer.create(path) as writer:
        number = writer.add_interface("x")
        for frame in frames:
            writer.packet(number, NOW, frame, direction=Direction.INBOUND)
    data = path.read_bytes()
    assert [packet.data for packet in read(data)] == frames
    sizes = [(offset, kind, len(body) + 12) for offset, _, kind, body in blocks(data)]
    crossing = [size for offset, _, size in sizes if offset // 4096 != (offset + size - 1) // 4096]
    assert len(crossing) == 1
    assert crossing[0] > 9000
    filler = sum(size for _, kind, size in sizes if kind == pcapng.FILLER)
    assert 0 < filler < len(data) / 4


@pytest.mark.parametrize("by", [4, 8])
def test_growing_a_block_changes_nothing_that_is_read(by: int) -> None:
    frame = pcapng.enhanced_packet(0, 1, b"abc", comment="c", direction=Direction.OUTBOUND)
    longer = pcapng.grown(frame, by)
    assert len(longer) == len(frame) + by
    assert list(read(START + IFACE + longer)) == list(read(START + IFACE + frame))
    names = pcapng.grown(pcapng.name_resolution({bytes(4): "x"}), by)
    whole = pcapng.grown(START, by) + pcapng.grown(IFACE, by) + names + frame
    assert list(read(whole)) == list(read(START + IFACE + frame))


KILLED = """
import sys
from pathlib import Path
from guest.netpoll.middleware.pcapng import Writer
with Writer.create(Path(sys.argv[1])) as writer:
    number = writer.add_interface("x")
    print("ready", flush=True)
    for size in range(10**9):
        writer.packet(number, size, bytes(size % 1500))
"""


def test_a_killed_writer_leaves_a_valid_capture(tmp_path: Path) -> None:
    path = tmp_path / "killed.pcapng"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while path.stat().st_size < 1 << 20:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    packets = list(read(path.read_bytes()))
    assert [packet.timestamp for packet in packets] == list(range(len(packets)))
    assert len(packets) > 100


def test_a_full_disk_leaves_a_valid_capture(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel write a part and then refuse, as a full disk does."""
    path = tmp_path / "full.pcapng"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        code = 1
        try:
            with Writer.create(path) as writer:
                number = writer.add_interface("x")
                for size in range(100):
                    writer.packet(number, size, bytes(1000))
        except OSError:
            code = 7
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [packet.timestamp for packet in read(path.read_bytes())] == [0, 1, 2]


def test_tshark_reads_it_without_complaint(tshark: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    capture(path)
    fields = [
        "frame.interface_name",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
        "frame.packet_flags_direction",
    ]
    command = [*tshark, "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "tap0|1700000000.123456789|14|14||0x00000001",
        "bond0|1700000000.123456790|61|61|réponse|0x00000002",
        "bond0|1700000000.123456791|1514|64||",
    ]
    assert "cut short" not in done.stderr
    assert "error" not in done.stderr.lower()


def test_tshark_passes_over_the_filling(tshark: tuple[str, ...], tmp_path: Path) -> None:
    """Every remainder of a page comes up: filler blocks, and blocks grown by 4 and by 8 bytes."""
    path, rng = tmp_path / "a.pcapng", random.Random(8)
    sizes = [rng.randrange(60, 900) for _ in range(4000)]
    with Writer.create(path) as writer:
        number = writer.add_interface("x")
        for size in sizes:
            writer.packet(number, NOW, bytes(size), direction=Direction.INBOUND, comment="c" * (size % 3))
    assert pcapng.FILLER in {kind for _, _, kind, _ in blocks(path.read_bytes())}
    assert struct.pack("<HH", pcapng.OPT_PAD, 0) * 2 in path.read_bytes()
    command = [*tshark, "-r", str(path), "-T", "fields", "-e", "frame.len"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == sizes
    assert "error" not in done.stderr.lower()
