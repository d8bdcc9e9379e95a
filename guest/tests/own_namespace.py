"""A network namespace for one test: loopback up, and a veth pair between our stack and the kernel's.

In: nothing but util-linux. Out: `Namespace`, which runs commands inside. The rule it keeps: the namespace lives as long as
one process that waits on a pipe from us, so that it is gone when the test is, however that ends.

`ours` is for our stack: up, without an address. `theirs` is the kernel's end: up, with KERNEL_IP. Unless it is told not to,
the kernel knows OUR_MAC: while it asks by ARP it keeps only a few datagrams waiting. Needs root, or a system that allows user namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OUR_IP, KERNEL_IP = "10.9.0.2", "10.9.0.1"
OUR_MAC, KERNEL_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"

_HOLDER = f"""
import sys
from pyroute2 import IPRoute
with IPRoute() as ip:
    ip.link("set", index=1, state="up")
    ip.link("add", ifname="ours", kind="veth", peer="theirs")
    for name, mac in (("ours", "{OUR_MAC}"), ("theirs", "{KERNEL_MAC}")):
        index = ip.link_lookup(ifname=name)[0]
        open(f"/proc/sys/net/ipv6/conf/{{name}}/disable_ipv6", "w").write("1")
        ip.link("set", index=index, address=mac)
        ip.link("set", index=index, state="up")
    index = ip.link_lookup(ifname="theirs")[0]
    ip.addr("add", index=index, address="{KERNEL_IP}", prefixlen=24)
    if sys.argv[1:] == ["neighbour"]:
        ip.neigh("add", ifindex=index, dst="{OUR_IP}", lladdr="{OUR_MAC}", state=0x80)  # NUD_PERMANENT
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Namespace:
    """Commands run inside through nsenter."""

    enter: tuple[str, ...]

    def popen(self, argv: Sequence[str], **keywords: Any) -> subprocess.Popen[bytes]:  # as Popen has them
        """Start `argv` inside, from the repository's root."""
        return subprocess.Popen([*self.enter, *argv], cwd=ROOT, **keywords)

    def run(
        self, argv: Sequence[str], *, timeout: float = 30, **keywords: Any
    ) -> subprocess.CompletedProcess[bytes]:  # as run has them
        """Run `argv` inside to its end, with its output captured."""
        return subprocess.run(
            [*self.enter, *argv], cwd=ROOT, timeout=timeout, capture_output=True, check=False, **keywords
        )


@contextmanager
def own_namespace(*, neighbour: bool = True) -> Iterator[Namespace]:
    """The namespace, or a skip that says why this system gives none."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--net", *user, sys.executable, "-c", _HOLDER, "neighbour" if neighbour else "stranger"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stderr
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"no network namespace here: {holder.stderr.read().strip()[-300:]}")
            enter = ["nsenter", "--target", str(holder.pid), "--net"]
            yield Namespace(tuple(enter + (["--user", "--preserve-credentials"] if user else [])))
        finally:
            holder.stdin.close()
