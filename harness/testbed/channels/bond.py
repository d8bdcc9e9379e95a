"""A bond of the guest's bonding driver, set up from outside over any channel.

In: an open `Channel`, the slaves' MACs. Out: a bond that is up. Rule: the same knobs in the same order as `op_bond_create` of
guest/agent.py, so that a case may choose the channel and nothing else changes (Documentation/networking/bonding.rst,
"Configuring Bonding Manually via Sysfs").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harness.testbed.channels import Channel
from harness.testbed.errors import GuestRefused

LATE = ("primary", "active_slave")  # name a slave, so they follow the enslaving


async def create(
    channel: Channel,
    bond: str,
    mode: str,
    slaves: Sequence[str],  # MACs
    miimon: int = 100,
    options: Mapping[str, str | int] | None = None,  # of the bonding driver; LATE ones name a slave by its MAC
    within: float = 15,  # for each request
) -> None:
    """Raises GuestRefused with the guest's words, GuestSilent."""
    names = await interfaces(channel, within)
    options = options or {}
    for mac in slaves:
        if mac not in names:
            raise GuestRefused(f"the guest has no interface with MAC {mac}; it has {sorted(names)}")
    (await channel.run(["modprobe", "bonding", "max_bonds=0"], within)).checked()
    await channel.put("/sys/class/net/bonding_masters", f"+{bond}".encode(), within=within)

    async def knob(name: str, value: str | int) -> None:
        await channel.put(f"/sys/class/net/{bond}/bonding/{name}", str(value).encode(), within=within)

    await knob("mode", mode)
    await knob("miimon", miimon)
    for name, value in options.items():
        if name not in LATE:
            await knob(name, value)
    await _link(channel, bond, "up", within)
    for mac in slaves:
        await _link(channel, names[mac], "down", within)
        await knob("slaves", f"+{names[mac]}")
    for name in LATE:
        if name in options:
            await knob(name, names[str(options[name])])


async def interfaces(channel: Channel, within: float = 15) -> dict[str, str]:
    """MAC -> name of the guest's interfaces, as iproute2 tells them; a slave's MAC is its own, not its bond's."""
    listed = (await channel.run(["ip", "-json", "link", "show"], within)).checked()
    try:
        links = sorted(
            json.loads(listed.out), key=lambda link: -int(link["ifindex"])
        )  # of two alike the older: no master
        return {link.get("permaddr", link.get("address", "")): link["ifname"] for link in links}
    except (ValueError, KeyError, TypeError) as error:
        raise GuestRefused(f"`ip -json link show` said {listed.out[:500]!r}: {error}", "is it iproute2?") from error


async def _link(channel: Channel, name: str, state: str, within: float) -> None:
    (await channel.run(["ip", "link", "set", name, state], within)).checked()
