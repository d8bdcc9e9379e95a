"""A bond of the guest's bonding driver, set up from outside over any channel.

In: an open `Channel`, the slaves' MACs. Out: a bond that is up. Rule: the steps are those of guest/bond_steps.py, which our agent
takes too; here each is a file written, or an `ip link set`, over the channel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from guest.bond_steps import NAMES_A_SLAVE, steps
from harness.testbed.channels import Channel
from harness.testbed.errors import GuestRefused


async def create(
    channel: Channel,
    bond: str,
    mode: str,
    slaves: Sequence[str],  # MACs
    miimon: int = 100,
    options: Mapping[str, str | int] | None = None,  # of the bonding driver; NAMES_A_SLAVE ones name it by its MAC
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

    named = {k: names[str(v)] if k in NAMES_A_SLAVE else v for k, v in options.items()}
    for step in steps(bond, mode, [names[mac] for mac in slaves], miimon, named):
        if step.knob:
            await channel.put(f"/sys/class/net/{bond}/bonding/{step.knob}", step.value.encode(), within=within)
        else:
            await _link(channel, step.value, "up" if step.up else "down", within)


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
