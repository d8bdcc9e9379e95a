"""What can go wrong with the testbed, grouped by remedy. None of these says anything about the kernel under test.

TestbedError
├── NoNamespace   the system refuses a network namespace: run as root, or allow user namespaces
├── NoTap         /dev/net/tun is missing or refused: load tun, pass the device into the container
├── QemuDied      QEMU ended or never answered: its command, exit status and last output are in the message
├── QmpRefused    QEMU refused a command: a wrong property, a device that this QEMU lacks
├── GuestSilent   the agent never answered: the console's tail is in the message
├── GuestRefused  the guest answered that it could not: its own words are in the message
└── Unable        nothing is broken, this testbed only cannot do what the case needs: the case is inconclusive
"""

from __future__ import annotations


class TestbedError(Exception):
    """The testbed failed. `hint` is the next step for whoever reads it."""

    __test__ = False  # not a pytest class, whatever its name suggests

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}" if self.hint else self.what


class NoNamespace(TestbedError):
    pass


class NoTap(TestbedError):
    pass


class QemuDied(TestbedError):
    pass


class QmpRefused(TestbedError):
    pass


class GuestSilent(TestbedError):
    pass


class GuestRefused(TestbedError):
    pass


class Unable(TestbedError):
    """Not broken, but too old or too small for this case: inconclusive."""
