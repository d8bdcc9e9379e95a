"""Wire codecs: bytes in, frozen headers out, and back. Nothing here knows a device, a socket or a clock.

One file per protocol, one vocabulary in all of them:

    HEADER_LEN              octets of the fixed header
    check_len(data)         raise Truncated unless a header (and what it promises) is inside `data`
    parse(data) -> Header   bounds-checked; raises a WireError, never IndexError or struct.error
    buffer_len(header)      octets that emit() will write
    emit(header, buf, at=0) write into a writable buffer, return the offset after what was written
    payload(data)           the octets after the header, without copying

The one rule: whatever parse() accepts, emit() writes back octet for octet; a checksum that emit()
computes takes the one form that senders use, also where RFC 1071 would let a receiver accept two.
"""

from guest.netpoll.wire.errors import BadChecksum, Malformed, Truncated, WireError

__all__ = ["BadChecksum", "Malformed", "Truncated", "WireError"]
