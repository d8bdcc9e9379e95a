"""What drivers are known for, whatever a testcase does with them: bugs that the evidence of a case tells by itself.

In: the NICs of a plan. Out: the bugs of their drivers, which `--nic MODEL` would else have every testcase state. Rule: each has a sign that nothing else
gives, a place where the guest stands still or a queue that stays stopped, so it hides no other failure; docs/findings.md has each with its command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from harness.frozen import Frozen
from harness.plan.nics import MODELS


class DriverBug(Frozen):
    """One. `hangs_in`: functions that a CPU of a guest that fell silent is in, innermost first. `queue`: who has stopped the TX queue that last words wait
    behind, as in a testcase's known bug."""

    driver: str  # as in `Model`
    hangs_in: Annotated[tuple[str, ...], Field(strict=False)] = ()
    queue: Literal["driver", "stack"] | None = None
    reason: str


def _old_poll(driver: str, function: str) -> DriverBug:
    reason = (
        f"{function}() calls disable_irq(), which waits for ever for an interrupt that nobody serves (docs/findings.md)"
    )
    return DriverBug(driver=driver, hangs_in=("synchronize_irq", function), reason=reason)


def _own_lock(driver: str, says: str, sends: str) -> DriverBug:
    reason = f"{says}() prints the link's change under the lock that {sends}() takes, and netconsole sends it (docs/findings.md)"
    return DriverBug(driver=driver, hangs_in=("native_queued_spin_lock_slowpath", sends, says), reason=reason)


DRIVER_BUGS = (
    _old_poll("8139cp", "cp_poll_controller"),
    _old_poll("pcnet32", "pcnet32_poll_controller"),
    _old_poll("tulip", "poll_tulip"),
    _old_poll("ne2k-pci", "ei_poll"),
    _own_lock("8139cp", "cp_interrupt", "cp_start_xmit"),
    _own_lock("pcnet32", "pcnet32_watchdog", "pcnet32_start_xmit"),
    _own_lock("pcnet32", "pcnet32_open", "pcnet32_start_xmit"),
    DriverBug(
        driver="pcnet32",
        hangs_in=("native_queued_spin_lock_slowpath", "pcnet32_interrupt", "pcnet32_set_ringparam"),
        reason="pcnet32_set_ringparam() frees a ring under its lock, dma_free_attrs() warns of that, and netconsole polls the driver (docs/findings.md)",
    ),
    DriverBug(
        driver="cdc_ether",
        queue="driver",
        reason="usbnet has no poll_controller; four URBs leave, no interrupt completes them, the rest is lost (docs/findings.md)",
    ),
)


def driver_bugs(models: Iterable[str]) -> tuple[DriverBug, ...]:
    """Of the drivers of these models."""
    drivers = {MODELS[model].driver for model in models}
    return tuple(bug for bug in DRIVER_BUGS if bug.driver in drivers)
