"""What can be fuzzed. The table names modules and does not import them: a fuzzer has to instrument them first.

In: a target's name. Out: what to instrument, and, on load(), the target itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"


@dataclass(frozen=True)
class Target:
    """`run` raises if a property does not hold; `encoded` makes seeds; `tokens` are words of the input's language."""

    run: Callable[[bytes], None]
    encoded: Callable[[], Iterable[bytes]]
    tokens: tuple[bytes, ...] = ()
    max_len: int = 1024  # octets of an input


@dataclass(frozen=True)
class Entry:
    """`module` has a TARGET; `instrument` are the packages whose branches count; `regex`: matches count, too."""

    module: str
    instrument: tuple[str, ...]
    regex: bool = False


def _entry(name: str, *instrument: str, regex: bool = False) -> Entry:
    return Entry(f"guest.tests.fuzz.targets.{name}", instrument, regex)


TARGETS: dict[str, Entry] = {
    "wire": _entry("wire", "guest.netpoll.wire"),
    "netpoll_rx": _entry("netpoll_rx", "guest.netpoll"),
    "options": _entry("options", "guest.netpoll.options", "guest.netpoll.wire.ethernet", "ipaddress"),
    "netconsole": _entry("netconsole", "guest.netpoll.clients.netconsole", regex=True),
    "lines": _entry("lines", "guest.netpoll.clients.netconsole", regex=True),
    "syslog": _entry("syslog", "guest.netpoll.clients.syslog", regex=True),
    "lacp": _entry("lacp", "guest.netpoll.bonding"),
    "bond": _entry("bond", "guest.netpoll.bonding"),
    "pcapng": _entry("pcapng", "guest.netpoll.middleware"),
    "gdb": _entry("gdb", "guest.netpoll.clients.gdb"),
    "dumps": _entry("dumps", "guest.netpoll.clients.debugnet", "guest.netpoll.clients.netdump", regex=True),
    "vmcore": _entry("vmcore", "guest.netpoll.clients.vmcore"),
    "sequence": _entry("sequence", "guest.netpoll.clients.sequence"),
    "agent_channel": _entry("agent_channel", "harness.testbed.agent", "harness.observe.events"),
    "judge": _entry("judge", "harness.judge"),
    "frame_keys": _entry("frame_keys", "harness.observe.frames", "guest.netpoll.wire"),
    "scenario": _entry("scenario", "harness.scenario", "yaml"),
}

PLANTED: dict[str, Entry] = {
    name: Entry(f"guest.tests.fuzz.planted.{name}", (f"guest.tests.fuzz.planted.{name}",))
    for name in ("planted_crash", "planted_hang", "planted_leak")
}
"""Targets with a known fault, by which the fuzzer itself is tested; `all` leaves them out."""


def entry(name: str) -> Entry:
    """The entry of a target or planted fault; raises KeyError."""
    return (TARGETS | PLANTED)[name]


def load(name: str) -> Target:
    """Import the target; raises KeyError."""
    target = importlib.import_module(entry(name).module).TARGET
    assert isinstance(target, Target)
    return target


def kept(name: str) -> Iterator[tuple[str, bytes]]:
    """(file name, octets) of the seeds that are kept, in order of their names."""
    folder = SEEDS / name
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        yield path.name, path.read_bytes()
