"""What happens to a NIC around a poll-mode driver, played inside a guest: its source runs there, with the name of a scene.

In: a scene's name. Out: one JSON object on standard output. Rule: nothing is judged here but what cannot be told in numbers and words;
harness.tests.test_pmd_guest does that.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guest.bond_steps import steps
from guest.netpoll import Netpoll, netpoll_poll, netpoll_send_udp, netpoll_setup
from guest.netpoll.bonding import Bond
from guest.netpoll.bonding.params import parse_options
from guest.netpoll.drivers.pmd import claim, hugepages, uio
from guest.netpoll.drivers.pmd.bus import BusError
from guest.netpoll.drivers.pmd.device import PollModeDevice
from guest.netpoll.drivers.pmd.e1000 import E1000
from guest.netpoll.drivers.pmd.probe import probe, probe_interface
from guest.netpoll.loop import Loop
from guest.netpoll.netdevice import Net, dev_close, dev_open, register_netdev

HERE, THERE = ipaddress.ip_address("198.51.100.10"), ipaddress.ip_address("198.51.100.100")
PATIENCE = 20.0  # seconds
IMS = 0xD0


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def address() -> str:
    """Of the e1000: the interface may be gone."""
    return next(
        path.name for path in (claim.PCI / "devices").iterdir() if (path / "device").read_text().strip() == "0x100e"
    )


def state() -> dict[str, Any]:
    """What must be as it was."""
    where = address()
    return {
        "driver": claim.driver_of(where),
        "interfaces": claim.interfaces(where),
        "override": (claim.PCI / "devices" / where / "driver_override").read_text().strip(),
        "hugepages": int((hugepages.POOL / "nr_hugepages").read_text()),
        "on file": len(claim.taken()),
    }


def refused(what: Callable[[], object]) -> dict[str, Any]:
    """The error that `what` must raise, and the state afterwards."""
    try:
        what()
    except BusError as error:
        return {"errno": error.errno, "said": error.strerror, "after": state()}
    raise AssertionError("nothing was refused")


@contextmanager
def taker(*, opened: bool = True) -> Iterator[int]:
    """A process that has the NIC, when the body begins; its pid. The body ends it, or it ends by itself at its standard input's end."""
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(down[1])
        dev = probe(Net(), "pmd0", address())
        if opened:
            register_netdev(dev)
            dev_open(dev)
        os.write(up[1], b"!")
        os.read(down[0], 1)
        sys.exit(0)  # and not a word to the device: atexit
    os.close(down[0])
    os.close(up[1])
    assert os.read(up[0], 1) == b"!", "the taker did not take it"
    yield pid
    os.close(down[1])
    os.close(up[0])
    os.waitpid(pid, 0)


def lives() -> dict[str, Any]:
    """A NIC is taken and comes back, whatever ends its taker."""
    run("ip", "link", "set", "eth0", "up")
    found: dict[str, Any] = {"in use": refused(lambda: probe(Net(), "pmd0", address()))}
    run("ip", "link", "set", "eth0", "down")
    found["before"] = state()
    with taker() as pid:
        found["taken"] = state()
        found["busy"] = refused(lambda: uio.take(address()))
        os.kill(pid, signal.SIGTERM)
    found["SIGTERM"] = state()
    with taker():
        pass
    found["exit"] = state()
    return found | killed()


def command() -> int:
    config = (claim.PCI / "devices" / address() / "config").read_bytes()
    return int.from_bytes(config[claim.COMMAND : claim.COMMAND + 2], "little")


def refusals() -> dict[str, Any]:
    """What cannot be, each told and undone."""
    run("ip", "link", "set", "eth0", "down")
    found: dict[str, Any] = {"before": state()}
    found["no such device"] = refused(lambda: uio.take("0000:7f:1f.7"))
    found["no driver"] = refused(lambda: probe(Net(), "pmd0", "0000:00:00.0"))
    other = claim.pci_address("eth1")
    run("ip", "link", "set", "eth1", "down")

    def wrong_chip() -> None:
        bus = uio.take(other)
        try:
            E1000(Net(), "pmd0", bus)
        finally:
            bus.close()

    found["unexpected id"] = refused(wrong_chip)
    found["other's driver"] = claim.driver_of(other)
    bus = uio.take(address())
    found["BAR too small"] = refused(lambda: bus.bar(0, 1 << 20))
    found["BAR in ports"] = refused(lambda: bus.bar(1, 16))
    found["no BAR"] = refused(lambda: bus.bar(3, 16))
    bus.set_dma_mask(20)
    found["out of reach"] = refused(lambda: bus.dma_alloc(4096))
    bus.set_dma_mask(32)
    found["too much"] = refused(lambda: bus.dma_alloc(4 << 20))
    bus.close()
    found["closed"] = state()
    _no_hugepages()
    found["no hugepages"] = refused(lambda: probe(Net(), "pmd0", address()))
    return found


def _no_hugepages() -> None:
    """This process may reserve none: cgroup-v2.rst, hugetlb.<hugepagesize>.rsvd.max."""
    root = Path("/tmp/cgroup")
    root.mkdir()
    run("busybox", "mount", "-t", "cgroup2", "none", str(root))
    (root / "cgroup.subtree_control").write_text("+hugetlb")
    (root / "none").mkdir()
    (root / "none/hugetlb.2MB.rsvd.max").write_text("0")
    (root / "none/cgroup.procs").write_text(str(os.getpid()))


def crashed() -> dict[str, Any]:
    """After Context.crash(): the ring is cleaned by polling, and a link that is cut now is seen by polling; no interrupt is let through."""
    run("ip", "link", "set", "eth0", "down")
    net = Net()
    dev: PollModeDevice = probe(net, "pmd0", address())
    register_netdev(dev)
    dev_open(dev)
    sender = Netpoll(net, dev_name="pmd0", local_ip=HERE, remote_ip=THERE, rx_hook=lambda *_: None)
    netpoll_setup(sender)
    assert isinstance(dev, E1000)
    found: dict[str, Any] = {"interrupts before": dev.regs.read32(IMS)}
    net.context.crash()
    rings = 3
    sent = sum(netpoll_send_udp(sender, b"last words %d" % number) == 0 for number in range(rings * dev.tx.count))
    found |= {
        "sent": sent,
        "wanted": rings * dev.tx.count,
        "polled": sender.stats.polled,
        "stopped": dev.stats["tx_stopped"],
    }
    found["interrupts"] = dev.regs.read32(IMS)
    Path("/tmp/crashed").write_text("now cut the link")
    deadline = time.monotonic() + PATIENCE
    while dev.carrier and time.monotonic() < deadline:
        netpoll_poll(sender)
    found |= {"carrier": dev.carrier, "queue stopped": dev.xoff, "interrupts after": dev.regs.read32(IMS)}
    dev.release()
    return found


def translated() -> dict[str, Any]:
    """Behind an IOMMU: UIO is refused, VFIO is taken; frames go out and come in, by addresses that are no physical ones."""
    run("ip", "link", "set", "eth0", "down")
    found: dict[str, Any] = {"before": state(), "uio": refused(lambda: uio.UioDevice(address()))}
    net = Net()
    dev = probe(net, "pmd0", address())
    found["taken"] = state()
    dev.bus.set_dma_mask(20)
    found["out of reach"] = refused(lambda: dev.bus.dma_alloc(4096))
    got: list[bytes] = []
    with Loop(net) as loop:
        register_netdev(dev)
        client = Netpoll(
            net, dev_name="pmd0", local_ip=HERE, remote_ip=THERE, rx_hook=lambda _np, _port, data: got.append(data)
        )
        netpoll_setup(client, require_carrier=True)
        wanted = [b"%d through the IOMMU" % number for number in range(300)]
        for number, message in enumerate(wanted):
            netpoll_send_udp(client, message)
            loop.run_until(lambda number=number: len(got) > number, PATIENCE, f"the echo of {message!r}")  # type: ignore[misc]
        dev_close(dev)
    dev.release()
    found |= {"echoed": got == wanted, "closed": state()}
    return found | killed()


def killed() -> dict[str, Any]:
    """By SIGKILL, with the device in mid-flight: what the kernel has done of itself, and who does the rest."""
    found: dict[str, Any] = {}
    with taker() as pid:
        os.kill(pid, signal.SIGKILL)
    found["SIGKILL"] = state() | {"master": bool(command() & claim.COMMAND_MASTER)}
    dev = probe(Net(), "pmd0", address())
    found["next taker"] = state()
    dev.release()
    del dev
    found["given back"] = state()
    with taker() as pid:
        os.kill(pid, signal.SIGKILL)
    found["list"] = run(sys.executable, "-S", "-P", "-m", "guest.netpoll", "pmd", "list")
    found["release"] = run(sys.executable, "-S", "-P", "-m", "guest.netpoll", "pmd", "release")
    found["released"] = state()
    return found


def after() -> dict[str, Any]:
    """The kernel has its NIC back: its netconsole speaks over it."""
    run("ip", "link", "set", "eth0", "up")
    deadline = time.monotonic() + PATIENCE
    while Path("/sys/class/net/eth0/carrier").read_text().strip() != "1":
        assert time.monotonic() < deadline, f"carrier: not within {PATIENCE} s"
        time.sleep(0.05)
    target = Path("/sys/kernel/config/netconsole/again")
    target.mkdir()
    for name, value in {"dev_name": "eth0", "local_ip": str(HERE), "remote_ip": str(THERE), "enabled": "1"}.items():
        (target / name).write_text(value)
    Path("/dev/kmsg").write_text("<4>the kernel has it back\n")
    return state()


def linux_bond(mode: str, slaves: list[str]) -> None:
    """By sysfs, as our agent does; with an address, and a neighbour that it need not ask for."""
    Path("/sys/class/net/bonding_masters").write_text("+bond0")
    knobs = Path("/sys/class/net/bond0/bonding")
    for step in steps("bond0", mode, slaves, 100, {"lacp_rate": "fast"} if mode == "802.3ad" else {}):
        if step.knob:
            (knobs / step.knob).write_text(step.value)
        else:
            run("ip", "link", "set", step.value, "up" if step.up else "down")
    run("ip", "addr", "add", f"{THERE}/24", "dev", "bond0")


def echoes() -> None:
    """What comes to Linux' UDP goes back."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((str(THERE), 6666))

    def serve() -> None:
        while True:
            data, peer = sock.recvfrom(2048)
            sock.sendto(data, peer)

    threading.Thread(target=serve, daemon=True).start()


def bonded(ours: str, theirs: str) -> dict[str, Any]:
    """A bond of ours over eth0 and eth1, which our drivers drive; at the other ends of their cables Linux' bond over eth2 and eth3."""
    for name in ("eth0", "eth1"):
        run("ip", "link", "set", name, "down")
    linux_bond(theirs, ["eth2", "eth3"])
    echoes()
    net = Net()
    bond = Bond(net, "ours", parse_options({"mode": ours, **({"lacp_rate": "fast"} if ours == "802.3ad" else {})}))
    register_netdev(bond)
    with Loop(net) as loop:
        slaves = [probe_interface(net, name) for name in ("eth0", "eth1")]
        for slave in slaves:
            register_netdev(slave)
            bond.enslave(slave)
        got: list[bytes] = []
        mac = bytes.fromhex(Path("/sys/class/net/bond0/address").read_text().strip().replace(":", ""))
        client = Netpoll(net, dev_name="ours", local_ip=HERE, remote_ip=THERE, remote_mac=mac,
                         rx_hook=lambda _np, _port, data: got.append(data))  # fmt: skip
        netpoll_setup(client, require_carrier=True)
        run("ip", "neigh", "replace", str(HERE), "lladdr", bond.dev_addr.hex(":"), "dev", "bond0")
        _settled(loop, client, got, ours)
        before = [slave.tx.next_to_use for slave in slaves]
        wanted = [b"%d of %s" % (number, ours.encode()) for number in range(200)]
        for number, message in enumerate(wanted):
            netpoll_send_udp(client, message)
            loop.run_until(lambda number=number: len(got) > number, PATIENCE, f"the echo of {message!r}")  # type: ignore[misc]
        sent = [slave.tx.next_to_use - first for slave, first in zip(slaves, before, strict=True)]
        seen = Path("/proc/net/bonding/bond0").read_text()
        for slave in slaves:
            slave.release()
    return {
        "echoed": got == wanted,
        "twice": len(got) - len(set(got)),
        "sent": sent,
        "linux": seen,
        "mac": bond.dev_addr.hex(":"),
    }


def _settled(loop: Loop, client: Netpoll, got: list[bytes], mode: str) -> None:
    """Both bonds have found each other: an echo comes, and in 802.3ad Linux has both ports in one aggregator."""
    deadline = time.monotonic() + PATIENCE

    def joined() -> bool:
        return mode != "802.3ad" or Path("/proc/net/bonding/bond0").read_text().count("port state: 63\n") == 4

    while not (got and joined()):
        assert time.monotonic() < deadline, (
            f"no echo within {PATIENCE} s: {Path('/proc/net/bonding/bond0').read_text()}"
        )
        netpoll_send_udp(client, b"settled?")
        loop.run_for(0.2)
    loop.run_for(0.5)  # what is still on its way
    got.clear()


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])), flush=True)
