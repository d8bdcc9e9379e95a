"""Events of a running case as lines for the terminal: what passes on the wires, what the console says, what changes.

In: one event of the catalogue in harness.observe.events. Out: a line, or nothing for what nobody watches for. Rule: text that comes
from the guest is cleaned of what a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.observe.events import Event
from harness.report.page import clean

ETHERTYPES: Mapping[int, str] = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8809: "LACP"}


def line_of(event: Event) -> str | None:
    """None for events that are not shown."""
    teller = TELLERS.get((event["src"], event["kind"]))
    if teller is None:
        return None
    first, *more = (clean(line) for line in teller(event).split("\n"))
    return "\n".join([f"{event['t']:9.3f} {first}", *(f"{'':9} {line}" for line in more)])


def _frame(event: Event) -> str:
    way = f"{event['nic']} {event['dir']:3}"
    if "sport" not in event:
        kind = event.get("malformed") or ETHERTYPES.get(event.get("ethertype", 0), f"{event.get('ethertype', 0):#06x}")
        return f"{way} {kind}, {event['len']} bytes, {event.get('smac', '?')} > {event.get('dmac', '?')}"
    bad = "".join(f", {key} {event[key]}" for key in ("csum", "ip_csum") if event.get(key) == "bad")
    flow = f"{event['sip']}:{event['sport']} > {event['dip']}:{event['dport']}"
    return f"{way} UDP {flow}, {event['udp_len'] - 8} bytes{bad}"


def _carrier(event: Event) -> str:
    return f"{event['nic']} carrier {'up' if event['up'] else 'down'}"


def _waited(event: Event) -> str:
    state = f" {event['state']}" if event.get("state") else ""
    return f"waited {event['seconds']:.2f} s for {event['what']} {event['of']}{state}"


def _in_vain(event: Event) -> str:
    return f"waited {event['within']:g} s in vain for {event['what']} {event['of']}: {event['seen']}"


TELLERS: Mapping[tuple[str, str], Callable[[Event], str]] = {
    ("wire", "frame"): _frame,
    ("console", "line"): lambda event: f"console {event['text']}",
    ("qmp", "event"): lambda event: f"QEMU says {event['name']}",
    ("guest", "carrier"): _carrier,
    ("guest", "bond"): lambda event: f"{event['bond']} active slave {event['active']}",
    ("guest", "run"): lambda event: (
        f"ran {' '.join(event['argv'])}: status {event['rc']}\n{event['out']}{event['err']}".strip()
    ),
    ("guest", "dropped"): lambda event: f"{event['endpoint']} dropped {event['label']} {event['seq']}: {event['why']}",
    ("await", "reached"): _waited,
    ("await", "timeout"): _in_vain,
    ("run", "error"): lambda event: f"error: {event['what']}",
}
