"""How fast a NIC is, seen from inside the guest: `python3 -m guest.speed WHAT ...`, one JSON object on standard output.

In: what to measure and how often. Out: {"frames", "seconds"} or {"times", "seconds"}; the clock is the guest's. Rule: frames that are
counted have left the driver, or have reached a socket.
"""

from __future__ import annotations

import json
import mmap
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

PKTGEN = Path("/proc/net/pktgen")
GO, DONE = b"go", b"done"
PATIENCE = 10.0  # seconds without a frame until a receiver gives up


def pktgen(interface: str, size: str, count: str, mac: str, address: str) -> dict[str, float]:
    """Frames of `size` octets straight into the driver's hard_start_xmit (Documentation/networking/pktgen.rst)."""
    thread = PKTGEN / "kpktgend_0"
    thread.write_text("rem_device_all\n")
    thread.write_text(f"add_device {interface}\n")
    device = PKTGEN / interface
    for setting in (f"count {count}", f"pkt_size {size}", "delay 0", "clone_skb 0", f"dst {address}", f"dst_mac {mac}"):
        device.write_text(setting + "\n")
    (PKTGEN / "pgctrl").write_text("start\n")  # returns when all are sent
    said = device.read_text()
    found = re.search(r"Result: OK: (\d+)\(", said)
    if found is None:
        raise RuntimeError(f"pktgen: {said[-300:]}")
    return {"frames": int(count), "seconds": int(found[1]) / 1e6}


def sendto(address: str, port: str, size: str, count: str) -> dict[str, float]:
    """Datagrams from a plain socket that waits when the device's queue is full."""
    payload, peer = bytes(int(size)), (address, int(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        send = sock.sendto
        began = time.monotonic()
        for _ in range(int(count)):
            send(payload, peer)
        return {"frames": int(count), "seconds": time.monotonic() - began}


def receive(port: str, count: str, burst: str) -> dict[str, float]:
    """Datagrams that come in bursts; after each burst the sender is told to go on, so that nothing need be lost."""
    wanted, each = int(count), int(burst)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", int(port)))
        # the default holds 92 of tg3's buffers; what everybody is allowed, 184
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.settimeout(PATIENCE)
        _, peer = sock.recvfrom(64)
        sock.sendto(GO, peer)
        receive_one = sock.recvfrom
        began = time.monotonic()
        for number in range(1, wanted + 1):
            receive_one(2048)
            if number % each == 0:
                sock.sendto(GO if number < wanted else DONE, peer)
        return {"frames": wanted, "seconds": time.monotonic() - began}


def mmio(address: str, offset: str, count: str) -> dict[str, float]:
    """Reads of one 32-bit register of BAR 0 through sysfs."""
    with open(f"/sys/bus/pci/devices/{address}/resource0", "r+b", buffering=0) as file:
        page, within = divmod(int(offset, 0), mmap.PAGESIZE)
        window = mmap.mmap(file.fileno(), mmap.PAGESIZE, offset=page * mmap.PAGESIZE)
    registers, at = memoryview(window).cast("I"), within // 4
    began = time.monotonic()
    for _ in range(int(count)):
        registers[at]
    return {"times": int(count), "seconds": time.monotonic() - began}


def spin(count: str) -> dict[str, float]:
    """Arithmetic: what else goes on in the machine slows it down."""
    began, total = time.monotonic(), 0
    for number in range(int(count)):
        total += number
    return {"times": int(count), "seconds": time.monotonic() - began}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "pktgen": pktgen,
    "sendto": sendto,
    "receive": receive,
    "mmio": mmio,
    "spin": spin,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](*sys.argv[2:])))
