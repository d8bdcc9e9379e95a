"""Evidence: what was seen while a case ran, one JSON object a line, on one clock.

In: calls of `Evidence.add` from every observer, from any thread. Out: `evidence.jsonl`, complete up to the last event however
the harness ends. Rule: append-only; an event is written whole in one write or not at all; nobody but the judge interprets.

Every event has `t` (seconds on the host's CLOCK_MONOTONIC since the case began), `src` and `kind`. The catalogue:

| src     | kind      | further keys |
|---|---|---|
| run     | start     | case, wall (UTC, ISO 8601), versions {kernel, qemu, image, harness, accel, wires} |
| run     | stage     | step, title |
| run     | spent     | machine, case, others: seconds of processor time of QEMU, of the case's process, of all that it started besides |
| run     | end       | |
| run     | error     | what, hint: the testbed failed, not the kernel |
| run     | unable    | what: this testbed cannot do what the case needs; inconclusive |
| run     | timing    | what (spawn, qemu, migrated, restore, channel...), seconds since the case began to start its machine |
| run     | did       | step, what, seconds: an action of that step has ended, and how long it took (harness.bench.stages); machine: seconds of processor time that QEMU took meanwhile |
| run     | settled   | the machine is stopped, and all that was in a buffer is evidence; what remains is taking down |
| run     | silent    | what: the agent did not answer; where the CPUs are follows as `qmp stuck`, and no further step |
| inject  | reader    | nic, state: running, or stopped: the relay takes nothing that this NIC sends |
| run     | gone      | how: QEMU has ended, as the testcase wanted it |
| run     | garbage   | text: something from the guest that is no answer and no event |
| await   | reached   | what, of, state, count, seconds |
| await   | timeout   | what, of, state, count, within, seen |
| console | line      | text (without CR LF); t is the arrival of the line's first byte |
| qmp     | event     | name, data |
| qmp     | reply     | execute, arguments, seconds |
| qmp     | stuck     | why, sample, cpu, rip, where (function, or null), halted, stack: a guest that went silent, looked at several times |
| inject  | link      | nic, state, by (cable, tap, tap-gone, guest, unplug, rip, release, filter), way (tx, rx, both; as the guest sees it): written right after whoever did it confirmed |
| inject  | hold      | nic, by, way, seconds: from now on frames are held for so long at most; 0: no more |
| inject  | armed     | step, line, seen, nic: that step will be done once so many lines of the panic have been seen (harness.inject.fuse) |
| inject  | timed     | step, line, seen, nic, line_t, noticed: it has been done; when the line came, and when it was noticed. The step's own event comes right before |
| inject  | crash     | how (harness.scenario.crashes): written right before the crash was asked for |
| inject  | fault     | nic, op, args: a served device obeyed (harness.nic.serve) |
| device  | link      | nic, up, mode ([Mbit/s, full duplex] or null), silent: the model's PHY |
| device  | reset     | nic: the driver reset the chip's core |
| device  | activity  | nic, since, counts {name: int}: doorbells, tx_frames, tx_completed, rx_frames, msi, intx, faults that struck... between `since` and t, at most 50 ms |
| device  | remark    | nic, text: a message that was refused, a connection that ended, a defect of the model |
| wire    | frame     | tap, nic, dir (`out`: from the guest, `in`: to the guest), len, wall_ns, ethertype; smac, dmac; for IPv4/IPv6 UDP also sip, dip, sport, dport, udp_len, csum: ok, bad, none or partial (left to the virtual hardware); ip_csum: ok or bad |
| guest   | carrier   | nic (id of NIC or bond), up |
| guest   | nic       | nic, ifname, driver, seconds (plug to bound) |
| guest   | bond      | bond, active (active slave's NIC id or null) |
| guest   | run       | argv, rc, out, err |
| guest   | kmsg      | endpoint, label, first, last: these numbered lines were written to /dev/kmsg |
| guest, host | sent  | endpoint, label, first, last: these sequence numbers were handed to netpoll_send_udp (t is when the last of them was; a range spans at most 50 ms) |
| guest, host | dropped | endpoint, label, seq, why: the drop routine was called with this message |
| guest, host | queued | endpoint, label, seq: the drop routine put it on netpoll_queue |
| guest, host | late  | endpoint, label, seq: the queue's worker handed it to the device |
| guest, host | rx    | endpoint, label, seq, ok, why (sequence payloads; seq is null for a foreign one); or endpoint, text (anything else, latin-1 decoded) |
| guest, host | sending | endpoint, label, count, size, seed: a send begins |
| guest, host | done  | endpoint, label, count: a send finished |
| guest, host | counters | endpoint, values {name: int}: its NetpollStats, and its device's counters with `dev_` before them |
| guest   | interrupts | nic, chip (enabled there, read back), bus (let through there, read back), told (how many, since our driver took the NIC): in a crashed context, after its first poll and with the counters |
| guest, host | frames | endpoint, label, what, count: these frames, which are not for the peer's client, have been handed over |
| guest, host | passed | endpoint, label, seq, ok, why: such a frame came out behind netpoll, at the protocol stack |
| guest, host | arp   | endpoint, ip, mac, to: it heard `mac` answer `to` that it has `ip` |
| guest, host | echo  | endpoint, label, seq, sent, inside: its rx_hook sent a datagram back; `inside` the poll or interrupt routine |
| guest, host | queue | nic (id of NIC or bond), state (stopped, woken), by (netpoll): the TX queue of our stack's device; at most 200 changes of each device |
| qmp     | panic_over | seconds: since the wait for its last words began; the panicked guest can send nothing any more, and is stopped where nothing but waits follow |
| qmp     | queue     | nic, state (stopped, woken), by (kernel), queue (its number), why (driver, stack: BQL, frozen): the guest kernel's own TX queue, as a look into its memory found it changed since the last look at `since`, or found it stopped when last words were missing |
| host    | dump      | what: ready, begun, data (the first), progress, complete, partial, said, killed, ended, failed; bytes: so many of one dump have been written |
| host    | vmcore    | file, complete, size; of a complete one format, pages, equal, zero, different, outside, named (page frame numbers), log {lines, panics, refused}, tasks {list of [pid, comm]; or absent, or refused: why not}, seconds, error |
| host    | debugger  | rc (null: killed), seconds, threads [{id, name, rip, frames [function]}], memory {section: as in the kernel's image}, said: one session of gdb's with the crashed kernel |
| host    | flood     | count: frames of a flood in all, written at its end |
| host    | keys      | endpoint, keys, forge: sysrq keys were sent, with somebody else's ip, port or mac where `forge` says so |
| guest, host | ifstats | nic, values {name: int}, seconds (the guest's: that reading took): what the kernel has counted on a NIC or bond in the guest, on a NIC's tap on the host (rx came from the guest) |
| guest   | records   | records: [level, number, text] of the kernel's log, as /dev/kmsg gives them |
| guest   | key       | endpoint, key, why: about to be pressed; or null, a datagram was refused |

Guest events carry `guest_t` (the guest's CLOCK_MONOTONIC) besides; their `t` is that clock translated with the offset measured
when the control channel opened. A numbered /dev/kmsg line reads `npt LABEL SEQ FILL` with SEQ in decimal without padding,
counting from 0; FILL pads to the wanted size with letters derived from the seed (`guest.numbered`).
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

Event = dict[str, Any]
RESERVED = frozenset({"t", "src", "kind"})
_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps() would make one for each event


@dataclass(frozen=True)
class Clock:
    """The case's one clock. `zero` is time.monotonic() at the case's start; `wall_zero` is time.time() then."""

    zero: float
    wall_zero: float

    @classmethod
    def start(cls) -> Clock:
        return cls(time.monotonic(), time.time())

    def now(self) -> float:
        return time.monotonic() - self.zero

    def of_wall(self, wall: float) -> float:
        """Case time of a CLOCK_REALTIME stamp in seconds (the kernel stamps captured packets with it)."""
        return wall - self.wall_zero


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


class Evidence:
    """The evidence file of a case that is running. Thread-safe; every `add` is on disk's way before it returns."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self.events: list[Event] = []
        self._watchers: list[Callable[[Event], None]] = []

    def watch(self, take: Callable[[Event], None]) -> None:
        """Call `take` with every event from now on, at once and in the thread that adds it."""
        self._watchers.append(take)

    def watch_no_more(self) -> None:
        """Forget whoever watches."""
        self._watchers.clear()

    def add(self, src: str, kind: str, /, t: float | None = None, **keys: Any) -> Event:
        """Write one event; `t` defaults to now. Raises OSError when the disk is full, ValueError for a key that is not free."""
        if not keys.keys().isdisjoint(RESERVED):
            raise ValueError(f"{src} {kind}: an event's own keys cannot be given: {sorted(RESERVED & keys.keys())}")
        event: Event = {"t": round(self.clock.now() if t is None else t, 6), "src": src, "kind": kind, **keys}
        line = _json(event) + "\n"
        with self._lock:
            os.write(self._fd, line.encode())
            self.events.append(event)
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        for take in self._watchers:
            take(event)
        return event

    async def until(self, take: Callable[[Event], bool], deadline: float) -> bool:
        """Feed every event, past and future, to `take`, which says whether its condition holds now; True as soon as it
        does with all that is known, False once time.monotonic() passes `deadline`. One waiter at a time."""
        loop = asyncio.get_running_loop()
        seen = 0
        while True:
            more = asyncio.Event()
            with self._lock:
                self._wake = partial(_wake, loop, more)
                fresh = self.events[seen:]
            seen += len(fresh)
            if [take(event) for event in fresh][-1:] == [True]:
                return True
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await more.wait()
            except TimeoutError:
                return False

    def close(self) -> None:
        os.close(self._fd)


def read_evidence(path: Path) -> Iterator[Event]:
    """The events of a saved case, in file order. A last line cut short by a kill is left out; any other bad line raises
    ValueError with its line number."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines):  # what follows the last newline: empty, or cut short
            return
        try:
            event = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not an event: {error}") from error
        if not isinstance(event, dict) or not {"t", "src", "kind"} <= event.keys():
            raise ValueError(f"{path}:{number}: an event needs t, src and kind")
        yield event
