"""QEMU's command line, as option/value pairs.

In: a MachinePlan, an accelerator, a memory backend, and the numbers of the descriptors that QEMU inherits. Out: argv. Rule: a
template and its clones differ in memory, kernel and `-incoming` alone, since a restore needs the same devices on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.plan.model import MachinePlan

AGENT_PORT = "org.netpoll.agent"
GUEST_AGENT_PORT = "org.qemu.guest_agent.0"  # qemu-ga's own default
SSH_PORT = "org.netpoll.ssh"  # bytes of an ssh connection; no network is needed for it
Accel = Literal["kvm", "tcg"]
# QEMU keeps up to 1 GiB of translated code. A case fills 20 to 30 MiB of it; with less room it translates twice, with more a clone keeps
# what ran once (docs/speed.md).
ACCEL: dict[Accel, str] = {"kvm": "kvm", "tcg": "tcg,tb-size=32"}


@dataclass(frozen=True)
class Memory:
    """Where the guest's RAM lives. `share=False` on a template's file is copy-on-write: the file is never changed."""

    path: str
    share: bool


@dataclass(frozen=True)
class Boot:
    """What a template boots; a clone needs none of it. `more`: an archive that is unpacked after the initramfs."""

    kernel: Path
    initrd: Path
    more: Path | None = None


@dataclass(frozen=True)
class Disk:
    """An overlay over the image of a guest that we did not build."""

    path: Path
    snapshot: bool  # the overlay stays as it is, too


@dataclass(frozen=True)
class Channels:
    """Descriptors of socket pairs that QEMU inherits; the numbers stay the same in the child. `guest_agent` and `ssh` serve
    `harness.testbed.channels` and lie idle unless somebody opens one; `fast` is a second monitor (harness.testbed.fast_lane). The
    serial console is QEMU's standard input and output."""

    qmp: int
    agent: int
    guest_agent: int
    ssh: int
    fast: int


def machine_argv(
    qemu: Sequence[str],
    plan: MachinePlan,
    accel: Accel,
    memory: Memory,
    channels: Channels,
    start: Boot | Disk | None = None,
    disk: Disk | None = None,
) -> list[str]:
    """The whole command. With `start` the guest starts from its kernel or disk, without it waits for `migrate-incoming`; `disk`:
    what a clone has in the place of the disk that its template started from."""
    pairs: list[tuple[str, str]] = [
        ("-machine", f"{plan.machine},memory-backend=ram,usb=off"),
        ("-accel", ACCEL[accel]),
        ("-cpu", "host" if accel == "kvm" else "max"),
        ("-smp", str(plan.smp)),
        ("-m", f"{plan.memory}M"),
        (
            "-object",
            f"memory-backend-file,id=ram,size={plan.memory}M,mem-path={_escaped(memory.path)},share={_on(memory.share)}",
        ),
        ("-action", "panic=none,reboot=shutdown"),
        ("-device", "pvpanic-pci,id=pvpanic,addr=0x1c"),
        ("-device", "pvpanic,id=pvpanic-isa"),  # the only one with a driver before Linux 5.13; a guest uses one
        ("-chardev", f"socket,id=qmp,fd={channels.qmp}"),
        ("-mon", "chardev=qmp,mode=control"),
        ("-chardev", f"socket,id=fast,fd={channels.fast}"),
        ("-mon", "chardev=fast,mode=control"),
        ("-chardev", "stdio,id=console,signal=off"),
        ("-serial", "chardev:console"),
        ("-device", "virtio-serial-pci,id=vser,addr=0x1d"),
        *_port("agent", channels.agent, AGENT_PORT),
        *_port("guest-agent", channels.guest_agent, GUEST_AGENT_PORT),
        *_port("ssh", channels.ssh, SSH_PORT),
    ]
    if plan.machine == "q35":
        pairs += _q35_buses()
    if (drive := start if isinstance(start, Disk) else disk) is not None:
        pairs += _drive(drive)
    if isinstance(start, Boot):
        pairs += [("-kernel", str(start.kernel)), ("-initrd", str(start.initrd)), ("-append", plan.cmdline)]
    elif start is None:
        pairs += [("-incoming", "defer")]
    flat = [word for pair in pairs for word in pair]
    return [*qemu, "-nodefaults", "-no-user-config", "-display", "none", *flat]


def _port(chardev: str, fd: int, name: str) -> list[tuple[str, str]]:
    return [
        ("-chardev", f"socket,id={chardev},fd={fd}"),
        ("-device", f"virtserialport,chardev={chardev},name={name}"),
    ]


def _drive(disk: Disk) -> list[tuple[str, str]]:
    """`snapshot`: writes go to a file that has no name and ends with QEMU."""
    snapshot = "on" if disk.snapshot else "off"
    return [
        ("-drive", f"if=none,id=disk,format=qcow2,file={_escaped(str(disk.path))},snapshot={snapshot}"),
        ("-device", "virtio-blk-pci,id=vblk,drive=disk,addr=0x1a"),
    ]


def _q35_buses() -> list[tuple[str, str]]:
    """pcie.0 takes no hot-plug: eight root ports for PCIe NICs, one bridge for conventional PCI."""
    ports = [("-device", f"pcie-root-port,id=rp{n},chassis={n + 1},slot={n + 1},addr=0x{0x10 + n:x}") for n in range(8)]
    return [*ports, ("-device", "pcie-pci-bridge,id=pb0,addr=0x1b")]


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _escaped(value: str) -> str:
    """QEMU's option parser doubles a comma that belongs to a value."""
    return re.sub(",", ",,", value)
