"""What can go wrong, grouped by what follows.

VfioUserError
├── Refused     one message makes no sense: it is answered with an errno, the connection goes on
├── Violation   the byte stream cannot be trusted any more: the connection ends
└── DmaFault    a device touched guest memory that is not there: the device decides what its chip would do
"""

from __future__ import annotations

import os


class VfioUserError(Exception):
    pass


class Refused(VfioUserError):
    """A message that is answered with `errno`."""

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(f"{os.strerror(errno)}: {why}")
        self.errno = errno


class Violation(VfioUserError):
    pass


class DmaFault(VfioUserError):
    """Guest memory [address, address + length) cannot be used."""

    def __init__(self, address: int, length: int, why: str) -> None:
        super().__init__(f"DMA at {address:#x}, {length} bytes: {why}")
        self.address, self.length = address, length
