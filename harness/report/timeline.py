"""What happened when, as lanes of a picture: steps, injections, console, each tap, links, bonds, endpoints, queues, QEMU.

In: plan and events of one case. Out: a `Timeline`, plain values for `harness.report.drawing`. Rule: nothing is left out for being
unknown: an event of a kind that has no row in the tables here gets a lane of its own, named after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.judge.records import Event, EvidenceError
from harness.judge.seen import CRASH_BEGUN, PANIC, PANIC_END, Seen, look
from harness.plan.model import Plan
from harness.report.around import Loss, losses
from harness.report.injections import label
from harness.report.waiting import wait_words

SHORTEST = 0.001  # seconds that a picture can show
CLOSE = 0.25  # a close-up is worth its room where what it shows takes less than this part of the whole
MARGIN = 0.08  # of a close-up, before and after


@dataclass(frozen=True, order=True)
class Mark:
    """Something at one moment. `style`: inject, lost, bad, event, crash."""

    t: float
    label: str
    style: str = "event"


@dataclass(frozen=True)
class Span:
    """A state that lasted. `style`: up, down, active, step."""

    begin: float
    end: float
    label: str
    style: str


@dataclass
class Lane:
    """One row of the picture. `above` and `below` are moments to count: from and to the guest, for a wire."""

    name: str
    marks: list[Mark] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    above: list[float] = field(default_factory=list)
    below: list[float] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.marks or self.spans or self.above or self.below)


@dataclass(frozen=True)
class Timeline:
    """Lanes from 0 to `end` seconds of the case. `crash`: when it was asked for. `close`: bounds worth a second look."""

    end: float
    lanes: tuple[Lane, ...]
    crash: float | None
    close: tuple[float, float] | None


# Events that are told elsewhere in the report, or say nothing about when.
UNSEEN = {
    ("qmp", "panic_over"), ("run", "start"), ("run", "end"), ("run", "timing"), ("run", "did"), ("run", "settled"), ("run", "spent"), ("run", "garbage"), ("await", "reached"), ("qmp", "reply"),
    ("guest", "nic"), ("guest", "counters"), ("host", "counters"), ("guest", "run"), ("device", "activity"),
    ("guest", "sending"), ("host", "sending"), ("guest", "done"), ("host", "done"),
}  # fmt: skip
UNSEEN_QMP = {"MIGRATION", "RESUME", "STOP", "NIC_RX_FILTER_CHANGED"}

# What an endpoint tells: the word in its lane's name, and the style of a mark where a single one matters.
WORDS = {"sent": "handed over", "kmsg": "handed over", "rx": "received", "passed": "passed on", "echo": "sent back"}
STOPPED = {"dropped", "queued", "late"}  # of the drop routine: the queue was stopped
QUEUE = "queue stopped"
CONSOLE = "serial console"

STATES = ("up", "state", "active", "stopped")  # keys that make an event a change of state
SUBJECTS = ("nic", "bond", "endpoint", "device", "tap")  # of whom
GOOD = {"up", "yes", "running", "woken"}
NAMES = {
    ("inject", "link"): "{} cable",
    ("device", "link"): "{} PHY",
    ("guest", "carrier"): "{} carrier",
    ("guest", "bond"): "{} active slave",
    ("guest", "queue"): "{} TX queue, ours",
    ("host", "queue"): "{} TX queue, ours at the host",
    ("qmp", "queue"): "{} TX queue, kernel's",
}


def timeline(plan: Plan, events: Sequence[Event]) -> Timeline:
    """The picture's content. Evidence that cannot be parsed is drawn as far as its events go."""
    end = max((float(each["t"]) for each in events if isinstance(each.get("t"), int | float)), default=0.0)
    end = end if end > SHORTEST else 1.0
    try:
        seen: Seen | None = look(plan, events)
    except EvidenceError:
        seen = None
    lost = _lost(plan, seen) if seen else []
    lanes = _lanes(events, end)
    for loss in lost:
        lane = f"{loss.sender} {WORDS['sent']}" if loss.sender else CONSOLE
        _lane(lanes, lane).marks.append(Mark(loss.t, f"{loss.mark}: {loss.text}", "lost"))
    crash = seen.crash if seen else None
    order = sorted(lanes, key=lambda name: _rank(name, plan))
    return Timeline(
        end, tuple(lanes[name] for name in order if not lanes[name].empty), crash, _close(events, lost, end)
    )


def _lost(plan: Plan, seen: Seen) -> list[Loss]:
    found = [loss for expect in plan.expect for loss in losses(expect, seen)]
    return sorted(set(found))


def _lane(lanes: dict[str, Lane], name: str) -> Lane:
    return lanes.setdefault(name, Lane(name))


def _lanes(events: Iterable[Event], end: float) -> dict[str, Lane]:
    lanes: dict[str, Lane] = {}
    changes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for event in events:
        kind = (str(event["src"]), str(event["kind"]))
        if kind in UNSEEN or (kind == ("qmp", "event") and str(event.get("name")) in UNSEEN_QMP):
            continue
        if told := _state_of(event):
            changes[NAMES.get(kind, f"{{}} {kind[0]} {kind[1]}").format(told[0])].append((event["t"], told[1]))
        if kind[0] == "inject":
            _lane(lanes, "injections").marks.append(Mark(event["t"], label(event), "inject"))
        elif draw := DRAWN.get(kind):
            draw(lanes, event)
        elif "endpoint" in event:
            _endpoint(lanes, event)
        elif not told:
            _lane(lanes, " ".join(kind)).marks.append(Mark(event["t"], label(event)))
    for name, seen in changes.items():
        _lane(lanes, name).spans += _spans(seen, end)
    _step_ends(_lane(lanes, "steps"), end)
    return lanes


def _state_of(event: Event) -> tuple[str, str] | None:
    """Whose state changed, and to what, for an event that is a change of state."""
    subject = next((event[key] for key in SUBJECTS if isinstance(event.get(key), str)), None)
    for key in STATES:
        value = event.get(key, ...)
        if subject is not None and (value is None or isinstance(value, str | bool)):
            return subject, _state_word(key, value)
    return None


def _state_word(key: str, value: str | bool | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return {"up": ("down", "up"), "stopped": ("running", "stopped")}.get(key, ("no", "yes"))[value]
    return value


def _spans(changes: Sequence[tuple[float, str]], end: float) -> Iterator[Span]:
    """From each change to the next that says something else."""
    ordered = sorted(changes)
    merged = [each for number, each in enumerate(ordered) if number == 0 or ordered[number - 1][1] != each[1]]
    ends = [t for t, _ in merged[1:]] + [end]
    for (begin, state), until in zip(merged, ends, strict=True):
        yield Span(
            begin, until, state, "up" if state in GOOD else "down" if state in ("down", "none", "stopped") else "active"
        )


def _stage(lanes: dict[str, Lane], event: Event) -> None:
    title = f"{event.get('step')}: {event.get('title')}"
    _lane(lanes, "steps").spans.append(Span(event["t"], event["t"], title, "step"))


def _step_ends(lane: Lane, end: float) -> None:
    """A step lasts until the next one begins."""
    begins = [*(span.begin for span in lane.spans[1:]), end]
    lane.spans = [replace(span, end=max(until, span.begin)) for span, until in zip(lane.spans, begins, strict=False)]


def _console(lanes: dict[str, Lane], event: Event) -> None:
    lane, text = _lane(lanes, CONSOLE), str(event.get("text"))
    lane.above.append(event["t"])
    if PANIC.search(text) or PANIC_END in text or CRASH_BEGUN.search(text):
        lane.marks.append(Mark(event["t"], text, "crash"))


def _frame(lanes: dict[str, Lane], event: Event) -> None:
    lane = _lane(lanes, f"wire {event.get('nic')}")
    (lane.above if event.get("dir") == "out" else lane.below).append(event["t"])
    if event.get("malformed") or "bad" in (event.get("csum"), event.get("ip_csum")):
        lane.marks.append(Mark(event["t"], f"damaged frame: {event.get('malformed') or 'bad checksum'}", "bad"))


def _qmp(lanes: dict[str, Lane], event: Event) -> None:
    _lane(lanes, "QEMU").marks.append(
        Mark(event["t"], str(event.get("name")), "crash" if "PANIC" in str(event.get("name")) else "event")
    )


def _bad(name: str, words: str) -> Callable[[dict[str, Lane], Event], None]:
    """`words`: a sentence with the event's keys in braces."""

    def draw(lanes: dict[str, Lane], event: Event) -> None:
        _lane(lanes, name).marks.append(Mark(event["t"], words.format_map(defaultdict(str, event)), "bad"))

    return draw


def _vain(lanes: dict[str, Lane], event: Event) -> None:
    words = wait_words(str(event.get("what")), str(event.get("of", "")), event.get("state"), event.get("count"))
    _lane(lanes, "waited in vain").marks.append(Mark(event["t"], words, "bad"))


def _endpoint(lanes: dict[str, Lane], event: Event) -> None:
    """What happened at an endpoint, counted; what its drop routine was given says that the queue was stopped."""
    kind, name = str(event["kind"]), str(event["endpoint"])
    if kind in STOPPED:
        word = {"late": "sent late"}.get(kind, kind)
        _lane(lanes, f"{QUEUE}: {name} {word}").above.append(event["t"])
        return
    many = (
        event["last"] - event["first"] + 1
        if isinstance(event.get("last"), int) and isinstance(event.get("first"), int)
        else 1
    )
    _lane(lanes, f"{name} {WORDS.get(kind, kind)}").above.extend([event["t"]] * min(max(many, 1), 10_000))


DRAWN: Mapping[tuple[str, str], Callable[[dict[str, Lane], Event], None]] = {
    ("run", "stage"): _stage,
    ("console", "line"): _console,
    ("wire", "frame"): _frame,
    ("qmp", "event"): _qmp,
    ("qmp", "stuck"): _bad("guest silent", "CPU {cpu} in {where}"),
    ("run", "silent"): _bad("guest silent", "no answer"),
    ("run", "error"): _bad("testbed", "{what}"),
    ("run", "unable"): _bad("testbed", "{what}"),
    ("await", "timeout"): _vain,
}
"""Kinds with a lane of their own design; `inject` and endpoints have theirs, every other kind gets a plain one."""

RANKS = {
    "steps": 0, "injections": 1, CONSOLE: 2, "wire ": 3, "cable": 4, "PHY": 4, "carrier": 4, "active slave": 5,
    QUEUE: 6, "TX queue": 6, "QEMU": 8, "guest silent": 9,
}  # fmt: skip
OTHERS = 7


def _rank(name: str, plan: Plan) -> tuple[int, int, str]:
    """Lanes in reading order: what was done, what was said, what got out, why not; of several NICs in the plan's order."""
    rank = next((rank for word, rank in RANKS.items() if word in name), OTHERS)
    nics = [nic.id for nic in plan.nics]
    nic = next((number for number, nic in enumerate(nics) if nic in name.split()), len(nics))
    return rank, nic, name


def _close(events: Sequence[Event], lost: Sequence[Loss], end: float) -> tuple[float, float] | None:
    """From the last injection before the first loss, or from the crash, to the last word on console or wire."""
    crashes = [e["t"] for e in events if (e["src"], e["kind"]) == ("inject", "crash")]
    begin = crashes[0] if crashes else lost[0].t if lost else None
    if begin is None:
        return None
    said = [
        e["t"] for e in events if (e["src"], e["kind"]) in (("console", "line"), ("wire", "frame")) and e["t"] >= begin
    ]
    until = max([*(said if crashes else ()), *(loss.t for loss in lost), begin])
    room = max((until - begin) * MARGIN, 0.005)
    if until - begin + 2 * room > end * CLOSE:
        return None
    return max(begin - room, 0.0), min(until + room, end)
