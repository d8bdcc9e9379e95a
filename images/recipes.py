"""What is built from which packages: the tables, and nothing that runs.

Rule: a recipe is data. To add a kernel, add a line; its address in the cache changes only with what it says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

UNPACK_VERSION = 4  # raise when images.debs, or what a recipe makes of its tree, changes


@dataclass(frozen=True)
class Recipe:
    """Packages of Debian suites, with their closure, and what of it is unpacked."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    keep: str = ""  # pattern: only packages of the closure whose whole name matches
    only: str = ""  # pattern: only paths that begin so (in a merged-/usr tree)
    drop: str = ""  # pattern: no paths that begin so

    @property
    def release(self) -> str:
        """The suite that is preferred: the last one named."""
        return self.suites[-1]

    @property
    def key(self) -> str:
        """Name under which the cache remembers what this recipe last resolved to."""
        words = [self.name, *self.suites, *self.packages, self.keep, self.only, self.drop, str(UNPACK_VERSION)]
        return f"{self.name}-{hashlib.sha256(repr(words).encode()).hexdigest()[:12]}"


PAPERS = r"usr/share/(doc|man|info|locale|lintian|bug|icons|applications|bash-completion)/"

KERNEL_PACKAGES = r"linux-(image|binary|modules|base)-\d.*"  # newest kernels: image, modules, config in packages apart
KERNEL_FILES = r"boot/|usr/lib/modules/"
# More than half of a kernel's modules: hardware that no guest here has.
NO_SUCH_HARDWARE = (
    r"usr/lib/modules/[^/]+/kernel/(sound/|drivers/(comedi|gpu|hid|hwmon|iio|infiniband|media|scsi|staging)/"
    r"|drivers/net/wireless/|fs/(btrfs|nfs|nfsd|ocfs2|smb|xfs)/)"
)


def _kernel(name: str, *suites: str) -> Recipe:
    return Recipe(f"kernel-{name}", suites, ("linux-image-amd64",), KERNEL_PACKAGES, KERNEL_FILES, NO_SUCH_HARDWARE)


def nfs_modules(kernel: str) -> Recipe:
    """NFS's client, which no guest needs: a dump over it is what ours is compared with."""
    only = r"usr/lib/modules/[^/]+/kernel/fs/nfs/"
    return Recipe(f"nfs-{kernel}", KERNELS[kernel].suites, ("linux-image-amd64",), KERNEL_PACKAGES, only)


QEMU = Recipe("qemu", ("trixie", "trixie-backports"), ("qemu-system-x86", "qemu-utils"), drop=PAPERS)
QEMU_FEATURE = "vfio-user-pci"  # the device that needs a QEMU this new (10.1 and later)

KERNELS = {
    "debian-5.10": _kernel("debian-5.10", "bullseye"),
    "debian-6.1": _kernel("debian-6.1", "bookworm"),
    "debian-6.12": _kernel("debian-6.12", "trixie"),
    "debian-backports": _kernel("debian-backports", "trixie", "trixie-backports"),
}
DEFAULT_KERNEL = "debian-6.1"

# What a module is compiled with: make and the few programs that Kbuild's scripts call. Headers depend on their compiler, and the newest
# ones on their kernel (for its BTF) and all that installing that one takes.
KBUILD = ("binutils", "make", "dash", "coreutils", "findutils", "grep", "mawk", "sed")
NOT_TO_BUILD = r"(?!linux-image|systemd|udev|libsystemd-shared|initramfs|dracut|klibc|openssl|pahole).*"


def headers(kernel: str, release: str, sources: str) -> Recipe:
    """Headers and compiler of exactly this release. `sources`: a digest of what is compiled with them."""
    packages = (f"linux-headers-{release}", *KBUILD)
    return Recipe(f"npcrash-{kernel}-{sources}", KERNELS[kernel].suites, packages, NOT_TO_BUILD, drop=PAPERS)


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
    drop=PAPERS + r"|usr/share/(perl|perl5|zoneinfo)/|usr/lib/x86_64-linux-gnu/(perl|gconv)",
)

# Filters a dump in the capture kernel, and reads one on the host; without the Perl that its other tool is written in. bookworm's leaves out
# what kernels since 6.10 keep in slabs, and with it the tasks.
MAKEDUMPFILE = Recipe(
    "makedumpfile",
    ("trixie", "trixie-backports"),
    ("makedumpfile",),
    r"(?!perl|libperl|libgdbm|libdb5).*",
    drop=PAPERS + r"|usr/share/(perl|perl5|zoneinfo)/|usr/lib/x86_64-linux-gnu/(perl|gconv)",
)

# Where the bench's NFS client sends its dump: a server that needs no nfsd of the host's kernel.
NFS_SERVER = Recipe(
    "nfs-server",
    ("bookworm",),
    ("nfs-ganesha", "nfs-ganesha-vfs"),
    r"nfs-ganesha.*|lib.*|gcc-12-base",
    drop=PAPERS + r"|usr/share/(perl|perl5|zoneinfo)/|usr/lib/x86_64-linux-gnu/(perl|gconv)",
)

# What tests ask for a second opinion, so that no machine has to have it installed; not needed to run testcases.
TOOLS = Recipe(
    "tools",
    ("bookworm",),
    ("cpio", "rsyslog", "sqop", "tshark"),
    drop=PAPERS + r"|usr/share/(perl|perl5|zoneinfo)/|usr/lib/x86_64-linux-gnu/(perl|gconv)",
)

# Attaches to the stub that serves a crashed kernel. Without Python, which would be the larger part of it.
GDB = Recipe("gdb", ("bookworm",), ("gdb-minimal",), drop=PAPERS)

# A browser that tests open the HTML report in; needed for nothing else. It draws without a graphics card's libraries.
BROWSER = Recipe(
    "browser",
    ("bookworm",),
    ("chromium-headless-shell", "fonts-dejavu-core"),
    r"(?!libllvm|libz3|libgl1-mesa-dri|dpkg|tar|x11-utils|xkb-data).*",
    drop=PAPERS + r"|usr/share/(perl|perl5|zoneinfo)/|usr/lib/x86_64-linux-gnu/(perl|gconv)"
    r"|usr/lib/chromium/(libVk|chrome_crashpad|locales/(?!en-US))",
)

# The root that virtme-ng shows its guest, for `bench turnaround`; its init waits for udev's links to virtio ports.
VIRTME_ROOT = Recipe(
    "virtme-root",
    ("bookworm",),
    ("bash", "busybox", "coreutils", "dash", "iproute2", "kmod", "mount", "udev"),
    drop=PAPERS,
)
