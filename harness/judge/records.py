"""Evidence as typed records: the one place where the judge reads event dictionaries.

In: events of the catalogue in `harness.observe.events`, in file order. Out: one `Records`, each kind in file order.
Rule: parsed here or not at all; an event that the catalogue does not allow raises `EvidenceError` naming it; kinds that
no check needs are passed over, so evidence can gain new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from harness.judge.debugging import DebugSession, debug_session
from harness.judge.dumps import DumpEvent, DumpFile, dump_event, dump_file
from harness.judge.told import Answer, Counters, Echo, IfStats, Interrupts, KernelRecord, Key, Keys, Passed, Strange
from harness.scenario.model import FrameKind

MAX_NUMBERS = 10_000_000  # as many as a testcase can ask for in one send

Event = dict[str, Any]
Flow = tuple[str, int, str, int]  # source ip and port, destination ip and port


class EvidenceError(ValueError):
    """An event is not what the catalogue says: the evidence was damaged or written by another version."""


class Line(NamedTuple):
    t: float
    text: str


class Link(NamedTuple):
    """A NIC's link or carrier changed. `by`: how a link was cut (harness.observe.events); `way`: in which direction."""

    t: float
    nic: str
    up: bool
    by: str = "cable"
    way: str = "both"


class Timed(NamedTuple):
    """The injection of `step` was done in the burst of a panic: right after the line at `line_t` had been seen; `noticed` is when it
    was seen, `t` when the injection had taken effect."""

    t: float
    step: int
    line_t: float
    noticed: float


class Queue(NamedTuple):
    """A TX queue stopped or was woken. `by`: whose it is; `side`: of which machine; `why`: what stopped a kernel's."""

    t: float
    nic: str
    stopped: bool
    by: str
    side: str
    why: str = ""


class Active(NamedTuple):
    t: float
    bond: str
    slave: str | None


class Frame(NamedTuple):
    """One captured frame. `flow` is None for what is not UDP; `csum` is ok, bad, none or partial."""

    t: float
    nic: str
    out: bool  # from the guest
    flow: Flow | None
    csum: str | None
    ip_csum: str | None
    smac: str | None
    ethertype: int = 0


class Range(NamedTuple):
    """Messages first..last were handed over by time `t`."""

    t: float
    endpoint: str
    label: str
    first: int
    last: int


class Handled(NamedTuple):
    """One message went through the drop routine, onto the queue, or late to the device."""

    t: float
    endpoint: str
    label: str
    seq: int
    why: str


class Sending(NamedTuple):
    t: float
    endpoint: str
    label: str
    total: int
    size: tuple[int, int]
    seed: int


class Done(NamedTuple):
    t: float
    endpoint: str
    label: str
    total: int


class Arrival(NamedTuple):
    """One datagram at an endpoint: a sequence payload (`seq`), or text. `label` where the receiver knows it."""

    t: float
    endpoint: str
    label: str | None
    seq: int | None
    ok: bool
    why: str
    text: str | None


class Name(NamedTuple):
    t: float
    name: str


class Timeout(NamedTuple):
    t: float
    what: str
    of: str
    within: float


class Look(NamedTuple):
    """One look at a CPU of a guest that went silent."""

    t: float
    cpu: int
    rip: str
    where: str | None  # the function, where the address is one of the kernel's
    stack: tuple[str, ...]
    halted: bool = False  # in HLT: it waits for an interrupt


@dataclass(frozen=True, slots=True)
class Counted:
    """What a served device did in a short while."""

    t: float
    nic: str
    counts: dict[str, int]


@dataclass
class Records:
    """Everything the checks look at. Filled by `parse`, not changed afterwards."""

    started: float | None = None
    ended: float | None = None
    last: float = 0.0  # the latest time of any event
    errors: list[str] = field(default_factory=list)
    unable: list[Name] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    console: list[Line] = field(default_factory=list)
    qmp: list[Name] = field(default_factory=list)
    cuts: list[Link] = field(default_factory=list)
    carriers: list[Link] = field(default_factory=list)
    timed: list[Timed] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    actives: list[Active] = field(default_factory=list)
    crashes: list[Name] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    sent: list[Range] = field(default_factory=list)
    kmsg: list[Range] = field(default_factory=list)
    dropped: list[Handled] = field(default_factory=list)
    queued: list[Handled] = field(default_factory=list)
    late: list[Handled] = field(default_factory=list)
    sending: list[Sending] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    readers: list[Link] = field(default_factory=list)  # `up`: somebody reads what the NIC sends
    gone: list[Name] = field(default_factory=list)  # QEMU has ended; how
    silent: list[Name] = field(default_factory=list)  # the agent did not answer
    timeouts: list[Timeout] = field(default_factory=list)
    counters: list[Counters] = field(default_factory=list)
    interrupts: list[Interrupts] = field(default_factory=list)
    strange: list[Strange] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    echoes: list[Echo] = field(default_factory=list)
    ifstats: list[IfStats] = field(default_factory=list)
    kernel_log: list[KernelRecord] = field(default_factory=list)
    keys: list[Keys] = field(default_factory=list)
    pressed: list[Key] = field(default_factory=list)
    dump_events: list[DumpEvent] = field(default_factory=list)
    dump_files: list[DumpFile] = field(default_factory=list)
    debug_sessions: list[DebugSession] = field(default_factory=list)
    guest_events: int = 0
    numbers: int = 0  # messages that ranges and totals speak of


class _Item:
    """One event under the parser's hands: typed access to its keys."""

    def __init__(self, index: int, event: Event) -> None:
        self.index, self.event = index, event
        self.t = self.number("t")

    def wrong(self, key: str, wanted: str) -> EvidenceError:
        name = f"event {self.index} ({self.event.get('src')} {self.event.get('kind')})"
        seen = f"is {self.event[key]!r}" if key in self.event else "is missing"
        return EvidenceError(f"{name}: `{key}` {seen}, need {wanted}")

    def number(self, key: str) -> float:
        value = self.event.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number")
        return value

    def whole(self, key: str) -> int:
        value = self.event.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number")
        return value

    def word(self, key: str) -> str:
        value = self.event.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def flag(self, key: str) -> bool:
        value = self.event.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def one_of(self, key: str, *words: str) -> str:
        value = self.event.get(key)
        if value not in words:
            raise self.wrong(key, " or ".join(words))
        return str(value)

    def may(self, key: str) -> str | None:
        return None if self.event.get(key) is None else self.word(key)

    def numbers(self, key: str) -> dict[str, int]:
        value = self.event.get(key)
        if not isinstance(value, dict) or not all(type(number) is int for number in value.values()):
            raise self.wrong(key, "whole numbers by name")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        value = self.event.get(key)
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def pair(self, key: str) -> tuple[int, int]:
        value = self.event.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value, value
        if isinstance(value, list | tuple) and len(value) == 2 and all(type(item) is int for item in value):
            return value[0], value[1]
        raise self.wrong(key, "[lowest, highest]")


def _frame(records: Records, item: _Item) -> None:
    out, event, flow = item.one_of("dir", "out", "in") == "out", item.event, None
    if event.get("sport") is not None:
        flow = (item.word("sip"), item.whole("sport"), item.word("dip"), item.whole("dport"))
    sums = item.may("csum"), item.may("ip_csum")
    ethertype = item.whole("ethertype") if "ethertype" in event else 0  # not even that long
    records.frames.append(Frame(item.t, item.word("nic"), out, flow, *sums, item.may("smac"), ethertype))


def _arrival(records: Records, item: _Item) -> None:
    text = item.may("text")
    seq = _seq(item)
    ok = item.flag("ok") if text is None else True
    arrival = Arrival(item.t, item.word("endpoint"), item.may("label"), seq, ok, item.may("why") or "", text)
    records.arrivals.append(arrival)


def _range(records: Records, item: _Item) -> Range:
    found = Range(item.t, item.word("endpoint"), item.word("label"), item.whole("first"), item.whole("last"))
    if not 0 <= found.first <= found.last:
        raise item.wrong("last", f"at least `first` ({found.first})")
    _count(records, item, "last", found.last - found.first + 1)
    return found


def _count(records: Records, item: _Item, key: str, messages: int) -> None:
    """Checks look at each message by itself, so a guest that speaks of endlessly many must not be believed."""
    records.numbers += max(messages, 0)
    if records.numbers > MAX_NUMBERS:
        raise item.wrong(key, f"no more than {MAX_NUMBERS} messages in a case")


def _handled(records: list[Handled], item: _Item) -> None:
    """A frame that carried none of the numbered messages has neither label nor number, and is nobody's loss."""
    if item.event.get("label") is not None:
        handled = Handled(item.t, item.word("endpoint"), item.word("label"), item.whole("seq"), item.may("why") or "")
        records.append(handled)


def _sending(item: _Item) -> Sending:
    size = item.pair("size")
    return Sending(item.t, item.word("endpoint"), item.word("label"), item.whole("count"), size, item.whole("seed"))


def _done(records: Records, item: _Item) -> None:
    if error := item.may("error"):
        records.errors.append(f"a send failed in the agent: {error}")
    else:
        records.done.append(Done(item.t, item.word("endpoint"), item.word("label"), item.whole("count")))


def _counters(item: _Item) -> Counters:
    values = item.event.get("values")
    if not isinstance(values, dict) or not all(type(value) is int for value in values.values()):
        raise item.wrong("values", "whole numbers by name")
    return Counters(item.t, item.word("endpoint"), values)


def _seq(item: _Item) -> int | None:
    return None if item.event.get("seq") is None else item.whole("seq")


def _strange(records: Records, item: _Item) -> Strange:
    _count(records, item, "count", item.whole("count"))
    what = item.one_of("what", *get_args(FrameKind))
    return Strange(item.t, item.word("endpoint"), item.word("label"), what, item.whole("count"))


def _echo(item: _Item) -> Echo:
    return Echo(item.t, item.word("endpoint"), item.may("label"), _seq(item), item.flag("sent"), item.flag("inside"))


def _cut(item: _Item) -> Link:
    up = item.one_of("state", "up", "down") == "up"
    return Link(item.t, item.word("nic"), up, item.may("by") or "cable", item.may("way") or "both")


def _kernel_records(item: _Item) -> list[KernelRecord]:
    value = item.event.get("records")
    if not isinstance(value, list) or not all(
        isinstance(each, list) and [type(part) for part in each] == [int, int, str] for each in value
    ):
        raise item.wrong("records", "[level, number, text] each")
    return [KernelRecord(*each) for each in value]


def _queue(item: _Item, side: str) -> Queue:
    stopped = item.one_of("state", "stopped", "woken") == "stopped"
    return Queue(item.t, item.word("nic"), stopped, item.word("by"), side, item.may("why") or "")


def _interrupts(item: _Item) -> Interrupts:
    return Interrupts(item.t, item.word("nic"), item.flag("chip"), item.flag("bus"), item.whole("told"))


def _start(records: Records, item: _Item) -> None:
    records.started = item.t


def _end(records: Records, item: _Item) -> None:
    records.ended = item.t


def _error(records: Records, item: _Item) -> None:
    hint = item.may("hint")
    records.errors.append(item.word("what") + (f" ({hint})" if hint else ""))


def _timing(records: Records, item: _Item) -> None:
    records.timings[item.word("what")] = item.number("seconds")


def _dump(records: Records, item: _Item) -> None:
    event = dump_event(item)
    records.dump_events.append(event)
    if event.what == "failed":
        records.errors.append(f"the dump's server failed: {event.why}")


def _spent(records: Records, item: _Item) -> None:
    records.spent = {who: item.number(who) for who in ("machine", "case", "others")}


Parser = Callable[[Records, _Item], None]

_PARSERS: dict[tuple[str, str], Parser] = {
    ("run", "start"): _start,
    ("run", "end"): _end,
    ("run", "error"): _error,
    ("run", "unable"): lambda r, e: r.unable.append(Name(e.t, e.word("what"))),
    ("run", "timing"): _timing,
    ("run", "spent"): _spent,
    ("run", "silent"): lambda r, e: r.silent.append(Name(e.t, e.word("what"))),
    ("inject", "reader"): lambda r, e: r.readers.append(
        Link(e.t, e.word("nic"), e.one_of("state", "running", "stopped") == "running")
    ),
    ("run", "gone"): lambda r, e: r.gone.append(Name(e.t, e.word("how"))),
    ("console", "line"): lambda r, e: r.console.append(Line(e.t, e.word("text"))),
    ("qmp", "event"): lambda r, e: r.qmp.append(Name(e.t, e.word("name"))),
    ("inject", "link"): lambda r, e: r.cuts.append(_cut(e)),
    ("inject", "timed"): lambda r, e: r.timed.append(
        Timed(e.t, e.whole("step"), e.number("line_t"), e.number("noticed"))
    ),
    ("qmp", "queue"): lambda r, e: r.queues.append(_queue(e, "guest")),
    ("device", "activity"): lambda r, e: r.counted.append(Counted(e.t, e.word("nic"), e.numbers("counts"))),
    ("inject", "crash"): lambda r, e: r.crashes.append(Name(e.t, e.word("how"))),
    ("guest", "carrier"): lambda r, e: r.carriers.append(Link(e.t, e.word("nic"), e.flag("up"))),
    ("guest", "bond"): lambda r, e: r.actives.append(Active(e.t, e.word("bond"), e.may("active"))),
    ("wire", "frame"): _frame,
    ("guest", "kmsg"): lambda r, e: r.kmsg.append(_range(r, e)),
    ("guest", "records"): lambda r, e: r.kernel_log.extend(_kernel_records(e)),
    ("qmp", "stuck"): lambda r, e: r.looks.append(
        Look(e.t, e.whole("cpu"), e.word("rip"), e.may("where"), e.words("stack"), e.flag("halted"))
    ),
    ("host", "dump"): _dump,
    ("host", "debugger"): lambda r, e: r.debug_sessions.append(debug_session(e)),
    ("host", "vmcore"): lambda r, e: r.dump_files.append(dump_file(e)),
    ("await", "timeout"): lambda r, e: r.timeouts.append(
        Timeout(e.t, e.word("what"), e.word("of"), e.number("within"))
    ),
}
_EITHER_SIDE: dict[str, Parser] = {
    "sent": lambda r, e: r.sent.append(_range(r, e)),
    "dropped": lambda r, e: _handled(r.dropped, e),
    "queued": lambda r, e: _handled(r.queued, e),
    "late": lambda r, e: _handled(r.late, e),
    "rx": _arrival,
    "sending": lambda r, e: r.sending.append(_sending(e)),
    "done": _done,
    "counters": lambda r, e: r.counters.append(_counters(e)),
    "frames": lambda r, e: r.strange.append(_strange(r, e)),
    "passed": lambda r, e: r.passed.append(Passed(e.t, e.word("endpoint"), e.word("label"), _seq(e), e.flag("ok"))),
    "arp": lambda r, e: r.answers.append(Answer(e.t, e.word("endpoint"), e.word("ip"), e.word("mac"), e.word("to"))),
    "queue": lambda r, e: r.queues.append(_queue(e, e.word("src"))),
    "interrupts": lambda r, e: r.interrupts.append(_interrupts(e)),
    "ifstats": lambda r, e: r.ifstats.append(
        IfStats(
            e.t, e.word("src"), e.word("nic"), e.numbers("values"), e.number("seconds") if "seconds" in e.event else 0.0
        )
    ),
    "echo": lambda r, e: r.echoes.append(_echo(e)),
    "keys": lambda r, e: r.keys.append(Keys(e.t, e.word("endpoint"), e.word("keys"), e.may("forge"))),
    "key": lambda r, e: r.pressed.append(Key(e.t, e.word("endpoint"), e.may("key"))),
}
_PARSERS |= {(side, kind): parser for side in ("guest", "host") for kind, parser in _EITHER_SIDE.items()}


def parse(events: Iterable[Event]) -> Records:
    """All events of a case. Raises EvidenceError for one that the catalogue does not allow."""
    records = Records()
    for number, event in enumerate(events, 1):
        item = _Item(number, event)
        source, kind = item.word("src"), item.word("kind")
        records.last = max(records.last, item.t)
        records.guest_events += source == "guest"
        if parser := _PARSERS.get((source, kind)):
            parser(records, item)
    return records
