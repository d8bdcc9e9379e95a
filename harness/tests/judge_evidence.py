"""Synthetic cases for the judge's tests: a plan, and the events that a run of it would have written.

Two guest NICs n0 and n1 (a bond b0 of them where wanted), guest endpoint `g` and host endpoint `h`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from guest.numbered import numbered_line, size_of
from harness.judge.records import Event
from harness.plan.model import EndpointPlan, MachinePlan, NicPlan, Plan

MACS = {"n0": "52:54:00:6e:70:01", "n1": "52:54:00:6e:70:02"}
GUEST_IP, HOST_IP = "198.51.100.10", "198.51.100.100"
GUEST_PORT, HOST_PORT = 6665, 6666

PANIC = (
    "sysrq: Trigger a crash",
    "Kernel panic - not syncing: sysrq triggered crash",
    "CPU: 0 PID: 311 Comm: agent Not tainted 6.1.0-42-amd64 #1  Debian 6.1.159-1",
    "Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.3-debian-1.16.3-2 04/01/2014",
    "Call Trace:",
    " <TASK>",
    " dump_stack_lvl+0x44/0x5c",
    " panic+0x118/0x2ed",
    " </TASK>",
    "Kernel Offset: disabled",
    "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
)


def stamped(lines: Iterable[str], start: float = 20.0, step: float = 0.001) -> list[str]:
    """Console lines with printk time."""
    return [f"[{start + number * step:12.6f}] {line}" for number, line in enumerate(lines)]


PANIC_LINES = stamped(PANIC)


def plan(
    *expect: dict[str, Any],
    stack: str = "netpoll",
    bond: str | None = None,
    crash: bool = False,
    known_bug: dict[str, Any] | None = None,
    extended: bool = False,
    reverse: bool = False,
    cuts: Sequence[str] = (),
) -> Plan:
    """A plan with these expectations. `reverse`: the host's endpoint sends. `cuts`: states of n0's link, one step each."""
    device = "b0" if bond else "n0"
    guest: dict[str, Any] = {"nics": {"n0": {"model": "e1000"}, "n1": {"model": "virtio"}}}
    if bond:
        guest["bonds"] = {"b0": {"mode": bond, "slaves": ["n0", "n1"]}}
    steps: list[dict[str, Any]] = [{"send": {"from": "h" if reverse else "g", "count": 10}}]
    steps += [{"inject": {"link": "n0", "state": state}} for state in cuts]
    scenario = {
        "name": "judge/synthetic",
        "about": "a synthetic case for the judge",
        "guest": guest,
        "endpoints": {
            "g": {"at": "guest", "stack": stack, "device": device, "peer": "h", "extended": extended},
            "h": {"at": "host", "stack": "netpoll", "device": device, "peer": "g"},
        },
        "steps": [*steps, {"crash": {"how": "sysrq-c"}}] if crash else steps,
        "expect": list(expect),
    }
    nics = tuple(
        NicPlan(id=nic, model="e1000", device="e1000", driver="e1000", mac=mac, tap=f"tap-{nic}")
        for nic, mac in MACS.items()
    )
    return Plan.model_validate(
        {
            "case": "judge/synthetic",
            "source": "synthetic.yaml:1",
            "scenario": scenario,
            "machine": MachinePlan(kernel="debian-6.1", machine="pc", memory=256, smp=1, cmdline="").model_dump(),
            "nics": [nic.model_dump() for nic in nics],
            "endpoints": [
                _endpoint("g", stack, device, extended, bond),
                _endpoint("h", "netpoll", device, False, bond),
            ],
            "stages": [],
            "expect": list(expect),
            "known_bug": known_bug,
            "timeout": 60.0,
        },
        by_name=True,
        by_alias=True,
    )


def _endpoint(name: str, stack: str, device: str, extended: bool, bond: str | None) -> dict[str, Any]:
    guest, host = (GUEST_IP, GUEST_PORT, MACS["n0"]), (HOST_IP, HOST_PORT, "52:54:00:68:6f:01")
    local, remote = (guest, host) if name == "g" else (host, guest)
    behind = ("n0", "n1") if bond else ("n0",)
    return EndpointPlan(
        id=name,
        at="guest" if name == "g" else "host",
        stack="kernel" if stack == "kernel" else "netpoll",
        devices=(device,) if name == "g" else behind,
        peer="h" if name == "g" else "g",
        local_ip=local[0],
        local_port=local[1],
        local_mac=local[2],
        remote_ip=remote[0],
        remote_port=remote[1],
        remote_mac=remote[2],
        extended=extended,
        bond_mode=bond,
    ).model_dump()


def event(t: float, src: str, kind: str, **keys: Any) -> Event:
    return {"t": t, "src": src, "kind": kind, **keys}


def run(*events: Event | Iterable[Event], end: bool = True) -> list[Event]:
    """A whole run around these events."""
    flat = [each for item in events for each in ([item] if isinstance(item, dict) else item)]
    last = max((each["t"] for each in flat), default=0.0)
    start = event(0.0, "run", "start", case="judge/synthetic", wall="2026-01-01T00:00:00Z", versions={})
    alive = event(0.1, "guest", "nic", nic="n0", ifname="eth0", driver="e1000", seconds=0.3)
    return [start, alive, *flat, *([event(last + 1, "run", "end")] if end else [])]


def frame(t: float, nic: str = "n0", out: bool = True, **keys: Any) -> Event:
    """A frame of the flow between g and h."""
    guest, host = {"sip": GUEST_IP, "sport": GUEST_PORT}, {"dip": HOST_IP, "dport": HOST_PORT}
    back = {"sip": HOST_IP, "sport": HOST_PORT, "dip": GUEST_IP, "dport": GUEST_PORT}
    flow = {**guest, **host, "smac": MACS["n0"]} if out else {**back, "smac": "52:54:00:68:6f:01"}
    base = {"tap": f"tap-{nic}", "nic": nic, "dir": "out" if out else "in", "len": 100, "wall_ns": int(t * 1e9)}
    return event(t, "wire", "frame", **{**base, "ethertype": 0x0800, **flow, "csum": "ok", "ip_csum": "ok", **keys})


def send(count: int, label: str = "g", endpoint: str = "g", start: float = 1.0, step: float = 0.01) -> list[Event]:
    """A send of `count` datagrams by our stack, one range event each 10."""
    src = "guest" if endpoint == "g" else "host"
    events = [
        event(start, src, "sending", endpoint=endpoint, label=label, count=count, size=[16, 1400], seed=1),
    ]
    for first in range(0, count, 10):
        last = min(first + 9, count - 1)
        t = round(start + (last + 1) * step, 6)
        events.append(event(t, src, "sent", endpoint=endpoint, label=label, first=first, last=last))
    return [*events, event(start + count * step, src, "done", endpoint=endpoint, label=label, count=count)]


def rx(seqs: Sequence[int], endpoint: str = "h", start: float = 1.0, step: float = 0.01, **keys: Any) -> list[Event]:
    """Byte-exact arrivals, and their frames on the wire; message n arrives when it is sent."""
    src, found = ("host" if endpoint == "h" else "guest"), []
    for seq in seqs:
        t = round(start + (seq + 1) * step - 0.002, 6)
        found += [frame(t, out=endpoint == "h"), event(t, src, "rx", endpoint=endpoint, seq=seq, ok=True, **keys)]
    return found


def console(lines: Sequence[str], start: float = 10.0, step: float = 0.001) -> list[Event]:
    return [event(round(start + n * step, 6), "console", "line", text=text) for n, text in enumerate(lines)]


def datagrams(packets: Sequence[bytes | str], start: float = 10.0, step: float = 0.001) -> list[Event]:
    """netconsole packets at h, with their frames; a text gets its newline."""
    found: list[Event] = []
    for number, packet in enumerate(packets):
        t = round(start + number * step + 0.0005, 6)
        data = packet if isinstance(packet, bytes) else packet.encode() + b"\n"
        found += [frame(t), event(t, "host", "rx", endpoint="h", text=data.decode("latin-1"))]
    return found


def crashed(wire: Sequence[bytes | str], shown: Sequence[str] = PANIC_LINES) -> list[Event]:
    """A crash at 9.9 s: these lines on the console, those packets on the wire, and QEMU's event."""
    asked = event(9.9, "inject", "crash", how="sysrq-c")
    seen = event(10.5, "qmp", "event", name="GUEST_PANICKED", data={})
    return run(asked, console(shown), datagrams(wire), seen)


def numbered(count: int, label: str = "k", seed: int = 7, size: tuple[int, int] = (40, 200)) -> list[str]:
    """The numbered lines of a kernel endpoint's send, with printk time."""
    texts = [numbered_line(label, seq, seed, size_of(seed, seq, *size)) for seq in range(count)]
    return stamped(texts, start=5.0)


def kmsg(count: int, label: str = "k", seed: int = 7, size: tuple[int, int] = (40, 200), t: float = 2.0) -> list[Event]:
    """What the agent says of a send through /dev/kmsg."""
    keys = {"endpoint": "g", "label": label}
    return [
        event(t, "guest", "sending", **keys, count=count, size=list(size), seed=seed),
        event(t + count * 0.01, "guest", "kmsg", **keys, first=0, last=count - 1),
        event(t + count * 0.01, "guest", "done", **keys, count=count),
    ]


def link(t: float, nic: str, up: bool, seen: float | None = None) -> list[Event]:
    """set_link, and the guest's word of it `seen` seconds later (None: never)."""
    found = [event(t, "inject", "link", nic=nic, state="up" if up else "down")]
    return found + ([] if seen is None else [event(round(t + seen, 6), "guest", "carrier", nic=nic, up=up)])
