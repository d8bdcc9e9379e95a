"""Synthetic evidence of strange frames, echoes and keys, beside harness.tests.judge_evidence: `h` sends, `g` is to leave them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.judge.records import Event
from harness.tests.judge_evidence import GUEST_IP, MACS, event, frame

HOST_MAC = "52:54:00:68:6f:01"
LOOKS: dict[str, dict[str, Any]] = {
    "wrong-port": {"dport": 40000},
    "wrong-address": {"dip": "203.0.113.254"},
    "wrong-peer": {"sip": "203.0.113.254"},
    "bad-udp-checksum": {"csum": "bad"},
    "bad-ip-checksum": {"ip_csum": "bad"},
    "fragment": {"csum": None},
}


def arp_frame(t: float, out: bool = False) -> Event:
    """A request of the host's, or an answer of the guest's."""
    keys = {"tap": "tap-n0", "nic": "n0", "dir": "out" if out else "in", "len": 60, "wall_ns": int(t * 1e9)}
    return event(t, "wire", "frame", **keys, ethertype=0x0806, smac=MACS["n0"] if out else HOST_MAC)


def captured(what: str, count: int, t: float) -> list[Event]:
    """As many frames of a kind on their way to the guest."""
    if what == "arp-request":
        return [arp_frame(t) for _ in range(count)]
    return [frame(t, out=False, **LOOKS[what]) for _ in range(count)]


def told(what: str, count: int, t: float = 0.5) -> Event:
    return event(t, "host", "frames", endpoint="h", label=what, what=what, count=count)


def passed(what: str, seqs: Sequence[int], t: float = 0.5, **keys: Any) -> list[Event]:
    keys = {"endpoint": "g", "label": what, "ok": True, "why": "ok", **keys}
    return [event(t, "guest", "passed", **keys, seq=seq) for seq in seqs]


def strange(what: str, count: int = 5, t: float = 0.5) -> list[Event]:
    """Sent, captured, and passed on once each."""
    return [*captured(what, count, t), told(what, count, t), *passed(what, range(count), t)]


def answers(count: int, t: float = 0.5, **keys: Any) -> list[Event]:
    """ARP answers on the wire, and as the host heard them."""
    keys = {"endpoint": "h", "ip": GUEST_IP, "mac": MACS["n0"], "to": HOST_MAC, **keys}
    return [each for _ in range(count) for each in (arp_frame(t, out=True), event(t, "host", "arp", **keys))]


def counters(t: float = 9.0, endpoint: str = "g", **values: int) -> Event:
    return event(t, "guest" if endpoint == "g" else "host", "counters", endpoint=endpoint, values=values)


def echoes(seqs: Sequence[int], start: float = 1.0, step: float = 0.01, **keys: Any) -> list[Event]:
    """What the hook of `g` says of sending message n of `h` back."""
    keys = {"endpoint": "g", "label": "h", "sent": True, "inside": True, **keys}
    return [event(round(start + (seq + 1) * step - 0.001, 6), "guest", "echo", **keys, seq=seq) for seq in seqs]


def keys(letters: str, t: float, forge: str | None = None) -> list[Event]:
    """A datagram of keys from `h`, with its frame on the way to the guest."""
    looks: dict[str | None, dict[str, Any]] = {
        None: {},
        "ip": {"sip": "203.0.113.254"},
        "port": {"sport": 40000},
        "mac": {"smac": "52:54:00:73:74:01"},
    }
    return [
        frame(t, out=False, **looks[forge]),
        event(t, "host", "keys", endpoint="h", keys=letters, forge=forge),
    ]
