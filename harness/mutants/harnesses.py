"""Defects of the harness: a judge or an observer that looks away, or sees what is not there.

In: one function of harness.judge or harness.observe, broken, and evidence. Out: a table. Rule: where the judge is made blind, the evidence has the
flaw that it no longer sees, and must not come out as if it had been sound; where it sees ghosts, the evidence is sound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from harness.judge.comparison import Comparison
from harness.mutants.defect import Break
from harness.mutants.drivers import OUT
from harness.mutants.kernels import COUNTERS, CUT_AT_LINE, FAILOVER, LATE, LINK_CUT, PANIC, READER, SEQUENCE


@dataclass(frozen=True)
class Blind:
    """`flaw`: what is wrong with the evidence of `case` (a name of the other tables), or "" where it is sound. With the function
    sound, `check` fails, or holds where there is no flaw; with it broken the verdict is another one."""

    name: str
    where: str
    broken: Break
    case: str
    check: str
    flaw: str = ""
    also: tuple[str, ...] = ()


def _without(**keys: Any) -> Break:
    """An alignment that leaves something out."""
    return lambda sound: lambda *args: replace(sound(*args), **keys)


def _always(value: Any) -> Break:
    return lambda _sound: lambda *_args: value


def _last_left_out(sound: Any) -> Any:
    def window(*args: Any) -> Any:
        first, last, complete = sound(*args)
        return first, last - 1, complete

    return window


def _in_time_only(sound: Any) -> Any:
    """Whoever takes what is late for lost."""

    def arrivals(seen: Any, endpoint: str) -> list[Any]:
        shown = seen.panic.t if seen.panic else float("inf")
        return [each for each in sound(seen, endpoint) if each.t < shown + 0.1]

    return arrivals


def _carrier_upside_down(sound: Any) -> Any:
    return lambda item, key: not sound(item, key) if key == "up" else sound(item, key)


def _gaps_hidden(sound: Any) -> Any:
    return lambda *args: [each for each in sound(*args) if not each.startswith("missing")]


def _no_text(_sound: Any) -> Any:
    return re.compile(r"(?!)")


def _astray_hidden(sound: Any) -> Any:
    return lambda *args: replace(sound(*args), astray=())


def _unreached_holds(sound: Any) -> Any:
    def word(checks: Any, faults: Any) -> Any:
        return sound(
            [each.model_copy(update={"reached": True, "held": True}) if not each.reached else each for each in checks],
            faults,
        )

    return word


def _lossy_parser(sound: Any) -> Any:
    """Every tenth captured frame is overlooked."""
    return {key: _every_other(parser) if key == ("wire", "frame") else parser for key, parser in sound.items()}


def _every_other(parser: Any) -> Any:
    count = 0

    def parse(records: Any, item: Any) -> None:
        nonlocal count
        count += 1
        if count % 10:
            parser(records, item)

    return parse


def _nothing_lost(found: Comparison) -> bool:
    return not (found.lost or found.alignment.duplicated or found.alignment.reordered)


def _held(check: Any) -> Any:
    return check.model_copy(update={"held": True}) if check.reached else check


def _a_thousand(_sound: Any) -> Any:
    return 1000


def _upside_down(sound: Any) -> Any:
    def queue(*args: Any) -> Any:
        found = sound(*args)
        return found._replace(stopped=not found.stopped)

    return queue


TABLE = (
    Blind("the judge takes carrier up for down", "harness.judge.records._Item.flag", _carrier_upside_down, LINK_CUT, "lost_only_while_down"),
    Blind("the judge takes what is late for lost", "harness.judge.comparison.arrivals", _in_time_only, LATE, "parity"),
    Blind("the judge overlooks captured frames", "harness.judge.records._PARSERS", _lossy_parser, PANIC, "parity"),
    Blind("the judge takes a stop for a wake-up", "harness.judge.records._queue", _upside_down, READER, "queue_stopped"),
    Blind("parity leaves out the last line", "harness.judge.comparison._window", _last_left_out, PANIC, "parity", "the last line of a panic never leaves"),
    Blind("parity does not see what comes twice", "harness.judge.comparison.align", _without(duplicated=()), PANIC, "parity", "a line of a panic leaves twice"),
    Blind("parity does not see disorder", "harness.judge.comparison.align", _without(reordered=()), PANIC, "parity", "two lines of a panic leave in the wrong order"),
    Blind("parity does not see damage", "harness.judge.comparison.Comparison.whole", lambda _: property(_nothing_lost), PANIC, "parity", "a line of a panic has a wrong byte"),
    Blind("parity does not ask whether the panic came to its end", "harness.judge.comparison._window", lambda sound: lambda *args: (*sound(*args)[:2], True),
          PANIC, "parity", "the kernel hangs in the middle of its panic"),
    Blind("the cut excuses every loss", "harness.judge.except_cut._not_excused", _always([]), CUT_AT_LINE, "parity", "a line from before the cut is lost"),
    Blind("frames of a NIC without a link are not looked for", "harness.judge.except_cut._astray", _always([]), CUT_AT_LINE, "parity", "a NIC sends with its cable pulled"),
    Blind("frames over a dead slave are not looked for", "harness.judge.failover._split", _astray_hidden, FAILOVER, "failover", "a bond goes on over the slave without a link"),
    Blind("every loss counts as one without a link", "harness.judge.lost_only_while_down.down_at", _always(True), LINK_CUT, "lost_only_while_down",
          "a message is lost while the link is up"),
    Blind("a gap in the numbers is hidden", "harness.judge.sequence._wrong", _gaps_hidden, SEQUENCE, "sequence", "a record is missing among the numbers"),
    Blind("any difference of counters is taken for pending", "harness.judge.counters_agree.PENDING", _a_thousand, COUNTERS, "counters_agree",
          "a driver does not count what it sent"),
    Blind("wrong checksums are not looked at", "harness.judge.invariants._bad", _always(""), PANIC, "checksums", "a frame of a panic has a wrong UDP checksum"),
    Blind("unknown MACs are not looked at", "harness.judge.invariants._macs", lambda sound: lambda seen: _held(sound(seen)), PANIC, "macs",
          "a frame leaves with a MAC of nobody's", also=("harness.judge.invariants._sources",)),
    Blind("strange sources are not looked at", "harness.judge.invariants._sources", lambda sound: lambda seen: _held(sound(seen)), PANIC, "sources",
          "a frame leaves with another's address"),
    Blind("nobody listens after the panic", "harness.judge.invariants._words", _always([]), PANIC, "silence", "the kernel speaks after its panic is over"),
    Blind("the kernel's complaints are not read", "harness.judge.invariants.COMPLAINT", _no_text, PANIC, "kernel", "the kernel warns of itself before the crash"),
    Blind("what was not provoked is passed", "harness.judge.judge._word", _unreached_holds, PANIC, "parity", "the kernel never gets to its panic"),
    Blind("the capture does not compute UDP checksums", "harness.observe.frames._checksum", _always("ok"), OUT, "checksums", "a wrong UDP checksum"),
)  # fmt: skip
