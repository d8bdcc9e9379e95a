"""What a dump is compared with by `netpoll-harness bench capture`, in the same capture kernel: bare streams, and makedumpfile into ssh.

    peer bare DEV COUNT       COUNT frames as long as a dump's, one send() each, nobody answers: what the wire can carry
    peer udp DEV OURS THEIRS  standard input in UDP datagrams, one sendto() each, nobody answers: what a dump costs at least
    peer ssh DEV OURS THEIRS KEY     standard input through `ssh root@THEIRS`, after DEV has got the address OURS; KEY: the private key, base64
    peer nfs DEV OURS THEIRS LEVEL   makedumpfile writes a file on THEIRS:/dump, mounted by NFS 4.2

In: words. Out: an exit status. Rule: nothing of our stack is used, so that the comparison is with what people have.
"""

from __future__ import annotations

import base64
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from guest.capture.memory import PROGRAM, VMCORE
from guest.capture.system import mount, umount

SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C  # linux/sockios.h
FRAME = 1514  # bytes
ETHERTYPE = 0x88B5  # IEEE 802, local experiment 1
DATAGRAM = 1472  # bytes: what an MTU of 1500 leaves
PORT = 6661
MOUNTED = Path("/tmp/mounted")
IDENTITY = Path("/tmp/identity")
SSH = (
    "/usr/bin/ssh",
    "-i",
    str(IDENTITY),
    "-oBatchMode=yes",
    "-oStrictHostKeyChecking=no",
    "-oUserKnownHostsFile=/dev/null",
)


def bare(dev: str, count: str) -> int:
    """The wire's own speed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((dev, 0))
        frame = (b"\xff" * 6 + bytes.fromhex(_mac(dev)) + ETHERTYPE.to_bytes(2)).ljust(FRAME, b"\x5a")
        for _ in range(int(count)):
            sock.send(frame)
    return 0


def udp(dev: str, ours: str, theirs: str) -> int:
    """The simplest program that gets a dump onto the wire. Says how many datagrams it sent."""
    address(dev, ours, "255.255.255.0")
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, open(0, "rb") as dump:
        while data := dump.read(DATAGRAM):
            sock.sendto(data, (theirs, PORT))
            sent += 1
    print(f"peer: {sent} datagrams", flush=True)
    return 0


def _mac(dev: str) -> str:
    return Path(f"/sys/class/net/{dev}/address").read_text().strip().replace(":", "")


def ssh(dev: str, ours: str, theirs: str, key: str) -> int:
    """Where kdump-tools has `makedumpfile -F | ssh`."""
    address(dev, ours, "255.255.255.0")
    IDENTITY.write_bytes(base64.b64decode(key))
    IDENTITY.chmod(0o600)
    return subprocess.run([*SSH, f"root@{theirs}", "dump"], check=False, env={**os.environ, "HOME": "/tmp"}).returncode


def nfs(dev: str, ours: str, theirs: str, level: str) -> int:
    """Where kdump-tools has an NFS mount. What the page cache holds leaves with umount(2)."""
    address(dev, ours, "255.255.255.0")
    MOUNTED.mkdir()
    mount("nfs4", f"{theirs}:/dump", MOUNTED, f"addr={theirs},clientaddr={ours},vers=4.2,proto=tcp,sec=sys")
    argv = [PROGRAM, "-l", "-d", level, "--message-level", "4", VMCORE, str(MOUNTED / "vmcore")]
    status = subprocess.run(argv, check=False).returncode
    umount(MOUNTED)
    return status


def address(dev: str, ip: str, mask: str) -> None:
    """ip addr add. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, value in ((SIOCSIFADDR, ip), (SIOCSIFNETMASK, mask)):
            fcntl.ioctl(
                sock, request, struct.pack("16sHH4s16x", dev.encode(), socket.AF_INET, 0, socket.inet_aton(value))
            )


PEERS: Mapping[str, Callable[..., int]] = {"bare": bare, "udp": udp, "ssh": ssh, "nfs": nfs}


def run(words: Sequence[str]) -> int:
    """`peer`, its name, what it takes. Raises KeyError for one that does not exist."""
    return PEERS[words[1]](*words[2:])
