"""The serial console's bytes become lines, each with the time of its first byte, none lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testbed.console import LINE_LIMIT, Console

CASES = {
    "one line": ([b"hello\r\n"], ["hello"]),
    "two in one read": ([b"a\nb\n"], ["a", "b"]),
    "one in two reads": ([b"he", b"llo\r\n"], ["hello"]),
    "cr and lf apart": ([b"a\r", b"\nb\r\n"], ["a", "b"]),
    "empty lines stay": ([b"a\n\nb\n"], ["a", "", "b"]),
    "unfinished at the end": ([b"a\nlast words"], ["a", "last words"]),
    "not utf-8": ([b"\xff\xfe ok\n"], ["\\xff\\xfe ok"]),
}


@pytest.mark.parametrize(("reads", "lines"), CASES.values(), ids=CASES.keys())
def test_lines(tmp_path: Path, reads: list[bytes], lines: list[str]) -> None:
    seen: list[str] = []
    console = Console(tmp_path / "console.log", lambda: 1.5, lambda _t, text: seen.append(text))
    for data in reads:
        console.feed(data)
    console.close()
    assert seen == lines
    logged = (tmp_path / "console.log").read_text().splitlines()
    assert [line[13:] for line in logged] == lines
    assert all(float(line[:12]) == 1.5 for line in logged)


def test_a_line_has_the_time_of_its_first_byte(tmp_path: Path) -> None:
    clock = iter([1.0, 2.0, 3.0])
    seen: list[tuple[float, str]] = []
    console = Console(tmp_path / "console.log", lambda: next(clock), lambda t, text: seen.append((t, text)))
    console.feed(b"slow")
    console.feed(b" line\nnext")
    console.feed(b" line\n")
    assert seen == [(1.0, "slow line"), (2.0, "next line")]


def test_a_line_that_never_ends_is_cut(tmp_path: Path) -> None:
    seen: list[str] = []
    console = Console(tmp_path / "console.log", lambda: 0.0, lambda _t, text: seen.append(text))
    console.feed(b"x" * (LINE_LIMIT + 1))
    console.feed(b"y\n")
    assert seen == ["x" * (LINE_LIMIT + 1), "y"]


def test_tail_names_the_last_lines(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log", lambda: 0.0, lambda _t, _text: None)
    assert "empty" in console.tail()
    console.feed(b"".join(b"line %d\n" % n for n in range(100)))
    assert console.tail(2) == "line 98\nline 99"
