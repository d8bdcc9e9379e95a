"""What a plan asks of the guest over a channel of the testcase's choice: a command, a bond.

In: an open `Channel` and a request as the plan has it, with the names and arguments that our agent knows. Out: what the guest
said, told as events of the same kinds. Rule: a request means the same over every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.testbed.channels import Channel, bond


async def perform(
    channel: Channel, op: str, args: Mapping[str, Any], within: float, tell: Callable[..., object]
) -> None:
    """`tell(kind, **keys)` is called as the agent would send events. Raises GuestRefused, GuestSilent."""
    if op == "run":
        ran = await channel.run(args["argv"], float(args.get("within", within)))
        tell("run", argv=list(ran.argv), rc=ran.rc, out=ran.out, err=ran.err, via=channel.name)
        if not args.get("may_fail", False):
            ran.checked()
    elif op == "bond_create":
        macs: Mapping[str, str] = args["macs"]
        options = {name: macs.get(str(value), value) for name, value in args["options"].items()}
        slaves = [macs[slave] for slave in args["slaves"]]
        await bond.create(channel, args["id"], args["mode"], slaves, args["miimon"], options, within)
    else:
        raise ValueError(f"no channel but our agent knows {op!r}")
