"""sysrq over netconsole: the slides' extension ("allow remote user to issue sysrq commands"), working.

In: UDP payloads with their source. Out: one call of the sink for each key. The rule it keeps: a byte reaches the sink
only if it is a sysrq key, is allowed, and came from the configured peer; everything else is counted.

The slides' loop skips every byte (`c < 'a' || c > 'Z'`); this one lets through what `__handle_sysrq` has keys for, 0-9 and
a-z, and nothing else: a kernel would print its help text for any other byte. Beyond address, port and MAC nothing proves
who the sender is, as in the slides; `allowed` can narrow what he may do.
"""

from __future__ import annotations

import io
import os
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

KEYS = frozenset(string.digits + string.ascii_lowercase)
TRIGGER = Path("/proc/sysrq-trigger")
MAX_KEYS = 64  # of one datagram; a longer one is no human's

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a datagram came from, or must come from. A `port` of 0 or empty `mac` is not compared."""

    ip: Address
    port: int = 0
    mac: bytes = b""

    def admits(self, source: Peer) -> bool:
        """`source` is this peer, in each part that is configured."""
        return source.ip == self.ip and self.port in (0, source.port) and self.mac in (b"", source.mac)


def encode_keys(keys: str) -> bytes:
    """The datagram with which a host asks for these keys, in order. Raises ValueError."""
    wrong = sorted(set(keys) - KEYS)
    if wrong or not 0 < len(keys) <= MAX_KEYS:
        raise ValueError(f"sysrq keys {keys!r}: 1..{MAX_KEYS} of 0-9 and a-z" + (f", not {wrong}" if wrong else ""))
    return keys.encode() + b"\n"


def decode_keys(data: bytes) -> str:
    """The keys of a datagram: bytes that are none (newline, capitals, anything) are skipped."""
    return "".join(chr(byte) for byte in data if chr(byte) in KEYS)


class SysrqReceiver:
    """Passes keys from the peer to `sink`. `counts`: keys, stranger, long, forbidden (keys not in `allowed`)."""

    def __init__(self, peer: Peer, sink: Callable[[str], None], allowed: frozenset[str] = KEYS) -> None:
        if not allowed <= KEYS:
            raise ValueError(f"not sysrq keys: {sorted(allowed - KEYS)}")
        self.peer = peer
        self.counts: Counter[str] = Counter()
        self._sink = sink
        self._allowed = allowed

    def receive(self, source: Peer, data: bytes) -> str:
        """Take one datagram; the keys handed to the sink. A sink that raises loses the rest of the datagram."""
        if not self.peer.admits(source):
            self.counts["stranger"] += 1
            return ""
        if len(data) > MAX_KEYS + 2:  # a newline, perhaps with a carriage return
            self.counts["long"] += 1
            return ""
        wanted = decode_keys(data)
        keys = "".join(key for key in wanted if key in self._allowed)
        self.counts["forbidden"] += len(wanted) - len(keys)
        for key in keys:
            self.counts["keys"] += 1
            self._sink(key)
        return keys


class SysrqTrigger(io.FileIO):
    """The sink of a guest: /proc/sysrq-trigger, opened once so that no path is looked up in the moment of need.

    One write a key: the kernel looks at the first byte of a write only. Writing there is not subject to the
    kernel.sysrq mask. Raises OSError when it cannot be opened (not root, or a kernel without CONFIG_MAGIC_SYSRQ).
    """

    def __init__(self, path: Path = TRIGGER) -> None:
        super().__init__(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "w")  # by its name, FileIO would make a file

    def __call__(self, key: str) -> None:
        self.write(key.encode())
