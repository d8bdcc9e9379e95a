"""What the kernel has counted on an interface, at every layer that it has: /sys/class/net/*/statistics, and linux/if_link.h for the names.

In: an interface's name. Out: numbers by name. Rule: nothing is added up here; a bond's numbers and its slaves' are told as they are.
"""

from __future__ import annotations

from pathlib import Path


def interface_counters(name: str) -> dict[str, int]:
    """Raises OSError for an interface that is not there."""
    folder = Path("/sys/class/net") / name / "statistics"
    return {file.name: int(file.read_text()) for file in sorted(folder.iterdir())}
