"""Traffic that has nothing to do with a case's messages, towards one NIC, from now until the case ends.

In: a tap, a kind, a rate, a seed, the addresses of the flow that it bothers. Out: frames on the tap, and how many there were. Rule: one
thread, seeded, as even as a busy host allows; it ends when it is told to, and its frames are the capture's to count.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from guest.netpoll.frame import Endpoints, make_frame
from guest.netpoll.wire import arp, ethernet

SIOCSIFMTU, JUMBO_MTU = 0x8922, 9000  # linux/sockios.h; of the tap, which the guest's NIC does not hear of
BURST = 0.01  # seconds: as often as frames are sent
PAD = 60  # bytes: the shortest frame on a real Ethernet, without its FCS
DIRT = 200  # bytes of which a malformed frame has at most so many


@dataclass(frozen=True)
class Target:
    """The flow that is bothered: `ends` as the host would send on it, back to where the guest's messages come from."""

    tap: str
    ends: Endpoints

    @classmethod
    def of(cls, plan: Mapping[str, str | int]) -> Target:
        """As the plan gives it. Raises ValueError."""
        local_mac, remote_mac = (bytes.fromhex(str(plan[key]).replace(":", "")) for key in ("local_mac", "remote_mac"))
        local_ip, remote_ip = (IPv4Address(str(plan[key])) for key in ("local_ip", "remote_ip"))
        ports = int(plan["local_port"]), int(plan["remote_port"])
        return cls(str(plan["tap"]), Endpoints(local_mac, remote_mac, local_ip, remote_ip, *ports))


Maker = Callable[[Target, random.Random], bytes]


def _arp_storm(_target: Target, rng: random.Random) -> bytes:
    """Somebody asks everybody for somebody: no two questions are the same."""
    who, whom = rng.randbytes(4), rng.randbytes(4)
    mac = b"\x52\x54" + rng.randbytes(4)
    frame = bytearray(42)
    at = ethernet.emit(ethernet.Header(ethernet.BROADCAST, mac, ethernet.ETH_P_ARP), frame)
    arp.emit(arp.Packet(arp.ARPOP_REQUEST, mac, who, bytes(6), whom), frame, at)
    return bytes(frame).ljust(PAD, b"\0")


def _jumbo(target: Target, rng: random.Random) -> bytes:
    """More than the NIC's MTU, in one frame."""
    return make_frame(target.ends).build(rng.randbytes(rng.randrange(1600, 8900)))


def _netconsole_port(target: Target, rng: random.Random) -> bytes:
    """Right in everything, to the port from which netconsole sends, where nobody listens."""
    return make_frame(target.ends).build(rng.randbytes(rng.randrange(1, 1400)))


def _malformed(target: Target, rng: random.Random) -> bytes:
    """A frame of the flow of which some bytes are others, cut off anywhere; or a header with noise behind it."""
    frame = bytearray(make_frame(target.ends).build(rng.randbytes(rng.randrange(DIRT))))
    for _ in range(rng.randrange(1, 8)):
        frame[rng.randrange(12, len(frame))] = rng.randrange(256)
    return bytes(frame[: rng.randrange(ethernet.HEADER_LEN, len(frame) + 1)])


KINDS: Mapping[str, Maker] = {
    "arp-storm": _arp_storm,
    "jumbo": _jumbo,
    "malformed": _malformed,
    "netconsole-port": _netconsole_port,
}


class Flood:
    """Frames on a tap until `stop`. Raises OSError, and KeyError for an unknown kind."""

    def __init__(self, target: Target, kind: str, rate: int, seed: int) -> None:
        self.sent = 0
        self._target, self._make, self._rate = target, KINDS[kind], rate
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        if kind == "jumbo":
            fcntl.ioctl(self._socket, SIOCSIFMTU, struct.pack("16si12x", target.tap.encode(), JUMBO_MTU))
        self._socket.bind((target.tap, 0))
        self._thread = threading.Thread(target=self._run, name=f"flood {target.tap}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """What a late wake-up left out is made up for, so that the rate is kept on average."""
        began = time.monotonic()
        while not self._over.wait(BURST):
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due and not self._over.is_set():
                with contextlib.suppress(BlockingIOError, InterruptedError):
                    self._socket.send(self._make(self._target, self._rng))
                self.sent += 1

    def stop(self) -> int:
        """End it; returns how many frames it was. A second call does nothing more."""
        self._over.set()
        self._thread.join()
        self._socket.close()
        return self.sent
