"""One capture for a whole case, as Wireshark likes it: an interface for each tap, frames in the order of time, names and comments.

In: a case's folder with the captures of its taps, plan and events. Out: case.pcapng in their place. Rule: every frame of the taps is in it
once, byte for byte; a tap's own capture goes only when the whole is on disk, and stays where a killed run left it damaged.

What was injected stands as a comment at the next frame of each tap, or at the last one where none followed.
"""

from __future__ import annotations

import heapq
import ipaddress
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from guest.netpoll.middleware.pcapng import Packet, Writer
from guest.netpoll.middleware.pcapng_read import PcapngError, read
from harness.judge.records import Event
from harness.plan.model import NicPlan, Plan, Wires
from harness.report.injections import Injection, injections

CAPTURE = "case.pcapng"
_WHERE: Mapping[Wires, str] = {"tap": "", "dgram": "; captured in the harness's relay, stamped when sent"}


def merge(folder: Path, plan: Plan, events: Sequence[Event]) -> Path | None:
    """Make case.pcapng of the taps' captures; None where there are none, or one of them is damaged. Raises OSError."""
    taps = [nic for nic in plan.nics if (folder / f"{nic.tap}.pcapng").is_file()]
    try:
        captured = {nic.tap: list(read((folder / f"{nic.tap}.pcapng").read_bytes())) for nic in taps}
    except PcapngError:
        return None
    if not taps:
        return None
    part = folder / f".{CAPTURE}"
    _write(part, plan, taps, captured, events)
    part.replace(folder / CAPTURE)
    for tap in captured:
        (folder / f"{tap}.pcapng").unlink()
    return folder / CAPTURE


def _write(
    path: Path, plan: Plan, taps: Sequence[NicPlan], captured: Mapping[str, Sequence[Packet]], events: Sequence[Event]
) -> None:
    said = {tap: comments(packets, _wall(events)) for tap, packets in captured.items()}
    with Writer.create(path, application="netpoll-harness", system=plan.machine.kernel) as writer:
        numbers = {
            nic.tap: writer.add_interface(
                nic.tap,
                description=f"NIC {nic.id}, {nic.model}{_WHERE[plan.wires]}",
                mac=bytes.fromhex(nic.mac.replace(":", "")),
            )
            for nic in taps
        }
        writer.add_names(_names(plan))
        for packet, tap, place in _by_time(captured):
            comment = "; ".join(said[tap].get(place, ()))
            writer.packet(numbers[tap], packet.timestamp, packet.data, direction=packet.direction, comment=comment)


def _by_time(captured: Mapping[str, Sequence[Packet]]) -> list[tuple[Packet, str, int]]:
    """All packets with their tap and their place in its capture."""
    streams = [
        [(packet.timestamp, number, place, packet, tap) for place, packet in enumerate(packets)]
        for number, (tap, packets) in enumerate(captured.items())
    ]
    return [(packet, tap, place) for _, _, place, packet, tap in heapq.merge(*map(sorted, streams))]


def comments(packets: Sequence[Packet], done: Sequence[tuple[int, Injection]]) -> dict[int, list[str]]:
    """What to say at which packet of one tap. `done`: injections with their time in ns of the wall clock."""
    found: dict[int, list[str]] = defaultdict(list)
    times = [packet.timestamp for packet in packets]
    for wall, injection in done if packets else ():
        place = bisect_left(times, wall)
        word = "before" if place < len(times) else "after"
        found[min(place, len(times) - 1)].append(
            f"{word} this frame, at {injection.t:.6f} s of the case: {injection.text}"
        )
    return found


def _wall(events: Sequence[Event]) -> list[tuple[int, Injection]]:
    """Injections on the clock of the captures, which any captured frame relates to the case's clock."""
    frame = next((event for event in events if (event["src"], event["kind"]) == ("wire", "frame")), None)
    if frame is None:
        return []
    zero = frame["wall_ns"] - round(frame["t"] * 1e9)
    return [(zero + round(each.t * 1e9), each) for each in injections(events)]


def _names(plan: Plan) -> dict[bytes, str]:
    """Endpoints by address; those that share one share the name."""
    found: dict[bytes, list[str]] = defaultdict(list)
    for endpoint in plan.endpoints:
        found[ipaddress.ip_address(endpoint.local_ip).packed].append(endpoint.id)
    return {address: "-".join(names) for address, names in found.items()}
