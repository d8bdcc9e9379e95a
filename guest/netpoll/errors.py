"""What can go wrong for a netpoll client, grouped by who can mend it.

    NetpollError
    +-- OptionError       the option string: whoever typed it
    +-- SetupError        the device or its address: whoever configures the machine (errno says which)
    |   +-- CarrierTimeout  the link never came, and the caller had asked for one
    +-- MessageTooLong    the caller: a datagram larger than the device's MTU carries

Frames that could not be sent are no errors but counted, and go to the client's drop routine.
"""

import errno


class NetpollError(Exception):
    """Base of all that netpoll raises."""


class OptionError(NetpollError):
    """The option string cannot be parsed. `column` counts from 1, `rest` is what starts there."""

    def __init__(self, opt: str, column: int, why: str) -> None:
        rest = opt[column - 1 :]
        super().__init__(f"couldn't parse config at {rest!r} (column {column} of {opt!r}): {why}")
        self.opt = opt
        self.column = column
        self.rest = rest


class SetupError(NetpollError):
    """netpoll_setup() failed; `errno` as the kernel's return codes."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} [{errno.errorcode.get(code, code)}]")
        self.errno = code


class CarrierTimeout(SetupError):
    """No link within the time given, and require_carrier was set."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(errno.ENETDOWN, f"{name}: no carrier after {seconds:g} s")


class MessageTooLong(NetpollError):
    """A datagram that does not fit the MTU; netpoll does not fragment. Nothing was sent."""

    def __init__(self, size: int, limit: int, device: str) -> None:
        super().__init__(f"{size} octets of payload, but {device} carries at most {limit} in one datagram")
        self.size = size
        self.limit = limit
