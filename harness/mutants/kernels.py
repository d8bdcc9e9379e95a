"""Defects of a guest's kernel, its drivers, its bond or the NIC, as they would show in the evidence of a real run.

In: the events of a recorded run of a shipped testcase. Out: the events as the defect would have left them. Rule: one thing is changed, and what
belongs together (a datagram and its frame) is changed together, as the world would have done it.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from harness.judge.model import Word
from harness.judge.records import Event
from harness.report.store import folder_name

RECORDED = Path(__file__).parent / "recorded"
PANIC = "crash/panic[nic=virtio-net,crash=sysrq-c]"
CUT_AT_LINE = "burst/cut-at-line[nic=virtio-net,line=10,seen=console]"
FAILOVER = "bonding/failover-then-panic[active=virtio-net,backup=virtio-net]"
LINK_CUT, COUNTERS, LATE = (
    "drop/netconsole-link-cut[nic=virtio-net]",
    "links/counters[nic=virtio-net]",
    "links/late-panic",
)
SEQUENCE, FRAGMENTS = "netconsole/extended-sequence[nic=virtio-net]", "netconsole/extended-fragments"
READER = "poll/reader-stops"
LAST = "end Kernel panic"
MIDDLE = "Call Trace"
NOBODY = "02:00:00:00:00:66"

Events = list[Event]
Change = Callable[[Events], Events]


@dataclass(frozen=True)
class Flaw:
    """`name`: what is wrong, in words. `case` and `check`: what must notice."""

    name: str
    change: Change
    case: str
    check: str
    must: Word = "FAIL"  # or INCONCLUSIVE: the check is not reached


@cache
def _read(case: str) -> tuple[Event, ...]:
    data = lzma.decompress((RECORDED / f"{folder_name(case)}.jsonl.xz").read_bytes())
    return tuple(json.loads(line) for line in data.splitlines())


def recorded(case: str) -> Events:
    """The events of the recorded run, each a copy."""
    return [dict(event) for event in _read(case)]


# -- the n-th datagram, with its frame


def _datagrams(events: Events, text: str = "") -> list[tuple[int, int]]:
    """(frame, rx) places of each datagram at the log whose text has `text`, paired in order."""
    arrivals = [n for n, e in enumerate(events) if e["kind"] == "rx" and "text" in e]
    frames = [n for n, e in enumerate(events) if e["kind"] == "frame" and e.get("sport") == 6665 and e["dir"] == "out"]
    frames = [n for n in frames if events[n]["dport"] == 6666]
    own = [n for n in arrivals if events[n]["endpoint"] == "log"]
    return [pair for pair in zip(frames, own, strict=False) if text in events[pair[1]]["text"]]


def _one(events: Events, text: str, nth: int) -> tuple[int, int]:
    return _datagrams(events, text)[nth]


def _without(events: Events, places: Sequence[int]) -> Events:
    return [event for number, event in enumerate(events) if number not in places]


def lost(text: str = "", nth: int = 0) -> Change:
    return lambda events: _without(events, _one(events, text, nth))


def again(text: str, nth: int = 0) -> Change:
    def change(events: Events) -> Events:
        end = max(n for n, e in enumerate(events) if e["kind"] == "rx")
        pair = [{**events[place], "t": round(events[end]["t"] + 0.001, 6)} for place in _one(events, text, nth)]
        return [*events[: end + 1], *pair, *events[end + 1 :]]

    return change


def text_of(make: Callable[[str], str], text: str, nth: int = 0) -> Change:
    def change(events: Events) -> Events:
        _, place = _one(events, text, nth)
        events[place]["text"] = make(events[place]["text"])
        return events

    return change


def swapped(text: str, nth: int = 0) -> Change:
    """It and the one behind it: their contents, not their times."""

    def change(events: Events) -> Events:
        every = [place for _, place in _datagrams(events)]
        first = every.index(_one(events, text, nth)[1])
        a, b = every[first], every[first + 1]
        events[a]["text"], events[b]["text"] = events[b]["text"], events[a]["text"]
        return events

    return change


def framed(text: str = "", nth: int = 0, **keys: object) -> Change:
    """Its frame on the wire says something else."""

    def change(events: Events) -> Events:
        events[_one(events, text, nth)[0]].update(keys)
        return events

    return change


def more(text: str = "", **keys: object) -> Change:
    """One more frame like its own, but for `keys`."""

    def change(events: Events) -> Events:
        frame = _one(events, text, 0)[0]
        return [*events[: frame + 1], {**events[frame], **keys}, *events[frame + 1 :]]

    return change


def late(seconds: float) -> Change:
    """Whatever the guest sent after its crash comes so much later."""

    def change(events: Events) -> Events:
        crash = next(e["t"] for e in events if (e["src"], e["kind"]) == ("inject", "crash"))
        for event in events:
            if event["kind"] in ("rx", "frame") and event["t"] > crash:
                event["t"] = round(event["t"] + seconds, 6)
            elif (event["src"], event["kind"]) == ("run", "end"):
                event["t"] += seconds
        return events

    return change


# -- what the guest says, and what is said of it


def inserted(before: str, make: Callable[[float], Sequence[Event]]) -> Change:
    """Events right before the first one that is `SRC KIND`."""

    def change(events: Events) -> Events:
        place = next(n for n, e in enumerate(events) if f"{e['src']} {e['kind']}" == before)
        return [*events[:place], *make(events[place]["t"] - 0.001), *events[place:]]

    return change


def _speaks_on(events: Events) -> Events:
    """A line that no console shows, two seconds after the end of the panic."""
    frame, arrival = _one(events, LAST, 0)
    end = next(n for n, e in enumerate(events) if (e["src"], e["kind"]) == ("run", "end"))
    t = round(events[end]["t"] + 2, 6)
    stamp, text = "[   99.000000] ", "I live\n"
    more = [{**events[frame], "t": t}, {**events[arrival], "t": t, "text": stamp + text}]
    events[end]["t"] = t + 1
    return [*events[:end], *more, *events[end:]]


def _stops_printing(events: Events) -> Events:
    """The console and the wire end in the middle, and QEMU hears of no panic."""
    middle = next(n for n, e in enumerate(events) if e["src"] == "console" and MIDDLE in e["text"])
    gone = [
        n
        for n in range(middle, len(events))
        if events[n]["kind"] == "line" or events[n].get("name") == "GUEST_PANICKED"
    ]
    gone += [place for pair in _datagrams(events) if pair[1] > middle for place in pair]
    return _without(events, gone)


def _never_panics(events: Events) -> Events:
    """It was asked to crash, and went on as if it had not been."""
    crash = next(n for n, e in enumerate(events) if (e["src"], e["kind"]) == ("inject", "crash"))
    gone = [n for n in range(crash, len(events)) if events[n]["kind"] in ("line", "rx", "frame")]
    gone += [n for n in range(crash, len(events)) if events[n].get("name") == "GUEST_PANICKED"]
    return _without(events, gone)


def _no_event(name: str, events: Events) -> Events:
    return [event for event in events if event.get("name") != name]


def _over(nic: str, events: Events) -> Events:
    """After the cut every other frame goes over the slave without a link."""
    cut = next(e["t"] for e in events if (e["src"], e["kind"]) == ("inject", "link"))
    for number, event in enumerate(events):
        if event["kind"] == "frame" and event["t"] > cut and number % 2:
            event["nic"] = nic
    return events


def _after_cut(events: Events) -> Events:
    """An ARP request leaves after the cut."""
    cut = next(e["t"] for e in events if (e["src"], e["kind"]) == ("inject", "link"))
    asks = next(e for e in events if e["kind"] == "frame" and "sport" not in e)
    return [*events[:-1], {**asks, "t": round(cut + 0.01, 6)}, events[-1]]


def counted(side: str, device: str, name: str, by: int) -> Change:
    def change(events: Events) -> Events:
        for event in events:
            if (event["src"], event["kind"], event.get("nic")) == (side, "ifstats", device):
                event["values"] = {**event["values"], name: event["values"][name] + by}
        return events

    return change


def stack_counted(endpoint: str, name: str, by: int) -> Change:
    def change(events: Events) -> Events:
        for event in events:
            if (event["kind"], event.get("endpoint")) == ("counters", endpoint):
                event["values"] = {**event["values"], name: event["values"][name] + by}
        return events

    return change


def _never_woken(events: Events) -> Events:
    return [event for event in events if (event["kind"], event.get("state")) != ("queue", "woken")]


def _console(text: str) -> Callable[[float], Sequence[Event]]:
    return lambda t: [{"t": round(t, 6), "src": "console", "kind": "line", "text": f"[    1.000000] {text}"}]


def _other(text: str) -> str:
    place = len(text) // 2
    return f"{text[:place]}\x7f{text[place + 1 :]}"


TABLE = (
    Flaw("the last line of a panic never leaves", lost(LAST), PANIC, "parity"),
    Flaw("the first line of a panic never leaves", lost("Trigger a crash"), PANIC, "parity"),
    Flaw("a line in the middle of a panic never leaves", lost(MIDDLE), PANIC, "parity"),
    Flaw("a line of a panic leaves twice", again(MIDDLE), PANIC, "parity"),
    Flaw("a line of a panic is cut in half", text_of(lambda text: text[: len(text) // 2] + "\n", "Hardware name"), PANIC, "parity"),
    Flaw("two lines of a panic leave in the wrong order", swapped(MIDDLE), PANIC, "parity"),
    Flaw("a line of a panic has a wrong byte", text_of(_other, "Hardware name"), PANIC, "parity"),
    Flaw("the kernel hangs in the middle of its panic", _stops_printing, PANIC, "parity"),
    Flaw("the kernel never gets to its panic", _never_panics, PANIC, "parity", "INCONCLUSIVE"),
    Flaw("the kernel never tells pvpanic", partial(_no_event, "GUEST_PANICKED"), PANIC, "event"),
    Flaw("the kernel speaks after its panic is over", _speaks_on, PANIC, "silence"),
    Flaw("the kernel warns of itself before the crash", inserted("inject crash", _console("WARNING: CPU: 0 PID: 1 at net/core/dev.c")), PANIC, "kernel"),
    Flaw("a frame of a panic has a wrong UDP checksum", framed(MIDDLE, csum="bad"), PANIC, "checksums"),
    Flaw("a frame of a panic has a wrong IP checksum", framed(MIDDLE, ip_csum="bad"), PANIC, "checksums"),
    Flaw("a frame leaves with a MAC of nobody's", framed(MIDDLE, smac=NOBODY), PANIC, "macs"),
    Flaw("a frame leaves with another's address", more(MIDDLE, sip="198.51.100.77"), PANIC, "sources"),
    Flaw("a panic leaves five seconds late", late(5), LATE, "latency"),
    Flaw("a NIC sends with its cable pulled", _after_cut, CUT_AT_LINE, "parity"),
    Flaw("a line from before the cut is lost", lost(nth=1), CUT_AT_LINE, "parity"),
    Flaw("a bond goes on over the slave without a link", partial(_over, "n0"), FAILOVER, "failover"),
    Flaw("a message is lost while the link is up", lost("npt before 20 "), LINK_CUT, "lost_only_while_down"),
    Flaw("a record is missing among the numbers", lost("npt netconsole 40 "), SEQUENCE, "sequence"),
    Flaw("a record comes twice", again("npt netconsole 40 "), SEQUENCE, "sequence"),
    Flaw("two records change places", swapped("npt netconsole 40 "), SEQUENCE, "sequence"),
    Flaw("a record has another text than the log", text_of(_other, "npt netconsole 40 "), SEQUENCE, "sequence"),
    Flaw("a fragment of a record is missing", lost("ncfrag=0/"), FRAGMENTS, "sequence"),
    Flaw("a NIC counts frames that never left", counted("guest", "n0", "tx_packets", 10), COUNTERS, "counters_agree"),
    Flaw("a bond counts frames that its slaves never sent", counted("guest", "bond0", "tx_packets", 10), COUNTERS, "counters_agree"),
    Flaw("a driver counts frames that never left", counted("guest", "n0", "ethtool_tx_queue_0_packets", 10), COUNTERS, "counters_agree"),
    Flaw("a driver does not count what it sent", counted("guest", "n1", "ethtool_tx_queue_0_packets", -10), COUNTERS, "counters_agree"),
    Flaw("our stack counts frames that never left", stack_counted("sender", "sent", 5), COUNTERS, "counters_agree"),
    Flaw("a TX queue that stopped is never woken", _never_woken, READER, "queue_stopped"),
    Flaw("a message that was held back never leaves", lost("npt meanwhile 300 "), READER, "held_back"),
    Flaw("a tap has lost a frame that was captured", counted("host", "n0", "rx_packets", -1), COUNTERS, "counters_agree"),
)  # fmt: skip
