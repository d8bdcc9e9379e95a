"""What is told of a dump: by its server while it comes, by whoever looked at its file afterwards. Plain values, and how they are read.

In: events `host dump` and `host vmcore` of the catalogue. Out: `DumpEvent`, `DumpFile`. Rule: as `harness.judge.records`: parsed here or not at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

STRUCK = ("drop", "reorder", "duplicate")  # of guest.netpoll.middleware.fault's counts, behind tx_ and rx_


class Item(Protocol):
    """An event under the parser's hands: harness.judge.records."""

    t: float
    event: dict[str, Any]

    def whole(self, key: str) -> int: ...
    def word(self, key: str) -> str: ...
    def flag(self, key: str) -> bool: ...
    def numbers(self, key: str) -> dict[str, int]: ...
    def may(self, key: str) -> str | None: ...
    def wrong(self, key: str, wanted: str) -> ValueError: ...


class DumpEvent(NamedTuple):
    """`what`: as the catalogue says. `bytes`: of this dump written so far. `struck`: frames that the wire lost, swapped or doubled."""

    t: float
    what: str
    bytes: int
    why: str | None
    struck: int = 0


class DumpFile(NamedTuple):
    """A file that the server left, and what was found in a complete one: pages compared with RAM, the kernel's log."""

    name: str
    complete: bool
    size: int
    error: str | None = None
    format: str = ""
    pages: int = 0
    equal: int = 0
    zero: int = 0
    different: int = 0
    outside: int = 0
    named: tuple[int, ...] = ()
    panics: tuple[str, ...] = ()  # lines of the log in the dump
    refused: str | None = None
    tasks: tuple[tuple[int, str], ...] | None = None  # pid and name; None: nobody looked
    no_tasks: str | None = None  # why not, where somebody did look


def dump_event(item: Item) -> DumpEvent:
    """Raises EvidenceError."""
    size = item.whole("bytes") if "bytes" in item.event else 0
    wire = item.numbers("wire") if "wire" in item.event else {}
    struck = sum(count for what, count in wire.items() if what.partition("_")[2] in STRUCK)
    return DumpEvent(item.t, item.word("what"), size, item.may("why"), struck)


def dump_file(item: Item) -> DumpFile:
    """Raises EvidenceError."""
    name, complete, size = item.word("file"), item.flag("complete"), item.whole("size")
    if not complete or (error := item.may("error")) is not None:
        return DumpFile(name, complete, size, item.may("error"))
    counts = {key: item.whole(key) for key in ("pages", "equal", "zero", "different", "outside")}
    named, log = item.event.get("named"), item.event.get("log")
    if not isinstance(named, list | tuple) or not all(type(number) is int for number in named):
        raise item.wrong("named", "page frame numbers")
    if not isinstance(log, dict) or not isinstance(log.get("panics"), list):
        raise item.wrong("log", "lines, panics, refused")
    return DumpFile(
        name,
        complete,
        size,
        error,
        item.word("format"),
        **counts,
        named=tuple(named),
        panics=tuple(str(line) for line in log["panics"]),
        refused=log.get("refused"),
        tasks=_tasks(item),
        no_tasks=item.event.get("tasks", {}).get("refused"),
    )


def _tasks(item: Item) -> tuple[tuple[int, str], ...] | None:
    every = item.event.get("tasks", {}).get("list")
    if every is None:
        return None
    if not isinstance(every, list) or not all(
        isinstance(each, list) and [type(part) for part in each] == [int, str] for each in every
    ):
        raise item.wrong("tasks", "[pid, name] each")
    return tuple((pid, name) for pid, name in every)
