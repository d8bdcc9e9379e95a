"""The kernel's side of a namespace: links, addresses, UDP sockets, with the stack under test on the other.

In: a fresh network namespace that we are in. Out: KernelEnd. `ours` is a veth without address, for our
stack; `theirs` is its peer, with the kernel's addresses. The rule it keeps: it asserts that it is not in
the host's namespace before it touches anything.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from array import array
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

OURS, THEIRS = "ours", "theirs"
OUR_MAC, KERNEL_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
OUR_IP, KERNEL_IP = "10.9.0.2", "10.9.0.1"
OUR_SIX, KERNEL_SIX = "fd00::2", "fd00::1"


class KernelEnd:
    """Verbs for the tests; a context manager."""

    def __init__(self) -> None:
        self.ip: Any = IPRoute()  # pyroute2 has no types
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> KernelEnd:
        links = {link.get("ifname") for link in self.ip.get_links()}
        assert "lo" in links, links
        assert not any(name.startswith(("eth", "en", "wl")) for name in links), f"the host's own network? {links}"
        self.up("lo")
        for name in ("all", "default"):
            # no router solicitations or DAD between the frames that a test looks at
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        self.ip.link("add", ifname=OURS, kind="veth", peer=THEIRS)
        for name, mac in ((OURS, OUR_MAC), (THEIRS, KERNEL_MAC)):
            self.ip.link("set", index=self.index(name), address=mac)
            self.up(name)
        self.ip.addr("add", index=self.index(THEIRS), address=KERNEL_IP, prefixlen=24)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.sockets:
            sock.close()
        self.ip.close()

    def index(self, name: str) -> int:
        """Interface index by name."""
        return socket.if_nametoindex(name)

    def up(self, name: str) -> None:
        """ip link set NAME up"""
        self.ip.link("set", index=self.index(name), state="up")

    def down(self, name: str) -> None:
        """ip link set NAME down"""
        self.ip.link("set", index=self.index(name), state="down")

    def mtu(self, name: str, mtu: int) -> None:
        """ip link set NAME mtu MTU"""
        self.ip.link("set", index=self.index(name), mtu=mtu)

    def delete(self, name: str) -> None:
        """ip link del NAME"""
        self.ip.link("del", index=self.index(name))

    def neighbour(self, address: str, mac: str = OUR_MAC) -> None:
        """A permanent neighbour, so that the kernel need not ask for it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        permanent = 0x80
        index = self.index(THEIRS)
        self.ip.neigh("replace", family=family, dst=address, lladdr=mac, ifindex=index, state=permanent)

    def compute_checksums(self, name: str) -> None:
        """ethtool -K NAME tx off: frames leave with whole checksums, as on a wire; between veths they are left out."""
        value = array("I", [0x17, 0])  # ETHTOOL_STXCSUM
        request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8946, request)  # SIOCETHTOOL

    def enable_ipv6(self) -> None:
        """Give the kernel's end its IPv6 address."""
        Path(f"/proc/sys/net/ipv6/conf/{THEIRS}/accept_dad").write_text("0")
        Path(f"/proc/sys/net/ipv6/conf/{THEIRS}/disable_ipv6").write_text("0")
        no_dad, index = 0x02, self.index(THEIRS)
        with IPRoute() as news:
            news.bind()
            self.ip.addr("add", index=index, address=KERNEL_SIX, prefixlen=64, family=socket.AF_INET6, flags=no_dad)
            self._until_routed(news, KERNEL_SIX)

    def _until_routed(self, news: Any, address: str) -> None:
        """The address is told of before its host route is there, and only then are datagrams for it delivered."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for message in news.get():
                if (
                    message["event"] == "RTM_NEWROUTE"
                    and message.get("dst_len") == 128
                    and message.get("dst") == address
                ):
                    return
        raise TimeoutError(f"the kernel made no route to its own {address} within 5 s")

    def udp(self, port: int, address: str = KERNEL_IP) -> socket.socket:
        """The kernel's UDP socket, bound; receiving waits at most five seconds."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.sockets.append(sock)
        sock.settimeout(5)
        sock.bind((address, port))
        return sock

    def raw(self, name: str) -> socket.socket:
        """A packet socket on an interface: another host's frames, or a look at ours."""
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sockets.append(sock)
        sock.settimeout(5)
        sock.bind((name, 3))
        return sock

    def throttle(self, name: str, rate: int, burst: int) -> bool:
        """A token bucket of `rate` octets a second before the driver; False if this kernel has none."""
        try:
            self.ip.tc("add", "tbf", self.index(name), 0x10000, rate=rate, burst=burst, limit=10**7, parent=0xFFFFFFFF)
        except Exception:  # whatever pyroute2 makes of "unknown qdisc"
            return False
        return True

    def unthrottle(self, name: str) -> None:
        """Remove the bucket; what waits in it is dropped by the kernel."""
        self.ip.tc("del", "tbf", self.index(name), 0x10000)
