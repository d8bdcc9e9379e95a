"""What is told of a debugger's session. Plain values, and how they are read.

In: events `host debugger` of the catalogue. Out: `DebugSession`. Rule: as `harness.judge.records`: parsed here or not at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Item(Protocol):
    """An event under the parser's hands: harness.judge.records."""

    t: float
    event: dict[str, Any]

    def number(self, key: str) -> float: ...
    def word(self, key: str) -> str: ...
    def wrong(self, key: str, wanted: str) -> ValueError: ...


class DebugThread(NamedTuple):
    """A CPU as gdb saw it. `frames`: names of functions, innermost first."""

    name: str
    rip: str
    frames: tuple[str, ...]


class DebugSession(NamedTuple):
    """`rc`: None if gdb had to be killed. `memory`: by section, whether it is as in the kernel's image."""

    t: float
    rc: int | None
    seconds: float
    threads: tuple[DebugThread, ...]
    memory: dict[str, bool]
    said: str


def debug_session(item: Item) -> DebugSession:
    """Raises EvidenceError."""
    rc = item.event.get("rc")
    if rc is not None and (isinstance(rc, bool) or not isinstance(rc, int)):
        raise item.wrong("rc", "a whole number or null")
    threads = item.event.get("threads")
    if not isinstance(threads, list) or not all(map(_is_thread, threads)):
        raise item.wrong("threads", "{name, rip, frames [text]} each")
    found = tuple(DebugThread(each["name"], each["rip"], tuple(each["frames"])) for each in threads)
    return DebugSession(item.t, rc, item.number("seconds"), found, _flags(item), item.word("said"))


def _flags(item: Item) -> dict[str, bool]:
    found = item.event.get("memory")
    if not isinstance(found, dict) or not all(isinstance(value, bool) for value in found.values()):
        raise item.wrong("memory", "a flag by section")
    return found


def _is_thread(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(frames := value.get("frames"), list):
        return False
    return all(isinstance(text, str) for text in (value.get("name"), value.get("rip"), *frames))
