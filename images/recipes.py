"""What is built from which packages: the tables, and nothing that runs.

Rule: a recipe is data. To add a kernel, add a line; its address in the cache changes only with what it says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

UNPACK_VERSION = 1  # raise when images.debs, or what a recipe makes of its tree, changes


@dataclass(frozen=True)
class Recipe:
    """Packages of Debian suites; `keep` limits the closure to packages whose names match this pattern."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    keep: str = ""

    @property
    def release(self) -> str:
        """The suite that is preferred: the last one named."""
        return self.suites[-1]

    @property
    def key(self) -> str:
        """Name under which the cache remembers what this recipe last resolved to."""
        words = [self.name, *self.suites, *self.packages, self.keep, str(UNPACK_VERSION)]
        return f"{self.name}-{hashlib.sha256(repr(words).encode()).hexdigest()[:12]}"


KERNEL_FILES = r"linux-(image|binary|modules|base)-\d.*"  # from 6.19 on, image, modules and config are packages apart


def _kernel(name: str, *suites: str) -> Recipe:
    return Recipe(f"kernel-{name}", suites, ("linux-image-amd64",), KERNEL_FILES)


QEMU = Recipe("qemu", ("trixie", "trixie-backports"), ("qemu-system-x86", "qemu-utils"))
QEMU_FEATURE = "vfio-user-pci"  # the device that needs a QEMU this new (10.1 and later)

KERNELS = {
    "debian-5.10": _kernel("debian-5.10", "bullseye"),
    "debian-6.1": _kernel("debian-6.1", "bookworm"),
    "debian-6.12": _kernel("debian-6.12", "trixie"),
    "debian-backports": _kernel("debian-backports", "trixie", "trixie-backports"),
}
DEFAULT_KERNEL = "debian-6.1"

USERLAND = Recipe(
    "userland",
    ("bookworm",),
    (
        "busybox",
        "dash",
        "ethtool",
        "iproute2",
        "kmod",
        "libpython3-stdlib",
        "openssh-server",
        "openssh-sftp-server",
        "python3-minimal",
        "qemu-guest-agent",
        # Not for the guest: tools that its image and kernels are made with.
        "lz4",
        "zstd",
    ),
)
