"""What holds in every case, whatever the testcase expects: checks that nobody has to ask for.

In: a `Seen`. Out: checks. Rule: only what is wrong in any case belongs here. What speaks of the guest's datagrams is asked for
only where the plan lets the guest send any, `silence` only where it is crashed: else they would be unreached for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from harness.judge.lines import stamp_of, wire_lines
from harness.judge.model import CheckResult
from harness.judge.records import Frame
from harness.judge.seen import PANIC_END, Seen
from harness.judge.whereabouts import whereabouts
from harness.judge.words import at, cut, many, short
from harness.scenario.crashes import ends

COMPLAINT = re.compile(
    r"\bBUG: (?!soft lockup)|WARNING: (?:CPU|\S+:\d+ at |suspicious RCU|inconsistent lock|possible (?:circular|recursive))"
    r"|\bOops: |general protection fault|Kernel panic|refcount_t: |UBSAN: |KASAN: "
)
SETTLE = 1.0  # seconds after the end of a panic in which a NIC may still be sending what its ring held


def checks(seen: Seen) -> list[CheckResult]:
    """The invariants that apply to this case, without those that it lets off (`allow`)."""
    return [_allowed(check, seen) for check in _all(seen)]


def _allowed(check: CheckResult, seen: Seen) -> CheckResult:
    """Held if the testcase says that this may be broken; what was found stays to be read."""
    reason = next((each.reason for each in seen.plan.scenario.allow if each.invariant == check.check), None)
    if reason is None or not check.reached or check.held:
        return check
    return check.model_copy(update={"held": True, "why": f"allowed ({reason}): {check.why}"})


def _all(seen: Seen) -> list[CheckResult]:
    if seen.records.silent:
        return [_alive(seen), _sane_kernel(seen)]
    steps = seen.plan.scenario.steps
    crashes = seen.crash is not None or any(step.crash for step in steps)
    senders = {end.id for end in seen.plan.endpoints if end.at == "guest"}
    speaks = any(step.send and step.send.from_ in senders for step in steps) or _kernel_speaks(seen, crashes)
    if not speaks and not _from_guest(seen):
        return [_sane_kernel(seen)]
    ending = [_ending(seen)] if crashes and not seen.plan.machine.capture else []  # a capture kernel speaks
    return [_sane_kernel(seen), _checksums(seen), _sources(seen), _macs(seen), *ending]


def _ending(seen: Seen) -> CheckResult:
    crash = next((step.crash for step in seen.plan.scenario.steps if step.crash), None)
    gone = crash is not None and ends(seen.plan.scenario.guest, crash) == "machine"
    return _gone(seen) if gone else _silence(seen)


def _gone(seen: Seen) -> CheckResult:
    """A machine that is no more sends nothing."""
    about = "QEMU comes to its end as the testcase wants it, and nothing leaves the guest afterwards"
    if not seen.records.gone:
        return _unreached("gone", about, "QEMU did not end")
    end = seen.records.gone[0]
    frames = _from_guest(seen)
    wrong = [f"a datagram over {frame.nic} at {at(frame.t)}" for frame in frames if frame.t > end.t + SETTLE]
    right = f"QEMU ended by {end.name} at {at(end.t)}; {many(len(frames), 'UDP datagram')} had got out by then"
    return _result("gone", about, wrong, right, {"frames": len(frames)})


def _kernel_speaks(seen: Seen, crashes: bool) -> bool:
    return crashes and any(end.at == "guest" and end.stack == "kernel" for end in seen.plan.endpoints)


def _from_guest(seen: Seen) -> list[Frame]:
    return [frame for frame in seen.records.frames if frame.out and frame.flow is not None]


def _result(name: str, about: str, wrong: Sequence[str], right: str, numbers: dict[str, float | int]) -> CheckResult:
    why = right if not wrong else wrong[0] + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
    findings = tuple(cut(list(wrong), "of the same kind"))
    return CheckResult(
        check=name, about=about, reached=True, held=not wrong, why=why, findings=findings, numbers=numbers
    )


def _unreached(name: str, about: str, why: str) -> CheckResult:
    return CheckResult(check=name, about=about, reached=False, held=None, why=why)


def _checksums(seen: Seen) -> CheckResult:
    about = "every UDP datagram from the guest has right IP and UDP checksums"
    frames = _from_guest(seen)
    if not frames:
        return _unreached("checksums", about, "the guest sent no UDP datagram")
    wrong = [f"bad checksum over {frame.nic} at {at(frame.t)}: {_bad(frame)}" for frame in frames if _bad(frame)]
    counts = Counter(frame.csum or "none" for frame in frames)
    numbers: dict[str, float | int] = {"frames": len(frames), **{f"csum_{word}": n for word, n in counts.items()}}
    return _result("checksums", about, wrong, f"{many(len(frames), 'UDP datagram')}, none with a bad checksum", numbers)


def _bad(frame: Frame) -> str:
    which = [name for name, state in (("UDP", frame.csum), ("IP", frame.ip_csum)) if state == "bad"]
    flow = frame.flow
    return f"{' and '.join(which)}, {flow[0]}:{flow[1]} to {flow[2]}:{flow[3]}" if which and flow else ""


def _sources(seen: Seen) -> CheckResult:
    """On the ports of the testcase, the guest sends only the testcase's flows, over the right NICs, from its own MACs."""
    about = "on the endpoints' ports the guest sends only their own flows, over their own NICs"
    ends = {seen.flow(end.id): end for end in seen.plan.endpoints if end.at == "guest"}
    frames = _from_guest(seen)
    if not frames:
        return _unreached("sources", about, "the guest sent no UDP datagram")
    ports = {port for end in seen.plan.endpoints for port in (end.local_port, end.remote_port)}
    macs = {nic.mac for nic in seen.plan.nics} | {end.local_mac for end in ends.values()}
    ours = [frame for frame in frames if frame.flow and {frame.flow[1], frame.flow[3]} & ports]
    wrong = []
    for frame in ours:
        end = ends.get(frame.flow) if frame.flow else None
        if end is None:
            wrong.append(f"{_named(frame)} is no flow of the testcase")
        elif frame.nic not in seen.nics_of(end):
            wrong.append(f"{_named(frame)} left over {frame.nic}, which is not behind {', '.join(end.devices)}")
        elif frame.smac is not None and frame.smac not in macs:
            wrong.append(f"{_named(frame)} has the source MAC {frame.smac}, which is none of the guest's")
    return _result("sources", about, wrong, f"{many(len(ours), 'frame')}, all of known flows", {"frames": len(ours)})


def _macs(seen: Seen) -> CheckResult:
    """Of whatever kind: nobody but the guest's own NICs speaks out of the guest."""
    about = "every frame from the guest has the MAC of one of its NICs as its source"
    frames = [frame for frame in seen.records.frames if frame.out]
    if not frames:
        return _unreached("macs", about, "the guest sent no frame")
    known = {nic.mac for nic in seen.plan.nics} | {end.local_mac for end in seen.plan.endpoints if end.at == "guest"}
    wrong = [
        f"a frame of type {frame.ethertype:#06x} over {frame.nic} at {at(frame.t)} comes from {frame.smac}"
        for frame in frames
        if frame.smac is not None and frame.smac not in known
    ]
    return _result("macs", about, wrong, f"{many(len(frames), 'frame')}, all from known MACs", {"frames": len(frames)})


def _named(frame: Frame) -> str:
    source, sport, target, dport = frame.flow or ("", 0, "", 0)
    return f"the frame {source}:{sport} to {target}:{dport} over {frame.nic} at {at(frame.t)}"


def _alive(seen: Seen) -> CheckResult:
    """Until it is crashed on purpose, the guest answers. The error of a silence that is not the kernel's comes before this."""
    silent = seen.records.silent[0]
    wrong = [f"the guest hangs since {at(silent.t)}: {silent.name}", *whereabouts(seen.records)]
    about = "the guest answers until a crash is asked for"
    return CheckResult(
        check="alive", about=about, reached=True, held=False, why="; ".join(wrong), findings=tuple(wrong)
    )


def _sane_kernel(seen: Seen) -> CheckResult:
    """Until it is crashed on purpose, the guest's kernel finds no fault with itself."""
    about = "the guest's kernel reports no BUG, WARNING, oops or panic before a crash is asked for"
    if not seen.records.guest_events and not seen.kernel:
        return _unreached("kernel", about, "neither agent nor console of the guest said anything")
    before = [line for line in seen.kernel if seen.crash is None or line.t < seen.crash]
    wrong = [f"at {at(line.t)}: {short(line.text)}" for line in before if COMPLAINT.search(line.text)]
    return _result("kernel", about, wrong, "no complaint of the kernel", {"lines": len(before)})


def _silence(seen: Seen) -> CheckResult:
    """A dead guest says nothing: no line that its console does not show, nothing from its user space."""
    about = "after the end of the panic nothing leaves the guest that its console does not show"
    over = seen.panic_over
    if over is None:
        return _unreached("silence", about, "the console shows no end of a panic")
    if not _from_guest(seen):
        return _unreached("silence", about, "the guest sent no UDP datagram")
    wrong = [*_voices(seen, over.t), *_words(seen)]
    return _result("silence", about, wrong, f"silent since the panic ended at {at(over.t)}", {})


def _voices(seen: Seen, over: float) -> list[str]:
    """Frames of our own stack: the guest's user space must be dead."""
    flows = {seen.flow(end.id): end.id for end in seen.plan.endpoints if end.at == "guest" and end.ours}
    late = [frame for frame in _from_guest(seen) if frame.t > over + SETTLE and frame.flow in flows]
    return [f"{flows[frame.flow]} still sends at {at(frame.t)}" for frame in late if frame.flow]


def _words(seen: Seen) -> list[str]:
    """Lines at the kernel's peers after the one that ends the panic."""
    shown = {line.text for line in seen.kernel}
    said = []
    for end in seen.plan.endpoints:
        if end.at != "guest" or end.stack != "kernel":
            continue
        arrivals = [arrival for arrival in seen.records.arrivals if arrival.endpoint == end.peer]
        lines = wire_lines(arrivals, end.extended, seen.stamped)
        last = next((number for number, line in enumerate(lines) if PANIC_END in line.text), len(lines))
        strange = [line for line in lines[last + 1 :] if line.text not in shown and stamp_of(line.text) is not None]
        said += [f"{end.id} said {short(line.text)} at {at(line.t)}" for line in strange]
    return said
