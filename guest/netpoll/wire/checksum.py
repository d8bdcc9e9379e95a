"""The Internet checksum (RFC 1071) over bytes-like objects.

In: octets. Out: a 16-bit one's complement sum or checksum. The one rule: sums are kept modulo 65535,
which is what end-around carry computes, so one big-integer remainder replaces a loop over words.

Modulo 65535 the two zeros of one's complement (0x0000 and 0xFFFF) fall together. A sum over data that
is not all zero is never +0, so a residue of 0 stands for 0xFFFF and its complement is 0x0000.
"""

from guest.netpoll.wire.errors import BadChecksum

Octets = bytes | bytearray | memoryview


def ones_sum(data: Octets) -> int:
    """Residue modulo 65535 of the big-endian 16-bit words of `data`, zero-padded to an even length."""
    total = int.from_bytes(data, "big")
    return (total << 8 if len(data) & 1 else total) % 65535


def checksum(data: Octets, initial: int = 0) -> int:
    """The value for a checksum field whose place in `data` holds zero; `initial` is a sum to start from."""
    return -(ones_sum(data) + initial) % 65535


def is_valid(data: Octets, initial: int = 0) -> bool:
    """True if `data`, checksum field included, sums to (minus) zero, as RFC 1071 demands of a receiver."""
    return (ones_sum(data) + initial) % 65535 == 0


def verify(what: str, data: Octets, initial: int = 0) -> None:
    """Raise BadChecksum unless is_valid()."""
    if not is_valid(data, initial):
        raise BadChecksum(f"{what}: checksum does not match")


def pseudo_sum(src: bytes, dst: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo header: RFC 768 for 4-octet addresses, RFC 8200 section 8.1 for 16-octet ones."""
    return (ones_sum(src) + ones_sum(dst) + protocol + (length >> 16) + (length & 0xFFFF)) % 65535
