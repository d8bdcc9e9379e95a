"""What the host's kernel has counted on the taps of this network namespace.

In: /proc/self/net/dev, which is the namespace's own whatever is mounted on /sys. Out: numbers by interface and name. Rule: `rx` of a tap is
what came from QEMU, `tx` what was sent to it.
"""

from __future__ import annotations

from pathlib import Path

FIELDS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped")  # net/core/net-procfs.c, dev_seq_printf_stats()
SENT = {"tx_bytes": 8, "tx_packets": 9, "tx_errors": 10, "tx_dropped": 11}  # columns


def tap_counters() -> dict[str, dict[str, int]]:
    """Every interface of the namespace."""
    found = {}
    for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        columns = [int(word) for word in rest.split()]
        sent = {field: columns[column] for field, column in SENT.items()}
        found[name.strip()] = dict(zip(FIELDS, columns, strict=False)) | sent
    return found
