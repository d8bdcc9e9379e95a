"""Plain netconsole packets become the lines that a serial console shows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest.netpoll.clients.netconsole.lines import (
    MAX_LINE,
    Line,
    LineAssembler,
    dropped_messages,
    line_text,
    lines_of,
)

LONG = b"[   12.000001] " + b"x" * 1004 + b"\n"  # 1020 bytes: a record that send_msg_udp cuts at 1000

CASES: dict[str, tuple[list[bytes], list[Line]]] = {
    "one record a packet": (
        [b"[    1.000000] one\n", b"[    1.000001] two\n"],
        [Line("[    1.000000] one", 0, 0), Line("[    1.000001] two", 1, 1)],
    ),
    "several lines in a record": (
        [b"[    1.000000] a\n[    1.000000] b\n"],
        [Line("[    1.000000] a", 0, 0), Line("[    1.000000] b", 0, 0)],
    ),
    "cut at 1000 bytes": ([LONG[:1000], LONG[1000:]], [Line(LONG[:-1].decode(), 0, 1)]),
    "second half lost": (
        [LONG[:1000], b"[   12.000002] next\n"],
        [Line(LONG[:1000].decode(), 0, 0, whole=False), Line("[   12.000002] next", 1, 1)],
    ),
    "continued in pieces (2.6)": (
        [b"Call Trace:", b" <c0101234>", b" <c0105678>\n", b"done\n"],
        [Line("Call Trace: <c0101234> <c0105678>", 0, 2), Line("done", 3, 3)],
    ),
    "a piece that ends one line and begins another": (
        [b"one\ntw", b"o\n"],
        [Line("one", 0, 0), Line("two", 0, 1)],
    ),
    "cut just before the newline": ([b"[    1.000000] a", b"\n"], [Line("[    1.000000] a", 0, 1)]),
    "no newline at the end": ([b"panic"], [Line("panic", 0, 0, whole=False)]),
    "empty line and empty packet": ([b"\n", b"", b"a\n"], [Line("", 0, 0), Line("a", 2, 2)]),
    "dropped notice inside a cut line": (
        [b"[    1.000000] a", b"** 3 printk messages dropped **\n"],
        [Line("[    1.000000] a", 0, 0, whole=False), Line("** 3 printk messages dropped **", 1, 1)],
    ),
    "UTF-8 over a cut": ([b"caf\xc3", b"\xa9\n"], [Line("café", 0, 1)]),
    "not UTF-8": ([b"\xff\xfe\n"], [Line("\\xff\\xfe", 0, 0)]),
    "nothing": ([], []),
}


@pytest.mark.parametrize(("packets", "lines"), CASES.values(), ids=CASES.keys())
def test_lines(packets: list[bytes], lines: list[Line]) -> None:
    assert lines_of(packets) == lines


def test_without_a_pattern_everything_is_joined() -> None:
    packets = [b"[    1.000000] a", b"[    1.000001] b\n"]
    assert lines_of(packets, None) == [Line("[    1.000000] a[    1.000001] b", 0, 1)]


def test_a_serial_line_and_a_netconsole_line_compare_equal() -> None:
    serial = b"[    0.5] caf\xc3\xa9 \xff\r\n".split(b"\n")[0]
    assert line_text(serial) == lines_of([b"[    0.5] caf\xc3\xa9 \xff\n"])[0].text


@pytest.mark.parametrize(
    ("text", "count"),
    [("** 17 printk messages dropped **", 17), ("[    1.0] ** 17 printk messages dropped **", 0), ("", 0)],
)
def test_dropped_notice(text: str, count: int) -> None:
    assert dropped_messages(text) == count


def test_a_line_that_never_ends_does_not_grow() -> None:
    assembler = LineAssembler()
    pieces = [line for _ in range(200) for line in assembler.feed(b"x" * 1000)]
    assert max(len(line.text) for line in pieces) <= MAX_LINE + 1000
    assert sum(len(line.text) for line in [*pieces, *assembler.finish()]) == 200_000


@given(st.binary(max_size=300).map(lambda b: b.replace(b"\r", b"")), st.lists(st.integers(0, 300)))
def test_cut_anywhere_gives_the_same_lines(stream: bytes, cuts: list[int]) -> None:
    """Without loss, how the sender cut its text does not matter."""
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    packets = [stream[a:b] for a, b in itertools.pairwise(edges)]
    texts = [line.text for line in lines_of(packets, None)]
    assert texts == [line_text(raw) for raw in stream.removesuffix(b"\n").split(b"\n")] if stream else not texts
