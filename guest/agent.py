"""The guest's end of the control channel: does what the harness asks, tells what it sees.

In: requests, one JSON object a line, `{"id": 7, "op": "nic_up", "args": {...}}`, on the virtio-serial port `org.netpoll.agent`.
Out: `{"id": 7, "result": ...}` or `{"id": 7, "error": "..."}`, and batches of events `{"events": [[kind, monotonic, {...}], ...]}`;
the kinds are those of the evidence catalogue. Rule: an operation is one function named `op_NAME`; it raises what went wrong in words,
and the agent lives on.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import platform
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from guest import crashes, modules, watchdog
from guest.bond_steps import NAMES_A_SLAVE, steps
from guest.endpoint import Endpoints
from guest.ethtool import driver_counters
from guest.ifstats import interface_counters
from guest.kexec import load as kexec
from guest.links import Link, LinkMonitor, driver_of, set_mtu, set_up
from guest.netpoll.drivers.pmd.claim import pci_address
from guest.numbered import numbered_line, size_of
from guest.records import kernel_records

PORT_NAME = "org.netpoll.agent"
_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps() would make one for each message
OUTPUT_LIMIT = 64 << 10  # bytes kept of a command's output
NETCONSOLE = Path("/sys/kernel/config/netconsole")


class Channel:
    """Lines out, from any thread. Events are gathered while a write is under way and leave together."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._events: list[tuple[str, float, dict[str, Any]]] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def emit(self, kind: str, /, **keys: Any) -> None:
        """Queue one event, stamped now. Never blocks on the host."""
        with self._changed:
            self._events.append((kind, time.monotonic(), keys))
            self._changed.notify()

    def answer(self, number: int, **outcome: Any) -> None:
        """Answer a request; the events before it leave first, so that the host has seen what the answer is about."""
        self._flush()
        self._write({"id": number, **outcome})

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events)
            self._flush()

    def _flush(self) -> None:
        with self._writing:
            with self._changed:
                batch, self._events = self._events, []
            if batch:
                self._send({"events": batch})

    def _write(self, message: dict[str, Any]) -> None:
        with self._writing:
            self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        data = _json(message).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]


class Agent:
    """The operations. Device names in requests are the testcase's ids; the agent knows which interface each became."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ids: dict[str, str] = {}  # interface name -> id
        self._names: dict[str, str] = {}  # id -> interface name
        self._active: dict[str, str | None] = {}  # bond id -> active slave's id
        self.links = LinkMonitor(self._link_changed)
        self.endpoints = Endpoints(channel.emit)

    # -- what the harness asks about the machine

    def op_hello(self) -> dict[str, Any]:
        return {"release": platform.release(), "python": platform.python_version(), "machine": platform.machine()}

    def op_clock(self) -> dict[str, Any]:
        return {"monotonic": time.monotonic()}

    def op_kallsyms(self) -> dict[str, Any]:
        """The kernel's and its modules' functions with their addresses, and init_net's, where the list of devices begins: zlib, base64."""
        Path("/proc/sys/kernel/kptr_restrict").write_text("0")
        lines = Path("/proc/kallsyms").read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if line.split(None, 2)[1] in "tTwW" or line.endswith(" init_net\n"))
        return {"packed": base64.b64encode(zlib.compress(text.encode(), 1)).decode()}

    def op_run(self, argv: list[str], within: float = 15, may_fail: bool = False) -> dict[str, Any]:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=within, check=False)
        result: dict[str, Any] = {
            "argv": argv,
            "rc": done.returncode,
            "out": done.stdout[:OUTPUT_LIMIT].decode(errors="replace"),
            "err": done.stderr[:OUTPUT_LIMIT].decode(errors="replace"),
        }
        self._channel.emit("run", **result)
        if done.returncode and not may_fail:
            raise RuntimeError(f"{argv} ended with status {done.returncode}: {result['err'].strip()[-500:]}")
        return result

    def op_sysctl(self, values: dict[str, str | int]) -> None:
        for name, value in values.items():
            path = Path("/proc/sys") / name.replace(".", "/")
            path.write_text(str(value))

    # -- programs and files, for other channels and for set-up by hand

    def op_port(self, name: str) -> str:
        """The device of a virtio-serial port: where qemu-ga or sshd is to serve."""
        return find_port(name)

    def op_file_write(self, path: str, data: str, append: bool = False, mode: int | None = None) -> None:
        """Base64 to a file; a large one comes in several requests, all but the first with `append`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
        with open(os.open(path, flags, 0o644), "wb") as file:
            if mode is not None and not append:
                os.fchmod(file.fileno(), mode)
            file.write(base64.b64decode(data))

    def op_file_read(self, path: str, offset: int, size: int) -> dict[str, str]:
        """At most `size` bytes from `offset` on, as base64; none at the end."""
        with open(path, "rb") as file:
            file.seek(offset)
            return {"data": base64.b64encode(file.read(size)).decode()}

    # -- modules

    def op_module(self, name: str, parameters: dict[str, str | int | bool]) -> dict[str, str]:
        return modules.load(name, parameters)

    def op_insmod(self, path: str) -> dict[str, int]:
        """The answer says where its code is. /proc/kallsyms does, too, which takes an emulated guest a second."""
        modules.insert(path)
        return modules.code_of(Path(path).stem)

    # -- links

    def op_nic_wait(self, id: str, mac: str, driver: str = "", within: float = 15) -> dict[str, Any]:  # noqa: A002
        """Wait for the hot-plugged NIC with this MAC, and learn its interface."""
        began = time.monotonic()
        link = self.links.wait(
            lambda link: link.mac == mac and self._ids.get(link.name, id) == id and bool(driver_of(link.name)),
            within,
            f"a NIC with MAC {mac}",
        )  # a slave has its bond's MAC, which is another NIC's own
        bound = driver_of(link.name)
        if driver and bound != driver:
            raise RuntimeError(f"{link.name} ({mac}) is bound to {bound}, not to {driver}")
        self._learn(id, link.name)
        self._channel.emit("nic", nic=id, ifname=link.name, driver=bound, seconds=round(time.monotonic() - began, 4))
        return {"ifname": link.name, "driver": bound}

    def op_nic_up(self, id: str, mtu: int | None = None) -> None:  # noqa: A002
        name = self._name(id)
        if mtu is not None:
            set_mtu(name, mtu)
        set_up(name)

    def op_nic_down(self, id: str) -> None:  # noqa: A002
        set_up(self._name(id), False)

    def op_bond_create(
        self,
        id: str,  # noqa: A002
        mode: str,
        slaves: list[str],
        miimon: int = 100,
        options: dict[str, str | int] | None = None,
        within: float = 15,
    ) -> dict[str, Any]:
        """A bond over NICs already known, through the bonding driver's sysfs; up when this returns."""
        Path("/sys/class/net/bonding_masters").write_text(f"+{id}")
        self.links.wait(lambda link: link.name == id, within, f"the bond {id}")
        self._learn(id, id)
        named = {k: self._name(str(v)) if k in NAMES_A_SLAVE else v for k, v in (options or {}).items()}
        for step in steps(id, mode, [self._name(slave) for slave in slaves], miimon, named):
            if step.knob:
                Path(f"/sys/class/net/{id}/bonding/{step.knob}").write_text(step.value)
            else:
                set_up(step.value, step.up)
        return {"ifname": id}

    def op_bond_release(self, id: str, slave: str) -> None:  # noqa: A002
        """bond_release(): the slave keeps its driver and loses its master, and is closed."""
        Path(f"/sys/class/net/{id}/bonding/slaves").write_text(f"-{self._name(slave)}")

    def op_bond_enslave(self, id: str, slave: str) -> None:  # noqa: A002
        """bond_enslave() of a NIC that is down, which it sets up."""
        set_up(self._name(slave), False)
        Path(f"/sys/class/net/{id}/bonding/slaves").write_text(f"+{self._name(slave)}")

    def op_bond_known(self, id: str, within: float = 15) -> dict[str, Any]:  # noqa: A002
        """Wait for a bond that somebody else sets up, over another channel, and learn its interface."""
        self.links.wait(lambda link: link.name == id, within, f"the bond {id}")
        self._learn(id, id)
        return {"ifname": id}

    def op_carrier(self) -> None:
        """Tell the carrier of every known device as it is now."""
        for id_, name in list(self._names.items()):
            link = self.links.find(lambda link, name=name: link.name == name)  # type: ignore[misc]
            if link is not None:
                self._channel.emit("carrier", nic=id_, up=link.carrier)
        self.endpoints.carriers()

    def _name(self, id_: str) -> str:
        if id_ not in self._names:
            raise RuntimeError(f"no device {id_!r}; known are {sorted(self._names)}")
        return self._names[id_]

    def _learn(self, id_: str, name: str) -> None:
        self._ids[name], self._names[id_] = id_, name
        link = self.links.find(lambda link: link.name == name)
        if link is not None:
            self._channel.emit("carrier", nic=id_, up=link.carrier)

    def _link_changed(self, before: Link | None, after: Link | None) -> None:
        link = after or before
        assert link is not None
        id_ = self._ids.get(link.name)
        if id_ is not None and (before is None or after is None or before.carrier != after.carrier):
            self._channel.emit("carrier", nic=id_, up=after is not None and after.carrier)
        if after is None:
            self._ids.pop(link.name, None)  # the next to have this name may be another
        for bond in glob.glob("/sys/class/net/*/bonding/active_slave"):
            self._active_changed(Path(bond))

    def _active_changed(self, knob: Path) -> None:
        bond = self._ids.get(knob.parts[4])
        if bond is None:
            return
        try:
            active = self._ids.get(knob.read_text().strip())
        except OSError:
            return  # the bond went away meanwhile
        if self._active.get(bond, "") != active:
            self._active[bond] = active
            self._channel.emit("bond", bond=bond, active=active)

    # -- the kernel's netconsole

    def op_netconsole_open(self, **endpoint: Any) -> dict[str, Any]:
        """A netconsole target through configfs (Documentation/networking/netconsole.rst)."""
        target = NETCONSOLE / endpoint["id"]
        target.mkdir()
        values = {
            "dev_name": self._name(endpoint["devices"][0]),
            "local_ip": endpoint["local_ip"],
            "local_port": endpoint["local_port"],
            "remote_ip": endpoint["remote_ip"],
            "remote_port": endpoint["remote_port"],
            "remote_mac": endpoint["remote_mac"],
            "extended": int(endpoint.get("extended", False)),
        }
        for name, value in values.items():
            (target / name).write_text(str(value))
        (target / "enabled").write_text("1")
        if (target / "enabled").read_text().strip() != "1":
            raise RuntimeError(f"netconsole on {values['dev_name']} stayed disabled; the console says why")
        return {name: str(value) for name, value in values.items()}

    def op_netconsole_again(self, id: str, device: str) -> None:  # noqa: A002
        """Enable a target whose interface went away and came back, perhaps under another name."""
        target = NETCONSOLE / id
        if (target / "enabled").read_text().strip() == "1":
            (target / "enabled").write_text("0")
        (target / "dev_name").write_text(self._name(device))
        (target / "enabled").write_text("1")

    def op_kmsg_send(self, endpoint: str, label: str, count: int, background: bool = False, **shape: Any) -> None:
        """Write numbered lines to /dev/kmsg; each becomes one kernel message, printed on every console."""
        self._channel.emit("sending", endpoint=endpoint, label=label, count=count, **_public(shape))
        work = partial(self._kmsg, endpoint, label, count, **shape)
        self._start(background, work, endpoint=endpoint, label=label)

    def _kmsg(
        self, endpoint: str, label: str, count: int, size_low: int, size_high: int, interval: float, seed: int
    ) -> None:
        with open("/dev/kmsg", "wb", buffering=0) as kmsg:
            for seq in range(count):
                line = numbered_line(label, seq, seed, size_of(seed, seq, size_low, size_high))
                kmsg.write(f"<6>{line}\n".encode())
                self._channel.emit("kmsg", endpoint=endpoint, label=label, first=seq, last=seq)
                if interval:
                    time.sleep(interval)  # the testcase's own pace, not a wait for anything
        self._channel.emit("done", endpoint=endpoint, label=label, count=count)

    def op_records(self) -> None:
        """Tell what the kernel's log holds."""
        every = list(kernel_records())
        for first in range(0, len(every), 100):
            self._channel.emit("records", records=every[first : first + 100])

    def op_ifstats(self) -> None:
        """Tell what the kernel has counted on each known NIC and bond, what its driver has, and what our stack has. The driver comes
        first: asking it makes e1000 read its chip, as its watchdog does every two seconds."""
        for id_, name in list(self._names.items()):
            if Path(f"/sys/class/net/{name}").exists():
                began = time.monotonic()
                own = {f"ethtool_{key}": value for key, value in driver_counters(name).items()}
                values = interface_counters(name) | own
                self._channel.emit("ifstats", nic=id_, values=values, seconds=round(time.monotonic() - began, 6))
        self.endpoints.counters()

    # -- our own stack

    def op_np_open(self, **endpoint: Any) -> dict[str, Any]:
        return self.endpoints.open(endpoint, [self._name(device) for device in endpoint["devices"]])

    def op_pmd_open(self, **endpoint: Any) -> dict[str, Any]:
        """An endpoint over NICs that our drivers take from the kernel: what the monitor says of their interfaces is no news any more."""
        names = [self._name(nic) for nic in endpoint["nics"]]
        for name in names:
            self._ids.pop(name, None)
        opened = self.endpoints.open(endpoint, names)
        self.endpoints.carriers()
        return opened

    def op_np_send(self, endpoint: str, label: str, background: bool = False, **shape: Any) -> None:
        work = partial(self.endpoints.send, endpoint, label, **shape)
        self._start(background, work, endpoint=endpoint, label=label)

    def op_np_crash(self) -> None:
        """Our stack is as if its machine had crashed; the machine itself lives on."""
        self.endpoints.crash()

    def op_np_counters(self) -> None:
        self.endpoints.counters()

    def op_forget(self) -> None:
        """As on the first day: no endpoint, no target, no interface that is known."""
        self.endpoints.close()
        self.endpoints = Endpoints(self._channel.emit)
        for target in NETCONSOLE.iterdir():
            target.rmdir()
        for known in (self._ids, self._names, self._active):
            known.clear()

    # -- the end

    def op_capture_load(self, kernel: str, initrd: str) -> None:
        """Put a capture kernel into the crash region; the files are not needed afterwards, and memory is short."""
        kexec.load(Path(kernel), Path(initrd), "console=ttyS0,115200")
        for path in (kernel, initrd):
            os.unlink(path)

    def op_capture_arm(self, cmdline: str, pci: str | None = None) -> None:
        """What the capture kernel is to do. `pci`: the NIC whose PCI address is put in where the words say PCI."""
        kexec.arm(cmdline if pci is None else cmdline.replace("=PCI", f"={pci_address(self._name(pci))}"))

    def op_crash(self, how: str) -> None:
        """Does not return when it works at once."""
        crashes.crash(how)

    def op_watchdog_start(self, driver: str, timeout: int) -> dict[str, int]:
        return watchdog.start(driver, timeout)

    def op_watchdog_starve(self) -> None:
        watchdog.starve()

    def _start(self, background: bool, work: Callable[[], None], **names: str) -> None:
        """A send is always work of a thread of its own: the answer says that it began, the event `done` that it ended."""
        del background  # the harness waits for `done` or does not; here it is all the same
        threading.Thread(target=self._guarded, args=(work, names), daemon=True).start()

    def _guarded(self, work: Callable[[], None], names: dict[str, str]) -> None:
        try:
            work()
        except Exception as error:  # whatever it was, the harness must hear of it and the agent go on
            self._channel.emit("done", **names, count=-1, error=f"{type(error).__name__}: {error}")


def _public(shape: dict[str, Any]) -> dict[str, Any]:
    return {"size": [shape["size_low"], shape["size_high"]], "seed": shape["seed"]}


def find_port(name: str = PORT_NAME) -> str:
    """The device of the virtio-serial port called `name` (there is no udev here to make links)."""
    for attribute in glob.glob("/sys/class/virtio-ports/*/name"):
        if Path(attribute).read_text().strip() == name:
            return "/dev/" + Path(attribute).parent.name
    raise FileNotFoundError(f"no virtio-serial port {name}")


def serve(fd: int) -> None:
    """Answer requests from `fd` until it ends."""
    channel = Channel(fd)
    agent = Agent(channel)
    pending = b""
    while True:
        data = os.read(fd, 1 << 16)
        if not data:  # nobody at the host's end: between the template's last moment and the clone's first
            time.sleep(0.01)  # a virtio port without a host end reads as ended and offers no other sign of its return
            continue
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            _serve_line(agent, channel, line)


def _serve_line(agent: Agent, channel: Channel, line: bytes) -> None:
    try:
        request = json.loads(line)
        operation = getattr(agent, f"op_{request['op']}")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        channel.answer(0, error=f"not a request: {error!r}")
        return
    try:
        result = operation(**request["args"])
    except Exception as error:  # an operation's failure is an answer
        channel.answer(request["id"], error=f"{type(error).__name__}: {error}")
    else:
        channel.answer(request["id"], result=result)


def main() -> int:
    serve(os.open(find_port(), os.O_RDWR | os.O_CLOEXEC))
    return 0


if __name__ == "__main__":
    sys.exit(main())
