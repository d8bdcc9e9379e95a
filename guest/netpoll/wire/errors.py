"""What can be wrong with octets from the wire.

    WireError
    +-- Truncated     fewer octets than the header, or a length field in it, promises
    +-- Malformed     a field holds a value that the protocol does not allow
    +-- BadChecksum   the octets are not those that were sent

All three are the peer's (or the wire's) doing: a receiver counts them and drops the frame.
"""


class WireError(ValueError):
    """A frame that cannot be what it claims to be."""


class Truncated(WireError):
    """`have` octets where `need` are required."""

    def __init__(self, what: str, need: int, have: int) -> None:
        super().__init__(f"{what}: {need} octets needed, {have} present")
        self.need = need
        self.have = have


class Malformed(WireError):
    """A field with a value that its protocol does not allow."""


class BadChecksum(WireError):
    """A checksum that does not match."""


def require(what: str, data: bytes | bytearray | memoryview, need: int) -> None:
    """Raise Truncated unless `data` holds at least `need` octets."""
    if len(data) < need:
        raise Truncated(what, need, len(data))
