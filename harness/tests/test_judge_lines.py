"""Lines of the console and lines on the wire, in one form."""

from __future__ import annotations

import pytest

from harness.judge.lines import body_of, difference, kernel_lines, wire_lines
from harness.judge.records import Arrival, Line


def arrivals(*packets: str) -> list[Arrival]:
    return [Arrival(float(n), "h", None, None, True, "", text) for n, text in enumerate(packets)]


CONSOLE = {
    "plain": (["[    1.000000] a"], ["[    1.000000] a"]),
    "with-caller": (["[    1.000000][    T1] a"], ["[    1.000000][    T1] a"]),
    "user-space-between": (
        ["[    1.000000] a", "login:", "[    1.000001] b"],
        ["[    1.000000] a", "[    1.000001] b"],
    ),
    "user-space-before-in-one-line": (["ok [    1.000000] a"], ["[    1.000000] a"]),
    "second-stamp-inside": (["[    1.000000] at [    0.500000] a"], ["[    1.000000] at [    0.500000] a"]),
    "no-stamps-at-all": (["a", "b"], ["a", "b"]),
    "empty-text": (["[    1.000000] "], ["[    1.000000] "]),
    "notice": (
        ["[    1.000000] a", "** 3 printk messages dropped **"],
        ["[    1.000000] a", "** 3 printk messages dropped **"],
    ),
}


@pytest.mark.parametrize(("shown", "kernel"), CONSOLE.values(), ids=CONSOLE)
def test_the_kernels_part_of_the_console(shown: list[str], kernel: list[str]) -> None:
    assert [line.text for line in kernel_lines([Line(0.0, text) for text in shown])] == kernel


A, B = "[    1.000000] a", "[    1.000001] b"
LONG = "[    1.000002] " + "x" * 1200

PLAIN = {
    "one-a-packet": ([A + "\n", B + "\n"], [A, B]),
    "two-in-a-packet": ([f"{A}\n{B}\n"], [A, B]),
    "cut-at-1000": ([LONG[:1000], LONG[1000:] + "\n"], [LONG]),
    "second-piece-lost": ([LONG[:1000], B + "\n"], [LONG[:1000], B]),
    "no-newline-at-the-end": ([A + "\n", B], [A, B]),
    "carriage-return": ([A + "\r\n"], [A]),
    "not-utf-8": (["[    1.000000] \xff\n"], ["[    1.000000] \\xff"]),
    "utf-8": (["[    1.000000] \xc3\xa9\n"], ["[    1.000000] é"]),
}


@pytest.mark.parametrize(("packets", "lines"), PLAIN.values(), ids=PLAIN)
def test_plain_packets(packets: list[str], lines: list[str]) -> None:
    assert [line.text for line in wire_lines(arrivals(*packets), extended=False, stamped=True)] == lines


EXTENDED = {
    "one": (["6,1,1000000,-;a\n"], [A]),
    "caller": (["6,1,1000000,-,caller=T1;a\n"], ["[    1.000000][    T1] a"]),
    "several-lines-in-a-record": (["6,1,1000000,-;a\\x0ac\n"], [A, "[    1.000000] c"]),
    "backslash": (["6,1,1000000,-;a\\x5cb\n"], ["[    1.000000] a\\b"]),
    "dictionary": (["6,1,1000000,-;a\n SUBSYSTEM=pci\n"], [A]),
    "fragments": (["6,1,1000000,-,ncfrag=0/4;ab", "6,1,1000000,-,ncfrag=2/4;c\n"], ["[    1.000000] abc"]),
    "fragments-out-of-order": (["6,1,1000000,-,ncfrag=2/4;c\n", "6,1,1000000,-,ncfrag=0/4;ab"], ["[    1.000000] abc"]),
    "fragment-lost": (["6,1,1000000,-,ncfrag=0/4;ab", "6,2,1000001,-;b\n"], [B, "[    1.000000] ab"]),
    "not-extended": (["hello\n"], ["hello"]),
}


@pytest.mark.parametrize(("packets", "lines"), EXTENDED.values(), ids=EXTENDED)
def test_extended_packets(packets: list[str], lines: list[str]) -> None:
    assert [line.text for line in wire_lines(arrivals(*packets), extended=True, stamped=True)] == lines


def test_extended_packets_of_a_kernel_without_printk_time() -> None:
    assert [line.text for line in wire_lines(arrivals("6,1,1000000,-;a\n"), extended=True, stamped=False)] == ["a"]


def test_a_line_has_the_time_of_the_packet_that_ended_it() -> None:
    lines = wire_lines(arrivals(LONG[:1000], LONG[1000:] + "\n", A + "\n"), extended=False, stamped=True)
    assert [line.t for line in lines] == [1.0, 2.0]


def test_what_came_that_is_no_text_is_passed_over() -> None:
    sequence = Arrival(0.0, "h", None, 5, True, "", None)
    assert wire_lines([sequence], extended=False, stamped=True) == []


@pytest.mark.parametrize(
    ("got", "wanted", "words"),
    [
        ("abc", "abcdef", "cut off after 3 of 6 characters"),
        ("abcdef", "abc", "3 characters after the 3 printed"),
        ("abX", "abc", "character 2 is 'X', not 'c'"),
    ],
)
def test_difference(got: str, wanted: str, words: str) -> None:
    assert difference(got, wanted) == words


@pytest.mark.parametrize("line", ["[    1.000000] npt k 1 ab", "[    1.000000][    T7] npt k 1 ab", "npt k 1 ab"])
def test_body(line: str) -> None:
    assert body_of(line) == "npt k 1 ab"
