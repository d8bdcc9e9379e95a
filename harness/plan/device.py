"""A NIC's `device_add`, and its controller's where it needs one.

In: a `NicPlan` and the author's device properties. Out: QMP commands. Rule: the plan's own arguments come first, then what makes
the model's variant, then the author's word.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.plan.model import NicPlan, Qmp
from harness.plan.nics import MODELS

CONTROLLER_PREFIX = "usb-"


def device_add_served(nic: NicPlan, device: str, properties: Mapping[str, str | int | bool]) -> Qmp:
    """What plugs a NIC in that a process of ours serves; that process has the tap and the MAC."""
    bus = {"bus": nic.bus} if nic.bus else {}
    return Qmp(
        execute="device_add", arguments={"driver": nic.device, "id": device, **bus, **properties}, socket_of=nic.id
    )


def device_add(
    nic: NicPlan,
    device: str,
    netdev: str,
    properties: Mapping[str, str | int | bool],
) -> tuple[Qmp, ...]:
    """What plugs the NIC in, given QEMU's ids for it and its backend. `romfile` empty: an option ROM would only cost time."""
    model = MODELS[nic.model]
    bus = {key: value for key, value in (("bus", nic.bus), ("addr", nic.addr)) if value}
    own = {"driver": nic.device, "id": device, "netdev": netdev, "mac": nic.mac}
    chosen = {**model.properties, **properties}
    if model.controller is None:
        return (Qmp(execute="device_add", arguments={**own, "romfile": "", **bus, **chosen}),)
    controller = CONTROLLER_PREFIX + nic.id
    return (
        Qmp(execute="device_add", arguments={"driver": model.controller, "id": controller, **bus}),
        Qmp(execute="device_add", arguments={**own, "bus": f"{controller}.0", **chosen}),
    )
