"""Opening a channel on a machine that runs: whatever serves it in the guest is started first, over our agent.

In: a `Machine` and a channel's name. Out: an open `Channel`. Rule: nothing of qemu-ga or sshd runs in a guest unless a channel
to it was asked for, so that a case that does not ask is not disturbed by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.testbed.channels import Channel, ChannelName, Login
from harness.testbed.channels.agent import AgentChannel
from harness.testbed.channels.guest_agent import GuestAgent
from harness.testbed.errors import TestbedError
from harness.testbed.machine import Machine
from harness.testbed.qemu import GUEST_AGENT_PORT, SSH_PORT

if TYPE_CHECKING:
    from harness.testbed.channels.ssh import Ssh

OPEN = 30.0  # seconds; 0.2 under software emulation when nobody else wants the processor

# {port} is the device of the channel's port.
QEMU_GA = "qemu-ga -d -m virtio-serial -p {port} -t /run -f /run/qemu-ga.pid -l /run/qemu-ga.log"
SSHD = (
    "mkdir -p /run/sshd; setsid python3 -S -P -m guest.relay {port} /usr/sbin/sshd -i -e -o PrintLastLog=no"
    " </dev/null >/dev/null 2>/run/sshd.log &"
)


async def open_channel(name: ChannelName, machine: Machine, login: Login | None = None) -> Channel:
    """Raises GuestRefused when the guest has no such server, GuestSilent when that does not answer, QemuDied."""
    channel = await _prepared(name, machine, login)
    await machine.alive(channel.open(OPEN), OPEN + 5, f"the guest's answer over {name}")
    return channel


async def _prepared(name: ChannelName, machine: Machine, login: Login | None) -> Channel:
    match name:
        case "agent":
            return AgentChannel(machine.agent)
        case "qemu-guest-agent":
            await _serve(machine, QEMU_GA, GUEST_AGENT_PORT)
            return GuestAgent(machine.ports["guest_agent"])
        case "ssh":
            return await open_ssh(machine, login)


async def open_ssh(machine: Machine, login: Login | None) -> Ssh:
    """ssh with the server started; not yet connected. Raises TestbedError without a login."""
    from harness.testbed.channels.ssh import Ssh  # paramiko takes 0.2 s to import; most cases never need it

    if login is None:
        raise TestbedError("no ssh to this guest: neither its host key nor a key to log in with is known")
    await _serve(machine, SSHD, SSH_PORT)
    return Ssh(machine.ports["ssh"], login)


async def _serve(machine: Machine, command: str, port: str) -> None:
    device = await machine.alive(machine.agent.ask("port", {"name": port}), 20, f"the guest's port {port}")
    args = {"argv": ["sh", "-c", command.format(port=device)]}
    await machine.alive(machine.agent.ask("run", args), 20, "the agent's answer to run")
